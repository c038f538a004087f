"""Which numbers of an optimizer or a loss a page lets one move, and how far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from steepest.losses import Interval, LossFormula
from steepest.optim import OptimizerEntry

__all__ = ["Slider", "loss_sliders", "optimizer_sliders"]


@dataclass(frozen=True)
class Slider:
    """A number between two ends.

    ``scale``: ``"linear"``, ``"log"``, or ``"memory"`` for the factor of a moving average, which moves evenly in the
    number of steps that are remembered, ``1 / (1 - beta)``, on a log scale.
    """

    name: str
    value: float
    low: float
    high: float
    scale: Literal["linear", "log", "memory"]


_MEMORY = (0.0, 0.9999, "memory")
# By an optimizer's class and name, or by the name alone. A switch (0 or 1), and what two parameters on a small
# surface hardly feel, has none.
_RANGES: Mapping[str, tuple[float, float, Any]] = {
    "beta1": _MEMORY,
    "beta2": _MEMORY,
    "beta3": _MEMORY,
    "momentum": _MEMORY,
    "rho": _MEMORY,
    "RMSprop.alpha": _MEMORY,
    "AdEMAMix.alpha": (0.0, 10.0, "linear"),
    "clip_exp": (0.0, 1.0, "linear"),
    "dampening": (0.0, 1.0, "linear"),
    "eps": (1e-12, 1.0, "log"),
    "etaminus": (0.1, 0.95, "linear"),
    "etaplus": (1.01, 2.0, "linear"),
    "initial_accumulator_value": (0.0, 1.0, "linear"),
    "lambd": (0.0, 0.1, "linear"),
    "lr_decay": (0.0, 1.0, "linear"),
    "momentum_decay": (0.0, 0.1, "linear"),
    "step_size_max": (1e-3, 1e2, "log"),
    "trust_coefficient": (1e-4, 1.0, "log"),
    "warmup": (0.0, 400.0, "linear"),
    "weight_decay": (0.0, 0.5, "linear"),
}
_FARTHEST = (
    20.0  # a parameter of a loss is shown up to this many times its default, and down to as small a share
)
_WIDTH = 4.0  # of a parameter without ends, on either side of its default


def optimizer_sliders(entry: OptimizerEntry, hyperparameters: Mapping[str, float]) -> list[Slider]:
    """The learning rate over all of the entry's range, then what else the rule takes, in its order."""
    sliders = [Slider("lr", hyperparameters["lr"], *entry.rates, "log")]
    for name, value in hyperparameters.items():
        found = _RANGES.get(f"{entry.cls.__name__}.{name}", _RANGES.get(name))
        if found is not None:
            low, high, scale = found
            sliders.append(Slider(name, value, min(low, value), max(high, value), scale))
    return sliders


def loss_sliders(formula: LossFormula) -> list[Slider]:
    """Every parameter, as far as it is valid and of interest."""
    return [
        _of_parameter(name, value, formula.valid.get(name, Interval(-math.inf, math.inf)))
        for name, value in formula.parameters.items()
    ]


def _of_parameter(name: str, value: float, valid: Interval) -> Slider:
    low, high, closed = valid
    if low == 0.0 and high == math.inf and closed[0] == "(":
        return Slider(name, value, value / _FARTHEST, value * _FARTHEST, "log")
    bottom = value - _WIDTH if low == -math.inf else low
    top = max(value + _WIDTH, 0.0) if high == math.inf else high
    edge = 0.01 * (top - bottom)  # an end that does not belong to the interval is kept away from
    return Slider(
        name,
        value,
        bottom if closed[0] == "[" or low == -math.inf else bottom + edge,
        top if closed[1] == "]" or high == math.inf else top - edge,
        "linear",
    )
