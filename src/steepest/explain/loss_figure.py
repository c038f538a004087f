"""A loss drawn: its value, and its gradient, from the formula itself on the reference backend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from steepest.backends import reference_losses
from steepest.explain.figure import BESIDE, Figure, Line, Mark, Panel, broken_at_jumps
from steepest.losses import LOSSES, LossFormula

__all__ = ["Axis", "axis_of", "loss_figure"]

_FARTHEST_ERROR = 3.0
_FARTHEST_LOGIT = 6.0
_SMALLEST_PROBABILITY = 0.02
_HALF = 200  # points on either side of the middle

# The values shown of a parameter that changes a curve's shape, its default among them.
_SHAPES = {"alpha": (2.0, 1.0, -2.0), "quantile": (0.1, 0.5, 0.9)}
_SCALES = ("beta", "c", "delta")  # in the target's units: shown in multiples of the default
_MULTIPLES = (0.5, 1.0, 2.0)

# Where a formula's prediction runs along the horizontal axis: its name, and the targets that get a curve each.
_AXES = {
    "logit": ("logit x", (1.0, 0.0)),
    "margin": ("x", (1.0, -1.0)),
    "distance": ("distance x", (1.0, -1.0)),
    "log_rate": ("log of the mean x", (1.0, 3.0)),
    "log_probability": ("log-probability x", (0.25, 0.75)),
    "probability": ("probability p", (1.0, 0.0)),
}

Curve = tuple[Tensor, Tensor]  # value, gradient


@dataclass(frozen=True)
class Axis:
    """What a loss's curves run along, and the targets that get a curve each."""

    kind: Literal["error", "prediction", "true class"]
    title: str
    low: float
    high: float
    targets: tuple[float, ...]
    note: str


def axis_of(formula: LossFormula) -> Axis:
    """The axis of a loss that has curves: the error, the true class's probability, or the prediction itself."""
    low, high = _SMALLEST_PROBABILITY, 1.0 - _SMALLEST_PROBABILITY
    if formula.family == "softmax":
        return Axis("true class", "p of the true class", low, high, (1.0,), _note(formula))
    if formula.prediction == "real":
        far = _FARTHEST_ERROR * _scale(formula)
        return Axis("error", "error p - y", -far, far, (0.0,), "")
    title, targets = _AXES[formula.prediction]
    if formula.prediction == "log_probability":
        low, high = math.log(low), math.log(high)
    elif formula.prediction != "probability":
        high = _FARTHEST_LOGIT if formula.prediction == "logit" else _FARTHEST_ERROR
        low = 0.0 if formula.prediction == "distance" else -high
    return Axis("prediction", title, low, high, targets, "")


def _note(formula: LossFormula) -> str:
    plain: LossFormula = LOSSES["cross_entropy"].formula
    same = formula.value is plain.value and formula is not plain
    return "Drawn for classes of equal size, where it is cross_entropy." if same else ""


def loss_figure(formula: LossFormula) -> Figure:
    """Value and gradient side by side, against what the loss depends on."""
    if formula.family == "softmax":
        return _of_the_true_class(formula)
    if formula.prediction == "real":
        return _of_the_error(formula)
    return _of_two_targets(formula)


def _of_the_error(formula: LossFormula) -> Figure:
    x = _around_zero(_FARTHEST_ERROR * _scale(formula))
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


def _scale(formula: LossFormula) -> float:
    """What the formula counts errors by."""
    return next((value for name, value in formula.parameters.items() if name in _SCALES), 1.0)


def _choices(formula: LossFormula) -> list[dict[str, float]]:
    for name, default in formula.parameters.items():
        shown = [default * share for share in _MULTIPLES] if name in _SCALES else _SHAPES.get(name, ())
        if shown:
            return [{**formula.parameters, name: value} for value in shown]
    return [dict(formula.parameters)]


def _of_two_targets(formula: LossFormula) -> Figure:
    x_title, targets = _AXES[formula.prediction]
    limits = None
    if formula.prediction == "probability":
        x, limits = _probabilities(), (0.0, 1.0)
    elif formula.prediction == "log_probability":
        x = torch.log(_probabilities())
    elif formula.prediction == "distance":
        x = _around_zero(_FARTHEST_ERROR / 2) + _FARTHEST_ERROR / 2
    else:
        x = _around_zero(_FARTHEST_LOGIT if formula.prediction == "logit" else _FARTHEST_ERROR)
    options = tuple(formula.parameters.values())
    curves = {f"target y = {y:g}": _pointwise(formula, x, y, options) for y in targets}
    by = x_title.split()[-1]
    return _figure(formula, x, x_title, curves, gradient_title=f"gradient by {by}", x_limits=limits)


def _of_the_true_class(formula: LossFormula) -> Figure:
    p = _probabilities()
    logits = torch.stack([torch.log(p) - torch.log1p(-p), torch.zeros_like(p)], dim=1).requires_grad_()
    true_class = torch.zeros(len(p), dtype=torch.int64)
    options = tuple(formula.parameters.values())
    values = reference_losses.softmax(
        formula.value, logits, true_class, options, None, None, -100, 0.0, "none"
    )
    (slopes,) = torch.autograd.grad(values.sum(), logits)
    curves = {formula.name: (values.detach(), slopes[:, 0])}
    return _figure(
        formula,
        p,
        "p of the true class",
        curves,
        gradient_title="gradient by its logit",
        x_limits=(0.0, 1.0),
        caption=(note,) if (note := _note(formula)) else (),
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
    assert formula.gradient is not None  # a composite loss has no curve
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
    caption: tuple[str, ...] = (),
) -> Figure:
    every = [(name, BESIDE, curve) for name, curve in (beside or {}).items()]
    every += [(name, series, curve) for series, (name, curve) in enumerate(curves.items())]
    xs = tuple(x.tolist())
    values = tuple(Line(name, xs, tuple(curve[0].tolist()), series) for name, series, curve in every)
    slopes = tuple(
        Line(name, *broken_at_jumps(xs, curve[1].tolist()), series) for name, series, curve in every
    )
    kinks = tuple(dict.fromkeys(mark for line in slopes if line.series >= 0 for mark in _alone(line)))
    return Figure(
        title=f"{formula.title[0].upper()}{formula.title[1:]} of one row",
        subtitle=(f"value: {formula.formula}", f"gradient: {formula.gradient_formula}"),
        caption=caption,
        panels=(
            Panel("value", x_title, "loss", values, x_limits=x_limits),
            Panel("gradient", x_title, gradient_title, slopes, marks=kinks, x_limits=x_limits),
        ),
    )


def _alone(line: Line) -> list[Mark]:
    """The points between two jumps, which no line shows."""
    lifted = [math.isnan(y) for y in line.y]
    inner = range(1, len(lifted) - 1)
    return [Mark(line.x[i], line.y[i]) for i in inner if lifted[i - 1] and lifted[i + 1] and not lifted[i]]
