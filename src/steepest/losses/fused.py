"""The fused CPU kernels as autograd functions: value and gradient in one pass, twice differentiable."""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steepest.backends import cpu, cpu_losses, reference_losses
from steepest.backends.memory import empty_like_huge
from steepest.backends.threads import run_together
from steepest.losses.checks import is_concrete
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches

__all__ = ["SoftmaxSettings", "pointwise", "softmax", "softmax_divisor", "takes"]

_GRAIN = 1 << 17  # elements a piece; fixed, so that sums do not depend on the number of threads
_DTYPES = {torch.float32: "float32", torch.float64: "float64"}


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
) -> bool:
    """Whether the fused kernel computes this: plain CPU tensors of one type, gradient by the first alone."""
    first, *rest = tensors
    given = [operand for operand in operands if operand is not None]
    others = [*rest, *given, *constant]
    return (
        first.dtype in _DTYPES
        and first.numel() > 0
        and is_concrete(first, *others)
        and all(t.dtype == first.dtype for t in (*rest, *given))
        and all(t.device.type == "cpu" and t.layout == torch.strided for t in (first, *others))
        and not any(t.requires_grad for t in others)
        # A wider result is rounded once from what the reference computes, not twice.
        and (output_dtype is None or torch.promote_types(output_dtype, first.dtype) == first.dtype)
        and not torch._C._functorch.peek_interpreter_stack()
    )


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

Run = Callable[[Tensor, int, float], float]  # (output, mode, scale) -> sum


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
    kernel = cpu_losses.pointwise(formula.value, formula.gradient, len(numbers), _DTYPES[x.dtype])
    options = _doubles(numbers)
    spread = [None if operand is None else _spread(operand, x.shape) for operand in operands]
    rows = [(0, 1, 1) if part is None else (part[0].data_ptr(), *part[1:]) for part in spread]
    flat = list(itertools.chain.from_iterable(rows or [(0, 1, 1)]))
    table = (ctypes.c_int64 * len(flat))(*flat)

    def run(out: Tensor, mode: int, scale: float = 1.0) -> float:
        assert spread is not None  # the operands live as long as the closure
        arguments = (
            x.data_ptr(), t.data_ptr(), out.data_ptr(), x.numel(), _GRAIN, scale, ctypes.addressof(options),
            ctypes.addressof(table), mode,
        )  # fmt: skip
        return _in_pieces(kernel, arguments, x.numel(), _GRAIN)

    return run


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
    grain = max(1, _GRAIN // classes)

    def run(out: Tensor, mode: int, scale: float = 1.0) -> float:
        tensors = (x, index, shares, class_weight, offsets, out)
        arguments = (
            *(tensor.data_ptr() for tensor in tensors), rows, grain, classes, inner, weight is not None,
            offset is not None, with_probabilities, settings.ignore_index, settings.smoothing, scale,
            ctypes.addressof(options), mode,
        )  # fmt: skip
        return _in_pieces(kernel, arguments, rows, grain)

    return run


def softmax_divisor(target: Tensor, settings: SoftmaxSettings, rows: int) -> float:
    """What a mean divides by: the kept rows' class weights, or the number of kept rows (0: no row is kept)."""
    if settings.reduction == "sum":
        return 1.0
    if target.is_floating_point():
        return float(rows)
    index = target.to(torch.int64)  # a uint8 takes -100 for 156
    if settings.weight is None:
        return float(torch.count_nonzero(index != settings.ignore_index))
    return float(settings.weight.double()[index[index != settings.ignore_index]].sum())


# --- the functions -----------------------------------------------------------------------------------------------


def _reduced(ctx: Any, input: Tensor, x: Tensor, run: Run, divisor: float, switches: Switches) -> Tensor:
    """The sum over ``divisor``, and the gradient beside it where one is wanted."""
    dtype = switches.get("output_dtype") or x.dtype
    if divisor == 0.0 and switches.get("on_empty") == "zero":
        ctx.scale = 0.0
        return x.new_zeros((), dtype=dtype)
    ctx.scale = scale = 1.0 / divisor if divisor else math.nan
    if not ctx.needs_input_grad[0]:
        total = run(x, cpu_losses.SUM, 1.0)
    elif switches.get("inplace") and not input.is_leaf and input.is_contiguous() and not _is_expanded(input):
        ctx.gradient = input.detach()
        total = run(ctx.gradient, cpu_losses.GRADIENT, scale)
        torch.autograd.graph.increment_version(input)
        ctx.run, ctx.overwritten = None, True
    else:
        ctx.gradient = empty_like_huge(x)
        total = run(ctx.gradient, cpu_losses.GRADIENT, scale)
    return x.new_tensor(total / divisor if divisor else math.nan, dtype=dtype)


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
        gradient = empty_like_huge(like)
        ctx.run(gradient, cpu_losses.GRADIENT, ctx.scale)
    return gradient


def _times(gradient: Tensor, grad_output: Tensor, inplace: bool) -> Tensor:
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


def _divisor(switches: Switches, own: float, reduction: str) -> float:
    given = switches.get("normalizer")
    return own if given is None or reduction != "mean" else float(given)


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
            values = empty_like_huge(x)
            run(values, cpu_losses.VALUES, 1.0)
            return values.to(switches.get("output_dtype") or x.dtype)
        divisor = _divisor(switches, float(x.numel()) if reduction == "mean" else 1.0, reduction)
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
            values = x.new_empty((*x.shape[:1], *x.shape[2:]) if x.dim() > 1 else ())
            run(values, cpu_losses.VALUES, 1.0)
            return values.to(switches.get("output_dtype") or x.dtype)
        rows = x.numel() // (x.shape[1] if x.dim() > 1 else x.shape[0])
        own = 1.0 if switches.get("normalizer") is not None else softmax_divisor(target, settings, rows)
        loss = _reduced(ctx, input, x, run, _divisor(switches, own, settings.reduction), switches)
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
