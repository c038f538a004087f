"""Generalized cross-entropy."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.reference import exp
from steepest.losses.apply import softmax_loss
from steepest.losses.base import LossModule
from steepest.losses.focal import complement
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches
from steepest.tuning_range import TuningRange

__all__ = ["GeneralizedCrossEntropyLoss", "generalized_cross_entropy"]


def value(log_p: Any, q: Any) -> Any:
    # (1 - p^q) / q
    return complement(q * log_p) / q


def gradient(log_p: Any, q: Any) -> Any:
    # -p^q
    return -exp(q * log_p)


FORMULA = LossFormula(
    name="generalized_cross_entropy",
    title="generalized cross-entropy",
    family="softmax",
    value=value,
    gradient=gradient,
    prediction="logits",
    target="class",
    tasks=("binary", "multiclass"),
    formula="mean over rows of Σ_c y_c (1 - p_c^q) / q, p = softmax(x)",
    gradient_formula="-p^q, by log p",
    domain="any logits; class indices, one-hot rows or probabilities that sum to 1",
    source="Zhang and Sabuncu 2018, Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy "
    "Labels, NeurIPS, eq. 6",
    good_at=(
        "mislabelled rows: the loss is at most 1/q and a hopeless row's gradient fades; larger q bears more noise",
        "a choice between cross-entropy (q near 0) and the mean absolute error of p (q = 1)",
    ),
    bad_at=(
        "clean labels: a confident mistake is hardly unlearned, for its gradient goes to 0 with p",
        "many classes from a fresh start: p is near 0 for all of them, and so is the gradient",
    ),
    parameters={"q": 0.7},
    valid={"q": Interval(0.0, 1.0, "(]")},
    tunable={"q": TuningRange(0.05, 1.0)},
    compared_by_default=False,
)


def generalized_cross_entropy(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    q: float = 0.7,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over rows of the generalized cross-entropy of ``softmax(input)``.

    See :class:`GeneralizedCrossEntropyLoss`.
    """
    return softmax_loss(
        FORMULA,
        input,
        target,
        (q,),
        weight=weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **switches,
    )


class GeneralizedCrossEntropyLoss(LossModule, nn.Module):
    """A bounded cross-entropy for labels that may be wrong: ``(1 - p**q) / q``.

    ``sum_c w_c t_c (1 - p_c**q) / q``, ``p = softmax(x)``, where ``t`` is the target as a distribution, smoothed by
    ``label_smoothing``. A mean over class indices divides by the sum of the targets' weights, as cross-entropy's.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        q: from cross-entropy (towards 0) to the mean absolute error of ``p`` (1), in (0, 1].
        weight: a factor for every class, shape (C,).
        ignore_index: rows with this class index give no loss and no gradient.
        label_smoothing: the share of every target spread evenly over all classes, in [0, 1].
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: logits (C,), (N, C) or (N, C, d1, ...); targets are integers of any width without the class
    dimension, or floating probabilities (one-hot included) of the logits' shape.

    Raises:
        InputError: shapes that do not belong together, a weight of another length, or ``q`` outside (0, 1].
        IndexError: a class index out of range.

    Numerics: ``-expm1(q log p) / q``, so a sure row and a small ``q`` lose no digits. In float64 ``p**q`` is as good
    as ``log p``: its relative error grows as ``q |log p|``.

    Source: Zhang and Sabuncu 2018, eq. 6.

    >>> import torch
    >>> print(f"{float(GeneralizedCrossEntropyLoss()(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))):.6f}")
    0.220538
    """

    formula = FORMULA

    def __init__(
        self,
        reduction: str = "mean",
        q: float = 0.7,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.q = q
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self._set_switches(switches)

    weight: Tensor | None

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return generalized_cross_entropy(
            input,
            target,
            self.reduction,
            self.q,
            self.weight,
            self.ignore_index,
            self.label_smoothing,
            **self.switches,
        )

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"q={self.q}", super().extra_repr()]))
