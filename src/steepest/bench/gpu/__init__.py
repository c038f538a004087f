"""The GPU's works: losses, a linear layer's loss, optimizers, many runs at once and a small GPT.

Inputs are drawn anew for each sample, memory that the allocator hands out next is filled with NaN, so that no result
can be left over from the sample before, and time is the device's own, by events. Peak memory is measured in a process
for each contestant.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from steepest.bench.work import Work
from steepest.errors import InputError

__all__ = ["SUITES", "check_device", "works"]

SUITES = {
    "losses": ("losses", "linear"),
    "optimizers": ("optimizers",),
    "training": ("runs", "gpt"),
}  # their files


def check_device(suites: Sequence[str]) -> None:
    """Refuse what cannot be measured on a GPU.

    Raises:
        InputError: torch sees no GPU, or a suite has no form there.
    """
    import torch

    lacking = [suite for suite in suites if suite not in SUITES]
    if lacking:
        raise InputError(
            f"--device cuda measures losses, optimizers and training; {lacking[0]} runs on the CPU alone."
        )
    if not torch.cuda.is_available():
        raise InputError(
            "--device cuda needs a GPU, and torch sees none here; install torch's CUDA or ROCm build on a machine that "
            "has one, or leave --device out."
        )


def works(suite: str, quick: bool, device: str = "cuda") -> list[Work]:
    """A suite's works, in the order of its files."""
    return [
        work
        for file in SUITES[suite]
        for work in import_module(f"steepest.bench.gpu.{file}").works(quick, device)
    ]
