"""Gradient descent drawn in its three regimes: the same table, rate and start, and other batch sizes."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from steepest.explain.figure import CONTOUR, Figure, Line, Mark, Panel, Window
from steepest.explain.quadratic import contours
from steepest.explain.regimes import REGIMES, Regime
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS

__all__ = [
    "NUM_EPOCHS",
    "NUM_ROWS",
    "RATE",
    "curvature",
    "descend",
    "optimum",
    "orders",
    "regime_figure",
    "table",
]

NUM_ROWS = 64
NUM_EPOCHS = 24
RATE = 0.05
_WEIGHTS = (1.0, 0.5)
_NOISE = 0.3
_SEED = 1

_WINDOW = Window(-0.2, 1.45, -0.25, 0.85)


@cache
def table() -> tuple[Tensor, Tensor]:
    """Two features and a target that depends on them linearly, with noise."""
    random = torch.Generator().manual_seed(_SEED)
    x = torch.randn(NUM_ROWS, 2, dtype=torch.float64, generator=random)
    noise = torch.randn(NUM_ROWS, dtype=torch.float64, generator=random)
    return x, x @ torch.tensor(_WEIGHTS, dtype=torch.float64) + _NOISE * noise


def curvature() -> Tensor:
    """The second derivatives of the mean squared error."""
    x, _ = table()
    return 2 * x.T @ x / NUM_ROWS


def orders(num_epochs: int = NUM_EPOCHS) -> list[list[int]]:
    """The rows in the order they are seen, an epoch after another."""
    random = torch.Generator().manual_seed(_SEED)
    return [torch.randperm(NUM_ROWS, generator=random).tolist() for _ in range(num_epochs)]


def optimum() -> Tensor:
    """The least-squares weights, in closed form."""
    x, y = table()
    weights: Tensor = torch.linalg.solve(x.T @ x, x.T @ y)
    return weights


def descend(batch_size: int, num_epochs: int = NUM_EPOCHS) -> Tensor:
    """The path from the origin, (steps + 1, 2), by MSE's gradient and gradient descent's update rule."""
    x, y = table()
    loss, entry = LOSSES["mse"].formula, OPTIMIZERS["sgd"]
    group = entry.cls([torch.nn.Parameter(torch.zeros(1))], **{"lr": RATE, **entry.options}).param_groups[0]
    rule, hyper = entry.cls.rule_of(group), entry.cls.hyperparameters_of(group)
    w = torch.zeros(2, dtype=torch.float64)
    path = [w]
    for order in orders(num_epochs):
        for rows in torch.tensor(order).split(batch_size):
            gradient = loss.gradient(x[rows] @ w, y[rows]) @ x[rows] / len(rows)
            (w,) = rule.update(w, gradient, *rule.coefficients(float(len(path)), *hyper.values()))
            path.append(w)
    return torch.stack(path)


def regime_figure() -> Figure:
    """The paths over the contours of the mean squared error, and the distance against rows seen."""
    best = optimum()
    paths, distances = [], []
    for series, regime in enumerate(REGIMES.values()):
        batch_size = _rows_a_step(regime)
        way = descend(batch_size)
        x, y = way.T.tolist()
        shares = ((way - best).norm(dim=1) / best.norm()).tolist()
        seen = tuple(float(step * batch_size) for step in range(len(shares)))
        label = f"{regime.name} ({batch_size} {'row' if batch_size == 1 else 'rows'} a step)"
        paths.append(Line(label, tuple(x), tuple(y), series))
        distances.append(Line(label, seen, tuple(shares), series))
    levels = [float(best @ curvature() @ best) / 2 * 4.0**-i for i in range(-1, 5)]
    ground = tuple(Line("", x, y, CONTOUR) for x, y in contours(curvature(), best, levels, _WINDOW))
    drawn_last = tuple(reversed(paths))  # the noisiest at the bottom
    return Figure(
        title="Gradient descent with all rows, some rows and one row a step",
        caption=(
            f"Mean squared error of a linear model on {NUM_ROWS} rows; one start, and lr = {RATE:g} for all.",
            "Fewer rows a step: farther with as many rows seen, then a restless circling of the optimum.",
        ),
        panels=(
            Panel(
                "path", "first weight", "second weight", (*ground, *drawn_last),
                marks=(Mark(0.0, 0.0, "start"), Mark(float(best[0]), float(best[1]), "optimum", below=True)),
                is_map=True, given_window=_WINDOW,
            ),
            Panel(
                "distance from the optimum", "rows seen", "share of the distance at the start",
                tuple(reversed(distances)), log_y=True,
                given_window=Window(0.0, float(NUM_EPOCHS * NUM_ROWS), 0.002, 1.0),
            ),
        ),
    )  # fmt: skip


def _rows_a_step(regime: Regime) -> int:
    return NUM_ROWS if regime.batch_size == "full" else regime.batch_size
