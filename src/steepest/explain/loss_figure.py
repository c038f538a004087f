"""A loss drawn: its value, and its gradient, from the formula itself on the reference backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steepest.backends import reference_losses
from steepest.explain.figure import BESIDE, Figure, Line, Mark, Panel, broken_at_jumps
from steepest.losses import LOSSES, LossFormula

__all__ = ["loss_figure"]

_FARTHEST_ERROR = 3.0
_FARTHEST_LOGIT = 6.0
_SMALLEST_PROBABILITY = 0.02
_HALF = 200  # points on either side of the middle

# The values shown of a parameter that changes a curve's shape, its default among them.
_SHAPES = {"delta": (0.5, 1.0, 2.0), "quantile": (0.1, 0.5, 0.9)}

Curve = tuple[Tensor, Tensor]  # value, gradient


def loss_figure(formula: LossFormula) -> Figure:
    """Value and gradient side by side, against what the loss depends on."""
    if formula.family == "softmax":
        return _of_the_true_class(formula)
    if formula.prediction == "real":
        return _of_the_error(formula)
    return _of_two_targets(formula)


def _of_the_error(formula: LossFormula) -> Figure:
    x = _around_zero(_FARTHEST_ERROR)
    curves = {}
    for options in _choices(formula):
        label = ", ".join(f"{name} = {value:g}" for name, value in options.items())
        curves[label or formula.name] = _pointwise(formula, x, 0.0, tuple(options.values()))
    beside: LossFormula = LOSSES["mae" if formula.name == "mse" else "mse"].formula
    return _figure(
        formula,
        x,
        "error p - y",
        curves,
        gradient_title="gradient by p",
        beside={beside.name: _pointwise(beside, x, 0.0, tuple(beside.parameters.values()))},
    )


def _choices(formula: LossFormula) -> list[dict[str, float]]:
    for name in formula.parameters:
        if name in _SHAPES:
            return [{**formula.parameters, name: value} for value in _SHAPES[name]]
    return [dict(formula.parameters)]


def _of_two_targets(formula: LossFormula) -> Figure:
    if formula.prediction == "logit":
        x = _around_zero(_FARTHEST_LOGIT)
        x_title, by = "logit x", "x"
        limits = None
    else:
        x = _probabilities()
        x_title, by = "probability p", "p"
        limits = (0.0, 1.0)
    options = tuple(formula.parameters.values())
    curves = {f"target y = {y:g}": _pointwise(formula, x, y, options) for y in (1.0, 0.0)}
    return _figure(formula, x, x_title, curves, gradient_title=f"gradient by {by}", x_limits=limits)


def _of_the_true_class(formula: LossFormula) -> Figure:
    p = _probabilities()
    logits = torch.stack([torch.log(p) - torch.log1p(-p), torch.zeros_like(p)], dim=1).requires_grad_()
    true_class = torch.zeros(len(p), dtype=torch.int64)
    options = tuple(formula.parameters.values())
    values = reference_losses.softmax(formula.value, logits, true_class, options, None, -100, 0.0, "none")
    (slopes,) = torch.autograd.grad(values.sum(), logits)
    curves = {formula.name: (values.detach(), slopes[:, 0])}
    return _figure(
        formula,
        p,
        "p of the true class",
        curves,
        gradient_title="gradient by its logit",
        x_limits=(0.0, 1.0),
    )


def _around_zero(farthest: float) -> Tensor:
    """Evenly spaced, 0 itself among them."""
    return torch.arange(-_HALF, _HALF + 1, dtype=torch.float64) * (farthest / _HALF)


def _probabilities() -> Tensor:
    return torch.linspace(
        _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY, 2 * _HALF + 1, dtype=torch.float64
    )


def _pointwise(formula: LossFormula, x: Tensor, target: float, options: Sequence[float]) -> Curve:
    y = torch.full_like(x, target)
    gradient: Any = formula.gradient(x, y, *options)
    return formula.value(x, y, *options), gradient + torch.zeros_like(x)


def _figure(
    formula: LossFormula,
    x: Tensor,
    x_title: str,
    curves: dict[str, Curve],
    *,
    gradient_title: str,
    beside: dict[str, Curve] | None = None,
    x_limits: tuple[float, float] | None = None,
) -> Figure:
    every = [(name, BESIDE, curve) for name, curve in (beside or {}).items()]
    every += [(name, series, curve) for series, (name, curve) in enumerate(curves.items())]
    xs = tuple(x.tolist())
    values = tuple(Line(name, xs, tuple(curve[0].tolist()), series) for name, series, curve in every)
    slopes = tuple(
        Line(name, *broken_at_jumps(xs, curve[1].tolist()), series) for name, series, curve in every
    )
    middle = len(xs) // 2
    jumps = any(len(line.x) > len(xs) for line in slopes if line.series >= 0)
    first = next(iter(curves.values()))
    kink = (Mark(xs[middle], float(first[1][middle])),) if jumps else ()
    return Figure(
        title=f"{formula.title[0].upper()}{formula.title[1:]} of one row",
        subtitle=(f"value: {formula.formula}", f"gradient: {formula.gradient_formula}"),
        panels=(
            Panel("value", x_title, "loss", values, x_limits=x_limits),
            Panel("gradient", x_title, gradient_title, slopes, marks=kink, x_limits=x_limits),
        ),
    )
