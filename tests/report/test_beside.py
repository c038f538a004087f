"""Two comparisons side by side: pairs are matched, differences are seed by seed, and what differed is said."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import steepest
from steepest.cli.main import main
from steepest.comparison.beside import set_beside, write
from steepest.comparison.statistics import difference_intervals
from steepest.errors import InputError
from steepest.report import beside
from steepest.report.build import read_records

FEW: dict[str, Any] = {"hidden": (), "losses": ["mse"], "max_epochs": 3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two comparisons on one table: of sgd and adam for 3 epochs, of adam and momentum for 12."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2))
    place = tmp_path_factory.mktemp("beside")
    table = {"a": x[:, 0], "b": x[:, 1], "y": 30.0 + x @ [1.0, -2.0] + 0.3 * rng.normal(size=120)}
    pl.DataFrame(table).write_csv(place / "table.csv")
    steepest.compare(place / "table.csv", "y", out=place / "one", optimizers=["sgd", "adam"], **FEW)
    longer = FEW | {"max_epochs": 12}
    steepest.compare(place / "table.csv", "y", out=place / "other", optimizers=["adam", "momentum"], **longer)
    return place / "one", place / "other"


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.partition("<main")[2]))


def test_pairs_are_matched_and_differences_are_seed_by_seed(folders: tuple[Path, Path]) -> None:
    one, other = (read_records(folder) for folder in folders)
    found = set_beside(one, other)
    keys = [("mse", "adam", "32", "tuned"), ("mse", "adam", "32", "default")]
    assert sorted(pair["key"] for pair in found["pairs"]) == sorted(keys)
    assert [{entry["key"][1] for entry in side} for side in found["alone"]] == [{"sgd"}, {"momentum"}]
    rows = []
    for pair in found["pairs"]:
        scores = [
            side[2]
            .filter(
                pl.col("optimizer") == "adam", pl.col("lr") == cell["lr"], pl.col("test_rmse").is_not_null()
            )
            .sort("seed")
            for side, cell in zip((one, other), pair["cells"], strict=True)
        ]
        assert scores[0]["seed"].to_list() == scores[1]["seed"].to_list()
        rows.append((scores[1]["test_rmse"] - scores[0]["test_rmse"]).to_numpy())
        assert pair["difference"][0] == pytest.approx(rows[-1].mean(), rel=1e-12)
    wanted = difference_intervals(np.array(rows), np.random.default_rng(0))
    assert [pair["difference"][1:] for pair in found["pairs"]] == [tuple(row) for row in wanted.tolist()]
    differing = {name: (a, b) for name, a, b in found["question"] if a != b}
    assert differing["epochs"] == (3, 12)
    assert differing["optimizers"] == (["sgd", "adam"], ["adam", "momentum"])
    assert set(differing) == {"epochs", "optimizers", "rates of sgd", "rates of momentum"}


def test_the_page_says_it(folders: tuple[Path, Path], tmp_path: Path) -> None:
    page = write(*folders, tmp_path / "page.html").read_text(encoding="utf-8")
    said = text_of(page)
    untuned = next(
        pair for pair in set_beside(*map(read_records, folders))["pairs"] if pair["key"][3] == "default"
    )
    assert untuned["difference"][2] < 0  # four times the epochs at a small rate are better
    assert "1 in B" in said or "2 in B" in said
    assert "better in B" in said
    for folder in folders:
        assert json.loads((folder / "verdict.json").read_text())["sentence"] in page.replace("&#39;", "'")
    assert "Epochs 3 12" in said
    assert "{" not in said  # no dictionary is shown as the code has it
    assert "Only in A" in said
    assert "Only in B" in said
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert write(*folders, tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_beside_itself_nothing_differs(folders: tuple[Path, Path], tmp_path: Path) -> None:
    said = text_of(write(folders[0], folders[0], tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "The same scores in all 4 pairs that both have, to the last digit" in said
    assert "The question was the same" in said
    assert "What differed" not in said


def test_other_rows_or_another_metric_have_no_differences(folders: tuple[Path, Path]) -> None:
    one, other = (read_records(folder) for folder in folders)
    for name, value, word in (
        ("data_sha256", "0" * 64, "data"),
        ("metric", "mae", "metric"),
        ("seed", 7, "seed"),
    ):
        plan = copy.deepcopy(other[1]) | {name: value}
        found = set_beside(one, (other[0], plan, other[2]))
        assert all(pair["difference"] is None for pair in found["pairs"])
        said = text_of(beside.build(("one", "<b>other</b>"), found))
        assert f"They were not judged alike (what differs: {word})" in said
        assert "B less A" not in said
    assert "&lt;b&gt;other" in beside.build(("one", "<b>other</b>"), found)


def test_without_seeds_in_common_there_are_none_either(folders: tuple[Path, Path]) -> None:
    one, other = (read_records(folder) for folder in folders)
    plan = other[1] | {"confirmation_seeds": [9_000]}
    found = set_beside(one, (other[0], plan, other[2]))
    assert "No pair was confirmed on the same seeds in both" in text_of(beside.build(("one", "other"), found))


def test_the_command(
    folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = map(str, folders)
    assert main(["report", one, other]) == 0
    assert "Report: beside.html" in capsys.readouterr().out
    assert main(["report", one, other, "--out", "mine.html"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"beside.html", "mine.html"}
    assert main(["report", one, "--out", "mine.html"]) == 2
    assert "goes with two folders" in capsys.readouterr().err
    assert main(["report", one, str(tmp_path)]) == 2
    with pytest.raises(InputError, match="cannot be written"):
        write(*folders, tmp_path / "no" / "page.html")


@pytest.mark.browser
def test_what_differed_and_what_stands_alone_fit_a_phone(
    browser: Any, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    assert main(["report", *map(str, folders), "--out", str(tmp_path / "page.html")]) == 0
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((tmp_path / "page.html").as_uri())
    for table in ("table.question", "table.alone"):
        widths = page.eval_on_selector_all(table, "all => all.map(one => one.getBoundingClientRect().right)")
        assert widths
        assert max(widths) <= 390
    page.close()
