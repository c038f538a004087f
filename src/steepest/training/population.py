"""The population engine: many runs of a module at once, through ``torch.vmap``; the rest through the torch engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from steepest.backends.cuda_devices import DEVICES
from steepest.training.population_losses import loss_key
from steepest.training.population_members import Population
from steepest.training.population_stack import ModuleStack
from steepest.training.population_trial import Trial
from steepest.training.run import BatchSize, Record, Run
from steepest.training.torch_data import Tensors
from steepest.training.torch_engine import TorchEngine

__all__ = ["PopulationEngine"]

AT_ONCE = 64  # more gain little: a step's overhead is a few microseconds a run by then
IN_KERNELS_AT_ONCE = 512  # perceptrons on a GPU, whose launches are the same for any number of them
MEMORY_BYTES = 2**30
_FEWEST = 2
_MOST_SEEDS = 10  # of a group, where no more are confirmed than usual
# Operations in a step, by the trial's count, up to which training together was faster on a CPU: a 64-128-128-10 net in
# batches of 32 has 2.8e6 and took 0.6 of the time, 64-256-256-10 has 9e6 and took as long.
WORTHWHILE = 4e6


class PopulationEngine(TorchEngine):
    """Trains runs that differ in loss, optimizer, rate and seed as one; the same records as the torch engine.

    A step is one forward and one backward pass over stacked weights, a loss for each group of runs that share it, and
    an update for each rule. Numbers are the torch engine's to rounding. What a module, a loss or an optimizer does not
    allow is found by a trial of each, and its runs are left to the torch engine.

    A run's last bits depend on which runs were beside it. Groups are made of a list of runs in its order; whoever
    trains a part of a list asks :meth:`company` which runs have to be there too.

    Args:
        at_once: the most runs in a group; None: as suits how they are stacked.
        memory_bytes: what a group may take; a large module has fewer runs in one.
        others: as :class:`TorchEngine`'s.
    """

    def __init__(
        self, *others: Any, at_once: int | None = None, memory_bytes: int = MEMORY_BYTES, **named: Any
    ) -> None:
        super().__init__(*others, **named)
        self._at_once, self._memory_bytes = at_once, memory_bytes
        source = self.train.source
        if (
            self.device.type in DEVICES
            and isinstance(source, Tensors)
            and source.num_bytes <= self._memory_bytes
        ):
            # Sent batch by batch, each would wait until the step before is done.
            self.train = replace(self.train, source=source.on(self.device))
        self._trials: dict[BatchSize, Trial] = {}
        self._found: dict[tuple[Any, ...], str | None] = {}
        self.broken: list[str] = []  # what went wrong on the way and was done another way, sentences

    def run_all(
        self,
        runs: Sequence[Run],
        *,
        num_threads: int | None = None,
        on_record: Callable[[int, Record], None] | None = None,
        stop_event: threading.Event | None = None,
    ) -> list[Record | None]:
        """Train every run, group by group; see :meth:`NativeEngine.run_all`."""
        records: list[Record | None] = [None] * len(runs)

        def deliver(index: int, record: Record) -> None:
            records[index] = record
            if on_record is not None:
                on_record(index, record)

        for group in self._groups(runs):
            if stop_event is not None and stop_event.is_set():
                break
            if len(group) >= _FEWEST:
                self._train_together(runs, group, deliver, stop_event)
            left = [index for index in group if records[index] is None]
            super().run_all(
                [runs[index] for index in left],
                on_record=lambda place, record, left=left: deliver(left[place], record),  # type: ignore[misc]
                stop_event=stop_event,
            )
        return records

    def company(self, runs: Sequence[Run], wanted: Collection[int]) -> list[int]:
        """The wanted ones of a list of runs, and those that are trained in one group with them."""
        asked = set(wanted)
        groups = [group for group in self._groups(runs) if asked.intersection(group)]
        return sorted(index for group in groups for index in group)

    def reasons(self, runs: Iterable[Run]) -> list[str]:
        """Why some of these runs are trained one after another, sentences; none where all are trained together."""
        found: dict[str, dict[str, None]] = {}
        for run in runs:
            why = self._reason(run)
            if why is not None:
                found.setdefault(why[1], {})[why[0]] = None
        return [
            f"{_of(list(names))} were trained one after another: {reason}." for reason, names in found.items()
        ]

    def notes(self, runs: Sequence[Run]) -> list[str]:
        """How such runs are trained, in sentences: how many at once, and what is not and why."""
        reasons = self.reasons(runs)
        sizes = {run.batch_size for run in runs if self._reason(run) is None}
        if not sizes:
            return reasons
        most = max(self.num_together(size) for size in sizes)
        unlike = dict.fromkeys(self._trial(size).unlike for size in sizes)
        reasons += [
            f"Perceptrons were trained through torch.vmap and not in kernels of their own: {why}."
            for why in unlike
            if why
        ]
        return [
            f"Runs were trained together, up to {most} at once: their scores are those of runs alone to rounding.",
            *reasons,
        ]

    def pays(self, batch_size: BatchSize) -> bool:
        """Whether a step of one run is little work, so that most of its time is what many runs can share."""
        work = self._trial(batch_size).num_operations
        return work is not None and work <= WORTHWHILE

    def num_together(self, batch_size: BatchSize) -> int:
        """How many runs of a batch size have room at once."""
        trial = self._trial(batch_size)
        usual = AT_ONCE if trial.kind is ModuleStack else IN_KERNELS_AT_ONCE
        return min(self._at_once or usual, self._memory_bytes // max(1, trial.memory_bytes()))

    def _train_together(
        self,
        runs: Sequence[Run],
        group: Sequence[int],
        deliver: Callable[[int, Record], None],
        stop_event: threading.Event | None,
    ) -> None:
        """What goes wrong on the way, such as a batch unlike the first, is the torch engine's to meet again."""
        delivering = False

        def on_record(place: int, record: Record) -> None:
            nonlocal delivering
            delivering = True
            deliver(group[place], record)
            delivering = False

        try:
            kind = self._trial(runs[group[0]].batch_size).kind
            population = Population(self, [runs[index] for index in group], on_record, stop_event, kind)
            population.train()
            for why in population.failures:
                self._note(
                    f"Steps were launched one by one, for they could not be captured as a CUDA graph: {why}"
                )
        except Exception as error:
            if delivering:
                raise
            first = str(error).split("\n")[0][:160].rstrip(".")
            sentence = f"A group of runs was begun together and gone through one after another: {first}."
            self._note(sentence)

    def _note(self, sentence: str) -> None:
        if sentence not in self.broken:
            self.broken.append(sentence)

    def _groups(self, runs: Sequence[Run]) -> list[list[int]]:
        """The runs by their places: groups that are trained together, and one run alone where it cannot be."""
        by_size: dict[BatchSize, list[int]] = {}
        groups: list[list[int]] = []
        for index, run in enumerate(runs):
            if self._reason(run) is None:
                by_size.setdefault(run.batch_size, []).append(index)
            else:
                groups.append([index])
        for size, members in by_size.items():
            room = self.num_together(size)
            groups += [members[start : start + room] for start in range(0, len(members), room)]
        return sorted(groups)

    def _reason(self, run: Run) -> tuple[str, str] | None:
        """What of a run is in the way of training it with others, and why; None where nothing is."""
        trial = self._trial(run.batch_size)
        if trial.reason is not None:
            return "", trial.reason
        if self.num_together(run.batch_size) < _FEWEST:
            return "", f"two of them would take more than {self._memory_bytes / 2**30:g} GiB"
        if trial.epoch_bytes * _MOST_SEEDS > self._memory_bytes:
            return (
                "",
                f"an epoch of the data for each seed would take more than {self._memory_bytes / 2**30:g} GiB",
            )
        for name, key, find in (
            (run.loss, loss_key(run), trial.of_loss),
            (run.optimizer, _rule_key(run), trial.of_rule),
        ):
            place = (run.batch_size, *key)
            if place not in self._found:
                self._found[place] = find(run)
            why = self._found[place]
            if why is not None:
                return name, why
        return None

    def _trial(self, batch_size: BatchSize) -> Trial:
        if batch_size not in self._trials:
            run = Run("", "", 1.0, batch_size)
            self._trials[batch_size] = Trial(self, run)
        return self._trials[batch_size]


def _rule_key(run: Run) -> tuple[Any, ...]:
    return "optimizer", run.optimizer, repr(sorted(run.optimizer_options.items()))


def _of(names: Sequence[str]) -> str:
    return f"Runs with {', '.join(names)}" if names[0] else "Runs"
