"""Rows drawn at random: evenly, the same whatever the files and the memory, and no more of them in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from steepest.data import draw as draw_module
from steepest.data import read
from steepest.data.draw import draw, drawn_rows
from steepest.data.source import open_batches
from steepest.errors import InputError

ROWS = 5_000


@pytest.fixture
def frame() -> pl.DataFrame:
    numbers = np.arange(ROWS)
    return pl.DataFrame(
        {
            "code": [f"{number:05d}" for number in numbers],
            "x": numbers * 0.5,
            "y": numbers,
            "when": ["2026-01-05"] * ROWS,
        }
    )


def numbers_of(table: object) -> list[int]:
    return table.frame["y"].to_list()  # type: ignore[attr-defined]


def test_every_row_is_as_likely() -> None:
    """400 draws of 50 of 200 rows: each row 100 times but for chance, and so each pair of neighbours."""
    counts, pairs = np.zeros(200), np.zeros(199)
    for seed in range(400):
        kept = drawn_rows(200, 50, seed)
        assert len(kept) == len(set(kept.tolist())) == 50
        assert (np.diff(kept) > 0).all()
        counts[kept] += 1
        pairs[kept[:-1][np.diff(kept) == 1]] += 1
    # Variances of counts: 400 p (1 - p), of which a uniform draw's chi-square is 199 on average.
    assert 130 < ((counts - 100) ** 2).sum() / (400 * 0.25 * 0.75) < 275
    assert pairs.mean() == pytest.approx(400 * (50 / 200) * (49 / 199), rel=0.05)


def test_the_draw_does_not_depend_on_how_much_is_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn_rows(3000, 70, 5)
    monkeypatch.setattr(draw_module, "_AT_ONCE", 64)
    assert np.array_equal(drawn_rows(3000, 70, 5), whole)
    assert not np.array_equal(drawn_rows(3000, 70, 6), whole)


def test_files_of_any_kind_give_the_same_rows(tmp_path: Path, frame: pl.DataFrame) -> None:
    frame.write_csv(tmp_path / "one.csv")
    frame.write_parquet(tmp_path / "one.parquet", row_group_size=700)
    (tmp_path / "parts").mkdir()
    for part in range(4):
        frame[part * 1250 : (part + 1) * 1250].write_parquet(tmp_path / "parts" / f"{part}.parquet")
    with_gzip = tmp_path / "one.csv.gz"
    import gzip

    with_gzip.write_bytes(gzip.compress((tmp_path / "one.csv").read_bytes()))
    expected = drawn_rows(ROWS, 300, 7).tolist()
    sources = [tmp_path / "one.csv", tmp_path / "one.parquet", tmp_path / "parts", with_gzip, frame]
    for data in sources:
        table = draw(data, "y", 300, 7)
        assert numbers_of(table) == expected, data
        assert table.frame["x"].to_list() == [0.5 * number for number in expected]
        assert table.target == "y"
        assert "300 of 5,000 rows were drawn at random; the others take no part." in table.notes
    matrix = frame.select("x", "y").to_numpy()
    pair = draw((matrix[:, :1], matrix[:, 1]), None, 300, 7)
    assert pair.frame["y"].to_list() == expected


def test_all_rows_where_there_are_no_more(tmp_path: Path, frame: pl.DataFrame) -> None:
    frame.write_parquet(tmp_path / "one.parquet")
    for data in (tmp_path / "one.parquet", frame):
        table = draw(data, "y", ROWS, 0)
        assert table.frame.equals(read(data, "y").frame)
        assert not [note for note in table.notes if "at random" in note]


def test_rows_that_do_not_fit_are_refused(
    tmp_path: Path, frame: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame.write_parquet(tmp_path / "one.parquet")
    monkeypatch.setattr(draw_module, "available_bytes", lambda: 20_000)
    with pytest.raises(InputError, match=r"^3,000 rows take about .* of memory, where .* give fewer rows\.$"):
        draw(tmp_path / "one.parquet", "y", 3000, 0)
    assert draw(tmp_path / "one.parquet", "y", 10, 0).num_rows == 10


def test_wrong_input_is_said_as_by_reading(tmp_path: Path, frame: pl.DataFrame) -> None:
    frame.write_parquet(tmp_path / "one.parquet")
    with pytest.raises(InputError, match=r"There is no column 'z' in 'one\.parquet'"):
        draw(tmp_path / "one.parquet", "z", 10, 0)
    with pytest.raises(InputError, match="There is no file"):
        draw(tmp_path / "none.parquet", "y", 10, 0)
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "one.parquet").read_bytes()[:-40])
    with pytest.raises(InputError, match="no complete Parquet file"):
        draw(tmp_path / "torn.parquet", "y", 10, 0)


def test_text_of_which_rows_are_drawn_is_read_as_all_of_it_is(tmp_path: Path) -> None:
    """Rows of a file whose numbers have thousands' points and decimal commas were drawn with 2.064 for 2064."""
    rows = "".join(f"{1 + row // 900}.{100 + row % 900};{row},5;{row}%\n" for row in range(300))
    (tmp_path / "cars.csv").write_text(f"a;b;c\n{rows}", encoding="utf-8")
    whole, drawn = read(tmp_path / "cars.csv"), draw(tmp_path / "cars.csv", "b", 50, seed=0)
    assert drawn.problems == whole.problems
    assert list(drawn.problems) == ["a"]
    assert drawn.notes[1:] == whole.notes
    assert len(whole.notes) == 2


def test_text_is_called_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "cars.csv").write_text("a,b\n1,x\n2,y\n3,z\n", encoding="utf-8")
    assert draw(tmp_path / "cars.csv", "b", 2, seed=0).source == "'cars.csv'"
    with open_batches([tmp_path / "cars.csv"]) as batches:
        assert [name for _, _, name in batches.frames()] == ["'cars.csv' from row 1 on"]
