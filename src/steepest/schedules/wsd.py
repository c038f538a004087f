"""Warmup-stable-decay: flat, then down to zero over the last part."""

from __future__ import annotations

from steepest.schedules.schedule import Schedule

__all__ = ["WSD"]


def factor(share: float) -> float:
    return min(1.0, (1.0 - share) / 0.2)


WSD = Schedule(
    name="wsd",
    title="flat, then evenly down to zero over the last fifth (warmup-stable-decay)",
    factor=factor,
    formula="min(1, (1 - k/n) / 0.2)",
    ends="1 in the first step, 5/n in the last (of five or more)",
    source="Hu et al. 2024, MiniCPM; the linear end over a fifth of the steps: Hägele et al. 2024, Scaling Laws and "
    "Compute-Optimal Training Beyond Fixed Training Durations",
    good_at=(
        "a length decided late: the flat part can be gone on with, and each end taken from there",
        "most of the training at the full rate, and all the same an end without noise",
    ),
    bad_at=("short runs: the last fifth may be too few steps to come to rest",),
)
