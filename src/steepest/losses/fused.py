"""The fused kernels as autograd functions: value and gradient in one pass, twice differentiable.

On a CPU a kernel's sum is a plain number, on a GPU a tensor of that device, which nothing here waits for.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from steepest.backends import cpu, cpu_losses, reference_losses
from steepest.backends.cuda_devices import runs_on
from steepest.backends.memory import empty_like_huge
from steepest.backends.threads import run_together
from steepest.errors import InputError
from steepest.losses.checks import is_concrete, is_transformed
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches

__all__ = ["SoftmaxSettings", "has_kernel", "pointwise", "softmax", "softmax_divisor", "takes"]

_GRAIN = 1 << 17  # elements a piece; fixed, so that sums do not depend on the number of threads
_ROWS_GRAIN = 1 << 15  # the same of logits, whose rows take longer: several threads are to end together
_DTYPES = {torch.float32: "float32", torch.float64: "float64"}
_ON_GPU = (*_DTYPES, torch.float16, torch.bfloat16)


class SoftmaxSettings(NamedTuple):
    """What a softmax loss is given besides logits and targets."""

    numbers: tuple[float, ...] = ()
    weight: Tensor | None = None
    offset: Tensor | None = None
    ignore_index: int = -100
    smoothing: float = 0.0
    reduction: str = "mean"


def takes(
    *tensors: Tensor,
    operands: Sequence[Tensor | None] = (),
    constant: Sequence[Tensor] = (),
    output_dtype: torch.dtype | None = None,
    formula: LossFormula | None = None,
) -> bool:
    """Whether a fused kernel computes this: plain tensors of one type and device, gradient by the first alone."""
    first, *rest = tensors
    given = [operand for operand in operands if operand is not None]
    others = [*rest, *given, *constant]
    on_gpu = runs_on(first)
    return (
        first.dtype in (_ON_GPU if on_gpu else _DTYPES)
        and first.numel() > 0
        and is_concrete(first, *others)
        and all(t.dtype == first.dtype for t in (*rest, *given))
        and (on_gpu or first.device.type == "cpu")
        and all(t.device == first.device and t.layout == torch.strided for t in (first, *others))
        and not any(t.requires_grad for t in others)
        # A wider result is rounded once from what the reference computes, not twice. On a GPU a half type's is in
        # float32 anyway; float64 has more digits than is computed with.
        and _is_no_wider(output_dtype, torch.float32 if on_gpu else first.dtype, first.dtype)
        and not is_transformed()
        and (not on_gpu or formula is None or has_kernel(formula))
    )


def _is_no_wider(output: torch.dtype | None, computed: torch.dtype, given: torch.dtype) -> bool:
    return output is None or torch.promote_types(output, given) in (
        given,
        torch.promote_types(computed, given),
    )


def has_kernel(formula: LossFormula) -> bool:
    """Whether a formula has a form in Triton: a user's may use what has none, and goes by tensor operations."""
    taken = len(formula.parameters) + (2 if formula.family == "pointwise" else 1)
    return formula.gradient is not None and _has_kernel(formula.value, formula.gradient, taken)


@cache
def _has_kernel(value: Callable[..., Any], gradient: Callable[..., Any], num_arguments: int) -> bool:
    from steepest.backends import cuda

    try:
        for function in (value, gradient):
            cuda.formula(function, num_arguments, "full")
    except InputError:
        return False
    return True


def pointwise(
    formula: LossFormula,
    input: Tensor,
    target: Tensor,
    numbers: tuple[float, ...],
    operands: Sequence[Tensor | None],
    reduction: str,
    switches: Switches,
) -> Tensor:
    """A pointwise formula; ``operands`` are the weight and, for each parameter that varies, its tensor."""
    loss: Tensor = _FusedPointwise.apply(  # type: ignore[no-untyped-call]
        input if torch.is_grad_enabled() else input.detach(),
        target,
        formula,
        numbers,
        tuple(operands),
        reduction,
        switches,
    )
    return loss


def softmax(
    formula: LossFormula, input: Tensor, target: Tensor, settings: SoftmaxSettings, switches: Switches
) -> Tensor:
    """A softmax formula over rows of logits."""
    loss: Tensor = _FusedSoftmax.apply(  # type: ignore[no-untyped-call]
        input if torch.is_grad_enabled() else input.detach(), target, formula, settings, switches
    )
    return loss


# --- running a kernel ------------------------------------------------------------------------------------------

Sum = float | Tensor
Run = Callable[[Tensor, int, Sum], Any]  # (output, mode, scale) -> sum


def _in_pieces(kernel: cpu.Kernel, arguments: Sequence[Any], count: int, grain: int) -> float:
    """Run the kernel over ``[0, count)`` in pieces of ``grain`` on torch's number of threads; the exact sum of all."""
    num_pieces = -(-count // grain)
    counter, sums = ctypes.c_int64(0), (ctypes.c_double * num_pieces)()
    shared = (*arguments, ctypes.addressof(counter), ctypes.addressof(sums))
    run_together(kernel, shared, min(torch.get_num_threads(), num_pieces))
    if num_pieces == 1:
        return sums[0]
    totals = list(sums)
    return math.fsum(totals) if all(map(math.isfinite, totals)) else sum(totals)


def _doubles(numbers: Sequence[float]) -> Any:
    return (ctypes.c_double * max(len(numbers), 1))(*numbers)


def pointwise_run(
    formula: LossFormula, x: Tensor, t: Tensor, numbers: Sequence[float], operands: Sequence[Tensor | None]
) -> Run:
    """The kernel over contiguous tensors."""
    if runs_on(x):
        return _pointwise_on_gpu(formula, x, t, numbers, operands)
    kernel = cpu_losses.pointwise(formula.value, formula.gradient, len(numbers), _DTYPES[x.dtype])
    options = _doubles(numbers)
    spread = [None if operand is None else _spread(operand, x.shape) for operand in operands]
    rows = [(0, 1, 1) if part is None else (part[0].data_ptr(), *part[1:]) for part in spread]
    flat = list(itertools.chain.from_iterable(rows or [(0, 1, 1)]))
    table = (ctypes.c_int64 * len(flat))(*flat)

    def run(out: Tensor, mode: int, scale: Sum = 1.0) -> float:
        assert spread is not None  # the operands live as long as the closure
        arguments = (
            x.data_ptr(), t.data_ptr(), out.data_ptr(), x.numel(), _GRAIN, scale, ctypes.addressof(options),
            ctypes.addressof(table), mode,
        )  # fmt: skip
        return _in_pieces(kernel, arguments, x.numel(), _GRAIN)

    return run


def _pointwise_on_gpu(
    formula: LossFormula, x: Tensor, t: Tensor, numbers: Sequence[float], operands: Sequence[Tensor | None]
) -> Run:
    from steepest.backends import cuda_losses

    assert formula.gradient is not None
    spread = [None if operand is None else _spread(operand, x.shape) for operand in operands]
    kernel = cuda_losses.pointwise(formula.value, formula.gradient, x, t, numbers, spread)
    return lambda out, mode, scale: kernel(out, mode, _on_device(scale, x))


def _on_device(number: Sum, like: Tensor) -> Tensor:
    """A number as float64 on a tensor's device, which is not waited for."""
    if isinstance(number, Tensor):
        return number.to(like.device, torch.float64).reshape(())
    return torch.full((), number, dtype=torch.float64, device=like.device)


def _spread(operand: Tensor, shape: torch.Size) -> tuple[Tensor, int, int]:
    """An operand's memory, and ``inner`` and ``count``: element i of the whole has its ``(i // inner) % count``.

    So a weight a class or a sample is read as it is; patterns with a gap between their dimensions are written out.
    """
    sizes = (1,) * (len(shape) - operand.dim()) + tuple(operand.shape)
    own = [d for d, size in enumerate(sizes) if size != 1]
    if own and all(sizes[d] == shape[d] for d in range(own[0], own[-1] + 1)):
        return operand.contiguous(), math.prod(shape[own[-1] + 1 :]), operand.numel()
    if not own:
        return operand.contiguous(), 1, 1
    whole = operand.expand(shape).contiguous()
    return whole, 1, whole.numel()


def softmax_run(formula: LossFormula, x: Tensor, target: Tensor, settings: SoftmaxSettings) -> Run:
    """The kernel over contiguous logits."""
    with_probabilities = target.is_floating_point()
    classes = x.shape[1] if x.dim() > 1 else x.shape[0]
    if runs_on(x):
        return _softmax_on_gpu(formula, x, target, settings)
    rows, inner = x.numel() // classes, math.prod(x.shape[2:])
    weight, offset = settings.weight, settings.offset
    if offset is not None and not offset.any():
        offset = None  # bare logits have the quicker kernel
    index = (
        target.new_zeros(1, dtype=torch.int64) if with_probabilities else target.to(torch.int64).contiguous()
    )
    shares = target.to(x.dtype).contiguous() if with_probabilities else x
    class_weight = x if weight is None else weight.to(x.dtype).contiguous()
    kernel = cpu_losses.softmax(
        formula.value, formula.gradient, len(settings.numbers), _DTYPES[x.dtype], offset is not None
    )
    offsets = torch.empty(0, dtype=torch.float64) if offset is None else offset.double().contiguous()
    options = _doubles(settings.numbers)
    grain = max(1, _ROWS_GRAIN // classes)

    def run(out: Tensor, mode: int, scale: Sum = 1.0) -> float:
        tensors = (x, index, shares, class_weight, offsets, out)
        arguments = (
            *(tensor.data_ptr() for tensor in tensors), rows, grain, classes, inner, weight is not None,
            offset is not None, with_probabilities, settings.ignore_index, settings.smoothing, scale,
            ctypes.addressof(options), mode,
        )  # fmt: skip
        return _in_pieces(kernel, arguments, rows, grain)

    return run


def _softmax_on_gpu(formula: LossFormula, x: Tensor, target: Tensor, settings: SoftmaxSettings) -> Run:
    from steepest.backends import cuda_softmax

    assert formula.gradient is not None
    with_probabilities = target.is_floating_point()
    rows = cuda_softmax.Rows(
        classes=None if with_probabilities else target.to(torch.int64).contiguous(),
        probabilities=target.to(x.dtype).contiguous() if with_probabilities else None,
        weight=None if settings.weight is None else settings.weight.contiguous(),
        offset=None if settings.offset is None else settings.offset.double().contiguous(),
        ignore_index=settings.ignore_index,
        smoothing=settings.smoothing,
    )
    kernel = cuda_softmax.softmax(formula.value, formula.gradient, x, rows, settings.numbers)
    return lambda out, mode, scale: kernel(out, mode, _on_device(scale, x))


def softmax_divisor(target: Tensor, settings: SoftmaxSettings, rows: int) -> Sum:
    """What a mean divides by: the kept rows' class weights, or the number of kept rows (0: no row is kept)."""
    if settings.reduction == "sum":
        return 1.0
    if target.is_floating_point():
        return float(rows)
    index = target.to(torch.int64)  # a uint8 takes -100 for 156
    if runs_on(target):
        return _divisor_on_gpu(index != settings.ignore_index, index, settings.weight)
    if settings.weight is None:
        return _num_kept(index, settings.ignore_index)
    return float(settings.weight.double()[index[index != settings.ignore_index]].sum())


def _num_kept(index: Tensor, ignore_index: int) -> float:
    if index.device.type == "cpu" and is_concrete(index):  # NumPy's way takes a quarter of torch's time
        return float(np.count_nonzero(index.numpy() != ignore_index))
    return float(torch.count_nonzero(index != ignore_index))


def _divisor_on_gpu(kept: Tensor, index: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return kept.sum(dtype=torch.float64)
    # An index that is no class is the kernel's to tell.
    chosen = weight.double()[torch.where(kept, index, 0).clamp(0, weight.numel() - 1)]
    return torch.where(kept, chosen, 0.0).sum()


# --- the functions -----------------------------------------------------------------------------------------------


def scale_of(divisor: Sum, *, zero_on_empty: bool) -> Sum:
    """What a sum is multiplied by to give the mean; of nothing it is NaN, or 0 where that was asked for."""
    empty = 0.0 if zero_on_empty else math.nan
    if isinstance(divisor, Tensor):
        return torch.where(divisor == 0.0, empty, 1.0 / divisor)
    return 1.0 / divisor if divisor else empty


def mean_of(total: Sum, divisor: Sum, like: Tensor, dtype: torch.dtype, *, zero_on_empty: bool) -> Tensor:
    """The mean as a tensor."""
    empty = 0.0 if zero_on_empty else math.nan
    if isinstance(divisor, Tensor):
        return torch.where(divisor == 0.0, empty, total / divisor).to(dtype)
    mean = total / divisor if divisor else empty
    return mean.to(dtype) if isinstance(mean, Tensor) else like.new_tensor(mean, dtype=dtype)


def _reduced(ctx: Any, input: Tensor, x: Tensor, run: Run, divisor: Sum, switches: Switches) -> Tensor:
    """The sum over ``divisor``, and the gradient beside it where one is wanted."""
    dtype = switches.get("output_dtype") or x.dtype
    zero_on_empty = switches.get("on_empty") == "zero"
    ctx.scale = scale = scale_of(divisor, zero_on_empty=zero_on_empty)
    if not isinstance(divisor, Tensor) and divisor == 0.0 and zero_on_empty:
        return x.new_zeros((), dtype=dtype)
    if not ctx.needs_input_grad[0]:
        total = run(x, cpu_losses.SUM, 1.0)
    elif switches.get("inplace") and not input.is_leaf and input.is_contiguous() and not _is_expanded(input):
        ctx.gradient = input.detach()
        total = run(ctx.gradient, cpu_losses.GRADIENT, scale)
        torch.autograd.graph.increment_version(input)
        ctx.run, ctx.overwritten = None, True
    else:
        ctx.gradient = _empty_like(x)
        total = run(ctx.gradient, cpu_losses.GRADIENT, scale)
    return mean_of(total, divisor, x, dtype, zero_on_empty=zero_on_empty)


def _empty_like(x: Tensor) -> Tensor:
    """Contiguous, as the kernels write, however ``x`` lies."""
    return torch.empty_like(x, memory_format=torch.contiguous_format) if runs_on(x) else empty_like_huge(x)


def _is_expanded(tensor: Tensor) -> bool:
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def _take_gradient(ctx: Any, like: Tensor | None) -> Tensor:
    """The gradient made on the way forward, handed out once: what a caller does to it is the caller's own."""
    gradient: Tensor | None
    gradient, ctx.gradient = ctx.gradient, None
    if gradient is None:
        if ctx.run is None or like is None:
            raise RuntimeError(
                f"{ctx.formula.name}: the gradient was written over the input (inplace=True) and has been used; "
                "a second backward pass needs inplace=False."
            )
        gradient = _empty_like(like)
        ctx.run(gradient, cpu_losses.GRADIENT, ctx.scale)
    return gradient


def _times(gradient: Tensor, grad_output: Tensor, inplace: bool) -> Tensor:
    if grad_output.dim() == 0 and runs_on(gradient):
        from steepest.backends import cuda_losses

        return cuda_losses.scale_in_place(gradient, grad_output)  # handed out once, so it is nobody else's
    if grad_output.dim() == 0 and float(grad_output) == 1.0:
        return gradient
    if inplace:
        return gradient.mul_(grad_output)
    return (gradient * grad_output).to(gradient.dtype)


def _refuse_second_derivative(ctx: Any) -> None:
    if ctx.overwritten:
        raise RuntimeError(
            f"{ctx.formula.name}: the input was overwritten (inplace=True); a second derivative needs "
            "inplace=False."
        )


def _differentiable_gradient(loss: Callable[[Tensor], Tensor], input: Tensor, grad_output: Tensor) -> Tensor:
    with torch.enable_grad():
        x = input if input.requires_grad else input.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x), x, grad_output, create_graph=True)
    return gradient


def divisor_of(switches: Switches, own: Sum, reduction: str, x: Tensor) -> Sum:
    """What the sum is divided by: ``own``, or the normalizer that was given."""
    given = switches.get("normalizer")
    if given is None or reduction != "mean":
        return own
    return _on_device(given, x) if isinstance(given, Tensor) and runs_on(x) else float(given)


def _start(ctx: Any, formula: LossFormula, run: Run, switches: Switches) -> None:
    ctx.formula, ctx.run, ctx.switches = formula, run, switches
    ctx.gradient, ctx.scale, ctx.overwritten = None, 1.0, False


def _of_the_result(switches: Switches) -> dict[str, Any]:
    names = ("normalizer", "on_empty", "output_dtype")
    return {name: switches[name] for name in names if name in switches}  # type: ignore[literal-required]


class _FusedPointwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        target: Tensor,
        formula: LossFormula,
        numbers: tuple[float, ...],
        operands: tuple[Tensor | None, ...],
        reduction: str,
        switches: Switches,
    ) -> Tensor:
        x = input.contiguous()
        run = pointwise_run(formula, x, target.contiguous(), numbers, operands)
        _start(ctx, formula, run, switches)
        ctx.reduction, ctx.numbers, ctx.operands = reduction, numbers, operands
        if reduction == "none":
            ctx.save_for_backward(input, target)
            wanted = switches.get("output_dtype") or x.dtype
            values = torch.empty_like(x, dtype=wanted) if runs_on(x) else empty_like_huge(x)
            run(values, cpu_losses.VALUES, 1.0)
            return values.to(wanted)
        divisor = divisor_of(switches, float(x.numel()) if reduction == "mean" else 1.0, reduction, x)
        loss = _reduced(ctx, input, x, run, divisor, switches)
        if not ctx.overwritten:
            ctx.save_for_backward(input, target)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        nothing = (None,) * 6
        if torch.is_grad_enabled():
            _refuse_second_derivative(ctx)
            input, target = ctx.saved_tensors
            weight, *varying = ctx.operands
            parameters = [n if v is None else v for n, v in zip(ctx.numbers, varying, strict=True)]

            def loss(x: Tensor) -> Tensor:
                return reference_losses.pointwise(
                    ctx.formula.value,
                    x,
                    target,
                    parameters,
                    weight,
                    ctx.reduction,
                    **_of_the_result(ctx.switches),
                )

            return _differentiable_gradient(loss, input, grad_output), *nothing
        input = None if ctx.overwritten else ctx.saved_tensors[0]
        return _times(_take_gradient(ctx, input), grad_output, ctx.overwritten), *nothing


class _FusedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        target: Tensor,
        formula: LossFormula,
        settings: SoftmaxSettings,
        switches: Switches,
    ) -> Tensor:
        x = input.contiguous()
        run = softmax_run(formula, x, target, settings)
        _start(ctx, formula, run, switches)
        ctx.settings = settings
        if settings.reduction == "none":
            ctx.save_for_backward(input, target)
            wanted = switches.get("output_dtype") or x.dtype
            shape = (*x.shape[:1], *x.shape[2:]) if x.dim() > 1 else ()
            values = x.new_empty(shape, dtype=wanted if runs_on(x) else x.dtype)
            run(values, cpu_losses.VALUES, 1.0)
            return values.to(wanted)
        rows = x.numel() // (x.shape[1] if x.dim() > 1 else x.shape[0])
        own = 1.0 if switches.get("normalizer") is not None else softmax_divisor(target, settings, rows)
        loss = _reduced(ctx, input, x, run, divisor_of(switches, own, settings.reduction, x), switches)
        if not ctx.overwritten:
            ctx.save_for_backward(input, target)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        nothing = (None,) * 4
        if torch.is_grad_enabled():
            _refuse_second_derivative(ctx)
            input, target = ctx.saved_tensors

            def loss(x: Tensor) -> Tensor:
                return reference_losses.softmax(
                    ctx.formula.value, x, target, *ctx.settings, **_of_the_result(ctx.switches)
                )

            return _differentiable_gradient(loss, input, grad_output), *nothing
        input = None if ctx.overwritten else ctx.saved_tensors[0]
        if ctx.settings.reduction == "none":
            grad_output = grad_output.unsqueeze(1 if grad_output.dim() else 0)
        return _times(_take_gradient(ctx, input), grad_output, ctx.overwritten), *nothing
