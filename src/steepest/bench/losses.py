"""Losses, forward and backward, against torch's eager and compiled ones, and against the memory's speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steepest.bench.linear_cross_entropy import linear_cross_entropy
from steepest.bench.peers import Absent, compiled, if_there, torch_loss
from steepest.bench.work import OURS, Contestant, Field, Limit, Missing, Ratio, Share, Work
from steepest.losses import LOSSES

__all__ = ["works"]

EAGER, COMPILED = "torch eager", "torch.compile"
_QUICK = 500  # the quick shapes are so many times smaller, or a row


class Case(NamedTuple):
    """A loss at a shape, and how many times as fast as each peer it has to be."""

    loss: str
    shape: tuple[int, ...]
    at_least: Mapping[str, float]
    inplace: bool = False


CASES = (
    Case("cross_entropy", (2048, 32_000), {EAGER: 10.0}, inplace=True),
    Case("cross_entropy", (2048, 32_000), {EAGER: 3.5, COMPILED: 1.5}),
    Case("cross_entropy", (4096, 1000), {EAGER: 6.0, COMPILED: 1.5}),
    Case("cross_entropy", (65_536, 10), {EAGER: 5.0, COMPILED: 1.5}),
    Case("bce", (20_000_000,), {EAGER: 3.0, COMPILED: 1.0}),
    Case("mse", (20_000_000,), {EAGER: 1.5, COMPILED: 1.0}),
    Case("mae", (20_000_000,), {EAGER: 3.0, COMPILED: 1.0}),
    Case("huber", (20_000_000,), {EAGER: 1.5, COMPILED: 1.0}),
    # What fits the cache, where a call counts more than its kernel.
    Case("cross_entropy", (32, 10), {EAGER: 1.0}),
    Case("cross_entropy", (128, 100), {EAGER: 1.0}),
    Case("mse", (1024,), {EAGER: 1.0}),
    Case("bce", (1024,), {EAGER: 1.0}),
    Case("bce", (65_536,), {EAGER: 1.0}),
)
BANDWIDTH_SHARE = 0.6
_LARGE = {"pointwise": (20_000_000,), "softmax": (20_000, 1000)}  # out of every cache


def works(quick: bool) -> list[Work]:
    """The cases above, every loss with a kernel against the memory's speed, and the linear layer's."""
    cases = [_against_peers(case, quick) for case in CASES]
    kernels = [_against_memory(word, quick) for word, loss in LOSSES.items() if loss.formula.family in _LARGE]
    return [*cases, *kernels, linear_cross_entropy(quick)]


def _against_peers(case: Case, quick: bool) -> Work:
    shape = _smaller(case.shape) if quick else case.shape
    bars = tuple(Ratio((peer,), ratio) for peer, ratio in case.at_least.items())
    form = "gradient in place" if case.inplace else "fresh gradient"
    return Work(_name(case.loss, shape, form), partial(_field, case, shape), bars, _limit(case.loss, shape))


def _against_memory(word: str, quick: bool) -> Work:
    shape = _LARGE[LOSSES[word].formula.family]
    shape = _smaller(shape) if quick else shape
    case = Case(word, shape, {}, inplace=True)
    return Work(
        _name(word, shape, "gradient in place"),
        partial(_field, case, shape),
        (Share(BANDWIDTH_SHARE),),
        _limit(word, shape),
    )


def _smaller(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (max(4, shape[0] // _QUICK), *shape[1:])


def _name(word: str, shape: tuple[int, ...], form: str) -> str:
    return f"{word}, {' x '.join(f'{size:,}' for size in shape)}, forward and backward, {form}"


def _limit(word: str, shape: tuple[int, ...]) -> Limit:
    """Bytes: predictions read and gradients written, and of pointwise losses targets read."""
    passes = 2 if LOSSES[word].formula.family == "softmax" else 3
    elements = 1
    for size in shape:
        elements *= size
    return Limit("memory bandwidth", 4.0 * passes * elements)


def _field(case: Case, shape: tuple[int, ...]) -> Field:
    prediction, target = draw(case.loss, shape)
    field: dict[str, Contestant | Missing] = {}
    try:
        ours = loss_of(case.loss, shape, inplace=case.inplace)
    except TypeError as error:
        field[OURS] = Missing(f"not measured: {error}")
    else:
        field[OURS] = (_overwritten if case.inplace else _fresh)(ours, prediction, target)
    for peer in case.at_least:
        field[peer] = if_there(partial(_torchs, case.loss, peer, prediction, target))
    return field


def _torchs(word: str, peer: str, prediction: Tensor, target: Tensor) -> Contestant:
    loss = torch_loss(word)
    if loss is None:
        raise Absent("torch has no such loss")
    return _fresh(compiled(loss) if peer == COMPILED else loss, prediction, target)


def loss_of(word: str, shape: tuple[int, ...], **switches: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss with its defaults; those that ask for the classes' counts get counts that fall by half."""
    needs_counts = {"logit_adjusted", "class_balanced"}
    counts = [torch.arange(shape[-1], 0, -1, dtype=torch.float32)] if word in needs_counts else []
    made: Callable[[Tensor, Tensor], Tensor] = LOSSES[word](*counts, **switches)
    return made


def _fresh(loss: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, target: Tensor) -> Contestant:
    """The gradient in memory of its own, let go at once, as an optimizer's ``zero_grad`` does."""
    leaf = prediction.detach().requires_grad_()

    def call() -> None:
        torch.autograd.grad(loss(leaf, target), leaf)

    return Contestant(call, torch.__version__)


def _overwritten(loss: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, target: Tensor) -> Contestant:
    """The gradient written over the prediction, which is put back, untimed, for the next call."""
    leaf = prediction.detach().requires_grad_()
    buffer = torch.empty_like(prediction)
    given: list[Tensor] = []

    def before() -> None:
        given[:] = [_Into.apply(leaf, buffer)]  # type: ignore[no-untyped-call]

    def call() -> None:
        torch.autograd.grad(loss(given[0], target), given[0])

    return Contestant(call, torch.__version__, before=before)


class _Into(torch.autograd.Function):
    """A copy into memory that is there: what a layer before the loss hands over."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, buffer: Tensor) -> Tensor:
        return buffer.detach().copy_(source)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def draw(
    word: str, shape: tuple[int, ...], generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Predictions and targets of the kinds a loss takes, float32, where the generator is; else the same each time."""
    formula = LOSSES[word].formula
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    place = generator.device

    def normal() -> Tensor:
        return torch.randn(shape, generator=generator, device=place)

    prediction = normal()
    if formula.prediction == "probability":
        prediction = prediction.sigmoid_()
    elif formula.prediction == "log_probability":
        prediction = prediction.abs_().neg_()
    if formula.target == "class":
        target = torch.randint(shape[-1], shape[:1], generator=generator, device=place)
    elif formula.target == "probability":
        target = torch.rand(shape, generator=generator, device=place)
    elif formula.target == "sign":
        target = normal().sign_()
    elif formula.target == "count":
        target = normal().abs_().round_()
    elif formula.target == "positive":
        target = normal().exp_()
    else:
        target = normal()
    return prediction, target
