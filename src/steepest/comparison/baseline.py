"""What one constant prediction scores: a model that is no better has learned nothing of use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.comparison.confirm import in_original_units, truth_on_test
from steepest.comparison.plan import Plan
from steepest.comparison.ranking import Contestant
from steepest.comparison.splits import Splits
from steepest.errors import InputError
from steepest.screen.console import number
from steepest.training.metrics import METRICS, Metric, metrics_of
from steepest.training.run import OWN, Record

__all__ = ["Baseline", "baseline_of", "warning"]

_NUM_DRAWS = 100
_MOST_DRAWN = 10_000  # rows a draw; the luck of more is worked out from these
_TWO_SIDED_95 = 1.96  # standard errors


@dataclass(frozen=True)
class Baseline:
    """The constant that suits the deciding metric, learned from the training rows, on the test rows.

    Attributes:
        says: what is always predicted, as in ``"the mean"``.
        score: by the metric that decides.
        test: by every metric, each with the constant that suits it.
        gain: by how much the model that is handed over is better, by the metric that decides: the 95% interval that the
            luck of the test rows leaves. None where there is no model.
        beaten: whether all of it is above zero, and the first winner's mean over its seeds is better too.
    """

    says: str
    score: float
    test: dict[str, float]
    gain: tuple[float, float] | None
    beaten: bool | None


def baseline_of(
    plan: Plan, splits: Splits, winner: Contestant | None, record: Record | None
) -> Baseline | None:
    """The baseline of a comparison, and whether it was beaten.

    Args:
        plan: names the task and the metric.
        splits: have the rows, and the engines that trained the model and its rivals.
        winner: the first one, if there is one.
        record: the model that is handed over, if there is one.

    Returns:
        The baseline; None where a metric of the user's own cannot be worked out for a constant.
    """
    if plan.task == OWN:  # of its rows nothing is known
        return None
    prepared, metric = splits.first.prepared, METRICS[plan.metric]
    truth = truth_on_test(prepared)
    constants = {
        name: _constant(name, prepared.y_train_original, prepared.num_classes, len(truth))
        for name in metrics_of(plan.task, plan.metric)
    }
    gain = beaten = None
    try:
        scores = {name: METRICS[name].compute(truth, constant) for name, constant in constants.items()}
        if winner is not None and record is not None:
            own = splits.of(
                record.run.seed
            )  # each split has an encoding of its own; the test rows are the same
            given = own.engine.predict(record.run, record.parameters, own.prepared.x_test)
            pair = (constants[plan.metric], in_original_units(own.prepared, given))
            gain = _gain(metric, truth, *pair, np.random.default_rng(plan.seed))
            beaten = gain[0] > 0 and _better_by(metric, winner.score, scores[plan.metric]) > 0
    except InputError:
        return None
    return Baseline(_says(plan), scores[plan.metric], scores, gain, beaten)


def warning(plan: Plan, baseline: Baseline | None, num_test_rows: int) -> str:
    """What has to be said first where the baseline was not beaten; else nothing."""
    if baseline is None or baseline.beaten is not False:
        return ""
    return (
        f"No sign that anything useful was learned: on {num_test_rows:,} test rows the model does not beat always "
        f"predicting {baseline.says} (test {METRICS[plan.metric].title} {number(baseline.score)}) by more than luck. "
    )


def _says(plan: Plan) -> str:
    if plan.task == "regression":
        return "the median" if plan.metric == "mae" else "the mean"
    if plan.metric == "balanced_log_loss":
        return "equal probabilities"
    return "the largest class" if "accuracy" in plan.metric else "the classes' shares"


def _constant(metric: str, targets: NDArray[Any], num_classes: int, num_rows: int) -> NDArray[np.float64]:
    """The same for every row: a number, or each class's probability, the largest class's being the largest."""
    if num_classes == 1:
        return np.full(num_rows, np.median(targets) if metric == "mae" else targets.mean())
    shares = np.bincount(targets.astype(np.int64), minlength=num_classes) / len(targets)
    if metric == "balanced_log_loss":
        shares = np.full(num_classes, 1 / num_classes)
    return np.broadcast_to(shares, (num_rows, num_classes))


def _better_by(metric: Metric, score: float, than: float) -> float:
    return score - than if metric.greater_is_better else than - score


def _gain(
    metric: Metric,
    truth: NDArray[Any],
    constant: NDArray[np.float64],
    predictions: NDArray[np.float64],
    random: np.random.Generator,
) -> tuple[float, float]:
    """By how much predictions are better than a constant, give or take what other test rows would have made of it.

    The standard error is the bootstrap's: rows drawn with replacement, of classes each as many as there are.
    """

    def on(rows: NDArray[np.int64]) -> float:
        scores = (metric.compute(truth[rows], given[rows]) for given in (predictions, constant))
        return _better_by(metric, *scores)

    everything = np.arange(len(truth))
    drawn = min(1.0, _MOST_DRAWN / len(truth))
    groups = (
        [everything] if predictions.ndim == 1 else [np.flatnonzero(truth == one) for one in np.unique(truth)]
    )
    gains = [
        on(np.concatenate([random.choice(group, max(1, round(drawn * len(group)))) for group in groups]))
        for _ in range(_NUM_DRAWS)
    ]
    gain, error = on(everything), float(np.std(gains)) * drawn**0.5
    return gain - _TWO_SIDED_95 * error, gain + _TWO_SIDED_95 * error
