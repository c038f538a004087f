"""``SteepestRegressor``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from steepest.data.target import check_spread
from steepest.errors import InputError
from steepest.estimators.network import Network, Weights

__all__ = ["SteepestRegressor"]


class SteepestRegressor(RegressorMixin, Network):  # type: ignore[misc]  # scikit-learn has no types
    """Regression with a network trained by the loss and the optimizer you name.

    Features and target are standardised inside; predictions are in the target's own units. Rows of float32
    are trained on in float32, all others in float64. The same rows, parameters and seed give the same model.

    Args:
        loss: a name out of ``steepest.losses.LOSSES``; ``"auto"``: ``"mse"``.
        optimizer: a name out of ``steepest.optim.OPTIMIZERS``.
        lr: the learning rate; ``"auto"``: the optimizer's default; ``"tuned"``: every rate of the optimizer's
            grid is tried for a few epochs, judged on a fifth of the rows, and the best one trains on all.
        batch_size: rows a step: a number, or ``"full"``; ``"auto"``: 200, or all where there are fewer.
        hidden: widths of the hidden layers; ``()`` is a linear model.
        activation: ``relu``, ``tanh``, ``gelu``, ``silu`` or ``sigmoid``.
        epochs: passes over the rows; ``"auto"``: about 200,000 examples and at least 1,000 steps.
        random_state: decides the initial weights and the order of the rows; a number, a ``RandomState``, or
            None for another result each time.
        schedule: how the rate goes over the steps: a name out of ``steepest.schedules.SCHEDULES``. ``partial_fit``
            takes ``"constant"`` alone.
        warmup: the share of the steps over which the rate rises to where the schedule begins, from 0 to below 1.
        loss_options: the loss's own parameters, such as ``{"delta": 1.5}``.
        optimizer_options: the optimizer's own, such as ``{"weight_decay": 0.01}``.

    Attributes:
        layers_: weight (outputs, inputs) and bias (outputs,) of each layer, for standardised rows.
        loss_: the loss that was trained with.
        lr_: the learning rate that was used.
        n_iter_: epochs trained.
        loss_curve_: mean loss of each epoch.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SteepestRegressor:
        """Train on rows ``X`` (rows, features) and numbers ``y`` (rows,).

        Args:
            X: rows (rows, features).
            y: numbers (rows,).
            sample_weight: how much each row counts (rows,), from 0; only their ratios matter, and a row of weight
                0 is left out. None: each the same.

        Raises:
            InputError: a parameter cannot be used, no row counts, or training diverged.
        """
        with self._learning():
            x, targets = self._validated(X, y, reset=True)
            rows, weights = self._weights(sample_weight, x)
            x, targets = x[rows], targets[rows]
            self._learn_target(targets, weights)
            self._train(x, self._encoded(targets), weights, "regression", 1)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> SteepestRegressor:
        """One more pass over these rows; the optimizer begins anew, the standardisation is the first call's.

        Args:
            X: rows (rows, features).
            y: numbers (rows,).
            sample_weight: by how much each row's loss is multiplied (rows,), from 0; None: 1.

        Raises:
            InputError: a parameter cannot be used, or training diverged.
        """
        first = not hasattr(self, "layers_")
        with self._learning():
            x, targets = self._validated(X, y, reset=first)
            rows, weights = self._weights(sample_weight, x)
            x, targets = x[rows], targets[rows]
            if first:
                self._learn_target(targets, weights)
            self._train_more(x, self._encoded(targets), weights, "regression", 1)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Predictions (rows,) in the target's own units."""
        output: NDArray[Any] = self._outputs(X)[:, 0]
        if self._gives_log_rate:
            rates: NDArray[Any] = np.exp(output) * self._target_mean
            return rates
        return output * self._target_scale + self._target_mean

    def _validated(self, X: Any, y: Any, reset: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        x, targets = validate_data(
            self, X, y, reset=reset, dtype=[np.float64, np.float32], order="C", y_numeric=True
        )
        return x, targets.astype(np.float64)

    def _learn_target(self, y: NDArray[np.float64], weights: Weights) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.average(y, weights=weights)
            spread = np.sqrt(np.average((y - mean) ** 2, weights=weights))
        if not np.isfinite([mean, spread]).all():
            raise InputError(
                f"y holds numbers as large as {np.abs(y).max():g}, too large to be computed with; rescale it."
            )
        check_spread("y", float(y.min()), float(y.max()))
        self._target_mean, self._target_scale = float(mean), float(spread) or 1.0

    def _encoded(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        encoded: NDArray[np.float64] = (y - self._target_mean) / self._target_scale
        return encoded
