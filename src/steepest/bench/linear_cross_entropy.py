"""A linear layer and its cross-entropy in one, against torch's pair: time, and memory in a process each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from steepest.bench import child
from steepest.bench.measure import ROUNDS
from steepest.bench.work import OURS, Contestant, Field, Limit, Ratio, Work

__all__ = ["linear_cross_entropy", "measured_here"]

PAIR = "torch linear and cross_entropy"
_SHAPE = (2048, 512, 32_000)  # rows, features, classes
_CALLS = 3


def linear_cross_entropy(quick: bool) -> Work:
    """The work; both gradients, by the rows and by the weight."""
    shape = (64, 16, 100) if quick else _SHAPE
    rows, features, classes = shape
    return Work(
        f"linear cross-entropy, {rows:,} x {features:,} into {classes:,}, forward and backward",
        partial(_field, shape),
        (Ratio((PAIR,), 1.0), Ratio((PAIR,), 5.0, "peak memory")),
        Limit("sgemm", 6.0 * rows * features * classes),  # the logits, and a product for each gradient
        rounds=ROUNDS,
        warm_up=False,
    )


def _field(shape: tuple[int, int, int]) -> Field:
    import torch

    def contestant(name: str) -> Contestant:
        return Contestant(
            lambda: child.in_process("linear_cross_entropy", contestant=name, shape=shape),
            torch.__version__,
            note="a process each; memory above what it held before" if name == OURS else "",
        )

    return {OURS: contestant(OURS), PAIR: contestant(PAIR)}


def measured_here(contestant: str, shape: tuple[int, int, int]) -> Mapping[str, float]:
    """Seconds a call, and the peak of this process's memory above what it held before the first."""
    import torch

    rows, features, classes = shape
    torch.manual_seed(0)
    loss = _loss(contestant)
    _call(loss, torch.randn(8, 4), torch.randn(5, 4), torch.zeros(8, dtype=torch.int64))  # loads the code
    x, weight = torch.randn(rows, features), torch.randn(classes, features) / features**0.5
    target = torch.randint(classes, (rows,))
    child.reset_peak()
    before = child.resident_bytes()
    _call(loss, x, weight, target)
    peak = child.peak_bytes() - before
    seconds = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        _call(loss, x, weight, target)
        seconds.append(time.perf_counter() - start)
    return {"time": statistics.median(seconds), "peak memory": float(peak)}


def _loss(contestant: str) -> Callable[..., Any]:
    import torch

    if contestant == OURS:
        from steepest.losses.linear_cross_entropy import linear_cross_entropy as ours

        return ours

    def pair(x: Any, weight: Any, target: Any) -> Any:
        return torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, weight), target)

    return pair


def _call(loss: Callable[..., Any], x: Any, weight: Any, target: Any) -> None:
    import torch

    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    torch.autograd.grad(loss(x, weight, target), (x, weight))
