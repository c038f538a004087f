"""A table as its rows go by: whole where it fits in memory, else some thousand rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steepest.data.batches import Batches
from steepest.data.delimited import read_pieces
from steepest.data.files import check_unpacked, is_parquet
from steepest.data.read import read, table_of_cells
from steepest.data.source import large_files
from steepest.data.table import Table
from steepest.errors import InputError

__all__ = ["pieces"]

_PIECE_BYTES = 1 << 24  # of text


def pieces(data: Any) -> Iterator[Table]:
    """The rows in order; for what looks at each row by itself.

    Args:
        data: see :func:`steepest.data.read`.

    Raises:
        InputError: the data are no table.
    """
    large = large_files(data, None)
    if large is None:
        yield read(data)
    elif is_parquet(large[0][0]):
        for _, table in Batches(large[0]):
            yield table
    else:
        for path in large[0]:
            yield from _of_text(path)


def _of_text(path: Path) -> Iterator[Table]:
    check_unpacked(path)
    done = 0
    try:
        for cells, separator, _ in read_pieces(path, _PIECE_BYTES):
            if cells.height:
                yield table_of_cells(cells, separator, f"{path.name!r} from row {done + 1} on")
            done += cells.height
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror or error}).") from None
