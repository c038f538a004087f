"""Negative log-likelihood of counts under a Poisson distribution."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Unpack

from torch import Tensor, nn
from torch.nn import _reduction

from steepest.backends.reference import abs, exp, expm1, log, maximum, minimum, where
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches

__all__ = ["PoissonNLLLoss", "poisson_nll_loss"]

_LARGE = 3e38  # finite in float32 too
_HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)
_INF = math.inf


def value(x: Any, t: Any) -> Any:
    # e^x - t x: no infinite x meets a count of 0, nor +inf the infinite e^x
    held = minimum(where(t == 0.0, maximum(x, -_LARGE), x), _LARGE)
    return exp(x) - t * held


def gradient(x: Any, t: Any) -> Any:
    # e^x - t
    return exp(x) - t


def full_value(x: Any, t: Any) -> Any:
    # e^x - t x + t log t - t + log(2 pi t) / 2, its last three terms (Stirling's) where t > 1. Near the minimum the
    # first four nearly cancel, and are t (e^d - 1 - d) with d = x - log t.
    h = maximum(t, 1.0)
    log_t = log(h)
    d = x - log_t
    near = maximum(minimum(d, 0.5), -0.5)
    plain = value(x, t)
    deviance = where(abs(d) < 0.5, h * (expm1(near) - near), plain + h * (log_t - 1.0))
    return where(t > 1.0, deviance + (0.5 * log_t + _HALF_LOG_2_PI), plain)


def _log_sum(x: Any, eps: Any, t: Any) -> Any:
    # log(x + eps), with what the addition lost; of 1 where the rate is infinite, or 0 with a count of 0
    s = x + eps
    idle = where(s == _INF, 1.0, where(s == 0.0, where(t == 0.0, 1.0, 0.0 * t), 0.0 * t))
    safe = where(idle == 1.0, 1.0, s)
    back = s - x
    lost = (x - (s - back)) + (eps - back)
    return log(safe) + where(idle == 1.0, 0.0, lost) / safe


def rate_value(x: Any, t: Any, eps: Any) -> Any:
    # x - t log(x + eps)
    return x - t * _log_sum(x, eps, t)


def rate_gradient(x: Any, t: Any, eps: Any) -> Any:
    # 1 - t / (x + eps), as one fraction: near the count x - t is exact
    s = x + eps
    of_none = where(s == s, 1.0, s)
    return where(s == _INF, 1.0, where(t == 0.0, of_none, ((x - t) + eps) / s))


def full_rate_value(x: Any, t: Any, eps: Any) -> Any:
    # x - t log(x + eps) + t log t - t + log(2 pi t) / 2, the last three where t > 1
    h = maximum(t, 1.0)
    log_t = log(h)
    return rate_value(x, t, eps) + where(t > 1.0, h * (log_t - 1.0) + (0.5 * log_t + _HALF_LOG_2_PI), 0.0)


FORMULA = LossFormula(
    name="poisson_nll",
    title="Poisson negative log-likelihood",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="log_rate",
    target="count",
    tasks=("regression",),
    formula="mean of exp(x) - y x, x the logarithm of the mean",
    gradient_formula="exp(x) - y",
    domain="any log-mean x, infinities included; counts y ≥ 0",
    source="McCullagh and Nelder 1989, Generalized Linear Models, 2nd ed., ch. 6",
    good_at=("counts, rare events above all: their variance grows with their mean, as here",),
    bad_at=(
        "counts that scatter more than a Poisson's: the fit of the mean stays right, its certainty does not",
        "large steps early on: the gradient grows as the rate itself, exp(x)",
    ),
    compared_by_default=False,
)
FULL_FORMULA = replace(
    FORMULA, value=full_value, formula="as poisson_nll, + t log t - t + log(2πt) / 2 for t > 1"
)
RATE_FORMULA = replace(
    FORMULA,
    value=rate_value,
    gradient=rate_gradient,
    prediction="real",
    formula="mean of x - t log(x + ε), x the rate",
    gradient_formula="1 - t / (x + ε)",
    domain="rates x ≥ 0; counts t ≥ 0; ε is eps",
    parameters={"eps": 1e-8},
    valid={"eps": Interval(0.0, float("inf"), "[)")},
)
FULL_RATE_FORMULA = replace(
    RATE_FORMULA,
    value=full_rate_value,
    formula="mean of x - t log(x + ε) + t log t - t + log(2πt) / 2 for t > 1",
)


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of the Poisson negative log-likelihood of counts; see :class:`PoissonNLLLoss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    if log_input:
        formula, parameters = FULL_FORMULA if full else FORMULA, ()
        return pointwise_loss(formula, input, target, parameters, reduction=reduction, **switches)
    formula = FULL_RATE_FORMULA if full else RATE_FORMULA
    return pointwise_loss(formula, input, target, (eps,), reduction=reduction, **switches)


class PoissonNLLLoss(LossModule, nn.PoissonNLLLoss):
    """Negative log-likelihood of counts under a Poisson distribution; drop-in for torch's.

    ``exp(x) - t x`` of log-rates, or ``x - t log(x + eps)`` of rates; ``full`` adds Stirling's approximation of
    ``log t!``, ``t log t - t + log(2 pi t) / 2``, where ``t > 1``.

    Args:
        log_input: the input is the logarithm of the rate (default), else the rate.
        full: add the part that depends on the counts alone.
        size_average, reduce: torch's deprecated forms of ``reduction``.
        eps: what is added to a rate before its logarithm, at least 0; not used with ``log_input``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target (counts, at least 0, of any number type) alike, any.

    Raises:
        InputError: the shapes differ, or ``eps`` is negative.

    Numerics: a log-rate of -inf with a count of 0 gives 0, and a rate of 0 with it too, where torch gives NaN. With
    ``full``, what nearly cancels for large counts at the right log-rate is taken as ``t (expm1(d) - d)``, ``d = x -
    log t``.

    Source: McCullagh and Nelder 1989, ch. 6.

    >>> import torch
    >>> round(float(PoissonNLLLoss()(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))), 6)
    0.859141
    """

    formula = FORMULA

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        size_average: bool | None = None,
        eps: float = 1e-8,
        reduce: bool | None = None,
        reduction: str = "mean",
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(log_input, full, size_average, eps, reduce, reduction)
        self._set_switches(switches)

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:
        return poisson_nll_loss(
            log_input,
            target,
            log_input=self.log_input,
            full=self.full,
            eps=self.eps,
            reduction=self.reduction,
            **self.switches,
        )
