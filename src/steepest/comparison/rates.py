"""Grids of learning rates: evenly spaced on a log scale, in numbers a person can write down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["coarse_to_fine", "decade_above", "decade_below", "equal_grids", "rate_at"]


def rate_at(position: int, points_per_decade: int) -> float:
    """``10 ** (position / points_per_decade)`` to three digits: 0.001, 0.00215, 0.00464, 0.01.

    Rounding makes the number the same on every machine, and the one the report prints.
    """
    return float(f"{10.0 ** (position / points_per_decade):.3g}")


def position_of(rate: float, points_per_decade: int) -> int:
    """The grid position nearest to a rate."""
    return round(points_per_decade * math.log10(rate))


def equal_grids(
    ranges: Mapping[str, tuple[float, float]], points_per_decade: int
) -> dict[str, tuple[float, ...]]:
    """One grid per optimizer, each over its own range, all with the same number of points.

    Equal budget: the narrower ranges are widened on both sides, the high side first.
    """
    ends = {
        name: (position_of(low, points_per_decade), position_of(high, points_per_decade))
        for name, (low, high) in ranges.items()
    }
    widest = max(last - first for first, last in ends.values())
    return {name: _grid(first, last, widest, points_per_decade) for name, (first, last) in ends.items()}


def _grid(first: int, last: int, width: int, points_per_decade: int) -> tuple[float, ...]:
    missing = width - (last - first)
    first, last = first - missing // 2, last + missing - missing // 2
    return tuple(rate_at(position, points_per_decade) for position in range(first, last + 1))


def coarse_to_fine(count: int) -> list[int]:
    """The places of a grid in an order whose every beginning spans it: those of van der Corput's sequence."""
    return sorted(range(count), key=lambda place: f"{place:016b}"[::-1])


def decade_above(rates: Sequence[float], points_per_decade: int) -> tuple[float, ...]:
    """The grid's next decade past its highest rate."""
    last = position_of(max(rates), points_per_decade)
    return tuple(rate_at(last + step, points_per_decade) for step in range(1, points_per_decade + 1))


def decade_below(rates: Sequence[float], points_per_decade: int) -> tuple[float, ...]:
    """The grid's next decade past its lowest rate, ascending."""
    first = position_of(min(rates), points_per_decade)
    return tuple(rate_at(first - step, points_per_decade) for step in range(points_per_decade, 0, -1))
