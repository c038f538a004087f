"""Cosine embedding loss: vectors of pairs, wanted in one direction or apart."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import _reduction

from steepest.backends import cpu_pairs
from steepest.backends.cpu_losses import DTYPES
from steepest.errors import InputError
from steepest.losses import several
from steepest.losses.apply import composite_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import (
    in_one_shape,
)
from steepest.losses.distances import cosines
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.hinge import check_signs
from steepest.losses.switches import Switches

__all__ = ["CosineEmbeddingLoss", "cosine_embedding_loss"]


def value(a: Tensor, b: Tensor, y: Tensor, margin: float = 0.0, *, is_widened: bool = False) -> Tensor:
    """``1 - cos(a, b)`` where ``y`` is 1, ``max(0, cos(a, b) - margin)`` where it is -1, row by row of (N, D)."""
    cosine, apart = cosines(a, b, is_widened=is_widened)
    gap = cosine - margin
    unlike = torch.where(gap < 0, 0.0, gap)
    return torch.where(y == 1, apart, torch.where(y == -1, unlike, math.nan))


FORMULA = LossFormula(
    name="cosine_embedding",
    title="cosine embedding loss",
    family="composite",
    value=value,
    gradient=None,
    prediction="two vectors",
    target="sign",
    tasks=(),
    formula="mean over pairs of 1 - c where y = 1, max(0, c - m) where y = -1; c = a·b / √((a·a + ε) (b·b + ε))",
    gradient_formula="(c u - v) / |a| by a where y = 1, (v - c u) / |a| where y = -1 and c ≥ m, else 0; |a| is "
    "√(a·a + ε), u = a / |a|, v = b / |b|; by b alike",
    domain="any finite vectors a and b; y is -1 or 1; m is margin; ε is 1e-12, as in torch",
    source="Bromley, Guyon, LeCun, Säckinger and Shah 1993, Signature Verification using a Siamese Time Delay Neural "
    "Network, NIPS 6; in this form Torch7's CosineEmbeddingCriterion",
    good_at=("directions alone: how long a vector is does not count",),
    bad_at=(
        "vectors near 0: their direction jumps, and gradients grow as one over the length",
        "unlike pairs at a margin of 0: to be at right angles is enough",
    ),
    parameters={"margin": 0.0},
    valid={"margin": Interval(-float("inf"), float("inf"))},
    compared_by_default=False,
)


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over pairs of one minus the cosine, or of the cosine above ``margin``; see
    :class:`CosineEmbeddingLoss`.
    """
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    name = FORMULA.name
    several.check_pair(FORMULA, input1, input2, target, margin, reduction, switches)
    strict = switches.get("strict_shape", True)
    input1, input2 = in_one_shape(name, strict, input1=input1, input2=input2)
    _check_shapes(input1, target, strict)
    check_signs(name, target)
    is_widened = torch.promote_types(input1.dtype, input2.dtype) == torch.float32 and input1.is_cpu
    signs = target.detach().to(input1.dtype)  # what type they are of does not matter to the result

    def in_operations(a: Tensor, b: Tensor, y: Tensor = signs) -> Tensor:
        def compute(a: Tensor, b: Tensor) -> Tensor:
            return value(a, b, y, margin, is_widened=is_widened)

        return composite_loss(FORMULA, compute, (a, b), reduction=reduction, **switches)

    if several.takes((input1, input2), switches, signs) and signs.shape == input1.shape[:-1]:
        kernel = cpu_pairs.cosines(DTYPES[input1.dtype])
        work = several.Rows(kernel, 2, (float(margin),), in_operations, reduction, switches)
        return several.several(work, input1, input2, signs)
    return in_operations(input1, input2)


def _check_shapes(input: Tensor, target: Tensor, strict: bool) -> None:
    rows = tuple(input.shape[:-1])
    fits = target.shape == rows or (not strict and target.dim() == len(rows))
    if input.dim() not in (1, 2) or not fits:
        raise InputError(
            f"cosine_embedding: the inputs have shape {tuple(input.shape)} and the target {tuple(target.shape)}; "
            "inputs (N, D) need a target (N,), inputs (D,) one number, (), each -1 or 1."
        )


class CosineEmbeddingLoss(LossModule, nn.CosineEmbeddingLoss):
    """Vectors of pairs: in one direction where the pair belongs together, apart where not; drop-in for torch's.

    ``1 - cos(a, b)`` where ``y = 1``, ``max(0, cos(a, b) - margin)`` where ``y = -1``.

    Args:
        margin: the cosine, from -1 to 1, up to which an unlike pair costs nothing; torch advises 0 to 0.5.
        size_average, reduce: torch's deprecated forms of ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``, over pairs.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: inputs alike, (N, D) or (D,); target (-1 or 1) (N,) or (). The gradient goes to both inputs.

    Raises:
        InputError: shapes that do not belong together, or a target that is neither -1 nor 1 (on a GPU its loss is
            NaN; torch makes it 0).

    Numerics: 1e-12 is added to either squared length, as in torch, so a vector of 0 has cosine 0. ``1 - cos`` is half
    the square of the difference of the two directions, so that of nearly parallel vectors it keeps the digits that
    the difference from 1 has lost. Vectors of any length in the type's range do; their squares need not be in it.

    Source: Bromley et al. 1993; in this form Torch7's ``CosineEmbeddingCriterion``.

    >>> import torch
    >>> a, b = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [3.0, 4.0]])
    >>> print(f"{float(CosineEmbeddingLoss()(a, b, torch.tensor([1, -1]))):.4f}")
    0.3200
    """

    formula = FORMULA

    def __init__(
        self,
        margin: float = 0.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(margin, size_average, reduce, reduction)
        self._set_switches(switches)

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return cosine_embedding_loss(
            input1, input2, target, self.margin, reduction=self.reduction, **self.switches
        )
