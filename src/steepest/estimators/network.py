"""What both estimators share: parameters checked, a network trained on standardised rows, its outputs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from steepest.comparison import options as check
from steepest.comparison.fit import (
    check_loss_options,
    check_optimizer_options,
    default_loss,
    divergence,
    look_for_rate,
)
from steepest.comparison.forward import outputs, split
from steepest.comparison.plan import default_epochs
from steepest.data.split import split_rows
from steepest.errors import InputError
from steepest.estimators import files
from steepest.optim import OPTIMIZERS
from steepest.training.metrics import default_metric
from steepest.training.native import NativeEngine, formula_of, layer_sizes, num_outputs, rows_a_step
from steepest.training.rates import check_course, has_course
from steepest.training.run import BatchSize, Record, Run, Stop, Task, TrainingData

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Network", "Weights"]

Weights = NDArray[np.float64] | None  # of rows; None: each counts once

_LOOKED_AT = 256  # rows whose outputs show whether weights can be computed with
_ROWS_A_STEP = 200  # batch_size="auto": as scikit-learn's own networks
_STEPS_AT_LEAST = 1000  # epochs="auto": a small table takes many epochs to learn anything
_ANY_NUMBER = 2**62
_HELD_OUT = 0.2  # lr="tuned": the share of the rows that rates are judged on


class Network(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A multi-layer perceptron. The estimators' pages say what its parameters are."""

    loss_curve_: NDArray[np.float64]
    _target_mean, _target_scale = 0.0, 1.0  # of what the last layer gives; classes have none

    def __init__(
        self,
        *,
        loss: str = "auto",
        optimizer: str = "adam",
        lr: float | str = "auto",
        batch_size: BatchSize | str = "auto",
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        epochs: int | str = "auto",
        random_state: Any = 0,
        schedule: str = "constant",
        warmup: float = 0.0,
        loss_options: Mapping[str, float] | None = None,
        optimizer_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.loss = loss
        self.optimizer = optimizer
        self.lr = lr
        self.batch_size = batch_size
        self.hidden = hidden
        self.activation = activation
        self.epochs = epochs
        self.random_state = random_state
        self.schedule = schedule
        self.warmup = warmup
        self.loss_options = loss_options
        self.optimizer_options = optimizer_options

    @contextmanager
    def _learning(self) -> Iterator[None]:
        """Where it fails, what was learned before stays, whole: no old layers beside another standardisation."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _train(
        self, x: NDArray[Any], y: NDArray[Any], weights: Weights, task: Task, num_classes: int
    ) -> None:
        """Learn the standardisation and the network from rows and encoded targets."""
        run = self._run(len(x), task)
        check_course(run, _steps_an_epoch(run, len(x)))
        self._scaler = _scaler(x, weights)
        rows = self._standardised(x)
        if weights is not None:
            weights = weights / weights.mean()
        run = replace(run, lr=self._rate(run, rows, y, weights, task, num_classes))
        record = self._engine(rows, y, weights, task, num_classes).run_all([run], num_threads=1)[0]
        assert record is not None
        self._keep(record, num_classes, rows)

    def _train_more(
        self, x: NDArray[Any], y: NDArray[Any], weights: Weights, task: Task, num_classes: int
    ) -> None:
        """One pass over the rows, from the weights there are."""
        if self.lr == "tuned":
            raise InputError("partial_fit cannot tune the learning rate; give lr a number, or 'auto'.")
        run = self._run(len(x), task)
        if has_course(run):
            raise InputError(
                "partial_fit knows no number of steps for a schedule or a warm-up to go over; leave these out, or use "
                "fit."
            )
        passes, earlier, initial = 0, np.empty(0), None
        if hasattr(self, "layers_"):
            passes, earlier = self.n_iter_, self.loss_curve_
            sizes = [self.n_features_in_, *(len(bias) for _, bias in self.layers_)]
            if sizes != layer_sizes(run, self.n_features_in_, num_classes):
                raise InputError("hidden or loss asks for other layers than those trained so far; use fit.")
            initial = np.concatenate([part.ravel() for layer in self.layers_ for part in layer])
        else:
            self._scaler = _scaler(x, weights)
        # Another seed for each pass, or each would take the rows in the same order.
        run = replace(run, stop=Stop(max_epochs=1), seed=(run.seed + passes) % 2**31)
        rows = self._standardised(x)
        engine = self._engine(rows, y, weights, task, num_classes)
        record = engine.run_all([run], num_threads=1, initial=initial)[0]
        assert record is not None
        self._keep(record, num_classes, rows)
        self.n_iter_ += passes
        self.loss_curve_ = np.concatenate([earlier, self.loss_curve_])

    def _keep(self, record: Record, num_classes: int, rows: NDArray[Any]) -> None:
        if record.diverged:
            raise InputError(divergence(record, self.lr, "tuned"))
        run = record.run
        layers = tuple(
            split(
                record.parameters, self.n_features_in_, run.architecture, num_outputs(run.loss, num_classes)
            )
        )
        with np.errstate(over="ignore", invalid="ignore"):
            of_some = outputs(layers, run.architecture.activation, rows[:_LOOKED_AT])
        if not np.isfinite(of_some).all():  # the last step's own loss was of the weights before
            raise InputError(divergence(record, self.lr, "tuned"))
        self.layers_ = layers
        self._architecture = run.architecture
        self.loss_ = run.loss
        self.lr_ = run.lr
        self.n_iter_ = record.num_epochs
        self.loss_curve_ = record.curve.train_loss

    def _run(self, num_rows: int, task: Task) -> Run:
        """The run that the parameters ask for; its rate is still the given or the optimizer's own."""
        loss = default_loss(task) if self.loss == "auto" else check.check_loss(self.loss, task)
        optimizer = check.check_optimizer(self.optimizer)
        batch_size: BatchSize = min(_ROWS_A_STEP, num_rows)
        if self.batch_size != "auto":
            # Cross-validation and partial_fit bring fewer rows at times: a step then takes them all.
            batch_size = check.check_batch_size(self.batch_size, _ANY_NUMBER)
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(2**31 - 1)
        lr = OPTIMIZERS[optimizer].default_lr
        if self.lr not in ("auto", "tuned"):
            lr = check.check_positive("The learning rate", self.lr)
        run = Run(
            loss=loss,
            optimizer=optimizer,
            lr=lr,
            batch_size=batch_size,
            seed=check.check_seed(seed),
            architecture=check.check_architecture(self.hidden, self.activation),
            loss_options=check_loss_options(loss, self.loss_options or {}),
            optimizer_options=check_optimizer_options(optimizer, self.optimizer_options or {}),
            schedule=check.check_schedule(self.schedule).name,
            warmup=check.check_warmup(self.warmup),
        )
        return replace(run, stop=Stop(max_epochs=self._num_epochs(run, num_rows)))

    def _num_epochs(self, run: Run, num_rows: int) -> int:
        if self.epochs is None:
            raise InputError("epochs is a positive whole number or 'auto', not None.")
        if self.epochs != "auto":
            return cast(int, check.check_count("epochs", self.epochs))
        return max(default_epochs(num_rows), math.ceil(_STEPS_AT_LEAST / _steps_an_epoch(run, num_rows)))

    def _rate(
        self, run: Run, x: NDArray[Any], y: NDArray[Any], weights: Weights, task: Task, num_classes: int
    ) -> float:
        if self.lr != "tuned":
            return run.lr
        labels = None if task == "regression" else y.astype(np.int64)
        classes = None if labels is None else list(range(num_classes))
        train, held_out, _ = split_rows(
            len(x), labels, classes, validation=_HELD_OUT, test=0.0, seed=run.seed
        )
        shares = None if weights is None else weights[train]
        engine = self._engine(x[train], y[train], shares, task, num_classes, x[held_out], y[held_out])
        return look_for_rate(engine, run, default_metric(task), 1, held_out=y[held_out])

    def _engine(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        weights: Weights,
        task: Task,
        num_classes: int,
        x_validation: NDArray[Any] | None = None,
        y_validation: NDArray[Any] | None = None,
    ) -> NativeEngine:
        """The native engine in the rows' own precision; without validation rows the last weights are kept."""
        data = TrainingData(
            task=task,
            num_classes=num_classes,
            x_train=x,
            y_train=y,
            x_validation=x[:0] if x_validation is None else x_validation,
            y_validation=y[:0] if y_validation is None else y_validation,
            target_scale=self._target_scale,
            target_mean=self._target_mean,
            weights=weights,
        )
        return NativeEngine(data, default_metric(task), dtype=x.dtype.name)

    def _weights(self, sample_weight: Any, x: NDArray[Any]) -> tuple[NDArray[np.bool_] | slice, Weights]:
        """The rows that count, and what each of them counts; None: the same.

        Raises:
            ValueError: not a number a row, a negative one, or none above 0.
        """
        if sample_weight is None:
            return slice(None), None
        weights: NDArray[np.float64] = _check_sample_weight(
            sample_weight, x, dtype=np.float64, ensure_non_negative=True
        )
        counts = weights > 0
        return counts, weights[counts]

    def _standardised(self, x: NDArray[Any]) -> NDArray[Any]:
        # In float64 and then rounded once: the scaler itself would round the mean to the rows' type.
        scaled: NDArray[Any] = (x - self._scaler.mean_) / self._scaler.scale_
        return scaled.astype(x.dtype, copy=False)

    def to_torch(self) -> nn.Sequential:
        """The network as a plain torch module, float32: standardisation, ``Linear``, activation, ..., ``Linear``.

        It takes rows as :meth:`predict` does, float32 or float64, and centres them before it multiplies, so that
        features far from 0 keep their digits; the target's standardisation is part of the last layer. It gives
        predictions in the target's own units (rows, 1), or, of the losses for counts and amounts, their logarithms;
        for classes logits, one a row for two classes (that of the second) and one a class for more.
        """
        from torch import nn

        from steepest.training.modules import build_module, standardising

        check_is_fitted(self)
        layers = [[part.astype(np.float64) for part in layer] for layer in self.layers_]
        weight, bias = layers[-1]
        if self._gives_log_rate:
            layers[-1] = [weight, bias + math.log(self._target_mean)]
        else:
            layers[-1] = [weight * self._target_scale, bias * self._target_scale + self._target_mean]
        flat = np.concatenate([part.ravel() for layer in layers for part in layer]).astype(np.float32)
        sizes = [self.n_features_in_, *(len(bias) for _, bias in layers)]
        network = build_module(sizes, self._architecture, flat)
        return nn.Sequential(standardising(self._scaler.mean_, self._scaler.scale_), *network)

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the network as an ONNX file, the standardisation included.

        Its input is ``X`` (rows, features) of float64, rows as :meth:`predict` takes them; its outputs are
        ``prediction`` (rows, 1), or ``label`` (rows,) and ``probabilities`` (rows, classes). The layers are float32.

        Raises:
            InputError: the package onnx is not installed (``pip install 'steepest[onnx]'``), or the file cannot be
                written.
        """
        from steepest.comparison import onnx

        check_is_fitted(self)
        graph = onnx.Graph(["X"])
        given = graph.input("X", np.float64, self.n_features_in_)
        centred = graph.apply("Sub", given, graph.constant(self._scaler.mean_))
        rows = graph.cast(graph.apply("Div", centred, graph.constant(self._scaler.scale_)), np.float32)
        output = onnx.add_network(graph, self.layers_, self._architecture.activation, rows)
        if hasattr(self, "classes_"):
            onnx.add_probabilities(graph, output, len(self.layers_[-1].bias), self.classes_)
        else:
            mean, scale = self._target_mean, self._target_scale
            onnx.add_prediction(graph, output, mean, scale, gives_log_rate=self._gives_log_rate)
        onnx.write(graph, path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator as a directory: ``model.safetensors`` and ``manifest.json``; no pickle.

        The directory appears whole or not at all; the same model gives the same bytes.

        Raises:
            InputError: there is something at ``path`` that is not a model, or it cannot be written.
        """
        check_is_fitted(self)
        files.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The fitted estimator that :meth:`save` wrote.

        Raises:
            InputError: there is none of this class, or its files are torn or changed.
        """
        return cast(Self, files.read(cls, path))

    @property
    def _gives_log_rate(self) -> bool:
        """Whether the last layer gives the logarithm of the prediction over the training rows' mean."""
        return formula_of(self.loss_).prediction == "log_rate"

    def _outputs(self, X: Any) -> NDArray[Any]:
        """What the last layer gives for rows as they come, (rows, outputs)."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=[np.float64, np.float32], order="C")
        return outputs(self.layers_, self._architecture.activation, self._standardised(x))


def _scaler(x: NDArray[Any], weights: Weights) -> StandardScaler:
    with np.errstate(over="ignore", invalid="ignore"):
        learned = StandardScaler().fit(x, sample_weight=weights)
    if not np.isfinite([learned.mean_, learned.scale_]).all():
        weighted = "" if weights is None else f", with weights as large as {weights.max():g}"
        raise InputError(
            f"X holds numbers as large as {np.abs(x).max():g}{weighted}, too large to be computed with; rescale it."
        )
    return learned


def _steps_an_epoch(run: Run, num_rows: int) -> int:
    return math.ceil(num_rows / rows_a_step(run, num_rows))
