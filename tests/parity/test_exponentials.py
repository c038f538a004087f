"""A row's exponentials within its frame, against 80 bits: whatever the largest logit, near it and far below."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray
from tests.contract.samples import generator

from steepest.backends.cpu_exponentials import exp_within32, frame32

LARGEST = (
    0.0, 1e-30, 1e-3, 0.34, 0.35, 5.0, -17.3, 100.0, 256.0, 263.99, -263.99, 264.0, -264.0, 300.0, 1e4, -1e4, 3e5,
    1e8, 3e38, -1e38,
)  # fmt: skip
BAR = 1.03


@njit
def _exponentials(row: Any, largest: Any, e: Any) -> Any:
    shift, rounder, least, unit = frame32(largest)
    for j in range(len(row)):
        e[j] = exp_within32(row[j], shift, rounder, least)
    return unit


def exponentials(
    row: NDArray[np.float32], largest: np.float32
) -> tuple[NDArray[np.longdouble], np.longdouble]:
    """As they are held, and the unit."""
    e = np.empty_like(row)
    unit = _exponentials(row, largest, e)
    return e.astype(np.longdouble), np.longdouble(unit)


def truth(row: NDArray[np.float32], largest: np.float32) -> NDArray[np.longdouble]:
    return np.exp(row.astype(np.longdouble) - np.longdouble(largest))


@pytest.mark.parametrize("largest", LARGEST)
def test_exponentials_are_good_to_their_bar(largest: float) -> None:
    """In units of the exponential's own last place, which are taken before the unit scales them."""
    m = np.float32(largest)
    rng = generator("exponentials", largest)
    below = np.concatenate(
        [rng.exponential(1, 50_000), rng.uniform(0, 2, 50_000), rng.uniform(0, 130.9, 50_000)]
    )
    row = np.minimum((np.float64(m) - below).astype(np.float32), m)
    row = np.append(row[np.float64(m) - row.astype(np.float64) < 130.9], m)
    given, unit = exponentials(row, m)
    exact = truth(row, m) / unit
    assert float((abs(given - exact) / np.spacing(exact.astype(np.float32))).max()) <= BAR


@pytest.mark.parametrize("largest", LARGEST)
def test_what_lies_far_below_is_nothing(largest: float) -> None:
    """Down to infinity, and where the difference itself overflows; what is no number stays so."""
    m = np.float32(largest)
    lowest = np.finfo(np.float32).min
    row = np.array([min(m - np.float32(131.5), m - abs(m) - np.float32(300.0)), lowest, -np.inf], np.float32)
    row = row[np.float64(m) - row.astype(np.float64) > 131.2]
    assert len(row)
    assert not exponentials(row, m)[0].any()
    assert np.isnan(exponentials(np.array([np.nan, -np.nan], np.float32), m)[0]).all()
