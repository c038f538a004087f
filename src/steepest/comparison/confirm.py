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

from steepest.comparison.plan import Cell, Plan, Setting
from steepest.comparison.splits import Split, Splits
from steepest.comparison.trials import Trials
from steepest.comparison.tune import Tuned, best_row
from steepest.training.calibration import expected_calibration_error, reliability
from steepest.training.metrics import metrics_of
from steepest.training.run import Record, has_classes

if TYPE_CHECKING:
    from steepest.comparison.splits import AnyPrepared

__all__ = [
    "Finalist",
    "confirm",
    "finalists_from_tuning",
    "in_original_units",
    "score_on_test",
    "scores_on_test",
    "test_names",
    "truth_on_test",
]


@dataclass(frozen=True)
class Finalist:
    """A contestant for the verdict."""

    kind: Literal["tuned", "default"]
    tuned: bool  # false: the library's default, or the best rate at the grid's edge
    setting: Setting
    rate_interval: tuple[float, float]
    barred: str | None  # why it may not win
    regret: float | None = None  # what pruning would have cost; see prune.regret

    @property
    def cell(self) -> Cell:
        """The setting's."""
        return self.setting.cell

    @property
    def lr(self) -> float:
        """The setting's."""
        return self.setting.lr


def confirm(plan: Plan, trials: Trials, tuned: Sequence[Tuned]) -> list[Finalist]:
    """Run the best rates and the defaults on fresh seeds, and choose each cell's rate anew.

    Raises:
        Interrupted: the user asked to stop.
    """
    seeds = plan.confirmation_seeds
    candidates = {found: _candidates(plan, found) for found in tuned}
    defaults = [Setting(cell, plan.default_rates[cell.optimizer]) for cell in plan.cells]
    trials.run("confirm", [one.on(seed) for seed in seeds for tried in candidates.values() for one in tried])
    trials.run("default", [one.on(seed) for seed in seeds for one in defaults])
    finalists = [_confirmed(plan, trials, found, tried) for found, tried in candidates.items()]
    return finalists + [_default(plan, trials, found) for found in tuned]


def _candidates(plan: Plan, found: Tuned) -> list[Setting]:
    rates = found.best_and_neighbours if plan.confirm_neighbours else (found.best,)
    beyond = [] if found.configuration is None else [found.configuration]
    return [*(Setting(found.cell, lr) for lr in rates), *beyond]


def finalists_from_tuning(plan: Plan, tuned: Sequence[Tuned]) -> list[Finalist]:
    """The contestants where there was no time for a confirmation."""
    return [
        Finalist(
            "tuned",
            not found.at_edge,
            Setting(found.cell, found.best, found.epochs),
            found.rate_interval,
            _not_tuned(found),
        )
        for found in tuned
    ]


def _confirmed(plan: Plan, trials: Trials, found: Tuned, tried: Sequence[Setting]) -> Finalist:
    """The setting with the best mean validation score on the fresh seeds."""
    costs = np.stack([trials.costs(setting, plan.confirmation_seeds) for setting in tried])
    setting = tried[best_row(costs)]
    barred = _diverged(plan, trials, setting) or _not_tuned(found)
    return Finalist("tuned", not found.at_edge, setting, found.rate_interval, barred, found.regret)


def _default(plan: Plan, trials: Trials, found: Tuned) -> Finalist:
    setting = Setting(found.cell, plan.default_rates[found.cell.optimizer])
    barred = _diverged(plan, trials, setting)
    return Finalist("default", False, setting, found.rate_interval, barred)


def _not_tuned(found: Tuned) -> str | None:
    if not found.at_edge:
        return None
    return f"not tuned: its best learning rate, {found.best:g}, is the last of the widened grid"


def _diverged(plan: Plan, trials: Trials, setting: Setting) -> str | None:
    seeds = plan.confirmation_seeds
    failed = int(np.isnan(trials.scores(setting, seeds)).sum())
    return f"diverged on {failed} of {len(seeds)} fresh seeds" if failed else None


def test_names(plan: Plan) -> list[str]:
    """What a finalist is scored by on the test rows: the metrics, and ``"ece"`` for classes."""
    return [*metrics_of(plan.task, plan.metric), *["ece"] * has_classes(plan.task)]


def score_on_test(
    plan: Plan,
    trials: Trials,
    finalists: Sequence[Finalist],
    splits: Splits,
) -> None:
    """Score the finalists' runs on the test rows, by every metric of the task, and the calibration of classes."""
    truth = truth_on_test(splits.first.prepared)
    wanted = dict.fromkeys(
        finalist.setting.on(seed) for finalist in finalists for seed in plan.confirmation_seeds
    )
    usable = [trial for trial in wanted if trials.entries[trial].usable]
    # How often each probability came true is on no record, so runs on classes give their predictions again.
    known = {trial: {} if has_classes(plan.task) else trials.known_on_test(trial) for trial in usable}
    trials.train_again(
        trial for trial in usable if not known[trial] and trials.whole(trial).parameters is None
    )
    for trial in usable:
        entry = trials.entries[trial]
        split = splits.of(trial.seed)
        if known[trial]:
            entry.test = known[trial]
        elif (record := trials.whole(trial)).parameters is not None:
            given = split.engine.predict(record.run, record.parameters, split.prepared.x_test)
            entry.test = _scores(split.prepared, plan.metric, truth, given)
            if entry.test and has_classes(plan.task):
                entry.reliability = reliability(truth, given)
                entry.test["ece"] = expected_calibration_error(entry.reliability)


def scores_on_test(plan: Plan, split: Split, record: Record) -> dict[str, float]:
    """A record's weights on the test rows, by every metric of the task; empty where a prediction is not finite."""
    given = split.engine.predict(record.run, record.parameters, split.prepared.x_test)
    return _scores(split.prepared, plan.metric, truth_on_test(split.prepared), given)


def truth_on_test(prepared: AnyPrepared) -> NDArray[Any]:
    """Targets as metrics take them: original units, or class indices."""
    if prepared.task == "regression":
        return np.asarray(prepared.y_test_original, dtype=np.float64)
    return np.asarray(prepared.y_test).astype(np.int64)


def _scores(
    prepared: AnyPrepared, deciding: str, truth: NDArray[Any], given: NDArray[Any]
) -> dict[str, float]:
    predictions = in_original_units(prepared, given)
    if not np.isfinite(predictions).all():
        return {}
    return {
        name: float(metric.compute(truth, predictions))
        for name, metric in metrics_of(prepared.task, deciding).items()
    }


def in_original_units(prepared: AnyPrepared, given: NDArray[Any]) -> NDArray[np.float64]:
    """What an engine predicts, as metrics take it."""
    predictions = np.asarray(given, dtype=np.float64)
    if prepared.task == "regression":
        predictions = predictions * prepared.encoding.target_scale + prepared.encoding.target_mean
    return predictions
