"""Grids of learning rates."""

from __future__ import annotations

import itertools
import math

import pytest

from steepest.comparison.rates import decade_above, decade_below, equal_grids, rate_at


def test_rates_are_round_numbers() -> None:
    assert [rate_at(place, 3) for place in range(-9, -5)] == [0.001, 0.00215, 0.00464, 0.01]
    assert [rate_at(place, 2) for place in range(-2, 3)] == [0.1, 0.316, 1.0, 3.16, 10.0]


@pytest.mark.parametrize("points", [2, 3])
def test_every_optimizer_gets_as_many_points_over_at_least_its_range(points: int) -> None:
    ranges = {"narrow": (1e-3, 1e1), "wide": (1e-5, 1e0), "same": (1e-4, 1e1)}
    grids = equal_grids(ranges, points)
    assert {len(grid) for grid in grids.values()} == {5 * points + 1}
    for name, (low, high) in ranges.items():
        assert grids[name][0] <= low < high <= grids[name][-1]
        assert {low, high} <= set(grids[name])


def test_a_grid_is_even_on_the_log_scale() -> None:
    (grid,) = equal_grids({"adam": (1e-5, 1e0)}, 3).values()
    steps = [math.log10(after / before) for before, after in itertools.pairwise(grid)]
    assert all(abs(step - 1 / 3) < 0.003 for step in steps)


def test_extensions_continue_the_grid() -> None:
    assert decade_above([0.1, 0.215, 0.464, 1.0], 3) == (2.15, 4.64, 10.0)
    assert decade_below([0.1, 0.215, 0.464, 1.0], 3) == (0.01, 0.0215, 0.0464)
