"""The drawing in the terminal: braille, as wide as it may be, told apart without colours."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from steepest.explain import explain
from steepest.explain.braille import draw
from steepest.explain.figure import Figure, Line, Panel


@pytest.mark.parametrize("width", [30, 44, 60, 79, 100, 140])
@pytest.mark.parametrize("name", ["mae", "adam", "sgd", "cross_entropy"])
def test_it_keeps_to_the_width(name: str, width: int) -> None:
    lines = explain(name).terminal(width)
    assert max(len(line) for line in map(str.rstrip, map(str, lines))) <= width
    assert any(0x2800 < ord(sign) <= 0x28FF for line in lines for sign in line.plain)


def test_panels_stand_side_by_side_where_there_is_room() -> None:
    page = explain("mse")
    assert len(page.terminal(100)) < len(page.terminal(60))
    (titles,) = [line.plain for line in page.terminal(100) if "value" in line.plain]
    assert "gradient" in titles


def test_it_asks_the_terminal_how_wide_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert explain("mse").terminal() == explain("mse").terminal(60)


def figure_of(*points: tuple[float, float], series: int = 0) -> Figure:
    x, y = zip(*points, strict=True)
    return Figure("", (Panel("", "", "", (Line("line", x, y, series),)),))


def rows_of(figure: Figure) -> list[str]:
    """The inside of a panel, 10 characters wide."""
    drawn = [line.plain for line in draw(figure, 19)]
    return [line[9:].ljust(10) for line in drawn if line[8:9] in ("┤", "│")]


def test_a_diagonal_climbs_from_corner_to_corner() -> None:
    rows = rows_of(figure_of((0.0, 0.0), (1.0, 1.0)))
    firsts = [min(i for i, sign in enumerate(row) if sign != " ") for row in rows]
    assert firsts == sorted(firsts, reverse=True)
    assert (firsts[0], firsts[-1]) == (9, 0)


def test_a_gap_is_left_where_the_pen_is_lifted() -> None:
    nan = float("nan")
    rows = rows_of(figure_of((0.0, 0.0), (0.4, 0.0), (0.4, nan), (0.6, 1.0), (1.0, 1.0)))
    assert [i for i, row in enumerate(rows) if row.strip()] == [0, len(rows) - 1]


def test_series_differ_without_colours() -> None:
    pictures = {"\n".join(rows_of(figure_of((0.0, 0.0), (1.0, 1.0), series=i))) for i in range(3)}
    assert len(pictures) == 3


def test_colours_only_where_the_terminal_has_them() -> None:
    lines = explain("mae").terminal(80)
    coloured, plain = io.StringIO(), io.StringIO()
    for file, console in (
        (coloured, Console(file=coloured, force_terminal=True, color_system="standard", no_color=False)),
        (plain, Console(file=plain, width=120)),
    ):
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)
        assert file.getvalue()
    assert "\x1b[" in coloured.getvalue()
    assert plain.getvalue().splitlines() == [line.plain for line in lines]


def test_a_terminal_without_braille_is_told_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    (line,) = explain("mse").terminal()
    assert "--out" in line.plain
