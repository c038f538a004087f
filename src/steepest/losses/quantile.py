"""Quantile (pinball) loss."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.reference import abs, sign, where
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches

__all__ = ["QuantileLoss", "quantile_loss"]


def value(p: Any, y: Any, quantile: Any) -> Any:
    # q (y - p) where y >= p, (1 - q) (p - y) below; 0 at the kink, so that its derivative there is 0 too (at NaN, NaN)
    e = y - p
    return where(e > 0.0, quantile * e, where(e < 0.0, (quantile - 1.0) * e, 0.0 * abs(e)))


def gradient(p: Any, y: Any, quantile: Any) -> Any:
    # -q where y > p, 1 - q where y < p, 0 at the kink
    e = sign(y - p)
    return where(e > 0.0, -quantile * e, (quantile - 1.0) * e)


FORMULA = LossFormula(
    name="quantile",
    title="quantile (pinball) loss",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="real",
    target="real",
    tasks=("regression",),
    formula="mean of q (y - p) where y ≥ p, else (1 - q) (p - y)",
    gradient_formula="-q where y > p, 1 - q where y < p, 0 where p = y",
    domain="any real prediction p and target y; q is quantile",
    source="Koenker and Bassett 1978, Regression Quantiles, Econometrica 46, eq. 2.1",
    good_at=(
        "aiming at a quantile of the target: with q = 0.9, nine in ten targets lie below the prediction",
        "asymmetric costs: this, not MAE, is the loss that weighs over- and under-prediction differently",
    ),
    bad_at=(
        "the kink at 0, as mae: at a constant rate descent keeps hopping",
        "extreme quantiles: few rows lie beyond them to learn from",
    ),
    parameters={"quantile": 0.5},
    valid={"quantile": Interval(0.0, 1.0)},
    compared_by_default=False,  # at one half it is half of MAE
)


def quantile_loss(
    input: Tensor,
    target: Tensor,
    quantile: float = 0.5,
    reduction: str = "mean",
    weight: Tensor | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of the pinball loss at ``quantile``; see :class:`QuantileLoss`."""
    return pointwise_loss(FORMULA, input, target, (quantile,), weight=weight, reduction=reduction, **switches)


class QuantileLoss(LossModule, nn.Module):
    """Quantile (pinball) loss: ``q (y - p)`` where ``y >= p``, else ``(1 - q) (p - y)``.

    Args:
        quantile: the quantile aimed at, in (0, 1).
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target alike, any; the result is a scalar, or that shape for ``"none"``.

    Raises:
        InputError: the shapes differ, or ``quantile`` is outside (0, 1).

    Source: Koenker and Bassett 1978, eq. 2.1.

    >>> import torch
    >>> float(QuantileLoss(0.75)(torch.tensor([0.0, 0.0]), torch.tensor([1.0, -1.0])))
    0.5
    """

    formula = FORMULA

    def __init__(self, quantile: float = 0.5, reduction: str = "mean", **switches: Unpack[Switches]) -> None:
        super().__init__()
        self.quantile = quantile
        self.reduction = reduction
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return quantile_loss(input, target, self.quantile, self.reduction, **self.switches)

    def extra_repr(self) -> str:
        return f"quantile={self.quantile}, reduction={self.reduction!r}"
