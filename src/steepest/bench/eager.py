"""Training loops as people write them in torch, with this package's loss and optimizer for torch's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from steepest.bench.optimizers import FUSED, way_of_torch
from steepest.bench.peers import if_there, torch_loss, torch_optimizer
from steepest.bench.work import OURS, Bar, Contestant, Field, Ratio, Work
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.training.modules import build_module
from steepest.training.run import Architecture

__all__ = ["works"]

TORCH = "torch eager loop"
_STEPS = 20  # in a call


class Case(NamedTuple):
    """A net and its batch."""

    sizes: tuple[int, ...]
    batch_size: int


CASES = (
    Case((10, 5, 1), 32),
    Case((64, 128, 128, 10), 32),
    Case((784, 256, 10), 128),
    Case((784, 1024, 1024, 10), 128),
)
_WORDS = ("sgd", "momentum", "adam", "rmsprop")


def works(quick: bool) -> list[Work]:
    """Every case with four optimizers: never slower than torch's as they come, and than the fused ones."""
    return [_work(case, word) for case in (CASES[:1] if quick else CASES) for word in _WORDS]


def _work(case: Case, word: str) -> Work:
    net = "-".join(map(str, case.sizes))
    name = f"a loop in torch, {net}, {_loss(case)}, {word}, batch {case.batch_size}, a step"
    bars: tuple[Bar, ...] = (Ratio((TORCH,), 1.0), Ratio((FUSED,), 1.0))
    return Work(name, partial(_field, case, word), bars if word != "rmsprop" else bars[:1])


def _loss(case: Case) -> str:
    return "mse" if case.sizes[-1] == 1 else "cross_entropy"


def _field(case: Case, word: str) -> Field:
    entry, loss = OPTIMIZERS[word], _loss(case)
    found = torch_optimizer(word)
    assert found is not None
    theirs, options = found
    ours = partial(entry.cls, lr=entry.default_lr, **entry.options)
    return {
        OURS: _loop(case, LOSSES[loss](), ours),
        TORCH: _loop(case, torch_loss(loss), partial(theirs, lr=entry.default_lr, **options)),
        FUSED: if_there(lambda: _loop(case, torch_loss(loss), way_of_torch(word, FUSED))),
    }


def _loop(case: Case, loss: Any, make: Callable[..., Any]) -> Contestant:
    torch.manual_seed(0)
    module = build_module(list(case.sizes), Architecture())
    optimizer = make(module.parameters())
    x = torch.randn(case.batch_size, case.sizes[0])
    outputs = case.sizes[-1]
    y = torch.randn(len(x), 1) if outputs == 1 else torch.randint(outputs, (len(x),))

    def call() -> None:
        for _ in range(_STEPS):
            optimizer.zero_grad()
            loss(module(x), y).backward()
            optimizer.step()

    return Contestant(call, torch.__version__, units=_STEPS)
