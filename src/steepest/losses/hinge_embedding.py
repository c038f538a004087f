"""Hinge embedding loss: distances of pairs, small ones wanted or large ones."""

from __future__ import annotations

import math
from typing import Any, Unpack

from torch import Tensor, nn
from torch.nn import _reduction

from steepest.backends.reference import where
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import same_shape
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.hinge import check_signs
from steepest.losses.switches import Switches

__all__ = ["HingeEmbeddingLoss", "hinge_embedding_loss"]

_NAN = math.nan


def value(x: Any, y: Any, margin: Any) -> Any:
    # x where y is 1, max(0, margin - x) where it is -1, NaN where it is neither
    missing = margin - x
    apart = where(missing < 0.0, 0.0, missing)
    return where(y == 1.0, x, where(y == -1.0, apart, _NAN))


def gradient(x: Any, y: Any, margin: Any) -> Any:
    # 1 where y is 1; where it is -1, -1 up to the margin, the margin itself included, and 0 beyond
    apart = where(margin - x < 0.0, 0.0, -1.0)
    return where(y == 1.0, 1.0, where(y == -1.0, apart, _NAN))


FORMULA = LossFormula(
    name="hinge_embedding",
    title="hinge embedding loss",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="distance",
    target="sign",
    tasks=(),
    formula="mean of x where y = 1, max(0, m - x) where y = -1",
    gradient_formula="1 where y = 1; -1 where y = -1 and x ≤ m, else 0",
    domain="any x, distances x ≥ 0 as a rule; y is -1 or 1; m is margin",
    source="Hadsell, Chopra and LeCun 2006, Dimensionality Reduction by Learning an Invariant Mapping, CVPR, eq. 4, "
    "there with squares",
    good_at=("learning a distance from pairs: those apart by the margin no longer push",),
    bad_at=(
        "scores of a classifier: hinge takes the margin y x",
        "pairs that are easily told apart: most cost nothing, so hard ones have to be looked for",
    ),
    parameters={"margin": 1.0},
    valid={"margin": Interval(-float("inf"), float("inf"))},
    compared_by_default=False,
)


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of the distances of like pairs and the hinges of unlike ones; see :class:`HingeEmbeddingLoss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    same_shape(FORMULA.name, input, target, switches.get("strict_shape", True))
    check_signs(FORMULA.name, target)
    if not target.is_floating_point():
        target = target.to(input.dtype)
    return pointwise_loss(FORMULA, input, target, (margin,), reduction=reduction, **switches)


class HingeEmbeddingLoss(LossModule, nn.HingeEmbeddingLoss):
    """Distances of pairs: small ones wanted where the pair belongs together, large ones where not; drop-in for torch's.

    ``x`` where ``y = 1``, ``max(0, margin - x)`` where ``y = -1``.

    Args:
        margin: the distance from which on an unlike pair costs nothing, in the distances' units.
        size_average, reduce: torch's deprecated forms of ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target (-1 or 1) alike, any; the result is a scalar, or that shape for ``"none"``.

    Raises:
        InputError: the shapes differ, or a target is neither -1 nor 1 (on a GPU its loss is NaN; torch adds both
            terms up).

    Numerics: at the kink, ``x = margin``, an unlike pair's gradient is -1, as torch's.

    Source: Hadsell, Chopra and LeCun 2006, eq. 4, there with squares.

    >>> import torch
    >>> float(HingeEmbeddingLoss()(torch.tensor([0.5, 0.25]), torch.tensor([1.0, -1.0])))
    0.625
    """

    formula = FORMULA

    def __init__(
        self,
        margin: float = 1.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(margin, size_average, reduce, reduction)
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return hinge_embedding_loss(input, target, self.margin, reduction=self.reduction, **self.switches)
