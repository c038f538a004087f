"""Triplet margin loss with a distance of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor, nn

from steepest.losses.apply import composite_loss, widened
from steepest.losses.base import LossModule
from steepest.losses.checks import check_reduction, in_one_shape
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches, check_switches
from steepest.losses.triplet_margin import check_margin, check_triplet, hinge_of, of_distances

__all__ = ["TripletMarginWithDistanceLoss", "triplet_margin_with_distance_loss"]

Distance = Callable[[Tensor, Tensor], Tensor]


def value(near: Tensor, far: Tensor, other: Tensor | None = None, margin: float = 1.0) -> Tensor:
    """``max(0, margin + d(a, p) - d(a, n))``; with ``other``, d(p, n), the smaller of the last two."""
    return hinge_of(near, far, other, margin)


FORMULA = LossFormula(
    name="triplet_margin_with_distance",
    title="triplet margin loss with a distance of one's own",
    family="composite",
    value=value,
    gradient=None,
    prediction="three vectors",
    target="none",
    tasks=(),
    formula="mean of max(0, m + d(a, p) - d(a, n)), d the distance that is given",
    gradient_formula="that of d(a, p) less that of d(a, n) where the hinge is not below 0, else 0",
    domain="whatever d takes; m > 0 is margin",
    source="Balntas, Riba, Ponsa and Mikolajczyk 2016, Learning Local Feature Descriptors with Triplets and Shallow "
    "Convolutional Neural Networks, BMVC, paper 119",
    good_at=("triplets whose likeness is no Euclidean distance: 1 - cosine, a learned one",),
    bad_at=(
        "triplets drawn at random: most soon cost nothing, so hard negatives have to be looked for",
        "distances in other units than the margin's: scale one to the other",
    ),
    parameters={"margin": 1.0},
    valid={"margin": Interval(0.0, float("inf"))},
    compared_by_default=False,
)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Distance | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of ``max(0, margin + d(a, p) - d(a, n))``; see :class:`TripletMarginWithDistanceLoss`."""
    name = FORMULA.name
    check_triplet(name, anchor, positive, negative)
    check_margin(name, margin)
    check_reduction(reduction)
    check_switches(name, switches, reduction)
    tensors = [anchor, positive, negative]
    if switches.get("strict_shape", True):
        in_one_shape(name, True, anchor=anchor, positive=positive, negative=negative)
    if distance_function is None or distance_function is torch.pairwise_distance:
        distance_function = nn.PairwiseDistance()
    if type(distance_function) is nn.PairwiseDistance:
        p, eps = float(distance_function.norm), float(distance_function.eps)
        tensors = list(torch.broadcast_tensors(*tensors))
        loss = of_distances(FORMULA, tensors, margin, p, eps, swap, reduction, switches)
        return loss.unsqueeze(-1) if distance_function.keepdim and reduction == "none" else loss
    anchor, positive, negative = widened(*tensors)
    distances = [distance_function(anchor, positive), distance_function(anchor, negative)]
    if swap:
        distances.append(distance_function(positive, negative))

    def compute(near: Tensor, far: Tensor, other: Tensor | None = None) -> Tensor:
        return value(near, far, other, margin)

    return composite_loss(FORMULA, compute, distances, reduction=reduction, **switches)


class TripletMarginWithDistanceLoss(LossModule, nn.TripletMarginWithDistanceLoss):
    """An anchor that is to be nearer to its positive, by a distance of one's own; drop-in for torch's.

    ``max(0, margin + d(a, p) - d(a, n))``.

    Args:
        distance_function: ``d``, of two tensors; torch's ``PairwiseDistance()`` unless given.
        margin: by how much nearer, above 0, in the distance's units.
        swap: take ``d(p, n)`` in place of ``d(a, n)`` where it is smaller.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``, over all that the distance gives.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: all three alike, whatever the distance takes; with ``strict_shape=False`` whatever it makes of others. The
    gradient goes to all three, and to what the distance learns.

    Raises:
        InputError: the shapes differ, or ``margin`` is not above 0.

    Numerics: ``PairwiseDistance`` is computed as :class:`TripletMarginLoss` does. Of another distance the digits are
    its own; the hinge is in float64 of float32 distances.

    Source: Balntas et al. 2016.

    >>> import torch
    >>> loss = TripletMarginWithDistanceLoss(distance_function=lambda x, z: 1 - torch.cosine_similarity(x, z))
    >>> anchor, positive, negative = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]], [[3.0, 4.0]]])
    >>> round(float(loss(anchor, positive, negative)), 5)
    0.6
    """

    formula = FORMULA

    def __init__(
        self,
        *,
        distance_function: Distance | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
        **switches: Unpack[Switches],
    ) -> None:
        check_margin(FORMULA.name, margin)
        super().__init__(distance_function=distance_function, margin=margin, swap=swap, reduction=reduction)
        self._set_switches(switches)

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return triplet_margin_with_distance_loss(
            anchor,
            positive,
            negative,
            distance_function=self.distance_function,
            margin=self.margin,
            swap=self.swap,
            reduction=self.reduction,
            **self.switches,
        )
