"""The page of an optimizer: its way down four surfaces beside others', with its hyperparameters in hand."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import Any

import torch

from steepest.backends.javascript import Program
from steepest.explain.descent import best_descent
from steepest.explain.figure import Window
from steepest.explain.interactive.build import build
from steepest.explain.interactive.sliders import optimizer_sliders
from steepest.explain.page import Explanation
from steepest.explain.surfaces import SURFACES, Surface, noise_of, slopes
from steepest.optim import OPTIMIZERS, OptimizerEntry, Rule

__all__ = ["hyperparameters_of", "optimizer_web_page", "racer_of", "surface_of"]

_BESIDE = ("sgd", "momentum", "rmsprop", "adam")


def optimizer_web_page(entry: OptimizerEntry, explanation: Explanation) -> str:
    """One HTML file, complete in itself: the entry's rule in JavaScript, on every surface, beside the best known.

    Each optimizer runs at the rate that :func:`~steepest.explain.descent.best_descent` finds for it on the surface.
    """
    program = Program()
    hyperparameters = hyperparameters_of(entry)
    others = [OPTIMIZERS[name] for name in _BESIDE if name != entry.name]
    racers = [racer_of(program, entry, {name: best_descent(entry, SURFACES[name]).lr for name in SURFACES})]
    racers += [
        racer_of(program, other, {name: _tuned(other.name, name) for name in SURFACES}) for other in others
    ]
    data = {
        "surfaces": [surface_of(program, surface) for surface in SURFACES.values()],
        "racers": racers,
        "sliders": [asdict(slider) for slider in optimizer_sliders(entry, hyperparameters)],
        "unit": "steps",
        "shared": False,
    }
    rule = racers[0]["rule"]
    code = "".join(program.text(rule[part]) for part in ("coefficients", "update"))
    return build(
        "optimizer",
        explanation,
        program,
        data,
        surfaces=list(SURFACES.values()),
        code=code,
        numbers=f"{entry.name}'s own numbers",
        caption="Each at the rate that brings it near a minimum, for good, in the fewest steps",
        near="steps till near",
    )


@cache
def _tuned(optimizer: str, surface: str) -> float:
    return best_descent(OPTIMIZERS[optimizer], SURFACES[surface]).lr


def _group(entry: OptimizerEntry) -> dict[str, Any]:
    live = entry.cls([torch.nn.Parameter(torch.zeros(1))], **{"lr": entry.default_lr, **entry.options})
    group: dict[str, Any] = live.param_groups[0]
    return group


def hyperparameters_of(entry: OptimizerEntry) -> dict[str, float]:
    """What the entry's rule takes, at its defaults."""
    found: dict[str, float] = entry.cls.hyperparameters_of(_group(entry))
    return found


def racer_of(program: Program, entry: OptimizerEntry, rates: dict[str, float]) -> dict[str, Any]:
    """One that runs: the entry's rule in the program, its hyperparameters, and its rate on every surface."""
    rule: Rule = entry.cls.rule_of(_group(entry))
    functions: dict[str, Any] = {"coefficients": rule.coefficients, "update": rule.update}
    if rule.measure is not None and rule.trust is not None:
        functions |= {"measure": rule.measure, "trust": rule.trust}
    return {
        "name": entry.name,
        "rates": rates,
        "hyperparameters": hyperparameters_of(entry),
        "rule": {
            **{part: program.add(function) for part, function in functions.items()},
            # Where each begins: a number, a hyperparameter's name, "parameter" or "gradient".
            "slots": [rule.initial.get(name, 0.0) for name in rule.slots],
            "scalars": [rule.initial.get(name, 0.0) for name in rule.scalars],
        },
    }


def surface_of(program: Program, surface: Surface) -> dict[str, Any]:
    """A surface with its formulas in the program."""
    return {
        "name": surface.name,
        "title": surface.title,
        "value": program.add(surface.value),
        "slopes": [program.add(slope) for slope in slopes(surface)],
        "start": surface.start,
        "minima": surface.minima,
        "window": _ends(surface.window),
        "near": surface.near,
        "steps": surface.max_steps,
        "noise": noise_of(surface).tolist() if surface.noise else None,
    }


def _ends(window: Window) -> list[float]:
    return [window.left, window.right, window.bottom, window.top]
