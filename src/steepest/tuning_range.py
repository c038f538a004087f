"""The range a secondary hyperparameter is tuned over, declared beside the formula that has it."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["TuningRange"]


class TuningRange(NamedTuple):
    """The numbers from ``low`` to ``high``, spread evenly on a scale.

    ``"log"`` spreads their logarithms; ``"log_complement"`` those of their distance to 1, as suits averages that keep
    0.9, 0.99 or 0.999 of what was.
    """

    low: float
    high: float
    scale: Literal["linear", "log", "log_complement"] = "linear"

    def at(self, share: float) -> float:
        """The number at a share of the way from low (0) to high (1), to three digits: a person can write it down.

        >>> TuningRange(0.9, 0.999, "log_complement").at(0.5)
        0.99
        """
        if self.scale == "log_complement":
            return 1.0 - TuningRange(1.0 - self.low, 1.0 - self.high, "log").at(share)
        if self.scale == "log":
            return _rounded(self.low * (self.high / self.low) ** share)
        return _rounded(self.low + share * (self.high - self.low))


def _rounded(number: float) -> float:
    return float(f"{number:.3g}")
