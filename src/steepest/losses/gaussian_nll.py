"""Negative log-likelihood under a normal distribution whose variance is predicted too."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from steepest.backends import cpu_losses
from steepest.backends.cuda_devices import runs_on
from steepest.backends.reference import log, maximum
from steepest.errors import InputError
from steepest.losses import fused, kernels
from steepest.losses.apply import composite_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import check_reduction, is_concrete, same_shape
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.kernels import bare
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

    if _kernel_takes(input, target, var, switches):
        work = _Work(in_operations, eps, _HALF_LOG_2_PI if full else 0.0, reduction, switches)
        loss: Tensor = _Fused.apply(input, target, var, work)  # type: ignore[no-untyped-call]
        return loss
    return in_operations(input, target, var)


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


class _Work(NamedTuple):
    """A call, without its tensors."""

    in_operations: Callable[[Tensor, Tensor, Tensor], Tensor]
    eps: float
    constant: float
    reduction: str
    switches: Switches


def _kernel_takes(mean: Tensor, target: Tensor, var: Tensor, switches: Switches) -> bool:
    """Whether all three, by each of which there may be a gradient, are plain tensors of one shape on a CPU."""
    return (
        mean.is_cpu
        and not runs_on(mean)
        and mean.shape == var.shape
        and switches.get("output_dtype") in (None, mean.dtype)
        and kernels.takes(mean.detach(), (target.detach(), var.detach()))
    )


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, target: Tensor, var: Tensor, work: _Work) -> Tensor:
        ctx.work, ctx.gradients = work, None
        ctx.save_for_backward(mean, target, var)
        if work.reduction == "none":
            values = torch.empty_like(mean, memory_format=torch.contiguous_format)
            _run_by_mean(mean, target, var, work, values, cpu_losses.VALUES, 1.0)
            return values
        divisor, scale = _divisor_and_scale(mean, work)
        ctx.gradients, total = _slopes(mean, target, var, work, scale, ctx.needs_input_grad)
        if total is None:
            total = _run_by_mean(mean, target, var, work, mean, cpu_losses.SUM, 1.0)
        return kernels.mean_of(total, divisor, mean, mean.dtype, zero_on_empty=_zero_on_empty(work))

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        given, work, wanted = ctx.saved_tensors, ctx.work, ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            with torch.enable_grad():
                leaves = [tensor for tensor, asked in zip(given, wanted, strict=True) if asked]
                loss = work.in_operations(*given)
                found = iter(torch.autograd.grad(loss, leaves, grad_output, create_graph=True))
            return (*(next(found) if asked else None for asked in wanted), None)
        gradients, ctx.gradients = ctx.gradients, None  # handed out once
        if gradients is None:
            scale = 1.0 if work.reduction == "none" else _divisor_and_scale(given[0], work)[1]
            mean, target, var = given
            gradients, _ = _slopes(mean, target, var, work, scale, wanted)
        return (*(None if g is None else fused.times(g, grad_output) for g in gradients), None)


def _slopes(
    mean: Tensor, target: Tensor, var: Tensor, work: _Work, scale: float, wanted: tuple[bool, ...]
) -> tuple[tuple[Tensor | None, ...], float | None]:
    """The gradients by mean, target and variance, where wanted, and the sum if it came along."""
    by_mean = by_target = by_var = total = None
    if wanted[0] or wanted[1]:
        by_mean = torch.empty_like(mean, memory_format=torch.contiguous_format)
        total = _run_by_mean(mean, target, var, work, by_mean, cpu_losses.GRADIENT, scale)
        by_target = -by_mean if wanted[1] else None
    if wanted[2]:
        by_var = torch.empty_like(var, memory_format=torch.contiguous_format)
        tensors, operands = (bare(var), bare(target), by_var), (None, mean, None)
        kernels.run_pointwise(_OF_VARIANCE, (0.0, work.eps), operands, *tensors, cpu_losses.GRADIENT, scale)
    return (by_mean if wanted[0] else None, by_target, by_var), total


def _run_by_mean(
    mean: Tensor, target: Tensor, var: Tensor, work: _Work, out: Tensor, mode: int, scale: float
) -> float:
    numbers, operands = (0.0, work.eps, work.constant), (None, var, None, None)
    return float(
        kernels.run_pointwise(_OF_MEAN, numbers, operands, bare(mean), bare(target), out, mode, scale)
    )


def _divisor_and_scale(mean: Tensor, work: _Work) -> tuple[float, float]:
    own = float(mean.numel()) if work.reduction == "mean" else 1.0
    divisor = float(kernels.divisor_of(work.switches, own, work.reduction, mean))
    return divisor, float(kernels.scale_of(divisor, zero_on_empty=_zero_on_empty(work)))


def _zero_on_empty(work: _Work) -> bool:
    return work.switches.get("on_empty") == "zero"


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
