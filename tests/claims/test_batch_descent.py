"""What full-batch gradient descent is good and bad at: convex problems, and others."""

from __future__ import annotations

import numpy as np
import pytest

from steepest.training.run import Architecture

from .problems import Array, least_squares, linear_table, new_run, train, with_bias

SEEDS = range(4)


def problem(seed: int) -> tuple[Array, Array, float]:
    """A linear regression, and its largest curvature."""
    x, y = linear_table(seed, 100, noise=0.5)
    x = x * np.array([1.0, 2.0, 0.5])
    rows = with_bias(x)
    return x, y, float(np.linalg.eigvalsh(2 * rows.T @ rows / len(rows))[-1])


@pytest.mark.parametrize("share", [0.5, 1.0, 1.9])
def test_it_reaches_the_global_optimum_of_a_convex_problem_from_any_start(share: float) -> None:
    """Batch gradient descent converges on convex problems: below a rate of 2 / (largest curvature) the loss
    falls at every step, and all starts end in the least-squares solution."""
    for seed in SEEDS:
        x, y, curvature = problem(seed)
        best = least_squares(x, y)
        stop = {"max_epochs": 4000}
        runs = [new_run("mse", "sgd", share / curvature, seed=start, stop=stop) for start in range(3)]
        for record in train(runs, x, y):
            np.testing.assert_allclose(record.parameters, best, atol=1e-9)
            losses = record.curve.train_loss
            assert np.diff(losses).max() <= 1e-12 * losses[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_it_diverges_above_the_rate_that_suits(seed: int) -> None:
    """It converges with a suitable rate only: a little above 2 / (largest curvature) the same run diverges."""
    x, y, curvature = problem(seed)
    run = new_run("mse", "sgd", 2.1 / curvature, seed=seed, stop={"max_epochs": 4000})
    (record,) = train([run], x, y)
    assert record.diverged
    assert record.curve.train_loss[-1] > 1000 * record.curve.train_loss[0]


def test_on_a_non_convex_problem_the_start_decides() -> None:
    """It reaches a global optimum on convex problems only: on exclusive or, with a net that can represent it
    exactly, full-batch descent comes to rest from every start, from many of them at an optimum that is
    only local."""
    x = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    y = np.array([-1.0, 1.0, 1.0, -1.0])
    net = Architecture((2,), "relu")
    stop = {"max_epochs": 40_000, "min_gradient_norm": 1e-8}
    runs = [new_run("mse", "sgd", 0.05, seed=seed, architecture=net, stop=stop) for seed in range(24)]
    records = train(runs, x, y)
    assert {record.stop_reason for record in records} == {"gradient_norm"}
    losses = np.array([record.curve.train_loss[-1] for record in records])
    assert (losses < 1e-6).sum() >= 4  # the global optimum
    assert (losses > 0.3).sum() >= 4  # a local one
