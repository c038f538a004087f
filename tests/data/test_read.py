"""The same table, whatever it comes as: the same columns, the same features, the same digest."""

from __future__ import annotations

import datetime as dt
import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from steepest.data import prepare, read
from steepest.data.batches import Batches
from steepest.data.digest import content_sha256
from steepest.data.kinds import MISSING_MARKERS
from steepest.data.table import without
from steepest.errors import InputError

COLORS = ["red", "green", "blue", None]


def sample(num_rows: int = 40) -> pl.DataFrame:
    """Every kind of column, with and without missing values."""
    random = np.random.default_rng(0)
    days = [dt.datetime(2020, 1, 1) + dt.timedelta(days=17 * row) for row in range(num_rows)]  # noqa: DTZ001
    return pl.DataFrame(
        {
            "size": random.normal(size=num_rows),
            "rooms": random.integers(1, 9, num_rows),
            "color": [COLORS[row % 4] for row in range(num_rows)],
            "new": [row % 3 == 0 for row in range(num_rows)],
            "gap": [None if row % 5 == 0 else row / 8 for row in range(num_rows)],
            "day": pl.Series(days, dtype=pl.Datetime("us")),
            "price": random.normal(size=num_rows),
        }
    )


def to_file(write: Callable[[pl.DataFrame, Path], Any], name: str) -> Callable[[pl.DataFrame, Path], Any]:
    def form(frame: pl.DataFrame, folder: Path) -> Path:
        write(frame, folder / name)
        return folder / name

    return form


def recoded(change: Callable[[str], bytes]) -> Callable[[pl.DataFrame, Path], Any]:
    return lambda frame, path: path.write_bytes(change(frame.write_csv()))


FORMS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    "csv": to_file(lambda frame, path: frame.write_csv(path), "t.csv"),
    "CSV": to_file(lambda frame, path: frame.write_csv(path), "t.CSV"),
    "txt": to_file(lambda frame, path: frame.write_csv(path, separator="|"), "t.txt"),
    "semicolons": to_file(lambda frame, path: frame.write_csv(path, separator=";"), "t.csv"),
    "tsv": to_file(lambda frame, path: frame.write_csv(path, separator="\t"), "t.tsv"),
    "gz": to_file(recoded(lambda text: gzip.compress(text.encode())), "t.csv.gz"),
    "byte order mark": to_file(recoded(lambda text: b"\xef\xbb\xbf" + text.encode()), "t.csv"),
    "crlf": to_file(recoded(lambda text: text.replace("\n", "\r\n").encode()), "t.csv"),
    "spaces": to_file(recoded(lambda text: text.replace(",", " , ").encode()), "t.csv"),
    "blank lines": to_file(recoded(lambda text: b"\n" + text.replace("\n", "\n\n").encode()), "t.csv"),
    "no last newline": to_file(recoded(lambda text: text.rstrip("\n").encode()), "t.csv"),
    "all quoted": to_file(lambda frame, path: frame.write_csv(path, quote_style="always"), "t.csv"),
    "parquet": to_file(lambda frame, path: frame.write_parquet(path), "t.parquet"),
    "str path": lambda frame, folder: str(FORMS["csv"](frame, folder)),
    "polars": lambda frame, folder: frame,
    "polars lazy": lambda frame, folder: frame.lazy(),
    "polars categorical": lambda frame, folder: frame.with_columns(pl.col("color").cast(pl.Categorical)),
    "narrow types": lambda frame, folder: frame.with_columns(pl.col("rooms").cast(pl.UInt8)),
    "zoned": lambda frame, folder: frame.with_columns(
        pl.col("day").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
    ),
    "pyarrow": lambda frame, folder: frame.to_arrow(),
    "pandas": lambda frame, folder: frame.to_pandas(),
    "pandas arrow": lambda frame, folder: frame.to_pandas(use_pyarrow_extension_array=True),
    "pandas nullable": (
        lambda frame, folder: frame.to_pandas().astype(
            {"size": "Float64", "rooms": "Int64", "gap": "Float64", "new": "boolean", "color": "string"}
        )
    ),
    "pandas objects": lambda frame, folder: frame.to_pandas().astype({"color": object, "new": object}),
    "pandas categorical": lambda frame, folder: frame.to_pandas().astype({"color": "category"}),
    "pandas zoned": (
        lambda frame, folder: frame.to_pandas().assign(
            day=lambda table: table["day"].dt.tz_localize("UTC").dt.tz_convert("America/New_York")
        )
    ),
    "pandas index": lambda frame, folder: frame.to_pandas().set_index(pd.Index(range(40, 0, -1))),
}


@pytest.mark.parametrize("form", FORMS)
def test_same_table_whatever_it_comes_as(form: str, tmp_path: Path) -> None:
    frame = sample()
    table = read(FORMS[form](frame, tmp_path))
    assert_frame_equal(table.frame, frame)
    assert content_sha256(table.frame) == content_sha256(frame)


def test_pandas_is_read_without_pyarrow(tmp_path: Path) -> None:
    """In a process of its own: pandas keeps what it imported."""
    sample().write_csv(tmp_path / "t.csv")
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "import pandas; from steepest.data import read; from steepest.data.digest import content_sha256\n"
        f"path = {str(tmp_path / 't.csv')!r}\n"
        "frame = pandas.read_csv(path).astype({'color': 'category'})\n"
        "assert content_sha256(read(frame).frame) == content_sha256(read(path).frame)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_import_is_light() -> None:
    code = (
        "import sys, steepest.data\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'numba', 'narwhals'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_arrays_become_columns() -> None:
    x = np.arange(6).reshape(3, 2)
    table = read((x, np.array([1.0, np.nan, 3.0])))
    assert table.target == "y"
    assert_frame_equal(table.frame, pl.DataFrame({"x0": [0, 2, 4], "x1": [1, 3, 5], "y": [1.0, None, 3.0]}))
    assert read(x).columns == ["x0", "x1"]
    assert_frame_equal(read(x.tolist()).frame, read(x).frame)  # as it may be trained on


@pytest.mark.parametrize(
    "y",
    [
        ["a", "b", "a"],
        np.array(["a", "b", "a"]),
        np.array(["a", "b", "a"], dtype=object),
        pd.Series(["a", "b", "a"]),
        pd.Series(["a", "b", "a"], dtype="category"),
        pl.Series(["a", "b", "a"]),
    ],
    ids=lambda y: f"{type(y).__name__} {getattr(y, 'dtype', '')}",
)
def test_target_of_text(y: Any) -> None:
    frame = pl.DataFrame({"size": [1.0, 2.0, 3.0]})
    assert_frame_equal(read((frame, y)).frame, frame.with_columns(y=pl.Series(["a", "b", "a"])))


def test_digest_changes_with_any_value_name_or_type() -> None:
    frame = sample()
    others = [
        frame.with_columns(pl.col("color").replace("red", "Red")),
        frame.with_columns(pl.col("gap").fill_null(0.0)),
        frame.with_columns(pl.col("rooms").cast(pl.Float64)),
        frame.rename({"gap": "Gap"}),
        frame.reverse(),
        frame.select(reversed(frame.columns)),
        frame.head(39),
    ]
    assert len({content_sha256(other) for other in [frame, *others]}) == len(others) + 1


def test_missing_markers(tmp_path: Path) -> None:
    cells = [f"{marker},1.5,x\n" for marker in MISSING_MARKERS]
    (tmp_path / "t.csv").write_text("a,b,c\n2,3,y\n" + "".join(cells), encoding="utf-8")
    frame = read(tmp_path / "t.csv").frame
    assert frame.dtypes == [pl.Int64, pl.Float64, pl.String]
    assert frame["a"].null_count() == len(MISSING_MARKERS)


CELLS: list[tuple[list[str], Any]] = [
    (["1", "-2", "+3"], pl.Int64),
    (["1", "2.5", "1e3"], pl.Float64),
    (["1", "99999999999999999999"], pl.Float64),
    (["true", "False", "TRUE"], pl.Boolean),
    (["yes", "no"], pl.String),
    (["2020-01-31", "1999-12-01"], pl.Datetime("us")),
    (["2020-01-31 10:00", "1999-12-01T00:00:01.5", "2000-01-01"], pl.Datetime("us")),
    (["2020-01-31T10:00:00Z", "2020-01-31T10:00:00+01:00"], pl.Datetime("us")),
    (["2020-01", "2020-02"], pl.String),
    (["12-1-2", "13-1-2"], pl.String),
    (["1.2.3", "1.2.4"], pl.String),
    (["NA", ""], pl.Null),
]


@pytest.mark.parametrize(("cells", "dtype"), CELLS, ids=lambda value: str(value))
def test_type_of_cells(cells: list[str], dtype: Any, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{cell},1\n" for cell in cells), encoding="utf-8")
    assert read(tmp_path / "t.csv").frame["a"].dtype == dtype


def test_zones_are_read_as_utc(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n2020-01-31T10:00:00+01:00,1\n", encoding="utf-8")
    assert read(tmp_path / "t.csv").frame["a"][0] == dt.datetime(2020, 1, 31, 9)  # noqa: DTZ001


def test_dates_with_the_year_first_are_dates_by_slashes_too(tmp_path: Path) -> None:
    place = tmp_path / "days.csv"
    place.write_text("day,at,y\n2012/01/02,2012/1/2 03:04,1\n2012/02/03,2012/2/3 04:05,2\n")
    frame = read(place, "y").frame
    assert frame["day"].dt.strftime("%F").to_list() == ["2012-01-02", "2012-02-03"]
    assert frame["at"].dt.strftime("%F %H:%M").to_list() == ["2012-01-02 03:04", "2012-02-03 04:05"]


@pytest.mark.parametrize("day", ["29.10.2023", "10/29/2023", "1-2-23", "29.10.2023 12:00"])
def test_dates_that_can_mean_two_days_stay_text_and_are_said(day: str, tmp_path: Path) -> None:
    place = tmp_path / "days.csv"
    place.write_text(f"day,y\n{day},1\n,2\n{day},3\n")
    table = read(place, "y")
    assert table.frame["day"].to_list() == [day, None, day]
    (note,) = table.notes
    assert note.startswith(
        f"Column 'day' is read as text: dates such as {day!r} may have the day or the month first"
    )


@pytest.mark.parametrize(("stray", "row", "what"), [("12", 3, "dates"), ("2020-02-30", 3, "dates")])
def test_a_stray_text_among_dates_is_said(stray: str, row: int, what: str, tmp_path: Path) -> None:
    cells = ["2020-01-01", "2020-01-02", stray, "2020-01-03"]
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{cell},1\n" for cell in cells), encoding="utf-8")
    (note,) = read(tmp_path / "t.csv").notes
    assert f"1 of its 4 values are not {what}, the first is {stray!r} in row {row}" in note


def test_a_stray_text_among_numbers_is_said(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,1\n,1\nfew,1\n2,1\n", encoding="utf-8")
    (note,) = read(tmp_path / "t.csv").notes
    assert (
        note == "Column 'a' is read as text: 1 of its 3 values are not numbers, the first is 'few' in row 3."
    )


@pytest.mark.parametrize(
    "cells",
    [
        ["5.4%", "12 %"],
        ["$1'234.50", "$3"],
        ["1 234", "12 345"],
        ["(3.50)", "(2)"],
        ["\u22121.5", "\u22122.25"],
        ["7 €"],
    ],
)
def test_numbers_that_only_a_person_reads_as_such_are_said(cells: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a;b\n" + "".join(f"{cell};1\n" for cell in cells), encoding="utf-8")
    (note,) = read(tmp_path / "t.csv").notes
    assert f"have signs or thousands' separators ({cells[0]!r} in row 1); write them plainly" in note


@pytest.mark.parametrize("cell", ["10.0.0.1", "v1.2", "12-34", "10:05", "030 12 34", "%", "$", "4711 AB"])
def test_codes_are_not_taken_for_numbers(cell: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"a;b\n{cell};1\n{cell};2\n", encoding="utf-8")
    assert read(tmp_path / "t.csv").notes == ()


@pytest.mark.parametrize("hint", ["sep=;\r\n", '"sep=;"\n', "SEP=;\n"])
def test_the_line_that_tells_excel_the_separator_is_no_header(hint: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"{hint}a;b\n1;x\n2;y\n", encoding="utf-8-sig")
    assert read(tmp_path / "t.csv").frame.rows() == [(1, "x"), (2, "y")]


def test_decimal_commas_are_read_where_they_are_clear(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a;b\n1,5;x\n2;y\n", encoding="utf-8")
    table = read(tmp_path / "t.csv")
    assert table.frame["a"].to_list() == [1.5, 2.0]
    assert "decimal commas" in table.notes[0]


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("a;b\n2.064;x\n900;y\n1.250;z\n", True),  # numbers below a thousand have no point
        ("a;b\n2.064;1,5\n1.900;2,25\n", True),  # the file's decimals have commas
        ("a;b\n2.064;x\n1.900;y\n", False),
        ("a;b\n0.125;x\n2;y\n", False),
        ("a;b\n2.064;x\n1900;y\n", False),
        ("a;b\n2.064;x\n1.5;y\n", False),
        ("a,b\n2.064,x\n900,y\n", False),  # where commas separate cells, points are decimal
    ],
)
def test_points_that_may_separate_thousands(text: str, refused: bool, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    table = read(tmp_path / "t.csv")
    assert ("a" in table.problems) == refused
    if refused:
        assert "points may separate thousands ('2.064' in row 1)" in table.problems["a"]
        with pytest.raises(InputError, match="may separate thousands"):
            prepare(tmp_path / "t.csv", "a")
    else:
        assert table.frame["a"].dtype == pl.Float64


def test_what_is_said_of_a_column_goes_with_it(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a;b\n1,5;x\n2;y\n", encoding="utf-8")
    assert without(read(tmp_path / "t.csv"), ["a"]).notes == ()


@pytest.mark.parametrize("extra", ["", "\n", "\n\n"])
def test_cells_with_separators_quotes_and_newlines(extra: str, tmp_path: Path) -> None:
    text = '"a, ""quoted""",b\n"1,2\n3",x\n"say ""hi""",y\n' + extra
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    frame = read(tmp_path / "t.csv").frame
    assert frame.columns == ['a, "quoted"', "b"]
    assert frame.rows() == [("1,2\n3", "x"), ('say "hi"', "y")]


def test_a_blank_line_is_a_missing_value_in_a_single_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n\n3\n", encoding="utf-8")
    assert read(tmp_path / "t.csv").frame["a"].to_list() == [1, None, 3]


def test_a_table_can_be_read_first_and_prepared_later(tmp_path: Path) -> None:
    path = FORMS["csv"](sample(), tmp_path)
    later, at_once = prepare(read(path), "price"), prepare(path, "price")
    assert later.data_sha256 == at_once.data_sha256
    assert np.array_equal(later.x_train, at_once.x_train)


def test_files_whose_whole_numbers_no_64_bits_hold(tmp_path: Path) -> None:
    """Unsigned numbers beyond 2^63 in one file, negative ones in the others: as floats, as in one file."""
    for number, dtype in enumerate((pl.UInt64, pl.Int64, pl.Int8)):
        values = [2**64 - 1, 1] if dtype == pl.UInt64 else [-1, 1]
        pl.DataFrame({"a": pl.Series(values, dtype=dtype)}).write_parquet(tmp_path / f"{number}.parquet")
    assert read(tmp_path).frame["a"].to_list() == [2.0**64, 1, -1, 1, -1, 1]
    assert [value for _, batch in Batches(sorted(tmp_path.iterdir())) for value in batch.frame["a"]] == [
        2.0**64, 1, -1, 1, -1, 1,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (2**62, pl.Datetime("ms")),
        (-(2**62), pl.Datetime("ms", "Europe/Vienna")),
        (2**62, pl.Datetime("us")),
        (2**31 - 1, pl.Date),
        (2_932_897, pl.Date),
        (-719_163, pl.Date),
    ],
)
def test_dates_beyond_all_calendars_are_told_of(value: int, dtype: Any, tmp_path: Path) -> None:
    """polars ends in a panic where it is to show one."""
    whole = pl.Series([0, 1, None, value, *range(30)], dtype=pl.Int32 if dtype == pl.Date else pl.Int64)
    frame = pl.DataFrame({"a": whole.cast(dtype), "y": np.arange(34.0)})
    frame.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"column 'a' holds a date beyond the years 1 to 9999 in row 4; "):
        prepare(tmp_path / "t.parquet", "y")


def test_the_first_and_the_last_of_all_dates_are_dates(tmp_path: Path) -> None:
    days = [dt.date(1, 1, 1), dt.date(9999, 12, 31)]
    for column in (pl.Series(days), pl.Series(days).cast(pl.Datetime("ms")), pl.Series(map(str, days))):
        frame = read(pl.DataFrame({"a": column})).frame
        assert frame["a"].to_list() == [dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)]  # noqa: DTZ001
    path = tmp_path / "t.csv"
    path.write_text("a\n2020-01-01\n0000-01-01\n", encoding="utf-8")
    assert read(path).frame["a"].to_list() == ["2020-01-01", "0000-01-01"]
