"""Poly-1 cross-entropy."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.reference import exp, expm1, minimum, where
from steepest.losses.apply import softmax_loss
from steepest.losses.base import LossModule
from steepest.losses.focal import complement
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches
from steepest.tuning_range import TuningRange

__all__ = ["PolyCrossEntropyLoss", "poly_cross_entropy"]


def _excess(loss: Any) -> Any:
    """``loss - (1 - exp(-loss))`` in [0, 1/2], where the difference would cancel: its series."""
    series = 1.0
    for k in range(16, 2, -1):
        series = 1.0 - loss / k * series
    return 0.5 * loss * loss * series


def value(log_p: Any, epsilon: Any) -> Any:
    # -log p + epsilon (1 - p); a negative epsilon takes the leading part of -log p away near p = 1
    loss = -log_p
    cancels = (epsilon * loss < 0.0) & (loss < 0.5)
    apart = (1.0 + epsilon) * loss - epsilon * _excess(minimum(loss, 0.5))
    return where(cancels, apart, loss + epsilon * complement(log_p))


def gradient(log_p: Any, epsilon: Any) -> Any:
    # -(1 + epsilon p), for a negative epsilon as -(1 + epsilon - epsilon (1 - p)): terms of one sign
    p = exp(log_p)
    return -where(epsilon * p < 0.0, (1.0 + epsilon) + epsilon * expm1(log_p), 1.0 + epsilon * p)


FORMULA = LossFormula(
    name="poly_cross_entropy",
    title="Poly-1 cross-entropy",
    family="softmax",
    value=value,
    gradient=gradient,
    prediction="logits",
    target="class",
    tasks=("binary", "multiclass"),
    formula="mean over rows of Σ_c y_c (-log p_c + ε (1 - p_c)), p = softmax(x)",
    gradient_formula="-(1 + ε p), by log p",
    domain="any logits; class indices, one-hot rows or probabilities that sum to 1; ε is epsilon",
    source="Leng et al. 2022, PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions, ICLR, "
    "section 4.3",
    good_at=(
        "a small gain over cross-entropy for one number to tune: ε weighs rows that are nearly right",
        "both ways of imbalance: a positive ε makes predictions surer, a negative one less so",
    ),
    bad_at=(
        "an ε taken over from another task: its best value, and even its sign, is the data's own",
        "mislabelled rows: it is as unbounded as cross-entropy",
    ),
    parameters={"epsilon": 1.0},
    valid={"epsilon": Interval(-1.0, float("inf"), "[)")},
    tunable={"epsilon": TuningRange(-1.0, 5.0)},
    compared_by_default=False,
)


def poly_cross_entropy(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    epsilon: float = 1.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over rows of the Poly-1 loss of ``softmax(input)``; see :class:`PolyCrossEntropyLoss`."""
    return softmax_loss(
        FORMULA,
        input,
        target,
        (epsilon,),
        weight=weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **switches,
    )


class PolyCrossEntropyLoss(LossModule, nn.Module):
    """Cross-entropy with the first term of its series in ``1 - p`` weighed anew: ``-log(p) + epsilon (1 - p)``.

    ``sum_c w_c q_c (-log p_c + epsilon (1 - p_c))``, ``p = softmax(x)``, where ``q`` is the target as a
    distribution, smoothed by ``label_smoothing``. A mean over class indices divides by the sum of the targets'
    weights, as cross-entropy's does.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        epsilon: what is added to the leading coefficient, 1; -1 or above. 0 is cross-entropy.
        weight: a factor for every class, shape (C,).
        ignore_index: rows with this class index give no loss and no gradient.
        label_smoothing: the share of every target spread evenly over all classes, in [0, 1].
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: logits (C,), (N, C) or (N, C, d1, ...); targets are integers of any width without the class
    dimension, or floating probabilities (one-hot included) of the logits' shape.

    Raises:
        InputError: shapes that do not belong together, a weight of another length, or ``epsilon`` below -1.
        IndexError: a class index out of range.

    Numerics: exact in both tails; with ``epsilon = -1`` what is left near ``p = 1``, ``(1 - p)**2 / 2``, comes from
    its series, not from the difference of two nearly equal numbers.

    Source: Leng et al. 2022, section 4.3.

    >>> import torch
    >>> print(f"{float(PolyCrossEntropyLoss()(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))):.6f}")
    0.452559
    """

    formula = FORMULA

    def __init__(
        self,
        reduction: str = "mean",
        epsilon: float = 1.0,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.epsilon = epsilon
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self._set_switches(switches)

    weight: Tensor | None

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return poly_cross_entropy(
            input,
            target,
            self.reduction,
            self.epsilon,
            self.weight,
            self.ignore_index,
            self.label_smoothing,
            **self.switches,
        )

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"epsilon={self.epsilon}", super().extra_repr()]))
