"""Optimizer steps against every way torch has to make them, and against the memory's speed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from steepest.bench.peers import Absent, if_there, load, torch_optimizer, version
from steepest.bench.work import OURS, Bar, Contestant, Field, Limit, Missing, Ratio, Share, Work
from steepest.optim import OPTIMIZERS, OptimizerSwitches

__all__ = ["works"]

LOOP, FOREACH, FUSED = "torch for-loop", "torch foreach", "torch fused"
MODES = {  # each way's options
    LOOP: {"foreach": False, "fused": False},
    FOREACH: {"foreach": True, "fused": False},
    FUSED: {"foreach": False, "fused": True},
}
HEAVYBALL = "heavyball"


class Size(NamedTuple):
    """Parameters: so many tensors of so many elements."""

    tensors: int
    elements: int

    def __str__(self) -> str:
        return f"{self.tensors:,} x {self.elements:,}" if self.tensors > 1 else f"{self.elements:,}"


LARGE, MANY, MEDIUM = Size(1, 20_000_000), Size(1000, 64), Size(465, 4096)
QUICK = {LARGE: Size(1, 20_000), MANY: Size(20, 64), MEDIUM: Size(5, 4096)}

# Bars beyond "never slower than the best of torch's ways", which holds for every optimizer at every size.
HIGHER = {
    ("adam", LARGE): Ratio((FUSED,), 1.0),
    ("momentum", LARGE): Ratio((FUSED,), 1.0),
    ("adagrad", LARGE): Ratio((FUSED,), 1.0),
    ("rmsprop", LARGE): Ratio(tuple(MODES), 4.0),
    ("adam", MANY): Ratio((FUSED,), 8.0),
}


def works(quick: bool) -> list[Work]:
    """Every optimizer at three sizes, and Adam with its state in 8 bits."""
    plain = [_work(word, size, quick) for size in (LARGE, MANY, MEDIUM) for word in OPTIMIZERS]
    return [*plain, _eight_bit(quick)]


def _work(word: str, size: Size, quick: bool) -> Work:
    sizes = QUICK[size] if quick else size
    best = Ratio(tuple(MODES), 1.0)
    higher = HIGHER.get((word, size), best)
    bars: tuple[Bar, ...] = (higher,) if higher.peers == best.peers else (higher, best)
    if torch_optimizer(word) is None:
        bars = (Share(),)
    # Its own compiler takes a while, and one size tells enough.
    if size is LARGE and _heavyball_name(word) is not None:
        bars = (*bars, Ratio((HEAVYBALL,)))
    peers = tuple(peer for bar in bars if isinstance(bar, Ratio) for peer in bar.peers)
    limit = Limit("memory bandwidth", _bytes(word, sizes))
    return Work(f"{word}, {sizes}, a step", partial(_field, word, sizes, peers), bars, limit)


def _bytes(word: str, size: Size) -> float:
    """Parameter and state are read and written, the gradient read; float32."""
    return 4.0 * (3 + 2 * num_slots(word)) * size.tensors * size.elements


def num_slots(word: str) -> int:
    """How many numbers of its own an optimizer keeps beside each parameter."""
    cls, options = OPTIMIZERS[word].cls, OPTIMIZERS[word].options
    return len(cls.rule_of(cls([torch.nn.Parameter(torch.zeros(1))], **options).param_groups[0]).slots)


def _field(word: str, size: Size, peers: tuple[str, ...]) -> Field:
    entry = OPTIMIZERS[word]
    alone = "" if torch_optimizer(word) else "torch has no such optimizer"
    ours = partial(entry.cls, lr=entry.default_lr, **entry.options)
    field: dict[str, Contestant | Missing] = {OURS: _steps(ours, size, torch.__version__, alone)}
    for peer in dict.fromkeys(peers):
        make = partial(_heavyball, word, size) if peer == HEAVYBALL else partial(_torchs, word, peer, size)
        field[peer] = if_there(make)
    return field


def _torchs(word: str, mode: str, size: Size) -> Contestant:
    try:
        return _steps(way_of_torch(word, mode), size, torch.__version__)
    except RuntimeError as error:
        raise Absent(f"torch refuses: {str(error).splitlines()[0]}") from None


def way_of_torch(word: str, mode: str) -> Callable[..., Any]:
    """torch's optimizer, told which of :data:`MODES` to go.

    Raises:
        Absent: there is none.
    """
    found = torch_optimizer(word)
    if found is None:
        raise Absent("torch has no such optimizer")
    cls, options = found
    known = inspect.signature(cls).parameters
    way = {name: value for name, value in MODES[mode].items() if name in known}
    if (mode == FUSED and "fused" not in known) or (mode == FOREACH and "foreach" not in known):
        raise Absent(f"torch has no {mode.removeprefix('torch ')} form of it")
    return partial(cls, lr=OPTIMIZERS[word].default_lr, **options, **way)


def _heavyball_name(word: str) -> str | None:
    """Its class of the same name; a word with options of its own is not what that class does untold."""
    entry = OPTIMIZERS[word]
    name: str = entry.cls.__name__
    return (
        name
        if not entry.options and name in ("SGD", "AdamW", "RMSprop", "NAdam", "ADOPT", "AdEMAMix")
        else None
    )


def _heavyball(word: str, size: Size) -> Contestant:
    cls = getattr(load("heavyball"), _heavyball_name(word) or "")
    return _steps(partial(cls, lr=OPTIMIZERS[word].default_lr), size, version("heavyball"))


def _steps(make: Callable[..., Any], size: Size, of: str, note: str = "") -> Contestant:
    """Step after step on gradients that stay: what is measured is the step alone."""
    generator = torch.Generator().manual_seed(0)
    parameters = []
    for _ in range(size.tensors):
        parameter = torch.nn.Parameter(torch.randn(size.elements, generator=generator))
        parameter.grad = torch.randn(size.elements, generator=generator)
        parameters.append(parameter)
    gradients = [parameter.grad for parameter in parameters]
    optimizer = make(parameters)

    def call() -> None:
        if parameters[0].grad is None:  # heavyball takes gradients away, and has nothing to do without
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
        optimizer.step()

    return Contestant(call, of, facts=lambda: {"state": state_bytes(optimizer)}, note=note)


def state_bytes(optimizer: Any) -> float:
    """What the tensors of an optimizer's state take, single numbers apart."""
    held = (value for state in optimizer.state.values() for value in _tensors(state))
    return float(sum(value.nbytes for value in held if value.dim()))


def _tensors(state: Any) -> list[torch.Tensor]:
    """The tensors in an optimizer's state, however deep, those inside a tensor of another kind too."""
    inside = getattr(state, "__tensor_flatten__", None)
    if inside is not None:
        return [tensor for name in inside()[0] for tensor in _tensors(getattr(state, name))]
    if isinstance(state, torch.Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return [tensor for value in values for tensor in _tensors(value)]


def _eight_bit(quick: bool) -> Work:
    size = QUICK[LARGE] if quick else LARGE
    return Work(
        f"adam with 8-bit state, {size}, a step",
        partial(_eight_bit_field, size),
        (Ratio((FUSED,), 1.2), Ratio((FUSED,), 4.0, "state")),
        Limit("memory bandwidth", (12.0 + 4.0) * size.elements),  # two slots of a byte, read and written
    )


def _eight_bit_field(size: Size) -> Field:
    ours: Contestant | Missing = Missing("not built")
    if "state_dtype" in OptimizerSwitches.__annotations__:
        entry = OPTIMIZERS["adam"]
        ours = _steps(partial(entry.cls, lr=entry.default_lr, state_dtype="8bit"), size, torch.__version__)
    return {OURS: ours, FUSED: if_there(partial(_torchs, "adam", FUSED, size))}
