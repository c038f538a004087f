"""Half a cosine wave, down to zero."""

from __future__ import annotations

import math

from steepest.schedules.schedule import Schedule

__all__ = ["COSINE"]


def factor(share: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * share))


COSINE = Schedule(
    name="cosine",
    title="half a cosine wave down to zero",
    factor=factor,
    formula="(1 + cos(π k/n)) / 2",
    ends="1 in the first step, about 2.5/n² in the last",
    source="Loshchilov and Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts, eq. 5, without restarts",
    good_at=(
        "long runs of deep networks: most of the way near the full rate, and a gentle end",
        "settings taken from papers: the most used of all",
    ),
    bad_at=(
        "a length not known beforehand: stopped early, it has not come down yet",
        "the last steps, which are so small that they hardly count",
    ),
)
