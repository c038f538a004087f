"""A contestant on a GPU: timed by events, on fresh inputs, into poisoned memory; its peak memory; the card's limits."""

from __future__ import annotations

import gc
import math
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from steepest.bench import child
from steepest.bench.work import Contestant, Limit

__all__ = [
    "about_the_card", "are_finite", "copied", "let_go", "make_cold", "measured_here", "multiplied", "on_device",
    "peak_of", "poison",
]  # fmt: skip

_BUSY = 2_000_000  # cycles, a millisecond: while the card waits them out, the launches of a call are made
_COPIED = 1 << 28  # float32 numbers
_PRODUCT = 8192  # rows, columns and the sum's length


def about_the_card() -> dict[str, str]:
    """Card, driver and versions."""
    import triton

    card = torch.cuda.get_device_properties(0)
    return {
        "card": card.name,
        "card memory": f"{card.total_memory / 2**30:.0f} GiB",
        "driver": _driver(),
        "cuda": str(torch.version.cuda),
        "rocm": str(torch.version.hip),
        "triton": triton.__version__,
    }


def _driver() -> str:
    """As NVIDIA's own tool says, or the newest CUDA it knows."""
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return str(getattr(torch._C, "_cuda_getDriverVersion", lambda: "unknown")())


# --- a call ------------------------------------------------------------------------------------------------------


def on_device(
    device: str,
    fresh: Callable[[], object],
    work: Callable[[], Any],
    is_sound: Callable[[Any], bool],
    version: str,
    *,
    from_rest: bool = False,
    units: float = 1.0,
    facts: Callable[[], Mapping[str, float]] = dict,
    note: str = "",
) -> Contestant:
    """A contestant whose time is the device's.

    Args:
        device: where it computes; on a CPU the clock has to do.
        fresh: makes inputs anew, in front of every call.
        work: what is timed.
        is_sound: whether its result is one, and nothing left over.
        version: of whoever does it.
        from_rest: the card has nothing to do when the call begins, so that its launches count; else they are made
            while the card is still at work, as in training.
        units, facts, note: as :class:`Contestant`'s.
    """

    def call() -> Mapping[str, float]:
        seconds, result = _timed(work, torch.device(device), from_rest)
        if not is_sound(result):
            raise ArithmeticError("the result is not finite, or nothing was done")
        return {"time": seconds / units}

    return Contestant(call, version, before=fresh, facts=facts, note=note)


def _timed(work: Callable[[], Any], device: torch.device, from_rest: bool) -> tuple[float, Any]:
    if device.type != "cuda":
        start = time.perf_counter()
        result = work()
        return time.perf_counter() - start, result
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    if from_rest:
        torch.cuda.synchronize(device)
    else:
        torch.cuda._sleep(_BUSY)
    begin.record()
    result = work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000.0, result


def poison(like: Tensor) -> None:
    """Memory of this size, which the allocator hands out next, holds NaN."""
    torch.full_like(like, math.nan)


def make_cold(device: str) -> None:
    """Nothing of what was drawn is in the card's cache any more."""
    if torch.device(device).type == "cuda":
        _filler(device).zero_()


@cache
def _filler(device: str) -> Tensor:
    size = torch.cuda.get_device_properties(torch.device(device)).L2_cache_size
    return torch.empty(4 * max(size, 1 << 20), dtype=torch.uint8, device=device)


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all are; a sum of each, which takes no memory."""
    sums = torch.stack([tensor.sum(dtype=torch.float32) for tensor in tensors])
    return bool(torch.isfinite(sums).all())


def let_go() -> None:
    """Give the memory of what is gone back to the card, for the next work or another process."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# --- peak memory -------------------------------------------------------------------------------------------------


def peak_of(file: str, *, whole: bool = False, **arguments: Any) -> Callable[[], Mapping[str, float]]:
    """The facts of a contestant: its peak memory, measured in a process of its own.

    Args:
        file: of this folder, whose ``alone(**arguments)`` makes the contestant.
        whole: all that is held at the peak; else what is above the inputs.
    """

    def facts() -> Mapping[str, float]:
        let_go()
        return child.in_process("gpu_peak", file=file, whole=whole, arguments=arguments)

    return facts


def measured_here(file: str, whole: bool, arguments: Mapping[str, Any]) -> Mapping[str, float]:
    """The peak of a contestant's second call; the first one compiles."""
    contestant: Contestant = import_module(f"steepest.bench.gpu.{file}").alone(**arguments)
    on_card = torch.device(arguments["device"]).type == "cuda"
    assert contestant.before is not None
    contestant.before()
    contestant.call()
    contestant.before()
    let_go()
    if on_card:
        torch.cuda.reset_peak_memory_stats()
    else:
        child.reset_peak()
    held = torch.cuda.memory_allocated() if on_card else child.resident_bytes()
    contestant.call()
    peak = torch.cuda.max_memory_allocated() if on_card else child.peak_bytes()
    return {"peak memory": float(peak if whole else peak - held)}


# --- what no contestant can beat ---------------------------------------------------------------------------------


def copied(device: str, num_bytes: float) -> Limit:
    """So many bytes read and written at the speed of a copy, measured."""
    return Limit("copy bandwidth", num_bytes, partial(_copy, device))


def _copy(device: str, quick: bool) -> Contestant:
    source, target = (torch.ones(1000 if quick else _COPIED, device=device) for _ in range(2))
    return on_device(
        device, partial(make_cold, device), lambda: target.copy_(source), lambda _: True, torch.__version__,
        units=2.0 * source.nbytes,
    )  # fmt: skip


def multiplied(device: str, operations: float) -> Limit:
    """So many operations at the speed of a large product in bfloat16, measured."""
    return Limit("bfloat16 product", operations, partial(_multiply, device))


def _multiply(device: str, quick: bool) -> Contestant:
    size = 32 if quick else _PRODUCT
    a, b, product = (torch.randn(size, size, device=device).bfloat16() for _ in range(3))
    return on_device(
        device, partial(make_cold, device), lambda: torch.mm(a, b, out=product), lambda _: True, torch.__version__,
        units=2.0 * size**3,
    )  # fmt: skip
