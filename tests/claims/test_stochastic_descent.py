"""What small batches are good and bad at: many cheap steps, and noise that does not end."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from steepest.training.run import BatchSize

from .problems import Array, least_squares, linear_table, new_run, root_mean_square, train, with_bias

SEEDS = range(3)
NUM_ROWS = 1000


def table(seed: int) -> tuple[Array, Array]:
    return linear_table(seed, NUM_ROWS, noise=1.0)


@cache
def spread(seed: int, lr: float, batch_size: BatchSize) -> float:
    """The mean squared distance from the optimum after two and a half epochs that began there, over 60 orders
    of the rows. In the middle of an epoch: at its end all rows were seen as often, which hides the noise."""
    x, y = table(seed)
    best = least_squares(x, y)
    num_steps = round(2.5 * NUM_ROWS / (NUM_ROWS if batch_size == "full" else batch_size))
    stop = {"max_steps": num_steps}
    runs = [new_run("mse", "sgd", lr, batch_size=batch_size, seed=order, stop=stop) for order in range(60)]
    records = train(runs, x, y, start=best)
    assert {record.num_steps for record in records} == {num_steps}
    return float(np.mean([np.square(record.parameters - best).sum() for record in records]))


@pytest.mark.parametrize("seed", SEEDS)
def test_one_row_a_step_leaves_the_optimum_and_the_full_batch_stays(seed: int) -> None:
    """SGD's noise: at a constant rate, one row a step leaves the very optimum for a walk about it, where the
    full batch stays at rest."""
    assert spread(seed, 0.01, 1) > 0.01
    assert spread(seed, 0.01, "full") < 1e-25


@pytest.mark.parametrize("seed", SEEDS)
def test_the_noise_grows_with_the_rate(seed: int) -> None:
    """The variance about the optimum grows about in proportion to the rate."""
    for smaller, larger in pairwise(spread(seed, lr, 1) for lr in (0.0025, 0.01, 0.04)):
        assert 2.5 < larger / smaller < 10  # the rates' ratio is 4


@pytest.mark.parametrize("seed", SEEDS)
def test_the_noise_shrinks_with_the_batch(seed: int) -> None:
    """The variance about the optimum falls about in proportion to the batch size."""
    for larger, smaller in pairwise(spread(seed, 0.01, batch_size) for batch_size in (1, 4, 16)):
        assert 2.5 < larger / smaller < 10  # the sizes' ratio is 4


@pytest.mark.parametrize("seed", SEEDS)
def test_small_batches_get_far_before_the_full_batch_has_begun(seed: int) -> None:
    """SGD's many cheap steps: when all rows have been seen twice, batches of 16 and of 1 are less than half
    as far from the optimum as the full batch, each at its best rate."""
    x, y = table(seed)
    x = x * np.array([1.0, 0.5, 0.25])
    best = least_squares(x, y)

    def nearest(batch_size: BatchSize) -> float:
        distances = []
        for lr in (0.005 * 2**i for i in range(9)):
            runs = [new_run("mse", "sgd", lr, batch_size=batch_size, seed=order, stop={"max_epochs": 2})
                    for order in range(5)]  # fmt: skip
            records = train(runs, x, y)
            if not any(record.diverged for record in records):
                away = [with_bias(x) @ (record.parameters - best) for record in records]
                distances.append(float(np.mean([root_mean_square(each) for each in away])))
        return min(distances)

    full = nearest("full")
    assert nearest(16) < 0.5 * full
    assert nearest(1) < 0.5 * full
