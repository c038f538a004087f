"""Cross-entropy over classes."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn
from torch.nn import _reduction

from steepest.losses.apply import softmax_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches

__all__ = ["CrossEntropyLoss", "cross_entropy"]


def value(log_p: Any) -> Any:
    # -log p
    return -log_p


def gradient(log_p: Any) -> Any:
    # the derivative of -log p with respect to log p
    return -1.0


FORMULA = LossFormula(
    name="cross_entropy",
    title="cross-entropy",
    family="softmax",
    value=value,
    gradient=gradient,
    prediction="logits",
    target="class",
    tasks=("binary", "multiclass"),
    formula="mean over rows of -Σ_c y_c log p_c, p = softmax(x)",
    gradient_formula="p_c - y_c, by the logit x_c",
    domain="any logits; class indices, one-hot rows or probabilities that sum to 1",
    source="Bridle 1990, Probabilistic Interpretation of Feedforward Classification Network Outputs, eq. 3; "
    "Bishop 2006, eq. 4.108",
    good_at=(
        "several classes, and probabilities that mean what they say",
        "confident mistakes: they keep a full gradient, however far off, and so are unlearned",
    ),
    bad_at=(
        "p near 0 or 1, if computed from p: it rounds, and the gradient is lost; from the logits it is exact",
        "imbalanced classes: rare ones are outvoted; weigh the classes (weight) or rank by a balanced metric",
        "mislabelled rows: the loss against a confident, wrong label has no bound; label_smoothing helps",
    ),
)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over rows of the cross-entropy of ``softmax(input)``; see :class:`CrossEntropyLoss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    return softmax_loss(
        FORMULA,
        input,
        target,
        weight=weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **switches,
    )


class CrossEntropyLoss(LossModule, nn.CrossEntropyLoss):
    """Cross-entropy of ``softmax(x)``, exact in both tails; drop-in for :class:`torch.nn.CrossEntropyLoss`.

    ``-sum_c w_c q_c log softmax(x)_c``, where ``q`` is the target as a distribution, smoothed by
    ``label_smoothing``. A mean over class indices divides by the sum of the targets' weights.

    Args:
        weight: a factor for every class, shape (C,).
        size_average, reduce: torch's deprecated forms of ``reduction``.
        ignore_index: rows with this class index give no loss and no gradient.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: the share of every target spread evenly over all classes, in [0, 1].
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: logits (C,), (N, C) or (N, C, d1, ...); targets are integers of any width without the class
    dimension, or floating probabilities (one-hot included) of the logits' shape.

    Raises:
        InputError: shapes that do not belong together, or a weight of another length.
        IndexError: a class index out of range.

    Numerics: logits (30, 0, 0) and target 0 give 1.871524e-13 and the same, negative, as the true class's
    gradient, where torch gives 0 in float32. The mean over no kept row is NaN, as torch's.

    Source: Bridle 1990, eq. 3; Bishop 2006, eq. 4.108.

    >>> import torch
    >>> print(f"{float(CrossEntropyLoss()(torch.tensor([[30.0, 0.0, 0.0]]), torch.tensor([0]))):.6e}")
    1.871525e-13
    """

    formula = FORMULA

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            **self.switches,
        )
