"""The numbers that a numeric, boolean or date column stands for."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from steepest.data.kinds import DATETIME, kind_of
from steepest.errors import InputError

__all__ = ["DATE_PARTS", "check_finite", "part_values"]

_MICROSECONDS_A_DAY = 86_400_000_000

# The parts of a date, in order; "days" since 1970 carries the time of day as a fraction.
DATE_PARTS = ("days", "year", "month", "weekday", "hour")


def part_values(series: pl.Series, part: str, source: str) -> NDArray[np.float64]:
    """One part of a column as float64, NaN where the value is missing.

    Args:
        series: a typed column of numbers, booleans or dates, or one without any value.
        part: ``"value"``, or one of ``DATE_PARTS`` for dates.
        source: what to call the table in a message.

    Raises:
        InputError: the column holds infinities.
    """
    if kind_of(series) == "empty":
        return np.full(len(series), np.nan)
    numbers = _date_part(series, part) if series.dtype == DATETIME else series
    check_finite(numbers, source)
    return np.asarray(numbers.cast(pl.Float64).fill_null(float("nan")).to_numpy(), dtype=np.float64)


def check_finite(series: pl.Series, source: str) -> None:
    """No value is infinite.

    Raises:
        InputError: naming the column and how many of its rows hold infinity.
    """
    num_infinite = series.is_infinite().sum() if series.dtype == pl.Float64 else 0
    if num_infinite:
        raise InputError(
            f"Column {series.name!r} of {source} holds infinity in {num_infinite} of {len(series)} rows; "
            "replace it with a number, or leave it empty (missing)."
        )


def _date_part(series: pl.Series, part: str) -> pl.Series:
    if part == "days":
        return series.dt.epoch("us").cast(pl.Float64) / _MICROSECONDS_A_DAY
    return getattr(series.dt, part)()  # type: ignore[no-any-return]
