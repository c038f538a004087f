"""Confirmation: each cell's best rate and its neighbours, and the untuned defaults, on fresh seeds.

Only here is the test set touched, once, and only for the finalists: one rate of each cell, and the rate
its optimizer comes with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from steepest.comparison.engine import Engine
from steepest.comparison.plan import Cell, Plan, Trial
from steepest.comparison.trials import Trials
from steepest.comparison.tune import Tuned, best_row
from steepest.training.metrics import METRICS

if TYPE_CHECKING:
    from steepest.comparison.modules import PreparedModules
    from steepest.data import Prepared

__all__ = ["Finalist", "confirm", "finalists_from_tuning", "score_on_test"]


@dataclass(frozen=True)
class Finalist:
    """A contestant for the verdict."""

    cell: Cell
    kind: Literal["tuned", "default"]
    tuned: bool  # false: the library's default, or the best rate at the grid's edge
    lr: float
    rate_interval: tuple[float, float]
    barred: str | None  # why it may not win


def confirm(plan: Plan, trials: Trials, tuned: Sequence[Tuned]) -> list[Finalist]:
    """Run the best rates and the defaults on fresh seeds, and choose each cell's rate anew.

    Raises:
        Interrupted: the user asked to stop.
    """
    seeds = plan.confirmation_seeds
    candidates = {
        found: found.best_and_neighbours if plan.confirm_neighbours else (found.best,) for found in tuned
    }
    rates = [(found.cell, lr) for found, lrs in candidates.items() for lr in lrs]
    defaults = [(cell, plan.default_rates[cell.optimizer]) for cell in plan.cells]
    trials.run("confirm", [Trial(cell, lr, seed) for seed in seeds for cell, lr in rates])
    trials.run("default", [Trial(cell, lr, seed) for seed in seeds for cell, lr in defaults])
    finalists = [_confirmed(plan, trials, found, lrs) for found, lrs in candidates.items()]
    return finalists + [_default(plan, trials, found) for found in tuned]


def finalists_from_tuning(plan: Plan, tuned: Sequence[Tuned]) -> list[Finalist]:
    """The contestants where there was no time for a confirmation."""
    return [
        Finalist(found.cell, "tuned", not found.at_edge, found.best, found.rate_interval, _not_tuned(found))
        for found in tuned
    ]


def _confirmed(plan: Plan, trials: Trials, found: Tuned, rates: Sequence[float]) -> Finalist:
    """The rate with the best mean validation score on the fresh seeds."""
    costs = np.stack([trials.scores(found.cell, lr, plan.confirmation_seeds) for lr in rates])
    if METRICS[plan.metric].greater_is_better:
        costs = -costs
    lr = rates[best_row(costs)]
    barred = _diverged(plan, trials, found.cell, lr) or _not_tuned(found)
    return Finalist(found.cell, "tuned", not found.at_edge, lr, found.rate_interval, barred)


def _default(plan: Plan, trials: Trials, found: Tuned) -> Finalist:
    lr = plan.default_rates[found.cell.optimizer]
    barred = _diverged(plan, trials, found.cell, lr)
    return Finalist(found.cell, "default", False, lr, found.rate_interval, barred)


def _not_tuned(found: Tuned) -> str | None:
    if not found.at_edge:
        return None
    return f"not tuned: its best learning rate, {found.best:g}, is the last of the widened grid"


def _diverged(plan: Plan, trials: Trials, cell: Cell, lr: float) -> str | None:
    seeds = plan.confirmation_seeds
    failed = int(np.isnan(trials.scores(cell, lr, seeds)).sum())
    return f"diverged on {failed} of {len(seeds)} fresh seeds" if failed else None


def score_on_test(
    plan: Plan,
    trials: Trials,
    finalists: Sequence[Finalist],
    prepared: Prepared | PreparedModules,
    engine: Engine,
) -> None:
    """Score the finalists' runs on the test rows, by every metric of the task."""
    truth = _truth(prepared)
    wanted = dict.fromkeys(
        Trial(finalist.cell, finalist.lr, seed) for finalist in finalists for seed in plan.confirmation_seeds
    )
    for trial in wanted:
        entry = trials.entries[trial]
        if not entry.usable or entry.record.parameters is None:
            continue
        given = engine.predict(entry.record.run, entry.record.parameters, prepared.x_test)
        entry.test = _scores(prepared, truth, given)


def _truth(prepared: Prepared | PreparedModules) -> NDArray[Any]:
    """Targets as metrics take them: original units, or class indices."""
    if prepared.task == "regression":
        return np.asarray(prepared.y_test_original, dtype=np.float64)
    return np.asarray(prepared.y_test).astype(np.int64)


def _scores(
    prepared: Prepared | PreparedModules, truth: NDArray[Any], given: NDArray[Any]
) -> dict[str, float]:
    predictions = np.asarray(given, dtype=np.float64)
    if prepared.task == "regression":
        predictions = predictions * prepared.encoding.target_scale + prepared.encoding.target_mean
    if not np.isfinite(predictions).all():
        return {}
    return {
        name: float(metric.compute(truth, predictions))
        for name, metric in METRICS.items()
        if prepared.task in metric.tasks
    }
