"""Every way the input can be wrong, as data: what is given, and what the one sentence says."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse

from steepest.data import prepare, read
from steepest.data.source import large_files
from steepest.errors import InputError


@dataclass(frozen=True)
class BadFile:
    name: str
    content: bytes | str
    says: list[str]
    options: dict[str, Any] = field(default_factory=lambda: {"target": "y"})


def rows(cell: Callable[[int], str], header: str = "a,y", count: int = 30) -> str:
    return header + "\n" + "".join(f"{cell(row)}\n" for row in range(count))


def parquet_bytes() -> bytes:
    import io

    buffer = io.BytesIO()
    pl.DataFrame({"a": range(100), "y": range(100)}).write_parquet(buffer)
    return buffer.getvalue()


GOOD = rows(lambda row: f"{row},{row * 0.5}")

BAD_FILES = [
    BadFile("empty.csv", "", ["'empty.csv' is empty"]),
    BadFile("blank.csv", "\n \n", ["is empty"]),
    BadFile("empty.parquet", "", ["is empty"]),
    BadFile("header.csv", "a,y\n", ["header but no rows"]),
    BadFile("header.csv", "a,y", ["header but no rows"]),
    BadFile("zeros.csv", b"\x00\x01\x02" * 99, ["not a text table", "binary"]),
    BadFile("junk.csv", bytes(range(128, 256)) * 9, ["not UTF-8", "line 1", "0x80"]),
    BadFile("workbook.csv", b"PK\x03\x04" + bytes(99), ["Excel", "export it as CSV"]),
    BadFile("really.csv", parquet_bytes(), ["Parquet file", "name it .parquet"]),
    BadFile("latin1.csv", "a,y\n1,2\ncaf\xe9,3\n".encode("latin-1"), ["not UTF-8", "line 3", "0xe9"]),
    BadFile("utf16.csv", "a,y\n1,2\n".encode("utf-16"), ["UTF-16", "save it as UTF-8"]),
    BadFile("table.xlsx", b"PK", ["unknown extension '.xlsx'", "CSV, TSV or Parquet"]),
    BadFile("table", GOOD, ["unknown extension ''"]),
    BadFile("cut.csv.gz", gzip.compress(GOOD.encode())[:-20], ["no complete gzip"]),
    BadFile("no.csv.gz", GOOD, ["no complete gzip"]),
    BadFile("cut.parquet", parquet_bytes()[:-40], ["'cut.parquet'", "no complete Parquet"]),
    BadFile("junk.parquet", b"PAR1" + bytes(200) + b"PAR1", ["no complete Parquet"]),
    BadFile("swapped.parquet", GOOD, ["no complete Parquet"]),
    BadFile("twice.csv", rows(lambda row: "1,2,3", "a,y,a"), ["Columns 1 and 3", "same name 'a'"]),
    BadFile("short.csv", GOOD + "7\n8,9\n", ["Row 31", "1 cells", "header has 2", "commas"]),
    BadFile("long.csv", "a,y\n1,2\n1,2,3\n1,2\n", ["Row 2", "3 cells"]),
    BadFile("long.tsv", "a\ty\n1\t2\n1\t2\t3\n", ["Row 2", "3 cells", "tabs"]),
    BadFile("quotes.csv", 'a,y\n1,"never closed\n2,3\n', ["Line 2", "double quote", "never closed"]),
    BadFile("quotes.csv", 'a,y\n5" pipe,1\n6" pipe,2\n', ["Line 2", "double quote"]),
    BadFile("quotes.csv", '"a",y\n"5",1\n"6"" pipe" or so,2\n', ["Line 3", "double quote"]),
    BadFile("quotes.csv", 'a,y\nx,1\n5", "7\n",2\n', ["Line 3", "double quote"]),
    BadFile(
        "commas.csv",
        rows(lambda row: f'"1,{row}",{row}'),
        ["'commas.csv'", "column 'a'", "'1,0' in row 1", "decimal point"],
    ),
    BadFile(
        "thousands.csv",
        rows(lambda row: f"1,{row + 100};{row}", "a;y"),
        ["column 'a'", "thousands separators"],
    ),
    # the target
    BadFile("t.csv", GOOD, ["No target was given", "a, y"], {}),
    BadFile(
        "t.csv", rows(lambda row: "1,2", "age,price"), ["no column 'prise'", "'price'"], {"target": "prise"}
    ),
    BadFile("t.csv", GOOD, ["no column 'zzz'", "choose from a, y"], {"target": "zzz"}),
    BadFile("t.csv", rows(lambda row: f"{row},5"), ["target 'y'", "5 in every row"]),
    BadFile("t.csv", rows(lambda row: f"{row},NA"), ["target 'y'", "no value in any row"]),
    BadFile("t.csv", rows(lambda row: f"{row},2020-01-{row % 28 + 1:02d}"), ["holds dates"]),
    BadFile(
        "t.csv",
        rows(lambda row: f"{row},{'lots' if row in (6, 9) else row * 1.5}"),
        ["target 'y'", "'lots' in row 7", "task='classification'"],
        {"target": "y", "task": "regression"},
    ),
    BadFile(
        "t.csv",
        rows(lambda row: f"{row},{'lots' if row in (6, 9) else row * 1.5}"),
        ["29 distinct values in 30 rows", "'lots' is not", "task='regression'"],
    ),
    BadFile(
        "t.csv", rows(lambda row: f"{row},id{row}"), ["30 distinct values in 30 rows", "too many for classes"]
    ),
    BadFile(
        "t.csv", rows(lambda row: f"{row},id{row // 3}", count=330), ["110 distinct", "too many for classes"]
    ),
    BadFile(
        "t.csv",
        rows(lambda row: f"{row},{'inf' if row < 2 else row}"),
        ["target 'y'", "infinity in 2 of 30 rows"],
    ),
    BadFile(
        "t.csv",
        rows(lambda row: f"{row},{'abc'[row % 3]}"),
        ["3 classes (a, b, c)", "task='binary' takes two"],
        {"target": "y", "task": "binary"},
    ),
    BadFile("t.csv", rows(lambda row: f"{row},{'ab'[row > 0]}"), ["class 'a' has 1 row", "at least 3"]),
    BadFile(
        "t.csv",
        rows(lambda row: f"{row},{int(row > 0)}"),
        ["0 has 1 row", "quantity, give --task regression"],
    ),
    BadFile(
        "t.csv",
        rows(lambda row: f"{row},{row // 3}"),
        ["30 rows are too few", "quantity, give --task regr"],
    ),
    BadFile("t.csv", rows(lambda row: f"{row},{'ab'[row > 1]}"), ["class 'a' has 2 rows", "at least 3"]),
    BadFile(
        "t.csv",
        rows(lambda row: f"{row},c{row // 3}"),
        ["30 rows are too few for 10 classes", "at least 48"],
    ),
    BadFile("t.csv", GOOD, ["no task 'regresion'", "'regression'"], {"target": "y", "task": "regresion"}),
    BadFile("t.csv", rows(lambda row: f"{row},{1.5 * row}", count=7), ["7 rows", "too few", "at least 8"]),
    BadFile("t.csv", rows(lambda row: f"{row},1e{300 + row % 9}"), ["target 'y'", "too large"]),
    BadFile("t.csv", rows(lambda row: f"{row},{row}e-200"), ["target 'y'", "too little to be computed with"]),
    # the features
    BadFile("t.csv", rows(lambda row: f"{row}", "y"), ["No column of 't.csv'", "only column"]),
    BadFile("t.csv", rows(lambda row: f"7,{row}"), ["No column of 't.csv'", "the same value (7)"]),
    BadFile("t.csv", rows(lambda row: f"id{row},{row}"), ["No column", "a text of its own"]),
    BadFile(
        "t.csv",
        rows(lambda row: f"{row / 7 if row else '#DIV/0!'},{row}"),
        [
            "No column",
            "1 of its 30 values are not numbers, the first is '#DIV/0!' in row 1",
            "a text of its own",
        ],
    ),
    BadFile("t.csv", rows(lambda row: f"{row},${row}.50"), ["too many for classes (the first is '$0.50')"]),
    BadFile("t.csv", rows(lambda row: f"?,{row}"), ["No column", "no value in the training rows"]),
    BadFile(
        "t.csv",
        rows(lambda row: f"{'-Infinity' if row in (3, 4, 5) else row},{row}"),
        ["Column 'a' of 't.csv'", "infinity in 3 of 30 rows"],
    ),
    BadFile("t.csv", rows(lambda row: f"{row}e{300 * (row % 2)},{row}"), ["Column 'a'", "too large"]),
    BadFile("t.csv", rows(lambda row: f"{(-1) ** row * 1.7e308},{row}"), ["Column 'a'", "too large"]),
    # the options
    BadFile("t.csv", GOOD, ["validation=1.5", "share"], {"target": "y", "validation": 1.5}),
    BadFile("t.csv", GOOD, ["test=-0.1", "share"], {"target": "y", "test": -0.1}),
    BadFile("t.csv", GOOD, ["at most 0.999"], {"target": "y", "validation": 0.5, "test": 0.5}),
    BadFile("t.csv", GOOD, ["seed=-1"], {"target": "y", "seed": -1}),
    BadFile("t.csv", GOOD, ["too few", "at least 1500"], {"target": "y", "test": 0.001}),
    BadFile("t.csv", GOOD, ["test=1e-09", "0.001"], {"target": "y", "test": 1e-9}),
]


@pytest.mark.parametrize("case", BAD_FILES, ids=lambda case: f"{case.name}: {case.says[0]}")
def test_bad_file(case: BadFile, tmp_path: Path) -> None:
    path = tmp_path / case.name
    path.write_bytes(case.content if isinstance(case.content, bytes) else case.content.encode())
    with pytest.raises(InputError) as error:
        prepare(path, **case.options)
    check_message(error.value, case.says)


def check_message(error: InputError, says: list[str]) -> None:
    message = str(error)
    assert "\n" not in message
    assert error.__suppress_context__ or error.__context__ is None, "no traceback of another library"
    for fragment in says:
        assert fragment in message


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file") as error:
        prepare(tmp_path / "gone.csv", "y")
    assert "gone.csv" in str(error.value)


@pytest.mark.parametrize(("path", "says"), [("", "an empty path"), ("x" * 5000, "File name too long")])
def test_a_path_that_can_be_none(path: str, says: str) -> None:
    """Above all, no path is not the current directory."""
    for use in (lambda: prepare(path, "y"), lambda: large_files(path, None) or read(path)):
        with pytest.raises(InputError, match=says):
            use()


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no CSV, TSV or Parquet file in the directory"):
        prepare(str(tmp_path), "y")


X = np.arange(40.0).reshape(20, 2)
Y = np.arange(20.0)

BAD_OBJECTS: list[tuple[Any, str | None, list[str]]] = [
    ((X, Y[:-1]), None, ["20 rows", "19 values"]),
    ((X[:, 0], Y), None, ["X must be 2-D", "(20,)", "reshape"]),
    ((X[None], Y), None, ["X must be 2-D", "(1, 20, 2)"]),
    ((X.astype(object), Y), None, ["X is an array of Python objects"]),
    ((X + 1j, Y), None, ["X is an array of type complex128"]),
    ((scipy.sparse.csr_matrix(X), Y), None, ["sparse", "toarray"]),
    ((np.ma.masked_less(X, 3), Y), None, ["masked"]),
    (([[1, 2], [3]], Y), None, ["X cannot be made an array"]),
    ((X[:, :0], Y), None, ["X has no columns"]),
    ((X, Y[:, None]), None, ["y must be 1-D", "(20, 1)", "ravel"]),
    ((X, np.eye(20)), None, ["y must be 1-D", "(20, 20)", "argmax"]),
    ((X, X / X.sum(axis=1, keepdims=True)), None, ["y must be 1-D", "probabilities", "argmax"]),
    ((X, X), None, ["y must be 1-D", "(20, 2)", "One target is predicted at a time", "y[:, 0]"]),
    (pl.DataFrame({"a": Y, "b": Y, "c": Y}), "a, b", ["One column is predicted at a time", "'a, b' names 2"]),
    (pl.DataFrame({"a": Y, "b": Y, "c": Y}), "a,d", ["There is no column 'a,d'"]),
    ((X, np.array([1, "a"] * 10, dtype=object)), None, ["column 'y'", "several kinds (int, str)"]),
    ((pl.DataFrame({"y": Y}), Y), None, ["X has a column 'y'"]),
    ((X, Y), "x0", ["The target of a pair (X, y) is y"]),
    ((X, Y, Y), None, ["a tuple of 3"]),
    (X, None, ["No target was given", "x0, x1"]),
    ([1, 2], "y", ["type list", "data frame"]),
    ({"y": [1]}, "y", ["type dict"]),
    (None, "y", ["type NoneType"]),
    (pl.DataFrame({"a": []}), "a", ["no rows in the data frame"]),
    (pl.DataFrame(), "a", ["no columns in the data frame"]),
    (pd.DataFrame([[1, 2, 3]] * 9, columns=["a", "y", "a"]), "y", ["Columns 1 and 3", "'a'"]),
    (pl.DataFrame({"a": [[1], [2]] * 9, "y": range(18)}), "y", ["column 'a'", "nested values (List(Int64))"]),
    (pl.DataFrame({"a": [{"b": 1}] * 18, "y": range(18)}), "y", ["column 'a'", "nested"]),
    (pl.DataFrame({"a": [b"1"] * 18, "y": range(18)}), "y", ["column 'a'", "Binary"]),
    (pd.DataFrame({"a": [1, "x"] * 9, "y": range(18)}), "y", ["column 'a'", "several kinds (int, str)"]),
    (pd.DataFrame({"a": [object()] * 18, "y": range(18)}), "y", ["column 'a'", "objects (object)"]),
    (pd.DataFrame({"a": [np.inf, 1.0] * 9, "y": range(18)}), "y", ["Column 'a'", "infinity in 9 of 18 rows"]),
]


@pytest.mark.parametrize(("data", "target", "says"), BAD_OBJECTS, ids=lambda value: str(value)[:40])
def test_bad_object(data: Any, target: str | None, says: list[str]) -> None:
    with pytest.raises(InputError) as error:
        prepare(data, target)
    check_message(error.value, says)


def test_an_unusable_column_is_an_error_only_where_it_is_needed() -> None:
    table = read(pl.DataFrame({"a": range(20), "tags": [[1]] * 20}))
    encoding = prepare((X, Y)).encoding
    frame = pl.DataFrame({"x0": X[:, 0], "x1": X[:, 1], "tags": [[1]] * 20})
    assert encoding.apply(read(frame))[0].shape == (20, 2)
    assert set(table.problems) == {"tags"}
