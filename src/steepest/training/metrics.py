"""Metrics that runs are ranked by: for the record on whole arrays, and inside the native engine's pass.

``compute`` is scikit-learn's; the engine adds up the same figure row by row (``add``, ``finish``), and a
test holds the two together. A metric of the user's own has ``compute`` alone, and judges the torch engine's runs.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import carray, types
from numpy.typing import NDArray

from steepest.backends import cpu
from steepest.backends.cpu_vocabulary import exp, log1p, softplus
from steepest.errors import InputError, told
from steepest.training.run import OWN

__all__ = [
    "LOGIT",
    "LOGITS",
    "LOG_RATE",
    "METRICS",
    "PROBABILITY",
    "REAL",
    "Metric",
    "default_metric",
    "metric",
    "metric_signature",
    "metrics_of",
    "own_score",
]

# What a loss takes; metrics see the logit before PROBABILITY.
REAL, LOGIT, PROBABILITY, LOGITS, LOG_RATE = 0, 1, 2, 3, 4
_TYPES = {"float32": types.float32, "float64": types.float64}


@dataclass(frozen=True)
class Metric:
    """A figure of merit, made by :func:`steepest.metric` where it is the user's own.

    ``compute(targets, predictions)``: regression takes values in original units, classes take class indices (n,)
    and probabilities (n, classes).
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    greater_is_better: bool
    compute: Callable[[NDArray[Any], NDArray[Any]], float]
    add: Callable[..., Any] | None = None  # (outputs, targets, rows, num_outputs, kind, sums)
    finish: Callable[..., Any] | None = None  # (sums, total rows, num_outputs) -> float
    in_target_units: bool = False  # an error that scales with the target
    # The score below which rows of classes so large, (classes,), tell nothing apart; None: every difference counts.
    vouched_for: Callable[[NDArray[np.int64]], float] | None = None

    @property
    def is_users_own(self) -> bool:
        """Whether it is no metric of ours, and has no form for the native engine."""
        return self.add is None or self.finish is None

    @property
    def limits(self) -> tuple[float, float]:
        """What it can come to: no error is below 0, no share of right answers above 1; the user's own may be any."""
        if self.is_users_own:
            return -math.inf, math.inf
        return 0.0, 1.0 if self.greater_is_better else math.inf

    def least_told_apart(self, targets: Callable[[], NDArray[Any]]) -> float:
        """The score below which these targets tell nothing apart; minus infinity where every difference counts."""
        if self.vouched_for is None:
            return -math.inf
        counts = np.unique(targets(), return_counts=True)[1]
        return self.vouched_for(counts) if len(counts) else -math.inf

    def of_outputs(self, targets: NDArray[Any], outputs: NDArray[Any], kind: int) -> float:
        """The figure for outputs (rows, outputs), float32 or float64, before they are predictions; the engine's form.

        It is ``compute``'s but for rounding, in a fraction of its time: scikit-learn looks at what it is given for most
        of a millisecond.
        """
        kernel, (rows, num_outputs) = self.kernel(str(outputs.dtype)), outputs.shape
        sums = np.zeros(2 + 2 * max(num_outputs, 2))
        given = [np.ascontiguousarray(outputs.T), np.ascontiguousarray(targets, dtype=outputs.dtype)]
        pointers = kernel.function.argtypes
        x, t = (array.ctypes.data_as(pointer) for array, pointer in zip(given, pointers, strict=False))
        total = sums.ctypes.data_as(pointers[5])
        kernel(x, t, rows, num_outputs, kind, total, rows)
        return float(kernel(x, t, 0, num_outputs, kind, total, rows))

    def kernel(self, dtype: str) -> cpu.Kernel:
        """The engine's form: adds a micro-batch to ``sums``; with ``rows = 0`` gives the finished figure."""
        assert self.add is not None
        assert self.finish is not None
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


def _log_loss(outputs: Any, targets: Any, r: int, rows: int, num_outputs: int, kind: int) -> float:
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
    return _LEAST_LOG_LOSS if loss < _LEAST_LOG_LOSS else (_MOST_LOG_LOSS if loss > _MOST_LOG_LOSS else loss)


def _add_log_losses(outputs: Any, targets: Any, rows: int, num_outputs: int, kind: int, sums: Any) -> None:
    for r in range(rows):
        sums[0] += _log_loss(outputs, targets, r, rows, num_outputs, kind)


def _add_log_losses_by_class(
    outputs: Any, targets: Any, rows: int, num_outputs: int, kind: int, sums: Any
) -> None:
    for r in range(rows):
        c = np.int64(targets[r])
        sums[2 * c] += 1.0
        sums[2 * c + 1] += _log_loss(outputs, targets, r, rows, num_outputs, kind)


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


def _mean_over_classes(sums: Any, total: int, num_outputs: int) -> float:
    mean = 0.0
    present = 0
    for c in range(max(num_outputs, 2)):
        if sums[2 * c] > 0.0:
            mean += sums[2 * c + 1] / sums[2 * c]
            present += 1
    return mean / present


def _sklearn(name: str, *, balanced: bool = False) -> Callable[[NDArray[Any], NDArray[Any]], float]:
    def compute(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
        from sklearn import metrics
        from sklearn.utils.class_weight import compute_sample_weight

        options: dict[str, Any] = {"labels": np.arange(predictions.shape[1])} if name == "log_loss" else {}
        if balanced:
            options["sample_weight"] = compute_sample_weight("balanced", targets)
        if name in ("accuracy_score", "balanced_accuracy_score"):
            predictions = predictions.argmax(axis=1)
        with warnings.catch_warnings():
            # The mean recall is over the classes that are there, as in the engine's own pass.
            warnings.filterwarnings("ignore", "y_pred contains classes not in y_true", UserWarning)
            return float(getattr(metrics, name)(targets, predictions, **options))

    return compute


def _vouched_for(counts: NDArray[np.int64]) -> float:
    return _entropy_after(int(counts.sum()))


def _vouched_for_by_class(counts: NDArray[np.int64]) -> float:
    return float(np.mean([_entropy_after(int(count)) for count in counts]))


def _entropy_after(num_right: int) -> float:
    """The least log loss that so many answers, all of them right, vouch for.

    By the rule of succession the next one is wrong with probability 1 / (n + 2), and nothing that is known of it has a
    smaller expected log loss than the entropy of that. A smaller one on these rows says how sure a model is of them,
    and rewards without end the one that is surer; what an error costs it there is not seen.
    Source: Laplace, "Théorie analytique des probabilités", 1812, book 2, chapter 6.
    """
    wrong = 1.0 / (num_right + 2)
    return -wrong * math.log(wrong) - (1.0 - wrong) * math.log1p(-wrong)


_CLASSES = ("binary", "multiclass")

METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "rmse", "RMSE", ("regression",), False,
            _sklearn("root_mean_squared_error"), _add_squares, _root_mean, True,
        ),
        Metric("mae", "MAE", ("regression",), False, _sklearn("mean_absolute_error"), _add_absolutes, _mean, True),
        Metric(
            "log_loss", "log loss", _CLASSES, False,
            _sklearn("log_loss"), _add_log_losses, _mean, vouched_for=_vouched_for,
        ),
        Metric("accuracy", "accuracy", _CLASSES, True, _sklearn("accuracy_score"), _add_hits, _mean),
        Metric(
            "balanced_accuracy", "balanced accuracy", _CLASSES, True,
            _sklearn("balanced_accuracy_score"), _add_hits_by_class, _mean_over_classes,
        ),
        Metric(
            "balanced_log_loss", "balanced log loss", _CLASSES, False,
            _sklearn("log_loss", balanced=True), _add_log_losses_by_class, _mean_over_classes,
            vouched_for=_vouched_for_by_class,
        ),
    )
}  # fmt: skip


def default_metric(task: str) -> str:
    """RMSE for regression, log loss for classes."""
    return "rmse" if task == "regression" else "log_loss"


def metrics_of(task: str, deciding: str) -> dict[str, Metric]:
    """The metrics that go into the record of a task: ours, and the one that decides, if it is the user's own."""
    return {
        name: one
        for name, one in METRICS.items()
        if task in one.tasks and (name == deciding or not one.is_users_own)
    }


def own_score(word: object) -> Metric:
    """The score that a training function gives itself, ``"max accuracy"`` or ``"min perplexity"``, with that title.

    Raises:
        InputError: the word does not say which way it goes.
    """
    found = re.fullmatch(r"(min|max) (\S.*)", word) if isinstance(word, str) else None
    if found is None:
        raise InputError(
            f"The metric of a training function is what it returns, and whether less or more of it is better: "
            f"'min loss', 'max accuracy'; not {word!r}."
        )
    METRICS[found[0]] = Metric(found[0], found[2], (OWN,), found[1] == "max", _only_number)
    return METRICS[found[0]]


def _only_number(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
    """What stands for the predictions of a training function is its score."""
    (score,) = predictions
    return float(score)


def metric(
    compute: Callable[[NDArray[Any], NDArray[Any]], float],
    *,
    greater_is_better: bool,
    name: str | None = None,
    title: str | None = None,
) -> Metric:
    """A metric of your own, to judge your own modules by: ``compare(model=..., metric=metric(...))``.

    Args:
        compute: ``compute(targets, predictions)``, a finite number. Regression gives it values of one axis both;
            classes give it class indices (n,) and probabilities (n, classes), so that labels are
            ``predictions.argmax(axis=1)``. Sequences and images come flat, padding (class -100) left out.
        greater_is_better: whether more of it is better.
        name: what it is called in the records; None: the function's own name. From then on the word is known to
            ``compare``, to a plan and to ``resume``; a second one of the name takes its place.
        title: what it is called in sentences and charts; None: the name.

    Returns:
        The metric.

    Raises:
        InputError: the name is one of ours, or no name at all; or it is not said whether more is better.

    >>> import numpy as np
    >>> median_error = metric(lambda y, p: float(np.median(abs(p - y))), greater_is_better=False, name="median_error")
    >>> median_error.compute(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.5, 9.0]))
    0.5
    """
    word = name if name is not None else str(getattr(compute, "__name__", ""))
    if not callable(compute):
        raise InputError(
            f"A metric is a function of targets and predictions; this is a {type(compute).__name__}."
        )
    if not isinstance(greater_is_better, (bool, np.bool_)):
        raise InputError(f"greater_is_better is {greater_is_better!r}; it is True or False.")
    if not isinstance(word, str) or not word.isidentifier():
        raise InputError(f"A metric's name is a word such as 'f1', not {word!r}; give it by name='...'.")
    if word in METRICS and not METRICS[word].is_users_own:
        raise InputError(f"There is a metric {word!r} already; give yours another name.")

    def checked(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
        try:
            # Copies: what it writes in them would be trained on, and stand in the user's own arrays.
            value = float(compute(targets.copy(), predictions.copy()))
        except Exception as error:
            raise InputError(
                f"The metric {word} failed on targets {targets.shape} and predictions {predictions.shape}: "
                f"{told(error)}"
            ) from error
        if not math.isfinite(value):
            raise InputError(
                f"The metric {word} gave {value} for finite predictions; it must give a finite number."
            )
        return value

    METRICS[word] = Metric(
        word, title or word.replace("_", " "), ("regression", *_CLASSES), greater_is_better, checked
    )
    return METRICS[word]
