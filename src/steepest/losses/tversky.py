"""Tversky loss: an overlap in which false positives and false negatives cost differently."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from steepest.losses.dice import Mode, OverlapLoss, overlap_loss
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches

__all__ = ["TverskyLoss", "tversky_loss"]


def value(
    true_positive: Tensor,
    false_positive: Tensor,
    false_negative: Tensor,
    alpha: float,
    beta: float,
    smooth: float,
) -> Tensor:
    # 1 - (TP + smooth) / (TP + alpha FP + beta FN + smooth), without the difference
    wrong = alpha * false_positive + beta * false_negative
    return wrong / (true_positive + wrong + smooth)


FORMULA = LossFormula(
    name="tversky",
    title="Tversky loss (from logits)",
    family="composite",
    value=value,
    gradient=None,
    prediction="logits",
    target="class",
    tasks=(),
    formula="mean over samples and classes of 1 - (TP + s) / (TP + α FP + β FN + s), TP = Σ p y, FP = Σ p (1 - y), "
    "FN = Σ (1 - p) y, the sums over the elements",
    gradient_formula="((α (1 - y) - β y) (1 - L) - y L) / (TP + α FP + β FN + s) by a p, L the loss; "
    "by its logit through p",
    domain="any logits, p their softmax over classes, or sigmoid (mode binary, multilabel); class indices, or shares y "
    "between 0 and 1; α is alpha, β is beta, s is smooth",
    source="Tversky 1977, Features of Similarity, Psychological Review 84; Salehi, Erdogmus and Gholipour 2017, "
    "Tversky Loss Function for Image Segmentation Using 3D Fully Convolutional Deep Networks, eq. 3",
    good_at=(
        "small regions that must not be missed: with β above α a false negative costs more than a false positive",
        "a family in two numbers: α = β = 1/2 is Dice's loss, α = β = 1 one minus the Jaccard index",
    ),
    bad_at=(
        "α and β taken over from elsewhere: they are a choice between precision and recall",
        "smooth training, as dice: weak gradients while nothing overlaps; add cross-entropy",
    ),
    parameters={"alpha": 0.5, "beta": 0.5, "smooth": 1e-5},
    valid={
        "alpha": Interval(0.0, float("inf"), "[)"),
        "beta": Interval(0.0, float("inf"), "[)"),
        "smooth": Interval(0.0, float("inf"), "[)"),
    },
    compared_by_default=False,
)


def tversky_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    alpha: float = 0.5,
    beta: float = 0.5,
    mode: Mode = "multiclass",
    smooth: float = 1e-5,
    batch: bool = False,
    include_background: bool = True,
    ignore_index: int = -100,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over samples and classes of one minus the soft Tversky index; see :class:`TverskyLoss`."""
    return overlap_loss(
        FORMULA,
        input,
        target,
        (alpha, beta, smooth),
        mode=mode,
        batch=batch,
        include_background=include_background,
        ignore_index=ignore_index,
        reduction=reduction,
        switches=switches,
    )


class TverskyLoss(OverlapLoss):
    """One minus the soft Tversky index: ``1 - (TP + smooth) / (TP + alpha FP + beta FN + smooth)``.

    ``TP = sum(p y)``, ``FP = sum(p (1 - y))``, ``FN = sum((1 - p) y)`` over a sample's elements; ``p`` is
    ``softmax(x)`` over classes (mode ``"multiclass"``) or ``sigmoid(x)`` (``"binary"``, ``"multilabel"``), ``y`` the
    target as a share of the class. ``alpha = beta = 0.5`` is the Dice loss with twice the ``smooth``.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``, over samples and classes.
        alpha: the cost of a false positive, 0 or above.
        beta: the cost of a false negative, 0 or above.
        mode: ``"multiclass"``, one class an element; ``"binary"``, one region; ``"multilabel"``, a region a channel.
        smooth: added above and below, 0 or above, in elements; it decides what an empty region costs. At 0 a class
            that is neither predicted nor there, to the last digit, is 0 / 0.
        batch: sum over the whole batch, as over one sample.
        include_background: ``False`` leaves class 0 out (``"multiclass"`` only).
        ignore_index: elements with this target belong to no region.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: multiclass: logits (N, C, d1, ...) and class indices (N, d1, ...), or shares of the logits' shape;
    binary: logits and target alike, (N, d1, ...); multilabel: alike, (N, C, d1, ...). ``"none"`` gives (N, C),
    binary (N,); without N where ``batch`` is set.

    Raises:
        InputError: an unknown mode, shapes that do not belong together, a target outside [0, 1], or a negative
            ``alpha``, ``beta`` or ``smooth``.
        IndexError: a class index out of range.

    Numerics: computed as ``(alpha FP + beta FN) / (TP + alpha FP + beta FN + smooth)`` with ``1 - p`` from the
    logits, so a nearly perfect overlap keeps its digits and its gradient. float32 is summed in float64, bfloat16 and
    float16 in float32.

    Source: Salehi, Erdogmus and Gholipour 2017, eq. 3.

    >>> import torch
    >>> logits = torch.tensor([[[4.0, 4.0, -4.0, -4.0], [-4.0, -4.0, 4.0, 4.0]]])
    >>> loss = TverskyLoss(alpha=0.3, beta=0.7)
    >>> print(f"{float(loss(logits, torch.tensor([[0, 0, 1, 0]]))):.6f}")
    0.245204
    """

    formula = FORMULA

    def __init__(
        self,
        reduction: str = "mean",
        alpha: float = 0.5,
        beta: float = 0.5,
        mode: Mode = "multiclass",
        smooth: float = 1e-5,
        batch: bool = False,
        include_background: bool = True,
        ignore_index: int = -100,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(reduction, mode, batch, include_background, ignore_index, switches)
        self.alpha = alpha
        self.beta = beta
        self.smooth = smooth

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return tversky_loss(
            input,
            target,
            alpha=self.alpha,
            beta=self.beta,
            smooth=self.smooth,
            **self._settings(),
            **self.switches,
        )

    def extra_repr(self) -> str:
        own = f"alpha={self.alpha}, beta={self.beta}, mode={self.mode!r}, smooth={self.smooth}"
        return ", ".join(filter(None, [own, super().extra_repr()]))
