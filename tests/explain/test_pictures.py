"""The drawing as a file: PNG, SVG and HTML that are whole and need no network."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from steepest.errors import InputError
from steepest.explain import explain
from steepest.explain.figure import Figure
from steepest.explain.picture import specification
from steepest.explain.regimes import REGIMES
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS

DRAWN = [name for name in LOSSES if LOSSES[name].formula.family != "composite"]


def figure_of(name: str) -> Figure:
    figure = explain(name).figure
    assert figure is not None
    return figure


@pytest.mark.parametrize("name", [*DRAWN, *OPTIMIZERS, *REGIMES])
def test_every_name_has_a_picture_of_two_panels(name: str) -> None:
    spec = specification(figure_of(name))
    assert len(spec["hconcat"]) == 2
    assert all(spec["datasets"].values())


def test_png_is_drawn_at_twice_the_size(tmp_path: Path) -> None:
    explain("mae").save(tmp_path / "mae.png")
    content = (tmp_path / "mae.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert 1600 < width < 2200
    assert 600 < height < 1200


@pytest.mark.parametrize("name", ["huber", "adam"])
def test_svg_names_its_axes_and_lines(tmp_path: Path, name: str) -> None:
    page = explain(name)
    page.save(str(tmp_path / "page.SVG"))
    text = (tmp_path / "page.SVG").read_text(encoding="utf-8")
    said = {element.text for element in ET.fromstring(text).iter() if element.text}
    figure = figure_of(name)
    for panel in figure.panels:
        assert {panel.title, panel.x_title, panel.y_title} <= said
    assert {line.name for line in figure.legend} <= said
    assert figure.title in said


def test_a_notebook_shows_the_words_and_the_drawing() -> None:
    text = explain("cross_entropy")._repr_html_()
    assert "body {" not in text  # a notebook's page is the notebook's
    assert text.startswith('<div class="steepest-page">')
    assert "<svg" in text
    for fact in LOSSES["cross_entropy"].formula.bad_at:
        assert fact.replace("'", "&#x27;") in text
    loads = re.findall(r"(?:src|href)\s*=\s*\"([^\"#]*)|@import|<script|<link", text)
    assert loads == []


@pytest.mark.parametrize("place", ["page.svg", "page.png", "page.html"])
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in DRAWN])
def test_a_page_without_a_drawing_says_so(tmp_path: Path, name: str, place: str) -> None:
    with pytest.raises(
        InputError, match=f"^{name} has no drawing to save: .* so its page is words alone\\.$"
    ):
        explain(name).save(tmp_path / place)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "found"), [("page.jpg", "'.jpg'"), ("page", "no suffix"), ("page.pdf", "'.pdf'")]
)
def test_another_suffix_is_refused(tmp_path: Path, place: str, found: str) -> None:
    with pytest.raises(InputError, match=r"saved as \.png, \.svg or \.html") as refusal:
        explain("mse").save(tmp_path / place)
    assert found in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        explain("mse").save(tmp_path / "nowhere" / "page.svg")


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.svg").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        explain("mse").save(tmp_path / "page.svg")
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.svg"]


def test_what_stood_there_stays_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "page.svg"
    place.write_text("before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"cannot be written: No space left on device\.$"):
        explain("mse").save(place)
    assert place.read_text() == "before"
    assert list(tmp_path.iterdir()) == [place]
