"""The range of scores a chart shows: from the best to where a score is bad beyond interest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from steepest.report.words import finite


@dataclass(frozen=True)
class ScoreRange:
    """What an axis of scores shows; a score past ``bad_edge`` is drawn on it."""

    low: float
    high: float
    greater_is_better: bool

    @property
    def bad_edge(self) -> float:
        """The end where the worst scores lie."""
        return self.low if self.greater_is_better else self.high

    @property
    def good_edge(self) -> float:
        """The end where the best scores lie."""
        return self.high if self.greater_is_better else self.low

    def goodness(self, score: float) -> float:
        """0 at the bad edge, 1 at the good one."""
        share = (score - self.bad_edge) / (self.good_edge - self.bad_edge)
        return min(1.0, max(0.0, share))

    def percent(self, score: float) -> float:
        """Where on the axis, from 0 (low) to 100 (high)."""
        return round(100 * min(1.0, max(0.0, (score - self.low) / (self.high - self.low))), 2)

    def is_beyond(self, score: float) -> bool:
        """Whether a score is so bad that it lies off the axis."""
        return score < self.low if self.greater_is_better else score > self.high


def score_range(
    scores: Iterable[Any],
    greater_is_better: bool,
    *,
    shown: Iterable[Any] = (),
    stretch: float = 3.0,
    least: float = 0.1,
) -> ScoreRange:
    """A range from the best score on that holds all that is ``shown``.

    It ends at the worst score, or ``stretch`` median distances from the best where that is nearer; but not
    within the share ``least`` of the best score, so that trifles stay small.
    """
    sign = -1.0 if greater_is_better else 1.0
    costs = sorted(sign * score for score in map(finite, scores) if score is not None)
    needed = [sign * score for score in map(finite, shown) if score is not None]
    if not costs and not needed:
        return ScoreRange(0.0, 1.0, greater_is_better)
    best = min(costs[:1] + needed)
    limit = best + max(stretch * (median(costs) - best), least * abs(best)) if costs else best
    worst = max([min(max(costs, default=best), limit), *needed])
    if worst - best <= 1e-9 * abs(best):
        best, worst = best - 0.05 * (abs(best) or 1.0), worst + 0.05 * (abs(worst) or 1.0)
    margin = 0.05 * (worst - best)
    ends = sorted((sign * (best - margin), sign * (worst + margin)))
    return ScoreRange(ends[0], ends[1], greater_is_better)


def ticks(span: ScoreRange, wanted: int = 5) -> list[float]:
    """Round numbers inside a range, about as many as wanted."""
    raw = (span.high - span.low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(span.low / step)
    last = math.floor(span.high / step)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def rate_range(rates: Sequence[float]) -> tuple[float, float]:
    """A range of learning rates with a little air at both ends."""
    known = [rate for rate in rates if rate > 0]
    if not known:
        return 1e-3, 1e-1
    low, high = min(known), max(known)
    if high / low < 10:
        low, high = low / 3, high * 3
    return low / 1.4, high * 1.4
