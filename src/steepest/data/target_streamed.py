"""The target column of rows that come in batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from steepest.data.encoding import Encoding
from steepest.data.kinds import first_row
from steepest.data.moments import Moments
from steepest.data.split import AS_QUANTITY
from steepest.data.table import Table
from steepest.data.target import Target, read_target
from steepest.errors import InputError

__all__ = ["TargetLearner", "encoded", "present"]

_MAX_DISTINCT = 1000  # values that are counted one by one: more of them are a quantity, or an error


def present(table: Table, name: str) -> NDArray[np.bool_]:
    """Which rows of a batch have a target."""
    return np.asarray(table.frame[name].is_not_null().to_numpy(), dtype=bool)


class TargetLearner:
    """Takes the target batch by batch, and then says what it is.

    Args:
        name: the target column.
        source: what to call the table in a message.
        task: one of ``TASKS``.
    """

    def __init__(self, name: str, source: str, task: str) -> None:
        self.name, self.source, self.task = name, source, task
        self.num_rows = self.num_present = 0
        self.moments = Moments()  # of the training rows
        self.least = np.inf  # of all rows
        self.counts: dict[Any, int] = {}
        self.training_counts: dict[Any, int] = {}
        self.is_counted = True

    def add(self, table: Table, training: NDArray[np.bool_]) -> None:
        """Learn from a batch; ``training``: which of its rows are for training."""
        series = table.frame[self.name]
        self.num_rows += len(series)
        self.num_present += len(series) - series.null_count()
        if series.null_count() == len(series):
            return
        if self.is_counted:
            self._count(self.counts, series.drop_nulls())
            self._count(self.training_counts, series.filter(pl.Series(training)))
            self.is_counted = len(self.counts) <= _MAX_DISTINCT
        if series.dtype in (pl.Int64, pl.Float64) or self.task == "regression":
            values = _numbers(series, table.source)
            self.moments = self.moments.with_more(Moments.of(values[training]))
            self.least = min(self.least, float(np.nanmin(values)))

    def _count(self, counts: dict[Any, int], values: pl.Series) -> None:
        found = values.value_counts()
        for value, count in zip(found[self.name].to_list(), found["count"].to_list(), strict=True):
            counts[value] = counts.get(value, 0) + count

    def found(self) -> Target:
        """The task and the classes; ``values`` and ``present`` are no rows' of the table.

        Raises:
            InputError: it cannot be the target of such a task.
        """
        # What a table of each value (once, or twice where it is met more often) is, the whole one is.
        values = [value for value, count in self.counts.items() for _ in range(min(count, 2))]
        stand_in = Table(pl.DataFrame({self.name: values}, strict=False), self.source, self.name)
        if not self.is_counted and (
            self.task not in ("auto", "regression") or stand_in.frame[self.name].dtype == pl.String
        ):
            raise InputError(
                f"The target {self.name!r} of {self.source} has over {_MAX_DISTINCT} distinct values, too many for"
                f" classes; name another column, merge classes, or, for a quantity, give numbers and {AS_QUANTITY}."
            )
        target = read_target(stand_in, self.task)
        notes = [
            note if self.is_counted else note.replace(f"({len(self.counts):,} ", f"(over {_MAX_DISTINCT:,} ")
            for note in target.notes
        ]
        if self.num_present < self.num_rows:
            missing = self.num_rows - self.num_present
            notes.insert(
                0, f"{missing:,} of {self.num_rows:,} rows have no target {self.name!r} and are left out."
            )
        return Target(target.name, target.task, target.values, target.classes, target.present, notes)

    def class_counts(self, classes: list[Any] | None) -> NDArray[np.int64]:
        """The training rows of each class.

        Raises:
            InputError: a class has none.
        """
        counts = np.array([self.training_counts.get(label, 0) for label in classes or []], dtype=np.int64)
        if len(counts) and counts.min() == 0:
            label = (classes or [])[int(counts.argmin())]
            raise InputError(
                f"The class {label!r} of {self.source} has no training row ({self.counts[label]} in all); add rows,"
                " merge it with another class, or take its rows out."
            )
        return counts


def encoded(table: Table, encoding: Encoding) -> NDArray[np.float32]:
    """The target of a batch whose rows all have one: standardised, or places of classes."""
    series = table.frame[encoding.target]
    if encoding.classes is not None:
        codes = series.replace_strict(
            encoding.classes, list(range(len(encoding.classes))), return_dtype=pl.Int64
        )
        return codes.to_numpy().astype(np.float32)
    values = _numbers(series, table.source)
    with np.errstate(over="ignore"):
        standardised: NDArray[np.float32] = ((values - encoding.target_mean) / encoding.target_scale).astype(
            np.float32
        )
    if not np.isfinite(standardised).all():
        raise InputError(
            f"The target {series.name!r} of {table.source} holds numbers as large as {np.abs(values).max():g}, too far"
            " from the training rows' to be computed with; correct them, or leave them empty."
        )
    return standardised


def _numbers(series: pl.Series, source: str) -> NDArray[np.float64]:
    """A batch's target as numbers, NaN where there is none."""
    numbers = series.cast(pl.Float64, strict=False)
    if numbers.null_count() > series.null_count():
        row = first_row(series.is_not_null() & numbers.is_null())
        raise InputError(
            f"The target {series.name!r} of {source} holds {series[row - 1]!r}, which is not a number; regression needs"
            " numbers: correct it, leave it empty, or ask for task='classification'."
        )
    if numbers.is_infinite().any():
        raise InputError(
            f"The target {series.name!r} of {source} holds infinity; replace it with a number, or leave it empty: rows"
            " without a target are left out."
        )
    return np.asarray(numbers.fill_null(float("nan")).to_numpy(), dtype=np.float64)
