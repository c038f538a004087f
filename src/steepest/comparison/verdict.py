"""The verdict: what is written as ``verdict.json``, read by the report and by people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.comparison.baseline import Baseline
from steepest.comparison.calibration import calibration_of
from steepest.comparison.canonical import plain
from steepest.comparison.confirm import test_names
from steepest.comparison.modules import PreparedModules
from steepest.comparison.own_training import PreparedTraining
from steepest.comparison.plan import Cell, Plan
from steepest.comparison.prune import facts, in_words
from steepest.comparison.ranking import Contestant
from steepest.comparison.relevance import with_relevance
from steepest.comparison.trials import Trials
from steepest.comparison.versions import versions
from steepest.losses import LOSSES
from steepest.naming import users_module
from steepest.optim import OPTIMIZERS
from steepest.training.metrics import METRICS
from steepest.training.run import OWN

if TYPE_CHECKING:
    from steepest.comparison.splits import AnyPrepared

__all__ = ["assemble"]

FORMAT = 1


def assemble(
    plan: Plan,
    prepared: AnyPrepared,
    trials: Trials,
    contestants: Sequence[Contestant],
    winners: Sequence[Contestant],
    *,
    sentence: str,
    interrupted: bool,
    notes: Sequence[str],
    model: Mapping[str, Any] | None = None,
    baseline: Baseline | None = None,
    seconds: float,
) -> dict[str, Any]:
    """The verdict as JSON's own types; only ``seconds`` differs between two equal comparisons."""
    metric = METRICS[plan.metric]
    pruning = None if interrupted else facts(plan, trials, _regrets(contestants))
    pruning_notes = [] if pruning is None else [in_words(plan, pruning)]
    verdict = {
        "format": FORMAT,
        "status": "interrupted" if interrupted else "complete",
        "sentence": sentence,
        "task": plan.task,
        "target": plan.target,
        "metric": plan.metric,
        "metric_title": metric.title,
        "greater_is_better": metric.greater_is_better,
        "winners": [_cell(plan, trials, contestant) for contestant in winners],
        "cells": [_cell(plan, trials, contestant) for contestant in contestants],
        "num_runs": len(trials.entries),
        "num_diverged": trials.count_diverged(),
        "num_rows": prepared.num_rows,
        "num_features": prepared.num_features,
        "architecture": _architecture(plan, prepared),
        "epochs": plan.epochs,
        "warmup": plan.warmup,
        "pruning": pruning,
        "notes": [*prepared.notes, *plan.left_out, *notes, *pruning_notes],
        "diagnosis": (
            prepared.diagnosis
            if interrupted
            else with_relevance(plan, trials, contestants, prepared.diagnosis)
        ),
        "calibration": None
        if interrupted
        else calibration_of(plan, trials, winners, prepared.encoding.classes),
        "model": model,
        "baseline": None if baseline is None else asdict(baseline),
        "seconds": seconds,
        "versions": versions(),
        "data_sha256": prepared.data_sha256,
        "splits": plan.splits,
        "group": plan.group,
        "time": plan.time,
        "rows": plan.rows,
        "ignore": plan.ignore,
        "users_own": _users_own(plan),
        "seed": plan.seed,
    }
    resolved: dict[str, Any] = plain(verdict)
    return resolved


def _users_own(plan: Plan) -> list[str]:
    """The losses and optimizers that a fresh steepest does not know."""
    losses = [name for name in plan.losses if name != OWN]
    classes = [LOSSES[name] for name in losses] + [OPTIMIZERS[name].cls for name in plan.optimizers]
    names = (*losses, *plan.optimizers)
    return [name for name, cls in zip(names, classes, strict=True) if users_module(cls) is not None]


def _architecture(plan: Plan, prepared: AnyPrepared) -> dict[str, Any]:
    if isinstance(prepared, PreparedModules):
        return {"module": prepared.module_name}
    if isinstance(prepared, PreparedTraining):
        return {"training": prepared.name}
    return {"hidden": plan.architecture.hidden, "activation": plan.architecture.activation}


def _cell(plan: Plan, trials: Trials, contestant: Contestant) -> dict[str, Any]:
    finalist = contestant.finalist
    cell, lr = finalist.cell, finalist.lr
    is_default = finalist.kind == "default"
    return {
        "loss": cell.loss,
        "optimizer": cell.optimizer,
        "batch_size": cell.batch_size,
        "schedule": cell.schedule,
        "lr": lr,
        "loss_options": dict(finalist.setting.loss_options),
        "optimizer_options": dict(finalist.setting.optimizer_options),
        "hyperparameters": trials.read_back(finalist.setting, (*plan.confirmation_seeds, *plan.tuning_seeds)),
        "score": contestant.score,
        "interval": contestant.interval or (None, None),
        "num_seeds": len(contestant.scores),
        "tuned": finalist.tuned,
        "kind": finalist.kind,
        "barred": contestant.barred,
        "rate_interval": finalist.rate_interval,
        "validation_score": contestant.validation_score,
        "num_diverged": trials.count_diverged(cell, lr if is_default else None),
        "test": _test(plan, trials, contestant),
        "difference": contestant.difference,
        "p_value": contestant.p_value,
        "regret": finalist.regret,
    }


def _regrets(contestants: Sequence[Contestant]) -> dict[Cell, float | None]:
    tuned = [one.finalist for one in contestants if one.finalist.kind == "tuned"]
    return {finalist.cell: finalist.regret for finalist in tuned}


def _test(plan: Plan, trials: Trials, contestant: Contestant) -> Mapping[str, float]:
    """Means over the confirmation seeds that gave a score, of all that test rows are scored by."""
    means = {}
    for name in test_names(plan):
        scores = trials.test_scores(contestant.finalist.setting, plan.confirmation_seeds, name)
        scores = scores[np.isfinite(scores)]
        if len(scores):
            means[name] = float(scores.mean())
    return means
