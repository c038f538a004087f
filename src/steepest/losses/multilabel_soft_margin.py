"""Multi-label soft margin loss: binary cross-entropy of every class, averaged over the classes."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn
from torch.nn import _reduction

from steepest.errors import InputError
from steepest.losses import bce_with_logits
from steepest.losses.apply import composite_loss, pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import same_shape
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches, check_switches

__all__ = ["MultiLabelSoftMarginLoss", "multilabel_soft_margin_loss"]


def value(x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean over the last dimension of ``w ((1 - y) softplus(x) + y softplus(-x))``."""
    values: Tensor = bce_with_logits.value(x, y, 1.0)
    return (values if weight is None else values * weight.to(values.dtype)).sum(-1) / x.shape[-1]


FORMULA = LossFormula(
    name="multilabel_soft_margin",
    title="multi-label soft margin loss",
    family="composite",
    value=value,
    gradient=None,
    prediction="logit",
    target="probability",
    tasks=(),
    formula="mean over samples of -1/C Σ_c w_c (y_c log p_c + (1 - y_c) log(1 - p_c)), p = sigmoid(x)",
    gradient_formula="w_c (p_c - y_c) / C, by the logit x_c",
    domain="any logits of C labels, infinities included; y in [0, 1]; w is weight, 1 unless given",
    source="Bishop 2006, eq. 4.90, for each of C labels",
    good_at=("samples with several labels, or none: each class is a question of its own",),
    bad_at=(
        "many classes of which few are present: their share of the mean is small (weigh them, or see focal losses)",
    ),
    compared_by_default=False,
)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over samples of the classes' mean; see :class:`MultiLabelSoftMarginLoss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    input, target = same_shape(FORMULA.name, input, target, switches.get("strict_shape", True))
    if input.dim() == 0:
        raise InputError(
            "multilabel_soft_margin: the input is a single number; it has shape (C,) or (N, ..., C)."
        )
    if weight is not None:
        _check_weight(input, weight)
    if not target.is_floating_point():
        target = target.to(input.dtype)
    if reduction not in ("mean", "sum") or not input.numel():
        return composite_loss(
            FORMULA, lambda x, y: value(x, y, weight), (input, target), reduction=reduction, **switches
        )
    # Every sample has as many classes: a mean of means is the elements' mean, which the fused kernel takes.
    classes, given = input.shape[-1], switches.get("normalizer")
    if reduction == "sum":
        check_switches(FORMULA.name, switches, reduction)
        switches["normalizer"] = float(classes)
    elif given is not None:
        switches["normalizer"] = given * classes
    return pointwise_loss(bce_with_logits.FORMULA, input, target, (1.0,), weight=weight, **switches)


def _check_weight(input: Tensor, weight: Tensor) -> None:
    sizes = (1,) * (input.dim() - weight.dim()) + tuple(weight.shape)
    if len(sizes) > input.dim() or any(w not in (1, n) for w, n in zip(sizes, input.shape, strict=True)):
        raise InputError(
            f"multilabel_soft_margin: weight has shape {tuple(weight.shape)}; it must broadcast to the input's, "
            f"{tuple(input.shape)}, as one of shape ({input.shape[-1]},) does."
        )


class MultiLabelSoftMarginLoss(LossModule, nn.MultiLabelSoftMarginLoss):
    """Binary cross-entropy of every class from logits, averaged over the classes; drop-in for torch's.

    ``-1/C sum_c w_c (y_c log sigmoid(x_c) + (1 - y_c) log sigmoid(-x_c))``.

    Args:
        weight: a factor for every class, shape (C,), or what broadcasts against the input.
        size_average, reduce: torch's deprecated forms of ``reduction``.
        reduction: over samples: ``"none"``, ``"mean"`` or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input (logits) and target (in [0, 1], of any number type) alike, (C,) or (N, ..., C); ``"none"`` gives
    that shape without the classes.

    Raises:
        InputError: shapes that do not belong together.

    Numerics: as :class:`BCEWithLogitsLoss`, exact in both tails.

    Source: Bishop 2006, eq. 4.90.

    >>> import torch
    >>> print(f"{float(MultiLabelSoftMarginLoss()(torch.tensor([[40.0, -40.0]]), torch.tensor([[1, 0]]))):.6e}")
    4.248354e-18
    """

    formula = FORMULA

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return multilabel_soft_margin_loss(
            input, target, self.weight, reduction=self.reduction, **self.switches
        )
