"""Mean, deviation and extremes of numbers that come in pieces."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST_SPREAD", "Moments"]

LEAST_SPREAD = 1e-150  # from least to greatest: of less the square, and with it the variance, is 0 in float64
_EPS = float(np.finfo(np.float64).eps)


@dataclass
class Moments:
    """Count, mean, sum of squared deviations, least and greatest.

    Pieces are merged by Chan, Golub and LeVeque's rule (1979, Updating Formulae and a Pairwise Algorithm, equation
    2.1b), which loses nothing to large means: the figures are those of all numbers at once but for rounding.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Moments:
        """The moments of some numbers."""
        if len(values) == 0:
            return cls()
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(values.mean())
            deviations = values - mean
            return cls(
                len(values), mean, float(deviations @ deviations), float(values.min()), float(values.max())
            )

    def with_more(self, other: Moments) -> Moments:
        """The moments of both."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        distance = other.mean - self.mean
        return Moments(
            count,
            self.mean + distance * (other.count / count),
            self.squares + other.squares + distance * distance * (self.count * other.count / count),
            min(self.least, other.least),
            max(self.greatest, other.greatest),
        )

    def with_copies(self, value: float, count: int) -> Moments:
        """The moments after one value has joined ``count`` times."""
        return self.with_more(Moments(count, value, 0.0, value, value)) if count else self

    @property
    def scale(self) -> float:
        """The standard deviation, over the count; 1 where it is no more than rounding, as scikit-learn has it."""
        variance = self.squares / self.count
        if variance <= self.count * _EPS * variance + (self.count * self.mean * _EPS) ** 2:
            return 1.0
        return math.sqrt(variance)
