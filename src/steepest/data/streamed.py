"""The intake of a table too large for memory: one pass to learn the encoding, one to write the encoded rows to disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from steepest.data.batches import Batches
from steepest.data.encoding import Encoding
from steepest.data.learn_streamed import ColumnsLearner
from steepest.data.memory import resident_bytes
from steepest.data.parts import check_finite
from steepest.data.split import check_options, check_rows
from steepest.data.table import Table, no_such_target
from steepest.data.target import check_spread
from steepest.data.target_streamed import TargetLearner, encoded, present
from steepest.errors import InputError
from steepest.training.random import SPLIT, hashed
from steepest.training.rows_on_disk import RowFile, check_room
from steepest.training.scatter import ScatterWriter
from steepest.training.windows import Layout, StreamedData

__all__ = ["StreamedRows", "prepare_streamed"]

_MOST_STAGED, _LEAST_STAGED = 1 << 28, 1 << 24  # bytes
_WORKING = 7 << 26  # for a batch on its way, here and in the process that decodes it
_TRAIN, _VALIDATION = 0, 1

Told = Callable[[str, float], None]  # what is done, and the share of it that is done


@dataclass(frozen=True)
class StreamedRows:
    """A table on disk, ready to train on; names are :class:`~steepest.data.prepare.Prepared`'s."""

    task: Literal["regression", "binary", "multiclass"]
    target: str
    encoding: Encoding
    num_rows: dict[str, int]
    notes: list[str]
    data_sha256: str
    rows: StreamedData

    @property
    def num_features(self) -> int:
        """Columns of the encoded rows."""
        return self.rows.train.num_features

    @property
    def num_classes(self) -> int:
        """1 for regression."""
        return self.rows.num_classes


@dataclass
class _Learned:
    """What the first pass gives."""

    encoding: Encoding
    notes: list[str]
    least_target: float
    class_counts: NDArray[np.int64]
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))  # rows of each part


@contextmanager
def prepare_streamed(
    batches: Batches,
    target: str | None,
    *,
    task: str = "auto",
    seed: int = 0,
    validation: float = 0.2,
    memory: int = 1 << 32,
    told: Told | None = None,
    layout: Layout | None = None,
) -> Iterator[StreamedRows]:
    """Learn the encoding, split the rows and write them, encoded, to a temporary file; it is gone afterwards.

    A row's part depends on its number and the seed alone (a counter-based hash), so shares hold but for chance, and
    neither the size of batches nor the limit of memory decides anything. Classes are not kept in proportion.

    Args:
        batches: the rows.
        target: the column to predict.
        task: see :func:`steepest.data.prepare.prepare`.
        seed: decides which rows go where, and which block a training row lies in.
        validation: share of the rows held out; 0 for none.
        memory: how many bytes this process may have; more of them make fewer, larger writes.
        told: called as ``told(what, share)`` on the way.
        layout: how the rows lie on disk (for tests); None: by their number and width.

    Raises:
        InputError: the input cannot be used, or the disk is too small, with one sentence that says so.
    """
    check_options(validation, 0.0, seed)
    name = _target_of(batches, target)
    learned = _learn(batches, name, task, seed, validation, told)
    num_train, num_validation = int(learned.counts[_TRAIN]), int(learned.counts[_VALIDATION])
    width = len(learned.encoding.feature_names)
    train = RowFile(num_train, width)
    held_out = RowFile(num_validation, width)
    try:
        check_room(4 * (width + 1) * (num_train + num_validation), train.directory)
        layout = layout or Layout.of(num_train, width)
        writer = ScatterWriter(train, layout.block_rows, _staged_rows(memory, width), seed)
        _write(batches, learned.encoding, seed, validation, writer, held_out, told)
        del writer  # what it staged is needed elsewhere
        encoding = learned.encoding
        classes = encoding.classes
        yield StreamedRows(
            task=encoding.task,
            target=encoding.target,
            encoding=encoding,
            num_rows={"train": num_train, "validation": num_validation, "test": 0},
            notes=[*batches.notes, *learned.notes],
            data_sha256=batches.sha256(),
            rows=StreamedData(
                task=encoding.task,
                num_classes=1 if classes is None else len(classes),
                train=train,
                validation=held_out,
                layout=layout,
                target_scale=encoding.target_scale,
                target_mean=encoding.target_mean,
                least_target=learned.least_target,
                class_counts=learned.class_counts,
            ),
        )
    finally:
        train.close()
        held_out.close()


def _target_of(batches: Batches, target: str | None) -> str:
    columns = list(batches.schema)
    if target is None:
        listed = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
        raise InputError(f"No target was given; name the column of {batches.source} to predict: {listed}.")
    if target not in columns:
        raise no_such_target(target, columns, batches.source)
    return target


def _parts_of(seed: int, numbers: NDArray[np.uint64], validation: float) -> NDArray[np.int64]:
    """The part of each row, by its number."""
    luck = hashed(seed, SPLIT, numbers).astype(np.float64) * 2.0**-64
    return np.where(luck < validation, _VALIDATION, _TRAIN)


def _numbers_of(first: int, table: Table) -> NDArray[np.uint64]:
    return np.arange(first, first + table.num_rows, dtype=np.uint64)


def _learn(
    batches: Batches, name: str, task: str, seed: int, validation: float, told: Told | None
) -> _Learned:
    target = TargetLearner(name, batches.source, task)
    columns = ColumnsLearner([column for column in batches.schema if column != name], batches.source, seed)
    counts = np.zeros(2, dtype=np.int64)
    for first, table in batches:
        _check(table)
        numbers = _numbers_of(first, table)
        has_target = present(table, name)
        parts = _parts_of(seed, numbers, validation)
        training = has_target & (parts == _TRAIN)
        counts += np.bincount(parts[has_target], minlength=2)
        target.add(table, training)
        columns.add(table, training, numbers[training])
        _tell(told, "Reading", first + table.num_rows, batches)
    if not counts.any():
        raise InputError(
            f"The target {name!r} of {batches.source} has no value in any row; name another column."
        )
    found = target.found()
    check_rows(int(counts.sum()), validation, 0.0)
    encodings, notes = columns.learned()
    mean, scale = 0.0, 1.0
    if found.classes is None:
        mean, scale = (
            target.moments.mean,
            float(np.sqrt(target.moments.squares / target.moments.count)) or 1.0,
        )
        if not np.isfinite([mean, scale]).all():
            raise InputError(
                f"The target {name!r} of {batches.source} holds numbers too large to be computed with; rescale it."
            )
        check_spread(
            f"The target {name!r} of {batches.source}", target.moments.least, target.moments.greatest
        )
    encoding = Encoding(name, found.task, encodings, found.classes, mean, scale)
    least = 0.0 if found.classes is not None else target.least
    return _Learned(encoding, [*found.notes, *notes], least, target.class_counts(found.classes), counts)


def _write(
    batches: Batches,
    encoding: Encoding,
    seed: int,
    validation: float,
    writer: ScatterWriter,
    held_out: RowFile,
    told: Told | None,
) -> None:
    at = 0
    for first, table in batches:
        has_target = present(table, encoding.target)
        parts = _parts_of(seed, _numbers_of(first, table), validation)[has_target]
        rows = Table(table.frame.filter(pl.Series(has_target)), table.source, text=_texts(table, has_target))
        features, _ = encoding.apply(rows)
        targets = encoded(rows, encoding)
        chosen = parts == _TRAIN
        writer.add(features[chosen], targets[chosen])
        held_out.write(at, features[~chosen], targets[~chosen])
        at += int((~chosen).sum())
        _tell(told, "Encoding", first + table.num_rows, batches)
    writer.flush()
    writer.file.settle()
    held_out.settle()


def _texts(table: Table, chosen: NDArray[np.bool_]) -> dict[str, pl.Series]:
    return {name: series.filter(pl.Series(chosen)) for name, series in table.text.items()}


def _check(table: Table) -> None:
    for problem in table.problems.values():
        raise InputError(f"In {table.source}, {problem}.")
    for series in table.frame.get_columns():
        check_finite(series, table.source)


def _staged_rows(memory: int, num_features: int) -> int:
    left = (memory - resident_bytes() - _WORKING) // 2
    return int(min(max(left, _LEAST_STAGED), _MOST_STAGED)) // (4 * (num_features + 1))


def _tell(told: Told | None, what: str, done: int, batches: Batches) -> None:
    if told is not None:
        told(what, done / batches.num_rows)
