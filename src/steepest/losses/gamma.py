"""Negative log-likelihood of positive targets under a gamma distribution."""

from __future__ import annotations

import math
from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.cuda_devices import runs_on
from steepest.backends.reference import exp, where
from steepest.errors import InputError
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import is_concrete, same_shape
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches

__all__ = ["GammaNLLLoss", "gamma_nll_loss"]

_INF, _NAN = math.inf, math.nan


def _over_mean(x: Any, y: Any) -> Any:
    # y exp(-x), by halves of x: neither factor is infinite or 0 where the product is not; NaN of what is no amount
    root = exp(-0.5 * x)
    return (where(y > 0.0, y, _NAN) * root) * root


def value(x: Any, y: Any) -> Any:
    # y exp(-x) + x; an infinite first term outgrows an infinite x
    u = _over_mean(x, y)
    return where(u == _INF, u, u + where(u == _INF, 0.0, x))


def gradient(x: Any, y: Any) -> Any:
    # 1 - y exp(-x)
    return 1.0 - _over_mean(x, y)


FORMULA = LossFormula(
    name="gamma",
    title="gamma negative log-likelihood",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="log_rate",
    target="positive",
    tasks=("regression",),
    formula="mean of y exp(-x) + x, x the logarithm of the mean",
    gradient_formula="1 - y exp(-x)",
    domain="any log-mean x, infinities included; y > 0",
    source="McCullagh and Nelder 1989, Generalized Linear Models, 2nd ed., ch. 8",
    good_at=("positive targets whose spread grows with their mean: claims, durations, prices",),
    bad_at=(
        "targets of 0, which no gamma distribution has: tweedie takes them",
        "large steps early on: where the mean is predicted far too small the gradient grows as exp(-x)",
    ),
    compared_by_default=False,
)


def gamma_nll_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    weight: Tensor | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of ``target * exp(-input) + input``; see :class:`GammaNLLLoss`."""
    same_shape("gamma", input, target, switches.get("strict_shape", True))
    if target.numel() and is_concrete(target) and not (target.is_meta or runs_on(target)):
        low = float(target.detach().amin())
        if low <= 0:
            raise InputError(
                f"gamma: the smallest target is {low:g}; gamma targets are greater than 0 (TweedieLoss takes zeros)."
            )
    return pointwise_loss(FORMULA, input, target, weight=weight, reduction=reduction, **switches)


class GammaNLLLoss(LossModule, nn.Module):
    """Negative log-likelihood of positive targets under a gamma distribution, from the logarithm of its mean.

    ``y exp(-x) + x``: the likelihood at shape 1, without what depends on the targets alone. The input is always
    the logarithm of the mean, the link of scikit-learn's ``GammaRegressor`` and of ``reg:gamma`` in XGBoost, whose
    ``gamma-nloglik`` this is; half of scikit-learn's ``mean_gamma_deviance`` is this loss minus ``1 + log y``.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input (log-means) and target (greater than 0) alike, any; the result is a scalar, or that shape for
    ``"none"``.

    Raises:
        InputError: the shapes differ, or a target is not greater than 0.

    Numerics: the exponential is taken by halves, so it overflows only where the loss does. A log-mean of ``inf`` or
    ``-inf`` costs infinity. Where the two terms nearly cancel, the error is in units of the larger.

    Source: McCullagh and Nelder 1989, ch. 8.

    >>> import torch
    >>> round(float(GammaNLLLoss()(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))), 6)
    1.367879
    """

    formula = FORMULA

    def __init__(self, reduction: str = "mean", **switches: Unpack[Switches]) -> None:
        super().__init__()
        self.reduction = reduction
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return gamma_nll_loss(input, target, self.reduction, **self.switches)
