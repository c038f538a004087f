"""Tukey's biweight loss."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.reference import where
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches
from steepest.tuning_range import TuningRange

__all__ = ["TukeyLoss", "tukey_loss"]


def _share_left(p: Any, y: Any, c: Any) -> Any:
    # 1 - (e / c)^2 = u (2 - u) with u = (c - |e|) / c, 0 beyond c. Near c the rounding of e itself would be all that is
    # left of c - |e|, so it is carried along.
    e = p - y
    a = where(e < 0.0, -e, e)
    back = p - e
    lost = (back - y) + (p - (e + back))
    held = where(a > c, c, a)
    left = (c - held) - where(a > c, 0.0, where(e < 0.0, -lost, lost))
    u = where(left <= 0.0, 0.0, left) / c
    return u * (2.0 - u)


def value(p: Any, y: Any, c: Any) -> Any:
    # (c^2 / 6) (1 - q^3) within c, q = 1 - w, w = (e / c)^2; for small w, where that is a small difference of large
    # numbers, (e^2 / 6) (3 - 3 w + w^2); c^2 / 6 beyond
    e = p - y
    q = _share_left(p, y, c)
    near = where(q > 0.5, e, 0.0)
    w = (near / c) * (near / c)
    of_error = near * (near * ((3.0 - w * (3.0 - w)) / 6.0))
    return where(q > 0.5, of_error, c * (c * ((1.0 - q * q * q) / 6.0)))


def gradient(p: Any, y: Any, c: Any) -> Any:
    # e (1 - (e / c)^2)^2 within c, 0 beyond
    e = p - y
    q = _share_left(p, y, c)
    return where(q == 0.0, 0.0, e * (q * q))


FORMULA = LossFormula(
    name="tukey",
    title="Tukey's biweight loss",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="real",
    target="real",
    tasks=("regression",),
    formula="mean of c²/6 (1 - (1 - ((p - y) / c)²)³) where |p - y| ≤ c, else c²/6",
    gradient_formula="(p - y) (1 - ((p - y) / c)²)² where |p - y| ≤ c, else 0",
    domain="any real prediction p and target y; c is the error beyond which a row no longer counts",
    source="Beaton and Tukey 1974, The Fitting of Power Series, Meaning Polynomials, Technometrics 16, p. 147",
    good_at=("gross outliers: a row off by more than c has no say at all",),
    bad_at=(
        "a poor start: rows further off than c pull not at all, and descent may never find them again",
        "one best fit: the loss is not convex, and where descent ends depends on where it began",
    ),
    parameters={"c": 4.685},
    valid={"c": Interval(0.0, float("inf"))},
    tunable={"c": TuningRange(1.0, 20.0, "log")},
    compared_by_default=False,  # not convex: for tables known to hold gross outliers
)


def tukey_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    c: float = 4.685,
    weight: Tensor | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of Tukey's biweight loss with cut-off ``c``; see :class:`TukeyLoss`."""
    return pointwise_loss(FORMULA, input, target, (c,), weight=weight, reduction=reduction, **switches)


class TukeyLoss(LossModule, nn.Module):
    """Tukey's biweight: squared near the target, constant beyond ``c``.

    ``c^2 / 6 (1 - (1 - (e / c)^2)^3)`` with ``e = p - y`` where ``|e| <= c``, else ``c^2 / 6``.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        c: the error beyond which a row no longer counts, in the target's units, greater than 0; 4.685 standard
            deviations of normal noise (the default, for targets in that unit) keep 95% of the efficiency of least
            squares.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target alike, any; the result is a scalar, or that shape for ``"none"``.

    Raises:
        InputError: the shapes differ, or ``c`` is not positive and finite.

    Numerics: a small error costs ``e^2 / 2`` to the last digit; near ``c`` the gradient is taken from
    ``(c - |e|) (c + |e|)``. An infinite error costs ``c^2 / 6``, with a gradient of 0.

    Source: Beaton and Tukey 1974.

    >>> import torch
    >>> float(TukeyLoss(c=3.0)(torch.tensor([9.0, 0.0]), torch.tensor([0.0, 0.0])))
    0.75
    """

    formula = FORMULA

    def __init__(self, reduction: str = "mean", c: float = 4.685, **switches: Unpack[Switches]) -> None:
        super().__init__()
        self.reduction = reduction
        self.c = c
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return tukey_loss(input, target, self.reduction, self.c, **self.switches)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"c={self.c}", super().extra_repr()]))
