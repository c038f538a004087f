"""From whatever the user hands over to a table of typed columns."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from steepest.backends.available import available_bytes, in_words
from steepest.data.delimited import read_delimited
from steepest.data.files import (
    PARQUET,
    TAKEN,
    TEXT,
    check_any_rows,
    common_schema,
    is_parquet,
    many_files,
    told_files,
)
from steepest.data.frames import TARGET_OF_ARRAYS, from_arrays, from_frame, from_matrix
from steepest.data.kinds import Typed, typed, typed_text
from steepest.data.table import Table, check_names, no_such_target
from steepest.errors import InputError, near_names
from steepest.files.parquet import decoded, unpacked_bytes

__all__ = ["read", "table_of", "table_of_cells"]

_TIMES_UNPACKED = 2  # the rows as they were decoded, and as they are used


def read(data: Any, target: str | None = None) -> Table:
    """Read a table; nothing is computed from it yet.

    Args:
        data: the path of a CSV, TSV or Parquet file, of a directory of such, or a pattern of paths; a data frame
            (polars, pandas, pyarrow or another that narwhals knows); a pair ``(X, y)`` of a 2-D array or frame and a
            1-D array, which become columns ``x0``, ``x1``, ... and ``y``; or a 2-D array alone. Lists of lists are
            such arrays.
        target: the name of the target column; None where there is none, as in a table to predict, and for a
            pair ``(X, y)``, whose target is ``y``.

    Raises:
        InputError: the file or object is no table, or has no column ``target``.
    """
    table = data if isinstance(data, Table) else _read(data, target)
    if target is None:
        return table
    target = str(target)
    if target not in table.columns:
        raise no_such_target(target, table.columns, table.source)
    return replace(table, target=target)


def _read(data: Any, target: str | None) -> Table:
    paths = many_files(data)
    if paths is not None:
        return _read_files(paths)
    if isinstance(data, str | os.PathLike):
        return _read_file(_path_of(data))
    if isinstance(data, tuple):
        return _read_pair(data, target)
    frame = from_frame(data, "the data frame")
    if frame is not None:
        return table_of(frame, "the data frame")
    if hasattr(data, "__array__") or _is_rows(data):
        return replace(table_of(from_matrix(data, "the array"), "the array"), by_place=True)
    raise InputError(
        f"The data are of type {type(data).__name__}; give {TAKEN}, a data frame, or a pair (X, y) of arrays."
    )


def _is_rows(data: Any) -> bool:
    """Whether these are lists in a list, the features that a pair ``(X, y)`` may have too."""
    return isinstance(data, list) and isinstance(next(iter(data), None), list | tuple)


def _read_pair(pair: tuple[Any, ...], target: str | None) -> Table:
    if len(pair) != 2:
        raise InputError(f"The data are a tuple of {len(pair)}; give a pair (X, y) of features and target.")
    if target is not None:
        raise InputError(
            f"The target of a pair (X, y) is y; leave target={target!r} out, or give one data frame."
        )
    frame, by_place = from_arrays(*pair)
    return replace(table_of(frame, "(X, y)", TARGET_OF_ARRAYS), by_place=by_place)


def _nearby(path: Path) -> str:
    """What else the folder holds under a similar name, or what would do."""
    with contextlib.suppress(OSError):
        names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
        near = near_names(path.name, names)
        if near.endswith("?"):
            return near
    return f"; give {TAKEN}."


def _path_of(data: str | os.PathLike[str]) -> Path:
    """The path of a file that is there.

    Raises:
        InputError: it is not, or is something that cannot be read as one.
    """
    path = Path(os.fspath(data))
    try:
        path = path.expanduser()
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"There is no file {str(path)!r}{_nearby(path)}") from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise InputError(f"{str(path)!r} cannot be read ({reason}).") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{str(path)!r} is a directory; give {TAKEN}.")
    if not stat.S_ISREG(mode):
        raise InputError(f"{str(path)!r} is a pipe or a device, not a file; give {TAKEN}.")
    return path


def _read_file(path: Path) -> Table:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]
    try:
        if suffix in TEXT:
            cells, separator = read_delimited(path)
            return table_of_cells(cells, separator, repr(path.name))
        if suffix in PARQUET and suffixes[-1] != ".gz":
            return table_of(_read_parquet([path])[0], repr(path.name))
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror or error}).") from None
    raise InputError(f"{path.name!r} has the unknown extension {path.suffix!r}; give {TAKEN}.")


def _read_files(paths: list[Path]) -> Table:
    """The rows of several files, one file's after the other's."""
    source, separator = told_files(paths), ","
    if is_parquet(paths[0]):
        frames = _read_parquet(paths)
    else:
        frames = []
        for path in paths:
            try:
                cells, found = read_delimited(path, is_one_of_many=True)
            except OSError as error:
                raise InputError(f"{str(path)!r} cannot be read ({error.strerror or error}).") from None
            separator = found if cells.height else separator
            frames.append(cells)
        check_any_rows(sum(cells.height for cells in frames), paths)
    schema = common_schema([path.name for path in paths], [dict(frame.schema) for frame in frames])
    columns = [pl.col(name).cast(dtype) for name, dtype in schema.items()]
    frame = pl.concat([frame.select(columns) for frame in frames])
    return table_of(frame, source) if is_parquet(paths[0]) else table_of_cells(frame, separator, source)


def _read_parquet(paths: list[Path]) -> list[pl.DataFrame]:
    """The rows of each file. A file of a few bytes can claim any number of rows, and any text any number of times.

    Raises:
        InputError: a file cannot be decoded, or there is not memory enough for what is in them.
    """
    frames, there, claimed, taken = [], available_bytes(), 0, 0
    for file in decoded(paths, there):
        claimed += file.num_rows * len(file.schema)
        batches = [pl.DataFrame(schema=file.schema)]
        if 8 * claimed > there:
            raise InputError(
                f"{told_files(paths)} claims {claimed:,} values or more, for which {in_words(there)} of memory are not "
                "enough; give a part of its rows or columns."
            )
        for batch in file.batches:
            taken += unpacked_bytes(batch)
            if _TIMES_UNPACKED * taken > there:
                raise InputError(
                    f"{told_files(paths)} holds over {in_words(taken)} once unpacked, for which {in_words(there)} of "
                    "memory are not enough; give a part of its rows or columns."
                )
            batches.append(batch)
        frames.append(pl.concat(batches))
    return frames


def table_of(frame: pl.DataFrame, source: str, target: str | None = None) -> Table:
    """The typed columns of a data frame.

    Raises:
        InputError: two columns share a name, or there are no rows or columns.
    """
    check_names(frame.columns, source)
    if frame.width == 0 or frame.height == 0:
        what = "columns" if frame.width == 0 else "rows"
        raise InputError(
            f"There are no {what} in {source}; a table of at least one row and one column is needed."
        )
    columns = {column.name: typed(column) for column in frame.get_columns()}
    return _table(columns, frame, source, target, [])


def table_of_cells(cells: pl.DataFrame, separator: str, source: str) -> Table:
    """The typed columns of a text file's cells, which it separates so."""
    columns = {column.name: typed_text(column, separator) for column in cells.get_columns()}
    if any(column.has_decimal_commas for column in columns.values()):
        columns = {
            name: Typed(cells[name], problem=column.if_decimal_commas) if column.if_decimal_commas else column
            for name, column in columns.items()
        }
    return _table(columns, cells, source, None, [])


def _table(
    columns: dict[str, Typed], origin: pl.DataFrame, source: str, target: str | None, notes: list[str]
) -> Table:
    notes = notes + [column.note for column in columns.values() if column.note]
    problems = {name: column.problem for name, column in columns.items() if column.problem}
    retyped = {
        name: origin[name]
        for name, column in columns.items()
        if origin[name].dtype == pl.String and column.series.dtype not in (pl.String, pl.Null)
    }
    # By name: a list of columns would rename one without a name, as an index often is.
    frame = pl.DataFrame({name: column.series for name, column in columns.items()})
    return Table(frame, source, target, tuple(notes), retyped, problems)
