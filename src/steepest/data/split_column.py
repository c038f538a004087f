"""The split by a column: whole groups in one part, or training rows before validation rows before test rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from steepest.data.kinds import first_row, kind_of
from steepest.data.split import Indices, Parts, check_rows, sizes
from steepest.data.table import Table
from steepest.errors import InputError, near_names

__all__ = ["check_classes_in_training", "split_by_groups", "split_by_time", "split_column"]

_NAMES = ("training", "validation", "test")
_MIN_ROWS_A_PART = 2


def split_column(
    table: Table, target: str, present: pl.Series, group: str | None, time: str | None
) -> pl.Series | None:
    """The column that decides the split, the rows without a target left out; None where no column does.

    Raises:
        InputError: both are given, there is no such column, it is the target, or a row has no value in it.
    """
    if group is None and time is None:
        return None
    if group is not None and time is not None:
        raise InputError(
            f"The rows are split by group ({group!r}) or in the order of time ({time!r}), not by both; give one."
        )
    option, name = ("group", str(group)) if group is not None else ("time", str(time))
    if name not in table.columns:
        raise InputError(
            f"There is no column {name!r} in {table.source} to split by{near_names(name, table.columns)}"
        )
    if name == target:
        raise InputError(f"{option}={name!r} is the target; name another column to split the rows by.")
    column = table.frame[name]
    missing = column.is_null() & present
    if missing.any():
        raise InputError(
            f"Column {name!r} of {table.source} has no value in {missing.sum()} of {present.sum()} rows (the first is"
            f" row {first_row(missing)}), so it does not say which part they belong to; fill them, or take these"
            " rows out."
        )
    return column.filter(present)


def split_by_groups(
    column: pl.Series, *, validation: float, test: float, seed: int, redrawn: int = 0
) -> tuple[Parts, list[str]]:
    """Every group whole in one part; the shares are shares of the groups, and classes fall as they may.

    Args:
        column: each row's group.
        validation: share of the groups that are for validation, 0 for none.
        test: share of the groups that are for the test, 0 for none.
        seed: same seed, same split.
        redrawn: how often the training and validation groups have been drawn again; the test groups stay.

    Returns:
        Indices of the training, validation and test rows, and notes.

    Raises:
        InputError: there are too few groups, or they leave a part without rows.
    """
    groups = column.rank("dense").to_numpy().astype(np.int64)
    check_rows(len(groups), validation, test)
    num_groups = int(groups.max())
    num_validation, num_test = (
        max(1, size) if share > 0 else 0
        for size, share in zip(sizes(num_groups, validation, test), (validation, test), strict=True)
    )
    if num_groups <= num_validation + num_test:
        least = 1 + (validation > 0) + (test > 0)
        raise InputError(
            f"Column {column.name!r} has {num_groups} group{'s' * (num_groups > 1)}; to hold whole groups out, at"
            f" least {least} are needed, and shares that leave one to train on."
        )
    rest, test_rows = _hold_out(np.arange(len(groups)), groups, num_test, seed)
    train_rows, validation_rows = _hold_out(rest, groups, num_validation, seed + redrawn)
    parts = train_rows, validation_rows, test_rows
    _check_parts(parts, (1.0, validation, test), f"Split by the groups in {column.name!r}")
    counts = [f"{len(np.unique(groups[part]))} in {name}" for name, part in _named(parts)]
    note = (
        f"The {num_groups} groups in {column.name!r} are split {', '.join(counts)} rows; none is in two parts, and"
        " the parts' sizes and shares of classes are what the groups make them."
    )
    return parts, [note]


def _hold_out(rows: Indices, groups: Indices, num_held_out: int, seed: int) -> tuple[Indices, Indices]:
    from sklearn.model_selection import GroupShuffleSplit

    if num_held_out == 0:
        return rows, rows[:0]
    splitter = GroupShuffleSplit(n_splits=1, test_size=num_held_out, random_state=int(seed))
    kept, held_out = next(splitter.split(rows, groups=groups[rows]))
    return rows[kept], rows[held_out]


def split_by_time(column: pl.Series, *, validation: float, test: float) -> tuple[Parts, list[str]]:
    """The earliest rows to train on, later ones for validation, the last for the test; a moment is in one part.

    Args:
        column: each row's time: numbers or dates.
        validation: share of the rows that are for validation, 0 for none.
        test: share of the rows that are for the test, 0 for none.

    Returns:
        Indices of the training, validation and test rows in the order of time, and notes.

    Raises:
        InputError: the column has no order in time, or too few moments to be cut.
    """
    if kind_of(column) not in ("numeric", "date"):
        what = "booleans" if kind_of(column) == "boolean" else "text"
        raise InputError(
            f"Column {column.name!r} holds {what} such as {column[0]!r}, which has no order in time; name a column"
            " of numbers, or of dates written as 2024-12-31."
        )
    num_rows = len(column)
    check_rows(num_rows, validation, test)
    values = column.to_physical().to_numpy()
    order = np.argsort(values, kind="stable")
    num_validation, num_test = sizes(num_rows, validation, test)
    # Rows of one moment stay together, with the later part: nothing trained on is as late as what judges it.
    ordered = values[order]
    first, second = (
        int(np.searchsorted(ordered, ordered[cut])) if cut < num_rows else cut
        for cut in (num_rows - num_validation - num_test, num_rows - num_test)
    )
    parts = order[:first], order[first:second], order[second:]
    _check_parts(parts, (1.0, validation, test), f"Cut by the order of {column.name!r}")
    told = column.dt.date() if _is_whole_days(column) else column
    starts = [f"{name} rows from {told[int(part[0])]}" for name, part in _named(parts)]
    return parts, [f"The rows are in the order of {column.name!r}: {', '.join(starts)}."]


def _is_whole_days(column: pl.Series) -> bool:
    return column.dtype == pl.Datetime and bool((column.dt.time() == dt.time.min).all())


def _named(parts: Parts) -> list[tuple[str, Indices]]:
    return [(name, part) for name, part in zip(_NAMES, parts, strict=True) if len(part)]


def _check_parts(parts: Parts, shares: Sequence[float], how: str) -> None:
    for name, part, share in zip(_NAMES, parts, shares, strict=True):
        if share > 0 and len(part) < _MIN_ROWS_A_PART:
            raise InputError(
                f"{how}, the {name} part would have {len(part)} row{'s' * (len(part) != 1)}, and at least"
                f" {_MIN_ROWS_A_PART} are needed; the column has too few different values for that."
            )


def check_classes_in_training(labels: Indices, classes: Sequence[Any], train: Indices, name: str) -> None:
    """The training rows hold every class: a model cannot learn one that it never sees.

    Raises:
        InputError: naming the first that they lack.
    """
    counts = np.bincount(labels[train], minlength=len(classes))
    if not counts.all():
        raise InputError(
            f"Split by {name!r}, no training row has the class {classes[int(np.argmin(counts))]!r}; give more groups"
            " or earlier rows that have it, another seed, or merge it with another class."
        )
