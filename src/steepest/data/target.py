"""The target column: which task it makes, and its values as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
from numpy.typing import NDArray

from steepest.data.encoding import Label
from steepest.data.kinds import first_row, kind_of
from steepest.data.moments import LEAST_SPREAD
from steepest.data.split import AS_QUANTITY
from steepest.data.table import Table
from steepest.errors import InputError, near_names

__all__ = ["TASKS", "Target", "check_spread", "read_target"]

TASKS = ("auto", "regression", "binary", "multiclass", "classification")

_MAX_INTEGER_CLASSES = 10  # integers with more distinct values than this are a quantity
_MAX_CLASSES = 100  # that are taken for classes without being told so
_MAX_CLASS_SHARE = 0.5  # classes among so many rows are no classes


@dataclass(frozen=True)
class Target:
    """The target of the rows that have one.

    Attributes:
        name: the column's name.
        task: ``"regression"``, ``"binary"`` or ``"multiclass"``.
        values: float64 numbers in original units, or int64 places in ``classes``.
        classes: the labels, sorted; None for regression.
        present: which rows of the table have a target, a boolean a row.
        notes: what was inferred or dropped, a sentence each.
    """

    name: str
    task: Literal["regression", "binary", "multiclass"]
    values: NDArray[Any]
    classes: list[Label] | None
    present: pl.Series
    notes: list[str]


def check_spread(named: str, least: float, greatest: float) -> None:
    """Numbers that are not all one are so far apart that float64 has a variance of them; ``named`` is what holds them.

    Raises:
        InputError: they are not.
    """
    if 0.0 < greatest - least < LEAST_SPREAD:
        raise InputError(
            f"{named} holds numbers that lie within {greatest - least:.3g} of one another, too little to be computed "
            "with; rescale it."
        )


def read_target(table: Table, task: str) -> Target:
    """Read the target column and settle the task.

    Args:
        table: the table; ``table.target`` names the column.
        task: one of ``TASKS``; ``"auto"`` infers it, ``"classification"`` only counts the classes.

    Raises:
        InputError: there is no target, or it cannot be the target of such a task.
    """
    if task not in TASKS:
        raise InputError(f"There is no task {task!r}{near_names(task, TASKS)}")
    series = _column(table)
    if task == "regression" or (task == "auto" and _is_quantity(series)):
        return _quantity(_numbers(series, table), task, table)
    return _classes(series, task, table)


def _quantity(numbers: pl.Series, task: str, table: Table) -> Target:
    values = numbers.drop_nulls()
    _check_varies(values, table)
    notes = _missing_notes(numbers) + _task_notes(task, "regression", values)
    return Target(numbers.name, "regression", values.to_numpy(), None, numbers.is_not_null(), notes)


def _classes(series: pl.Series, task: str, table: Table) -> Target:
    values = series.drop_nulls()
    _check_varies(values, table)
    labels = values.unique().sort()
    settled = _count_classes(task, labels, values, table)
    notes = _missing_notes(series) + _task_notes(task, settled, values)
    places = values.rank("dense").cast(pl.Int64).to_numpy() - 1
    return Target(series.name, settled, places, labels.to_list(), series.is_not_null(), notes)


def _column(table: Table) -> pl.Series:
    if table.target is None:
        raise InputError(
            f"No target was given; name the column of {table.source} to predict: {_list(table.columns)}."
        )
    if table.target in table.problems:
        raise InputError(f"In {table.source}, {table.problems[table.target]}.")
    series = table.frame[table.target]
    kind = kind_of(series)
    if kind == "empty":
        raise InputError(
            f"The target {series.name!r} of {table.source} has no value in any row; name another column."
        )
    if kind == "date":
        raise InputError(
            f"The target {series.name!r} of {table.source} holds dates, which cannot be predicted; make it a"
            " number (days since a date, say), or name another column."
        )
    return series


def _missing_notes(series: pl.Series) -> list[str]:
    num_missing = series.null_count()
    if num_missing == 0:
        return []
    return [f"{num_missing:,} of {len(series):,} rows have no target {series.name!r} and are left out."]


def _is_quantity(series: pl.Series) -> bool:
    """Whether a target of numbers is a quantity rather than the numbers of classes."""
    if series.dtype == pl.Float64:
        return set(series.drop_nulls().unique().head(3)) != {0.0, 1.0}
    values = series.drop_nulls()
    most = min(_MAX_INTEGER_CLASSES, _MAX_CLASS_SHARE * len(values))
    # Two distinct values are classes however few rows there are.
    return series.dtype == pl.Int64 and values.n_unique() > max(2, most)


def _numbers(series: pl.Series, table: Table) -> pl.Series:
    numbers = series.cast(pl.Float64, strict=False)
    if numbers.null_count() > series.null_count():
        row = first_row(series.is_not_null() & numbers.is_null())
        raise InputError(
            f"The target {series.name!r} of {table.source} holds {series[row - 1]!r} in row {row}, which is"
            " not a number; regression needs numbers: correct it, leave it empty, or ask for"
            " task='classification'."
        )
    infinite = numbers.is_infinite().fill_null(False)
    if infinite.any():
        raise InputError(
            f"The target {series.name!r} of {table.source} holds infinity in {infinite.sum()} of"
            f" {len(numbers)} rows; replace it with a number, or leave it empty: rows without a target are"
            " left out."
        )
    return numbers.fill_nan(None)


def _check_varies(values: pl.Series, table: Table) -> None:
    if values.n_unique() == 1:
        raise InputError(
            f"The target {values.name!r} of {table.source} is {values[0]!r} in every row; there is nothing to"
            " predict: name another column."
        )


def _count_classes(
    task: str, labels: pl.Series, values: pl.Series, table: Table
) -> Literal["binary", "multiclass"]:
    name, num_classes = f"The target {values.name!r} of {table.source}", len(labels)
    if task == "binary" and num_classes > 2:
        raise InputError(
            f"{name} has {num_classes} classes ({_list(labels.to_list(), 5)}); task='binary' takes two: "
            "task='multiclass' would do."
        )
    if num_classes > _MAX_CLASS_SHARE * len(values) or (task == "auto" and num_classes > _MAX_CLASSES):
        raise InputError(
            f"{name} has {num_classes} distinct values in {len(values)} rows, too many for"
            f" classes{_stray_text(values)}; name another column, merge classes, or, for a quantity, give"
            f" numbers and {AS_QUANTITY}."
        )
    return "multiclass" if task == "multiclass" or num_classes > 2 else "binary"


def _stray_text(values: pl.Series) -> str:
    """What may have made text of numbers: a stray word among them, or how they are written."""
    if values.dtype != pl.String:
        return ""
    words = values.filter(values.cast(pl.Float64, strict=False).is_null())
    if len(words) == 0:
        return ""
    if len(words) > 0.5 * len(values):
        return f" (the first is {words[0]!r})"
    return f" (most are numbers, but {words[0]!r} is not)"


def _task_notes(task: str, settled: str, values: pl.Series) -> list[str]:
    if task != "auto":
        return []
    num_distinct = values.n_unique()
    if settled == "regression":
        return [f"Target {values.name!r} holds numbers ({num_distinct:,} distinct): a regression task."]
    kind = "two classes, a binary task"
    if settled == "multiclass":
        kind = f"{num_distinct} classes, a multi-class task"
    hint = f"; {AS_QUANTITY} would take it as a quantity" if kind_of(values) == "numeric" else ""
    return [f"Target {values.name!r} holds {kind}{hint}."]


def _list(names: list[Any], most: int = 20) -> str:
    return ", ".join(str(name) for name in names[:most]) + (", ..." if len(names) > most else "")
