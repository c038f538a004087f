"""Moving averages that begin at 0: what they are divided by to make up for it."""

from __future__ import annotations

from math import expm1, log

__all__ = ["bias_correction"]


def bias_correction(beta: float, step: float) -> float:
    """``1 - beta**step`` to the last digit; subtracted as it stands it loses three for a beta of 0.999.

    Args:
        beta: from 0 to below 1.
        step: the number of gradients in the average, from 1.

    >>> bias_correction(0.5, 2.0)
    0.75
    """
    return -expm1(step * log(beta)) if beta > 0.0 else 1.0
