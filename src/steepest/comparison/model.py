"""The model a comparison hands over: the first winner's settings, trained on all rows but the test rows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.comparison.confirm import scores_on_test
from steepest.comparison.engine import Engine, start_engine
from steepest.comparison.fitted import FittedModel
from steepest.comparison.forward import split as split_layers
from steepest.comparison.modules import PreparedModules, TrainedModule
from steepest.comparison.own_training import PreparedTraining
from steepest.comparison.plan import Plan, Trial
from steepest.comparison.ranking import Contestant, still_improving
from steepest.comparison.splits import Splits
from steepest.comparison.trials import Interrupted, Trials
from steepest.training.metrics import METRICS
from steepest.training.rates import has_course
from steepest.training.run import Record, Stop

if TYPE_CHECKING:
    from steepest.data import Prepared
    from steepest.data.streamed import StreamedRows

__all__ = ["about_model", "fitted_model", "model_of"]

_COMES_TO_REST = "wsd"  # flat for four fifths, as the comparison's runs were throughout, then down to zero
# In lengths of the comparison's runs: how far a run goes that was still improving, and when it is given up.
_MOST_TIMES = 10
_PATIENCE_TIMES = 2
_MOST_SEC_TO_REPEAT = 5.0  # schedulers kill about half a minute after they asked to stop


def model_of(
    plan: Plan,
    splits: Splits,
    trials: Trials,
    winners: Sequence[Contestant],
    stop_event: threading.Event | None = None,
) -> FittedModel | TrainedModule | None:
    """The first winner's settings, trained once more with the validation rows among the training rows.

    Modules of the user's own, and what an interrupted comparison has found so far, are handed over as they are: the
    winner's best run on validation rows among its confirmation seeds (its tuning seeds, if interrupted before). Scores
    on different validation rows say nothing of which run is best: with several splits it is the first seed's. After an
    interruption, a run is not repeated for its weights where that would take longer than who asked to stop would wait.
    What a training function of the user's own makes is its own affair: there is None.

    Raises:
        Interrupted: the event was set while the model was being trained.
    """
    was_asked = stop_event is not None and stop_event.is_set()
    if not winners or isinstance(splits.first.prepared, PreparedTraining):
        return None
    trial = _best_trial(plan, trials, winners[0])
    record, own = trials.whole(trial), splits.of(trial.seed)
    if record.parameters is None:  # a tuning run: the same run gives the same bits again
        if was_asked and not record.seconds < _MOST_SEC_TO_REPEAT:
            return None
        if was_asked:  # alone, which is quicker
            record = own.engine.run_all([record.run], num_threads=1)[0] or record
        else:
            trials.train_again([trial])
            record = trials.whole(trial)
    if record.parameters is None:
        return None
    if isinstance(own.prepared, PreparedModules):
        return own.prepared.trained(record, plan.metric)
    assert not isinstance(own.prepared, PreparedTraining)
    if winners[0].epochs_to_best > 0:
        record = _trained_on_more(plan, own.prepared, own.engine, record, winners[0], stop_event)
        if stop_event is not None and stop_event.is_set():
            raise Interrupted
    return fitted_model(own.prepared, record, plan.metric)


def _trained_on_more(
    plan: Plan,
    prepared: Prepared,
    engine: Engine,
    record: Record,
    winner: Contestant,
    stop_event: threading.Event | None,
) -> Record:
    """The record's run on all rows but the test rows.

    The runs of the comparison kept the weights of their best epoch. Here none is known as the best, and the last
    weights of a constant rate lie as far off as its noise carries them; so the rate falls to zero at the end.
    """
    data = prepared.all_but_test()
    stop = Stop(max_epochs=_epochs(plan, engine, record, winner, stop_event))
    run = replace(record.run, stop=stop)  # a schedule goes over all of this length
    in_batches = isinstance(run.batch_size, int) and run.batch_size < len(data.y_train)
    if run.schedule == "constant" and in_batches:
        run = replace(run, schedule=_COMES_TO_REST)
    more = start_engine(data, plan.metric)
    again = more.run_all([run], num_threads=1, stop_event=stop_event)[0]
    if again is None or again.diverged or not np.isfinite(again.parameters).all():
        return record
    return again


def _epochs(
    plan: Plan, engine: Engine, record: Record, winner: Contestant, stop_event: threading.Event | None
) -> int:
    """How long to train where no validation rows are left to tell: as long as the fresh seeds took to their best.

    Together they are less subject to luck than one. Where they were still improving at their end, one run goes on until
    it no longer does: a comparison's runs may be short, the model need not be. Under a schedule, whose end is its best
    part whatever the length, runs of twice the length each are tried instead, the whole schedule over each, as long as
    that makes them better.
    """
    taken = max(1, round(winner.epochs_to_best))
    if not still_improving(plan, winner):
        return taken
    if has_course(record.run):
        return _epochs_under_schedule(plan, engine, record, taken, stop_event)
    stop = Stop(max_epochs=_MOST_TIMES * plan.epochs, patience=_PATIENCE_TIMES * plan.epochs)
    longer = engine.run_all([replace(record.run, stop=stop)], num_threads=1, stop_event=stop_event)[0]
    return taken if longer is None else max(taken, longer.best_epoch)


def _epochs_under_schedule(
    plan: Plan, engine: Engine, record: Record, taken: int, stop_event: threading.Event | None
) -> int:
    sign = -1.0 if METRICS[plan.metric].greater_is_better else 1.0
    best, epochs = sign * record.validation_score, plan.epochs
    while (epochs := 2 * epochs) <= _MOST_TIMES * plan.epochs:
        run = replace(record.run, stop=Stop(max_epochs=epochs))
        longer = engine.run_all([run], num_threads=1, stop_event=stop_event)[0]
        if longer is None or longer.diverged or not sign * longer.validation_score < best:
            break
        best, taken = sign * longer.validation_score, epochs
    return taken


def about_model(
    plan: Plan, splits: Splits, model: FittedModel | TrainedModule | None
) -> dict[str, Any] | None:
    """What a verdict says of a table's model that was trained on more rows: how, and its scores on the test rows."""
    if not isinstance(model, FittedModel):
        return None
    record = model.record
    own = splits.of(record.run.seed)
    if record.best_epoch:  # validation rows chose its epoch: a run of the comparison
        return None
    return {
        "seed": record.run.seed,
        "epochs": record.num_epochs,
        "schedule": record.run.schedule,
        "num_rows": own.prepared.num_rows["train"] + own.prepared.num_rows["validation"],
        "test": scores_on_test(plan, own, record),
    }


def _best_trial(plan: Plan, trials: Trials, winner: Contestant) -> Trial:
    sign = -1.0 if METRICS[plan.metric].greater_is_better else 1.0
    wanted = [winner.finalist.setting.on(seed) for seed in (*plan.confirmation_seeds, *plan.tuning_seeds)]
    tried = [trial for trial in wanted if np.isfinite(trials.score(trial))]
    fresh = [trial for trial in tried if trial.seed in plan.confirmation_seeds]
    if fresh and plan.splits > 1:
        return fresh[0]
    return min(fresh or tried, key=lambda trial: sign * trials.score(trial))


def fitted_model(prepared: Prepared | StreamedRows, record: Record, metric: str) -> FittedModel:
    """A record that has parameters, with what it takes to use it."""
    assert record.parameters is not None
    from steepest.training.native import formula_of, num_outputs

    sizes = (
        prepared.num_features,
        record.run.architecture,
        num_outputs(record.run.loss, prepared.num_classes),
    )
    parameters = np.asarray(record.parameters, dtype=np.float32)
    layers = split_layers(parameters, *sizes)
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
