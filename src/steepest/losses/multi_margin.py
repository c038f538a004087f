"""Multi-class margin loss: the hinges between the true class and every other."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import _reduction

from steepest.backends import cpu_plain
from steepest.backends.cuda_devices import runs_on
from steepest.errors import InputError
from steepest.losses import fused, kernels
from steepest.losses.apply import composite_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import check_floating, check_reduction, check_tensors, is_concrete
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches, check_switches

__all__ = ["MultiMarginLoss", "multi_margin_loss"]


def value(x: Tensor, target: Tensor, weight: Tensor | None = None, p: int = 1, margin: float = 1.0) -> Tensor:
    """``w_y / C`` times the sum over ``j != y`` of ``max(0, margin - x_y + x_j)^p``, row by row of (N, C)."""
    index = target.to(torch.int64).unsqueeze(-1)
    own = x.gather(-1, index)
    # margin - x_y and what it lost, which shows where x_j nearly cancels it.
    lead = margin - own
    back = lead + own.detach()
    lost = ((margin - back) - (own - (back - lead))).detach()
    hinge = torch.relu((x + lead) + torch.where(torch.isfinite(lost), lost, 0.0))
    hinge = hinge.scatter(-1, index, 0.0)
    rows = (hinge if p == 1 else hinge * hinge).sum(-1)
    if weight is not None:
        rows = rows * weight.to(rows.dtype)[index.squeeze(-1)]
    return rows / x.shape[-1]


FORMULA = LossFormula(
    name="multi_margin",
    title="multi-class margin loss",
    family="composite",
    value=value,
    gradient=None,
    prediction="logits",
    target="class",
    tasks=(),
    formula="mean over rows of w_y / C Σ_{j≠y} max(0, margin - x_y + x_j)^p",
    gradient_formula="p w_y / C (margin - x_y + x_j)^(p-1) by a score x_j where that is above 0, else 0; "
    "minus their sum by x_y",
    domain="any scores x of C classes; class indices y; p is 1 or 2; w is weight, 1 unless given",
    source="Weston and Watkins 1999, Support Vector Machines for Multi-Class Pattern Recognition, ESANN, pp. 219-224",
    good_at=("ranking the true class first: a row whose margins are all kept costs nothing",),
    bad_at=("probabilities: the scores mean none", "many classes: nearly all hinges soon rest at 0"),
    parameters={"margin": 1.0},
    valid={"margin": Interval(-float("inf"), float("inf"))},
    compared_by_default=False,
)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over rows of the multi-class margin loss; see :class:`MultiMarginLoss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    check_tensors(FORMULA.name, input, target)
    check_reduction(reduction)
    check_switches(FORMULA.name, switches, reduction)

    def in_operations(scores: Tensor, index: Tensor) -> Tensor:
        def compute(x: Tensor) -> Tensor:
            return value(x, index, weight, p, margin).reshape(target.shape)

        return composite_loss(FORMULA, compute, (scores,), reduction=reduction, **switches)

    work = fused.ByRows(
        FORMULA,
        partial(kernels.run_margins, weight, p == 2, margin),
        in_operations,
        lambda index: float(len(index)),
        reduction,
        target.shape,
        switches,
        [] if weight is None else [weight],
    )
    _check_settings(p, margin)
    is_batch = input.dim() == 2  # the values of one row alone are a single number
    if is_batch:
        loss = fused.plain_by_rows(cpu_plain.margins, (p == 2, float(margin)), input, target, weight, work)
        if loss is not None:
            return loss
    _check(input, target, weight)
    scores, index = input if is_batch else input.reshape(1, -1), target.reshape(-1)
    if is_batch and scores.is_cpu and not runs_on(scores) and kernels.takes(
        scores, (), (index, weight), output_dtype=switches.get("output_dtype")
    ):  # fmt: skip
        return fused.by_rows(scores, index, work)
    return in_operations(scores, index)


def _check_settings(p: int, margin: float) -> None:
    if p not in (1, 2):
        raise InputError(f"multi_margin: p is {p}; only p == 1 and p == 2 are supported.")
    if not FORMULA.valid["margin"].holds(margin):
        raise InputError(f"multi_margin: margin is {margin}; it must lie in {FORMULA.valid['margin']}.")


def _check(input: Tensor, target: Tensor, weight: Tensor | None) -> None:
    check_floating(FORMULA.name, input)
    classes = input.shape[-1] if input.dim() else 1
    if input.dim() > 2 or not classes:
        raise InputError(
            f"multi_margin: the input has shape {tuple(input.shape)}; it must be (C,) or (N, C), C > 0."
        )
    wanted = [(input.shape[0],)] if input.dim() == 2 else [(), (1,)]
    if tuple(target.shape) not in wanted:
        raise InputError(
            f"multi_margin: scores of shape {tuple(input.shape)} need a target of shape {wanted[0]}; "
            f"the target has shape {tuple(target.shape)}."
        )
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise InputError(f"multi_margin: targets are {target.dtype}; they must be integer class indices.")
    if weight is not None and tuple(weight.shape) != (classes,):
        raise InputError(
            f"multi_margin: weight must be one-dimensional, ({classes},), one a class; it has shape "
            f"{tuple(weight.shape)}."
        )
    if target.device.type == "cpu" and target.numel() and is_concrete(input, target):
        low, high = (int(bound) for bound in torch.aminmax(target.to(torch.int64)))
        if low < 0 or high >= classes:
            raise IndexError(
                f"multi_margin: targets run from {low} to {high}; class indices of {classes} classes lie in "
                f"[0, {classes - 1}]."
            )


class MultiMarginLoss(LossModule, nn.MultiMarginLoss):
    """Hinges between the true class's score and every other, averaged over the classes; drop-in for torch's.

    ``w_y / C sum_{j != y} max(0, margin - x_y + x_j)^p``.

    Args:
        p: the hinge's power, 1 or 2.
        margin: by how much the true class is to lead, in the scores' units.
        weight: a factor for every class, shape (C,); a row has its true class's.
        size_average, reduce: torch's deprecated forms of ``reduction``.
        reduction: ``"none"``, ``"mean"`` (over rows, weights not divided out) or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: scores (C,) or (N, C); targets, integers of any width, () or (N,). Half types are taken, unlike torch.

    Raises:
        InputError: shapes that do not belong together, or another ``p``.
        IndexError: a class index out of range.

    Numerics: the mean over no rows is NaN, where torch gives what its memory held.

    Source: Weston and Watkins 1999.

    >>> import torch
    >>> float(MultiMarginLoss()(torch.tensor([[0.5, 0.0, 2.0, -3.0]]), torch.tensor([0])))
    0.75
    """

    formula = FORMULA

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(p, margin, weight, size_average, reduce, reduction)
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return multi_margin_loss(
            input, target, self.p, self.margin, self.weight, reduction=self.reduction, **self.switches
        )
