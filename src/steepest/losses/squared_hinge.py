"""Squared hinge loss."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.reference import where
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import same_shape
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.hinge import check_signs, sign_of
from steepest.losses.switches import Switches

__all__ = ["SquaredHingeLoss", "squared_hinge_loss"]


def value(x: Any, y: Any, margin: Any) -> Any:
    # max(0, margin - y x)^2
    y = sign_of(y)
    missing = margin - y * x
    held = where(missing <= 0.0, 0.0, missing)
    return held * held


def gradient(x: Any, y: Any, margin: Any) -> Any:
    # -2 y max(0, margin - y x)
    y = sign_of(y)
    missing = margin - y * x
    return where(missing <= 0.0, 0.0, -2.0 * y * missing)


FORMULA = LossFormula(
    name="squared_hinge",
    title="squared hinge loss",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="margin",
    target="sign",
    tasks=(),
    formula="mean of max(0, m - y x)²",
    gradient_formula="-2 y max(0, m - y x)",
    domain="any x, infinities included; y is -1 or 1; m is margin",
    source="Chang, Hsieh and Lin 2008, Coordinate Descent Method for Large-Scale L2-loss Linear SVM, JMLR 9",
    good_at=("the sign alone, as hinge, without its kink",),
    bad_at=(
        "mislabelled rows: their cost grows with the square",
        "probabilities: the output is none and cannot be made one; bce gives them",
    ),
    parameters={"margin": 1.0},
    valid={"margin": Interval(0.0, float("inf"), "[)")},
    compared_by_default=False,
)


def squared_hinge_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    margin: float = 1.0,
    weight: Tensor | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of ``max(0, margin - target * input)**2``; see :class:`SquaredHingeLoss`."""
    same_shape("squared_hinge", input, target, switches.get("strict_shape", True))
    check_signs("squared_hinge", target)
    return pointwise_loss(FORMULA, input, target, (margin,), weight=weight, reduction=reduction, **switches)


class SquaredHingeLoss(LossModule, nn.Module):
    """Square of the hinge loss: smooth where the margin is just met.

    ``max(0, margin - y x)^2``, the loss of scikit-learn's ``LinearSVC`` with its margin of 1.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        margin: the product ``y x`` from which on a row costs nothing, at least 0.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target (-1 or 1) alike, any; the result is a scalar, or that shape for ``"none"``.

    Raises:
        InputError: the shapes differ, a target is neither -1 nor 1 (on a GPU its loss is NaN), or ``margin`` is
            negative or infinite.

    Source: Chang, Hsieh and Lin 2008.

    >>> import torch
    >>> float(SquaredHingeLoss()(torch.tensor([0.5, -2.0]), torch.tensor([1.0, 1.0])))
    4.625
    """

    formula = FORMULA

    def __init__(self, reduction: str = "mean", margin: float = 1.0, **switches: Unpack[Switches]) -> None:
        super().__init__()
        self.reduction = reduction
        self.margin = margin
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return squared_hinge_loss(input, target, self.reduction, self.margin, **self.switches)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"margin={self.margin}", super().extra_repr()]))
