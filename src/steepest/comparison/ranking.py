"""From finalists and their scores to the winner set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from steepest.comparison.confirm import Finalist
from steepest.comparison.plan import Plan
from steepest.comparison.statistics import (
    CONFIDENCE,
    corrected_p_values,
    difference_intervals,
    holm,
    mean_interval,
    paired_p_values,
)
from steepest.comparison.trials import Trials
from steepest.training.metrics import METRICS

__all__ = ["EQUIVALENCE", "Contestant", "rank", "rank_so_far", "still_improving", "winner_set"]

# Differences below this share of the best score are of no practical use.
EQUIVALENCE = 0.01

_NEAR_THE_END = 0.8  # of a run's epochs


@dataclass(frozen=True)
class Contestant:
    """A finalist with its scores: on test rows and fresh seeds, or so far on validation rows."""

    finalist: Finalist
    scores: NDArray[np.float64]  # one a seed that gave a score, the metric's own units
    validation_score: float  # the mean over the same seeds, on validation rows
    barred: str | None
    interval: tuple[float, float] | None = None
    difference: tuple[float, float] | None = None  # to the best contestant, (0, 0) for itself; None: barred
    p_value: float | None = None  # of no difference to the best, corrected by Holm; None: the best, or barred
    epochs_to_best: float = 0.0  # the mean epoch whose weights were kept
    # The scores below which the test rows and the validation rows tell nothing apart.
    least_told_apart: float = -math.inf
    least_on_validation: float = -math.inf

    @property
    def score(self) -> float:
        """The mean over seeds; NaN where no run gave a score."""
        return float(self.scores.mean()) if len(self.scores) else float("nan")

    @property
    def judged(self) -> NDArray[np.float64]:
        """The scores as far as the rows tell them apart: what differences are taken of."""
        return np.maximum(self.scores, self.least_told_apart)


def rank(plan: Plan, trials: Trials, finalists: Sequence[Finalist]) -> list[Contestant]:
    """Every finalist with its test scores, intervals and difference to the best; best first, barred last."""
    seeds = plan.confirmation_seeds
    contestants = []
    for finalist in finalists:
        scores = trials.test_scores(finalist.setting, seeds, plan.metric)
        finite = np.isfinite(scores)
        barred = finalist.barred or (None if finite.all() else "some of its runs gave no test score")
        validation = trials.mean_score(finalist.setting, seeds)
        epochs = trials.mean_best_epoch(finalist.setting, seeds)
        contestants.append(
            Contestant(
                finalist,
                scores[finite],
                validation,
                barred,
                epochs_to_best=epochs,
                least_told_apart=trials.least_on_test,
                least_on_validation=trials.least_on_validation,
            )
        )
    return _with_differences(plan, _with_intervals(plan, _sorted(plan, contestants), plan.overlap))


def rank_so_far(plan: Plan, trials: Trials, finalists: Sequence[Finalist]) -> list[Contestant]:
    """The same from validation scores on the tuning seeds, for a comparison that was interrupted."""
    contestants = []
    for finalist in finalists:
        scores = trials.scores(finalist.setting, plan.tuning_seeds)
        scores = scores[np.isfinite(scores)]
        barred = finalist.barred or (None if len(scores) else "no run of it had ended with a score")
        validation = trials.mean_score(finalist.setting, plan.tuning_seeds)
        contestants.append(Contestant(finalist, scores, validation, barred))
    return _with_intervals(plan, _sorted(plan, contestants), factor=1.0)


def winner_set(plan: Plan, contestants: Sequence[Contestant]) -> list[Contestant]:
    """The best contestant and all that cannot be told from it; the one to take comes first.

    A contestant is out when its whole interval lies beyond the margin of practical equivalence and the paired
    test, corrected for their number, tells it from the best. Of those that stay, the ones with a mean inside
    the margin come first; among equals an untuned default before what had to be tuned, then the wider rate
    interval, then the fewer examples until the best weights (every cell sees as many an epoch; seconds would
    differ from one machine to the next), then the name.
    """
    racing = [contestant for contestant in contestants if contestant.barred is None and contestant.difference]
    best = float(racing[0].judged.mean()) if racing else 0.0
    margin = EQUIVALENCE * abs(best)
    sign = _sign(plan)

    def is_out(contestant: Contestant) -> bool:
        beyond = min(sign * end for end in contestant.difference or ()) > margin
        return beyond and contestant.p_value is not None and contestant.p_value <= 1 - CONFIDENCE

    def ease(contestant: Contestant) -> tuple[object, ...]:
        finalist = contestant.finalist
        low, high = finalist.rate_interval
        is_close = sign * (float(contestant.judged.mean()) - best) <= margin
        return (
            not is_close,
            finalist.kind != "default",
            -round(high / low, 6),
            contestant.epochs_to_best,
            _name(contestant),
        )

    return sorted((contestant for contestant in racing if not is_out(contestant)), key=ease)


def still_improving(plan: Plan, contestant: Contestant) -> bool:
    """Whether its runs had their best weights near their end: longer ones would have been better.

    Not where the validation rows could not tell a better one: a model of rows that are all right gets surer for ever.
    """
    is_told = contestant.validation_score > contestant.least_on_validation
    return is_told and contestant.epochs_to_best > _NEAR_THE_END * plan.epochs


def _sign(plan: Plan) -> float:
    """What turns a score into a cost."""
    return -1.0 if METRICS[plan.metric].greater_is_better else 1.0


def _sorted(plan: Plan, contestants: Sequence[Contestant]) -> list[Contestant]:
    """Best score first; barred ones behind, and those without a score last."""
    sign = _sign(plan)

    def place(contestant: Contestant) -> tuple[object, ...]:
        has_score = len(contestant.scores) > 0
        cost = sign * contestant.score if has_score else 0.0
        return (contestant.barred is not None, not has_score, cost, _name(contestant))

    return sorted(contestants, key=place)


def _name(contestant: Contestant) -> tuple[str, ...]:
    finalist = contestant.finalist
    cell = finalist.cell
    return (cell.loss, cell.optimizer, cell.regime, finalist.kind)


def _with_intervals(plan: Plan, contestants: Sequence[Contestant], factor: float) -> list[Contestant]:
    # Every contestant gets the same resamples of its seeds: equal scores have equal intervals.
    def interval(scores: NDArray[np.float64]) -> tuple[float, float] | None:
        found = mean_interval(scores, np.random.default_rng(plan.seed), factor)
        least, most = METRICS[plan.metric].limits  # the factor may have widened it beyond
        return found and (max(found[0], least), min(found[1], most))

    return [replace(one, interval=interval(one.scores)) if len(one.scores) else one for one in contestants]


def _with_differences(plan: Plan, contestants: Sequence[Contestant]) -> list[Contestant]:
    """Each contestant's paired difference to the first; barred ones do not take part."""
    racing = [contestant for contestant in contestants if contestant.barred is None]
    if not racing:
        return list(contestants)
    differences = np.stack([contestant.judged - racing[0].judged for contestant in racing])
    intervals = difference_intervals(differences, np.random.default_rng(plan.seed), plan.overlap)
    p_values = holm(_p_values(plan, differences[1:]))
    compared = [
        replace(contestant, difference=(float(low), float(high)), p_value=p_value)
        for contestant, (low, high), p_value in zip(
            racing, intervals, [None, *p_values.tolist()], strict=True
        )
    ]
    return [*compared, *contestants[len(racing) :]]


def _p_values(plan: Plan, differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """By signs where seeds alone differ, by the corrected t where their splits overlap."""
    if plan.splits > 1:
        return corrected_p_values(differences, plan.overlap)
    return paired_p_values(differences, np.random.default_rng(plan.seed))
