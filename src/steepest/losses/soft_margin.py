"""Soft margin loss: the logistic loss of a margin."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn
from torch.nn import _reduction

from steepest.backends.reference import sigmoid, softplus
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches

__all__ = ["SoftMarginLoss", "soft_margin_loss"]


def value(x: Any, y: Any) -> Any:
    # log(1 + e^(-y x))
    return softplus(-y * x)


def gradient(x: Any, y: Any) -> Any:
    # -y sigmoid(-y x)
    return -y * sigmoid(-y * x)


FORMULA = LossFormula(
    name="soft_margin",
    title="soft margin loss",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="margin",
    target="sign",
    tasks=(),
    formula="mean of log(1 + exp(-y x))",
    gradient_formula="-y sigmoid(-y x)",
    domain="any x, infinities included; y is -1 or 1",
    source="Hastie, Tibshirani and Friedman 2009, The Elements of Statistical Learning, 2nd ed., table 12.1",
    good_at=(
        "two classes named -1 and 1; it is binary cross-entropy, and sigmoid(x) is the probability of 1",
    ),
    bad_at=("mislabelled rows: the loss of a confident prediction against a wrong label has no bound",),
    compared_by_default=False,  # bce, its classes renamed
)


def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of ``log(1 + exp(-target * input))``; see :class:`SoftMarginLoss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    return pointwise_loss(FORMULA, input, target, reduction=reduction, **switches)


class SoftMarginLoss(LossModule, nn.SoftMarginLoss):
    """Logistic loss of the margin ``y x``, exact in both tails; drop-in for :class:`torch.nn.SoftMarginLoss`.

    ``log(1 + exp(-y x))``.

    Args:
        size_average, reduce: torch's deprecated forms of ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target (-1 or 1) alike, any.

    Raises:
        InputError: the shapes differ.

    Numerics: ``x = -1000, y = 1`` gives 1000 and ``x = -inf`` the gradient -1, where torch gives infinity and NaN.

    Source: Hastie, Tibshirani and Friedman 2009, table 12.1.

    >>> import torch
    >>> print(f"{float(SoftMarginLoss()(torch.tensor([40.0]), torch.tensor([1.0]))):.6e}")
    4.248354e-18
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
        return soft_margin_loss(input, target, reduction=self.reduction, **self.switches)
