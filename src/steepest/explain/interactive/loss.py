"""The page of a loss: its curves with its parameters in hand, and what one row far off does to a fit."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from steepest.backends.javascript import Program
from steepest.explain.interactive.build import build
from steepest.explain.interactive.sliders import loss_sliders
from steepest.explain.loss_figure import axis_of
from steepest.explain.page import Explanation
from steepest.losses import LOSSES, LossFormula
from steepest.optim import OPTIMIZERS

__all__ = ["loss_web_page"]

NUM_ROWS = 18


def loss_web_page(formula: LossFormula, explanation: Explanation) -> str:
    """One HTML file, complete in itself: the loss's value and gradient in JavaScript, beside another loss's."""
    program = Program()
    axis = axis_of(formula)
    beside: LossFormula = LOSSES["mae" if formula.name == "mse" else "mse"].formula
    data: dict[str, Any] = {
        "loss": _loss(program, formula),
        "beside": _loss(program, beside),
        "sliders": [asdict(slider) for slider in loss_sliders(formula)],
        "axis": asdict(axis),
        "fit": _fit(program, formula),
    }
    code = "".join(program.text(data["loss"][part]) for part in ("value", "gradient"))
    return build(
        "loss",
        explanation,
        program,
        data,
        code=code,
        axis=axis,
        beside=beside,
        fit=data["fit"],
        formula=formula,
    )


def _loss(program: Program, formula: LossFormula) -> dict[str, Any]:
    assert formula.gradient is not None  # a composite loss has no curve
    return {
        "name": formula.name,
        "value": program.add(formula.value),
        "gradient": program.add(formula.gradient),
        "parameters": dict(formula.parameters),
    }


def _fit(program: Program, formula: LossFormula) -> dict[str, Any] | None:
    """Rows, and what a line through them means; ``None`` where a loss is for something else."""
    kind = _FITS.get(formula.prediction, "classes")
    if kind is None:
        return None
    entry = OPTIMIZERS["adam"]
    group = entry.cls([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]
    rule = entry.cls.rule_of(group)
    return {
        "kind": kind,
        "prediction": formula.prediction,
        "target": formula.target,
        **_ROWS[kind](),
        "adam": {
            "coefficients": program.add(rule.coefficients),
            "update": program.add(rule.update),
            "hyperparameters": entry.cls.hyperparameters_of(group),
        },
    }


def _line() -> dict[str, Any]:
    random = torch.Generator().manual_seed(3)
    x = torch.linspace(-1.8, 1.8, NUM_ROWS - 1, dtype=torch.float64)
    y = 0.2 + 0.9 * x + 0.3 * torch.randn(len(x), dtype=torch.float64, generator=random)
    return _rows([x, y], [1.45, -2.5], [-2.0, 2.0, -3.2, 3.2])


def _rate() -> dict[str, Any]:
    random = torch.Generator().manual_seed(3)
    x = torch.linspace(-1.8, 1.8, NUM_ROWS - 1, dtype=torch.float64)
    y = torch.poisson(torch.exp(0.9 + 0.7 * x), generator=random)
    return _rows([x, y.clamp(min=0.5)], [-1.4, 14.0], [-2.0, 2.0, 0.0, 17.0])  # amounts are above 0


def _classes() -> dict[str, Any]:
    random = torch.Generator().manual_seed(11)  # no line parts them: each loss has a best one
    label = (torch.arange(NUM_ROWS - 1) % 2).double()
    side = 2 * label - 1
    place = 0.8 * torch.randn(2, NUM_ROWS - 1, dtype=torch.float64, generator=random)
    return _rows(
        [place[0] + 0.75 * side, place[1] + 0.4 * side, label], [-1.9, -1.2, 1.0], [-2.6, 2.6, -1.95, 1.95]
    )


# What a model gives, where that is no logit or margin of a class, and the fit it is shown by.
_FITS = {"real": "line", "log_rate": "rate", "log_probability": None, "distance": None}
_ROWS = {"line": _line, "rate": _rate, "classes": _classes}


def _rows(columns: list[torch.Tensor], moved: list[float], window: list[float]) -> dict[str, Any]:
    """The rows that stay, the one to be moved, and what is shown: left, right, bottom, top."""
    return {
        "rows": torch.stack(columns, dim=1).round(decimals=3).tolist(),
        "moved": moved,
        "window": window,
    }
