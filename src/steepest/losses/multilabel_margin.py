"""Multi-label margin loss: the hinges between each of a row's classes and every other."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import _reduction

from steepest.backends.cuda_devices import runs_on
from steepest.errors import InputError
from steepest.losses import fused, kernels
from steepest.losses.apply import composite_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import check_floating, check_reduction, check_tensors, is_concrete
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches, check_switches

__all__ = ["MultiLabelMarginLoss", "multilabel_margin_loss"]


def value(x: Tensor, target: Tensor) -> Tensor:
    """``1 / C`` times the sum over classes k in the list and j not in it of ``max(0, 1 - x_k + x_j)``, row by row."""
    index = target.to(torch.int64)
    is_listed = (index >= 0).to(torch.int64).cumprod(-1)  # up to the first -1
    index = torch.where(is_listed == 1, index, 0)
    is_own = torch.zeros_like(index).scatter_add(-1, index, is_listed) > 0
    if is_concrete(target) and not target.is_meta and target.numel():
        longest = int(is_listed.sum(-1).amax())  # all pairs of classes would take much memory
        index, is_listed = index[..., :longest], is_listed[..., :longest]
    own = x.gather(-1, index)
    # 1 - x_k and what it lost, which shows where x_j nearly cancels it.
    lead = 1.0 - own
    back = lead + own.detach()
    lost = ((1.0 - back) - (own - (back - lead))).detach()
    lost = torch.where(torch.isfinite(lost), lost, 0.0)
    missing = (x.unsqueeze(-2) + lead.unsqueeze(-1)) + lost.unsqueeze(-1)
    counts = (is_listed == 1).unsqueeze(-1) & ~is_own.unsqueeze(-2) & ~(missing <= 0)
    return torch.where(counts, missing, 0.0).sum((-1, -2)) / x.shape[-1]


FORMULA = LossFormula(
    name="multilabel_margin",
    title="multi-label margin loss",
    family="composite",
    value=value,
    gradient=None,
    prediction="logits",
    target="classes",
    tasks=(),
    formula="mean over rows of 1/C Σ_{k∈Y} Σ_{j∉Y} max(0, 1 - x_k + x_j), Y the row's classes",
    gradient_formula="1/C by x_j and -1/C by x_k for each pair with 1 - x_k + x_j above 0, else 0",
    domain="any scores x of C classes; a row of C class indices, which count up to the first -1",
    source="Elisseeff and Weston 2001, A Kernel Method for Multi-Labelled Classification, NIPS 14, there divided by "
    "the number of pairs",
    good_at=(
        "ranking all of a row's classes before the rest: a row whose margins are all kept costs nothing",
    ),
    bad_at=(
        "probabilities: the scores mean none; multilabel_soft_margin gives some",
        "rows without a class: they cost nothing, whatever they score",
    ),
    compared_by_default=False,
)


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over rows of the multi-label margin loss; see :class:`MultiLabelMarginLoss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    check_tensors(FORMULA.name, input, target)
    check_reduction(reduction)
    check_switches(FORMULA.name, switches, reduction)
    _check(input, target)
    shape = input.shape[:-1]
    scores, lists = (part.reshape(-1, input.shape[-1] if input.dim() else 1) for part in (input, target))

    def in_operations(scores: Tensor, lists: Tensor) -> Tensor:
        def compute(x: Tensor) -> Tensor:
            return value(x, lists).reshape(shape)

        return composite_loss(FORMULA, compute, (scores,), reduction=reduction, **switches)

    if scores.is_cpu and not runs_on(scores) and kernels.takes(
        scores, (), (lists,), output_dtype=switches.get("output_dtype")
    ):  # fmt: skip
        work = fused.ByRows(
            FORMULA,
            kernels.run_label_margins,
            in_operations,
            lambda lists: float(len(lists)),
            reduction,
            shape,
            switches,
            [],
        )
        return fused.by_rows(scores, lists, work)
    return in_operations(scores, lists)


def _check(input: Tensor, target: Tensor) -> None:
    name = FORMULA.name
    check_floating(name, input)
    classes = input.shape[-1] if input.dim() else 1
    if input.dim() > 2 or not classes:
        raise InputError(
            f"{name}: the input has shape {tuple(input.shape)}; it must be (C,) or (N, C), C > 0."
        )
    if target.shape != input.shape:
        raise InputError(
            f"{name}: the input has shape {tuple(input.shape)} and the target {tuple(target.shape)}; they must be "
            "equal (a row's classes, and -1 in the places that are left)."
        )
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise InputError(
            f"{name}: targets are {target.dtype}; they must be integer class indices, ended by -1."
        )
    if target.device.type == "cpu" and target.numel() and is_concrete(input, target):
        low, high = (int(bound) for bound in torch.aminmax(target.to(torch.int64)))
        if low < -1 or high >= classes:
            raise IndexError(
                f"{name}: targets run from {low} to {high}; class indices of {classes} classes lie in "
                f"[0, {classes - 1}], and -1 ends a list."
            )


class MultiLabelMarginLoss(LossModule, nn.MultiLabelMarginLoss):
    """Hinges between the score of each of a row's classes and every other class's; drop-in for torch's.

    ``1 / C sum_{k in Y} sum_{j not in Y} max(0, 1 - x_k + x_j)``.

    Args:
        size_average, reduce: torch's deprecated forms of ``reduction``.
        reduction: ``"none"``, ``"mean"`` (over rows) or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: scores (C,) or (N, C); the target of the same shape, integers of any signed width: a row's class indices,
    which count up to the first -1. One that is listed twice counts twice. Half types are taken, unlike torch.

    Raises:
        InputError: shapes that do not belong together.
        IndexError: an index that is no class and not -1.

    Numerics: the mean over no rows is NaN, where torch gives what its memory held. NaN in a score that counts makes
    the row's loss NaN, where torch leaves it out. On a GPU the length of the longest list is waited for.

    Source: Elisseeff and Weston 2001, there divided by the number of pairs.

    >>> import torch
    >>> scores, classes = torch.tensor([0.1, 0.2, 0.4, 0.8]), torch.tensor([3, 0, -1, 1])
    >>> round(float(MultiLabelMarginLoss()(scores, classes)), 6)
    0.85
    """

    formula = FORMULA

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return multilabel_margin_loss(input, target, reduction=self.reduction, **self.switches)
