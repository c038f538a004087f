"""``SteepestClassifier``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from steepest.comparison.forward import log_probabilities, probabilities
from steepest.errors import InputError
from steepest.estimators.network import Network
from steepest.training.run import Task

__all__ = ["SteepestClassifier"]


class SteepestClassifier(ClassifierMixin, Network):  # type: ignore[misc]  # scikit-learn has no types
    """Classification with a network trained by the loss and the optimizer you name.

    Features are standardised inside. Rows of float32 are trained on in float32, all others in float64. The
    same rows, parameters and seed give the same model.

    Args:
        loss: a name out of ``steepest.losses.LOSSES``; ``"auto"``: the first that ``compare`` would try for
            two classes, or for more.
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
        loss_options: the loss's own parameters, such as ``{"gamma": 2.0}``.
        optimizer_options: the optimizer's own, such as ``{"weight_decay": 0.01}``.

    Attributes:
        classes_: the labels, sorted; the columns of :meth:`predict_proba`.
        layers_: weight (outputs, inputs) and bias (outputs,) of each layer, for standardised rows.
        loss_: the loss that was trained with.
        lr_: the learning rate that was used.
        n_iter_: epochs trained.
        loss_curve_: mean loss of each epoch.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SteepestClassifier:
        """Train on rows ``X`` (rows, features) and labels ``y`` (rows,).

        Args:
            X: rows (rows, features).
            y: labels (rows,).
            sample_weight: how much each row counts (rows,), from 0; only their ratios matter, and a row of weight
                0 is left out. None: each the same.

        Raises:
            InputError: there is one class only, a parameter cannot be used, no row counts, or training diverged.
        """
        with self._learning():
            x, labels = self._validated(X, y, reset=True)
            rows, weights = self._weights(sample_weight, x)
            x, labels = x[rows], labels[rows]
            self.classes_ = np.unique(labels)
            self._check_classes()
            self._train(x, self._encoded(labels), weights, self._task, len(self.classes_))
        return self

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> SteepestClassifier:
        """One more pass over these rows; the optimizer begins anew, the standardisation is the first call's.

        Args:
            X: rows (rows, features).
            y: labels (rows,).
            classes: all labels there will ever be; needed in the first call.
            sample_weight: by how much each row's loss is multiplied (rows,), from 0; None: 1.

        Raises:
            InputError: ``classes`` is missing or another than before, a label is none of them, a parameter
                cannot be used, or training diverged.
        """
        first = not hasattr(self, "layers_")
        if first and classes is None:
            raise InputError("The first partial_fit needs classes: all labels there will ever be.")
        with self._learning():
            x, labels = self._validated(X, y, reset=first)
            if first:
                self.classes_ = np.unique(classes)
                self._check_classes()
            elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                raise InputError(
                    f"classes is {classes!r}, but the first partial_fit was given {self.classes_!r}."
                )
            unknown = np.setdiff1d(labels, self.classes_)
            if len(unknown):
                raise InputError(
                    f"The label {unknown.tolist()[0]!r} is none of classes {self.classes_.tolist()!r}."
                )
            rows, weights = self._weights(sample_weight, x)
            self._train_more(x[rows], self._encoded(labels[rows]), weights, self._task, len(self.classes_))
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Class labels (rows,)."""
        chosen = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[chosen]
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Class probabilities (rows, classes), columns in the order of ``classes_``."""
        return probabilities(self._outputs(X))

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Their logarithms, exact also where a probability is 0 or 1 to all its digits."""
        return log_probabilities(self._outputs(X))

    @property
    def _task(self) -> Task:
        return "binary" if len(self.classes_) == 2 else "multiclass"

    def _check_classes(self) -> None:
        if len(self.classes_) < 2:
            raise InputError(
                f"There is one class only, {self.classes_.tolist()[0]!r}; a classifier takes two classes or more."
            )

    def _validated(self, X: Any, y: Any, reset: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        x, labels = validate_data(self, X, y, reset=reset, dtype=[np.float64, np.float32], order="C")
        check_classification_targets(labels)
        return x, column_or_1d(labels)

    def _encoded(self, labels: NDArray[Any]) -> NDArray[Any]:
        return np.searchsorted(self.classes_, labels)
