"""Log-cosh loss."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.reference import exp, expm1, log1p, tanh, where
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches

__all__ = ["LogCoshLoss", "log_cosh_loss"]

_LOG_2 = 0.6931471805599453


def value(p: Any, y: Any) -> Any:
    # log cosh e. Near: cosh e - 1 = u^2 / (2 (1 + u)) with u = expm1(|e|). Far: |e| - log 2 + log(1 + exp(-2 |e|)).
    e = p - y
    a = where(e < 0.0, -e, e)
    u = expm1(where(a < 1.0, a, 0.0))
    near = log1p(0.5 * u * u / (1.0 + u))
    return where(a < 1.0, near, (a - _LOG_2) + log1p(exp(-2.0 * a)))


def gradient(p: Any, y: Any) -> Any:
    # tanh(p - y)
    return tanh(p - y)


FORMULA = LossFormula(
    name="log_cosh",
    title="log-cosh loss",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="real",
    target="real",
    tasks=("regression",),
    formula="mean of log cosh(p - y)",
    gradient_formula="tanh(p - y)",
    domain="any real prediction p and target y",
    source="Green 1990, Bayesian Reconstructions from Emission Tomography Data, IEEE Trans. Med. Imaging 9, p. 84",
    good_at=(
        "outliers, as Huber's loss with δ = 1, and smooth everywhere: every derivative exists",
        "second-order methods: the second derivative is never 0 where the loss bends",
    ),
    bad_at=("targets in large or small units: the bend is at about 1 and has no parameter",),
    compared_by_default=False,  # Huber's loss, rounded off
)


def log_cosh_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    weight: Tensor | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of ``log(cosh(input - target))``; see :class:`LogCoshLoss`."""
    return pointwise_loss(FORMULA, input, target, weight=weight, reduction=reduction, **switches)


class LogCoshLoss(LossModule, nn.Module):
    """Logarithm of the hyperbolic cosine of the error: squared near the target, absolute far from it.

    ``log(cosh(p - y))``: ``(p - y)^2 / 2`` for small errors, ``|p - y| - log 2`` for large ones.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target alike, any; the result is a scalar, or that shape for ``"none"``.

    Raises:
        InputError: the shapes differ.

    Numerics: an error of 1e-9 costs 5e-19, where ``log(cosh(e))`` gives 0; an error of 1e30 costs 1e30, where it
    gives infinity. An infinite error costs infinity, with a gradient of 1 or -1.

    Source: Green 1990.

    >>> import torch
    >>> print(f"{float(LogCoshLoss()(torch.tensor([1e-9]), torch.tensor([0.0]))):.6e}")
    5.000000e-19
    """

    formula = FORMULA

    def __init__(self, reduction: str = "mean", **switches: Unpack[Switches]) -> None:
        super().__init__()
        self.reduction = reduction
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return log_cosh_loss(input, target, self.reduction, **self.switches)
