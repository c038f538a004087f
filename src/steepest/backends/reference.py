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
    "exp_product",
    "expm1",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "power",
    "sigmoid",
    "sigmoid_power",
    "sign",
    "softplus",
    "sqrt",
    "tanh",
    "where",
]

Value = Tensor | float

erf = torch.erf
exp = torch.exp
expm1 = torch.expm1
log = torch.log
log1p = torch.log1p
sigmoid = torch.sigmoid
sqrt = torch.sqrt
tanh = torch.tanh


def abs(x: Tensor) -> Tensor:
    """``|x|``, with slope ``sign(x)``: NaN at NaN, where torch's own slope is 0."""
    return torch.abs(x) * torch.where(torch.isnan(x), x.detach(), 1.0)


def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1, with slope 0; NaN at NaN, where torch's own is 0."""
    return torch.where(torch.isnan(x), x.detach(), torch.sign(x))


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


def exp_product(a: Value, x: Tensor) -> Tensor:
    """``exp(a * x)``, with what rounding the product loses: of a product of 700 that is hundreds of ulp."""
    product = a * x
    return exp(product) * (
        1.0 + _lost(a.detach() if isinstance(a, Tensor) else a, x.detach(), product.detach())
    )


def _lost(a: Value, x: Tensor, product: Tensor) -> Tensor:
    """``a * x - product`` by Dekker's products of halves; 0 where those are no numbers, or the exponential is none."""
    halves = 2.0 ** (12 if x.dtype == torch.float32 else 27) + 1.0
    high_a, high_x = (halves * number - (halves * number - number) for number in (a, x))
    low_a, low_x = a - high_a, x - high_x
    lost = ((high_a * high_x - product) + high_a * low_x + low_a * high_x) + low_a * low_x
    return torch.where(torch.isfinite(lost) & (torch.abs(product) < 800.0), lost, 0.0)


def sigmoid_power(x: Tensor, a: Value) -> Tensor:
    """``sigmoid(x)**a``; every derivative is finite, where those of a power near 0 are not."""
    # exp(a x) (1 + exp(x))^-a, or (1 + exp(-x))^-a: neither holds a large number that was rounded. From 800 on nothing
    # moves, and an infinite loss beside it has a derivative.
    x = torch.where(x > 800.0, 800.0, x)
    below = x < 0
    factor = exp(-a * softplus(torch.where(below, x, -x)))
    return torch.where(below, exp_product(a, torch.where(below, maximum(x, -3e38), 0.0)) * factor, factor)


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
