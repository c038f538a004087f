"""The ranges of optimizers' arguments: those that are checked where torch has no class for it, and those tuned over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from steepest.errors import InputError
from steepest.tuning_range import TuningRange

__all__ = [
    "BETA1",
    "BETA2",
    "DECOUPLED_WEIGHT_DECAY",
    "EPS",
    "MOMENTUM",
    "WEIGHT_DECAY",
    "check_betas",
    "check_not_negative",
]


def check_not_negative(optimizer: str, **arguments: Any) -> None:
    """Refuse a number that is negative, infinite or NaN, and a tensor of more than one element.

    Raises:
        InputError: the first that is, by name.
    """
    for name, value in arguments.items():
        if isinstance(value, Tensor) and value.numel() != 1:
            raise InputError(
                f"{optimizer}: {name} is a tensor of {value.numel()} elements; give a number or a tensor of one."
            )
        if not 0.0 <= float(value) < math.inf:
            raise InputError(f"{optimizer}: {name} is {value}; it must be finite and not below 0.")


def check_betas(optimizer: str, betas: Sequence[float], count: int) -> None:
    """Refuse betas that are not ``count`` numbers from 0 to below 1.

    Raises:
        InputError: there are more or fewer, or one is out of range.
    """
    if len(betas) != count or not all(0.0 <= float(beta) < 1.0 for beta in betas):
        raise InputError(f"{optimizer}: betas is {tuple(betas)}; give {count} numbers from 0 to below 1.")


# What --tune all tunes over. Averages and eps on log scales, as in Choi et al. 2019, On Empirical Comparisons of
# Optimizers for Deep Learning, without the extremes that no table calls for.
MOMENTUM = TuningRange(0.5, 0.99, "log_complement")
BETA1 = TuningRange(0.5, 0.99, "log_complement")
BETA2 = TuningRange(0.9, 0.9999, "log_complement")
EPS = TuningRange(1e-10, 1e-2, "log")
WEIGHT_DECAY = TuningRange(1e-6, 1e-1, "log")
DECOUPLED_WEIGHT_DECAY = TuningRange(1e-4, 1.0, "log")
