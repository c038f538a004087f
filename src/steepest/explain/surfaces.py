"""Surfaces of two parameters to go down, each written once as a formula.

They use the vocabulary of :mod:`steepest.backends.reference`, as the losses do: the slopes are derived, and a page
computes with the same text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from steepest.backends.derive import derivative
from steepest.explain.figure import Window

__all__ = ["CONDITION", "RAVINE", "SURFACES", "TURN_DEGREES", "Surface", "hessian", "noise_of", "slopes"]

CONDITION = 100.0  # of the ravine: how much steeper across than along
TURN_DEGREES = 20.0  # turned, so that no direction is a parameter's own
_COS, _SIN = math.cos(math.radians(TURN_DEGREES)), math.sin(math.radians(TURN_DEGREES))

# Not from the origin: a layer-wise rule asks how long the parameters are, and there they have no length.
_START = (-0.5, 0.5)
_ALONG, _ACROSS = 1.0, 0.2  # from the start to the optimum, in the ravine's own directions
_X, _Y = _START[0] + _ALONG * _COS + _ACROSS * _SIN, _START[1] + _ALONG * _SIN - _ACROSS * _COS


def hessian() -> Tensor:
    """The ravine's second derivatives: ``f(p) = (p - optimum) H (p - optimum) / 2``."""
    turn = torch.tensor([[_COS, -_SIN], [_SIN, _COS]], dtype=torch.float64)
    return turn @ torch.diag(torch.tensor([1.0, CONDITION], dtype=torch.float64)) @ turn.T


def ravine(x: Any, y: Any) -> Any:
    # (along^2 + CONDITION across^2) / 2
    along = _COS * (x - _X) + _SIN * (y - _Y)
    across = _COS * (y - _Y) - _SIN * (x - _X)
    return 0.5 * (along * along + CONDITION * across * across)


def saddle(x: Any, y: Any) -> Any:
    # (along^2 - 1)^2 / 4 + 5 across^2: minima where along is 1 and -1, the saddle between them
    along, across = _COS * x + _SIN * y, _COS * y - _SIN * x
    valley = along * along - 1.0
    return 0.25 * valley * valley + 5.0 * across * across


def rosenbrock(x: Any, y: Any) -> Any:
    # a curved valley, nearly flat along its floor
    off = y - x * x
    return (1.0 - x) * (1.0 - x) + 100.0 * off * off


def bowl(x: Any, y: Any) -> Any:
    return 0.5 * (x * x + 3.0 * y * y)


@dataclass(frozen=True)
class Surface:
    """A surface, where one starts, and what counts as having arrived."""

    name: str
    title: str
    text: str  # what is hard about it
    value: Callable[[Any, Any], Any]
    start: tuple[float, float]
    minima: tuple[tuple[float, float], ...]
    window: Window  # what a page shows of it: four by three
    near: float = 0.01  # "there": this share of the distance at the start
    max_steps: int = 400
    noise: float = 0.0  # standard deviation of what is added to each slope


RAVINE = Surface(
    name="ravine",
    title="Ravine",
    text=f"{CONDITION:g} times steeper across than along, and turned: the rate that the steep direction allows is "
    "slow along the flat one.",
    value=ravine,
    start=_START,
    minima=((_X, _Y),),
    window=Window(-0.8, 0.8, 0.0, 1.2),
)
SURFACES = {
    surface.name: surface
    for surface in (
        RAVINE,
        Surface(
            name="saddle",
            title="Saddle",
            text="The start is almost on the ridge: the slope there is small, and grows only slowly on the way out.",
            value=saddle,
            start=(0.02 * _COS - 0.9 * _SIN, 0.02 * _SIN + 0.9 * _COS),
            minima=((_COS, _SIN), (-_COS, -_SIN)),
            window=Window(-1.6, 1.6, -1.1, 1.3),
            max_steps=150,
        ),
        Surface(
            name="rosenbrock",
            title="Rosenbrock's valley",
            text="Into the valley is easy. Along its curved, almost flat floor is the work.",
            value=rosenbrock,
            start=(-1.2, 1.0),
            minima=((1.0, 1.0),),
            window=Window(-1.9, 1.9, -0.7, 2.15),
            near=0.05,
        ),
        Surface(
            name="noisy",
            title="Noisy bowl",
            text="Every slope comes with noise, as from a few rows of a table: what is quick is restless at the end.",
            value=bowl,
            start=(-1.5, 0.9),
            minima=((0.0, 0.0),),
            window=Window(-2.0, 1.2, -1.1, 1.3),
            near=0.1,
            max_steps=200,
            noise=0.5,
        ),
    )
}


@cache
def slopes(surface: Surface) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The derivatives by the first and by the second parameter, as formulas."""
    return derivative(surface.value, 0), derivative(surface.value, 1)


@cache
def noise_of(surface: Surface) -> Tensor:
    """What is added to the slopes in each step that is watched, (2 max_steps, 2); the same for everyone."""
    random = torch.Generator().manual_seed(1)
    drawn = torch.randn(2 * surface.max_steps, 2, dtype=torch.float64, generator=random)
    return (surface.noise * drawn).round(decimals=3)
