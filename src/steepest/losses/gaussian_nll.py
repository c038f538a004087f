"""Negative log-likelihood under a normal distribution whose variance is predicted too."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from steepest.backends.reference import log, maximum
from steepest.errors import InputError
from steepest.losses import several
from steepest.losses.apply import composite_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import check_reduction, is_concrete, same_shape
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches, check_switches

__all__ = ["GaussianNLLLoss", "gaussian_nll_loss"]

_HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)


def value(mean: Tensor, target: Tensor, var: Tensor, eps: float = 1e-6, full: bool = False) -> Tensor:
    """``(log v + (m - y)^2 / v) / 2``, ``v`` the variance held above ``eps`` in value, not in gradient, as torch."""
    var = var.to(mean.dtype)
    held = torch.where(var < eps, eps + (var - var.detach()), var)
    error = mean - target
    values = 0.5 * torch.log(held) + error * (error / (2.0 * held))
    return values + _HALF_LOG_2_PI if full else values


FORMULA = LossFormula(
    name="gaussian_nll",
    title="Gaussian negative log-likelihood",
    family="composite",
    value=value,
    gradient=None,
    prediction="real",
    target="real",
    tasks=(),
    formula="mean of (log v + (m - y)² / v) / 2, v = max(variance, ε)",
    gradient_formula="(m - y) / v by the mean m; (1 - (m - y)² / v) / (2 v) by the variance",
    domain="any real mean m and target y; variances ≥ 0; ε is eps",
    source="Nix and Weigend 1994, Estimating the Mean and Variance of the Target Probability Distribution, "
    "IEEE ICNN 1, pp. 55-60",
    good_at=("noise that differs from row to row: the model says how sure it is",),
    bad_at=(
        "rows it fits badly early on: a large variance excuses them, and their mean is learned slowly",
        "outliers: the squared error is theirs, as with MSE",
    ),
    parameters={"eps": 1e-6},
    valid={"eps": Interval(0.0, float("inf"), "[)")},
    compared_by_default=False,
)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of the Gaussian negative log-likelihood; see :class:`GaussianNLLLoss`."""
    if not FORMULA.valid["eps"].holds(eps):
        raise InputError(f"gaussian_nll: eps is {eps}; it must lie in {FORMULA.valid['eps']}.")
    input, target = same_shape("gaussian_nll", input, target, switches.get("strict_shape", True))
    if target.dtype == torch.bool:
        raise InputError(
            "gaussian_nll: targets are torch.bool; they are real numbers (target.float() makes some)."
        )
    var = _variances(input, var)

    check_reduction(reduction)
    check_switches(FORMULA.name, switches, reduction)

    def in_operations(mean: Tensor, target: Tensor, var: Tensor) -> Tensor:
        def compute(mean: Tensor, target: Tensor, var: Tensor) -> Tensor:
            return value(mean, target, var, eps, full)

        return composite_loss(FORMULA, compute, (mean, target, var), reduction=reduction, **switches)

    tensors = (input, target, var)
    if several.takes(tensors, switches):
        by_mean = several.Part(_OF_MEAN, (0, 1, 2), (eps, _HALF_LOG_2_PI if full else 0.0))
        by_variance = several.Part(_OF_VARIANCE, (2, 1, 0), (eps,))
        work = several.Element((by_mean, None, by_variance), in_operations, reduction, switches)
        return several.several(work, *tensors)
    return in_operations(*tensors)


# --- the kernel: pointwise by the mean, and once more by the variance -------------------------------------------


def _by_mean(m: Any, y: Any, v: Any, eps: Any, constant: Any) -> Any:
    held = maximum(v, eps)
    return 0.5 * log(held) + (m - y) * ((m - y) / (2.0 * held)) + constant


def _slope_by_mean(m: Any, y: Any, v: Any, eps: Any, constant: Any) -> Any:
    return (m - y) / maximum(v, eps)


def _nothing(v: Any, y: Any, m: Any, eps: Any) -> Any:
    return 0.0 * v


def _slope_by_variance(v: Any, y: Any, m: Any, eps: Any) -> Any:
    held = maximum(v, eps)
    return (1.0 - (m - y) * ((m - y) / held)) / (2.0 * held)


_OF_MEAN = replace(FORMULA, family="pointwise", value=_by_mean, gradient=_slope_by_mean)
_OF_VARIANCE = replace(FORMULA, family="pointwise", value=_nothing, gradient=_slope_by_variance)


def _variances(input: Tensor, var: Tensor | float) -> Tensor:
    """Variances in a shape that goes with the input's: one an element, one a row of its last dimension, or one."""
    if not isinstance(var, Tensor):
        if not var >= 0:
            raise InputError(f"gaussian_nll: var is {var}; a variance is at least 0.")
        return torch.full_like(input, var)
    if is_concrete(var) and not var.is_meta and bool((var < 0).any()):
        raise InputError(
            f"gaussian_nll: var has negative entries, the least of them {float(var.min()):g}; variances are at "
            "least 0 (softplus of a model's output is)."
        )
    if var.shape == input.shape:
        return var
    if var.shape == input.shape[:-1] and input.dim():
        return var.unsqueeze(-1)
    unlike = [size for size, of_input in zip(var.shape, input.shape, strict=False) if size != of_input]
    if var.dim() == input.dim() and unlike == [1]:
        return var
    raise InputError(
        f"gaussian_nll: var is of incorrect size {tuple(var.shape)}; for an input of shape {tuple(input.shape)} it "
        "has that shape, that shape without the last dimension, or that shape with one dimension 1."
    )


class GaussianNLLLoss(LossModule, nn.GaussianNLLLoss):
    """Negative log-likelihood of a normal distribution with a predicted variance; drop-in for torch's.

    ``(log v + (m - y)^2 / v) / 2`` with ``v = max(var, eps)``; ``full`` adds ``log(2 pi) / 2``.

    Args:
        full: add the constant.
        eps: the least variance, at least 0; where it takes a smaller one's place the gradient is handed through,
            as torch's.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input (means) and target alike, any; ``var`` a number, or of that shape, without its last dimension,
    or with one dimension 1. The gradient goes to all three.

    Raises:
        InputError: shapes that do not belong together, a negative variance, or a negative ``eps``.

    Source: Nix and Weigend 1994.

    >>> import torch
    >>> mean, target, var = torch.tensor([0.0]), torch.tensor([2.0]), torch.tensor([4.0])
    >>> round(float(GaussianNLLLoss()(mean, target, var)), 6)
    1.193147
    """

    formula = FORMULA

    def __init__(
        self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean", **switches: Unpack[Switches]
    ) -> None:
        super().__init__(full=full, eps=eps, reduction=reduction)
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor, var: Tensor | float) -> Tensor:
        return gaussian_nll_loss(
            input, target, var, full=self.full, eps=self.eps, reduction=self.reduction, **self.switches
        )
