"""What a mean divides by, for means over several micro-batches or machines that share a step."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from steepest.errors import InputError
from steepest.losses.kernels import SoftmaxSettings, softmax_divisor

__all__ = ["denominator"]

_BY_ELEMENT = ("gaussian_nll", "margin_ranking", "cosine_embedding")  # of the target
_BY_ROW = ("multi_margin", "multilabel_soft_margin")
_BY_CLASS = ("nll", "linear_cross_entropy")


def denominator(loss: Any, target: Tensor) -> float:
    """What the mean of a loss over these targets divides by: elements, kept rows, or the sum of their weights.

    A mean over several parts is none of the parts' means: parts of unlike size, weights and ignored rows all get in the
    way. It is the sum over all parts, divided by the sum of their denominators; the switch ``normalizer`` takes that.

    Args:
        loss: one of this package's loss modules, with ``reduction="mean"`` (or the KL divergence's ``"batchmean"``).
        target: a part's targets, as the loss takes them.

    Returns:
        The denominator, 0 where no row is kept.

    Raises:
        InputError: the loss is not a sum over rows (Dice, Tversky), has no targets (triplets), or reduces otherwise.

    >>> import torch
    >>> from steepest.losses import CrossEntropyLoss
    >>> denominator(CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])), torch.tensor([0, 1, 1, -100]))
    7.0
    """
    formula = loss.formula
    name, reduction = formula.name, loss.reduction
    if reduction == "batchmean":
        return float(len(target))
    if reduction != "mean":
        raise InputError(
            f"{name}: reduction is {reduction!r}, which divides by nothing; use reduction='mean'."
        )
    if formula.family == "softmax" or name in _BY_CLASS:
        ignored = getattr(loss, "ignore_index", None)
        settings = SoftmaxSettings(
            weight=getattr(loss, "weight", None), ignore_index=-100 if ignored is None else ignored
        )
        classes = 1
        if target.is_floating_point():  # probabilities
            classes = target.shape[1] if target.dim() > 1 else target.shape[0]
        return float(softmax_divisor(target, settings, target.numel() // classes))
    if formula.family == "pointwise" or name in _BY_ELEMENT:
        return float(target.numel())
    if name == "multilabel_margin":  # a row's list has a place for each class
        return float(target.numel() // target.shape[-1] if target.dim() else 1)
    if name == "ctc":
        if target.dim() != 2:  # one row may be one sequence or several
            raise InputError(
                f"{name}: targets in one row do not tell how many there are; give normalizer= their number."
            )
        return float(len(target))
    if formula.target == "none":
        raise InputError(f"{name}: it has no targets to count; give normalizer= the number of values.")
    if name in _BY_ROW:
        return float(len(target) if target.dim() else 1)
    raise InputError(
        f"{name}: its mean is over regions of a whole batch and no sum over rows; it cannot be put together from parts."
    )
