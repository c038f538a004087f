"""Margin ranking loss: which of two scores is to be the higher one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

from torch import Tensor, nn
from torch.nn import _reduction

from steepest.backends.reference import abs, where
from steepest.losses import several
from steepest.losses.apply import composite_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import (
    in_one_shape,
)
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.hinge import check_signs, sign_of
from steepest.losses.switches import Switches

__all__ = ["MarginRankingLoss", "margin_ranking_loss"]

_LARGEST = 1.7976931348623157e308


def missing(a: Any, y: Any, b: Any, margin: Any) -> Any:
    # margin - y (a - b); what the two differences lost shows where they nearly cancel
    y = sign_of(y)
    lead = a - b
    back = lead - a
    lost_of_lead = (a - (lead - back)) - (b + back)
    gap = margin - y * lead
    back = gap - margin
    lost = (margin - (gap - back)) - (y * lead + back) - y * lost_of_lead
    return gap + where(abs(lost) <= _LARGEST, lost, 0.0)


def value(a: Any, y: Any, b: Any, margin: Any) -> Any:
    # max(0, margin - y (a - b))
    gap = missing(a, y, b, margin)
    return where(gap < 0.0, 0.0, gap)


def gradient(a: Any, y: Any, b: Any, margin: Any) -> Any:
    # by a: -y where the margin is missed or just met, else 0
    return where(missing(a, y, b, margin) < 0.0, 0.0, -sign_of(y))


def gradient_by_sign(y: Any, a: Any, b: Any, margin: Any) -> Any:
    # -(a - b) there
    return where(missing(a, y, b, margin) < 0.0, 0.0, b - a)


def _of_sign(y: Any, a: Any, b: Any, margin: Any) -> Any:
    return value(a, y, b, margin)


FORMULA = LossFormula(
    name="margin_ranking",
    title="margin ranking loss",
    family="composite",
    value=value,
    gradient=None,
    prediction="two scores",
    target="sign",
    tasks=(),
    formula="mean of max(0, m - y (x₁ - x₂))",
    gradient_formula="-y by x₁ and y by x₂ where y (x₁ - x₂) ≤ m, else 0",
    domain="any scores x₁ and x₂; y is -1 or 1; m is margin",
    source="Herbrich, Graepel and Obermayer 2000, Large Margin Rank Boundaries for Ordinal Regression, in Advances in "
    "Large Margin Classifiers, MIT Press, pp. 115-132",
    good_at=("order alone: pairs in the right order by the margin no longer pull",),
    bad_at=(
        "how much better: only which of two is, and no score means anything by itself",
        "a margin of 0: equal scores for everything cost nothing; give a margin above 0",
    ),
    parameters={"margin": 0.0},
    valid={"margin": Interval(-float("inf"), float("inf"))},
    compared_by_default=False,
)
_OF_FIRST = replace(FORMULA, family="pointwise", gradient=gradient)
_OF_SIGN = replace(FORMULA, family="pointwise", value=_of_sign, gradient=gradient_by_sign)


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of ``max(0, margin - target * (input1 - input2))``; see :class:`MarginRankingLoss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    name = FORMULA.name
    several.check_pair(FORMULA, input1, input2, target, margin, reduction, switches)
    strict = switches.get("strict_shape", True)
    input1, input2, target = in_one_shape(name, strict, input1=input1, input2=input2, target=target)
    check_signs(name, target, "of 0 and 1 take 2 * target - 1; leave pairs of equal rank out")
    if not target.is_floating_point():
        target = target.to(input1.dtype)

    def in_operations(a: Tensor, b: Tensor, y: Tensor) -> Tensor:
        def compute(a: Tensor, b: Tensor, y: Tensor) -> Tensor:
            values: Tensor = value(a, y, b, margin)
            return values

        return composite_loss(FORMULA, compute, (a, b, y), reduction=reduction, **switches)

    tensors = (input1, input2, target)
    if several.takes(tensors, switches):
        by_first = several.Part(_OF_FIRST, (0, 2, 1), (float(margin),))
        by_sign = several.Part(_OF_SIGN, (2, 0, 1), (float(margin),))
        work = several.Element((by_first, None, by_sign), in_operations, reduction, switches)
        return several.several(work, *tensors)
    return in_operations(*tensors)


class MarginRankingLoss(LossModule, nn.MarginRankingLoss):
    """Two scores, of which the target says which is to be the higher one; drop-in for torch's.

    ``max(0, margin - y (x1 - x2))``.

    Args:
        margin: by how much the higher one is to lead, in the scores' units.
        size_average, reduce: torch's deprecated forms of ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: both inputs and the target alike, any; the target is 1 where ``input1`` is to score higher, -1 where
    ``input2`` is. The gradient goes to all three.

    Raises:
        InputError: the shapes differ, or a target is neither -1 nor 1 (on a GPU its loss is NaN; torch takes any
            number, so that a target of 0 costs the margin and teaches nothing).

    Numerics: at the kink, where the margin is just met, the gradient is that of a margin missed, as torch's.

    Source: Herbrich, Graepel and Obermayer 2000, pp. 115-132.

    >>> import torch
    >>> first, second = torch.tensor([2.0, 0.5]), torch.tensor([1.0, 1.0])
    >>> float(MarginRankingLoss(margin=0.5)(first, second, torch.tensor([1.0, 1.0])))
    0.5
    """

    formula = FORMULA

    def __init__(
        self,
        margin: float = 0.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(margin, size_average, reduce, reduction)
        self._set_switches(switches)

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return margin_ranking_loss(
            input1, input2, target, self.margin, reduction=self.reduction, **self.switches
        )
