"""``fit``: train one model with the loss and the optimizer you name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.comparison import options as check
from steepest.comparison.engine import Engine
from steepest.comparison.fitted import FittedModel
from steepest.comparison.intake import engine_for, taken_in
from steepest.comparison.interrupt import stop_on_interrupt
from steepest.comparison.model import fitted_model
from steepest.comparison.plan import POINTS_PER_DECADE, rate_grids
from steepest.comparison.tune import best_row
from steepest.data import Prepared
from steepest.data.streamed import StreamedRows
from steepest.errors import InputError, arguments_of, near_names
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.training.metrics import METRICS
from steepest.training.native import rows_a_step
from steepest.training.rates import check_course
from steepest.training.run import BatchSize, Record, Run, Stop, Task

__all__ = [
    "check_loss_options",
    "check_optimizer_options",
    "default_loss",
    "divergence",
    "fit",
    "look_for_rate",
]

# lr="auto" looks at every rate of the optimizer's grid for so many epochs, on one seed; for one where the data are
# too large for memory, which is many steps.
_EPOCHS_TO_LOOK = 10


def fit(
    data: Any,
    target: str | None = None,
    *,
    task: str = "auto",
    loss: str = "auto",
    optimizer: str = "adam",
    lr: float | str = "auto",
    batch_size: BatchSize | None = None,
    hidden: Sequence[int] = (64, 64),
    activation: str = "relu",
    validation: float = 0.2,
    metric: str | None = None,
    max_epochs: int | None = 100,
    max_steps: int | None = None,
    max_sec: float | None = None,
    patience: int | None = None,
    min_gradient_norm: float | None = None,
    target_metric: float | None = None,
    seed: int = 0,
    num_threads: int | None = None,
    loss_options: Mapping[str, float] | None = None,
    optimizer_options: Mapping[str, Any] | None = None,
    group: str | None = None,
    time: str | None = None,
    schedule: str = "constant",
    warmup: float = 0.0,
    ignore: Sequence[str] | str | None = None,
    memory: int | str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> FittedModel:
    """Train one model on a table.

    Args:
        data: a path, of a directory of files too, or a pattern such as ``"data/*.parquet"``; a data frame; or a pair
            ``(X, y)``. Files too large for ``memory`` are streamed from disk.
        target: the column to predict; None for a pair.
        task: ``"regression"``, ``"binary"``, ``"multiclass"``, ``"classification"`` or ``"auto"``.
        loss: a name out of ``steepest.losses.LOSSES``; ``"auto"``: ``mse``, ``bce`` or ``cross_entropy``.
        optimizer: a name out of ``steepest.optim.OPTIMIZERS``.
        lr: the learning rate; ``"auto"`` looks at the optimizer's grid for a few epochs and takes the best on
            the validation rows, or the optimizer's default where there are none.
        batch_size: rows a step: ``"full"`` (batch gradient descent), 1 (stochastic) or a number; None: 32, or all rows
            where there are fewer.
        hidden: widths of the hidden layers; ``()`` is a linear model.
        activation: ``relu``, ``tanh``, ``gelu``, ``silu`` or ``sigmoid``.
        validation: share of the rows held out; the weights of the best epoch on them are kept. 0: none.
        metric: what the validation score is; None: ``rmse`` or ``log_loss``.
        max_epochs: stop after so many passes over the training rows; None: no limit.
        max_steps: stop after so many updates.
        max_sec: stop after so many seconds.
        patience: stop after so many epochs without a better validation score.
        min_gradient_norm: stop when a step's gradient norm falls to this.
        target_metric: stop when the validation score reaches this, in the metric's own units.
        seed: decides the split, the initial weights and the order of the rows.
        num_threads: how many rates ``lr="auto"`` tries at once; None: one a processor.
        loss_options: the loss's own parameters, such as ``{"delta": 1.5}``.
        optimizer_options: the optimizer's own, such as ``{"weight_decay": 0.01}`` (``beta1`` is the first of betas).
        group: a column none of whose values is to be in two parts of the rows; it is no feature.
        time: a column in whose order the rows are cut, validation rows last; it is no feature.
        schedule: how the rate goes over the steps, a name out of ``steepest.schedules.SCHEDULES``. All but
            ``"constant"`` take a length known beforehand: ``max_epochs`` or ``max_steps``, whichever ends first. What
            else may end a run ends it early.
        warmup: the share of the steps over which the rate rises to where the schedule begins, such as 0.05.
        ignore: columns that take no part.
        memory: how much memory this process may take, Python and torch included: bytes, or ``"1GB"``; None: half of
            what is available.
        progress: called as ``progress(what, share)`` while data too large for memory are read and trained on.

    Returns:
        The model. ``record.stop_reason`` says why training ended; ``"interrupted"`` after Ctrl-C.

    Raises:
        InputError: the data or an option cannot be used, or training diverged.
    """
    check.check_threads(num_threads)
    stop = _check_stop(
        Stop(max_epochs, max_steps, max_sec, patience, min_gradient_norm, target_metric), validation
    )
    seed, architecture = check.check_seed(seed), check.check_architecture(hidden, activation)
    rate = _first_rate(lr, check.check_optimizer(optimizer))
    with taken_in(
        data,
        target,
        task=task,
        seed=seed,
        validation=validation,
        ignore=ignore,
        group=group,
        time=time,
        memory=memory,
        told=progress,
    ) as prepared:
        word = default_loss(prepared.task) if loss == "auto" else check.check_loss(loss, prepared.task)
        judge = check.check_metric(metric, prepared.task)
        num_train_rows = prepared.num_rows["train"]
        run = Run(
            loss=word,
            optimizer=optimizer,
            lr=rate,
            batch_size=check.default_batch_size(num_train_rows)
            if batch_size is None
            else check.check_batch_size(batch_size, num_train_rows),
            seed=seed,
            architecture=architecture,
            stop=stop,
            loss_options=check_loss_options(word, loss_options or {}),
            optimizer_options=check_optimizer_options(optimizer, optimizer_options or {}),
            schedule=check.check_schedule(schedule).name,
            warmup=check.check_warmup(warmup),
        )
        check_course(run, math.ceil(num_train_rows / rows_a_step(run, num_train_rows)))
        engine = engine_for(prepared, judge, progress)
        if lr == "auto" and prepared.num_rows["validation"]:
            epochs = 1 if isinstance(prepared, StreamedRows) else _EPOCHS_TO_LOOK
            held_out = None if isinstance(prepared, StreamedRows) else prepared.y_validation
            run = replace(run, lr=look_for_rate(engine, run, judge, num_threads, epochs, held_out))
        return _train(engine, run, prepared, judge, lr)


def _first_rate(lr: float | str, optimizer: str) -> float:
    """The rate given, or the one the optimizer comes with."""
    return OPTIMIZERS[optimizer].default_lr if lr == "auto" else check.check_positive("The learning rate", lr)


def look_for_rate(
    engine: Engine,
    run: Run,
    metric: str,
    num_threads: int | None,
    epochs: int = _EPOCHS_TO_LOOK,
    held_out: NDArray[Any] | None = None,
) -> float:
    """The rate of the optimizer's grid with the best validation score after a few epochs.

    Args:
        held_out: the validation targets, which decide what scores they tell apart; None: so many that they tell all.
    """
    rates = rate_grids((run.optimizer,), POINTS_PER_DECADE)[run.optimizer]
    epochs = min(epochs, run.stop.max_epochs or epochs)
    stop = Stop(max_epochs=epochs, max_steps=run.stop.max_steps, max_sec=run.stop.max_sec)
    records = engine.run_all([replace(run, lr=lr, stop=stop) for lr in rates], num_threads=num_threads)
    scores = np.array([[np.nan if record is None else record.validation_score] for record in records])
    if held_out is not None:
        scores = np.maximum(scores, METRICS[metric].least_told_apart(lambda: held_out))
    return rates[best_row(-scores if METRICS[metric].greater_is_better else scores)]


def _train(
    engine: Engine, run: Run, prepared: Prepared | StreamedRows, metric: str, lr: float | str
) -> FittedModel:
    with stop_on_interrupt() as stop_event:
        record = engine.run_all([run], num_threads=1, stop_event=stop_event)[0]
    if record is None or (record.stop_reason == "interrupted" and not _has_learned(record, prepared)):
        raise KeyboardInterrupt  # before there was anything to keep
    if record.diverged or record.parameters is None:
        raise InputError(divergence(record, lr, "auto"))
    return replace(fitted_model(prepared, record, metric), notes=tuple(prepared.notes))


def _has_learned(record: Record, prepared: Prepared | StreamedRows) -> bool:
    """Whether there are weights to keep: an evaluation's, or the last ones where nothing is evaluated."""
    return record.best_epoch > 0 if prepared.num_rows["validation"] else record.num_steps > 0


def divergence(record: Record, lr: float | str, looks: str) -> str:
    """What to say of a run that diverged; ``lr`` is what was asked for, ``looks`` the word that looks for a rate."""
    run = record.run
    found, mend = (", the best of those looked at", "") if lr == looks else ("", f", or lr={looks!r}")
    epoch = record.num_epochs + 1
    if run.stop.max_epochs is not None:
        epoch = min(epoch, run.stop.max_epochs)  # by its last step, which no loss comes after
    return (
        f"Training diverged in epoch {epoch} at learning rate {run.lr:g}{found} "
        f"({run.loss} with {run.optimizer}); give a smaller one{mend}."
    )


def default_loss(task: Task) -> str:
    """The first of the task's default losses."""
    return check.check_losses(None, task)[0]


def _check_stop(stop: Stop, validation: float) -> Stop:
    """Stop conditions in range, at least one that will come, and none that needs rows there are not."""
    for name in ("patience", "target_metric"):
        if getattr(stop, name) is not None and not validation:
            raise InputError(
                f"{name} needs validation rows; give validation a share such as 0.2, or leave {name} out."
            )
    checked = Stop(
        max_epochs=check.check_count("max_epochs", stop.max_epochs),
        max_steps=check.check_count("max_steps", stop.max_steps),
        max_sec=check.check_limit("max_sec", stop.max_sec),
        patience=check.check_count("patience", stop.patience),
        min_gradient_norm=check.check_limit("min_gradient_norm", stop.min_gradient_norm),
        target_metric=check.check_number("target_metric", stop.target_metric),
    )
    if checked.max_epochs is None and checked.max_steps is None and checked.max_sec is None:
        raise InputError("Nothing limits the training; give max_epochs, max_steps or max_sec.")
    return checked


def check_loss_options(loss: str, given: Mapping[str, float]) -> dict[str, float]:
    """A loss's own parameters: known, and in range."""
    _check_is_mapping("loss_options", given, {"delta": 1.5})
    formula = LOSSES[loss].formula
    checked = {}
    for name, value in given.items():
        if name not in formula.parameters:
            raise InputError(f"The loss {loss!r} has no option {name!r}{_choices(name, formula.parameters)}")
        number = check.check_number(f"The loss option {name}", value)
        if number is None or not formula.valid[name].holds(number):
            raise InputError(f"The loss option {name} lies in {formula.valid[name]}; {value!r} does not.")
        checked[name] = number
    return checked


def check_optimizer_options(optimizer: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's own options as its class takes them: known, of the right kind, and not the learning rate."""
    _check_is_mapping("optimizer_options", given, {"weight_decay": 0.01})
    entry = OPTIMIZERS[optimizer]
    taken = inspect.signature(entry.cls).parameters
    decided = {"params", "lr", *entry.options} - set(entry.tunable)
    words = dict.fromkeys([*arguments_of(entry.cls), *entry.tunable])
    known = [name for name in words if name not in decided]
    for name, value in given.items():
        if name == "lr":
            raise InputError("Give the learning rate as lr, not among the optimizer's options.")
        if name not in known:
            raise InputError(f"The optimizer {optimizer!r} has no option {name!r}{_choices(name, known)}")
        usual = taken[name].default if name in taken else 0.0
        if not _is_like(usual, value):
            raise InputError(f"The option {name} of {optimizer!r} is {value!r}; give {_told_kind(usual)}.")
    arguments: dict[str, Any] = entry.arguments(given)
    return arguments


def _check_is_mapping(name: str, given: object, example: Mapping[str, float]) -> None:
    if not isinstance(given, Mapping):
        raise InputError(f"{name} is a dictionary such as {example}, not {given!r}.")


def _is_like(usual: object, value: Any) -> bool:
    """Whether a value is of the kind of a default; what has another kind than these, its class looks at itself."""
    if isinstance(usual, (bool, int, float)):  # the command line writes True as 1.0
        return isinstance(value, Real)
    if isinstance(usual, tuple):
        is_row = isinstance(value, (list, tuple)) and len(value) == len(usual)
        return is_row and all(isinstance(number, Real) for number in value)
    return True


def _told_kind(usual: object) -> str:
    if isinstance(usual, bool):
        return "True or False"
    return f"{len(usual)} numbers" if isinstance(usual, tuple) else "a number"


def _choices(name: object, known: Iterable[str]) -> str:
    names = list(known)
    return near_names(str(name), names) if names else "; it has none."
