"""Logit-adjusted cross-entropy."""

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
from steepest.losses.checks import check_tensors
from steepest.losses.cross_entropy import FORMULA as CROSS_ENTROPY
from steepest.losses.formula import Interval
from steepest.losses.switches import Switches

__all__ = ["LogitAdjustedCrossEntropyLoss", "logit_adjusted_cross_entropy"]

_TAU = Interval(0.0, math.inf, "[)")


def _offset(class_priors: Tensor | Sequence[float], tau: float) -> Tensor:
    """``tau log pi`` in float64, of priors or of counts."""
    priors = torch.as_tensor(class_priors, dtype=torch.float64)
    if priors.dim() != 1 or not bool(((priors > 0) & torch.isfinite(priors)).all()):
        raise InputError(
            f"logit_adjusted: class_priors are {priors.tolist()}; give every class one positive number, its share "
            "of the rows or their count (add a pseudo-count to a class without rows)."
        )
    if not _TAU.holds(tau):
        raise InputError(f"logit_adjusted: tau is {tau}; it must lie in {_TAU}.")
    return tau * torch.log(priors / priors.sum())


def _class_terms(class_counts: Tensor) -> tuple[Tensor, Tensor]:
    """No weights; the offsets of tau = 1."""
    offset = _offset(class_counts, 1.0)
    return torch.ones_like(offset), offset


FORMULA = replace(
    CROSS_ENTROPY,
    name="logit_adjusted",
    title="logit-adjusted cross-entropy",
    tasks=("binary", "multiclass"),
    formula="mean over rows of -Σ_c y_c log p_c, p = softmax(x + τ log π), π the classes' shares of the rows",
    domain="any logits; class indices, one-hot rows or probabilities that sum to 1; π above 0; τ is tau",
    source="Menon et al. 2021, Long-tail Learning via Logit Adjustment, ICLR, eq. 10",
    good_at=(
        "rare classes: at τ = 1 the logits are those of a balanced table, so the highest one errs least by class",
        "one number to tune, and none at τ = 1, which is consistent for the balanced error",
    ),
    bad_at=(
        "the table's own proportions: where they hold in use too, plain cross-entropy is right more often",
        "softmax(x) as a probability: it is that of balanced classes; add τ log π to come back",
    ),
    compared_by_default=False,
    class_terms=_class_terms,
)


def _loss(
    input: Tensor,
    target: Tensor,
    offset: Tensor,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    switches: Switches,
) -> Tensor:
    check_tensors(FORMULA.name, input, target)
    classes = input.shape[min(1, input.dim() - 1)] if input.dim() else None
    if classes not in (None, offset.numel()):
        raise InputError(
            f"logit_adjusted: there are {offset.numel()} class_priors, and logits of {classes} classes; "
            "there must be one a class."
        )
    return softmax_loss(
        FORMULA,
        input,
        target,
        offset=offset.to(input.device),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **switches,
    )


def logit_adjusted_cross_entropy(
    input: Tensor,
    target: Tensor,
    class_priors: Tensor | Sequence[float],
    tau: float = 1.0,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over rows of the cross-entropy of ``softmax(input + tau * log(class_priors))``.

    See :class:`LogitAdjustedCrossEntropyLoss`.
    """
    offset = _offset(class_priors, tau)
    return _loss(input, target, offset, ignore_index, reduction, label_smoothing, switches)


class LogitAdjustedCrossEntropyLoss(LossModule, nn.Module):
    """Cross-entropy of logits raised by ``tau`` times their class's log-frequency, for classes of unequal size.

    ``-sum_c q_c log softmax(x + tau log pi)_c``, where ``pi`` is each class's share of the training rows and ``q``
    the target as a distribution, smoothed by ``label_smoothing``. A model trained so predicts from its bare logits.

    Args:
        class_priors: each class's share of the training rows, shape (C,), above 0; counts will do, for only their
            proportions matter.
        tau: how much of the imbalance is taken out, 0 or above; 0 is cross-entropy.
        ignore_index: rows with this class index give no loss and no gradient.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: the share of every target spread evenly over all classes, in [0, 1].
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: logits (C,), (N, C) or (N, C, d1, ...); targets are integers of any width without the class
    dimension, or floating probabilities (one-hot included) of the logits' shape.

    Raises:
        InputError: shapes that do not belong together, another number of priors than of classes, a prior that is
            not positive, or a negative ``tau``.
        IndexError: a class index out of range.

    Numerics: the offset is kept in float64 and added in the type the loss is computed in; else as cross-entropy.

    Source: Menon et al. 2021, eq. 10.

    >>> import torch
    >>> loss = LogitAdjustedCrossEntropyLoss([90, 10])
    >>> print([f"{float(loss(torch.zeros(1, 2), torch.tensor([c]))):.6f}" for c in (0, 1)])
    ['0.105361', '2.302585']
    """

    formula = FORMULA
    offset: Tensor

    def __init__(
        self,
        class_priors: Tensor | Sequence[float],
        tau: float = 1.0,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__()
        self.register_buffer("offset", _offset(class_priors, tau))
        self.tau = tau
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return _loss(
            input,
            target,
            self.offset,
            self.ignore_index,
            self.reduction,
            self.label_smoothing,
            self.switches,
        )

    def extra_repr(self) -> str:
        own = f"classes={self.offset.numel()}, tau={self.tau}"
        return ", ".join(filter(None, [own, super().extra_repr()]))
