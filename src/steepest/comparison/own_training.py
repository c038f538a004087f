"""Comparisons of a training of the user's own: a function that is told its loss and optimizer, and gives a score."""

from __future__ import annotations

import hashlib
import inspect
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from steepest.comparison.options import (
    Options,
    check_batch_size,
    check_count,
    check_positive,
    check_seed,
)
from steepest.errors import InputError, told
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.schedules.course import check_schedule, check_warmup
from steepest.schedules.scheduler import ScheduleLR
from steepest.training.metrics import METRICS
from steepest.training.native import loss_parameters, optimizer_of
from steepest.training.rates import has_course
from steepest.training.run import OWN, BatchSize, Curve, Record, Run, Stop, Task, named_apart
from steepest.training.seeds import borrowed
from steepest.training.torch_engine import with_gradients

__all__ = ["OwnTrainingEngine", "PreparedTraining", "TrainingTrial", "prepare_training"]

DEFAULT_EPOCHS = 10
_TEST, _ONE_SCORE = "test_score", "one_score"


class _Ended(BaseException):
    """The training is over before its function is; no ``except Exception`` of the user's is to catch it."""


class TrainingTrial:
    """What a training function is given: what to train with, and whom to tell.

    Args:
        loss: the word of the loss, as ``steepest list`` has it; None where the function has its own.
        optimizer: the word of the optimizer.
        lr: its learning rate; None: its default.
        batch_size: rows a step, or ``"full"``; None where that is the function's own affair.
        epochs: how long to train, in whatever the function takes for an epoch.
        seed: what the global random numbers of torch, numpy and Python were seeded with.
        final: whether the test score counts: on the fresh seeds, of the settings that were chosen.
        loss_options, optimizer_options: where they are not as the loss and the optimizer come.
        schedule, warmup: how the rate goes; see :meth:`scheduler`.

    Made by a comparison; make one yourself to try the function out, or to train with what the comparison chose.

    Raises:
        InputError: there is no such loss, optimizer or schedule, or a number is out of its range.

    >>> trial = TrainingTrial("huber", "adam", lr=0.01)
    >>> layer = nn.Linear(2, 1)
    >>> trial.loss(), type(trial.optimizer(layer.parameters())).__name__
    (HuberLoss(), 'Adam')
    """

    def __init__(
        self,
        loss: str | None = None,
        optimizer: str = "adam",
        *,
        lr: float | None = None,
        batch_size: BatchSize | None = None,
        epochs: int = DEFAULT_EPOCHS,
        seed: int = 0,
        final: bool = True,
        loss_options: Mapping[str, float] | None = None,
        optimizer_options: Mapping[str, Any] | None = None,
        schedule: str = "constant",
        warmup: float = 0.0,
    ) -> None:
        if lr is None and optimizer in OPTIMIZERS:
            lr = OPTIMIZERS[optimizer].default_lr
        self._begin(
            Run(
                OWN if loss is None else loss,
                optimizer,
                1e-3 if lr is None else check_positive("lr", lr),
                OWN if batch_size is None else check_batch_size(batch_size, None),
                check_seed(seed),
                stop=Stop(max_epochs=check_count("epochs", epochs)),
                loss_options=dict(loss_options or {}),
                optimizer_options=dict(optimizer_options or {}),
                schedule=check_schedule(schedule).name,
                warmup=check_warmup(warmup),
            ),
            final=final,
        )

    @classmethod
    def _of(cls, run: Run, *, final: bool, stop_event: threading.Event | None) -> TrainingTrial:
        trial = cls.__new__(cls)
        trial._begin(run, final=final, stop_event=stop_event)
        return trial

    def _begin(self, run: Run, *, final: bool, stop_event: threading.Event | None = None) -> None:
        self._run, self._stop_event, self.final = run, stop_event, final
        _, self._hyperparameters = optimizer_of(run)  # checks the options
        self._loss_parameters = {} if run.loss == OWN else loss_parameters(run)
        self.reason: str | None = None
        self.num_steps = 0
        self._started = time.perf_counter()
        self._marks: list[tuple[int, float, float]] = []  # steps, score, seconds at each report
        self._first: torch.optim.Optimizer | None = None
        self._asked: set[str] = set()  # what the function has looked at

    def __repr__(self) -> str:
        return f"TrainingTrial({self.in_words()}, seed {self.seed}, {self.epochs} epochs)"

    def in_words(self) -> str:
        """The settings, as errors name them."""
        run = self._run
        pair = run.optimizer if run.loss == OWN else f"{run.loss} with {run.optimizer}"
        return f"{pair}, learning rate {run.lr:g}"

    @property
    def loss_name(self) -> str | None:
        """The word of the loss; None where the function has its own."""
        self._asked.add("loss")
        return None if self._run.loss == OWN else self._run.loss

    @property
    def optimizer_name(self) -> str:
        """The word of the optimizer."""
        self._asked.add("optimizer")
        return self._run.optimizer

    @property
    def lr(self) -> float:
        """The learning rate."""
        self._asked.add("learning rate")
        return self._run.lr

    @property
    def batch_size(self) -> BatchSize | None:
        """Rows a step, or ``"full"``; None where no batch sizes were asked for."""
        self._asked.add("batch size")
        return None if self._run.batch_size == OWN else self._run.batch_size

    @property
    def epochs(self) -> int:
        """How long to train; a budget's first comparisons of rates are shorter."""
        return self._run.stop.max_epochs or 1

    @property
    def seed(self) -> int:
        """What the global random numbers were seeded with; give it to generators of your own."""
        return self._run.seed

    @property
    def schedule(self) -> str:
        """The word of the rate's schedule."""
        self._asked.add("schedule")
        return self._run.schedule

    @property
    def loss_options(self) -> dict[str, float]:
        """The loss's own parameters."""
        return dict(self._loss_parameters)

    @property
    def optimizer_options(self) -> dict[str, Any]:
        """What the optimizer's class is given besides the rate, where it is not as the class has it."""
        return {**OPTIMIZERS[self._run.optimizer].options, **self._run.optimizer_options}

    def loss(self, **options: Any) -> nn.Module:
        """The loss to train with; ``options`` (``reduction``, ``weight``, ...) go to its class.

        Raises:
            InputError: no losses were asked for, or its class does not take the options.
        """
        self._asked.add("loss")
        if self._run.loss == OWN:
            raise InputError(
                "The training function asks for a loss, and no losses are compared; give losses=['mse', 'huber'], or "
                "let it take its own."
            )
        cls = LOSSES[self._run.loss]
        try:
            loss: nn.Module = cls(**{**self._run.loss_options, **options})
            given = {name: float(options[name]) for name in self._loss_parameters.keys() & options}
        except (TypeError, ValueError) as error:
            raise InputError(f"The loss {self._run.loss} cannot be made so: {told(error)}") from error
        self._loss_parameters |= given
        return loss

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        """The optimizer to train with, over parameters or groups of them; asked again, another one of the same kind.

        The first one's steps are counted, and Ctrl-C ends the training after a step of any.

        Raises:
            InputError: it refuses the parameters.
        """
        self._asked |= {"optimizer", "learning rate"}
        made_by = OPTIMIZERS[self._run.optimizer].cls
        try:
            optimizer: torch.optim.Optimizer = made_by(parameters, lr=self._run.lr, **self.optimizer_options)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The optimizer {self._run.optimizer} cannot train these parameters: {told(error)}"
            ) from error
        optimizer.register_step_post_hook(self._after_step)
        if self._first is None:
            self._first = optimizer
        return optimizer

    def scheduler(self, optimizer: torch.optim.Optimizer, num_steps: int) -> ScheduleLR:
        """The rate's schedule over ``num_steps`` steps of the whole training; step it after each of the optimizer's.

        A shorter training that a budget begins with is the beginning of the long one, and so is its schedule.

        Raises:
            InputError: ``num_steps`` is no positive whole number.
        """
        self._asked.add("schedule")
        run = self._run
        if run.schedule_epochs is not None:
            num_steps = math.ceil(num_steps * run.schedule_epochs / self.epochs)
        return ScheduleLR(optimizer, run.schedule, num_steps=num_steps, warmup=run.warmup)

    def report(self, score: float) -> None:
        """Tell the score on the validation data at an epoch's end: for the learning curve, and to choose by.

        A score that is not finite ends the training: it has diverged. Ctrl-C ends it here too.

        Raises:
            InputError: it is no number.
        """
        value = _number(score, "trial.report was given")
        self._marks.append((self.num_steps, value, time.perf_counter() - self._started))
        if not math.isfinite(value):
            self._end("diverged")
        self._look()

    # --- what the engine asks ----------------------------------------------------------------------------------

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether Ctrl-C has come."""
        return self._stop_event is not None and self._stop_event.is_set()

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self.num_steps += optimizer is self._first
        self._look()

    def _look(self) -> None:
        if self.is_asked_to_stop:
            self._end("interrupted")

    def _end(self, reason: str) -> None:
        self.reason = reason
        raise _Ended

    def _scores(self, given: Any) -> tuple[float, float, bool]:
        """The validation and the test score, by what was reported and returned; and whether they are one and the same.

        Raises:
            InputError: there is none, or it is no number.
        """
        reported = self._marks[-1][1] if self._marks else None
        if isinstance(given, (tuple, list)) and len(given) == 2:
            validation, test = (_number(one, "The training function returned") for one in given)
            return validation, test, False
        if given is not None:
            test = _number(given, "The training function returned")
            return (test, test, True) if reported is None else (reported, test, False)
        if reported is None:
            raise InputError(
                "The training function gave no score; let it return one, or (validation score, test score), or tell "
                "trial.report(score) after each epoch."
            )
        return reported, reported, True

    def _check_heeded(self) -> None:
        """The function has looked at all that tells its runs apart.

        Raises:
            InputError: it has not, and what is compared would be one and the same.
        """
        run = self._run
        compared = {
            "optimizer": "trial.optimizer(parameters)",
            "learning rate": "trial.lr",
            "loss": "trial.loss()" if run.loss != OWN else None,
            "batch size": "trial.batch_size" if run.batch_size != OWN else None,
            "schedule": "trial.scheduler(optimizer, num_steps)" if has_course(run) else None,
        }
        for what, asked_by in compared.items():
            if asked_by is not None and what not in self._asked:
                raise InputError(
                    f"The training function never asked for its {what}, so all that are compared would be the same to "
                    f"it; let it use {asked_by}."
                )

    def _record(self, given: Any, is_better: Callable[[float, float], bool]) -> Record:
        """What the training gave."""
        validation, test, is_one = math.nan, math.nan, False
        was_whole = self.reason is None
        if was_whole:
            validation, test, is_one = self._scores(given)
            self.reason = "epochs" if math.isfinite(validation) and math.isfinite(test) else "diverged"
        if self.reason == "epochs":  # one that broke down may not have come to it
            self._check_heeded()
        steps, scores, seconds = (
            np.array(column) for column in (zip(*self._marks, strict=True) if self._marks else ((), (), ()))
        )
        best = 0
        for place, score in enumerate(scores if len(scores) == self.epochs else ()):
            if best == 0 or is_better(score, scores[best - 1]):
                best = place + 1
        diverged = self.reason == "diverged"
        probe = self._run.stop.max_epochs is None  # of its speed; there an epoch counts as a step
        return Record(
            run=self._run,
            hyperparameters=named_apart(self._read_back(), self._loss_parameters),
            num_epochs=self.epochs if was_whole else len(scores),
            num_steps=1 if probe else self.num_steps,
            num_examples=0,
            stop_reason=self.reason or "epochs",
            best_epoch=0 if diverged else best,
            validation_score=math.nan if diverged else validation,
            curve=Curve(
                epoch=np.arange(1, len(scores) + 1, dtype=np.int64),
                step=steps.astype(np.int64),
                train_loss=np.full(len(scores), np.nan),
                validation_score=scores.astype(np.float64),
                seconds=seconds.astype(np.float64),
            ),
            seconds=time.perf_counter() - self._started,
            parameters={
                _TEST: torch.tensor(test, dtype=torch.float64),
                _ONE_SCORE: torch.tensor(is_one),
            },
        )

    def _read_back(self) -> dict[str, float]:
        if self._first is None:
            return dict(self._hyperparameters)
        group = {**self._first.param_groups[0], "lr": self._run.lr}  # a schedule has moved it
        found: dict[str, float] = OPTIMIZERS[self._run.optimizer].cls.hyperparameters_of(group)
        return found


def _number(given: Any, what: str) -> float:
    if isinstance(given, (torch.Tensor, np.ndarray, np.generic)) and math.prod(given.shape) == 1:
        with suppress(RuntimeError):  # a tensor without content; float has no more luck with it
            given = given.item()
    if isinstance(given, (bool, str, bytes)) or given is None:
        raise InputError(f"{what} {given!r}; a score is a number.")
    try:
        return float(given)
    except (OverflowError, RuntimeError, TypeError, ValueError):
        shape = getattr(given, "shape", ())
        of_shape = f" of shape {tuple(shape)}" if shape else ""
        raise InputError(f"{what} a {type(given).__name__}{of_shape}; a score is a number.") from None


class OwnTrainingEngine:
    """Calls a training function for every run, one after another, each from its own seed.

    Args:
        function: called with a :class:`TrainingTrial`.
        metric: the word of the score.
        final_seeds: on which the test score counts.
    """

    def __init__(
        self, function: Callable[[TrainingTrial], Any], metric: str, final_seeds: Iterable[int] = ()
    ) -> None:
        self.function, self._final_seeds = function, frozenset(final_seeds)
        self._has_one_score = False
        self._sign = 1.0 if METRICS[metric].greater_is_better else -1.0
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def run_all(
        self,
        runs: Sequence[Run],
        *,
        num_threads: int | None = None,
        on_record: Callable[[int, Record], None] | None = None,
        stop_event: threading.Event | None = None,
    ) -> list[Record | None]:
        """Train every run; see :meth:`NativeEngine.run_all`."""
        records: list[Record | None] = [None] * len(runs)
        for index, run in enumerate(runs):
            if stop_event is not None and stop_event.is_set():
                break
            records[index] = record = self._train(run, stop_event)
            if on_record is not None:
                on_record(index, record)
        return records

    def predict(self, run: Run, parameters: Any, features: Any) -> NDArray[Any]:
        """The test score, which is all that is known of a run: it has no predictions of its own."""
        self._has_one_score |= bool(parameters[_ONE_SCORE])
        return np.array([float(parameters[_TEST])])

    def notes(self) -> list[str]:
        """What is to be said of the scores."""
        if not self._has_one_score:
            return []
        note = (
            "The training function gives one score, by which rates were chosen and pairs judged too: it flatters the "
            "best a little. Let it report the validation score (trial.report), and return that on other, test data."
        )
        return [note]

    def _train(self, run: Run, stop_event: threading.Event | None) -> Record:
        trial = TrainingTrial._of(run, final=run.seed in self._final_seeds, stop_event=stop_event)
        given = None
        with borrowed(run.seed, self._device), with_gradients():
            try:
                given = self.function(trial)
            except _Ended:
                pass
            except (Exception, SystemExit) as error:
                if not trial.is_asked_to_stop:  # Ctrl-C ends what works for it too
                    if isinstance(error, InputError):
                        raise
                    raise InputError(
                        f"The training function failed ({trial.in_words()}{_line_of(self.function, error)}): "
                        f"{told(error)} Where a training has gone wrong by its rate, let it return float('nan')."
                    ) from error
        if (
            trial.is_asked_to_stop
        ):  # and a loop of another library's may return early for it, as if it were done
            trial.reason = "interrupted"
        return trial._record(given, lambda score, than: self._sign * (score - than) > 0.0)


@dataclass(frozen=True)
class _NoEncoding:
    """Stands where a table's encoding does."""

    classes: None = None


@dataclass(frozen=True, eq=False)
class PreparedTraining:
    """A training function in the place of a prepared table; of its rows, classes and features nothing is known."""

    function: Callable[[TrainingTrial], Any]
    name: str
    data_sha256: str
    task: Task = OWN
    num_rows: dict[str, int] = field(default_factory=dict)
    num_features: int = 0
    num_classes: int = 1
    encoding: Any = _NoEncoding()
    x_test: None = None
    notes: list[str] = field(default_factory=list)
    diagnosis: list[dict[str, Any]] = field(default_factory=list)
    # A score is no comparison of these with predictions.
    y_train_original = y_validation = y_test = y_test_original = np.empty(0, np.int64)

    @property
    def target(self) -> str:
        """What the comparison is about."""
        return self.name

    def options(self, given: Options) -> Options:
        """The options, with what is a training function's own where nothing is asked for."""
        return replace(
            given,
            task=OWN,
            losses=(OWN,) if given.losses is None else given.losses,
            max_epochs=DEFAULT_EPOCHS if given.max_epochs is None else given.max_epochs,
        )

    def start_engine(self, metric: str, final_seeds: Iterable[int]) -> OwnTrainingEngine:
        """The engine that calls the function."""
        return OwnTrainingEngine(self.function, metric, final_seeds)


def prepare_training(function: Callable[[TrainingTrial], Any]) -> PreparedTraining:
    """A training function, looked at and not called.

    Raises:
        InputError: it is no function of one argument, or one to be awaited.
    """
    name = _named(function).__qualname__.rpartition("<locals>.")[2]
    if not callable(function):
        raise InputError(
            f"train is a {type(function).__name__}; give a function that takes a steepest.TrainingTrial and returns a "
            "score."
        )
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise InputError(
            f"The training function {name} does not take one argument; it is called with a steepest.TrainingTrial."
        ) from None
    except ValueError:  # of compiled code nothing is known
        pass
    if inspect.iscoroutinefunction(function):
        raise InputError(
            f"The training function {name} is asynchronous, and nothing awaits it; give an ordinary function, which "
            "may call asyncio.run."
        )
    return PreparedTraining(function, name, _digest(function))


def _named(function: Any) -> Any:
    """What of it has a name and a text: of a partial its function, of an object that can be called its class."""
    while isinstance(function, partial):
        function = function.func
    return function if hasattr(function, "__qualname__") else type(function)


def _line_of(function: Any, error: BaseException) -> str:
    """The line of the function's file that it failed in, for the command line, which shows no traceback."""
    try:
        file = inspect.getfile(inspect.unwrap(_named(function)))
    except (OSError, TypeError):
        return ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", line {lines[-1]} of {Path(file).name}" if lines and Path(file).is_file() else ""


def _digest(function: Callable[..., Any]) -> str:
    """Of its source, where there is any: a plan is followed for the function that it was made for."""
    try:
        text = inspect.getsource(_named(function))
    except (OSError, TypeError):
        text = _named(function).__qualname__
    return hashlib.sha256(text.encode()).hexdigest()
