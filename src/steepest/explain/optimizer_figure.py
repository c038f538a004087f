"""An optimizer drawn: its way down a ravine beside plain gradient descent, each at its own best rate."""

from __future__ import annotations

from steepest.explain.figure import BESIDE, CONTOUR, Figure, Line, Mark, Panel, Window
from steepest.explain.quadratic import contours
from steepest.explain.ravine import (
    CONDITION,
    MAX_STEPS,
    NEAR,
    OPTIMUM,
    TURN_DEGREES,
    Descent,
    best_descent,
    hessian,
)
from steepest.optim import OPTIMIZERS, OptimizerEntry

__all__ = ["optimizer_figure"]

_WINDOW = Window(-0.25, 1.4, -0.55, 0.5)


def optimizer_figure(entry: OptimizerEntry) -> Figure:
    """The path over the contours, and the distance from the optimum against steps."""
    plain = OPTIMIZERS["sgd"]
    ways = [(plain, BESIDE, best_descent(plain)), (entry, 0, best_descent(entry))]
    last = 1 + max(way.num_steps for _, _, way in ways)
    paths, distances = [], []
    for each, series, way in ways:
        x, y = way.path[:last].T.tolist()
        paths.append(Line(each.name, tuple(x), tuple(y), series))
        shares = tuple(way.distances[:last])
        distances.append(Line(each.name, tuple(float(step) for step in range(len(shares))), shares, series))
    ground = tuple(
        Line("", x, y, CONTOUR)
        for x, y in contours(
            hessian(), OPTIMUM, [0.5 * 4.0**-i * _start_value() for i in range(-2, 5)], _WINDOW
        )
    )
    optimum = Mark(float(OPTIMUM[0]), float(OPTIMUM[1]), "optimum", below=True)
    top = max(1.0, max(max(line.y) for line in distances))
    return Figure(
        title=f"{entry.title[0].upper()}{entry.title[1:]} beside plain gradient descent, down a ravine",
        caption=(
            f"A ravine {CONDITION:g} times steeper across than along, turned by {TURN_DEGREES:g}°.",
            f"Steps until the distance stays below {NEAR:.0%} of that at the start, each at its best rate: "
            + ", ".join(_said(each, way) for each, _, way in reversed(ways))
            + ".",
        ),
        panels=(
            Panel(
                "path", "first parameter", "second parameter", (*ground, *paths),
                marks=(Mark(0.0, 0.0, "start"), optimum), is_map=True, given_window=_WINDOW,
            ),
            Panel(
                "distance from the optimum", "steps", "share of the distance at the start", tuple(distances),
                log_y=True, given_window=Window(0.0, float(last - 1), NEAR / 2, top),
            ),
        ),
    )  # fmt: skip


def _start_value() -> float:
    return float(OPTIMUM @ hessian() @ OPTIMUM) / 2


def _said(entry: OptimizerEntry, way: Descent) -> str:
    count = f"{way.num_steps}" if way.arrives else f"more than {MAX_STEPS}"
    return f"{count} for {entry.name} (lr = {way.lr:.2g})"
