"""Two contestants timed in turns, so that a noisy machine is noisy to both."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

__all__ = ["compare", "machine"]


def compare(ours: Callable[[], int], theirs: Callable[[], int], rounds: int = 9) -> dict[str, float]:
    """Medians and spreads, in microseconds a step, of two functions that return the steps they made.

    One untimed round each, then ``rounds`` in turns. A spread is the distance between the quartiles; the
    ratio is the medians', above 1 where ours is faster.
    """
    samples: tuple[list[float], list[float]] = ([], [])
    for function in (ours, theirs):
        function()
    for _ in range(rounds):
        for function, taken in zip((ours, theirs), samples, strict=True):
            start = time.perf_counter()
            steps = function()
            taken.append((time.perf_counter() - start) / steps * 1e6)
    (low, ours_us, high), (their_low, theirs_us, their_high) = (
        statistics.quantiles(taken, n=4) for taken in samples
    )
    return {
        "ours_us": ours_us,
        "ours_spread_us": high - low,
        "theirs_us": theirs_us,
        "theirs_spread_us": their_high - their_low,
        "ratio": theirs_us / ours_us,
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import numba
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
