"""A linear layer and its cross-entropy on a GPU, in bfloat16: time, and memory in a process each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from steepest.bench.gpu.device import are_finite, make_cold, multiplied, on_device, peak_of, poison
from steepest.bench.gpu.peers import CCE, CCE_WHOLE, LIGER, compiled, liger, package_of
from steepest.bench.linear_cross_entropy import PAIR
from steepest.bench.peers import if_there, load, version
from steepest.bench.work import OURS, Contestant, Field, Missing, Ratio, Work

__all__ = ["alone", "works"]

COMPILED = "torch.compile, linear and cross_entropy"
SHAPE, QUICK = (8192, 4096, 131_072), (16, 8, 50)  # rows, features, classes
_CHUNKS = (
    512,
    1024,
    4096,
)  # rows: ours at other sizes than its own (2,048), to see whether that one is right

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of rows, the layer's weight and the classes


def works(quick: bool, device: str) -> list[Work]:
    """The one work; both gradients, by the rows and by the weight."""
    shape = QUICK if quick else SHAPE
    rows, features, classes = shape
    bars = (
        Ratio((COMPILED,), 0.95),
        Ratio((COMPILED,), 4.0, "peak memory"),
        Ratio((LIGER,), 1.2),
        Ratio((CCE,), 1.2),
        Ratio((CCE_WHOLE,)),
        Ratio((PAIR,)),
        *(Ratio((peer,), None, "peak memory") for peer in (LIGER, CCE, PAIR)),
        *(Ratio((_chunks(number),), None, quantity) for number in _CHUNKS for quantity in ("time", "peak memory")),
    )  # fmt: skip
    name = f"linear cross-entropy, {rows:,} x {features:,} into {classes:,}, bfloat16, forward and backward"
    limit = multiplied(device, 6.0 * rows * features * classes)
    return [Work(name, partial(_field, shape, device), bars, limit)]


def _chunks(number: int) -> str:
    return f"{OURS}, chunks of {number:,} rows"


def _field(shape: tuple[int, int, int], device: str) -> Field:
    inputs = Inputs(shape, device)
    names = (OURS, PAIR, COMPILED, LIGER, CCE, CCE_WHOLE, *map(_chunks, _CHUNKS))
    field: dict[str, Contestant | Missing] = {}
    for name in names:
        facts = peak_of("linear", shape=shape, contestant=name, device=device)
        field[name] = if_there(partial(_contestant, name, inputs, facts))
    return field


def alone(shape: Sequence[int], contestant: str, device: str) -> Contestant:
    """One contestant, for a process of its own."""
    rows, features, classes = shape
    return _contestant(contestant, Inputs((rows, features, classes), device), dict)


class Inputs:
    """Rows, a weight and classes, which all contestants share; drawn anew where they lie."""

    def __init__(self, shape: tuple[int, int, int], device: str) -> None:
        rows, features, self._classes = shape
        self.device = device
        self.x, self.weight = (
            torch.empty(size, features, dtype=torch.bfloat16, device=device, requires_grad=True)
            for size in (rows, self._classes)
        )
        self.target = torch.empty(rows, dtype=torch.int64, device=device)
        self.fresh()

    def fresh(self) -> None:
        with torch.no_grad():
            self.x.normal_()
            self.weight.normal_(0.0, self.x.shape[1] ** -0.5)
            self.target.random_(self._classes)
        poison(self.weight)
        poison(self.x)
        make_cold(self.device)


def _contestant(name: str, inputs: Inputs, facts: Any) -> Contestant:
    loss = _loss(name)

    def work() -> Sequence[Tensor]:
        x, weight = inputs.x, inputs.weight
        return torch.autograd.grad(loss(x, weight, inputs.target), (x, weight))

    return on_device(inputs.device, inputs.fresh, work, are_finite, version(package_of(name)), facts=facts)


def _loss(name: str) -> Loss:
    if name in (PAIR, COMPILED):
        return compiled(_pair) if name == COMPILED else _pair
    if name == LIGER:
        module = liger().LigerFusedLinearCrossEntropyLoss()
        return lambda x, weight, target: module(weight, x, target)
    if name in (CCE, CCE_WHOLE):
        theirs = load("cut_cross_entropy").linear_cross_entropy
        made: Loss = theirs if name == CCE else partial(theirs, filter_eps=None)
        return made
    from steepest.losses.linear_cross_entropy import linear_cross_entropy as ours

    own = {_chunks(number): number for number in _CHUNKS}
    options = SimpleNamespace(batch_chunk_size=own[name]) if name in own else None
    return partial(ours, options=options)


def _pair(x: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, weight), target)
