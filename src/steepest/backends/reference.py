"""The vocabulary of formulas, as PyTorch tensor operations.

Formulas import their names from here, so a formula called as it stands runs on tensors of any device, and
autograd, double backward and ``torch.func`` see through it. The CPU backend replaces each name by its own
operation of the same name (:data:`steepest.backends.cpu.VOCABULARY`).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "abs",
    "compute_dtype",
    "erf",
    "exp",
    "expm1",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "power",
    "sigmoid",
    "sign",
    "softplus",
    "sqrt",
    "tanh",
    "where",
]

Value = Tensor | float

abs = torch.abs
erf = torch.erf
exp = torch.exp
expm1 = torch.expm1
log = torch.log
log1p = torch.log1p
sigmoid = torch.sigmoid
sign = torch.sign
sqrt = torch.sqrt
tanh = torch.tanh


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))``, exact in both tails (torch's own softplus cuts at a threshold)."""
    return -torch.nn.functional.logsigmoid(-x)


def where(condition: Tensor, a: Value, b: Value) -> Tensor:
    """``a`` where the condition holds, else ``b``; neither branch leaks NaN into the other's value."""
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        # Two numbers would become float32 whatever the formula is computed in.
        widest = torch.float32 if condition.device.type == "mps" else torch.float64
        a = torch.full((), a, dtype=widest, device=condition.device)
    return torch.where(condition, a, b)


def maximum(a: Value, b: Value) -> Tensor:
    """The larger of the two, NaN if either is; a number may stand for a tensor."""
    return torch.maximum(*_tensors(a, b))


def minimum(a: Value, b: Value) -> Tensor:
    """The smaller of the two, NaN if either is; a number may stand for a tensor."""
    return torch.minimum(*_tensors(a, b))


def power(x: Tensor, a: Value) -> Tensor:
    """``x**a`` for ``x >= 0``; its slope by ``x`` at 0 is 0 where ``a`` is 0 or above 1."""
    return torch.pow(x, a)


def _tensors(a: Value, b: Value) -> tuple[Tensor, Tensor]:
    like = a if isinstance(a, Tensor) else b
    assert isinstance(like, Tensor)
    return torch.as_tensor(a, dtype=like.dtype, device=like.device), torch.as_tensor(
        b, dtype=like.dtype, device=like.device
    )


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype a loss is computed in: float64 for float32 on a CPU, float32 for the half types.

    Differences of logits and sums over rows lose more than 4 ulp when they are rounded to float32 on the
    way; in float64 only the final rounding is left. Devices where float64 is slow or missing keep float32.
    """
    if x.dtype in (torch.float16, torch.bfloat16):
        return torch.float32
    if x.dtype == torch.float32 and x.device.type == "cpu":
        return torch.float64
    return x.dtype
