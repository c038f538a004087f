"""Smooth L1 loss: Huber's, divided by its threshold."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn
from torch.nn import _reduction

from steepest.backends.reference import abs, maximum, minimum
from steepest.losses import l1
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches
from steepest.tuning_range import TuningRange

__all__ = ["SmoothL1Loss", "smooth_l1_loss"]


def value(p: Any, y: Any, beta: Any) -> Any:
    # (p - y)^2 / (2 beta) inside beta, |p - y| - beta / 2 outside: c / beta (e - c / 2), c the error held at beta
    e = abs(p - y)
    c = minimum(e, beta)
    return (c / beta) * (e - 0.5 * c)


def gradient(p: Any, y: Any, beta: Any) -> Any:
    # (p - y) / beta, held within +-1
    return maximum(minimum((p - y) / beta, 1.0), -1.0)


FORMULA = LossFormula(
    name="smooth_l1",
    title="smooth L1 loss",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="real",
    target="real",
    tasks=("regression",),
    formula="mean of (p - y)² / (2β) where |p - y| < β, else |p - y| - β/2",
    gradient_formula="(p - y) / β, held within ±1",
    domain="any real prediction p and target y; β is beta, and β = 0 is the absolute error",
    source="Girshick 2015, Fast R-CNN, eq. 3 (β = 1); Huber 1964, p. 79, divided by β",
    good_at=(
        "outliers, without the kink, and with a largest gradient of 1 whatever β is",
        "swapping in for the absolute error: far from the target the two pull alike",
    ),
    bad_at=("a β that does not suit the noise: a tiny one is MAE, a huge one flattens all gradients",),
    parameters={"beta": 1.0},
    valid={"beta": Interval(0.0, float("inf"))},
    tunable={"beta": TuningRange(0.1, 10.0, "log")},
    compared_by_default=False,  # Huber's loss at another rate
)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of the smooth L1 loss with threshold ``beta``; see :class:`SmoothL1Loss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    if not isinstance(beta, Tensor) and beta == 0:
        return pointwise_loss(l1.FORMULA, input, target, reduction=reduction, **switches)
    return pointwise_loss(FORMULA, input, target, (beta,), reduction=reduction, **switches)


class SmoothL1Loss(LossModule, nn.SmoothL1Loss):
    """Squared within ``beta`` of the target, absolute beyond, of slope at most 1; drop-in for torch's.

    ``(p - y)^2 / (2 beta)`` where ``|p - y| < beta``, else ``|p - y| - beta / 2``.

    Args:
        size_average, reduce: torch's deprecated forms of ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        beta: where the loss turns from squared to absolute, in the target's units; 0 is the absolute error.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target alike, any; the result is a scalar, or that shape for ``"none"``.

    Raises:
        InputError: the shapes differ, or ``beta`` is negative or infinite.

    Source: Girshick 2015, eq. 3; with ``beta`` it is Huber's loss (1964, p. 79) divided by ``beta``.

    >>> import torch
    >>> float(SmoothL1Loss(beta=2.0)(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 3.0])))
    1.125
    """

    formula = FORMULA

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        beta: float = 1.0,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(size_average, reduce, reduction, beta)
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta, **self.switches)
