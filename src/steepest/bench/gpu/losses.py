"""Losses on a GPU, forward and backward: cross-entropy against its peers, pointwise ones against the card's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steepest.bench.gpu.device import are_finite, copied, make_cold, on_device, peak_of, poison
from steepest.bench.gpu.peers import LIGER, compiled, liger, package_of
from steepest.bench.losses import COMPILED, EAGER, draw, loss_of
from steepest.bench.peers import Absent, if_there, torch_loss, version
from steepest.bench.work import OURS, Bar, Contestant, Field, Missing, Ratio, Share, Within, Work
from steepest.losses import LOSSES

__all__ = ["alone", "works"]

DTYPES = ("float32", "bfloat16")
LARGE, ROWS = (100_000_000,), (16_384, 131_072)
QUICK_LARGE, QUICK_ROWS = (1000,), (3, 5000)
BANDWIDTH_SHARE = 0.8
_BESIDE = ("mse", "bce")  # pointwise losses that are shown beside torch's, too
_SLACK = 1.01  # of the gradient's bytes: what is one number a row


class Case(NamedTuple):
    """A loss at a shape, in a type."""

    loss: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        shape = " x ".join(f"{size:,}" for size in self.shape)
        return f"{self.loss}, {shape}, {self.dtype}, forward and backward"

    @property
    def num_bytes(self) -> int:
        """Of the predictions, and so of their gradient."""
        return torch.Size(self.shape).numel() * torch.empty(0, dtype=getattr(torch, self.dtype)).itemsize


def works(quick: bool, device: str) -> list[Work]:
    """Cross-entropy, then every pointwise loss, in each type."""
    rows, large = (QUICK_ROWS, QUICK_LARGE) if quick else (ROWS, LARGE)
    pointwise = [word for word, loss in LOSSES.items() if loss.formula.family == "pointwise"]
    return [
        *(_cross_entropy(Case("cross_entropy", rows, dtype), device) for dtype in DTYPES),
        *(_pointwise(Case(word, large, dtype), device) for dtype in DTYPES for word in pointwise),
    ]


def _cross_entropy(case: Case, device: str) -> Work:
    """Time against each peer, ours not in place; the most memory above the logits is to be their gradient's."""
    peers = (EAGER, COMPILED, LIGER)
    bars = (
        Ratio((EAGER,), 2.4),
        Ratio((COMPILED,), 1.1),
        Ratio((LIGER,), 1.0),
        Within(_SLACK * case.num_bytes, "peak memory"),
        Ratio((EAGER,), None, "peak memory"),
        Ratio((COMPILED,), None, "peak memory"),
    )
    limit = copied(device, 2.0 * case.num_bytes)
    return Work(str(case), partial(_field, case, device, peers, in_processes=True), bars, limit)


def _pointwise(case: Case, device: str) -> Work:
    """Predictions and targets read, the gradient written."""
    peers = (EAGER, COMPILED) if case.loss in _BESIDE else ()
    bars: tuple[Bar, ...] = (Share(BANDWIDTH_SHARE), *(Ratio((peer,)) for peer in peers))
    limit = copied(device, 3.0 * case.num_bytes)
    return Work(str(case), partial(_field, case, device, peers), bars, limit)


def _field(case: Case, device: str, peers: Sequence[str], *, in_processes: bool = False) -> Field:
    inputs = Inputs(case, device)
    field: dict[str, Contestant | Missing] = {}
    for name in (OURS, *peers):
        facts: Any = dict
        if in_processes:
            facts = peak_of("losses", case=case, contestant=name, device=device)
        field[name] = if_there(partial(_contestant, name, inputs, facts))
    return field


def alone(case: Sequence[Any], contestant: str, device: str) -> Contestant:
    """One contestant, for a process of its own."""
    loss, shape, dtype = case
    return _contestant(contestant, Inputs(Case(loss, tuple(shape), dtype), device), dict)


class Inputs:
    """Predictions that ask for a gradient and targets, which all contestants share; drawn anew where they lie."""

    def __init__(self, case: Case, device: str) -> None:
        self.case, self.device = case, device
        self._generator = torch.Generator(device).manual_seed(0)
        prediction, self.target = self._drawn()
        self.prediction = prediction.requires_grad_()

    def _drawn(self) -> tuple[Tensor, Tensor]:
        prediction, target = draw(self.case.loss, self.case.shape, self._generator)
        dtype = getattr(torch, self.case.dtype)
        return prediction.to(dtype), target.to(dtype) if target.is_floating_point() else target

    def fresh(self) -> None:
        prediction, target = self._drawn()
        with torch.no_grad():
            self.prediction.copy_(prediction)
            self.target.copy_(target)
        del prediction, target
        poison(self.prediction)
        make_cold(self.device)


def _contestant(name: str, inputs: Inputs, facts: Any) -> Contestant:
    loss = _loss(name, inputs.case)

    def work() -> Sequence[Tensor]:
        return torch.autograd.grad(loss(inputs.prediction, inputs.target), inputs.prediction)

    note = "its gradient is written over the logits" if name == LIGER else ""
    of = version(package_of(name))
    return on_device(inputs.device, inputs.fresh, work, are_finite, of, facts=facts, note=note)


def _loss(name: str, case: Case) -> Callable[[Tensor, Tensor], Tensor]:
    if name == OURS:
        return loss_of(case.loss, case.shape)
    made: Callable[[Tensor, Tensor], Tensor]
    if name == LIGER:
        made = liger().LigerCrossEntropyLoss()
        return made
    made = torch_loss(case.loss)
    if made is None:
        raise Absent("torch has no such loss")
    return compiled(made) if name == COMPILED else made
