"""Class-balanced cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor, nn

from steepest.errors import InputError
from steepest.losses.apply import softmax_loss
from steepest.losses.base import LossModule
from steepest.losses.cross_entropy import FORMULA as CROSS_ENTROPY
from steepest.losses.formula import Interval
from steepest.losses.switches import Switches

__all__ = ["ClassBalancedCrossEntropyLoss", "class_balanced_cross_entropy", "class_balanced_weights"]

_BETA = Interval(0.0, 1.0, "[)")


def class_balanced_weights(class_counts: Tensor | Sequence[float], beta: float = 0.999) -> Tensor:
    """Each class's weight, ``(1 - beta) / (1 - beta**n)`` scaled to sum to the number of classes, in float64.

    >>> print([f"{weight:.6f}" for weight in class_balanced_weights([1000, 100, 10]).tolist()])
    ['0.042160', '0.280000', '2.677839']
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    if counts.dim() != 1 or not bool(((counts > 0) & torch.isfinite(counts)).all()):
        raise InputError(
            f"class_balanced: class_counts are {counts.tolist()}; give every class its number of rows, above 0 "
            "(a class without rows has no weight: leave it out, or add a pseudo-count)."
        )
    if not _BETA.holds(beta):
        raise InputError(f"class_balanced: beta is {beta}; it must lie in {_BETA}.")
    # 1 - beta**n = -expm1(n log beta), which keeps its digits where beta is close to 1; 1 - beta is common to all.
    left = -torch.expm1(counts * (math.log(beta) if beta > 0 else -math.inf))
    weights = 1.0 / left
    return weights * (len(weights) / weights.sum())


def _class_terms(class_counts: Tensor) -> tuple[Tensor, Tensor]:
    """Weights with beta = (N - 1) / N of all N rows, scaled to a mean of 1 over the rows; no offsets."""
    num_rows = class_counts.sum()
    weights = class_balanced_weights(class_counts, float((num_rows - 1) / num_rows))
    return weights * (num_rows / (class_counts * weights).sum()), torch.zeros_like(weights)


FORMULA = replace(
    CROSS_ENTROPY,
    name="class_balanced",
    title="class-balanced cross-entropy",
    tasks=("binary", "multiclass"),
    formula="mean over rows of -Σ_c w_c y_c log p_c, w_c in proportion to (1 - β) / (1 - β^n_c), Σ_c w_c = C, "
    "p = softmax(x); of class indices the sum divided by that of the rows' w_y",
    gradient_formula="p_c Σ_k w_k y_k - w_c y_c, by the logit x_c",
    domain="any logits; class indices, one-hot rows or probabilities that sum to 1; n_c rows of class c of C; "
    "β is beta",
    source="Cui, Jia, Lin, Song and Belongie 2019, Class-Balanced Loss Based on Effective Number of Samples, CVPR, "
    "proposition 1 and section 4",
    good_at=(
        "rare classes, with a milder hand than inverse counts: beyond 1 / (1 - β) rows more of them add little",
    ),
    bad_at=(
        "very rare classes: few rows carry large weights, and their noise with them",
        "probabilities at face value: the weights shift them towards the rare classes",
    ),
    compared_by_default=False,
    class_terms=_class_terms,
)


def class_balanced_cross_entropy(
    input: Tensor,
    target: Tensor,
    class_counts: Tensor | Sequence[float],
    beta: float = 0.999,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over rows of the cross-entropy of ``softmax(input)``, its classes weighed by effective number.

    See :class:`ClassBalancedCrossEntropyLoss`.
    """
    return softmax_loss(
        FORMULA,
        input,
        target,
        weight=class_balanced_weights(class_counts, beta),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **switches,
    )


class ClassBalancedCrossEntropyLoss(LossModule, nn.Module):
    """Cross-entropy with each class weighed by the inverse of its effective number of rows.

    ``-sum_c w_c q_c log softmax(x)_c`` with ``w_c`` in proportion to ``(1 - beta) / (1 - beta**n_c)``, scaled to sum
    to the number of classes; ``q`` is the target as a distribution, smoothed by ``label_smoothing``. A mean over
    class indices divides by the sum of the targets' weights, as cross-entropy's does.

    Args:
        class_counts: each class's number of training rows, shape (C,), above 0.
        beta: from equal weights (0) to inverse counts (towards 1), in [0, 1); the paper has 0.9 to 0.9999.
        ignore_index: rows with this class index give no loss and no gradient.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: the share of every target spread evenly over all classes, in [0, 1].
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: logits (C,), (N, C) or (N, C, d1, ...); targets are integers of any width without the class
    dimension, or floating probabilities (one-hot included) of the logits' shape.

    Raises:
        InputError: shapes that do not belong together, another number of counts than of classes, a count that is
            not positive, or ``beta`` outside [0, 1).
        IndexError: a class index out of range.

    Numerics: ``1 - beta**n`` is ``-expm1(n log(beta))``, exact for ``beta`` close to 1; else as cross-entropy. The
    weights are float64, rounded to the logits' type where they are used.

    Source: Cui et al. 2019, proposition 1 and section 4.

    >>> import torch
    >>> loss = ClassBalancedCrossEntropyLoss([1000, 10], reduction="none")
    >>> print([f"{number:.6f}" for number in loss(torch.zeros(2, 2), torch.tensor([0, 1])).tolist()])
    ['0.021488', '1.364807']
    """

    formula = FORMULA
    weight: Tensor

    def __init__(
        self,
        class_counts: Tensor | Sequence[float],
        beta: float = 0.999,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__()
        self.register_buffer("weight", class_balanced_weights(class_counts, beta))
        self.beta = beta
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return softmax_loss(
            FORMULA,
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
            **self.switches,
        )

    def extra_repr(self) -> str:
        own = f"classes={self.weight.numel()}, beta={self.beta}"
        return ", ".join(filter(None, [own, super().extra_repr()]))
