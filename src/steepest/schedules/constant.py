"""The rate as it is given, in every step."""

from __future__ import annotations

from steepest.schedules.schedule import Schedule

__all__ = ["CONSTANT"]


def factor(share: float) -> float:
    return 1.0


CONSTANT = Schedule(
    name="constant",
    title="the same rate in every step",
    factor=factor,
    formula="1",
    ends="1 in the first step, 1 in the last",
    source="gradient descent as it is written down: Robbins and Monro 1951, A Stochastic Approximation Method, let the "
    "rate fall; a constant one converges to a neighbourhood of the optimum",
    good_at=(
        "training of no fixed length: it can be stopped, or gone on with, at any step",
        "optimizers that average their weights themselves (schedule-free): they want no other",
    ),
    bad_at=(
        "the last stretch in mini-batches: the noise of the batches keeps the weights moving by the rate",
        "large rates, which may win early and lose late",
    ),
)
