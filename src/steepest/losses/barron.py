"""Barron's general robust loss."""

from __future__ import annotations

import math
from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.reference import abs, exp, expm1, log, log1p, power, sign, sqrt, where
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches
from steepest.tuning_range import TuningRange

__all__ = ["GeneralRobustLoss", "general_robust_loss"]

_INF = math.inf
_FAR = 2.0**60  # of z / sqrt(b), from where on it is not squared; 1 + w is w long before, in every type
_HUGE, _DOWN = 2.0**900, 2.0**128  # errors beyond the first are divided by the second before anything else
_TINY = 1e-70  # of w, up to where b log(1 + w) is z^2 to more digits than any type has
_SMALL = 2.0**-10  # of k, up to where expm1(t) / k is taken as half expm1(t) / t

# With z = |e| / c, b = |alpha - 2|, w = z^2 / b and k = alpha / b the loss is ((1 + w)^(alpha / 2) - 1) / k. With
# half = (b / 2) log(1 + w) and t = k half it is expm1(t) / k, which has the limits in it: half is z^2 / 2 for b = 0
# and b = inf, where w is set to 0, and expm1(t) / k is half for k = 0. An alpha of 2 has k = 0 as well, for its loss
# is half too. Infinite errors have values of their own.


def _beside(e: Any, number: Any) -> Any:
    # a parameter as wide as the errors, so that the vocabulary takes it
    return where(e == e, number, e)


def _ratio(alpha: Any, b: Any) -> Any:
    # k = alpha / b
    finite = alpha / where(b == 0.0, 1.0, b)
    return where(b == 0.0, 0.0, where(b == _INF, sign(alpha), finite))


def _is_far(a: Any, b: Any, c: Any) -> Any:
    return a > _FAR * c * where(b == 0.0, _INF, sqrt(b))


def _w(z: Any, b: Any) -> Any:
    limit = where(b == 0.0, 1.0, where(b == _INF, 1.0, 0.0))
    held = where(limit == 1.0, 0.0, z)
    return held * held / where(limit == 1.0, 1.0, b)


def _half(z: Any, w: Any, b: Any) -> Any:
    # (b / 2) log(1 + w), z^2 / 2 where w is tiny
    small = where(w > _TINY, 0.0, z)
    return where(w > _TINY, 0.5 * b * log1p(where(w > _TINY, w, 0.0)), (0.5 * small) * small)


def _down(a: Any) -> Any:
    # what a huge error is divided by, so that a / c is finite
    one = sign(1.0 + a)
    return where(a > _HUGE, _DOWN * one, one)


def value(p: Any, y: Any, alpha: Any, c: Any) -> Any:
    e = p - y
    alpha, c = _beside(e, alpha), _beside(e, c)
    b = abs(alpha - 2.0)
    k = _ratio(alpha, b)
    some_k = where(k == 0.0, 1.0, k)
    infinite = abs(e) == _INF
    a = where(infinite, 0.0, where(e < 0.0, -e, e))
    far = _is_far(a, b, c)
    z = where(far, 0.0, a) / c
    w = _w(z, b)
    # of a far error x down = sqrt(w)
    distant, b_far = where(far, a, c), where(far, b, 1.0)
    down = _down(distant)
    x = distant / down / (c * sqrt(b_far))
    half = where(far, b_far * (log(x) + log(down)), _half(z, w, b))
    exact = where(w > _TINY, 0.5 * alpha * log1p(w), k * half)
    t = where(k == 0.0, 0.0, where(far, k * half, exact))
    small = abs(t) <= where(far, 0.5, where(w > 1.0, 0.5, 1.0))
    held = where(small, t, 0.0)
    steady = where(abs(k) < _SMALL, held, 1.0)
    mean_rise = where(
        abs(steady) < 1e-31, 1.0 + 0.5 * steady, expm1(steady) / where(abs(steady) < 1e-31, 1.0, steady)
    )
    near = where(abs(k) < _SMALL, half * mean_rise, expm1(held) / some_k)
    # (1 + w)^(alpha / 2), as a power where w is large, which magnifies no rounding of a logarithm
    power_of_w = power(where(w > 1.0, 1.0 + w, 1.0), 0.5 * alpha)
    power_of_t = exp(where(w > 1.0, 0.0, where(far, 0.0, where(small, 0.0, t))))
    grown = (where(w > 1.0, power_of_w, power_of_t) - 1.0) / some_k
    root = power(x, 0.5 * alpha) * power(down, 0.5 * alpha)
    large = where(far, (root / some_k) * root - 1.0 / some_k, grown)
    return where(infinite, _value_at_infinity(e, alpha, c, some_k), where(small, near, large))


def _value_at_infinity(e: Any, alpha: Any, c: Any, k: Any) -> Any:
    # infinite from alpha = 0 on, with the slope that gradient has
    a = where(abs(e) == _INF, abs(e), 1.0)
    steep = a * where(alpha > 1.0, a, 1.0 / c)
    slow = where(alpha < 0.0, -1.0 / k, log(a))
    return where(alpha >= 1.0, steep, slow)


def gradient(p: Any, y: Any, alpha: Any, c: Any) -> Any:
    # (e / c^2) (1 + w)^(alpha / 2 - 1), and (1 + w)^(alpha / 2 - 1) = exp(sign(alpha - 2) half)
    e = p - y
    alpha, c = _beside(e, alpha), _beside(e, c)
    b = abs(alpha - 2.0)
    infinite = abs(e) == _INF
    a = where(infinite, 0.0, abs(e))
    far = _is_far(a, b, c)
    z = where(far, 0.0, a) / c
    w = _w(z, b)
    shrunk = exp(where(w > 1.0, 0.0, where(b == 0.0, 0.0, sign(alpha - 2.0) * _half(z, w, b))))
    # by way of z^2 / (1 + w), which is about b: no step on the way is far smaller than the result
    some_z = where(w > 1.0, z, 1.0)
    power_of_w = power(where(w > 1.0, 1.0 + w, 1.0), 0.5 * alpha) / some_z * (some_z * some_z / (1.0 + w))
    near = where(w > 1.0, power_of_w, z * shrunk)
    distant, b_far = where(far, a, c), where(far, b, 1.0)
    down = _down(distant)
    x = distant / down / (c * sqrt(b_far))
    # alpha - 1 is exact for an alpha from 1/2 on
    of_x = where(alpha >= 0.5, power(x, alpha - 1.0), power(x, alpha) / x)
    of_down = where(alpha >= 0.5, power(down, alpha - 1.0), power(down, alpha) / down)
    large = sqrt(b_far) * of_x * of_down
    at_infinity = where(alpha > 1.0, _INF, where(alpha == 1.0, 1.0, 0.0))
    return sign(e) * (where(infinite, at_infinity, where(far, large, near)) / c)


FORMULA = LossFormula(
    name="barron",
    title="Barron's general robust loss",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="real",
    target="real",
    tasks=("regression",),
    formula="mean of |α - 2| / α ((1 + ((p - y) / c)² / |α - 2|)^(α/2) - 1)",
    gradient_formula="(p - y) / c² (1 + ((p - y) / c)² / |α - 2|)^(α/2 - 1)",
    domain="any real prediction p and target y; α is any number, infinities included, c the scale of usual errors",
    source="Barron 2019, A General and Adaptive Robust Loss Function, CVPR, eq. 1 and its limits, eq. 8",
    good_at=(
        "one number for how much outliers count: α = 2 squared, 1 Charbonnier, 0 Cauchy, -2 Geman-McClure",
    ),
    bad_at=(
        "α below 1 and a poor start: the loss is not convex, and rows far off pull little",
        "speed: a power for every row, where the named special cases need none",
    ),
    parameters={"alpha": 1.0, "c": 1.0},
    valid={"alpha": Interval(-_INF, _INF, "[]"), "c": Interval(0.0, _INF)},
    tunable={"alpha": TuningRange(-2.0, 2.0), "c": TuningRange(0.1, 10.0, "log")},
    compared_by_default=False,  # at its default α it is Charbonnier's loss
)


def general_robust_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    alpha: float = 1.0,
    c: float = 1.0,
    weight: Tensor | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of Barron's loss of shape ``alpha`` and scale ``c``; see :class:`GeneralRobustLoss`."""
    return pointwise_loss(FORMULA, input, target, (alpha, c), weight=weight, reduction=reduction, **switches)


class GeneralRobustLoss(LossModule, nn.Module):
    """Barron's family of losses: one number, ``alpha``, says how much outliers count.

    ``|alpha - 2| / alpha ((1 + (e / c)^2 / |alpha - 2|)^(alpha / 2) - 1)`` with ``e = p - y``, and its limits:
    ``(e / c)^2 / 2`` at 2, ``log(1 + (e / c)^2 / 2)`` at 0, ``1 - exp(-(e / c)^2 / 2)`` at ``-inf`` and
    ``exp((e / c)^2 / 2) - 1`` at ``inf``.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        alpha: the shape, any number, infinities included: 2 is squared, 1 Charbonnier's loss, 0 Cauchy's, -2
            Geman and McClure's, ``-inf`` Welsch's.
        c: the scale, in the target's units, greater than 0: the loss is ``(e / c)^2 / 2`` well within it.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target alike, any; the result is a scalar, or that shape for ``"none"``.

    Raises:
        InputError: the shapes differ, ``alpha`` is NaN, or ``c`` is not positive and finite.

    Numerics: no ``alpha`` is moved away from its limits, and the loss is smooth in it there. An infinite error
    costs infinity, or ``|alpha - 2| / -alpha`` for a negative ``alpha``; its gradient is 0 for ``alpha`` below 1,
    ``1 / c`` at 1 and infinite above.

    Source: Barron 2019, eq. 1, 8 and 9.

    >>> import torch
    >>> float(GeneralRobustLoss(alpha=-2.0, c=0.5)(torch.tensor([1.0]), torch.tensor([0.0])))
    1.0
    """

    formula = FORMULA

    def __init__(
        self, reduction: str = "mean", alpha: float = 1.0, c: float = 1.0, **switches: Unpack[Switches]
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.alpha = alpha
        self.c = c
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return general_robust_loss(input, target, self.reduction, self.alpha, self.c, **self.switches)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"alpha={self.alpha}, c={self.c}", super().extra_repr()]))
