"""Tables that lie in several files: a directory, or a pattern such as ``data/*.parquet``."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from steepest.errors import InputError

__all__ = [
    "PARQUET",
    "TAKEN",
    "TEXT",
    "check_any_rows",
    "common_schema",
    "expanded",
    "is_parquet",
    "many_files",
    "told_files",
]

TEXT = (".csv", ".tsv", ".tab", ".txt")
PARQUET = (".parquet", ".pq")
TAKEN = "a CSV, TSV or Parquet file (.csv .tsv .tab .txt, also with .gz, .parquet .pq)"

_NUMBERS = "numbers"


def check_any_rows(num_rows: int, paths: Sequence[Path]) -> None:
    """Text files have rows, if not each of them.

    Raises:
        InputError: they have none.
    """
    if not num_rows:
        have = "has" if len(paths) == 1 else "have"
        raise InputError(
            f"{told_files(paths)} {have} a header but no rows; each line after the first is a row."
        )


def many_files(data: Any) -> list[Path] | None:
    """The files of a directory or of a pattern, sorted by name; None where ``data`` names neither.

    In a directory the files of known extensions count, and none whose name begins with ``.`` or ``_``.

    Raises:
        InputError: there are none, or they are of both kinds, text and Parquet.
    """
    if not isinstance(data, str | os.PathLike):
        return None
    if not os.fspath(data):
        raise InputError(f"The data are an empty path; give {TAKEN}.")
    path = expanded(data)
    if os.path.isdir(path):  # False, too, for what can be no path
        found = [entry for entry in _entries(path) if entry.is_file() and entry.name[0] not in "._"]
        paths = sorted(entry for entry in found if is_parquet(entry) or _is_text(entry))
        if not paths:
            raise InputError(
                f"There is no CSV, TSV or Parquet file in the directory {str(path)!r}{_below(path)}."
            )
    elif glob.has_magic(str(path)) and not os.path.exists(path):
        paths = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if not paths:
            raise InputError(f"No file matches {str(path)!r}.")
        for one in paths:
            if not (is_parquet(one) or _is_text(one)):
                raise InputError(f"{one.name!r} has the unknown extension {one.suffix!r}; give {TAKEN}.")
    else:
        return None
    kinds = {is_parquet(one): one.name for one in reversed(paths)}
    if len(kinds) > 1:
        raise InputError(
            f"{kinds[True]!r} is a Parquet file and {kinds[False]!r} a text file; the files of one table are of one"
            " kind: give a pattern such as 'data/*.parquet'."
        )
    return paths


def expanded(data: str | os.PathLike[str]) -> Path:
    """A path with ``~`` expanded; as it stands where there is no such home, which reading it will say."""
    path = Path(os.fspath(data))
    with contextlib.suppress(RuntimeError):
        return path.expanduser()
    return path


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError as error:
        raise InputError(f"{str(directory)!r} cannot be read ({error.strerror or error}).") from None


def told_files(paths: Sequence[Path]) -> str:
    """What to call the files in a message."""
    return repr(paths[0].name) if len(paths) == 1 else f"the {len(paths)} files from {paths[0].name!r} on"


def is_parquet(path: Path) -> bool:
    """Whether a file's name says that it is Parquet."""
    return path.suffix.lower() in PARQUET


def is_compressed(path: Path) -> bool:
    """Whether a file can be read whole only."""
    return path.suffix.lower() == ".gz"


def check_unpacked(path: Path) -> None:
    """A file too large for memory can be read a piece at a time.

    Raises:
        InputError: it is compressed.
    """
    if is_compressed(path):
        raise InputError(
            f"{path.name!r} is compressed, and too large for memory: unpack it first, or write it as Parquet."
        )


def _is_text(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in TEXT


def _below(path: Path) -> str:
    if any(entry.is_dir() for entry in _entries(path)):
        return (
            f", only directories; a pattern such as {str(path / '*' / '*.parquet')!r} would reach into them"
        )
    return ""


def common_schema(names: Sequence[str], schemas: Sequence[dict[str, pl.DataType]]) -> dict[str, pl.DataType]:
    """The columns that all files have, each of a type that holds every file's values; the first file says the order.

    Raises:
        InputError: a file lacks a column or has one more, or a column holds other things there.
    """
    first, common = names[0], dict(schemas[0])
    for name, schema in zip(names[1:], schemas[1:], strict=True):
        for here, there, columns in (
            (first, name, common.keys() - schema.keys()),
            (name, first, schema.keys() - common.keys()),
        ):
            if columns:
                raise InputError(
                    f"{here!r} has a column {min(columns)!r} and {there!r} has none; the files of one table have the"
                    " same columns."
                )
        for column, dtype in schema.items():
            joined = _joined(common[column], dtype)
            if joined is None:
                raise InputError(
                    f"Column {column!r} holds {_held(dtype)} in {name!r} and {_held(common[column])} in {first!r}; a"
                    " column holds one kind of value in all files of a table."
                )
            common[column] = joined
    return common


def _joined(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """A type for the values of both, or None."""
    if one == other or other == pl.Null:
        return one
    if one == pl.Null:
        return other
    if _held(one) != _held(other):
        return None
    if _held(one) == _NUMBERS:
        whole = one.is_integer() and other.is_integer()
        if whole and any(dtype in (pl.UInt64, pl.Int128) for dtype in (one, other)):
            return pl.Int128()  # what it holds becomes one of the six types later, as in one file
        return pl.Int64() if whole else pl.Float64()
    return pl.String() if _held(one) == "text" else pl.Datetime("us") if _held(one) == "dates" else None


def _held(dtype: pl.DataType) -> str:
    """What a column of the type holds, in words."""
    if dtype.is_numeric():
        return _NUMBERS
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    if dtype == pl.Date or (isinstance(dtype, pl.Datetime) and dtype.time_zone is None):
        return "dates"
    return {pl.Boolean: "booleans", pl.Null: "no value"}.get(type(dtype), f"values of type {dtype}")
