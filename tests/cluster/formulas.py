"""A loss and an optimizer that no worker has heard of."""

from __future__ import annotations

from typing import Any

from steepest.losses import LOSSES, from_formula
from steepest.optim import OPTIMIZERS, from_rule


def wave(prediction: Any, target: Any) -> Any:
    e = prediction - target
    return e * e + 0.5 * e * e * e * e


def walk(parameter: Any, gradient: Any, pace: Any, lr: Any, beta: Any) -> Any:
    pace = beta * pace + gradient
    return parameter - lr * pace, pace


def enter() -> None:
    from_formula(wave, name="wave")
    from_rule(walk, state=("pace",), defaults={"lr": 0.01, "beta": 0.5}, name="walk")


def leave() -> None:
    del LOSSES["wave"], OPTIMIZERS["walk"]
