"""Dice loss: how little a predicted and a true region overlap."""

from __future__ import annotations

from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from steepest.backends.reference_losses import _log_softmax
from steepest.errors import InputError
from steepest.losses.apply import composite_loss
from steepest.losses.base import LossModule
from steepest.losses.binary_focal import probability
from steepest.losses.checks import check_classes, check_parameters, check_tensors, is_concrete, same_shape
from steepest.losses.focal import complement
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches

__all__ = ["DiceLoss", "dice_loss"]

Mode = Literal["binary", "multiclass", "multilabel"]


def value(true_positive: Tensor, false_positive: Tensor, false_negative: Tensor, smooth: float) -> Tensor:
    # 1 - (2 TP + smooth) / (2 TP + FP + FN + smooth), without the difference
    wrong = false_positive + false_negative
    return wrong / (2.0 * true_positive + wrong + smooth)


FORMULA = LossFormula(
    name="dice",
    title="Dice loss (from logits)",
    family="composite",
    value=value,
    gradient=None,
    prediction="logits",
    target="class",
    tasks=(),
    formula="mean over samples and classes of 1 - (2 Σ p y + s) / (Σ p + Σ y + s), the sums over the elements",
    gradient_formula="(1 - 2 y - L) / (Σ p + Σ y + s) by a p, L the loss; by its logit through p",
    domain="any logits, p their softmax over classes, or sigmoid (mode binary, multilabel); class indices, or shares y "
    "between 0 and 1; s is smooth",
    source="Dice 1945, Measures of the Amount of Ecologic Association Between Species, Ecology 26; Sudre et al. 2017, "
    "Generalised Dice Overlap as a Deep Learning Loss Function, section 2",
    good_at=(
        "small regions before a large background: a class counts by its overlap, not by its number of pixels",
        "training on what segmentation is judged by: it is the soft form of the Dice score (F1)",
    ),
    bad_at=(
        "samples without the class: the loss jumps from 0 to nearly 1 with a few wrong pixels; raise smooth",
        "smooth training: one gradient for all pixels, weak while nothing overlaps; add cross-entropy",
        "probabilities at face value: predictions come out close to 0 or 1",
    ),
    parameters={"smooth": 1e-5},
    valid={"smooth": Interval(0.0, float("inf"), "[)")},
    compared_by_default=False,
)


def overlap_loss(
    formula: LossFormula,
    input: Tensor,
    target: Tensor,
    parameters: tuple[float, ...],
    *,
    mode: Mode,
    batch: bool,
    include_background: bool,
    ignore_index: int,
    reduction: str,
    switches: Switches,
) -> Tensor:
    """``reduction`` of a formula of the true positives, false positives and false negatives of each region.

    Raises:
        InputError: an unknown mode, shapes that do not belong together, targets or a parameter out of range.
    """
    check_parameters(formula, parameters)
    input, target = _checked(formula.name, input, target, mode, ignore_index, switches)
    if not include_background and mode != "multiclass":
        raise InputError(
            f"{formula.name}: include_background=False leaves class 0 out, which {mode} mode has not."
        )
    counts = _of_classes if mode == "multiclass" else _of_labels

    def compute(logits: Tensor, truth: Tensor) -> Tensor:
        parts = counts(logits, truth, ignore_index)
        regions = [_summed(part, mode, batch)[..., 0 if include_background else 1 :] for part in parts]
        values: Tensor = formula.value(*regions, *parameters)
        return values.squeeze(-1) if mode == "binary" else values

    return composite_loss(formula, compute, (input, target), reduction=reduction, **switches)


def _of_classes(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, ...]:
    """True positives, false positives and false negatives of each element and class, by softmax."""
    if target.is_floating_point():
        share = target
    else:
        index = target.to(torch.int64)
        kept = index != ignore_index
        classes = torch.arange(logits.shape[1], device=logits.device).reshape([-1] + [1] * (logits.dim() - 2))
        share = (index.unsqueeze(1) == classes).to(logits.dtype)
        logits = torch.where(kept.unsqueeze(1), logits, torch.zeros_like(logits))
    log_p = _log_softmax(logits, 1)
    terms = _terms(torch.exp(log_p), complement(log_p), share)
    if target.is_floating_point():
        return terms
    return tuple(torch.where(kept.unsqueeze(1), term, torch.zeros_like(term)) for term in terms)


def _of_labels(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, ...]:
    """The same of labels that do not exclude each other, by sigmoid."""
    share = target.to(logits.dtype)
    kept = share != ignore_index
    logits = torch.where(kept, logits, torch.zeros_like(logits))
    terms = _terms(probability(logits), probability(-logits), share)
    return tuple(torch.where(kept, term, torch.zeros_like(term)) for term in terms)


def _terms(p: Tensor, not_p: Tensor, share: Tensor) -> tuple[Tensor, ...]:
    return p * share, p * (1.0 - share), not_p * share


def _summed(terms: Tensor, mode: Mode, batch: bool) -> Tensor:
    """Over a sample's elements, or the batch's; the last dimension is the class, one in binary mode."""
    by_class = terms.unsqueeze(1) if mode == "binary" else terms.unsqueeze(-1)
    sums = by_class.flatten(2).sum(-1)
    return sums.sum(0) if batch else sums


def _checked(
    name: str, input: Tensor, target: Tensor, mode: Mode, ignore_index: int, switches: Switches
) -> tuple[Tensor, Tensor]:
    if mode not in ("binary", "multiclass", "multilabel"):
        raise InputError(f"{name}: mode is {mode!r}; choose binary, multiclass or multilabel.")
    check_tensors(name, input, target)
    if input.dim() < 2:
        shape = "(N, d1, ...)" if mode == "binary" else "(N, C, d1, ...)"
        raise InputError(
            f"{name}: the logits have shape {tuple(input.shape)}; {mode} mode needs {shape} "
            "(input.unsqueeze(0) makes one sample a batch)."
        )
    if mode == "multiclass":
        check_classes(name, input, target, None, ignore_index, 0.0)
        return input, target
    input, target = same_shape(name, input, target, switches.get("strict_shape", True))
    if target.numel() and target.device.type == "cpu" and is_concrete(target):
        share = target.double()
        outside = share[(share != ignore_index) & ~((share >= 0) & (share <= 1))]
        if outside.numel():
            raise InputError(
                f"{name}: there is a target of {float(outside[0]):g}; in {mode} mode they lie between 0 and 1 "
                f"(or are ignore_index={ignore_index})."
            )
    return input, target


def dice_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    mode: Mode = "multiclass",
    smooth: float = 1e-5,
    batch: bool = False,
    include_background: bool = True,
    ignore_index: int = -100,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over samples and classes of one minus the soft Dice score; see :class:`DiceLoss`."""
    return overlap_loss(
        FORMULA,
        input,
        target,
        (smooth,),
        mode=mode,
        batch=batch,
        include_background=include_background,
        ignore_index=ignore_index,
        reduction=reduction,
        switches=switches,
    )


class OverlapLoss(LossModule, nn.Module):
    """What the losses of an overlap share: how regions are read from logits and targets."""

    def __init__(
        self,
        reduction: str,
        mode: Mode,
        batch: bool,
        include_background: bool,
        ignore_index: int,
        switches: Switches,
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.mode: Mode = mode
        self.batch = batch
        self.include_background = include_background
        self.ignore_index = ignore_index
        self._set_switches(switches)

    def _settings(self) -> dict[str, Any]:
        words = ("reduction", "mode", "batch", "include_background", "ignore_index")
        return {word: getattr(self, word) for word in words}


class DiceLoss(OverlapLoss):
    """One minus the soft Dice score of each class: ``1 - (2 sum(p y) + smooth) / (sum(p) + sum(y) + smooth)``.

    ``p`` is ``softmax(x)`` over classes (mode ``"multiclass"``) or ``sigmoid(x)`` (``"binary"``, ``"multilabel"``),
    ``y`` the target as a share of the class; the sums run over a sample's elements.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``, over samples and classes.
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
            ``smooth``.
        IndexError: a class index out of range.

    Numerics: computed as ``(FP + FN) / (2 TP + FP + FN + smooth)`` with ``1 - p`` from the logits, so a nearly
    perfect overlap keeps its digits and its gradient. float32 is summed in float64, bfloat16 and float16 in float32.

    Source: Dice 1945; Sudre et al. 2017, section 2.

    >>> import torch
    >>> logits = torch.tensor([[[4.0, 4.0, -4.0, -4.0], [-4.0, -4.0, 4.0, 4.0]]])
    >>> print(f"{float(DiceLoss()(logits, torch.tensor([[0, 0, 1, 0]]))):.6f}")
    0.266845
    """

    formula = FORMULA

    def __init__(
        self,
        reduction: str = "mean",
        mode: Mode = "multiclass",
        smooth: float = 1e-5,
        batch: bool = False,
        include_background: bool = True,
        ignore_index: int = -100,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(reduction, mode, batch, include_background, ignore_index, switches)
        self.smooth = smooth

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return dice_loss(input, target, smooth=self.smooth, **self._settings(), **self.switches)

    def extra_repr(self) -> str:
        own = f"mode={self.mode!r}, smooth={self.smooth}"
        return ", ".join(filter(None, [own, super().extra_repr()]))
