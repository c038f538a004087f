"""Mean absolute error."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn
from torch.nn import _reduction

from steepest.backends.reference import abs, sign
from steepest.losses.apply import pointwise_loss, weighted_mean
from steepest.losses.base import LossModule
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches

__all__ = ["L1Loss", "l1_loss"]


def value(p: Any, y: Any) -> Any:
    # |p - y|
    return abs(p - y)


def gradient(p: Any, y: Any) -> Any:
    # sign(p - y), 0 at the kink
    return sign(p - y)


FORMULA = LossFormula(
    name="mae",
    title="mean absolute error",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="real",
    target="real",
    tasks=("regression",),
    formula="mean of |p - y|",
    gradient_formula="sign(p - y), 0 where p = y",
    domain="any real prediction p and target y",
    source="Laplace 1774; Koenker and Bassett 1978, Regression Quantiles, Econometrica 46, "
    "eq. 2.1 at one half",
    good_at=(
        "outliers: every row pulls with the same force, however far off, and the fit aims at the median",
        "errors in the target's own units, the same above it as below: MAE is symmetric in the error's sign",
    ),
    bad_at=(
        "the kink at 0: the gradient does not shrink near it, and a constant rate hops about the optimum",
        "skewed noise where the mean is wanted: the median is another number",
        "costs that differ by sign: it is often said to be asymmetric, and is not; quantile is",
    ),
)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of ``weight * abs(input - target)``; see :class:`L1Loss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    if weight is not None:
        switches = weighted_mean(FORMULA, input, weight, reduction, switches)
    return pointwise_loss(FORMULA, input, target, weight=weight, reduction=reduction, **switches)


class L1Loss(LossModule, nn.L1Loss):
    """Mean absolute error: ``abs(p - y)``, drop-in for :class:`torch.nn.L1Loss`.

    Args:
        size_average, reduce: torch's deprecated forms of ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target alike, any; the result is a scalar, or that shape for ``"none"``.

    Raises:
        InputError: the shapes differ.

    Numerics: the gradient at ``p = y`` is 0, as torch's. float32 is computed in float64 and rounded once.

    Source: Koenker and Bassett 1978, eq. 2.1.

    >>> import torch
    >>> float(L1Loss()(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])))
    1.0
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
        return l1_loss(input, target, reduction=self.reduction, **self.switches)
