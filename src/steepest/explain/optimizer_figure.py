"""An optimizer drawn: its way down a ravine beside plain gradient descent, each at its own best rate."""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.explain.descent import Descent, best_descent
from steepest.explain.figure import BESIDE, CONTOUR, Figure, Line, Mark, Panel, Window
from steepest.explain.quadratic import contours
from steepest.explain.surfaces import CONDITION, RAVINE, TURN_DEGREES, hessian
from steepest.optim import OPTIMIZERS, OptimizerEntry

__all__ = ["optimizer_figure"]

# What is shown around the start; more where a path needs it, and then this much beyond the path.
_LEFT, _RIGHT, _BOTTOM, _TOP = 0.25, 1.4, 0.55, 0.5
_MARGIN = 0.03

_START = torch.tensor(RAVINE.start, dtype=torch.float64)
_OPTIMUM = torch.tensor(RAVINE.minima[0], dtype=torch.float64)


def optimizer_figure(entry: OptimizerEntry) -> Figure:
    """The path over the contours, and the distance from the optimum against steps."""
    plain = OPTIMIZERS["sgd"]
    ways = [(plain, BESIDE, best_descent(plain)), (entry, 0, best_descent(entry))]
    last = 1 + min(max(way.num_steps for _, _, way in ways), RAVINE.max_steps)
    window = _window([way.path[:last] for _, _, way in ways])
    paths, distances = [], []
    for each, series, way in ways:
        x, y = way.path[:last].T.tolist()
        paths.append(Line(each.name, tuple(x), tuple(y), series))
        shares = tuple(way.distances[:last])
        distances.append(Line(each.name, tuple(float(step) for step in range(len(shares))), shares, series))
    ground = tuple(
        Line("", x, y, CONTOUR)
        for x, y in contours(
            hessian(), _OPTIMUM, [0.5 * 4.0**-i * _start_value() for i in range(-2, 5)], window
        )
    )
    optimum = Mark(float(_OPTIMUM[0]), float(_OPTIMUM[1]), "optimum", below=True)
    top = max(1.0, max(max(line.y) for line in distances))
    return Figure(
        title=f"{entry.title[0].upper()}{entry.title[1:]} beside plain gradient descent, down a ravine",
        caption=(
            f"A ravine {CONDITION:g} times steeper across than along, turned by {TURN_DEGREES:g}°.",
            f"Steps until the distance stays below {RAVINE.near:.0%} of that at the start, each at its best rate: "
            + ", ".join(_said(each, way) for each, _, way in reversed(ways))
            + ".",
        ),
        panels=(
            Panel(
                "path", "first parameter", "second parameter", (*ground, *paths),
                marks=(Mark(float(_START[0]), float(_START[1]), "start"), optimum),
                is_map=True, given_window=window,
            ),
            Panel(
                "distance from the optimum", "steps", "share of the distance at the start", tuple(distances),
                log_y=True, given_window=Window(0.0, float(last - 1), RAVINE.near / 2, top),
            ),
        ),
    )  # fmt: skip


def _window(paths: list[Tensor]) -> Window:
    """The same for all optimizers whose paths it holds."""
    x0, y0 = _START.tolist()
    (left, bottom), (right, top) = torch.cat(paths).aminmax(dim=0)
    return Window(
        min(x0 - _LEFT, float(left) - _MARGIN),
        max(x0 + _RIGHT, float(right) + _MARGIN),
        min(y0 - _BOTTOM, float(bottom) - _MARGIN),
        max(y0 + _TOP, float(top) + _MARGIN),
    )


def _start_value() -> float:
    way = _OPTIMUM - _START
    return float(way @ hessian() @ way) / 2


def _said(entry: OptimizerEntry, way: Descent) -> str:
    count = f"{way.num_steps}" if way.arrives else f"more than {RAVINE.max_steps}"
    return f"{count} for {entry.name} (lr = {way.lr:.2g})"
