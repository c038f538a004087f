"""Negative log-likelihood of targets with zeros under a compound Poisson-gamma (Tweedie) distribution."""

from __future__ import annotations

import math
from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.cuda_devices import runs_on
from steepest.backends.reference import abs, exp_product, where
from steepest.errors import InputError
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import is_concrete, same_shape
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches
from steepest.tuning_range import TuningRange

__all__ = ["TweedieLoss", "tweedie_loss"]

_NAN = math.nan


def _scaled_exp(y: Any, d: Any, a: Any, x: Any) -> Any:
    # y exp(a x) / d for 0 < |a| < 1. Beyond exp(600) two factors of half the exponent each, for y may bring the product
    # back into the range.
    part = where(abs(a * x) < 600.0, 1.0, 0.5)
    factor = exp_product(part * a, x)
    return (y * (factor / d)) * where(part == 1.0, 1.0, factor)


def _amount(y: Any) -> Any:
    # NaN of what is none
    return where(y < 0.0, _NAN, y)


def value(x: Any, y: Any, power: Any) -> Any:
    # y exp((1 - power) x) / (power - 1) + exp((2 - power) x) / (2 - power); a target of 0 has no first term
    y = _amount(y)
    of_target = _scaled_exp(y, power - 1.0, 1.0 - power, where(y == 0.0, 0.0, x))
    return of_target + _scaled_exp(1.0, 2.0 - power, 2.0 - power, x)


def gradient(x: Any, y: Any, power: Any) -> Any:
    # exp((2 - power) x) - y exp((1 - power) x)
    y = _amount(y)
    return _scaled_exp(1.0, 1.0, 2.0 - power, x) - _scaled_exp(y, 1.0, 1.0 - power, where(y == 0.0, 0.0, x))


FORMULA = LossFormula(
    name="tweedie",
    title="Tweedie negative log-likelihood",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="log_rate",
    target="count",
    tasks=("regression",),
    formula="mean of y exp((1 - p) x) / (p - 1) + exp((2 - p) x) / (2 - p), x the logarithm of the mean",
    gradient_formula="exp((2 - p) x) - y exp((1 - p) x)",
    domain="any log-mean x, infinities included; y ≥ 0; p is power, between 1 (Poisson) and 2 (gamma)",
    source="Jørgensen 1987, Exponential Dispersion Models, J. R. Stat. Soc. B 49, p. 127",
    good_at=("sums of a random number of positive amounts, so often exactly 0: claims a policy, rain a day",),
    bad_at=(
        "a power that does not suit the data: the fit of the mean stays right, its certainty does not",
        "large steps early on: the gradient grows as exp((2 - p) x)",
    ),
    parameters={"power": 1.5},
    valid={"power": Interval(1.0, 2.0)},
    tunable={"power": TuningRange(1.1, 1.9)},
    compared_by_default=False,
)


def tweedie_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    power: float = 1.5,
    weight: Tensor | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of the Tweedie negative log-likelihood of ``power``; see :class:`TweedieLoss`."""
    if not isinstance(power, Tensor) and power in (1, 2):
        raise InputError(
            f"tweedie: power is {power}; it must lie in (1, 2), for the loss is infinite at both ends "
            "(use PoissonNLLLoss for 1, GammaNLLLoss for 2)."
        )
    same_shape("tweedie", input, target, switches.get("strict_shape", True))
    if target.numel() and is_concrete(target) and not (target.is_meta or runs_on(target)):
        low = float(target.detach().amin())
        if low < 0:
            raise InputError(f"tweedie: the smallest target is {low:g}; Tweedie targets are at least 0.")
    return pointwise_loss(FORMULA, input, target, (power,), weight=weight, reduction=reduction, **switches)


class TweedieLoss(LossModule, nn.Module):
    """Negative log-likelihood of targets with zeros under a Tweedie distribution, from the logarithm of its mean.

    ``y exp((1 - power) x) / (power - 1) + exp((2 - power) x) / (2 - power)``, the compound Poisson-gamma likelihood
    without what depends on the targets alone: ``tweedie-nloglik`` of XGBoost and ``tweedie`` of LightGBM, with the
    log link of both and of scikit-learn's ``TweedieRegressor``.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        power: the variance grows as the mean to this power, in (1, 2). For 1 use
            :class:`~steepest.losses.PoissonNLLLoss`, for 2 :class:`~steepest.losses.GammaNLLLoss`: the same
            gradients, and losses without the constant that is infinite there.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input (log-means) and target (at least 0) alike, any; the result is a scalar, or that shape for
    ``"none"``.

    Raises:
        InputError: the shapes differ, a target is negative, or ``power`` is outside (1, 2).

    Numerics: the products in the exponents are carried to twice the precision, and the exponentials taken by
    halves, so they overflow only where the loss does. A log-mean of ``inf`` costs infinity, one of ``-inf`` too
    unless the target is 0, which costs 0.

    Source: Jørgensen 1987, p. 127.

    >>> import torch
    >>> float(TweedieLoss()(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 3.0])))
    5.0
    """

    formula = FORMULA

    def __init__(self, reduction: str = "mean", power: float = 1.5, **switches: Unpack[Switches]) -> None:
        super().__init__()
        self.reduction = reduction
        self.power = power
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return tweedie_loss(input, target, self.reduction, self.power, **self.switches)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"power={self.power}", super().extra_repr()]))
