"""Runs that are trained together: one forward and one backward pass a step for all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.errors import InputError
from steepest.training.native import formula_of, loss_parameters, optimizer_of
from steepest.training.population_graphs import Steps
from steepest.training.population_losses import LossGroup, loss_key
from steepest.training.population_rules import rule_group
from steepest.training.population_stack import Batch, ModuleStack
from steepest.training.progress import Progress
from steepest.training.random import epoch_seed
from steepest.training.run import Record, Run, named_apart
from steepest.training.seeds import borrowed, seed_all
from steepest.training.torch_data import Tensors
from steepest.training.torch_engine import (
    SCORING_SEED,
    Stopped,
    TorchEngine,
    float_type,
    moved,
    score_of,
)

__all__ = ["Population"]


class Population:
    """Runs of one batch size, from their first step to the end of the last.

    Each run's numbers are those of the torch engine to rounding: its seed's initial weights, its seed's rows in their
    order, its own loss, rule and stop conditions. A run that has ended is taken out of all tensors at once.

    Args:
        engine: whose data, losses and scores these are.
        runs: what to train.
        on_record: told of each run that ends, by its place.
        stop_event: ends all of them.
        kind: how their modules are stacked.

    Attributes:
        failures: why steps could not be captured as CUDA graphs, where that was tried.
    """

    def __init__(
        self,
        engine: TorchEngine,
        runs: Sequence[Run],
        on_record: Callable[[int, Record], None],
        stop_event: threading.Event | None = None,
        kind: type[ModuleStack] = ModuleStack,
    ) -> None:
        self._engine, self._on_record, self._stop_event = engine, on_record, stop_event
        rules = [optimizer_of(run) for run in runs]
        distinct_rules = list(dict.fromkeys(rule for rule, _ in rules))
        # Those of one rule lie side by side, so that their weights are a slice.
        self._places = sorted(range(len(runs)), key=lambda place: distinct_rules.index(rules[place][0]))
        self._runs = [runs[place] for place in self._places]
        self._hyperparameters = [rules[place][1] for place in self._places]
        self.failures: list[str] = []
        self._share_sec, self._last = 0.0, time.perf_counter()
        self._progress = [
            Progress(run, engine.metric.greater_is_better, lambda: self._share_sec) for run in self._runs
        ]
        self._seeds = list(dict.fromkeys(run.seed for run in self._runs))
        modules = [engine.make(seed) for seed in self._seeds]
        self._stack = kind(modules, [self._seeds.index(run.seed) for run in self._runs])
        self._losses = {loss_key(run): engine.loss(run) for run in self._runs}
        in_order = [rules[place] for place in self._places]
        courses = [engine.course(run, self._stack.module.train()) for run in self._runs]
        self._rules = [
            rule_group(
                rule,
                [own for one, own in in_order if one == rule],
                self._stack.sizes,
                self._stack.flat,
                [course for course, (one, _) in zip(courses, in_order, strict=True) if one == rule],
            )
            for rule in distinct_rules
        ]
        self._arrange()

    def train(self) -> None:
        """Train them all."""
        with borrowed(0, self._engine.device):
            epoch = 0
            while True:
                self._leave([i for i, one in enumerate(self._progress) if one.has_all_epochs(epoch)])
                if not self._runs:
                    return
                try:
                    self._epoch(epoch)
                    self._evaluate(range(len(self._runs)), epoch + 1)
                except (Stopped, InputError) as error:
                    if isinstance(error, InputError) and not self._is_asked_to_stop():
                        raise
                    for one in self._progress:
                        one.reason = "interrupted"  # Ctrl-C ends a loader's workers too
                epoch += 1

    def _epoch(self, epoch: int) -> None:
        self._stack.module.train()
        for given in self._batches(epoch):
            self._step(Batch(given, self._which), epoch)
            self._tick()
            if self._is_asked_to_stop():
                raise Stopped
            if not self._noted.takes_all:
                for one in self._progress:
                    one.look_at_time()
                self._end(epoch)
            if not self._runs:
                return
            self._stack.module.train()

    def _batches(self, epoch: int) -> Iterator[list[tuple[Any, Tensor]]]:
        """An epoch's batches, one for each seed at a time."""
        engine = self._engine
        firsts = {run.seed: run for run in self._runs}
        if list(firsts) != self._seeds:
            self._seeds = list(firsts)
            self._arrange()
        device, dtype = engine.device, float_type(self._stack.module)

        def of(run: Run) -> Iterator[tuple[Any, Tensor]]:
            for inputs, targets in engine.batches(run, epoch, self._stack.module):
                yield moved(inputs, device, dtype), targets.to(device)

        if isinstance(engine.train.source, Tensors):  # which draw nothing
            yield from map(list, zip(*map(of, firsts.values()), strict=True))
            return
        drawn = []
        for run in firsts.values():
            seed_all(epoch_seed(run.seed, epoch), device)
            drawn.append(list(of(run)))
        yield from map(list, zip(*drawn, strict=True))

    def _step(self, batch: Batch, epoch: int) -> None:
        """Losses and gradients of all, then each rule's update of those that go on."""
        losses, gradients = self._steps.differentiate(batch)

        def norm(member: int) -> float:
            return float(torch.linalg.vector_norm(gradients[member]))

        if self._noted.takes_all:
            allowed = self._noted.allow(losses, batch.num_rows)
        else:
            for member, value in enumerate(losses.tolist()):
                self._progress[member].step_allowed(value, batch.num_rows, partial(norm, member))
            allowed = [i for i, one in enumerate(self._progress) if one.reason is None]
        if len(allowed) < len(self._runs):
            gradients = gradients[torch.tensor(allowed, dtype=torch.int64).to(gradients.device)]
            self._end(epoch)
        self._steps.update(gradients)
        if self._noted.takes_all:
            self._noted.count()
        else:
            for one in self._progress:
                one.count_step()

    def _is_asked_to_stop(self) -> bool:
        return self._stop_event is not None and self._stop_event.is_set()

    # --- what ends ---------------------------------------------------------------------------------------------

    def _end(self, epoch: int) -> None:
        """Score the runs that ended within an epoch, and let them go."""
        ended = [i for i, one in enumerate(self._progress) if one.reason is not None]
        if ended:
            self._evaluate(ended, epoch + 1)
            self._leave(ended)

    def _evaluate(self, members: Sequence[int], epoch: int) -> None:
        if not members:
            return
        self._noted.tell()
        scores = self._scores(members)
        self._tick()
        is_scored = self._engine.validation is not None
        for member, score in zip(members, scores, strict=True):
            copy = partial(self._stack.flat[member].detach().clone)
            self._progress[member].evaluate(epoch, score, copy, is_scored)

    def _scores(self, members: Sequence[int]) -> list[float]:
        """Validation scores; NaN where a prediction is not finite."""
        engine, rows = self._engine, self._engine.validation
        if rows is None:
            return [float("nan")] * len(members)
        whole = len(members) == len(self._runs)
        flat = self._stack.flat if whole else self._stack.flat[list(members)]
        own = self._runs[members[0]]
        parts = []
        dtype = float_type(self._stack.module.eval())
        seed_all(SCORING_SEED, engine.device)
        with torch.no_grad():
            for inputs, targets in rows.passed():
                if self._is_asked_to_stop():
                    raise Stopped
                outputs = self._stack.forward(
                    flat, moved(inputs, engine.device, dtype), None, None if whole else members
                )
                parts.append(_flat_outputs(engine, own, outputs, targets))
        together = torch.cat(parts, dim=1).numpy()
        truth = engine.scored(rows)
        return [
            score_of(engine.metric, truth, outputs, formula_of(self._runs[member].loss))
            for member, outputs in zip(members, together, strict=True)
        ]

    def _leave(self, members: Sequence[int]) -> None:
        """Hand over the records of runs that ended, and go on without them."""
        if not members:
            return
        self._noted.tell()
        self._tick()
        best = [(member, self._progress[member].best_state) for member in members]
        kept = [self._stack.flat[member] if state is None else state for member, state in best]
        # All at once: each copy from a GPU is waited for, and a state has several tensors.
        for member, weights in zip(members, torch.stack(kept).cpu(), strict=True):
            run, progress = self._runs[member], self._progress[member]
            record = progress.record(
                named_apart(self._hyperparameters[member], loss_parameters(run)),
                self._stack.state(weights, member),
            )
            self._on_record(self._places[member], record)
        left = [i for i in range(len(self._runs)) if i not in set(members)]
        start = 0
        for rule in self._rules:
            size = len(rule)
            rule.keep([i - start for i in left if start <= i < start + size])
            start += size
        self._rules = [rule for rule in self._rules if len(rule)]
        self._stack.keep(left)
        self._runs = [self._runs[i] for i in left]
        self._progress = [self._progress[i] for i in left]
        self._places = [self._places[i] for i in left]
        self._hyperparameters = [self._hyperparameters[i] for i in left]
        self._arrange()
        self._last = time.perf_counter()  # what on_record took is nobody's

    def _arrange(self) -> None:
        """Who has which rows and which loss."""
        seeds = [self._seeds.index(run.seed) for run in self._runs]
        self._which = torch.tensor(seeds, dtype=torch.int64, device=self._engine.device)
        groups: dict[Any, list[int]] = {}
        for member, run in enumerate(self._runs):
            groups.setdefault(loss_key(run), []).append(member)
        self._by_loss = [
            LossGroup(self._engine, self._runs[members[0]], self._losses[key], members, len(self._runs))
            for key, members in groups.items()
        ]
        self._steps = Steps(self._stack, self._by_loss, self._rules, self.failures)
        self._noted = _Noted(self._progress)

    def _tick(self) -> None:
        """Share out the time since the last look among those still running."""
        now = time.perf_counter()
        self._share_sec += (now - self._last) / max(1, len(self._runs))
        self._last = now


class _Noted:
    """The steps of runs that take the same ones, noted for all at once: run by run it takes as long as a GPU's step.

    Args:
        progress: of these runs, which are told of it before anything else becomes of them.

    Attributes:
        takes_all: whether these runs' conditions allow it.
    """

    def __init__(self, progress: Sequence[Progress]) -> None:
        self._progress = progress
        self.takes_all = all(one.ends_by_loss_alone for one in progress)
        self._limits = np.array([one.limit for one in progress])
        self._begin()

    def _begin(self) -> None:
        self._sums = np.zeros(len(self._progress))
        self._first = np.full(len(self._progress), np.nan)
        self._rows = self._num_counted = 0

    def allow(self, losses: Tensor, rows: int) -> Sequence[int]:
        """Note a batch's losses; the places of the runs that go on, the others have diverged."""
        values = np.array(losses.tolist())
        if self._rows == 0:
            self._first = values
        with np.errstate(invalid="ignore"):  # of infinities, which are told of below
            self._sums += values * rows
        self._rows += rows
        goes_on = np.isfinite(values) & (values <= self._limits)
        if goes_on.all():
            return range(len(values))
        self.tell()
        for member in np.flatnonzero(~goes_on).tolist():
            self._progress[member].reason = "diverged"
        found: list[int] = np.flatnonzero(goes_on).tolist()
        return found

    def count(self) -> None:
        """Note that the step was taken."""
        self._num_counted += 1
        if np.isinf(self._limits).any():  # it was the first
            self.tell()
            self._limits = np.array([one.limit for one in self._progress])

    def tell(self) -> None:
        """Bring each run's progress up to date."""
        for one, loss_sum, first in zip(
            self._progress, self._sums.tolist(), self._first.tolist(), strict=True
        ):
            one.note_steps(loss_sum, self._rows, self._num_counted, first)
        self._begin()


def _flat_outputs(engine: TorchEngine, run: Run, outputs: Tensor, targets: Tensor) -> Tensor:
    """(members, targets, outputs a target) from (members, rows, ...), as the torch engine makes them of one."""
    members = len(outputs)
    many = targets.repeat(members, *[1] * (targets.dim() - 1))
    flat = engine.flat_outputs(run, outputs.flatten(0, 1), many)
    return flat.reshape(members, -1, flat.shape[-1])
