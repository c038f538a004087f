"""The fused kernels as torch operators: what ``torch.compile`` calls, without a break in its graph.

An operator takes numbers, texts and tensors alone, so a formula goes by its key; the gradient is a second
result, computed where one will be wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from steepest.backends import cpu_losses, reference_losses
from steepest.backends.cuda_devices import runs_on
from steepest.losses import fused, kernels
from steepest.losses.checks import check_class_indices, is_transformed
from steepest.losses.formula import FORMULAS, LossFormula
from steepest.losses.kernels import SoftmaxSettings
from steepest.losses.switches import Switches

__all__ = ["pointwise", "softmax", "takes"]


_WIDE = (torch.float32, torch.float64)
_DTYPES = {"cpu": _WIDE, "cuda": (*_WIDE, torch.float16, torch.bfloat16)}


def takes(*tensors: Tensor) -> bool:
    """Whether torch is compiling something the fused kernel computes."""
    first = tensors[0]
    return (
        torch.compiler.is_compiling()
        and not is_transformed()
        and first.dtype in _DTYPES.get(first.device.type, ())
        and (first.device.type == "cpu" or runs_on(first))
        and first.numel() > 0
        and all(t.dtype == first.dtype and t.device == first.device for t in tensors)
        and not any(t.requires_grad for t in tensors[1:])
    )


def pointwise(
    formula: LossFormula,
    input: Tensor,
    target: Tensor,
    parameters: Sequence[Any],
    reduction: str,
    switches: Switches,
) -> Tensor:
    """A pointwise formula with constant parameters, as one operator in a compiled graph."""
    loss, _ = _pointwise(
        input,
        target,
        formula.key,
        [float(p) for p in parameters],
        _first(reduction, switches),
        input.requires_grad,
        _computed_in(input, switches),
    )
    return _finish(loss, switches)


def softmax(
    formula: LossFormula, input: Tensor, target: Tensor, settings: SoftmaxSettings, switches: Switches
) -> Tensor:
    """A softmax formula, as one operator in a compiled graph."""
    loss, _ = _softmax(
        input, target, formula.key, list(settings.numbers), settings.ignore_index, settings.smoothing,
        _first(settings.reduction, switches), switches.get("on_empty") == "zero", input.requires_grad,
        _computed_in(input, switches),
    )  # fmt: skip
    return _finish(loss, switches)


def _first(reduction: str, switches: Switches) -> str:
    return reduction if switches.get("normalizer") is None else "sum"


def _computed_in(input: Tensor, switches: Switches) -> torch.dtype | None:
    """A loss in a wider type than a half's is of float32's digits, as without a compiler; None: in the input's type."""
    wanted = switches.get("output_dtype")
    return torch.float32 if input.dtype not in _WIDE and wanted in _WIDE else None


def _finish(loss: Tensor, switches: Switches) -> Tensor:
    dtype, normalizer = switches.get("output_dtype") or loss.dtype, switches.get("normalizer")
    if normalizer is None:
        return loss.to(dtype)
    return reference_losses.reduce(loss, "mean", dtype, normalizer, switches.get("on_empty", "nan"))


# --- the operators -----------------------------------------------------------------------------------------------


@torch.library.custom_op("steepest::pointwise_loss", mutates_args=(), device_types=("cpu", "cuda"))
def _pointwise(
    input: Tensor,
    target: Tensor,
    formula: str,
    numbers: list[float],
    reduction: str,
    with_gradient: bool,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    known = FORMULAS[formula]
    x = input.contiguous()
    operands = [None] * (1 + len(numbers))
    run = partial(kernels.run_pointwise, known, tuple(numbers), operands, x, target.contiguous())
    divisor = float(x.numel()) if reduction == "mean" else 1.0
    return _results(run, x, x.shape, reduction, divisor, with_gradient, dtype)


@torch.library.custom_op("steepest::softmax_loss", mutates_args=(), device_types=("cpu", "cuda"))
def _softmax(
    input: Tensor,
    target: Tensor,
    formula: str,
    numbers: list[float],
    ignore_index: int,
    smoothing: float,
    reduction: str,
    zero_on_empty: bool,
    with_gradient: bool,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    known = FORMULAS[formula]
    x = input.contiguous()
    settings = SoftmaxSettings(tuple(numbers), None, None, ignore_index, smoothing, reduction)
    shape = _without_classes(x)
    if not target.is_floating_point() and not x.is_cuda:  # a GPU is not waited for
        check_class_indices(known.name, target, x.shape[1] if x.dim() > 1 else x.shape[0], ignore_index)
    divisor = kernels.softmax_divisor(target, settings, shape.numel()) if reduction == "mean" else 1.0
    run = partial(kernels.run_softmax, known, settings, x, target)
    return _results(run, x, shape, reduction, divisor, with_gradient, dtype, zero_on_empty=zero_on_empty)


def _without_classes(x: Tensor) -> torch.Size:
    return torch.Size((*x.shape[:1], *x.shape[2:]) if x.dim() > 1 else ())


def _results(
    run: kernels.Run,
    x: Tensor,
    shape: torch.Size,
    reduction: str,
    divisor: kernels.Sum,
    with_gradient: bool,
    dtype: torch.dtype | None,
    *,
    zero_on_empty: bool = False,
) -> tuple[Tensor, Tensor]:
    scale = kernels.scale_of(divisor, zero_on_empty=zero_on_empty)
    gradient = torch.empty_like(x) if with_gradient else x.new_empty(0)
    if reduction == "none":
        values = x.new_empty(shape, dtype=dtype)
        run(values, cpu_losses.VALUES, 1.0)
        if with_gradient:
            run(gradient, cpu_losses.GRADIENT, 1.0)
        return values, gradient
    total = run(gradient, cpu_losses.GRADIENT, scale) if with_gradient else run(x, cpu_losses.SUM, 1.0)
    return kernels.mean_of(total, divisor, x, dtype or x.dtype, zero_on_empty=zero_on_empty), gradient


@_pointwise.register_fake
def _(
    input: Tensor,
    target: Tensor,
    formula: str,
    numbers: list[float],
    reduction: str,
    with_gradient: bool,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    return _shapes(input, input.shape, reduction, with_gradient, dtype)


@_softmax.register_fake
def _(
    input: Tensor,
    target: Tensor,
    formula: str,
    numbers: list[float],
    ignore_index: int,
    smoothing: float,
    reduction: str,
    zero_on_empty: bool,
    with_gradient: bool,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    return _shapes(input, _without_classes(input), reduction, with_gradient, dtype)


def _shapes(
    x: Tensor, shape: Any, reduction: str, with_gradient: bool, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    gradient = x.new_empty(x.shape if with_gradient else (0,))
    return x.new_empty(shape if reduction == "none" else (), dtype=dtype), gradient


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    gradient = output[1]
    ctx.mark_non_differentiable(gradient)
    ctx.save_for_backward(gradient, *inputs[:2])
    ctx.settings = inputs[2:]


def _backward(operator: Any, reference: Callable[..., Tensor]) -> Callable[..., tuple[Any, ...]]:
    """The gradient by the input, made on the way forward or now; differentiable where that is wanted."""

    def backward(ctx: Any, grad_loss: Tensor, _: Any) -> tuple[Any, ...]:
        gradient, input, target = ctx.saved_tensors
        nothing = [None] * (1 + len(ctx.settings))
        if torch.is_grad_enabled():
            differentiable = fused.differentiable_gradient(
                lambda x: reference(x, target, *ctx.settings), input, grad_loss
            )
            return differentiable, *nothing
        if gradient.shape != input.shape:  # an exported program was traced with an input that asked for none
            gradient = operator(input, target, *ctx.settings[:-2], True)[1]
        if grad_loss.dim() and grad_loss.dim() < gradient.dim():
            grad_loss = grad_loss.unsqueeze(1)
        return (gradient * grad_loss).to(gradient.dtype), *nothing

    return backward


def _pointwise_in_operations(input: Tensor, target: Tensor, *settings: Any) -> Tensor:
    formula, numbers, reduction, _, dtype = settings
    return reference_losses.pointwise(
        FORMULAS[formula].value, input, target, numbers, None, reduction, output_dtype=dtype
    )


def _softmax_in_operations(input: Tensor, target: Tensor, *settings: Any) -> Tensor:
    formula, numbers, ignore_index, smoothing, reduction, zero_on_empty, _, dtype = settings
    return reference_losses.softmax(
        FORMULAS[formula].value, input, target, numbers, None, None, ignore_index, smoothing, reduction,
        on_empty="zero" if zero_on_empty else "nan", output_dtype=dtype,
    )  # fmt: skip


_pointwise.register_autograd(_backward(_pointwise, _pointwise_in_operations), setup_context=_keep)
_softmax.register_autograd(_backward(_softmax, _softmax_in_operations), setup_context=_keep)
