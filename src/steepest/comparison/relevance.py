"""Whether what the data look like turned out to matter: the losses that answer a finding against the usual one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.comparison.plan import Plan
from steepest.comparison.ranking import EQUIVALENCE, Contestant
from steepest.comparison.statistics import difference_intervals
from steepest.comparison.trials import Trials
from steepest.training.metrics import METRICS

__all__ = ["with_relevance"]

_USUAL = {"regression": ("mse",), "binary": ("bce", "cross_entropy"), "multiclass": ("cross_entropy",)}
# The metric that sees what a finding is about, told beside the one that decides.
_WITNESSES = {
    "target_outliers": "mae",
    "target_excess_kurtosis": "mae",
    "target_skewness": "mae",
    "imbalance_ratio": "balanced_accuracy",
    "label_noise": "accuracy",
}


@dataclass(frozen=True)
class _Gain:
    """How much better a loss does than a usual one under a metric: shares of the usual one's score."""

    metric: str
    loss: str
    usual: str
    mean: float
    low: float
    high: float

    @property
    def is_better(self) -> bool:
        return self.mean >= EQUIVALENCE and self.low > 0

    @property
    def is_worse(self) -> bool:
        return self.mean <= -EQUIVALENCE and self.high < 0

    def __str__(self) -> str:
        side, ends = (
            ("better", (self.low, self.high)) if self.mean >= 0 else ("worse", (-self.high, -self.low))
        )
        interval = " to ".join(f"{end:.1%}" for end in ends)
        return (
            f"{self.loss} is {abs(self.mean):.1%} {side} than {self.usual} on {METRICS[self.metric].title}"
            f" (95% interval {interval})"
        )


def with_relevance(
    plan: Plan, trials: Trials, contestants: Sequence[Contestant], diagnosis: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The findings, each with ``mattered`` and ``outcome``: a sentence, or None where nothing was to be answered.

    Measured on the confirmation seeds and test rows, in pairs: the best contestant among the losses that answer
    the finding against the best of the usual ones. The interval holds for all of the former together, so that
    picking the best of them does not flatter it.
    """
    return [{**finding, **_relevance(plan, trials, contestants, finding)} for finding in diagnosis]


def _relevance(
    plan: Plan, trials: Trials, contestants: Sequence[Contestant], finding: Mapping[str, Any]
) -> dict[str, Any]:
    if not finding["losses"]:
        return {"mattered": None, "outcome": None}
    usual, answers = (_racing(contestants, losses) for losses in (_USUAL[plan.task], finding["losses"]))
    if not usual or not answers:
        missing = " or ".join(finding["losses"] if usual else _USUAL[plan.task])
        said = f"Whether it matters was not measured: {missing} would have to take part."
        return {"mattered": None, "outcome": said}
    metrics = dict.fromkeys([plan.metric, _WITNESSES.get(finding["name"], plan.metric)])
    gains = [_gain(plan, trials, answers, usual, metric) for metric in metrics]
    outcome = f"{_head(*gains)}: {', and '.join(map(str, gains))}."
    return {"mattered": any(gain.is_better for gain in gains), "outcome": outcome}


def _racing(contestants: Sequence[Contestant], losses: Collection[str]) -> list[Contestant]:
    return [one for one in contestants if one.barred is None and one.finalist.cell.loss in losses]


def _gain(
    plan: Plan, trials: Trials, answers: Sequence[Contestant], usual: Sequence[Contestant], metric: str
) -> _Gain:
    ours, theirs = _scores(plan, trials, answers, metric), _scores(plan, trials, usual, metric)
    sign = 1.0 if METRICS[metric].greater_is_better else -1.0
    best = int((sign * theirs.mean(axis=1)).argmax())
    gains = sign * (ours - theirs[best]) / (abs(theirs[best].mean()) or 1.0)
    intervals = difference_intervals(gains, np.random.default_rng(plan.seed))
    chosen = int(gains.mean(axis=1).argmax())
    low, high = intervals[chosen]
    names = answers[chosen].finalist.cell.loss, usual[best].finalist.cell.loss
    return _Gain(metric, *names, float(gains[chosen].mean()), float(low), float(high))


def _scores(
    plan: Plan, trials: Trials, contestants: Sequence[Contestant], metric: str
) -> NDArray[np.float64]:
    """(contestants, seeds), on test rows."""
    settings = [one.finalist.setting for one in contestants]
    return np.stack([trials.test_scores(setting, plan.confirmation_seeds, metric) for setting in settings])


def _head(main: _Gain, witness: _Gain | None = None) -> str:
    if main.is_better:
        return "It mattered"
    if witness is not None and witness.is_better:
        return f"It mattered for {METRICS[witness.metric].title} alone"
    return "It did not help" if main.is_worse else "It did not matter"
