"""Optimizer steps on a GPU: a billion parameters against the card's memory, many small tensors, 8-bit state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from steepest.bench.gpu.device import are_finite, copied, make_cold, on_device, poison
from steepest.bench.gpu.peers import BITSANDBYTES, TORCHAO, package_of
from steepest.bench.optimizers import (
    FOREACH,
    FUSED,
    LOOP,
    MEDIUM,
    MODES,
    Size,
    num_slots,
    state_bytes,
    way_of_torch,
)
from steepest.bench.optimizers import MANY as SMALL
from steepest.bench.peers import Absent, if_there, load, version
from steepest.bench.work import OURS, Contestant, Field, Missing, Ratio, Share, Work
from steepest.optim import OPTIMIZERS

__all__ = ["works"]

DTYPES = ("float32", "bfloat16")
LARGE = Size(16, 1 << 26)  # 1.07 billion
QUICK = {LARGE: Size(2, 4096), SMALL: Size(20, 64), MEDIUM: Size(5, 4096)}
BANDWIDTH_SHARE = 0.85
_BESIDE = {  # a billion parameters: the quickest way that torch has, and how many times as fast
    "adam": Ratio((FUSED,), 1.0),
    "adamw": Ratio((FUSED,), 1.0),
    "momentum": Ratio((FUSED,), 1.0),
    "rmsprop": Ratio((FOREACH, LOOP), 2.0),
}
_SEEN = 1024  # numbers that tell whether a step was taken

Make = Callable[[Sequence[torch.nn.Parameter]], Any]


def works(quick: bool, device: str) -> list[Work]:
    """Four optimizers on a billion parameters, Adam on many small tensors, and Adam with its state in 8 bits."""
    large, *small = (QUICK[size] if quick else size for size in (LARGE, SMALL, MEDIUM))
    return [
        *(_large(word, large, dtype, device) for dtype in DTYPES for word in _BESIDE),
        *(_small(size, device) for size in small),
        _eight_bit(large, device),
    ]


def _large(word: str, size: Size, dtype: str, device: str) -> Work:
    """Parameter and state read and written, the gradient read."""
    beside = _BESIDE[word]
    itemsize = torch.empty(0, dtype=getattr(torch, dtype)).itemsize
    limit = copied(device, itemsize * (3.0 + 2 * num_slots(word)) * size.tensors * size.elements)
    build = partial(_field, size, dtype, device, word, beside.peers, from_rest=False)
    return Work(f"{word}, {size}, {dtype}, a step", build, (Share(BANDWIDTH_SHARE), beside), limit)


def _small(size: Size, device: str) -> Work:
    """Here what counts is the host's time, so the card is at rest when a step begins."""
    build = partial(_field, size, "float32", device, "adam", tuple(MODES), from_rest=True)
    return Work(f"adam, {size}, float32, a step", build, (Ratio(tuple(MODES), 1.5),))


def _eight_bit(size: Size, device: str) -> Work:
    peers = (BITSANDBYTES, TORCHAO)
    bars = (*(Ratio((peer,), 1.0) for peer in peers), *(Ratio((peer,), None, "state") for peer in peers))
    limit = copied(
        device, (12.0 + 4.0) * size.tensors * size.elements
    )  # two slots of a byte, read and written
    build = partial(_field, size, "float32", device, "adam", peers, from_rest=False, state_dtype="8bit")
    return Work(f"adam with 8-bit state, {size}, float32, a step", build, bars, limit)


def _field(
    size: Size, dtype: str, device: str, word: str, peers: Sequence[str], *, from_rest: bool, **switches: Any
) -> Field:
    entry = OPTIMIZERS[word]
    parameters = Parameters(size, getattr(torch, dtype), device)
    ours: Make = partial(entry.cls, lr=entry.default_lr, **entry.options, **switches)
    field: dict[str, Contestant | Missing] = {OURS: _contestant(OURS, lambda: ours, parameters, from_rest)}
    for peer in peers:
        way = partial(_way_of, word, peer)
        field[peer] = if_there(partial(_contestant, peer, way, parameters, from_rest))
    return field


def _way_of(word: str, peer: str) -> Make:
    if peer not in (BITSANDBYTES, TORCHAO):
        return way_of_torch(word, peer)
    module = load("bitsandbytes.optim" if peer == BITSANDBYTES else "torchao.optim")
    return partial(module.Adam8bit, lr=OPTIMIZERS[word].default_lr)


class Parameters:
    """Tensors that all contestants step, drawn anew where they lie; each has a state of its own."""

    def __init__(self, size: Size, dtype: torch.dtype, device: str) -> None:
        self.device = device
        self.tensors = [
            torch.nn.Parameter(torch.empty(size.elements, dtype=dtype, device=device))
            for _ in range(size.tensors)
        ]
        self._begin = torch.empty(0)

    def fresh(self) -> None:
        """Gradients in memory of their own, as a backward pass makes them."""
        for tensor in self.tensors:
            tensor.grad = None
        poison(self.tensors[0])
        with torch.no_grad():
            for tensor in self.tensors:
                tensor.normal_()
                tensor.grad = torch.randn_like(tensor)
        self._begin = self.tensors[-1][-_SEEN:].detach().clone()
        make_cold(self.device)

    def are_stepped(self, _: object) -> bool:
        return are_finite(self.tensors) and not torch.equal(self.tensors[-1][-_SEEN:], self._begin)


def _contestant(name: str, way: Callable[[], Make], parameters: Parameters, from_rest: bool) -> Contestant:
    try:
        optimizer = way()(parameters.tensors)
    except RuntimeError as error:
        raise Absent(f"{name} refuses: {str(error).splitlines()[0]}") from None
    return on_device(
        parameters.device, parameters.fresh, optimizer.step, parameters.are_stepped, version(package_of(name)),
        from_rest=from_rest, facts=lambda: {"state": state_bytes(optimizer)},
    )  # fmt: skip
