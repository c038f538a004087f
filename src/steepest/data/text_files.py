"""Text files too large for memory, turned once into Parquet files of typed columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from steepest.data.delimited import read_pieces
from steepest.data.files import check_unpacked, common_schema, told_files
from steepest.data.kinds import DATETIME, Typed, typed_text
from steepest.errors import InputError

__all__ = ["as_parquet"]

_PIECE_BYTES = 1 << 24


def as_parquet(
    paths: Sequence[Path],
    directory: Path,
    told: Callable[[str, float], None] | None = None,
    piece_bytes: int = _PIECE_BYTES,
) -> tuple[list[Path], str]:
    """Write text files as Parquet files into a directory that exists.

    A column's type is settled by all of its cells, as when a file is read whole; so cells are first written as text.

    Args:
        paths: the text files, none of them compressed.
        directory: where to.
        told: called as ``told(what, share)`` on the way.
        piece_bytes: how much is read at a time.

    Returns:
        The Parquet files, and the digest of the text files' bytes.

    Raises:
        InputError: a file is no such table, or their columns differ.
    """
    digest = hashlib.sha256()
    parts: list[Path] = []
    types: dict[str, pl.DataType] = {}
    separators: list[str] = []
    total, done = sum(path.stat().st_size for path in paths), 0
    header: dict[str, pl.DataType] = {}
    for path in paths:
        check_unpacked(path)
        of_file = hashlib.sha256()
        try:
            for cells, separator, raw in read_pieces(path, piece_bytes):
                of_file.update(raw)
                done += len(raw)
                if cells.height:
                    header = header or dict(cells.schema)
                    common_schema([paths[0].name, path.name], [header, dict(cells.schema)])
                    _settle(types, cells, separator, path)
                    parts.append(directory / f"part-{len(parts):06d}.parquet")
                    cells.select(list(header)).write_parquet(parts[-1], compression="lz4")
                    separators.append(separator)
                if told is not None:
                    told("Reading text", done / max(total, 1))
        except OSError as error:
            raise InputError(
                f"{str(path)!r} cannot be read or turned into Parquet ({error.strerror or error})."
            ) from None
        digest.update(of_file.digest())
    if not parts:
        raise InputError(
            f"{told_files(paths)} have a header but no rows; each line after the first is a row."
        )
    for part, separator in zip(parts, separators, strict=True):
        cells = pl.read_parquet(part)
        columns = {column.name: _as(column, types[column.name], separator) for column in cells.get_columns()}
        pl.DataFrame(columns).write_parquet(part, compression="lz4")
    return parts, digest.hexdigest()


def _settle(types: dict[str, pl.DataType], cells: pl.DataFrame, separator: str, path: Path) -> None:
    """Widen each column's type by what a piece holds."""
    for column in cells.get_columns():
        found = _typed(column, separator, path)
        before = types.get(column.name, pl.Null())
        types[column.name] = _wider(before, found.series.dtype)


def _typed(column: pl.Series, separator: str, path: Path) -> Typed:
    found = typed_text(column, separator)
    if found.problem:
        raise InputError(f"In {path.name!r}, {found.problem}.")
    return found


def _wider(one: pl.DataType, other: pl.DataType) -> pl.DataType:
    if one == other or other == pl.Null:
        return one
    if one == pl.Null:
        return other
    numbers = {pl.Int64, pl.Float64}
    return pl.Float64() if {type(one), type(other)} <= numbers else pl.String()


def _as(column: pl.Series, dtype: pl.DataType, separator: str) -> pl.Series:
    """A piece's cells in the type that all cells have."""
    if dtype == pl.String:
        return column
    series = typed_text(column, separator).series
    return series.cast(DATETIME if dtype == DATETIME else dtype)
