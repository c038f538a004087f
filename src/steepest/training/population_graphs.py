"""A population's steps as CUDA graphs: the launches of one are captured, and replayed for each mini-batch after it.

A graph reads and writes where it did when it was captured. So a batch is copied to where the first one lay, and what
hangs on the step (counts, rates, scalars) is worked out on the device. Where runs have left, all is captured anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from steepest.errors import told
from steepest.training.population_losses import LossGroup
from steepest.training.population_rules import RuleGroup
from steepest.training.population_stack import Batch, ModuleStack

__all__ = ["Steps"]


class Steps:
    """The steps of runs that stay the same: launch by launch, or replayed where the stack and the rules allow it.

    Args:
        stack, losses, rules: of these runs; the weights of a rule's lie side by side, in the rules' order.
        failures: takes what stood in the way of a capture; where anything did, no other is tried.
    """

    def __init__(
        self,
        stack: ModuleStack,
        losses: Sequence[LossGroup],
        rules: Sequence[RuleGroup],
        failures: list[str],
    ) -> None:
        self._stack, self._losses, self._rules, self._failures = stack, losses, rules, failures
        on_device = can_capture(stack.flat.device) and not failures
        self._captures_gradients = on_device and stack.may_be_captured
        self._captures_updates = self._captures_gradients and all(rule.may_be_captured for rule in rules)
        self._gradients: dict[int, tuple[Batch, _Replayed]] = {}  # by the number of rows
        self._updates: dict[int, _Replayed] = {}  # by where the gradients lie

    def differentiate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Each run's loss and gradient; the next call may overwrite them."""
        if not self._captures_gradients:
            return self._stack.differentiate(batch, self._losses)
        if batch.num_rows not in self._gradients:
            own = batch.copied()
            work = self._replayed(lambda: self._stack.differentiate(own, self._losses))
            self._gradients[batch.num_rows] = own, work
        own, work = self._gradients[batch.num_rows]
        own.take(batch)
        losses, gradients = work()
        return losses, gradients

    def update(self, gradients: Tensor) -> None:
        """Each rule's update of its runs."""
        if not self._captures_updates:
            self._update(gradients)
            return
        place = gradients.data_ptr()
        if place not in self._updates:
            self._updates[place] = self._replayed(lambda: self._update(gradients))
        self._updates[place]()

    def _replayed(self, work: Callable[[], Any]) -> _Replayed:
        return _Replayed(work, self._stack.flat.device, self._failures)

    def _update(self, gradients: Tensor) -> None:
        start = 0
        for rule in self._rules:
            rows = slice(start, start + len(rule))
            rule.update(self._stack.flat[rows], gradients[rows])
            start += len(rule)


class _Replayed:
    """Work on tensors that stay where they are: done as it stands once, for what is made and compiled on the way; then
    captured, and replayed."""

    def __init__(self, work: Callable[[], Any], device: torch.device, failures: list[str]) -> None:
        self._work, self._device, self._failures = work, device, failures
        self._calls = 0
        self._replay: Callable[[], None] | None = None
        self._result: Any = None

    def __call__(self) -> Any:
        self._calls += 1
        if self._calls == 2 and not self._failures:
            try:
                self._replay, self._result = capture(self._work, self._device)
            except RuntimeError as error:
                self._failures.append(told(error))
        if self._replay is None:
            return self._work()
        self._replay()
        return self._result


def can_capture(device: torch.device) -> bool:
    """Whether a device has graphs."""
    return device.type == "cuda"


def capture(work: Callable[[], Any], device: torch.device) -> tuple[Callable[[], None], Any]:
    """What replays the work's launches, and its result, which each replay overwrites; nothing is done yet.

    Launches on a device go to that one's streams: a stream of another, as torch's own for captures may be, would
    capture none of them.
    """
    with torch.cuda.device(device):
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
                result = work()
        finally:
            torch.cuda.set_stream(before)  # where a capture fails, torch stays on the other
    return graph.replay, result
