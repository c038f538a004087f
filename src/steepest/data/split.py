"""The split into training, validation and test rows, decided by number, classes and seed alone."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.errors import InputError

__all__ = ["AS_QUANTITY", "Indices", "Parts", "check_options", "check_rows", "sizes", "split_rows"]

AS_QUANTITY = "--task regression (task='regression')"

_MIN_ROWS_A_PART = 2
_MIN_SHARE = 0.001  # of a part, the training rows' own included

Indices = NDArray[np.int64]
Parts = tuple[Indices, Indices, Indices]  # training, validation, test


def check_options(validation: float, test: float, seed: int) -> None:
    """The shares leave something to train on, and the seed is one.

    Raises:
        InputError: naming the option that is out of range.
    """
    for option, share in (("validation", validation), ("test", test)):
        if not _is_share(share):
            raise InputError(
                f"{option}={share!r} is not a share of the rows; give 0, or a number from {_MIN_SHARE} to"
                " below 1."
            )
    if validation + test > 1 - _MIN_SHARE:
        raise InputError(
            f"validation={validation} and test={test} leave no rows to train on; their sum must be at most"
            f" {1 - _MIN_SHARE}."
        )
    if not _is_seed(seed):
        raise InputError(f"seed={seed!r} is not a whole number from 0 to {2**32 - 1}.")


def _is_share(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (value == 0 or _MIN_SHARE <= value < 1)
    )


def _is_seed(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= int(value) < 2**32


def split_rows(
    num_rows: int,
    labels: Indices | None,
    classes: list[Any] | None,
    *,
    validation: float,
    test: float,
    seed: int,
    redrawn: int = 0,
) -> Parts:
    """Indices of the training, validation and test rows, each part in random order.

    Args:
        num_rows: how many rows there are to split.
        labels: the class index of each row, to keep the classes' shares in each part; None for regression.
        classes: the classes' names, for messages.
        validation: share of all rows that are for validation, 0 for none.
        test: share of all rows that are for the test, 0 for none.
        seed: same seed, same split.
        redrawn: how often the training and validation rows have been drawn again; the test rows stay.

    Raises:
        InputError: there are too few rows, in all or of a class.
    """
    num_validation, num_test = sizes(num_rows, validation, test)
    check_rows(num_rows, validation, test)
    if labels is not None:
        _check_classes(labels, classes or [], validation, test)
    rest, test_rows = _split(np.arange(num_rows), labels, num_test, seed)
    train_rows, validation_rows = _split(rest, labels, num_validation, seed + redrawn)
    return train_rows, validation_rows, test_rows


def _split(rows: Indices, labels: Indices | None, num_held_out: int, seed: int) -> tuple[Indices, Indices]:
    from sklearn.model_selection import train_test_split

    if num_held_out == 0:
        return rows, rows[:0]
    stratify = None if labels is None else labels[rows]
    kept, held_out = train_test_split(rows, test_size=num_held_out, random_state=int(seed), stratify=stratify)
    return kept, held_out


def sizes(num_rows: int, validation: float, test: float) -> tuple[int, int]:
    """How many of the rows are for validation and for the test."""
    return round(num_rows * validation), round(num_rows * test)


def _enough(num_rows: int, validation: float, test: float) -> bool:
    num_validation, num_test = sizes(num_rows, validation, test)
    held_out = [size for size, share in ((num_validation, validation), (num_test, test)) if share > 0]
    return min(num_rows - num_validation - num_test, *held_out, num_rows) >= _MIN_ROWS_A_PART


def check_rows(num_rows: int, validation: float, test: float) -> None:
    """Each part that has a share gets rows.

    Raises:
        InputError: there are too few.
    """
    if _enough(num_rows, validation, test):
        return
    least = next(n for n in itertools.count(num_rows) if _enough(n, validation, test))
    rows = "1 row with a target is" if num_rows == 1 else f"{num_rows} rows with a target are"
    raise InputError(
        f"{rows} too few to split into parts (validation={validation}, test={test}); at least {least} are needed."
    )


def _check_classes(labels: Indices, classes: list[Any], *shares: float) -> None:
    """Training rows hold every class, and each part has room for every class."""
    counts = np.bincount(labels, minlength=len(classes))
    num_rows, rarest = len(labels), int(np.argmin(counts))
    num_validation, num_test = sizes(num_rows, *shares)
    least = next(n for n in itertools.count(1) if _divides(n, num_rows, num_validation, num_test))
    if counts[rarest] < least:
        few = f"{counts[rarest]} row" + ("s" if counts[rarest] > 1 else "")
        raise InputError(
            f"The class {classes[rarest]!r} has {few}; to be split into training, validation and test rows,"
            f" every class needs at least {least}: add rows, merge it with another class, or take its rows"
            f" out{_as_quantity(classes)}."
        )
    smallest = _smallest(num_rows, *shares)
    if smallest < len(classes):
        enough = next(n for n in itertools.count(num_rows) if _smallest(n, *shares) >= len(classes))
        raise InputError(
            f"{num_rows} rows are too few for {len(classes)} classes: the smallest part of the split would"
            f" have {smallest} rows, fewer than one a class; at least {enough} rows are needed, or larger shares for"
            f" validation and test{_as_quantity(classes)}."
        )


def _smallest(num_rows: int, validation: float, test: float) -> int:
    """The rows of the smallest part that is held out."""
    return min(size for size in (*sizes(num_rows, validation, test), num_rows) if size > 0)


def _as_quantity(classes: list[Any]) -> str:
    """The way out where the classes are numbers: few values of a count look like classes."""
    are_numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in classes)
    return f"; if its numbers are a quantity, give {AS_QUANTITY}" if are_numbers else ""


def _divides(count: int, num_rows: int, num_validation: int, num_test: int) -> bool:
    """Whether a class of ``count`` rows gets through both splits and into training, however they round."""
    for num_held_out, total in ((num_test, num_rows), (num_validation, num_rows - num_test)):
        count -= math.ceil(count * num_held_out / total)
    return count >= 1
