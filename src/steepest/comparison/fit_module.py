"""``fit_module``: train a module of the user's own, on one process or on many."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from steepest.comparison import options as check
from steepest.comparison.canonical import canonical_json
from steepest.comparison.fit import check_loss_options, check_optimizer_options, default_loss
from steepest.comparison.imported import data_of, factory_of
from steepest.comparison.module_files import CHECKPOINTS, OURS, RECORD, write_model, write_record
from steepest.comparison.output import check_directory, place_of
from steepest.errors import InputError, near_names
from steepest.optim import OPTIMIZERS
from steepest.schedules.course import Course
from steepest.training.distributed.checkpoint import Checkpoints
from steepest.training.distributed.interruption import asked_to_stop
from steepest.training.distributed.loading import Part, as_parts
from steepest.training.distributed.parallel import leaves_out, parallelized
from steepest.training.distributed.ranks import Ranks, joined
from steepest.training.distributed.run import ModuleRecord, ModuleRun
from steepest.training.distributed.train import OnStep, Training, len_of_batch, order_of, train
from steepest.training.layout import class_rows, layout_of
from steepest.training.metrics import default_metric
from steepest.training.native import formula_of
from steepest.training.rates import check_course, course_of
from steepest.training.run import BatchSize, Run, Stop, Task
from steepest.training.seeds import borrowed
from steepest.training.step_sizes import sizes_of, threads_for
from steepest.training.torch_data import Rows
from steepest.training.torch_engine import TorchEngine, has_batch_norm, inner_module, with_gradients

__all__ = ["FittedModule", "fit_module"]

# What a question says of the rate's course, and means where it is an older one's that says nothing.
_CONSTANT = {"schedule": "constant", "num_steps": None, "warmup": 0.0}
_TASKS: tuple[Task, ...] = ("regression", "binary", "multiclass")


@dataclass(frozen=True)
class FittedModule:
    """What :func:`fit_module` came to.

    Attributes:
        record: the run, its curve, and why it ended.
        out: the folder; the weights are in ``out/model/model.safetensors`` unless it was interrupted.
        notes: what is out of the ordinary.
        is_first: whether this process is the one that writes and speaks.
    """

    record: ModuleRecord
    out: Path
    notes: list[str]
    is_first: bool


@with_gradients()
def fit_module(
    model: Callable[[], nn.Module] | str,
    data: Any,
    *,
    out: str | os.PathLike[str],
    loss: str = "auto",
    optimizer: str = "adam",
    lr: float | str = "auto",
    batch_size: BatchSize | None = None,
    accumulate: int = 1,
    parallel: str = "ddp",
    max_epochs: int | None = 100,
    max_steps: int | None = None,
    checkpoint_every: int = 1000,
    resume: bool = False,
    device: str = "auto",
    task: str = "auto",
    seed: int = 0,
    schedule: str = "constant",
    warmup: float = 0.0,
    loss_options: Mapping[str, float] | None = None,
    optimizer_options: Mapping[str, Any] | None = None,
    on_step: OnStep | None = None,
) -> FittedModule:
    """Train a module on as many processes as torchrun started (or alone), with the result of one, to rounding.

    Args:
        model: called without arguments, gives a fresh module; or its ``"package.module:name"``. Called on every
            process, after all random numbers were seeded; the first one's weights count.
        data: training data, or (train, validation) of such; a function that gives it, or the
            ``"package.module:name"`` of either. Each part is ``(inputs, targets)``, tensors or arrays, a map-style
            ``Dataset`` of such pairs or a ``DataLoader`` of one. A third part, which ``compare`` would judge by, is not
            looked at.
        out: a folder that all processes see: the model, the record and the checkpoints.
        loss: a name out of ``steepest.losses.LOSSES``; ``"auto"``: ``mse``, ``bce`` or ``cross_entropy``.
        optimizer: a name out of ``steepest.optim.OPTIMIZERS``.
        lr: the learning rate; ``"auto"`` is the optimizer's default.
        batch_size: rows a step, over all processes; ``"full"``; None: the loader's, or 32.
        accumulate: each process takes its rows of a step in so many micro-batches: memory for time, the same step.
        parallel: ``"ddp"``, the whole module on each process; ``"fsdp"``, a part of each parameter on each.
        max_epochs, max_steps: when to stop; None: no limit.
        checkpoint_every: steps between checkpoints; the last two are kept.
        resume: go on from the last checkpoint in ``out``, on any number of processes.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        task: ``"regression"``, ``"binary"``, ``"multiclass"``, ``"classification"``, by the module's outputs, or
            ``"auto"``, by the targets too.
        seed: decides initial weights and the order of the rows.
        schedule, warmup: how the rate goes over the steps, as in :func:`steepest.fit`; resumed, it goes on.
        loss_options, optimizer_options: their own, as in :func:`steepest.fit`.
        on_step: called on the first process after each step with where the training stands, the number of steps in all
            and the step's loss.

    Raises:
        InputError: an option, the module or the data cannot be used, on one process or on all.
    """
    with joined(device) as ranks, asked_to_stop() as stop_event:
        with ranks.agreed():
            place = place_of(out)
            if ranks.is_first:
                check_directory(out, (RECORD,), OURS)
            factory, parts = factory_of(model), as_parts(data_of(data))
            _check_limits(max_epochs, max_steps)
            checked = _Checked(factory, parts, ranks, seed=check.check_seed(seed), task=task)
            word = checked.default_loss() if loss == "auto" else check.check_loss(loss, checked.task)
            check.check_optimizer(optimizer)
            run = ModuleRun(
                Run(
                    loss=word,
                    optimizer=optimizer,
                    lr=OPTIMIZERS[optimizer].default_lr
                    if lr == "auto"
                    else check.check_positive("The learning rate", lr),
                    batch_size=_rows_a_step(batch_size, parts[0]),
                    seed=seed,
                    stop=Stop(
                        max_epochs=check.check_count("max_epochs", max_epochs),
                        max_steps=check.check_count("max_steps", max_steps),
                    ),
                    loss_options=check_loss_options(word, loss_options or {}),
                    optimizer_options=check_optimizer_options(optimizer, optimizer_options or {}),
                    schedule=check.check_schedule(schedule).name,
                    warmup=check.check_warmup(warmup),
                ),
                accumulate=_count("accumulate", accumulate),
                parallel=parallel,  # type: ignore[arg-type]  # parallelized refuses others
                checkpoint_every=_count("checkpoint_every", checkpoint_every),
            )
            checked.check(run)
            module = checked.module(seed)
            notes = checked.heed_batch_norm(run, module)
            steps_an_epoch = order_of(run, checked.parts[0]).steps_per_epoch
            check_course(run.run, steps_an_epoch)
            question = checked.question(run, module, course_of(run.run, steps_an_epoch))
            checkpoints = Checkpoints(place / CHECKPOINTS, ranks)
            last = _last(checkpoints, place, question, resume)
        with ranks.agreed():
            if (
                ranks.is_first and not (place / RECORD).exists()
            ):  # not before all ranks have looked at the folder
                place.mkdir(parents=True, exist_ok=True)
                write_record(place, question, None)
            checkpoints.clear_unfinished()
        with ranks.agreed():
            made = parallelized(module, run.parallel, ranks, checked.has_unused)
        num_rows = len_of_batch(run, checked.parts[0])
        with closing(made), threads_for(checked.engine.sizes, num_rows, ranks.device):
            with ranks.agreed():
                training = Training(run, checked.engine, checked.parts, made, checked.has_indices, ranks)
            record = train(training, checkpoints, question, stop_event, last, on_step)
        with ranks.agreed():
            if ranks.is_first and record.state is not None:
                write_model(place, question, record, checked.module_name)
            if ranks.is_first:
                write_record(place, question, record)
        return FittedModule(
            record, place, [*notes, *_of_skipped(record), *_of_divergence(record)], ranks.is_first
        )


class _Checked:
    """What one small batch shows of the module and the data.

    Raises:
        InputError: they do not go together.
    """

    def __init__(
        self,
        factory: Callable[[], nn.Module],
        parts: tuple[Part, Part | None],
        ranks: Ranks,
        seed: int,
        task: str,
    ) -> None:
        self.parts, self.ranks = parts, ranks
        train = parts[0]
        rows = Rows(
            "train",
            train.source,
            torch.empty(0) if train.targets is None else train.targets,
            train.num_rows,
            "",
        )
        engine = TorchEngine(factory, rows, None, "regression", "rmse", ranks.device)
        with borrowed(seed, ranks.device):
            made = engine.make(seed).eval()
            self._inputs, targets = next(iter(train.fetch([range(min(2, train.num_rows))])))
            outputs, sizes = sizes_of(made, len(targets), partial(engine.forward, made, self._inputs))
        self.has_unused = leaves_out(made, outputs)
        outputs = outputs.detach()
        self.module_name = f"{type(made).__module__}.{type(made).__qualname__}"
        self.num_outputs, classes_last = layout_of(outputs, targets.to(outputs.device))
        if task == "multiclass" and targets.is_floating_point() and outputs.shape == targets.shape:
            self.num_outputs = outputs.shape[1] if outputs.dim() > 1 else 1  # shares of the classes
        self.task = self._task(task, targets)
        self.has_indices = class_rows(outputs, targets, classes_last)[1].dim() < outputs.dim()
        self.engine = TorchEngine(
            factory, rows, None, self.task, default_metric(self.task), ranks.device, classes_last,
            sizes=sizes if inner_module(made) is made else None,
        )  # fmt: skip

    def module(self, seed: int) -> nn.Module:
        """A fresh module; of lazy layers, with weights of the inputs' width, drawn from the seed too."""
        module = self.engine.make(seed)
        if any(map(is_lazy, (*module.parameters(), *module.buffers()))):
            with borrowed(seed, self.ranks.device), torch.no_grad():
                self.engine.forward(module.eval(), self._inputs)
        return module

    def default_loss(self) -> str:
        """The task's own, of those that take so many outputs."""
        two_logits = self.task == "binary" and self.num_outputs > 1
        return default_loss("multiclass" if two_logits else self.task)

    def _task(self, asked: str, targets: torch.Tensor) -> Task:
        if asked not in (*_TASKS, "classification", "auto"):
            raise InputError(f"There is no task {asked!r}{near_names(asked, (*_TASKS, 'classification'))}")
        if asked not in ("classification", "auto"):
            return asked  # type: ignore[return-value]
        if asked == "auto" and targets.is_floating_point() and self.num_outputs == 1:
            return "regression"
        return "binary" if self.num_outputs <= 2 else "multiclass"

    def check(self, run: ModuleRun) -> None:
        """The loss goes with the outputs, and the rows of a step can be shared."""
        wide = self.num_outputs > 1
        if (formula_of(run.run.loss).family == "softmax") != wide:
            needs = "one output a row" if wide else "an output a class"
            raise InputError(f"The loss {run.run.loss!r} takes {needs}; the module gives {self.num_outputs}.")
        if formula_of(run.run.loss).class_terms is not None and self.parts[0].targets is None:
            raise InputError(
                f"The loss {run.run.loss!r} is fitted to all targets, which a data set does not tell; give (inputs, "
                "targets) as tensors."
            )
        rows, shares = len_of_batch(run, self.parts[0]), self.ranks.world_size * run.accumulate
        if run.run.batch_size != "full" and rows % shares:
            near = max(shares, rows // shares * shares)
            raise InputError(
                f"The batch size {rows} cannot be shared evenly by {self.ranks.world_size} processes with "
                f"{run.accumulate} micro-batches each; give a multiple of {shares}, such as {near}."
            )

    def heed_batch_norm(self, run: ModuleRun, module: nn.Module) -> list[str]:
        """Leave out an epoch's last step, of which a process or a micro-batch would have a lone row: batch norm cannot
        learn from one. What is to be said of it, and of batch norm on several processes.
        """
        if not has_batch_norm(module.train()):
            return []
        train, validation = self.parts
        batch_size, shares = len_of_batch(run, train), self.ranks.world_size * run.accumulate
        rest = train.num_rows % batch_size
        notes = []
        if self.ranks.world_size > 1:
            notes.append(
                "The module has batch norm, whose statistics are of each process's own rows: the result hangs on how "
                "many there are."
            )
        if 0 < rest < 2 * shares <= batch_size and not train.drops_last:
            self.parts = replace(train, drops_last=True), validation
            in_parts = f" in {shares} parts" if shares > 1 else ""
            notes.append(
                f"In batches of {batch_size}, an epoch's last step has {rest} row{'s' * (rest > 1)}, from which batch "
                f"norm cannot learn{in_parts}: it is left out, other rows each epoch."
            )
        return notes

    def question(self, run: ModuleRun, module: nn.Module, course: Course | None) -> dict[str, Any]:
        """All that decides the result: what a checkpoint is to be gone on with for alone."""
        asked = asdict(run.run)
        kept = ("loss", "optimizer", "lr", "batch_size", "seed", "loss_options", "optimizer_options")
        parts = {part.name: [part.num_rows, part.sha256] for part in self.parts if part is not None}
        num_parameters = sum(parameter.numel() for parameter in module.parameters())
        plain = {name: asked[name] for name in kept}
        plain |= _CONSTANT if course is None else asdict(course)
        whole: dict[str, Any] = json.loads(
            canonical_json({**plain, "task": self.task, "parameters": num_parameters, "rows": parts})
        )
        return whole


def _of_skipped(record: ModuleRecord) -> list[str]:
    """A note where steps were left out."""
    skipped, steps = record.standing.num_skipped, record.standing.step
    if not skipped:
        return []
    return [
        f"{skipped:,} of {steps:,} steps were skipped: their gradient was not finite, or they had no row that counts."
    ]


def _of_divergence(record: ModuleRecord) -> list[str]:
    """A note where the loss ended as no number; the model is written all the same, as its checkpoints are."""
    curve = record.standing.curve
    if not curve or math.isfinite(curve[-1].train_loss):
        return []
    note = (
        f"The training loss of the last epoch is {curve[-1].train_loss}: it diverged, or no row of it counts. Give a "
        f"smaller learning rate than {record.run.run.lr:g}."
    )
    return [note]


def _check_limits(max_epochs: int | None, max_steps: int | None) -> None:
    if max_epochs is None and max_steps is None:
        raise InputError("Nothing limits the training; give max_epochs or max_steps.")


def _rows_a_step(given: BatchSize | None, train: Part) -> BatchSize:
    if given is not None:
        return check.check_batch_size(given, train.num_rows)
    if train.batch_size is not None and train.drops_last:  # of fewer rows the loader gives no batch
        return check.check_batch_size(train.batch_size, train.num_rows)
    if train.batch_size is not None:
        return min(train.batch_size, train.num_rows)
    return check.default_batch_size(train.num_rows)


def _count(name: str, given: object) -> int:
    count = check.check_count(name, given)
    if count is None:
        raise InputError(f"{name} is a positive whole number, not {given!r}.")
    return count


def _last(
    checkpoints: Checkpoints, place: Path, question: dict[str, Any], resume: bool
) -> dict[str, Any] | None:
    """The checkpoint to go on from."""
    last = checkpoints.last()
    if not resume:
        if last is not None:
            raise InputError(
                f"{str(place)!r} has a checkpoint of step {last['step']}; go on from it with resume (--resume), or "
                "name another folder."
            )
        return None
    if last is None:
        if (place / RECORD).exists():  # ended before its first checkpoint
            return None
        raise InputError(f"There is nothing to resume in {str(place)!r}.")
    for name, value in question.items():
        before = last["question"].get(name, _CONSTANT.get(name))
        if before != value:
            raise InputError(
                f"The checkpoint in {str(place)!r} is of a training with {name} {before!r}, this one has {value!r}; "
                "resume with the same options, or name another folder."
            )
    return last
