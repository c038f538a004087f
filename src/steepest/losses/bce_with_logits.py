"""Binary cross-entropy from logits."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn
from torch.nn import _reduction

from steepest.backends.reference import minimum, sigmoid, softplus, where
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches
from steepest.tuning_range import TuningRange

__all__ = ["BCEWithLogitsLoss", "binary_cross_entropy_with_logits"]


_LARGE = 3e38  # finite in float32 too


def value(x: Any, y: Any, pos_weight: Any) -> Any:
    # (1 - y) log(1 + e^x) + w y log(1 + e^-x): no term cancels another, so both tails are exact.
    # A term with no share is 0, also where the logit is infinite: there the largest finite number stands for it.
    below, above = softplus(x), softplus(-x)
    negative = (1.0 - y) * where(y == 1.0, minimum(below, _LARGE), below)
    positive = pos_weight * y * where(y == 0.0, minimum(above, _LARGE), above)
    return negative + positive


def gradient(x: Any, y: Any, pos_weight: Any) -> Any:
    # (1 - y) sigmoid(x) - w y sigmoid(-x)
    return (1.0 - y) * sigmoid(x) - pos_weight * y * sigmoid(-x)


FORMULA = LossFormula(
    name="bce",
    title="binary cross-entropy (from logits)",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="logit",
    target="probability",
    tasks=("binary",),
    formula="mean of -(w y log p + (1 - y) log(1 - p)), p = sigmoid(x)",
    gradient_formula="(1 - y) p - w y (1 - p), which is p - y where w = 1",
    domain="any logit x, infinities included; y in [0, 1]; w is pos_weight",
    source="Cox 1958, The Regression Analysis of Binary Sequences, J. R. Stat. Soc. B 20; "
    "Bishop 2006, eq. 4.90",
    good_at=(
        "two classes, and probabilities that mean what they say: it is the likelihood of a coin toss",
        "confident mistakes: they keep a full gradient, however far off, and so are unlearned",
    ),
    bad_at=(
        "p near 0 or 1, if computed from p: it rounds, and the gradient is lost; from the logit it is exact",
        "imbalanced classes: the rare class is outvoted, its recall suffers; a pos_weight above 1 lifts it",
        "mislabelled rows: the loss of a confident prediction against a wrong label has no bound",
    ),
    parameters={"pos_weight": 1.0},
    valid={"pos_weight": Interval(0.0, float("inf"))},
    tunable={"pos_weight": TuningRange(0.1, 10.0, "log")},
)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of the binary cross-entropy of ``sigmoid(input)``; see :class:`BCEWithLogitsLoss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    return pointwise_loss(
        FORMULA,
        input,
        target,
        (1.0 if pos_weight is None else pos_weight,),
        weight=weight,
        reduction=reduction,
        **switches,
    )


class BCEWithLogitsLoss(LossModule, nn.BCEWithLogitsLoss):
    """Binary cross-entropy of ``sigmoid(x)``, exact in both tails; drop-in for torch's.

    ``(1 - y) softplus(x) + pos_weight y softplus(-x)``, times ``weight``.

    Args:
        weight: a factor for every element, broadcast against the input.
        size_average, reduce: torch's deprecated forms of ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        pos_weight: a factor for the positive term, broadcast against the input.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input (logits) and target (probabilities, in [0, 1]) alike, any.

    Raises:
        InputError: the shapes differ.

    Numerics: no term cancels, so ``x = -40, y = 0`` gives 4.248354e-18 and ``x = 40, y = 1`` the gradient
    -4.248354e-18, where torch gives 0; an infinite logit on the right side gives 0, not NaN.

    Source: Bishop 2006, eq. 4.90.

    >>> import torch
    >>> print(f"{float(BCEWithLogitsLoss()(torch.tensor([-40.0]), torch.tensor([0.0]))):.7g}")
    4.248354e-18
    """

    formula = FORMULA

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction, pos_weight)
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(
            input,
            target,
            self.weight,
            reduction=self.reduction,
            pos_weight=self.pos_weight,
            **self.switches,
        )
