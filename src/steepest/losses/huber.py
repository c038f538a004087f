"""Huber's loss."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.reference import abs, maximum, minimum
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches
from steepest.tuning_range import TuningRange

__all__ = ["HuberLoss", "huber_loss"]


def value(p: Any, y: Any, delta: Any) -> Any:
    # (p - y)^2 / 2 inside delta, delta (|p - y| - delta / 2) outside: c (e - c / 2), c the error held at delta
    e = abs(p - y)
    c = minimum(e, delta)
    return c * (e - 0.5 * c)


def gradient(p: Any, y: Any, delta: Any) -> Any:
    # p - y, held within +-delta
    return maximum(minimum(p - y, delta), -delta)


FORMULA = LossFormula(
    name="huber",
    title="Huber loss",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="real",
    target="real",
    tasks=("regression",),
    formula="mean of (p - y)² / 2 where |p - y| ≤ δ, else δ (|p - y| - δ/2)",
    gradient_formula="p - y, held within ±δ",
    domain="any real prediction p and target y; δ is delta",
    source="Huber 1964, Robust Estimation of a Location Parameter, Ann. Math. Statist. 35, p. 79",
    good_at=(
        "outliers, without the kink: squared near the target, absolute beyond δ",
        "comparisons: they standardise the targets, so δ counts standard deviations, whatever the table",
    ),
    bad_at=("a δ that does not suit the noise: far too large and it is MSE, far too small and it is MAE",),
    parameters={"delta": 1.0},
    valid={"delta": Interval(0.0, float("inf"))},
    tunable={"delta": TuningRange(0.1, 10.0, "log")},
)


def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of Huber's loss with threshold ``delta``; see :class:`HuberLoss`."""
    return pointwise_loss(FORMULA, input, target, (delta,), weight=weight, reduction=reduction, **switches)


class HuberLoss(LossModule, nn.HuberLoss):
    """Huber's loss: squared within ``delta`` of the target, absolute beyond; drop-in for torch's.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        delta: where the loss turns from squared to absolute, in the target's units, greater than 0.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target alike, any; the result is a scalar, or that shape for ``"none"``.

    Raises:
        InputError: the shapes differ, or ``delta`` is not positive.

    Source: Huber 1964, p. 79.

    >>> import torch
    >>> float(HuberLoss()(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 3.0])))
    1.5
    """

    formula = FORMULA

    def __init__(self, reduction: str = "mean", delta: float = 1.0, **switches: Unpack[Switches]) -> None:
        super().__init__(reduction, delta)
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return huber_loss(input, target, self.reduction, self.delta, **self.switches)
