"""Evenly down to zero."""

from __future__ import annotations

from steepest.schedules.schedule import Schedule

__all__ = ["LINEAR"]


def factor(share: float) -> float:
    return 1.0 - share


LINEAR = Schedule(
    name="linear",
    title="evenly down to zero",
    factor=factor,
    formula="1 - k/n",
    ends="1 in the first step, 1/n in the last",
    source="Defazio et al. 2023, Optimal Linear Decay Learning Rate Schedules and Further Refinements",
    good_at=(
        "the last weights of plain descent: on convex losses no schedule known has a better worst case",
        "a large rate: what its noise costs is made up for at the end",
    ),
    bad_at=(
        "a length not known beforehand: stopped early, it has not come down yet",
        "short runs at a rate that was already small: half of the way is lost",
    ),
)
