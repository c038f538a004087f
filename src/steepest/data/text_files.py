"""Text files too large for memory, turned once into Parquet files of typed columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from steepest.data.delimited import read_pieces
from steepest.data.files import check_any_rows, check_unpacked, common_schema, told_files
from steepest.data.kinds import DATETIME, Typed, typed_text
from steepest.errors import InputError

__all__ = ["as_parquet"]

_PIECE_BYTES = 1 << 24


def as_parquet(
    paths: Sequence[Path],
    directory: Path,
    told: Callable[[str, float], None] | None = None,
    piece_bytes: int = _PIECE_BYTES,
) -> tuple[list[Path], str, list[str]]:
    """Write text files as Parquet files into a directory that exists.

    A column's type is settled by all of its cells, as when a file is read whole; so cells are first written as text.

    Args:
        paths: the text files, none of them compressed.
        directory: where to.
        told: called as ``told(what, share)`` on the way.
        piece_bytes: how much is read at a time.

    Returns:
        The Parquet files, the digest of the text files' bytes, and what there is to say of decimal commas.

    Raises:
        InputError: a file is no such table, or their columns differ.
    """
    digest = hashlib.sha256()
    parts: list[Path] = []
    settled: dict[str, _Settled] = {}
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
                    _settle(settled, cells, separator, path)
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
    check_any_rows(len(parts), paths)
    notes = _decimal_commas(settled, told_files(paths))
    for part, separator in zip(parts, separators, strict=True):
        cells = pl.read_parquet(part)
        columns = {
            column.name: _as(column, settled[column.name].dtype, separator) for column in cells.get_columns()
        }
        pl.DataFrame(columns).write_parquet(part, compression="lz4")
    return parts, digest.hexdigest(), notes


@dataclass
class _Settled:
    """What the pieces of a column have shown so far."""

    dtype: pl.DataType = field(default_factory=pl.Null)
    commas: str | None = None  # the note on its decimal commas
    pointed: str | None = None  # the problem with its points, if the files' decimals have commas
    is_pointed: bool = True  # in every piece


def _settle(settled: dict[str, _Settled], cells: pl.DataFrame, separator: str, path: Path) -> None:
    """Widen each column's type by what a piece holds."""
    for column in cells.get_columns():
        found, so_far = _typed(column, separator, path), settled.setdefault(column.name, _Settled())
        so_far.dtype = _wider(so_far.dtype, found.series.dtype)
        if found.has_decimal_commas:
            so_far.commas = found.note
        if found.series.dtype != pl.Null:
            so_far.pointed = so_far.pointed or found.if_decimal_commas
            so_far.is_pointed &= found.if_decimal_commas is not None


def _decimal_commas(settled: dict[str, _Settled], source: str) -> list[str]:
    """The notes on columns whose commas are decimal ones.

    Raises:
        InputError: beside one stands a column whose points may separate thousands, as when the files are read whole.
    """
    notes = [column.commas for column in settled.values() if column.commas and column.dtype == pl.Float64]
    for column in settled.values():
        if notes and column.pointed and column.is_pointed:
            raise InputError(f"In {source}, {column.pointed}.")
    return notes


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
