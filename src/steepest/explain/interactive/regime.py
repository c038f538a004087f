"""The page of a regime of gradient descent: three batch sizes side by side, on one table and at one rate."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from steepest.backends.javascript import Program
from steepest.explain.figure import Window
from steepest.explain.interactive.build import build
from steepest.explain.interactive.optimizer import hyperparameters_of, racer_of, surface_of
from steepest.explain.interactive.sliders import optimizer_sliders
from steepest.explain.page import Explanation
from steepest.explain.regime_figure import NUM_EPOCHS, NUM_ROWS, RATE, curvature, optimum, orders, table
from steepest.explain.regimes import REGIMES, Regime
from steepest.explain.surfaces import Surface
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS

__all__ = ["regime_web_page"]


def regime_web_page(regime: Regime, explanation: Explanation) -> str:
    """One HTML file, complete in itself: a linear model fitted to one table in all regimes, time in rows seen."""
    program, entry = Program(), OPTIMIZERS["sgd"]
    surface = _surface()
    x, y = table()
    rows = {
        "rows": [[*features, target] for features, target in zip(x.tolist(), y.tolist(), strict=True)],
        "orders": orders(),
        "gradient": program.add(LOSSES["mse"].formula.gradient),
    }
    in_order = [regime, *(other for other in REGIMES.values() if other is not regime)]
    racers = [
        racer_of(program, entry, {surface.name: RATE})
        | {"name": each.name, "batch": NUM_ROWS if each.batch_size == "full" else each.batch_size}
        for each in in_order
    ]
    lr, *others = optimizer_sliders(entry, {**hyperparameters_of(entry), "lr": RATE})
    sliders = [replace(lr, low=1e-3, high=1.0), *others]  # beyond, all three diverge
    data = {
        "surfaces": [surface_of(program, surface) | {"table": rows}],
        "racers": racers,
        "sliders": [
            asdict(replace(slider, low=1e-3, high=1.0) if slider.name == "lr" else slider)
            for slider in sliders
        ],
        "unit": "rows seen",
        "shared": True,
    }
    code = "".join(program.text(racers[0]["rule"][part]) for part in ("coefficients", "update"))
    return build(
        "optimizer",
        explanation,
        program,
        data,
        surfaces=[surface],
        code=code,
        numbers="The numbers of all three",
        caption="All three at one rate, from one start",
        near="rows till near",
    )


def _surface() -> Surface:
    """The mean squared error of the table, above its least: a bowl."""
    (across, both), (_, along) = (0.5 * curvature()).tolist()
    first, second = optimum().tolist()

    def bowl(x: Any, y: Any) -> Any:
        u, v = x - first, y - second
        return across * u * u + 2.0 * both * u * v + along * v * v

    return Surface(
        name="table",
        title="A table",
        text=f"The mean squared error of a linear model with two weights on {NUM_ROWS} rows. Fewer rows a step: "
        "farther with as many rows seen, then a restless circling of the optimum.",
        value=bowl,
        start=(0.0, 0.0),
        minima=((first, second),),
        window=Window(-0.3, 1.5, -0.425, 0.925),
        near=0.05,
        max_steps=NUM_EPOCHS * NUM_ROWS,
    )
