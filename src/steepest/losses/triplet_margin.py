"""Triplet margin loss: an anchor nearer to its positive than to its negative."""

from __future__ import annotations

from numbers import Real
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import _reduction

from steepest.backends import cpu_pairs
from steepest.backends.cpu_losses import DTYPES
from steepest.backends.cuda_devices import runs_on
from steepest.errors import InputError
from steepest.losses import several
from steepest.losses.apply import composite_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import (
    check_dense,
    check_floating,
    check_parameters,
    check_reduction,
    in_one_shape,
)
from steepest.losses.distances import distance
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches, check_switches

__all__ = ["TripletMarginLoss", "check_margin", "check_triplet", "hinge_of", "triplet_margin_loss"]


def hinge_of(near: Tensor, far: Tensor, other: Tensor | None, margin: float) -> Tensor:
    """``max(0, margin + near - far)``; the smaller of ``far`` and ``other`` where there is one."""
    if other is not None:
        far = torch.minimum(far, other)
    gap = (near - far) + margin
    return torch.where(gap < 0, 0.0, gap)


def value(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    *,
    is_widened: bool = False,
) -> Tensor:
    """``max(0, margin + d(a, p) - d(a, n))``, row by row of (N, D)."""

    def apart(x1: Tensor, x2: Tensor) -> Tensor:
        return distance(x1, x2, p, eps, is_widened=is_widened)

    other = apart(positive, negative) if swap else None
    return hinge_of(apart(anchor, positive), apart(anchor, negative), other, margin)


FORMULA = LossFormula(
    name="triplet_margin",
    title="triplet margin loss",
    family="composite",
    value=value,
    gradient=None,
    prediction="three vectors",
    target="none",
    tasks=(),
    formula="mean over triplets of max(0, m + ‖a - p + ε‖ - ‖a - n + ε‖)",
    gradient_formula="u - w by a, -u by p, w by n where the hinge is not below 0, else 0; of the Euclidean norm "
    "u = (a - p + ε) / ‖a - p + ε‖, w = (a - n + ε) / ‖a - n + ε‖",
    domain="any vectors; ‖·‖ is the Euclidean norm, or that of the degree given; ε is eps, added everywhere; m > 0",
    source="Balntas, Riba, Ponsa and Mikolajczyk 2016, Learning Local Feature Descriptors with Triplets and Shallow "
    "Convolutional Neural Networks, BMVC, paper 119",
    good_at=("learning distances from comparisons: this is more like that one than like the other",),
    bad_at=(
        "triplets drawn at random: most soon cost nothing, so hard negatives have to be looked for",
        "an embedding that falls into one point: every triplet then costs the margin, and nothing parts them",
    ),
    parameters={"margin": 1.0, "eps": 1e-6},
    valid={"margin": Interval(0.0, float("inf")), "eps": Interval(-float("inf"), float("inf"))},
    compared_by_default=False,
)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over triplets of ``max(0, margin + d(a, p) - d(a, n))``; see :class:`TripletMarginLoss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    name = FORMULA.name
    check_triplet(name, anchor, positive, negative)
    check_margin(name, margin)
    check_reduction(reduction)
    check_switches(name, switches, reduction)
    check_parameters(FORMULA, (margin, eps))
    if not isinstance(p, Real):
        raise InputError(f"{name}: p is {p!r}; it must be a number, the degree of a norm.")
    strict = switches.get("strict_shape", True)
    tensors = in_one_shape(name, strict, anchor=anchor, positive=positive, negative=negative)
    return of_distances(FORMULA, tensors, margin, float(p), float(eps), swap, reduction, switches)


def of_distances(
    formula: LossFormula,
    tensors: list[Tensor],
    margin: float,
    p: float,
    eps: float,
    swap: bool,
    reduction: str,
    switches: Switches,
) -> Tensor:
    """The loss of three tensors of one shape by torch's own distance."""
    if not tensors[0].dim():  # as torch, a number is a vector of one entry
        tensors = [tensor.reshape(1) for tensor in tensors]
    widest = tensors[0].dtype
    for tensor in tensors[1:]:
        widest = torch.promote_types(widest, tensor.dtype)
    is_widened = widest == torch.float32 and tensors[0].is_cpu and not runs_on(tensors[0])

    def in_operations(*given: Tensor) -> Tensor:
        def compute(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            return value(a, b, c, margin, p, eps, swap, is_widened=is_widened)

        return composite_loss(formula, compute, given, reduction=reduction, **switches)

    if p == 2 and several.takes(tensors, switches):
        kernel = cpu_pairs.triplets(DTYPES[widest])
        options = (float(margin), eps, bool(swap))
        work = several.Rows(kernel, 3, options, in_operations, reduction, switches)
        return several.several(work, *tensors)
    return in_operations(*tensors)


def check_triplet(name: str, anchor: Any, positive: Any, negative: Any) -> None:
    """Three dense, floating tensors with a last dimension."""
    given = {"anchor": anchor, "positive": positive, "negative": negative}
    check_dense(name, **given)
    for word, tensor in given.items():
        check_floating(name, tensor, word)


def check_margin(name: str, margin: float) -> None:
    """A number above 0."""
    if not isinstance(margin, Real | Tensor) or not margin > 0:
        raise InputError(f"{name}: margin is {margin!r}; margin must be greater than 0.")


class TripletMarginLoss(LossModule, nn.TripletMarginLoss):
    """An anchor that is to be nearer to its positive than to its negative, by a margin; drop-in for torch's.

    ``max(0, margin + d(a, p) - d(a, n))`` with ``d(x, z)`` the norm of ``x - z + eps``.

    Args:
        margin: by how much nearer, above 0, in the distances' units.
        p: the norm's degree.
        eps: added to every coordinate of a difference, as torch's ``pairwise_distance`` does; at 0 two equal vectors
            have distance 0, and no gradient parts them.
        swap: take the distance of positive and negative in place of ``d(a, n)`` where it is smaller (half of either
            where they are equal).
        size_average, reduce: torch's deprecated forms of ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``, over triplets.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: all three alike, (N, D), (D,), or with more dimensions before the last; ``"none"`` gives one number a
    vector. The gradient goes to all three.

    Raises:
        InputError: the shapes differ, or ``margin`` is not above 0.

    Numerics: distances of any size in the type's range do, though their squares may not be in it. At the kink the
    gradient is that of a margin missed, as torch's.

    Source: Balntas et al. 2016.

    >>> import torch
    >>> anchor, positive, negative = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 6.0]])
    >>> round(float(TripletMarginLoss(margin=2.0)(anchor, positive, negative)), 5)
    1.0
    """

    formula = FORMULA

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        **switches: Unpack[Switches],
    ) -> None:
        check_margin(FORMULA.name, margin)
        super().__init__(margin, p, eps, swap, size_average, reduce, reduction)
        self._set_switches(switches)

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return triplet_margin_loss(
            anchor,
            positive,
            negative,
            self.margin,
            self.p,
            self.eps,
            self.swap,
            reduction=self.reduction,
            **self.switches,
        )
