"""Focal loss over classes."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.reference import exp, expm1, maximum, minimum, power, where
from steepest.losses.apply import softmax_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches
from steepest.tuning_range import TuningRange

__all__ = ["FocalLoss", "focal_loss"]

_CLOSE = 1e-18  # below it -log p and 1 - p are one number
_FAR = 800.0  # above it 1 - p is 1, and no longer moves
_LARGE = 3e38  # finite in float32 too
_LEAST = 5e-324


def complement(log_p: Any) -> Any:
    """``1 - p`` where ``log p <= 0``, and in its derivative ``-p``, with every digit at both ends."""
    return where(log_p <= -1.0, 1.0 - exp(log_p), -expm1(maximum(log_p, -1.0)))


def focused(miss: Any, loss: Any, gamma: Any) -> Any:
    """``miss**gamma * loss`` for ``miss = 1 - exp(-loss)``, with finite derivatives where ``miss**gamma`` has none."""
    close = (loss > 0.0) & (loss <= _CLOSE)
    inside = power(where(close, loss, 1.0), gamma + 1.0)
    outside = power(where((loss > _CLOSE) & (loss < _FAR), miss, 1.0), gamma) * loss
    return where(close, inside, outside)


def value(log_p: Any, gamma: Any) -> Any:
    # -(1 - p)^gamma log p
    return focused(complement(log_p), -log_p, gamma)


def gradient(log_p: Any, gamma: Any) -> Any:
    # -(1 - p)^gamma (1 + gamma p (-log p) / (1 - p)): both terms of one sign, and the quotient goes to 1 with p
    miss = -expm1(log_p)
    quotient = minimum(-log_p, _LARGE) / maximum(miss, _LEAST)
    return -power(miss, gamma) * (1.0 + gamma * exp(log_p) * quotient)


FORMULA = LossFormula(
    name="focal",
    title="focal loss",
    family="softmax",
    value=value,
    gradient=gradient,
    prediction="logits",
    target="class",
    tasks=("binary", "multiclass"),
    formula="mean over rows of -Σ_c y_c (1 - p_c)^γ log p_c, p = softmax(x)",
    gradient_formula="-(1 - p)^γ (1 - γ p log p / (1 - p)), by log p",
    domain="any logits; class indices, one-hot rows or probabilities that sum to 1; γ is gamma",
    source="Lin, Goyal, Girshick, He and Dollár 2017, Focal Loss for Dense Object Detection, ICCV, eq. 4",
    good_at=(
        "many easy rows beside few hard ones: what is already right with p = 0.9 counts a hundredth at γ = 2",
        "overconfidence: the gradient fades before p reaches 1, and networks come out better calibrated",
    ),
    bad_at=(
        "mislabelled rows: they are the hard ones, and get the weight",
        "probabilities at face value: it is no proper score, and its optimum leans away from 0 and 1",
        "early training: gradients of all but the wrong rows are small; a larger rate is wanted than for γ = 0",
    ),
    parameters={"gamma": 2.0},
    valid={"gamma": Interval(0.0, float("inf"), "[)")},
    tunable={"gamma": TuningRange(0.0, 5.0)},
    compared_by_default=False,
)


def focal_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    gamma: float = 2.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over rows of the focal loss of ``softmax(input)``; see :class:`FocalLoss`."""
    return softmax_loss(
        FORMULA,
        input,
        target,
        (gamma,),
        weight=weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **switches,
    )


class FocalLoss(LossModule, nn.Module):
    """Cross-entropy in which a row counts the less, the surer its class is: ``-(1 - p)**gamma * log(p)``.

    ``-sum_c w_c q_c (1 - p_c)**gamma log p_c``, ``p = softmax(x)``, where ``q`` is the target as a distribution,
    smoothed by ``label_smoothing``. A mean over class indices divides by the sum of the targets' weights, as
    cross-entropy's does.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        gamma: how fast an easy row fades, 0 or above; 0 is cross-entropy.
        weight: a factor for every class, shape (C,); the paper's alpha.
        ignore_index: rows with this class index give no loss and no gradient.
        label_smoothing: the share of every target spread evenly over all classes, in [0, 1].
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: logits (C,), (N, C) or (N, C, d1, ...); targets are integers of any width without the class
    dimension, or floating probabilities (one-hot included) of the logits' shape.

    Raises:
        InputError: shapes that do not belong together, a weight of another length, or a negative ``gamma``.
        IndexError: a class index out of range.

    Numerics: ``1 - p`` is taken from the logits, never from a rounded ``p``, so the loss is exact in both tails, and
    value and gradient are finite for every ``gamma``, those below 1 at ``p = 1`` included. In float64 a power
    multiplies the error of ``1 - p`` by ``gamma``.

    Source: Lin et al. 2017, eq. 4.

    >>> import torch
    >>> print(f"{float(FocalLoss()(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))):.6f}")
    0.010869
    """

    formula = FORMULA

    def __init__(
        self,
        reduction: str = "mean",
        gamma: float = 2.0,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.gamma = gamma
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self._set_switches(switches)

    weight: Tensor | None

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return focal_loss(
            input,
            target,
            self.reduction,
            self.gamma,
            self.weight,
            self.ignore_index,
            self.label_smoothing,
            **self.switches,
        )

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"gamma={self.gamma}", super().extra_repr()]))
