"""What MSE and MAE are good and bad at, measured on linear models."""

from __future__ import annotations

import numpy as np
import pytest

from .problems import Array, linear_table, new_run, root_mean_square, train, with_bias

SEEDS = range(5)


def fit(loss: str, x: Array, y: Array, seed: int, **options: float) -> Array:
    """The parameters a loss comes to, at a rate that falls to nothing."""
    start: Array | None = None
    for lr in (0.1, 0.01, 0.001):
        run = new_run(loss, "adam", lr, seed=seed, loss_options=options, stop={"max_epochs": 1000})
        start = train([run], x, y, start=start)[0].parameters
    assert start is not None
    return start


def shift_by_outliers(loss: str, seed: int) -> float:
    """How far 5% of rows with a gross error move the predictions on other rows."""
    x, y = linear_table(seed, 400, noise=0.1)
    planted = y.copy()
    planted[np.random.default_rng(seed).choice(len(y), len(y) // 20, replace=False)] += 20.0
    elsewhere, _ = linear_table(seed + 1000, 1000)
    return root_mean_square(with_bias(elsewhere) @ (fit(loss, x, planted, seed) - fit(loss, x, y, seed)))


@pytest.mark.parametrize("seed", SEEDS)
def test_outliers_move_mse_more_than_ten_times_as_far_as_mae(seed: int) -> None:
    """MSE is bad at outliers and MAE is good at them: 5% of rows with a gross error move the fit of MSE by
    more than the noise of the target, and by more than ten times what they move MAE's."""
    by_mse = shift_by_outliers("mse", seed)
    assert by_mse > 0.5  # the noise is 0.1
    assert by_mse > 10 * shift_by_outliers("mae", seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_mae_keeps_hopping_about_its_kink_and_mse_settles(seed: int) -> None:
    """MAE has a kink at 0: the gradient does not shrink near the optimum, so that full-batch descent at a
    constant rate keeps hopping, by an amount proportional to the rate; MSE comes to rest."""
    x, y = linear_table(seed, 200)  # no noise: the optimum is exact, and the kink of all rows lies there

    def late(loss: str, lr: float) -> Array:
        """The distances of late predictions from the optimum's."""
        run = new_run(loss, "sgd", lr, seed=seed, stop={"max_epochs": round(100 / lr)})
        (record,) = train([run], x, y, watched=(x, y))
        return record.curve.validation_score[-200:]

    hops = {}
    for lr in (0.2, 0.05, 0.0125):
        hopping = late("mae", lr)
        assert hopping.min() > 0.02 * lr  # never at rest
        assert late("mse", lr).max() < 1e-9
        hops[lr] = float(hopping.mean())
    for larger, smaller in ((0.2, 0.05), (0.05, 0.0125)):
        assert 2.5 < hops[larger] / hops[smaller] < 6.4  # the rates' ratio is 4


@pytest.mark.parametrize("seed", SEEDS)
def test_mae_is_symmetric_in_the_sign_of_the_error(seed: int) -> None:
    """MAE is not asymmetric in the sign of the error, though often said to be: the mirrored table gives the
    mirrored fit, to the last bit, and outliers below weigh as much as outliers above. The quantile loss
    is asymmetric, away from one half."""
    x, y = linear_table(seed, 201, noise=0.5)
    start = np.random.default_rng(seed).normal(size=x.shape[1] + 1)

    def fitted(loss: str, sign: float, **options: float) -> Array:
        run = new_run(loss, "sgd", 0.01, loss_options=options, stop={"max_epochs": 2000})
        parameters: Array = train([run], x, sign * y, start=sign * start)[0].parameters
        return parameters

    np.testing.assert_array_equal(fitted("mae", -1.0), -fitted("mae", 1.0))
    mirrored = np.abs(fitted("quantile", -1.0, quantile=0.9) + fitted("quantile", 1.0, quantile=0.9))
    assert mirrored.max() > 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_mae_aims_at_the_median_and_mse_at_the_mean(seed: int) -> None:
    """MAE leaves as many rows above as below, whatever the noise; MSE predicts the mean: under skewed noise
    the two differ."""
    random = np.random.default_rng(seed)
    x, truth = linear_table(seed, 1001)
    y = truth + random.exponential(size=len(x))
    above = {loss: float(np.mean(y > with_bias(x) @ fit(loss, x, y, seed))) for loss in ("mae", "mse")}
    assert abs(above["mae"] - 0.5) < 0.02
    assert above["mse"] < 0.42  # of an exponential distribution, 1 / e lies above the mean
    residuals = y - with_bias(x) @ fit("mse", x, y, seed)
    assert abs(residuals.mean()) < 1e-3
