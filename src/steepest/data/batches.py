"""The rows of Parquet files, some thousands at a time, and whether they would fit in memory at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from steepest.backends.available import available_bytes
from steepest.data.files import common_schema, is_parquet, told_files
from steepest.data.read import table_of
from steepest.data.table import Table, check_there, told_of
from steepest.errors import InputError
from steepest.files.parquet import decoded, headers

__all__ = ["Batches", "bytes_in_memory", "files_sha256"]

_HEAD_ROWS = 1000

# What reading a whole file takes, in times its size: Parquet is compressed, and text becomes cells, then columns.
_TIMES_AT_MOST, _TIMES_TEXT, _TIMES_GZIP = 12, 6, 30
_COPIES = 3  # of the encoded rows, at the worst moment: all, their parts, and one more part


def bytes_in_memory(paths: Sequence[Path], enough: float) -> float:
    """About how much memory reading the files whole, and encoding them, would take.

    Args:
        paths: files that exist.
        enough: what less than is not looked at closely.
    """
    size = sum(path.stat().st_size for path in paths)
    if not is_parquet(paths[0]):
        return size * (_TIMES_GZIP if paths[0].suffix.lower() == ".gz" else _TIMES_TEXT)
    if size * _TIMES_AT_MOST < enough:
        return size * _TIMES_AT_MOST
    head = next(file.rows() for file in decoded(paths[:1], available_bytes(), _HEAD_ROWS))
    if head.height == 0:
        return size * _TIMES_AT_MOST
    raw = head.estimated_size() / head.height
    words = [column for column in head.get_columns() if column.dtype in (pl.String, pl.Categorical, pl.Enum)]
    features = head.width + sum(min(column.n_unique(), 32) for column in words)
    typed = (
        8 * (head.width - len(words))
        + sum(column.cast(pl.String).estimated_size() for column in words) / head.height
    )
    num_rows = sum(num_rows for _, num_rows in headers(paths, available_bytes()))
    return num_rows * (raw + typed + 4 * features * _COPIES)


@dataclass(frozen=True)
class _Stamp:
    """What tells a file from a later one of its name."""

    size: int
    time: int
    node: int

    @classmethod
    def of(cls, path: Path) -> _Stamp:
        try:
            found = path.stat()
        except OSError:
            raise InputError(f"{str(path)!r} has vanished while the data were read; start again.") from None
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


class Batches:
    """Rows of Parquet files in order, as often as wanted, a batch at a time; none spans two files.

    Args:
        paths: the files, of one schema.
        ignored: columns to pass over.
        digest: of the files they were made from; None: they are what the user has.
        source: what to call the files they were made from.
        notes: what making them had to decide, a sentence each.

    Raises:
        InputError: a file is no Parquet file, their schemas differ, or there is no such column to pass over.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        digest: str | None = None,
        ignored: Sequence[str] = (),
        source: str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self._digest = digest
        self.notes = [note for note in notes if note not in told_of(notes, ignored)]
        self._are_made = source is not None
        self.paths, self.source = list(paths), source or told_files(paths)
        self._stamps = [_Stamp.of(path) for path in self.paths]
        found = headers(self.paths, available_bytes())
        self.schema = common_schema([path.name for path in self.paths], [schema for schema, _ in found])
        check_there(ignored, list(self.schema), self.source)
        for name in ignored:
            del self.schema[name]
        self._heights = [num_rows for _, num_rows in found]
        self.num_rows = sum(self._heights)
        if not self.schema or not self.num_rows:
            what = "rows" if self.schema else "columns"
            raise InputError(
                f"There are no {what} in {self.source}; a table of at least one row and one column is needed."
            )

    def __iter__(self) -> Iterator[tuple[int, Table]]:
        """Each batch with the number of its first row among all rows, its columns typed."""
        for first, frame, source in self.frames():
            yield first, table_of(frame, source)

    def frames(self) -> Iterator[tuple[int, pl.DataFrame, str]]:
        """The same as they stand in the files, and what to call each."""
        try:
            yield from self._frames()
        except InputError:  # no wonder, where a file is another by now
            for path, stamp in zip(self.paths, self._stamps, strict=True):
                _check_unchanged(path, stamp)
            raise

    def _frames(self) -> Iterator[tuple[int, pl.DataFrame, str]]:
        first = 0
        columns = [pl.col(name).cast(dtype) for name, dtype in self.schema.items()]
        files = decoded(self.paths, available_bytes())
        for file, height, stamp in zip(files, self._heights, self._stamps, strict=True):
            at = 0
            for frame in file.batches:
                _check_unchanged(file.path, stamp)
                # The name of a file that was made of the user's tells nobody anything.
                name, row = (self.source, first + at) if self._are_made else (repr(file.path.name), at)
                yield first + at, frame.select(columns), f"{name} from row {row + 1} on"
                at += frame.height
            if at != height:
                raise _changed(file.path)
            first += height
            _check_unchanged(file.path, stamp)

    def sha256(self) -> str:
        """Digest of the user's files' bytes, in order."""
        return self._digest or files_sha256(self.paths)


def files_sha256(paths: Sequence[Path]) -> str:
    """Digest of some files' bytes, in order."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise InputError(f"{str(path)!r} cannot be read ({error.strerror or error}).") from None
    return digest.hexdigest()


def _check_unchanged(path: Path, stamp: _Stamp) -> None:
    if _Stamp.of(path) != stamp:
        raise _changed(path)


def _changed(path: Path) -> InputError:
    return InputError(
        f"{str(path)!r} has changed while the data were read; start again once nothing writes to it."
    )
