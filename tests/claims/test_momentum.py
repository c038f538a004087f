"""What momentum is good at: ravines, and less oscillation across them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from .problems import Array, least_squares, new_run, train

SEEDS = range(4)
NUM_ROWS = 64
STEEPNESS = 20.0  # one feature this many times as large as the other: 400 times the curvature
LARGEST_CURVATURE = 2 * STEEPNESS**2
NEAR = 0.01


def ravine(seed: int) -> tuple[Array, Array]:
    """A linear regression whose mean squared error is a ravine along the second weight, from 0 to a random
    optimum."""
    random = np.random.default_rng(seed)
    columns = np.column_stack([np.ones(NUM_ROWS), random.normal(size=(NUM_ROWS, 2))])
    x = np.linalg.qr(columns)[0][:, 1:] * np.sqrt(NUM_ROWS) * [STEEPNESS, 1.0]
    return x, x @ random.normal(size=2)


@cache
def best(seed: int, optimizer: str) -> tuple[int, float]:
    """The fewest steps in which any rate comes near the optimum, and that rate."""
    x, y = ravine(seed)
    stop = {"max_epochs": 5000, "target_metric": NEAR}
    runs = [new_run("mse", optimizer, 1.1**i / LARGEST_CURVATURE, stop=stop) for i in range(-30, 40)]
    records = train(runs, x, y, watched=(x, y), start=np.zeros(3))
    return min((r.num_steps, r.run.lr) for r in records if r.stop_reason == "target_metric")


def changes_of_side(seed: int, optimizer: str, lr: float, num_steps: int) -> int:
    """How often the weight across the ravine passes from one side of its optimum to the other."""
    x, y = ravine(seed)
    runs = [new_run("mse", optimizer, lr, stop={"max_steps": count}) for count in range(1, num_steps + 1)]
    records = train(runs, x, y, start=np.zeros(3))
    across = np.array([record.parameters[0] for record in records]) - least_squares(x, y)[0]
    return int((across[1:] * across[:-1] < 0).sum())


@pytest.mark.parametrize("optimizer", ["momentum", "nesterov", "momentum_ema"])
@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_down_a_ravine_in_a_fraction_of_the_steps(seed: int, optimizer: str) -> None:
    """Momentum is good at ravines: with the best rate for each, it reaches a given loss in less than a quarter
    of the steps that plain descent needs, in each of its forms."""
    num_steps, _ = best(seed, optimizer)
    assert 4 * num_steps < best(seed, "sgd")[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_it_oscillates_less_across_the_ravine(seed: int) -> None:
    """Momentum and oscillation: at the rate that is best for it, plain descent jumps from one wall of the
    ravine to the other at every step. A moving average of the gradients, at the same rate, crosses it less
    than a third as often, since steps across cancel; so does torch's form at the tenth, which is the same."""
    num_steps = 60
    _, lr = best(seed, "sgd")
    plain = changes_of_side(seed, "sgd", lr, num_steps)
    assert plain == num_steps - 1
    for optimizer, rate in (("momentum_ema", lr), ("momentum", 0.1 * lr)):
        assert changes_of_side(seed, optimizer, rate, num_steps) < plain / 3, optimizer
