"""Where a group's tensors lie: told to the kernel as addresses, and kept while nothing has moved.

Working out a thousand rows costs more than the step itself, so a step begins by making sure that those of the
last one still hold: the same tensors in the same memory, counted and laid out as before. Gradients may lie
anywhere, as backward passes make them anew.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, is_
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steepest.backends import cpu_optim
from steepest.backends.cpu_storage import Layout
from steepest.backends.cpu_tensors import KeptPlaces, Places
from steepest.backends.threads import run_together
from steepest.optim.rule import FactoredRule, Rule

__all__ = ["GroupTable", "Part", "StepTable"]

_PIECE = 1 << 14  # elements; larger tensors are cut so that threads share the work evenly
_WORTH_A_THREAD = 8 * _PIECE  # elements: below, handing them over takes as long as stepping them
_PARTS = 4  # a thread's share is cut further: whoever is done first takes the next part
_FIXED = (float, int, str, type(None))  # options of these types change by being replaced
_TENSORS = {Tensor, torch.nn.Parameter}  # subclasses may keep their numbers elsewhere

_address: Callable[[Tensor], int] = Tensor.data_ptr
_gradient = attrgetter("grad")


class StepTable:
    """Tensors that lie alike and take the same step: as many steps behind them, the same scalars.

    Args:
        rule: what they follow.
        layout: how a row's tensors lie in memory.
        rows: for each its parameter, gradient and what of its state the layout has.
        streams: for each its random numbers, if anything is rounded at random.
    """

    def __init__(
        self, rule: Rule, layout: Layout, rows: Sequence[Sequence[Tensor]], streams: Sequence[int]
    ) -> None:
        self.num_hyper = len(rule.hyperparameters)
        self.kernel = cpu_optim.stored_step(rule, layout)
        addresses = np.array([[_address(t) for t in tensors] for tensors in rows], dtype=np.int64)
        self._owner, first, length = _cut([tensors[0].numel() for tensors in rows], rule.measure is not None)
        # One row a tensor, or a piece of it.
        units, num_bytes = np.array(layout.strides, dtype=np.int64).T
        offsets = first[:, None] // units * num_bytes
        self._offset = np.ascontiguousarray(offsets[:, 1])  # of the gradient
        self._table = np.empty((len(length), layout.width), dtype=np.int64)
        self._table[:, 0] = length
        self._table[:, 1 : 1 + layout.num_tensors] = addresses[self._owner] + offsets
        if layout.is_random:
            self._table[:, -2] = np.array(streams, dtype=np.int64)[self._owner]
            self._table[:, -1] = first
        self._whole = self._table  # the rows that one call steps
        self._places = self._owner  # of the rows' gradients among those of the group
        self._num_threads = 0
        self._parts = np.empty((0, 2), dtype=np.int64)

    def words(self, owners: NDArray[np.int64], counters: _Counters) -> cpu_optim.GroupPart:
        """What compiled code is told of it; ``owners`` are its tensors' places among the group's."""
        self._places = owners.take(self._owner)
        num_rows, width = self._table.shape
        num_tensors, num_counters = counters.table.shape
        return cpu_optim.GroupPart(
            kernel=self.kernel.address,
            num_rows=num_rows,
            width=width,
            table=self._table.ctypes.data,
            owners=self._places.ctypes.data,
            offsets=self._offset.ctypes.data,
            num_tensors=num_tensors,
            num_counters=num_counters,
            counters=counters.table.ctypes.data,
            counts_steps=counters.counts_steps,
            num_hyper=self.num_hyper,
            numbers=counters.numbers.ctypes.data,
        )

    def num_parts(self, num_threads: int) -> int:
        """Into how many parts so many threads take a step; 1: it is not worth a second one."""
        return self._num_parts_of_whole(num_threads)

    def _num_parts_of_whole(self, num_threads: int) -> int:
        if num_threads != self._num_threads:
            self._num_threads, self._parts = num_threads, self._cut_in_parts(num_threads)
        return len(self._parts)

    def step(self, step: float, numbers: Sequence[float]) -> list[float]:
        """One step, on as many threads as the work is worth; the new scalars."""
        num_numbers = len(numbers)
        given = (ctypes.c_double * num_numbers)(*numbers)
        num_threads = torch.get_num_threads()
        num_parts = self._num_parts_of_whole(num_threads)
        if num_parts < 2:
            whole = (step, len(self._whole), self._whole.ctypes.data, ctypes.addressof(given))
            run_together(self.kernel, whole, 1)
            return given[self.num_hyper :]
        moved, counter = (ctypes.c_double * num_numbers)(), ctypes.c_int64(0)
        run_together(
            cpu_optim.in_parts(),
            (
                self.kernel.address, step, num_parts, self._parts.ctypes.data, num_numbers,
                ctypes.addressof(given), ctypes.addressof(moved), ctypes.addressof(counter),
            ),
            min(num_threads, num_parts),
        )  # fmt: skip
        return moved[self.num_hyper :]

    def _cut_in_parts(self, num_threads: int) -> Any:
        """Runs of rows of about equal size: how many rows, and where they begin."""
        ends = np.cumsum(self._whole[:, 0])
        total = int(ends[-1]) if len(ends) else 0
        num_parts = min(num_threads, 1 + total // _WORTH_A_THREAD)
        if num_parts > 1:
            num_parts = min(num_threads * _PARTS, total // _PIECE)
        inner = np.searchsorted(ends, np.linspace(0, total, num_parts + 1)[1:-1]) + 1
        bounds = np.unique(np.clip([0, *inner, len(ends)], 0, len(ends)))
        starts = self._whole.ctypes.data + bounds[:-1] * self._whole.strides[0]
        return np.stack([np.diff(bounds), starts], axis=1).astype(np.int64)


def _cut(sizes: Sequence[int], whole: bool) -> tuple[Any, Any, Any]:
    """Tensors as pieces: whose each is, where in it, and how long."""
    pieces = [
        (owner, start, min(length, n - start))
        for owner, n in enumerate(sizes)
        for length in [max(n, 1) if whole else _PIECE]
        for start in range(0, n, length)
    ]
    owner, start, length = np.array(pieces, dtype=np.int64).reshape(-1, 3).T
    return owner, start, length


class _Counters:
    """Where the tensors of one :class:`StepTable` count their steps and keep their scalars, moved on as one.

    Args:
        kept: for each tensor its count, where there is one, and its scalars: 0-dim, float32 and float64.
        num_hyper: how many hyperparameters their rule has.
        counts_steps: whether there are counts.
        always: the number of each step, where there are none.
    """

    def __init__(
        self, kept: Sequence[Sequence[Tensor]], num_hyper: int, *, counts_steps: bool, always: float
    ) -> None:
        self.counts_steps = counts_steps
        self.table = np.array([[_address(t) for t in tensors] for tensors in kept], dtype=np.int64)
        num_scalars = self.table.shape[1] - counts_steps
        self.numbers = np.zeros(1 + num_hyper + num_scalars)  # of the step, hyperparameters, scalars
        self.numbers[0] = always


class Part(NamedTuple):
    """Tensors of a group that step alike: which of its parameters, and the names in their states."""

    table: StepTable
    owners: Sequence[int]
    entries: Sequence[str]


class GroupTable:
    """All tensors of a parameter group, as tables of those that step alike.

    Args:
        rule: what the group follows.
        storage: how it is kept.
        parameters: those with a gradient, in the group's order.
        parts: what they fall into.
        state: the optimizer's.
        counts_steps: whether the state has the number of steps.
    """

    may_be_captured = False  # in a CUDA graph

    def __init__(
        self,
        rule: Rule | FactoredRule,
        storage: Any,
        parameters: Sequence[Tensor],
        parts: Sequence[Part],
        state: Mapping[Tensor, Any],
        *,
        counts_steps: bool,
    ) -> None:
        self.rule, self.storage, self.parameters = rule, storage, parameters
        counted = ("step",) * counts_steps
        few = (*counted, *rule.scalars)
        self._states = [state.get(p) for p in parameters]
        # Where nobody else has a state, they are compared without a search for each.
        self._in_order = len(state) == len(parameters) and all(map(is_, state.values(), self._states))
        self._kept = KeptPlaces(
            parameters,
            [
                (state[parameters[i]], name)
                for part in parts
                for i in part.owners
                for name in (*part.entries, *few)
            ],
        )
        self._gradient_places = Places(parameters)
        # Where torch keeps no count, a rule with anything to remember is past its first step.
        always = 2.0 if rule.slots or few else 1.0
        self._tables = [part.table for part in parts]
        self._counters = [
            _Counters(
                [[state[parameters[i]][name] for name in few] for i in part.owners],
                len(rule.hyperparameters),
                counts_steps=counts_steps,
                always=always,
            )
            for part in parts
        ]
        words = [
            part.table.words(np.array(part.owners, dtype=np.int64), counters)
            for part, counters in zip(parts, self._counters, strict=True)
        ]
        self._words = np.array(words, dtype=np.int64).reshape(len(words), -1)
        self._told = len(words), self._words.ctypes.data
        self._tell, self._take = cpu_optim.tell_group(), cpu_optim.step_group()
        self._num_threads = 0
        self._for_threads: list[tuple[StepTable, _Counters]] = []
        self._options: list[Any] = []
        self._gradients: list[Tensor] = []

    @staticmethod
    def can_keep(rule: Rule | FactoredRule, state: Mapping[str, Any], *, counts_steps: bool) -> bool:
        """Whether a parameter's step count and scalars are of the kind that the kernel moves on."""
        return all(
            type(state[name]) is Tensor
            and state[name].dim() == 0
            and state[name].dtype == (torch.float32 if name == "step" else torch.float64)
            and state[name].device.type == "cpu"
            for name in (*("step",) * counts_steps, *rule.scalars)
        )

    def _same_states(self, state: Mapping[Tensor, Any]) -> bool:
        in_order = self._in_order and len(state) == len(self._states)
        return all(map(is_, state.values() if in_order else map(state.get, self.parameters), self._states))

    def holds(self, parameters: Sequence[Tensor], state: Mapping[Tensor, Any]) -> bool:
        """Whether everything lies where it did; takes note of where the gradients lie now."""
        # First, for it asks the memory for what the rest reads too.
        if not self._kept.hold():
            return False
        gradients = list(map(_gradient, parameters))
        kinds = set(map(type, gradients))
        if type(None) in kinds:
            gradients = [g for g in gradients if g is not None]
            parameters = [p for p in parameters if p.grad is not None]
            kinds.remove(type(None))
        if not (
            len(parameters) == len(self.parameters)
            and all(map(is_, parameters, self.parameters))
            and self._same_states(state)
            and kinds <= _TENSORS
            and not any(map(Tensor.is_neg, gradients))
        ):
            return False
        if self._gradient_places.find(gradients) is None:
            return False
        if not self._tell(*self._told, self._gradient_places.found_at):
            return False
        self._gradients = gradients  # until they have been used
        return True

    def step(self, optimizer: Any, group: Mapping[str, Any]) -> bool:
        """One step of all parts, or False if the group follows another rule by now, or is kept in another way."""
        options = list(group.values())
        if len(options) != len(self._options) or not all(map(is_, options, self._options)):
            if optimizer.rule_of(group) != self.rule or optimizer._storage(group) != self.storage:
                return False
            numbers = list(optimizer.hyperparameters_of(group).values())
            for counters in self._counters:
                counters.numbers[1 : 1 + len(numbers)] = numbers
            # An option that can change within (a tensor, a list) is read anew in every step.
            fixed = all(_is_fixed(value) for word, value in group.items() if word != "params")
            self._options = options if fixed else []
        if torch.get_num_threads() != self._num_threads:
            self._share_out()
        for table, counters in self._for_threads:
            step, *given = counters.numbers
            counters.numbers[1 + table.num_hyper :] = table.step(step, given)
        self._take(*self._told)
        self._gradients = []
        torch.autograd.graph.increment_version(self.parameters)
        return True

    def _share_out(self) -> None:
        """Tables for several threads take their steps themselves; compiled code has the rest in one call."""
        self._num_threads, self._for_threads = torch.get_num_threads(), []
        for words, table, counters in zip(self._words, self._tables, self._counters, strict=True):
            is_for_threads = table.num_parts(self._num_threads) > 1
            words[0] = 0 if is_for_threads else table.kernel.address
            if is_for_threads:
                self._for_threads.append((table, counters))


def _is_fixed(value: Any) -> bool:
    return isinstance(value, _FIXED) or (isinstance(value, tuple) and all(map(_is_fixed, value)))
