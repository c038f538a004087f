"""The model a comparison hands over: the first winner's run with the best validation score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from steepest.comparison.engine import Engine
from steepest.comparison.fitted import FittedModel
from steepest.comparison.forward import split
from steepest.comparison.modules import PreparedModules, TrainedModule
from steepest.comparison.plan import Plan, Trial
from steepest.comparison.ranking import Contestant
from steepest.comparison.trials import Trials
from steepest.training.metrics import METRICS
from steepest.training.run import Record

if TYPE_CHECKING:
    from steepest.data import Prepared

__all__ = ["fitted_model", "model_of"]


def model_of(
    plan: Plan,
    prepared: Prepared | PreparedModules,
    engine: Engine,
    trials: Trials,
    winners: Sequence[Contestant],
) -> FittedModel | TrainedModule | None:
    """The first winner's best run among its confirmation seeds (its tuning seeds, if interrupted before)."""
    if not winners:
        return None
    record = trials.entries[_best_trial(plan, trials, winners[0])].record
    if record.parameters is None:  # a tuning run: the same run gives the same bits again
        record = engine.run_all([record.run], num_threads=1)[0] or record
    if record.parameters is None:
        return None
    if isinstance(prepared, PreparedModules):
        return prepared.trained(record, plan.metric)
    return fitted_model(prepared, record, plan.metric)


def _best_trial(plan: Plan, trials: Trials, winner: Contestant) -> Trial:
    sign = -1.0 if METRICS[plan.metric].greater_is_better else 1.0
    wanted = [winner.finalist.setting.on(seed) for seed in (*plan.confirmation_seeds, *plan.tuning_seeds)]
    tried = [trial for trial in wanted if np.isfinite(trials.score(trial))]
    fresh = [trial for trial in tried if trial.seed in plan.confirmation_seeds]
    return min(fresh or tried, key=lambda trial: sign * trials.score(trial))


def fitted_model(prepared: Prepared, record: Record, metric: str) -> FittedModel:
    """A record that has parameters, with what it takes to use it."""
    assert record.parameters is not None
    from steepest.training.native import formula_of, num_outputs

    num_features, num_classes = prepared.x_train.shape[1], prepared.training_data().num_classes
    sizes = (num_features, record.run.architecture, num_outputs(record.run.loss, num_classes))
    parameters = np.asarray(record.parameters, dtype=np.float32)
    layers = split(parameters, *sizes)
    return FittedModel(
        task=prepared.task,
        target=prepared.target,
        metric=metric,
        encoding=prepared.encoding,
        layers=tuple(layers),
        record=record,
        data_sha256=prepared.data_sha256,
        gives_log_rate=formula_of(record.run.loss).prediction == "log_rate",
    )
