"""Hinge loss."""

from __future__ import annotations

import math
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from steepest.backends.cuda_devices import runs_on
from steepest.backends.reference import where
from steepest.errors import InputError
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import is_concrete, same_shape
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches

__all__ = ["HingeLoss", "check_signs", "hinge_loss", "sign_of"]

_NAN = math.nan
_PART = 1 << 18  # targets looked at at once: what is made of them stays in the cache


def sign_of(y: Any) -> Any:
    """A target, NaN where it is neither -1 nor 1: on a GPU nobody looks at them beforehand."""
    return where(y * y == 1.0, y, _NAN)


def value(x: Any, y: Any, margin: Any) -> Any:
    # max(0, margin - y x); constant where the margin is just met, so that its slope there is 0
    y = sign_of(y)
    missing = margin - y * x
    return where(missing <= 0.0, 0.0, missing)


def gradient(x: Any, y: Any, margin: Any) -> Any:
    # -y where y x < margin, else 0
    y = sign_of(y)
    return where(margin - y * x <= 0.0, 0.0, -y)


FORMULA = LossFormula(
    name="hinge",
    title="hinge loss",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="margin",
    target="sign",
    tasks=(),
    formula="mean of max(0, m - y x)",
    gradient_formula="-y where y x < m, else 0",
    domain="any x, infinities included; y is -1 or 1; m is margin",
    source=(
        "Cortes and Vapnik 1995, Support-Vector Networks, Machine Learning 20; Hastie, Tibshirani and Friedman 2009, "
        "The Elements of Statistical Learning, 2nd ed., eq. 12.25"
    ),
    good_at=("the sign alone: rows that are right by the margin no longer pull",),
    bad_at=(
        "probabilities: the output is none and cannot be made one; bce gives them",
        "the kink: at a constant rate descent keeps hopping about it",
    ),
    parameters={"margin": 1.0},
    valid={"margin": Interval(0.0, float("inf"), "[)")},
    compared_by_default=False,
)


def check_signs(name: str, target: Tensor, remedy: str = "of classes 0 and 1 take 2 * target - 1") -> None:
    """Refuse others than -1 and 1 in one sentence; on a GPU, which is not waited for, their losses are NaN."""
    if target.dtype == torch.bool:
        raise InputError(
            f"{name}: targets are {target.dtype}; they are -1 or 1 (of True and False take 2.0 * target - 1.0)."
        )
    if not target.numel() or not is_concrete(target) or target.is_meta or runs_on(target):
        return
    for part in target.detach().reshape(-1).split(_PART):
        low, high = (float(bound) for bound in torch.aminmax(part.abs()))
        if not low == high == 1.0:
            odd = part[part.abs() != 1]
            raise InputError(f"{name}: a target is {float(odd[0]):g}; targets are -1 or 1 ({remedy}).")


def hinge_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    margin: float = 1.0,
    weight: Tensor | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of ``max(0, margin - target * input)``; see :class:`HingeLoss`."""
    same_shape("hinge", input, target, switches.get("strict_shape", True))
    check_signs("hinge", target)
    return pointwise_loss(FORMULA, input, target, (margin,), weight=weight, reduction=reduction, **switches)


class HingeLoss(LossModule, nn.Module):
    """Hinge loss of a support vector machine: how much of the margin is missing.

    ``max(0, margin - y x)``; as scikit-learn's ``hinge_loss`` with its margin of 1. With a margin of 0 it is the
    perceptron's loss. (:class:`torch.nn.HingeEmbeddingLoss` is another loss, of distances.)

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        margin: the product ``y x`` from which on a row costs nothing, at least 0.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target (-1 or 1) alike, any; the result is a scalar, or that shape for ``"none"``.

    Raises:
        InputError: the shapes differ, a target is neither -1 nor 1 (on a GPU its loss is NaN), or ``margin`` is
            negative or infinite.

    Numerics: at the kink, ``y x = margin``, the gradient is 0.

    Source: Cortes and Vapnik 1995; Hastie, Tibshirani and Friedman 2009, eq. 12.25.

    >>> import torch
    >>> float(HingeLoss()(torch.tensor([0.5, -2.0]), torch.tensor([1.0, 1.0])))
    1.75
    """

    formula = FORMULA

    def __init__(self, reduction: str = "mean", margin: float = 1.0, **switches: Unpack[Switches]) -> None:
        super().__init__()
        self.reduction = reduction
        self.margin = margin
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return hinge_loss(input, target, self.reduction, self.margin, **self.switches)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"margin={self.margin}", super().extra_repr()]))
