"""Losses and optimizer steps on a GPU against torch's own, timed by the device's events; many runs, by the clock.

Before each sample inputs are drawn anew, and memory that the allocator hands out next is filled with NaN, so that no
result can be left over from the sample before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from steepest.bench import modules
from steepest.bench.losses import COMPILED, EAGER, draw
from steepest.bench.optimizers import MODES
from steepest.bench.peers import compiled, if_there, torch_loss, torch_optimizer
from steepest.bench.work import OURS, Contestant, Field, Missing, Ratio, Work
from steepest.errors import InputError
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS

__all__ = ["about_the_card", "check_device", "works"]

_LOSSES = (("mse", (20_000_000,)), ("bce", (20_000_000,)), ("cross_entropy", (8192, 32_000)))
_OPTIMIZERS = ("momentum", "adam", "adamw")
_SIZES = ((1, 20_000_000), (465, 4096))
_DTYPES = (torch.float32, torch.bfloat16)


def check_device(suites: Sequence[str]) -> None:
    """Refuse what cannot be measured on a GPU.

    Raises:
        InputError: torch sees no GPU, or a suite has no form there.
    """
    lacking = [suite for suite in suites if suite not in ("losses", "optimizers", "training")]
    if lacking:
        raise InputError(
            f"--device cuda measures losses, optimizers and training; {lacking[0]} runs on the CPU alone."
        )
    if not torch.cuda.is_available():
        raise InputError(
            "--device cuda needs a GPU, and torch sees none here; install torch's CUDA or ROCm build on a machine that "
            "has one, or leave --device out."
        )


def about_the_card() -> dict[str, str]:
    """Card, driver and versions."""
    import triton

    card = torch.cuda.get_device_properties(0)
    driver = getattr(torch._C, "_cuda_getDriverVersion", lambda: "unknown")()
    return {
        "card": card.name,
        "card memory": f"{card.total_memory / 2**30:.0f} GiB",
        "driver": str(driver),
        "cuda": str(torch.version.cuda),
        "rocm": str(torch.version.hip),
        "triton": triton.__version__,
    }


def works(suite: str, quick: bool, device: str = "cuda") -> list[Work]:
    """Each loss and each optimizer in float32 and bfloat16; many runs at once in float32."""
    if suite == "training":
        return modules.works(quick, device)
    made = []
    for dtype in _DTYPES:
        kind = str(dtype).removeprefix("torch.")
        if suite == "losses":
            for word, (rows, *rest) in _LOSSES:
                shape = (max(4, rows // 5000), *rest) if quick else (rows, *rest)
                name = f"{word}, {' x '.join(f'{size:,}' for size in shape)}, {kind}, forward and backward"
                made.append(
                    Work(name, partial(_of_loss, word, shape, dtype, device), (Ratio((EAGER, COMPILED)),))
                )
        else:
            for word in _OPTIMIZERS:
                for count, elements in _SIZES:
                    size = (min(count, 4), 1000) if quick else (count, elements)
                    bar = Ratio(tuple(MODES))
                    name = f"{word}, {size[0]} x {size[1]:,}, {kind}, a step"
                    made.append(Work(name, partial(_of_optimizer, word, size, dtype, device), (bar,)))
    return made


def _of_loss(word: str, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Field:
    prediction, target = (tensor.to(device) for tensor in draw(word, shape))
    prediction = prediction.to(dtype)
    target = target.to(dtype) if target.is_floating_point() else target
    ours = LOSSES[word]()
    field: dict[str, Contestant | Missing] = {OURS: _loss_call(ours, prediction, target)}
    theirs = torch_loss(word)
    if theirs is not None:
        field[EAGER] = if_there(partial(_loss_call, theirs, prediction, target))
        field[COMPILED] = if_there(lambda: _loss_call(compiled(theirs), prediction, target))
    return field


def _loss_call(loss: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, target: Tensor) -> Contestant:
    leaf = prediction.detach().clone().requires_grad_()

    def before() -> None:
        with torch.no_grad():
            leaf.normal_()
        _poison(leaf)

    def call() -> Mapping[str, float]:
        seconds, (gradient,) = _timed(lambda: torch.autograd.grad(loss(leaf, target), leaf), leaf.device)
        if not bool(torch.isfinite(gradient).all()):
            raise ArithmeticError("the gradient is not finite")
        return {"time": seconds}

    return Contestant(call, torch.__version__, before=before)


def _of_optimizer(word: str, size: tuple[int, int], dtype: torch.dtype, device: str) -> Field:
    entry = OPTIMIZERS[word]
    ours = partial(entry.cls, lr=entry.default_lr, **entry.options)
    field: dict[str, Contestant | Missing] = {OURS: _step_call(ours, size, dtype, device)}
    found = torch_optimizer(word)
    if found is not None:
        for mode, options in MODES.items():
            cls, same = found
            theirs = partial(cls, lr=entry.default_lr, **same, **options)
            field[mode] = if_there(partial(_step_call, theirs, size, dtype, device))
    return field


def _step_call(
    make: Callable[..., Any], size: tuple[int, int], dtype: torch.dtype, device: str
) -> Contestant:
    count, elements = size
    parameters = [torch.nn.Parameter(torch.randn(elements, dtype=dtype, device=device)) for _ in range(count)]
    optimizer = make(parameters)

    def before() -> None:
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        _poison(parameters[0])

    def call() -> Mapping[str, float]:
        seconds, _ = _timed(optimizer.step, parameters[0].device)
        if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
            raise ArithmeticError("a parameter is not finite")
        return {"time": seconds}

    return Contestant(call, torch.__version__, before=before)


def _poison(like: Tensor) -> None:
    """Memory that is handed out next holds NaN."""
    torch.full_like(like, math.nan)


def _timed(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds by the device's own events; by the clock where there are none."""
    if device.type != "cuda":
        start = time.perf_counter()
        result = call()
        return time.perf_counter() - start, result
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    result = call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000.0, result
