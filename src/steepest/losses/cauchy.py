"""Cauchy's (Lorentzian) loss."""

from __future__ import annotations

import math
from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.reference import abs, log1p, where
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches
from steepest.tuning_range import TuningRange

__all__ = ["CauchyLoss", "cauchy_loss"]

# Errors in units of c:
_HUGE = 1e60  # from here on z is taken _DOWN times, for z^2 might overflow, and z itself
_DOWN, _LOG_UP = 2.0**-100, 200.0 * math.log(2.0)  # log(1 + z^2) = 2 log(z) = 2 log(1 + z _DOWN) + _LOG_UP
_TINY = 1e-35  # up to here log(1 + z^2) is z^2, to more digits than any type has


def _z(e: Any, c: Any) -> tuple[Any, Any]:
    huge = abs(e) >= _HUGE * c
    return huge, where(huge, _DOWN * e, e) / c


def value(p: Any, y: Any, c: Any) -> Any:
    # (c^2 / 2) log(1 + (e / c)^2)
    e = p - y
    huge, z = _z(e, c)
    near = where(huge, 0.0, z)
    log = log1p(where(huge, abs(z), near * near))
    tiny = abs(e) <= _TINY * c
    square = where(tiny, e, 0.0)
    return where(tiny, 0.5 * square * square, 0.5 * c * (c * where(huge, 2.0 * log + _LOG_UP, log)))


def gradient(p: Any, y: Any, c: Any) -> Any:
    # e / (1 + (e / c)^2), far out c / (e / c)
    e = p - y
    huge, z = _z(e, c)
    return where(huge, _DOWN * c, e) / where(huge, z, 1.0 + z * z)


FORMULA = LossFormula(
    name="cauchy",
    title="Cauchy (Lorentzian) loss",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="real",
    target="real",
    tasks=("regression",),
    formula="mean of c²/2 log(1 + ((p - y) / c)²)",
    gradient_formula="(p - y) / (1 + ((p - y) / c)²)",
    domain="any real prediction p and target y; c is the scale of the errors that count fully",
    source="Black and Anandan 1996, The Robust Estimation of Multiple Motions, CVIU 63 (as Lorentzian)",
    good_at=("gross outliers: beyond c, the further a row is off, the less it pulls",),
    bad_at=(
        "a poor start: rows further off than c pull little, the right ones included",
        "one best fit: the loss is not convex, and where descent ends depends on where it began",
    ),
    parameters={"c": 1.0},
    valid={"c": Interval(0.0, float("inf"))},
    tunable={"c": TuningRange(0.1, 10.0, "log")},
    compared_by_default=False,  # not convex: for tables known to hold gross outliers
)


def cauchy_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    c: float = 1.0,
    weight: Tensor | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of Cauchy's loss with scale ``c``; see :class:`CauchyLoss`."""
    return pointwise_loss(FORMULA, input, target, (c,), weight=weight, reduction=reduction, **switches)


class CauchyLoss(LossModule, nn.Module):
    """Cauchy's loss: squared well within ``c`` of the target, logarithmic beyond.

    ``c^2 / 2 log(1 + ((p - y) / c)^2)``, as ``loss="cauchy"`` of SciPy's ``least_squares`` with ``f_scale=c``.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        c: the error with the largest pull, in the target's units, greater than 0; 2.385 standard deviations of
            normal noise keep 95% of the efficiency of least squares.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target alike, any; the result is a scalar, or that shape for ``"none"``.

    Raises:
        InputError: the shapes differ, or ``c`` is not positive and finite.

    Numerics: small errors go through ``log1p``, huge ones through a sum of logarithms, so nothing is rounded
    away and no square overflows. An infinite error costs infinity, with a gradient of 0.

    Source: Black and Anandan 1996.

    >>> import torch
    >>> round(float(CauchyLoss()(torch.tensor([1.0, 1e30]), torch.tensor([0.0, 0.0]))), 6)
    34.712063
    """

    formula = FORMULA

    def __init__(self, reduction: str = "mean", c: float = 1.0, **switches: Unpack[Switches]) -> None:
        super().__init__()
        self.reduction = reduction
        self.c = c
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return cauchy_loss(input, target, self.reduction, self.c, **self.switches)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"c={self.c}", super().extra_repr()]))
