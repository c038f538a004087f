"""From a formula and tensors to a loss: the fused CPU kernel where it applies, else the reference."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from steepest.backends import cpu_losses, reference_losses
from steepest.backends.threads import thread_pool
from steepest.errors import InputError
from steepest.losses.formula import LossFormula

__all__ = ["pointwise_loss", "softmax_loss"]

_GRAIN = 1 << 17  # elements a piece; fixed, so that sums do not depend on the number of threads
_FUSED_DTYPES = {torch.float32: "float32", torch.float64: "float64"}


def pointwise_loss(
    formula: LossFormula,
    input: Tensor,
    target: Tensor,
    parameters: Sequence[Any] = (),
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
    strict_shape: bool = True,
) -> Tensor:
    """A pointwise formula over tensors of one shape.

    Raises:
        InputError: the shapes differ (``strict_shape=False`` broadcasts, as torch does), or ``reduction`` is
            not none, mean or sum.
    """
    _check_reduction(reduction)
    if input.shape != target.shape:
        if strict_shape:
            raise InputError(
                f"{formula.name}: the input has shape {tuple(input.shape)} and the target {tuple(target.shape)}; "
                "they must be equal (reshape one of them, or pass strict_shape=False to broadcast as torch does)."
            )
        input, target = torch.broadcast_tensors(input, target)
    numbers = [_number(parameter) for parameter in parameters]
    plain = weight is None and None not in numbers
    if plain and _fusable(input, target) and not target.requires_grad:
        fused: Tensor = _FusedPointwise.apply(input, target, formula, tuple(numbers), reduction)  # type: ignore[no-untyped-call]
        return fused
    return reference_losses.pointwise(formula.value, input, target, parameters, weight, reduction)


def softmax_loss(
    formula: LossFormula,
    input: Tensor,
    target: Tensor,
    parameters: Sequence[float] = (),
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """A softmax formula over logits (N, C, d1, ...) or (C,), and indices (N, d1, ...) or probabilities.

    Raises:
        InputError: shapes that do not belong together, a class index out of range, a weight of another
            length than the number of classes, or smoothing outside [0, 1].
    """
    _check_reduction(reduction)
    _check_classes(formula.name, input, target, weight, ignore_index, label_smoothing)
    if _fusable(input) and not target.requires_grad and (weight is None or not weight.requires_grad):
        fused: Tensor = _FusedSoftmax.apply(  # type: ignore[no-untyped-call]
            input, target, formula, tuple(parameters), weight, ignore_index, label_smoothing, reduction
        )
        return fused
    return reference_losses.softmax(
        formula.value, input, target, parameters, weight, ignore_index, label_smoothing, reduction
    )


# --- what is checked -----------------------------------------------------------------------------------------


def _check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise InputError(f"reduction is {reduction!r}; choose none, mean or sum.")


def _check_classes(
    name: str, input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, smoothing: float
) -> None:
    if input.dim() == 0:
        raise InputError(
            f"{name}: the input is a single number; logits have shape (C,), (N, C) or (N, C, d1, ...)."
        )
    classes = input.shape[1] if input.dim() > 1 else input.shape[0]
    without_classes = (*input.shape[:1], *input.shape[2:]) if input.dim() > 1 else ()
    expected = tuple(input.shape) if target.is_floating_point() else without_classes
    if tuple(target.shape) != expected:
        kind = "probability" if target.is_floating_point() else "class-index"
        raise InputError(
            f"{name}: logits of shape {tuple(input.shape)} need {kind} targets of shape {expected}; "
            f"the target has shape {tuple(target.shape)}."
        )
    if target.is_complex() or target.dtype == torch.bool:
        raise InputError(
            f"{name}: targets are {target.dtype}; use integer class indices or floating probabilities."
        )
    if weight is not None and tuple(weight.shape) != (classes,):
        raise InputError(
            f"{name}: weight has shape {tuple(weight.shape)}; it must be ({classes},), one a class."
        )
    if not 0.0 <= smoothing <= 1.0:
        raise InputError(f"{name}: label_smoothing is {smoothing}; it must lie in [0, 1].")
    if (
        not target.is_floating_point()
        and _is_concrete(input, target)
        and target.numel()
        and input.device.type == "cpu"
    ):
        index = target.to(torch.int64)  # a uint8 takes -100 for 156
        kept = index[index != ignore_index]
        if kept.numel() and (int(kept.min()) < 0 or int(kept.max()) >= classes):
            raise IndexError(
                f"{name}: targets run from {int(kept.min())} to {int(kept.max())}; "
                f"class indices of {classes} classes lie in [0, {classes - 1}] (or are ignore_index={ignore_index})."
            )


def _number(parameter: Any) -> float | None:
    """A plain number, from a number or a constant one-element tensor; None where it varies or learns."""
    if isinstance(parameter, Tensor):
        return (
            float(parameter)
            if parameter.numel() == 1 and not parameter.requires_grad and _is_concrete(parameter)
            else None
        )
    return float(parameter)


def _is_concrete(*tensors: Tensor) -> bool:
    """Tensors with memory of their own: not traced, not inside vmap, not a subclass."""
    if torch.compiler.is_compiling():
        return False
    return all(
        type(tensor) in (Tensor, torch.nn.Parameter)
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        for tensor in tensors
    )


def _fusable(*tensors: Tensor) -> bool:
    first = tensors[0]
    return (
        first.dtype in _FUSED_DTYPES
        and first.numel() > 0
        and _is_concrete(*tensors)
        and all(
            t.dtype == first.dtype and t.device.type == "cpu" and t.layout == torch.strided for t in tensors
        )
        and not torch._C._functorch.peek_interpreter_stack()
    )


# --- running a kernel ------------------------------------------------------------------------------------------


def _in_pieces(run: Callable[[int, int], float], count: int, grain: int) -> float:
    """Run ``[0, count)`` in pieces of ``grain`` on torch's number of threads; the exact sum of their results."""
    if count <= grain:
        return run(0, count)
    starts = range(0, count, grain)
    if torch.get_num_threads() == 1:
        sums = [run(start, min(start + grain, count)) for start in starts]
    else:
        sums = list(thread_pool().map(lambda start: run(start, min(start + grain, count)), starts))
    finite = all(math.isfinite(value) for value in sums)
    return math.fsum(sums) if finite else sum(sums)


def _doubles(numbers: Sequence[float]) -> Any:
    return (ctypes.c_double * max(len(numbers), 1))(*numbers)


class _FusedPointwise(torch.autograd.Function):
    """Value and gradient in one pass; twice differentiable through the reference."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        target: Tensor,
        formula: LossFormula,
        numbers: tuple[float, ...],
        reduction: str,
    ) -> Tensor:
        x, t = input.contiguous(), target.contiguous()
        n = x.numel()
        kernel = cpu_losses.pointwise(formula.value, formula.gradient, len(numbers), _FUSED_DTYPES[x.dtype])
        options = _doubles(numbers)

        def run(out: Tensor, mode: int, scale: float = 1.0) -> float:
            return _in_pieces(
                lambda start, stop: kernel(
                    _at(kernel, 0, x),
                    _at(kernel, 1, t),
                    _at(kernel, 2, out),
                    start,
                    stop,
                    scale,
                    options,
                    mode,
                ),
                n,
                _GRAIN,
            )

        ctx.formula, ctx.numbers, ctx.reduction, ctx.run = formula, numbers, reduction, run
        ctx.save_for_backward(input, target)
        ctx.gradient, ctx.scale = None, 1.0
        if reduction == "none":
            values = torch.empty_like(x)
            run(values, cpu_losses.VALUES)
            return values
        ctx.scale = scale = 1.0 / n if reduction == "mean" else 1.0
        if ctx.needs_input_grad[0]:
            ctx.gradient = torch.empty_like(x)
            total = run(ctx.gradient, cpu_losses.GRADIENT, scale)
        else:
            total = run(x, cpu_losses.SUM)
        return input.new_tensor(total / n if reduction == "mean" else total)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        input, target = ctx.saved_tensors
        if torch.is_grad_enabled():

            def loss(x: Tensor) -> Tensor:
                return reference_losses.pointwise(
                    ctx.formula.value, x, target, ctx.numbers, None, ctx.reduction
                )

            return _differentiable_gradient(loss, input, grad_output), None, None, None, None
        return _times(_take_gradient(ctx, input), grad_output), None, None, None, None


class _FusedSoftmax(torch.autograd.Function):
    """Rows of logits: value and gradient in one pass; twice differentiable through the reference."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        target: Tensor,
        formula: LossFormula,
        numbers: tuple[float, ...],
        weight: Tensor | None,
        ignore_index: int,
        smoothing: float,
        reduction: str,
    ) -> Tensor:
        ctx.formula, ctx.reduction = formula, reduction
        ctx.settings = (numbers, weight, ignore_index, smoothing, reduction)
        ctx.save_for_backward(input, target)
        x = input.contiguous()
        with_probabilities = target.is_floating_point()
        classes = x.shape[1] if x.dim() > 1 else x.shape[0]
        rows = x.numel() // classes
        inner = math.prod(x.shape[2:])
        index = (
            target.new_zeros(1, dtype=torch.int64)
            if with_probabilities
            else target.to(torch.int64).contiguous()
        )
        shares = target.to(x.dtype).contiguous() if with_probabilities else x
        class_weight = x if weight is None else weight.to(x.dtype).contiguous()
        kernel = cpu_losses.softmax(formula.value, formula.gradient, len(numbers), _FUSED_DTYPES[x.dtype])
        options = _doubles(numbers)
        grain = max(1, _GRAIN // classes)

        def run(out: Tensor, mode: int, scale: float = 1.0) -> float:
            return _in_pieces(
                lambda start, stop: kernel(
                    _at(kernel, 0, x), _at(kernel, 1, index), _at(kernel, 2, shares), _at(kernel, 3, class_weight),
                    _at(kernel, 4, out), start, stop, classes, inner, weight is not None, with_probabilities,
                    ignore_index, smoothing, scale, options, mode,
                ),
                rows,
                grain,
            )  # fmt: skip

        ctx.run, ctx.gradient, ctx.scale = run, None, 1.0
        if reduction == "none":
            values = x.new_empty((*x.shape[:1], *x.shape[2:]) if x.dim() > 1 else ())
            run(values, cpu_losses.VALUES)
            return values
        divisor = _divisor(reduction, target, weight, ignore_index, rows)
        ctx.scale = scale = 1.0 / divisor if divisor else math.nan
        if ctx.needs_input_grad[0]:
            ctx.gradient = torch.empty_like(x)
            total = run(ctx.gradient, cpu_losses.GRADIENT, scale)
        else:
            total = run(x, cpu_losses.SUM)
        return input.new_tensor(total / divisor if divisor else math.nan)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        input, target = ctx.saved_tensors
        nothing = (None,) * 7
        if torch.is_grad_enabled():

            def loss(x: Tensor) -> Tensor:
                return reference_losses.softmax(ctx.formula.value, x, target, *ctx.settings)

            return _differentiable_gradient(loss, input, grad_output), *nothing
        if ctx.reduction == "none":
            grad_output = grad_output.unsqueeze(1 if input.dim() > 1 else 0)
        return _times(_take_gradient(ctx, input), grad_output), *nothing


def _divisor(reduction: str, target: Tensor, weight: Tensor | None, ignore_index: int, rows: int) -> float:
    """What a mean divides by: the kept rows' class weights, or the number of kept rows (0: no row is kept)."""
    if reduction == "sum":
        return 1.0
    if target.is_floating_point():
        return float(rows)
    index = target.to(torch.int64)  # a uint8 takes -100 for 156
    kept = index[index != ignore_index]
    return float(kept.numel()) if weight is None else float(weight.double()[kept].sum())


def _at(kernel: Any, position: int, tensor: Tensor) -> Any:
    """A tensor's memory, as the pointer type the kernel's signature has at that position."""
    return ctypes.cast(tensor.data_ptr(), kernel.function.argtypes[position])


def _take_gradient(ctx: Any, input: Tensor) -> Tensor:
    """The gradient made on the way forward, handed out once: what a caller does to it is the caller's own."""
    gradient: Tensor | None
    gradient, ctx.gradient = ctx.gradient, None
    if gradient is None:
        gradient = torch.empty_like(input, memory_format=torch.contiguous_format)
        ctx.run(gradient, cpu_losses.GRADIENT, ctx.scale)
    return gradient


def _times(gradient: Tensor, grad_output: Tensor) -> Tensor:
    if grad_output.dim() == 0 and float(grad_output) == 1.0:
        return gradient
    return gradient * grad_output


def _differentiable_gradient(loss: Callable[[Tensor], Tensor], input: Tensor, grad_output: Tensor) -> Tensor:
    with torch.enable_grad():
        x = input if input.requires_grad else input.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x), x, grad_output, create_graph=True)
    return gradient
