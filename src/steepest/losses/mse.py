"""Mean squared error."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn
from torch.nn import _reduction

from steepest.losses.apply import pointwise_loss, weighted_mean
from steepest.losses.base import LossModule
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches

__all__ = ["MSELoss", "mse_loss"]


def value(p: Any, y: Any) -> Any:
    # (p - y)^2
    return (p - y) * (p - y)


def gradient(p: Any, y: Any) -> Any:
    # 2 (p - y)
    return (p - y) + (p - y)


FORMULA = LossFormula(
    name="mse",
    title="mean squared error",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="real",
    target="real",
    tasks=("regression",),
    formula="mean of (p - y)²",
    gradient_formula="2 (p - y)",
    domain="any real prediction p and target y",
    source="Gauss 1809, Theoria motus, section 179; "
    "Bishop 2006, Pattern Recognition and Machine Learning, eq. 1.2",
    good_at=(
        "light-tailed, symmetric noise: it is the likelihood of Gaussian noise, and aims at the mean",
        "a gradient that shrinks with the error: plain gradient descent settles at a constant rate",
    ),
    bad_at=(
        "outliers: ten times the error costs a hundred times as much; a few rows can move the whole fit",
    ),
)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of ``weight * (input - target)**2``; see :class:`MSELoss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    if weight is not None:
        switches = weighted_mean(FORMULA, input, weight, reduction, switches)
    return pointwise_loss(FORMULA, input, target, weight=weight, reduction=reduction, **switches)


class MSELoss(LossModule, nn.MSELoss):
    """Mean squared error: ``(p - y)**2``, drop-in for :class:`torch.nn.MSELoss`.

    Args:
        size_average, reduce: torch's deprecated forms of ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target alike, any; the result is a scalar, or that shape for ``"none"``.

    Raises:
        InputError: the shapes differ.

    Numerics: float32 is computed in float64 and rounded once; bfloat16 and float16 in float32. The mean of no
    elements is NaN, as torch's.

    Source: Bishop 2006, eq. 1.2.

    >>> import torch
    >>> float(MSELoss()(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])))
    2.0
    """

    formula = FORMULA

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return mse_loss(input, target, reduction=self.reduction, **self.switches)
