"""A table for ``fit``: read whole where it fits in memory, else encoded on disk for as long as it is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from steepest.comparison.engine import Engine, start_engine, start_streamed_engine
from steepest.comparison.options import check_ignore
from steepest.data import Prepared, prepare, read
from steepest.data.source import large_files, open_batches
from steepest.data.streamed import StreamedRows, prepare_streamed
from steepest.data.table import check_not_target, without
from steepest.errors import InputError

__all__ = ["engine_for", "taken_in"]

Told = Callable[[str, float], None]


@contextmanager
def taken_in(
    data: Any,
    target: str | None,
    *,
    task: str,
    seed: int,
    validation: float,
    ignore: Sequence[str] | str | None,
    group: str | None,
    time: str | None,
    memory: int | str | None,
    told: Told | None,
) -> Iterator[Prepared | StreamedRows]:
    """The encoded rows; what lies on disk of them is gone afterwards.

    Raises:
        InputError: the data cannot be used, or not a piece at a time.
    """
    ignored = check_ignore(ignore)
    check_not_target(ignored, target)
    large = large_files(data, memory)
    if large is None:
        table = without(read(data, target), ignored)
        yield prepare(table, task=task, seed=seed, validation=validation, test=0.0, group=group, time=time)
        return
    for option, column in (("group", group), ("time", time)):
        if column is not None:
            raise InputError(
                f"{option}={column!r} needs all rows at once, and these data are too large for memory; leave it out,"
                " or give more memory."
            )
    paths, limit = large
    with (
        open_batches(paths, told, ignored) as batches,
        prepare_streamed(
            batches, target, task=task, seed=seed, validation=validation, memory=limit, told=told
        ) as streamed,
    ):
        yield streamed


def engine_for(prepared: Prepared | StreamedRows, metric: str, told: Told | None) -> Engine:
    """The native engine on the rows, wherever they lie."""
    if not isinstance(prepared, StreamedRows):
        return start_engine(prepared.training_data(), metric)
    on_window = None if told is None else lambda share: told("Training", share)
    return start_streamed_engine(prepared.rows, metric, on_window)
