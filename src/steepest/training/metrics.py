"""Metrics that runs are ranked by: for the record on whole arrays, and inside the native engine's pass.

``compute`` is scikit-learn's; the engine adds up the same figure row by row (``add``, ``finish``), and a
test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import carray, types
from numpy.typing import NDArray

from steepest.backends import cpu
from steepest.backends.cpu_vocabulary import exp, log1p, softplus

__all__ = [
    "LOGIT",
    "LOGITS",
    "LOG_RATE",
    "METRICS",
    "PROBABILITY",
    "REAL",
    "Metric",
    "default_metric",
    "metric_signature",
]

# What a loss takes; metrics see the logit before PROBABILITY.
REAL, LOGIT, PROBABILITY, LOGITS, LOG_RATE = 0, 1, 2, 3, 4
_TYPES = {"float32": types.float32, "float64": types.float64}


@dataclass(frozen=True)
class Metric:
    """A figure of merit. ``compute(targets, predictions)``: regression takes values in original units,
    classes take class indices (n,) and probabilities (n, classes)."""

    name: str
    title: str
    tasks: tuple[str, ...]
    greater_is_better: bool
    compute: Callable[[NDArray[Any], NDArray[Any]], float]
    add: Callable[..., Any]  # (outputs, targets, rows, num_outputs, kind, sums)
    finish: Callable[..., Any]  # (sums, total rows, num_outputs) -> float
    in_target_units: bool = False  # an error that scales with the target

    def kernel(self, dtype: str) -> cpu.Kernel:
        """The engine's form: adds a micro-batch to ``sums``; with ``rows = 0`` gives the finished figure."""
        return _kernel(self.add, self.finish, dtype)


add: Any
finish: Any


def _metric(
    outputs: Any, targets: Any, rows: int, num_outputs: int, kind: int, sums: Any, total: int
) -> float:
    accumulated = carray(sums, 2 + 2 * max(num_outputs, 2))
    if rows == 0:
        return float(finish(accumulated, total, num_outputs))
    add(carray(outputs, rows * num_outputs), carray(targets, rows), rows, num_outputs, kind, accumulated)
    return 0.0


def metric_signature(dtype: str) -> Any:
    """``f(outputs, targets, rows, num_outputs, kind, sums, total)``; outputs are (num_outputs, rows)."""
    pointer = types.CPointer(_TYPES[dtype])
    integer = types.int64
    return types.float64(pointer, pointer, integer, integer, integer, types.CPointer(types.float64), integer)


@cache
def _kernel(add: Callable[..., Any], finish: Callable[..., Any], dtype: str) -> cpu.Kernel:
    return cpu.compile_kernel(
        _metric, metric_signature(dtype), {"add": cpu.bind(add), "finish": cpu.bind(finish)}
    )


# --- regression ------------------------------------------------------------------------------------------------


def _predicted(output: Any, kind: int) -> Any:
    """The value an output stands for, in the units of the targets beside it."""
    wide = np.float64(output)
    return exp(wide) if kind == LOG_RATE else wide


def _add_squares(outputs: Any, targets: Any, rows: int, num_outputs: int, kind: int, sums: Any) -> None:
    for i in range(rows):
        error = _predicted(outputs[i], kind) - np.float64(targets[i])
        sums[0] += error * error


def _root_mean(sums: Any, total: int, num_outputs: int) -> float:
    return math.sqrt(sums[0] / total)


def _add_absolutes(outputs: Any, targets: Any, rows: int, num_outputs: int, kind: int, sums: Any) -> None:
    for i in range(rows):
        sums[0] += abs(_predicted(outputs[i], kind) - np.float64(targets[i]))


def _mean(sums: Any, total: int, num_outputs: int) -> float:
    return float(sums[0] / total)


# --- classes -----------------------------------------------------------------------------------------------------


_LEAST_LOG_LOSS = 2.220446049250313e-16
_MOST_LOG_LOSS = 36.04365338911715


def _add_log_losses(outputs: Any, targets: Any, rows: int, num_outputs: int, kind: int, sums: Any) -> None:
    for r in range(rows):
        if kind != LOGITS:
            x = np.float64(outputs[r])
            loss = softplus(-x) if targets[r] > 0.5 else softplus(x)
        else:
            k = 0
            for j in range(1, num_outputs):
                if outputs[j * rows + r] > outputs[k * rows + r]:
                    k = j
            largest = np.float64(outputs[k * rows + r])
            rest = 0.0
            for j in range(num_outputs):
                if j != k:
                    rest += exp(np.float64(outputs[j * rows + r]) - largest)
            loss = (largest - np.float64(outputs[np.int64(targets[r]) * rows + r])) + log1p(rest)
        # Held as scikit-learn holds it: probabilities within [2**-52, 1 - 2**-52]. NaN goes through.
        sums[0] += (
            _LEAST_LOG_LOSS if loss < _LEAST_LOG_LOSS else (_MOST_LOG_LOSS if loss > _MOST_LOG_LOSS else loss)
        )


def _decided(outputs: Any, r: int, rows: int, num_outputs: int, kind: int) -> int:
    """The class a row is put in: the one with the largest output."""
    if kind != LOGITS:
        return 1 if outputs[r] > 0.0 else 0
    k = 0
    for j in range(1, num_outputs):
        if outputs[j * rows + r] > outputs[k * rows + r]:
            k = j
    return k


def _add_hits(outputs: Any, targets: Any, rows: int, num_outputs: int, kind: int, sums: Any) -> None:
    for r in range(rows):
        if _decided(outputs, r, rows, num_outputs, kind) == np.int64(targets[r]):
            sums[0] += 1.0


def _add_hits_by_class(outputs: Any, targets: Any, rows: int, num_outputs: int, kind: int, sums: Any) -> None:
    for r in range(rows):
        c = np.int64(targets[r])
        sums[2 * c] += 1.0
        if _decided(outputs, r, rows, num_outputs, kind) == c:
            sums[2 * c + 1] += 1.0


def _mean_recall(sums: Any, total: int, num_outputs: int) -> float:
    recall = 0.0
    present = 0
    for c in range(max(num_outputs, 2)):
        if sums[2 * c] > 0.0:
            recall += sums[2 * c + 1] / sums[2 * c]
            present += 1
    return recall / present


def _sklearn(name: str) -> Callable[[NDArray[Any], NDArray[Any]], float]:
    def compute(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
        from sklearn import metrics

        labels = {"labels": np.arange(predictions.shape[1])} if name == "log_loss" else {}
        if name in ("accuracy_score", "balanced_accuracy_score"):
            predictions = predictions.argmax(axis=1)
        return float(getattr(metrics, name)(targets, predictions, **labels))

    return compute


_CLASSES = ("binary", "multiclass")

METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "rmse", "RMSE", ("regression",), False,
            _sklearn("root_mean_squared_error"), _add_squares, _root_mean, True,
        ),
        Metric("mae", "MAE", ("regression",), False, _sklearn("mean_absolute_error"), _add_absolutes, _mean, True),
        Metric("log_loss", "log loss", _CLASSES, False, _sklearn("log_loss"), _add_log_losses, _mean),
        Metric("accuracy", "accuracy", _CLASSES, True, _sklearn("accuracy_score"), _add_hits, _mean),
        Metric(
            "balanced_accuracy", "balanced accuracy", _CLASSES, True,
            _sklearn("balanced_accuracy_score"), _add_hits_by_class, _mean_recall,
        ),
    )
}  # fmt: skip


def default_metric(task: str) -> str:
    """RMSE for regression, log loss for classes."""
    return "rmse" if task == "regression" else "log_loss"
