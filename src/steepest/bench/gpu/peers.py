"""The peers on a GPU, each from its own package."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from steepest.bench.peers import Absent, load

__all__ = [
    "BITSANDBYTES",
    "CCE",
    "CCE_WHOLE",
    "LIGER",
    "TORCHAO",
    "compiled",
    "jax_on",
    "liger",
    "package_of",
]

LIGER, CCE, CCE_WHOLE = "Liger", "Cut Cross-Entropy", "Cut Cross-Entropy, no gradient left out"
BITSANDBYTES, TORCHAO = "bitsandbytes", "torchao"
_PACKAGES = {
    LIGER: "liger-kernel",
    CCE: "cut-cross-entropy",
    CCE_WHOLE: "cut-cross-entropy",
    BITSANDBYTES: "bitsandbytes",
    TORCHAO: "torchao",
}


def package_of(peer: str) -> str:
    """The package whose version a peer has; torch where it is torch itself."""
    return _PACKAGES.get(peer, "torch")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.compile`` of a function, for fixed shapes."""
    made: Callable[..., Any] = torch.compile(function, dynamic=False)
    return made


def liger() -> Any:
    """Liger's modules; its import chooses a kernel for the card it finds.

    Raises:
        Absent: it is not installed.
    """
    return load("liger_kernel.transformers")


def jax_on(device: str) -> None:
    """Make sure that JAX computes where the others do, and leaves them the card's memory.

    Raises:
        Absent: it is not installed, or sees no GPU.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax = load("jax")
    if torch.device(device).type == "cuda" and jax.default_backend() == "cpu":
        raise Absent("jax is installed without its GPU part")
