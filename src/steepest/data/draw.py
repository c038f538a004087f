"""Some rows of a table, drawn at random: what a comparison goes by where all rows are more than it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from steepest.backends.available import available_bytes, in_words
from steepest.data.batches import Batches, bytes_in_memory
from steepest.data.files import is_compressed, is_parquet
from steepest.data.read import read, table_of
from steepest.data.source import check_fits, files_of, open_batches
from steepest.data.table import Table
from steepest.errors import InputError
from steepest.training.random import ROWS, hashed

__all__ = ["draw", "drawn_rows"]

_AT_ONCE = 1 << 20


def draw(data: Any, target: str | None, num_rows: int, seed: int) -> Table:
    """Read a table, and keep so many of its rows, in their order; each is as likely to be kept.

    Files that are too large for memory, and Parquet, are gone through a batch at a time. Which rows are kept depends on
    their numbers and the seed alone.

    Args:
        data, target: see :func:`steepest.data.read`.
        num_rows: how many; all rows, where there are no more.
        seed: 0 to 2**32 - 1.

    Raises:
        InputError: the data are no table, or even so many rows are too large for memory.
    """
    paths = files_of(data)
    if not paths or is_compressed(paths[0]) or _is_text_that_fits(paths):
        check_fits(data)
        table = read(data, target)
        return _kept(table, drawn_rows(table.num_rows, num_rows, seed))
    with open_batches(paths) as batches:
        numbers = drawn_rows(batches.num_rows, num_rows, seed)
        _check_fits(batches, len(numbers))
        table = read(table_of(_gathered(batches, numbers), batches.source), target)
    return _noted(table, batches.num_rows)


def _is_text_that_fits(paths: Sequence[Path]) -> bool:
    """Whether all cells can be looked at together: what they are, and what there is to say of it, hangs on all."""
    return not is_parquet(paths[0]) and bytes_in_memory(paths, 0) <= available_bytes()


def drawn_rows(total: int, num_rows: int, seed: int) -> NDArray[np.int64]:
    """The numbers of the rows that are kept, ascending: those with the smallest hashes."""
    if num_rows >= total:
        return np.arange(total)
    numbers, hashes = np.empty(0, np.uint64), np.empty(0, np.uint64)
    for first in range(0, total, _AT_ONCE):
        more = np.arange(first, min(first + _AT_ONCE, total), dtype=np.uint64)
        numbers = np.concatenate([numbers, more])
        hashes = np.concatenate([hashes, hashed(seed, ROWS, more)])
        if len(numbers) > num_rows:
            kept = np.argpartition(hashes, num_rows - 1)[:num_rows]
            numbers, hashes = numbers[kept], hashes[kept]
    return np.sort(numbers).astype(np.int64)


def _gathered(batches: Batches, numbers: NDArray[np.int64]) -> pl.DataFrame:
    parts = []
    for first, frame, _ in batches.frames():
        low, high = np.searchsorted(numbers, (first, first + frame.height))
        parts.append(frame[numbers[low:high] - first])
    return pl.concat(parts)


def _kept(table: Table, numbers: NDArray[np.int64]) -> Table:
    if len(numbers) == table.num_rows:
        return table
    text = {name: series[numbers] for name, series in table.text.items()}
    return _noted(replace(table, frame=table.frame[numbers], text=text), table.num_rows)


def _noted(table: Table, total: int) -> Table:
    if table.num_rows == total:
        return table
    note = f"{table.num_rows:,} of {total:,} rows were drawn at random; the others take no part."
    return replace(table, notes=(note, *table.notes))


def _check_fits(batches: Batches, num_rows: int) -> None:
    there = available_bytes()
    needed = bytes_in_memory(batches.paths, 0) * num_rows / batches.num_rows
    if needed > there:
        raise InputError(
            f"{num_rows:,} rows take about {in_words(int(needed))} of memory, where {in_words(there)} are available; "
            "give fewer rows."
        )
