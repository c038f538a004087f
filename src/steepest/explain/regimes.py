"""The three regimes of gradient descent: how many rows a step looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["REGIMES", "Regime"]


@dataclass(frozen=True)
class Regime:
    """A batch size with a name."""

    name: str
    batch_size: int | Literal["full"]
    meaning: str


REGIMES = {
    regime.name: regime
    for regime in (
        Regime("batch", "full", "every row at every step: the exact gradient, and one step an epoch"),
        Regime(
            "mini-batch", 8, "some rows a step: most of the speed, less of the noise; runs well on hardware"
        ),
        Regime("stochastic", 1, "one row a step: the cheapest step, and the noisiest"),
    )
}
