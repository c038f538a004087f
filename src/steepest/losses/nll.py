"""Negative log-likelihood from log-probabilities."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import _reduction

from steepest.backends import cpu_plain
from steepest.backends.cuda_devices import runs_on
from steepest.backends.reference import compute_dtype
from steepest.backends.reference_losses import of_classes
from steepest.errors import InputError
from steepest.losses import fused, kernels
from steepest.losses.apply import composite_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import check_classes, check_reduction, check_tensors
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches, check_switches

__all__ = ["NLLLoss", "nll_loss"]


def value(log_p: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100) -> Tensor:
    """``-w_y log p_y``, row by row; classes lie in dimension 1 (0 of one)."""
    taken, row_weight = _rows(log_p, target, weight, ignore_index)
    return -row_weight * taken


def _rows(log_p: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Of every row, the target's log-probability and weight: 0 and 0 where it is ignored."""
    dimension = min(1, log_p.dim() - 1)
    index = target.to(torch.int64)  # a uint8 takes -100 for 156
    kept = index != ignore_index
    index = torch.where(kept, index, 0)
    taken = log_p.gather(dimension, index.unsqueeze(dimension)).squeeze(dimension)
    row_weight = kept.to(log_p.dtype if weight is None else weight.dtype)
    if weight is not None:
        row_weight = row_weight * torch.where(kept, of_classes(weight, index), 0.0)
    # No weight, no loss: not 0 * inf.
    return torch.where(kept & ((row_weight != 0) | torch.isfinite(taken)), taken, 0.0), row_weight


FORMULA = LossFormula(
    name="nll",
    title="negative log-likelihood",
    family="composite",
    value=value,
    gradient=None,
    prediction="log_probability",
    target="class",
    tasks=(),
    formula="sum over rows of -w_y x_y, x log-probabilities, divided by the sum of their w_y",
    gradient_formula="-w_y by x_y, 0 by the others",
    domain="log-probabilities x ≤ 0; class indices y; w is weight, 1 unless given",
    source="Bishop 2006, eq. 4.108",
    good_at=("models that already end in log-probabilities",),
    bad_at=(
        "logits: nothing normalises them here; prefer cross_entropy, which is exact in both tails",
        "imbalanced classes and mislabelled rows, as cross_entropy",
    ),
    compared_by_default=False,
)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over rows of ``-weight[target] * input[target]``; see :class:`NLLLoss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    check_tensors(FORMULA.name, input, target)
    if target.is_floating_point():
        raise InputError(f"nll: targets are {target.dtype}; they must be integer class indices.")
    if input.dim() == 1 and target.shape == (1,):
        target = target.squeeze(0)
    check_reduction(reduction)
    check_switches(FORMULA.name, switches, reduction)
    settings = kernels.SoftmaxSettings((), weight, None, ignore_index, 0.0, reduction)

    def reference(input: Tensor, target: Tensor) -> Tensor:
        return _in_operations(input, target, weight, ignore_index, reduction, switches)

    def work(num_kept: int | None = None) -> fused.ByRows:
        def divisor(target: Tensor) -> kernels.Sum:
            return kernels.softmax_divisor(target, settings, target.numel(), num_kept)

        constants = [] if weight is None else [weight]
        run = partial(kernels.run_picked, settings)
        return fused.ByRows(FORMULA, run, reference, divisor, reduction, target.shape, switches, constants)

    loss = fused.plain_by_rows(cpu_plain.picked, (ignore_index,), input, target, weight, work())
    if loss is not None:
        return loss
    num_kept = check_classes(FORMULA.name, input, target, weight, ignore_index, 0.0)
    is_on_cpu = num_kept is not None and not runs_on(input)
    if is_on_cpu and kernels.takes(input, (), (target, weight), output_dtype=switches.get("output_dtype")):
        return fused.by_rows(input, target, work(num_kept))
    return reference(input, target)


def _in_operations(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    switches: Switches,
) -> Tensor:
    # The rows' own entries are taken first, so that only they are computed on in a wider type.
    taken, row_weight = _rows(input, target, weight, ignore_index)
    row_weight = row_weight.to(compute_dtype(input))
    return composite_loss(
        FORMULA,
        lambda wide: -row_weight * wide,
        (taken,),
        reduction=reduction,
        divisor=row_weight.sum(),
        **switches,
    )


class NLLLoss(LossModule, nn.NLLLoss):
    """Negative log-likelihood of classes from log-probabilities; drop-in for :class:`torch.nn.NLLLoss`.

    ``-w_y x_y``; a mean divides by the sum of the rows' weights.

    Args:
        weight: a factor for every class, shape (C,).
        size_average, reduce: torch's deprecated forms of ``reduction``.
        ignore_index: rows with this class index give no loss and no gradient.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: log-probabilities (C,), (N, C) or (N, C, d1, ...); targets, integers of any width, without the class
    dimension.

    Raises:
        InputError: shapes that do not belong together, or a weight of another length.
        IndexError: a class index out of range.

    Numerics: a weight of 0 gives 0, whatever the log-probability; the mean over no kept row is NaN, as torch's.

    Source: Bishop 2006, eq. 4.108.

    >>> import torch
    >>> float(NLLLoss()(torch.tensor([[-0.5, -1.0], [-2.0, -0.25]]), torch.tensor([0, 1])))
    0.375
    """

    formula = FORMULA

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction)
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return nll_loss(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            **self.switches,
        )
