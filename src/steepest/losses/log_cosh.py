"""Log-cosh loss."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.reference import expm1, log1p, where
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches

__all__ = ["LogCoshLoss", "log_cosh_loss"]

_LOG_2 = 0.6931471805599453
_NEAR = 0.5  # below, the far form would lose digits; above, the near one would


def value(p: Any, y: Any) -> Any:
    # log cosh e. Near: -log(1 - tanh(e)^2) / 2. Far: |e| - log 2 + log(1 + exp(-2 |e|)). One logarithm serves both.
    e = p - y
    a = where(e < 0.0, -e, e)
    u = expm1(-2.0 * a)
    t = u / (2.0 + u)
    near = a < _NEAR
    log = log1p(where(near, -t * t, 1.0 + u))
    return where(near, -0.5 * log, (a - _LOG_2) + log)


def gradient(p: Any, y: Any) -> Any:
    # tanh(p - y) = (1 - exp(-2 e)) / (1 + exp(-2 e)), in the exponential that the value has
    e = p - y
    u = expm1(-2.0 * where(e < 0.0, -e, e))
    t = u / (2.0 + u)
    return where(e < 0.0, t, -t)


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
