"""One training on several ranks: the loop, which gives what one process would, to rounding."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from steepest.errors import InputError
from steepest.optim import OPTIMIZERS
from steepest.optim.sharded import all_finite
from steepest.training.distributed.checkpoint import Checkpoints
from steepest.training.distributed.loading import Part
from steepest.training.distributed.order import MicroBatch, Order, micro_batches
from steepest.training.distributed.parallel import ParallelModule, in_our_words
from steepest.training.distributed.ranks import Ranks
from steepest.training.distributed.run import Epoch, ModuleRecord, ModuleRun, Standing
from steepest.training.distributed.share import ShareOfLoss
from steepest.training.native import loss_parameters
from steepest.training.random import epoch_seed
from steepest.training.rates import course_of, set_rate
from steepest.training.run import named_apart
from steepest.training.seeds import borrowed, seed_all
from steepest.training.torch_engine import SCORING_SEED, TorchEngine, backward, take_step

__all__ = ["MOST_SKIPPED", "OnStep", "Training", "len_of_batch", "order_of", "train"]

MOST_SKIPPED = 100  # steps in a row: then nothing is learned any more

OnStep = Callable[[Standing, int, float], None]  # where it stands, steps in all, the step's loss

Fetched = list[
    tuple[Any, Tensor, bool]
]  # a rank's micro-batches of a step: inputs, targets, whether they count


class Training:
    """A training under way on this rank.

    Args:
        engine: calls the user's module and the loss.
        parts: training rows, and validation rows if there are any.
        parallel: the module, made ready for the ranks.
        has_indices: whether targets are class indices.
    """

    def __init__(
        self,
        run: ModuleRun,
        engine: TorchEngine,
        parts: tuple[Part, Part | None],
        parallel: ParallelModule,
        has_indices: bool,
        ranks: Ranks,
    ) -> None:
        self.run, self.engine, self.parallel, self.ranks = run, engine, parallel, ranks
        self.rows, self.validation_rows = parts
        self.loss = ShareOfLoss(engine, run, has_indices)
        self.optimizer = engine.optimizer(run.run, parallel.module)
        self.order = order_of(run, self.rows)
        self.course = course_of(run.run, self.order.steps_per_epoch)
        self.standing = Standing()
        self.num_skipped_in_a_row = 0

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        stop = self.run.run.stop
        by_epochs = math.inf if stop.max_epochs is None else stop.max_epochs * self.order.steps_per_epoch
        return int(min(by_epochs, math.inf if stop.max_steps is None else stop.max_steps))

    def steps(self, stop_event: threading.Event) -> Iterator[float]:
        """Take the remaining steps; the loss of each (NaN of one that was skipped).

        Ends early once ``stop_event`` is set on any rank.
        """
        batches = self._fetched(self.standing.step, self.num_steps)
        while self.standing.step < self.num_steps:
            began = time.perf_counter()
            fetched, count, failure = self._next(batches)
            total, stops, failures = self.ranks.total(
                [count, float(stop_event.is_set()), float(failure is not None)]
            )
            if stops:  # Ctrl-C ends a loader's workers too, so it goes before failures
                return
            if failures:
                with self.ranks.agreed():
                    if failure is not None:
                        raise failure
            loss = self._step(fetched, total) if total else math.nan
            self._note(loss, total, time.perf_counter() - began)
            yield loss

    def _fetched(self, first: int, last: int) -> Iterator[Fetched]:
        """This rank's micro-batches, step by step."""
        accumulate = self.run.accumulate

        def of_all_steps() -> Iterator[MicroBatch]:
            for rows in self.order.batches(first, last):
                yield from micro_batches(rows, self.ranks.rank, self.ranks.world_size, accumulate)

        return _grouped(self.rows, of_all_steps, accumulate)

    def _next(self, batches: Iterator[Fetched]) -> tuple[Fetched, float, InputError | None]:
        """The micro-batches of a step and what their mean divides by; or what failed on this rank."""
        try:
            fetched = next(batches)
            return (
                fetched,
                sum(self.loss.denominator(targets) for _, targets, counts in fetched if counts),
                None,
            )
        except InputError as error:
            return [], 0.0, error

    def _step(self, fetched: Fetched, total: float) -> float:
        """One step on the mean over all ranks' rows; its loss, NaN where it was skipped by all."""
        step, ranks = self.standing.step, self.ranks
        seed_all(epoch_seed(epoch_seed(self.run.run.seed, step), ranks.rank), ranks.device)
        module = self.parallel.module.train()
        self.optimizer.zero_grad()
        # Gradients are averaged over ranks: each rank's share is of a mean over total / ranks.
        normalizer, own_loss = total / ranks.world_size, 0.0
        try:
            for number, (inputs, targets, counts) in enumerate(fetched):
                with self.parallel.micro_batch(is_last=number == len(fetched) - 1):
                    outputs = self.engine.forward(module, inputs)
                    loss = self.loss(outputs, targets.to(ranks.device), normalizer)
                    backward(loss if counts else loss * 0.0)
                    own_loss += float(loss.detach()) if counts else 0.0
        except InputError as error:
            raise ranks.failure(in_our_words(error), f"in step {step + 1}") from error
        gradients = (p.grad for p in module.parameters() if p.grad is not None)
        mean, num_bad = ranks.total([own_loss / ranks.world_size, float(not all_finite(gradients))])
        if num_bad:
            return math.nan
        if self.course is not None:
            set_rate(self.optimizer, self.run.run.lr * self.course.factor(step))
        try:
            take_step(self.optimizer, self.run.run.optimizer)
        except InputError as error:
            raise ranks.failure(str(error)) from error
        return mean

    def _note(self, loss: float, total: float, seconds: float) -> None:
        standing = self.standing
        standing.step += 1
        standing.seconds += seconds
        if math.isnan(loss):
            standing.num_skipped += 1
            self.num_skipped_in_a_row += 1
            return
        self.num_skipped_in_a_row = 0
        standing.loss_sum += loss * total
        standing.loss_count += total

    def end_epoch(self) -> None:
        """Note an epoch's losses."""
        standing = self.standing
        mean = standing.loss_sum / standing.loss_count if standing.loss_count else math.nan
        epoch = math.ceil(standing.step / self.order.steps_per_epoch)
        began = time.perf_counter()
        validation = self.validation_loss()
        standing.seconds += time.perf_counter() - began
        standing.curve.append(Epoch(epoch, standing.step, mean, validation, standing.seconds))
        standing.loss_sum = standing.loss_count = 0.0

    def validation_loss(self) -> float | None:
        """The mean loss over the validation rows, the module at rest; None without any."""
        part, ranks = self.validation_rows, self.ranks
        if part is None:
            return None
        at_once = max(ranks.world_size, len_of_batch(self.run, self.rows) // self.run.accumulate)

        def of_all_rows() -> Iterator[MicroBatch]:
            for start in range(0, part.num_rows, at_once):
                rows = np.arange(start, min(start + at_once, part.num_rows))
                yield from micro_batches(rows, ranks.rank, ranks.world_size, 1)

        loss_sum = count = 0.0
        seed_all(SCORING_SEED, ranks.device)
        module = self.parallel.module.eval()
        try:
            with torch.no_grad():
                for ((inputs, targets, counts),) in _grouped(part, of_all_rows, 1):
                    loss = self.loss(self.engine.forward(module, inputs), targets.to(ranks.device), 1.0)
                    if counts:
                        loss_sum, count = loss_sum + float(loss), count + self.loss.denominator(targets)
        except InputError as error:
            raise ranks.failure(str(error)) from error
        self.parallel.let_go()
        total, number = ranks.total([loss_sum, count])
        return total / number if number else math.nan


def train(
    training: Training,
    checkpoints: Checkpoints,
    question: dict[str, Any],
    stop_event: threading.Event,
    resume: dict[str, Any] | None = None,
    on_step: OnStep | None = None,
) -> ModuleRecord:
    """Train to the end, or until asked to stop; either way the last state is in a checkpoint.

    Args:
        question: what a checkpoint is to be gone on with for alone.
        resume: the checkpoint to go on from.
        on_step: called on the first rank after each step.

    Raises:
        InputError: the user's module or data failed, the disk did, no step could be taken, or nothing is learned any
            more.
    """
    run, ranks, module = training.run, training.ranks, training.parallel.module
    if resume is not None:
        checkpoints.load(resume, module, training.optimizer)
        training.standing = Standing.from_json(resume["standing"])
    standing = training.standing
    saved = standing.step
    standing.launches.append(
        {"from_step": standing.step, "world_size": ranks.world_size, "parallel": run.parallel}
    )

    def save() -> None:
        nonlocal saved
        where = {"question": question, "standing": standing.as_json()}
        checkpoints.save(standing.step, where, module, training.optimizer)
        saved = standing.step

    with borrowed(run.run.seed, ranks.device), training.parallel.quiet():
        for loss in training.steps(stop_event):
            if standing.step % training.order.steps_per_epoch == 0:
                training.end_epoch()
            if training.num_skipped_in_a_row == MOST_SKIPPED:
                raise InputError(
                    f"{MOST_SKIPPED} steps in a row had a gradient that is not finite, or no row that counts; give a "
                    f"smaller learning rate. The last checkpoint is of step {saved}."
                )
            if standing.step % run.checkpoint_every == 0:
                save()
            if ranks.is_first and on_step is not None:
                on_step(standing, training.num_steps, loss)
    ended = standing.step >= training.num_steps
    if ended and standing.num_skipped == standing.step:
        with ranks.agreed():
            raise InputError(
                f"No step was taken: each of the {standing.step:,} had a gradient that is not finite, or no row that "
                "counts; look for NaN in inputs and targets, or give a smaller learning rate."
            )
    if saved < standing.step:
        save()
    reason = "interrupted"
    if ended:
        if standing.loss_count:  # the steps ran out within an epoch
            with borrowed(run.run.seed, ranks.device), training.parallel.quiet():
                training.end_epoch()
        by_steps = standing.step == run.run.stop.max_steps
        reason = "steps" if by_steps else "epochs"
    set_rate(training.optimizer, run.run.lr)
    entry = OPTIMIZERS[run.run.optimizer]
    return ModuleRecord(
        run=run,
        standing=standing,
        stop_reason=reason,
        hyperparameters=named_apart(
            entry.cls.hyperparameters_of(training.optimizer.param_groups[0]), loss_parameters(run.run)
        ),
        state=_whole(module) if ended else None,
    )


def len_of_batch(run: ModuleRun, rows: Part) -> int:
    """Rows a step."""
    return rows.num_rows if run.run.batch_size == "full" else int(run.run.batch_size)


def order_of(run: ModuleRun, rows: Part) -> Order:
    """Which rows each step takes."""
    return Order(rows.num_rows, len_of_batch(run, rows), run.run.seed, rows.drops_last)


def _whole(module: nn.Module) -> dict[str, Any]:
    """All weights, gathered; empty on all ranks but the first."""
    return get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def _grouped(part: Part, wanted: Callable[[], Iterator[MicroBatch]], size: int) -> Iterator[Fetched]:
    """Micro-batches fetched, so many at a time. ``wanted`` is gone through twice, for rows and for what counts."""
    fetched = part.fetch(micro.rows for micro in wanted())
    group: Fetched = []
    for micro, (inputs, targets) in zip(wanted(), fetched, strict=True):
        group.append((inputs, targets, micro.counts))
        if len(group) == size:
            yield group
            group = []
