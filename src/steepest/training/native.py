"""The native engine: linear models and multi-layer perceptrons, a whole run in one compiled call.

Runs are independent and serial inside, so a pool of threads trains many at once and a run's result does not
depend on how many run beside it.
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from operator import itemgetter
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from steepest.backends import cpu_losses, cpu_optim
from steepest.backends.available import available_bytes, in_words
from steepest.errors import InputError, near_names
from steepest.losses import LOSSES
from steepest.losses.formula import LossFormula
from steepest.optim import OPTIMIZERS
from steepest.optim.rule import Rule
from steepest.training.activations import activation_of
from steepest.training.metrics import LOG_RATE, LOGIT, LOGITS, METRICS, PROBABILITY, REAL
from steepest.training.native_kernel import INTEGERS, MICRO_BATCH, PROGRESS, train_kernel
from steepest.training.random import initial_parameters
from steepest.training.rates import course_of, rate_kernel
from steepest.training.run import STOP_REASONS, Curve, Record, Run, TrainingData, named_apart

__all__ = [
    "KINDS",
    "NativeEngine",
    "check_range",
    "formula_of",
    "layer_sizes",
    "least_target",
    "num_outputs",
    "rows_a_step",
]

DIVERGENCE_FACTOR = 1e4  # a step's loss above this many times (1 + the first step's) is beyond all reason
KINDS = {
    "real": REAL, "logit": LOGIT, "probability": PROBABILITY, "logits": LOGITS, "log_rate": LOG_RATE,
}  # fmt: skip
_SURELY_THERE_BYTES = 100e6  # for less nobody asks the system
INTERRUPTED = STOP_REASONS.index("interrupted")
_SECONDS = STOP_REASONS.index("seconds")


def num_outputs(loss: str, num_classes: int) -> int:
    """How many numbers a model puts out for a row: one a class for softmax losses, else one."""
    return num_classes if formula_of(loss).family == "softmax" else 1


def layer_sizes(run: Run, num_features: int, num_classes: int) -> list[int]:
    """Units of every layer, inputs and outputs included."""
    return [num_features, *run.architecture.hidden, num_outputs(run.loss, num_classes)]


def rows_a_step(run: Run, num_rows: int) -> int:
    """How many of the rows a step takes: all of them for "full".

    Raises:
        InputError: fewer than one.
    """
    if run.batch_size == "full":
        return num_rows
    if int(run.batch_size) < 1:
        raise InputError(f"batch_size is {run.batch_size!r}; give 'full' or a positive whole number.")
    return min(int(run.batch_size), num_rows)


class NativeEngine:
    """Trains runs on one set of rows.

    Args:
        data: encoded rows; ``y_train`` may also be probabilities (rows, classes) for softmax losses.
        metric: the word of the metric that validation scores are in.
        dtype: ``"float32"``, or ``"float64"`` for checking against.
    """

    def __init__(self, data: TrainingData, metric: str, dtype: str = "float32") -> None:
        if metric not in METRICS:
            raise InputError(f"There is no metric {metric!r}{near_names(metric, METRICS)}")
        self.data = data
        self.metric = METRICS[metric]
        if self.metric.is_users_own:
            ours = ", ".join(name for name, one in METRICS.items() if not one.is_users_own)
            raise InputError(
                f"The metric {metric!r} is your own, and judges your own modules, compare(model=...). The networks for "
                f"tables are judged inside their compiled training; choose from {ours}."
            )
        self.dtype = dtype
        self._multiples: tuple[NDArray[Any], ...] | None = None
        self._least = 0.0
        self._weights = np.ascontiguousarray([] if data.weights is None else data.weights, dtype=np.float64)
        self._x, self._y, self._xv, self._yv = (
            np.ascontiguousarray(array, dtype=dtype)
            for array in (data.x_train, data.y_train, data.x_validation, data.y_validation)
        )
        self.num_rows, self.num_validation = len(self._x), len(self._xv)
        self.most_rows = max(self.num_rows, self.num_validation)  # in memory at a time
        self.by_window = False  # rows come a window at a time

    def check_size(self, run: Run) -> None:
        """A network that there is memory for.

        Raises:
            InputError: there is not.
        """
        sizes = layer_sizes(run, self._x.shape[1], self.data.num_classes)
        parameters = sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))
        # Parameters, gradient and best; a micro-batch's units beside them.
        needed = 4 * (4 * parameters + 5 * MICRO_BATCH * sum(sizes))
        if needed > _SURELY_THERE_BYTES and needed > (there := available_bytes()):
            raise InputError(
                f"A network with hidden layers of {', '.join(map(str, run.architecture.hidden))} has {parameters:,} "
                f"parameters, which take {in_words(needed)} of memory, and {in_words(there)} are left; give narrower "
                "ones."
            )

    def targets(self, formula: LossFormula) -> tuple[NDArray[Any], NDArray[Any], float]:
        """Training and validation targets as a loss takes them, and what one of its units is in the target's own.

        Standardised values as they are; for the logarithm of a mean, multiples of the training rows' mean, so
        that a model that gives 0 predicts that mean.

        Raises:
            InputError: a loss for counts or amounts, and targets that are none.
        """
        data = self.data
        if formula.prediction != "log_rate":
            return self._y, self._yv, data.target_scale
        if self._multiples is None:
            originals = [original_targets(data, y) for y in (data.y_train, data.y_validation)]
            self._least = least_target(data)
            with np.errstate(
                divide="ignore", invalid="ignore"
            ):  # by a mean of 0: such targets are refused below
                self._multiples = tuple(
                    np.ascontiguousarray(y / data.target_mean, dtype=self.dtype) for y in originals
                )
        check_range(formula, self._least)
        train, validation = self._multiples
        return train, validation, data.target_mean

    def class_terms(self, formula: LossFormula) -> NDArray[np.float64]:
        """What a loss fitted to the classes' sizes makes of the training rows; see :func:`class_terms`."""
        return class_terms(formula, self.data.y_train, self.data.num_classes, self.data.weights)

    def run_all(
        self,
        runs: Sequence[Run],
        *,
        num_threads: int | None = None,
        on_record: Callable[[int, Record], None] | None = None,
        stop_event: threading.Event | None = None,
        initial: NDArray[Any] | None = None,
    ) -> list[Record | None]:
        """Train every run; records in the runs' order, ``None`` for those that never began.

        Args:
            num_threads: how many runs at once (default: the processors at hand).
            on_record: called as ``on_record(index, record)`` in this thread as runs end.
            stop_event: once set, running runs end as "interrupted" and waiting ones are not begun.
            initial: starting parameters for all runs, in place of those drawn from each run's seed.

        Raises:
            KeyboardInterrupt: handed on after running runs have ended and their records were given.
        """
        jobs: list[Job] = []
        for run in runs:  # kernels are compiled here, seconds each where the cache has none
            if stop_event is not None and stop_event.is_set():
                break
            jobs.append(Job(self, run, initial))
        crew = _Crew(jobs, min(num_threads or processors(), max(len(jobs), 1)))
        timed = [job for job in jobs if job.run.stop.max_sec is not None]
        records: list[Record | None] = [None] * len(runs)

        def deliver(ended: Iterable[tuple[int, Record | None]]) -> None:
            for index, record in ended:
                records[index] = record
                if record is not None and on_record is not None:
                    on_record(index, record)

        with blas().limit(limits=1, user_api="blas"):
            crew.begin()
            try:
                while crew.num_left:
                    deliver(crew.ended(timeout=0.05))
                    if stop_event is not None and stop_event.is_set():
                        break
                    stop_overdue(timed)
            except KeyboardInterrupt:
                deliver(crew.end())
                raise
            except BaseException:
                crew.end()  # runs may never end by themselves
                raise
            deliver(crew.end())
        return records

    def predict(self, run: Run, parameters: NDArray[Any], features: NDArray[Any]) -> NDArray[Any]:
        """Standardised values (rows,) for regression, probabilities (rows, classes) for classes."""
        from steepest.training.modules import build_module

        module = build_module(
            layer_sizes(run, features.shape[1], self.data.num_classes), run.architecture, parameters
        )
        with torch.no_grad():
            outputs = module(torch.as_tensor(features, dtype=next(module.parameters()).dtype)).numpy()
        formula = formula_of(run.loss)
        predictions = to_predictions(outputs, formula)
        if formula.prediction == "log_rate":
            return (predictions - 1.0) * self.data.target_mean / self.data.target_scale
        return predictions


def original_targets(data: TrainingData, standardised: NDArray[Any]) -> NDArray[np.float64]:
    """Standardised targets in their own units."""
    values: NDArray[np.float64] = standardised.astype(np.float64) * data.target_scale + data.target_mean
    # A target of 0 comes back but for the rounding of its standardised form.
    values[np.abs(values) < 1e-6 * (abs(data.target_mean) + data.target_scale)] = 0.0
    return values


def least_target(data: TrainingData) -> float:
    """The smallest target of the training and validation rows, in its own units."""
    return min(float(original_targets(data, y).min()) for y in (data.y_train, data.y_validation) if len(y))


def class_terms(
    formula: LossFormula,
    targets: NDArray[Any],
    num_classes: int,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """What a loss fitted to the classes' sizes makes of them: weights and offsets, (2, classes); (2, 0) for others.

    Args:
        targets: the training rows' class indices, or their probabilities (rows, classes).
        num_classes: how many classes there are.
        weights: of the rows; a class is as large as its rows' weights.
    """
    if formula.class_terms is None:
        return np.zeros((2, 0))
    if targets.ndim == 2:
        counts = targets.sum(axis=0) if weights is None else weights @ targets
    else:
        counts = np.bincount(targets.astype(np.int64), weights, num_classes)
    terms = formula.class_terms(torch.as_tensor(counts, dtype=torch.float64))
    return np.stack([term.numpy() for term in terms])


def check_range(formula: LossFormula, least: float) -> None:
    """The targets of a loss for counts or amounts are such.

    Args:
        least: the smallest target, in the target's own units.

    Raises:
        InputError: it is below 0, or 0 where the loss takes none.
    """
    if formula.target == "positive" and not least > 0.0:
        raise InputError(f"loss {formula.name} takes targets above 0; the smallest one here is {least:g}.")
    if formula.target == "count" and not least >= 0.0:
        raise InputError(f"loss {formula.name} takes targets from 0 up; the smallest one here is {least:g}.")


def to_predictions(outputs: NDArray[Any], formula: LossFormula) -> NDArray[Any]:
    """From a model's outputs (rows, outputs) to values (rows,), or probabilities (rows, classes)."""
    if formula.prediction == "real":
        return outputs[:, 0]
    wide = torch.as_tensor(outputs, dtype=torch.float64)
    if formula.prediction == "log_rate":
        return torch.exp(wide[:, 0]).numpy()
    if formula.prediction == "logits":
        return torch.softmax(wide, dim=1).numpy()
    return torch.cat([torch.sigmoid(-wide), torch.sigmoid(wide)], dim=1).numpy()


def formula_of(loss: str) -> LossFormula:
    """The formula of a loss by its word.

    Raises:
        InputError: there is none of that name.
    """
    if loss not in LOSSES:
        raise InputError(f"There is no loss {loss!r}{near_names(loss, LOSSES)}")
    formula: LossFormula = LOSSES[loss].formula
    return formula


@cache
def blas() -> ThreadpoolController:
    """The libraries of linear algebra in this process; finding them takes longer than a short run."""
    import scipy.linalg.cython_blas  # noqa: F401 - the one that compiled code calls

    return ThreadpoolController()


def processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def optimizer_of(run: Run) -> tuple[Rule, dict[str, float]]:
    """The update rule a run follows and its hyperparameters, as a live optimizer holds them.

    Raises:
        InputError: an unknown optimizer or option, or a value out of range (a rate of 0 too).
    """
    if run.optimizer not in OPTIMIZERS:
        raise InputError(f"There is no optimizer {run.optimizer!r}{near_names(run.optimizer, OPTIMIZERS)}")
    if not 0.0 < run.lr < math.inf:
        raise InputError(
            f"optimizer {run.optimizer}: the learning rate is {run.lr}; give a positive, finite number."
        )
    entry = OPTIMIZERS[run.optimizer]
    options = {**entry.options, **run.optimizer_options}
    try:
        live = entry.cls([torch.nn.Parameter(torch.zeros(1))], lr=run.lr, **options)
    except (IndexError, TypeError, ValueError) as error:
        words = str(error).rstrip(".")
        raise InputError(f"optimizer {run.optimizer}: {words}{'' if words.endswith('?') else '.'}") from None
    group = live.param_groups[0]
    return entry.cls.rule_of(group), entry.cls.hyperparameters_of(group)


def loss_parameters(run: Run) -> dict[str, float]:
    """A loss's own parameters: the run's where given, else the formula's defaults.

    Raises:
        InputError: an unknown parameter, or a value outside its range.
    """
    formula = formula_of(run.loss)
    for name, value in run.loss_options.items():
        if name not in formula.parameters:
            raise InputError(
                f"loss {run.loss} has no parameter {name!r}{near_names(name, formula.parameters)}"
            )
        if not formula.valid[name].holds(value):
            raise InputError(f"loss {run.loss}: {name} is {value}; it must lie in {formula.valid[name]}.")
    return {name: float(run.loss_options.get(name, default)) for name, default in formula.parameters.items()}


def stop_overdue(jobs: Sequence[Job]) -> None:
    now = time.perf_counter()
    for job in jobs:
        limit = job.run.stop.max_sec
        if limit is not None and job.started is not None and now - job.started >= limit:
            job.ask_to_stop(_SECONDS)


class _Crew:
    """Threads that take one job after another, in the jobs' order."""

    def __init__(self, jobs: Sequence[Job], num_threads: int) -> None:
        self._jobs = jobs
        self._waiting = deque(enumerate(jobs))
        self._ended: SimpleQueue[tuple[int, Record | BaseException | None]] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(num_threads)]
        self.num_left = len(jobs)

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while self._waiting:
            try:
                index, job = self._waiting.popleft()
            except IndexError:  # another thread was quicker
                return
            try:
                self._ended.put((index, job.execute()))
            except BaseException as error:
                self._ended.put((index, error))

    def ended(self, timeout: float) -> list[tuple[int, Record | None]]:
        """Those that have ended since, by index; waits for the first. What a job raised is raised."""
        found: list[tuple[int, Record | None]] = []
        try:
            while True:
                index, outcome = self._ended.get(timeout=0.0 if found else timeout)
                self.num_left -= 1
                if isinstance(outcome, BaseException):
                    raise outcome
                found.append((index, outcome))
        except Empty:
            return sorted(found, key=itemgetter(0))

    def end(self) -> list[tuple[int, Record | None]]:
        """Ask everything under way to stop, and wait for it."""
        if self.num_left:
            for job in self._jobs:
                job.cancelled = True
                job.ask_to_stop(INTERRUPTED)
        for thread in self._threads:
            thread.join()
        return self.ended(timeout=0.0)


@dataclass
class _Buffers:
    """The memory a run works in; kept alive until its call returns."""

    parameters: NDArray[Any]
    best: NDArray[Any]
    arrays: list[NDArray[Any]]
    curve: NDArray[np.float64]
    progress: NDArray[np.float64]
    hyper: NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """Rows in memory, and what is left of the epoch from the first of them on."""

    x: NDArray[Any]
    y: NDArray[Any]
    x_validation: NDArray[Any]
    y_validation: NDArray[Any]
    rows_left: int
    validation_left: int
    number: int = 0  # among the epoch's


class Job:
    """One run on its way through the pool."""

    def __init__(self, engine: NativeEngine, run: Run, initial: NDArray[Any] | None) -> None:
        self.engine, self.run, self.initial = engine, run, initial
        self.control = np.zeros(2, dtype=np.int64)
        self.started: float | None = None
        self.cancelled = False
        # Checked, and compiled, in the calling thread: errors surface before anything runs.
        data, dtype = engine.data, engine.dtype
        self.formula = formula_of(run.loss)
        if data.task not in self.formula.tasks:
            raise InputError(
                f"loss {run.loss} is for {' and '.join(self.formula.tasks) or 'your own code'}, "
                f"not for a {data.task} task."
            )
        self.loss_parameters = loss_parameters(run)
        self.y, self.y_validation, self.target_unit = engine.targets(self.formula)
        rows_a_step(run, engine.num_rows)
        engine.check_size(run)
        self.rule, self.hyperparameters = optimizer_of(run)
        activation = activation_of(run.architecture.activation)
        family = "pointwise"
        if self.formula.family == "softmax":
            family = "classes" if engine._y.ndim == 1 else "probabilities"
        self.loss = cpu_losses.engine_loss(
            family,
            self.formula.value,
            self.formula.gradient,
            len(self.loss_parameters),
            dtype,
            self.formula.class_terms is not None,
        )
        self.class_terms = engine.class_terms(self.formula)
        self.step = cpu_optim.optimizer_step(self.rule, dtype)
        self.activate, self.derive = activation.kernels(dtype)
        self.metric = engine.metric.kernel(dtype)
        self.kernel = train_kernel(dtype)
        self.course = course_of(run, -(-engine.num_rows // rows_a_step(run, engine.num_rows)))
        self.schedule = 0 if self.course is None else rate_kernel(run.schedule).address

    def ask_to_stop(self, reason: int) -> None:
        if self.control[0] == 0:
            self.control[0] = reason

    def execute(self) -> Record | None:
        if self.cancelled:
            return None
        self.begin()
        engine = self.engine
        self.advance(
            Window(engine._x, self.y, engine._xv, self.y_validation, engine.num_rows, engine.num_validation)
        )
        record = self.record()
        del self.buffers  # a job lives as long as its stage, and thousands wait in one
        return record

    def begin(self) -> None:
        """Lay out all the memory the run works in."""
        self.started = time.perf_counter()
        engine, run, data = self.engine, self.run, self.engine.data
        n, num_features = engine.num_rows, engine._x.shape[1]
        sizes = layer_sizes(run, num_features, data.num_classes)
        total = sum((i + 1) * o for i, o in pairwise(sizes))
        target_width = 1 if engine._y.ndim == 1 else engine._y.shape[1]
        start = initial_parameters(sizes, run.seed) if self.initial is None else self.initial
        parameters = np.array(start, dtype=engine.dtype)
        gradient, best = np.zeros_like(parameters), parameters.copy()
        slots = self._slots(parameters)
        table = self._table(sizes, [parameters, gradient, *slots])
        units, widest = sum(sizes), max(sizes)
        workspace = np.empty(
            MICRO_BATCH * (2 * units + 3 * widest + target_width + 1) + 1 + total, dtype=engine.dtype
        )
        batch_size = rows_a_step(run, n)
        stop = run.stop
        steps_an_epoch = -(-n // batch_size)
        max_steps = _or_never(stop.max_steps)
        max_epochs = _or_never(stop.max_epochs)
        if max_steps != _NEVER:
            max_epochs = min(max_epochs, -(-max_steps // steps_an_epoch))
        if max_epochs == _NEVER:
            max_epochs = _EPOCHS_AT_MOST
        integers = np.array(
            [
                0, num_features, target_width, 0, len(sizes) - 1, batch_size, run.seed,
                max_epochs, max_steps, stop.patience or 0, engine.metric.greater_is_better,
                stop.target_metric is not None, KINDS[self.formula.prediction],
                self.formula.family == "pointwise", batch_size < n, max_epochs, len(table),
                len(engine._weights) > 0, 0, engine.by_window, 0, 0, engine.num_validation,
            ],
            dtype=np.int64,
        )  # fmt: skip
        course = (0, 0) if self.course is None else (self.course.num_steps, self.course.warmup_steps)
        numbers = np.array(
            [stop.min_gradient_norm or 0.0, self._target_metric(), DIVERGENCE_FACTOR, run.lr, *course]
        )
        scalars = self.rule.scalars_at_first(self.hyperparameters)
        hyper = np.array([*self.hyperparameters.values(), *scalars], dtype=np.float64)
        options = np.array([*self.loss_parameters.values(), *self.class_terms.ravel()], dtype=np.float64)
        sums = np.zeros(2 + 2 * max(sizes[-1], 2))
        curve, progress = np.full((max_epochs, 4), np.nan), np.zeros(len(PROGRESS))
        for name, value in (("reason", -1.0), ("best_score", np.nan), ("loss_limit", np.inf)):
            progress[PROGRESS.index(name)] = value
        arrays: list[NDArray[Any]] = [
            integers, numbers, np.array(sizes, dtype=np.int64), engine._x, self.y, engine._weights,
            engine._xv, self.y_validation, parameters, gradient, best, workspace,
            np.empty(engine.most_rows + max(engine.most_rows, widest), dtype=np.int64),
            table, hyper, options, sums, curve, self.control, progress,
        ]  # fmt: skip
        self.buffers = _Buffers(
            parameters, best, [*arrays, *slots], curve, progress, hyper[: len(self.hyperparameters)]
        )

    def advance(self, window: Window) -> None:
        """Train on the rows of a window; where it holds the whole table, to the run's end."""
        arrays = self.buffers.arrays[:_CALLED_WITH]
        integers = arrays[0]
        for name, value in (
            ("num_rows", len(window.x)),
            ("num_validation", len(window.x_validation)),
            ("window", window.number),
            ("rows_left", window.rows_left),
            ("validation_left", window.validation_left),
        ):
            integers[INTEGERS.index(name)] = value
        arrays[3], arrays[4] = window.x, window.y
        arrays[6], arrays[7] = window.x_validation, window.y_validation
        _entry(self.kernel.address)(
            *map(_address, arrays),
            self.loss.address, self.metric.address, self.activate.address, self.derive.address, self.step.address,
            self.schedule,
        )  # fmt: skip

    def _slots(self, parameters: NDArray[Any]) -> list[NDArray[Any]]:
        """The optimizer's state as it begins; a slot that begins at the gradient, the first step fills."""
        starts = [self.rule.begins_at(name, self.hyperparameters) for name in self.rule.slots]
        return [
            parameters.copy() if start == "parameter"
            else np.full_like(parameters, 0.0 if start == "gradient" else start)
            for start in starts
        ]  # fmt: skip

    def _table(self, sizes: list[int], arrays: list[NDArray[Any]]) -> NDArray[np.int64]:
        """The step's table: all parameters as one tensor, or, where the rule takes norms, layer by layer."""
        lengths = [len(arrays[0])]
        if self.rule.measure is not None:
            lengths = [length for i, o in pairwise(sizes) for length in (i * o, o)]  # weight, then bias
        starts = np.cumsum([0, *lengths[:-1]]) * arrays[0].itemsize
        addresses = [_address(array) + starts for array in arrays]
        return np.ascontiguousarray(np.stack([np.array(lengths), *addresses], axis=1), dtype=np.int64)

    def _target_metric(self) -> float:
        wanted = self.run.stop.target_metric
        if wanted is None:
            return 0.0
        return wanted / self._scale()

    def _scale(self) -> float:
        return self.target_unit if self.engine.metric.in_target_units else 1.0

    @property
    def has_ended(self) -> bool:
        """Whether a stop condition holds."""
        return bool(self.buffers.progress[_REASON] >= 0)

    def heed_stop(self) -> None:
        """End where that was asked for, though a batch may not be over."""
        if self.control[0] and not self.has_ended:
            self.buffers.progress[_REASON] = self.control[0]

    def share_done(self, now: float) -> float:
        """How much of the way to its nearest limit is behind it."""
        stop, progress = self.run.stop, self.buffers.progress
        epochs = progress[0] + progress[PROGRESS.index("epoch_examples")] / self.engine.num_rows
        shares = [
            done / limit
            for done, limit in (
                (epochs, stop.max_epochs),
                (progress[1], stop.max_steps),
                (now - (self.started or now), stop.max_sec),
            )
            if limit is not None
        ]
        return float(max(shares, default=0.0))

    def record(self) -> Record:
        """What the run gave, once it has ended."""
        buffers, seconds = self.buffers, time.perf_counter() - (self.started or 0.0)
        num_epochs, num_steps, num_examples, reason, best_epoch = (
            int(number) for number in buffers.progress[:5]
        )
        marks = buffers.curve[:num_epochs]
        diverged = STOP_REASONS[reason] == "diverged"
        scale = self._scale()
        names = list(self.hyperparameters)
        return Record(
            run=self.run,
            hyperparameters=named_apart(
                {name: float(value) for name, value in zip(names, buffers.hyper, strict=True)},
                self.loss_parameters,
            ),
            num_epochs=num_epochs,
            num_steps=num_steps,
            num_examples=num_examples,
            stop_reason=STOP_REASONS[reason],
            best_epoch=0 if diverged else best_epoch,
            validation_score=float("nan") if diverged else float(buffers.progress[5]) * scale,
            curve=Curve(
                epoch=marks[:, 0].astype(np.int64),
                step=marks[:, 1].astype(np.int64),
                train_loss=marks[:, 2].copy(),
                validation_score=marks[:, 3] * scale,
            ),
            seconds=seconds,
            parameters=buffers.best,
        )


@cache
def _entry(address: int) -> Any:
    """The compiled run, which takes what it is given as bare addresses; the interpreter lock is released."""
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 26)(address)


def _address(array: NDArray[Any]) -> int:
    """Where an array's numbers begin; ``array.ctypes`` takes four times as long to say so."""
    address: int = array.__array_interface__["data"][0]
    return address


_REASON = PROGRESS.index("reason")
_CALLED_WITH = 20  # arrays, the addresses apart
_NEVER = 1 << 62
_EPOCHS_AT_MOST = 100_000  # where only seconds, patience or a target end a run, the curve still has an end


def _or_never(limit: int | None) -> int:
    return _NEVER if limit is None else limit
