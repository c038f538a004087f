"""The fused kernels as autograd functions: value and gradient in one pass, twice differentiable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steepest.backends import cpu_losses, cpu_plain, reference_losses
from steepest.backends.cpu_losses import DTYPES
from steepest.backends.cuda_devices import runs_on
from steepest.backends.memory import empty_like_huge
from steepest.losses.checks import is_concrete, is_transformed
from steepest.losses.formula import LossFormula
from steepest.losses.kernels import (
    SoftmaxSettings,
    Sum,
    bare,
    divisor_of,
    mean_of,
    run_pointwise,
    run_softmax,
    scale_of,
    softmax_divisor,
)
from steepest.losses.switches import Switches

__all__ = [
    "ByRows",
    "by_rows",
    "differentiable_gradient",
    "plain_by_rows",
    "plain_pointwise",
    "plain_softmax",
    "pointwise",
    "softmax",
    "times",
]

_NO_SWITCHES = Switches()


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
    return _loss(input, target, _Pointwise(formula, numbers, operands, reduction, input.shape, switches))


def softmax(
    formula: LossFormula,
    input: Tensor,
    target: Tensor,
    settings: SoftmaxSettings,
    switches: Switches,
    num_kept: int | None = None,
) -> Tensor:
    """A softmax formula over rows of logits; ``num_kept`` of these are not ignored, where that is known."""
    shape = input.shape
    rows = shape[:1] + shape[2:] if len(shape) > 1 else torch.Size()
    return _loss(input, target, _Softmax(formula, settings, settings.reduction, rows, switches, num_kept))


def by_rows(input: Tensor, target: Tensor, work: ByRows) -> Tensor:
    """A loss with a kernel of its own."""
    return _loss(input, target, work)


def plain_pointwise(
    formula: LossFormula, input: Tensor, target: Tensor, numbers: tuple[float, ...], reduction: str
) -> Tensor | None:
    """A pointwise formula without weight and switches; None where that is not for certain."""
    if not _may_be_plain(input, target, reduction):
        return None
    assert formula.gradient is not None
    plain = cpu_plain.pointwise(formula.value, formula.gradient, numbers, input.dtype, reduction == "mean")
    work = _Pointwise(formula, numbers, (None,) * (1 + len(numbers)), reduction, input.shape, _NO_SWITCHES)
    return _plain_loss(plain, input, target, None, work)


def plain_softmax(
    formula: LossFormula, input: Tensor, target: Tensor, settings: SoftmaxSettings
) -> Tensor | None:
    """The same of a softmax formula and class indices, with the classes' weights."""
    numbers, weight, _, ignore_index, smoothing, reduction = settings
    if not _may_be_plain(input, target, reduction):
        return None
    assert formula.gradient is not None
    plain = cpu_plain.softmax(
        formula.value, formula.gradient, numbers, input.dtype, reduction == "mean", ignore_index, smoothing
    )
    work = _Softmax(formula, settings, reduction, target.shape, _NO_SWITCHES)
    return _plain_loss(plain, input, target, weight, work)


def plain_by_rows(
    make: Callable[..., cpu_plain.Plain],
    options: Sequence[Any],
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    work: ByRows,
) -> Tensor | None:
    """The same of a loss with a kernel of its own: what ``make(type, whether a mean, *options)`` computes."""
    if work.switches or not _may_be_plain(input, target, work.reduction):
        return None
    plain = make(input.dtype, work.reduction == "mean", *options)
    return _plain_loss(plain, input, target, weight, work)


def _plain_loss(
    plain: cpu_plain.Plain, input: Tensor, target: Tensor, weight: Tensor | None, work: _Work
) -> Tensor | None:
    if weight is not None and (not is_concrete(weight) or weight.requires_grad or weight.is_neg()):
        return None
    slopes = None
    if input.requires_grad and torch.is_grad_enabled():
        slopes = torch.zeros_like(input) if plain.begins_at_0 else empty_like_huge(input)
    loss = input.new_empty(())
    if not plain(input, target, slopes, loss, weight):
        return None
    return loss if slopes is None else _apply(input, target, work, (loss, slopes))


def _may_be_plain(input: Tensor, target: Tensor, reduction: str) -> bool:
    """Whether compiled code may be asked to look at the tensors."""
    return (
        reduction != "none"
        and input is not None
        and target is not None
        and is_concrete(input, target)
        and input.dtype in DTYPES
        and input.is_cpu
        and not (
            target.requires_grad or input.is_neg() or target.is_neg() or is_transformed() or runs_on(input)
        )
    )


class _Pointwise(NamedTuple):
    """One call of a loss, without its input and target: these are autograd's to keep, and to let go of."""

    formula: LossFormula
    numbers: tuple[float, ...]
    operands: Sequence[Tensor | None]
    reduction: str
    shape: torch.Size  # of the values
    switches: Switches

    def divisor(self, target: Tensor) -> Sum:
        """Of a mean that is given no normalizer."""
        return float(self.shape.numel())

    @property
    def constants(self) -> list[Tensor]:
        """Other tensors that must stay as they are until the backward pass."""
        return [operand for operand in self.operands if operand is not None]

    def run(self, x: Tensor, target: Tensor, out: Tensor, mode: int, scale: Sum = 1.0) -> Sum:
        """The kernel over the contiguous input."""
        return run_pointwise(self.formula, self.numbers, self.operands, x, bare(target), out, mode, scale)

    def reference(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss in torch's operations."""
        weight, *varying = self.operands
        parameters = [n if v is None else v for n, v in zip(self.numbers, varying, strict=True)]
        return reference_losses.pointwise(
            self.formula.value, input, target, parameters, weight, self.reduction, **_of_the_result(self.switches)
        )  # fmt: skip


class _Softmax(NamedTuple):
    """The same of a softmax formula."""

    formula: LossFormula
    settings: SoftmaxSettings
    reduction: str
    shape: torch.Size
    switches: Switches
    num_kept: int | None = None

    def divisor(self, target: Tensor) -> Sum:
        """Of a mean that is given no normalizer."""
        return softmax_divisor(target, self.settings, self.shape.numel(), self.num_kept)

    @property
    def constants(self) -> list[Tensor]:
        """Other tensors that must stay as they are until the backward pass."""
        return [part for part in (self.settings.weight, self.settings.offset) if part is not None]

    def run(self, x: Tensor, target: Tensor, out: Tensor, mode: int, scale: Sum = 1.0) -> Sum:
        """The kernel over the contiguous input."""
        return run_softmax(self.formula, self.settings, x, target, out, mode, scale)

    def reference(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss in torch's operations."""
        return reference_losses.softmax(
            self.formula.value, input, target, *self.settings, **_of_the_result(self.switches)
        )


class ByRows(NamedTuple):
    """The same of a loss with a kernel of its own.

    Args:
        formula: which; for its name.
        run: ``run(x, target, out, mode, scale)``, the kernel over the contiguous input; its sum.
        reference: the loss of input and target in torch's operations.
        divisor: of the target, what a mean that is given no normalizer divides by.
        reduction: none, mean or sum.
        shape: of the values, one a row.
        switches: as they were given.
        constants: other tensors that must stay as they are until the backward pass.
    """

    formula: LossFormula
    run: Callable[..., Sum]
    reference: Callable[[Tensor, Tensor], Tensor]
    divisor: Callable[[Tensor], Sum]
    reduction: str
    shape: torch.Size
    switches: Switches
    constants: Sequence[Tensor]


_Work = _Pointwise | _Softmax | ByRows


def _loss(input: Tensor, target: Tensor, work: _Work) -> Tensor:
    if input.requires_grad and torch.is_grad_enabled():
        return _apply(input, target, work, None)
    return _values(input, target, work) if work.reduction == "none" else _reduced(input, target, work)


def _values(input: Tensor, target: Tensor, work: _Work) -> Tensor:
    """The value of every element or row."""
    x = bare(input)
    wanted = work.switches.get("output_dtype") or x.dtype
    if work.shape == x.shape and not runs_on(x):
        values = empty_like_huge(x)
    else:
        values = x.new_empty(work.shape, dtype=wanted if runs_on(x) else x.dtype)
    work.run(x, target, values, cpu_losses.VALUES)
    return values.to(wanted)


def _reduced(input: Tensor, target: Tensor, work: _Work, ctx: Any = None) -> Tensor:
    """The sum over the divisor, and beside it the gradient, for a ``ctx`` that keeps it."""
    x, switches = bare(input), work.switches
    dtype, zero_on_empty = switches.get("output_dtype") or x.dtype, switches.get("on_empty") == "zero"
    divisor = _divisor(work, x, target)
    scale = scale_of(divisor, zero_on_empty=zero_on_empty)
    if zero_on_empty and not isinstance(divisor, Tensor) and divisor == 0.0:
        return x.new_zeros((), dtype=dtype)
    if ctx is None:
        total = work.run(x, target, x, cpu_losses.SUM)
    elif switches.get("inplace") and not input.is_leaf and x is input and not _is_expanded(input):
        ctx.gradient, ctx.overwritten = input.detach(), True
        total = work.run(x, target, ctx.gradient, cpu_losses.GRADIENT, scale)
        torch.autograd.graph.increment_version(input)
    else:
        ctx.gradient = gradient = _empty_like(x)
        total = work.run(x, target, gradient, cpu_losses.GRADIENT, scale)
    return mean_of(total, divisor, x, dtype, zero_on_empty=zero_on_empty)


def _divisor(work: _Work, x: Tensor, target: Tensor) -> Sum:
    if work.reduction != "mean":
        return 1.0
    given = work.switches.get("normalizer")
    return work.divisor(target) if given is None else divisor_of(work.switches, 1.0, "mean", x)


def _empty_like(x: Tensor) -> Tensor:
    """Contiguous, as the kernels write, however ``x`` lies."""
    return torch.empty_like(x, memory_format=torch.contiguous_format) if runs_on(x) else empty_like_huge(x)


def _is_expanded(tensor: Tensor) -> bool:
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def _take_gradient(ctx: Any) -> Tensor:
    """The gradient made on the way forward, handed out once: what a caller does to it is the caller's own."""
    gradient: Tensor | None
    gradient, ctx.gradient = ctx.gradient, None
    if ctx.overwritten:
        if gradient is None:
            raise RuntimeError(
                f"{ctx.work.formula.name}: the gradient was written over the input (inplace=True) and has been used; "
                "a second backward pass needs inplace=False."
            )
        return gradient
    input, target, *_ = ctx.saved_tensors  # asked for in any case: it tells of what was changed since
    if gradient is None:
        x, work = bare(input), ctx.work
        zero_on_empty = work.switches.get("on_empty") == "zero"
        scale = scale_of(_divisor(work, x, target), zero_on_empty=zero_on_empty)
        gradient = _empty_like(x)
        work.run(x, target, gradient, cpu_losses.GRADIENT, scale)
    return gradient


def times(gradient: Tensor, grad_output: Tensor, inplace: bool = False) -> Tensor:
    """A gradient that is nobody else's, times what comes from behind."""
    if grad_output.dim() == 0 and runs_on(gradient) and is_concrete(grad_output):
        from steepest.backends import cuda_losses

        return cuda_losses.scale_in_place(gradient, grad_output)  # handed out once, so it is nobody else's
    if grad_output.dim() == 0 and _is_one(grad_output):
        return gradient
    if inplace:
        return gradient.mul_(grad_output)
    return (gradient * grad_output).to(gradient.dtype)


def _is_one(number: Tensor) -> bool:
    """Whether it is 1 for certain: one that is batched or traced has no value to look at."""
    try:
        return is_concrete(number) and float(number) == 1.0
    except RuntimeError:
        return False


def _refuse_second_derivative(ctx: Any) -> None:
    if ctx.overwritten:
        raise RuntimeError(
            f"{ctx.work.formula.name}: the input was overwritten (inplace=True); a second derivative needs "
            "inplace=False."
        )


def differentiable_gradient(loss: Callable[[Tensor], Tensor], input: Tensor, grad_output: Tensor) -> Tensor:
    """The gradient times ``grad_output``, by a loss in torch's operations, so that it can be differentiated in turn."""
    with torch.enable_grad():
        x = input if input.requires_grad else input.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x), x, grad_output, create_graph=True)
        if not gradient.requires_grad:  # of a loss that is linear: its derivative is 0, and can be asked for
            gradient = torch.where(torch.zeros_like(x, dtype=torch.bool), x, gradient)
    return gradient


def _of_the_result(switches: Switches) -> dict[str, Any]:
    names = ("normalizer", "on_empty", "output_dtype")
    return {name: switches[name] for name in names if name in switches}  # type: ignore[literal-required]


class _Fused(torch.autograd.Function):
    """The loss in autograd's graph; ``made``: its value and gradient, where they are there already."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, target: Tensor, work: _Work, made: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        ctx.work, ctx.gradient, ctx.overwritten = work, None, False
        if made is not None:
            loss, ctx.gradient = made
        elif work.reduction == "none":
            loss = _values(input, target, work)
        else:
            loss = _reduced(input, target, work, ctx)
        if not ctx.overwritten:
            ctx.save_for_backward(input, target, *work.constants)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            _refuse_second_derivative(ctx)
            input, target, *_ = ctx.saved_tensors
            reference = ctx.work.reference
            gradient = differentiable_gradient(lambda x: reference(x, target), input, grad_output)
            return gradient, None, None, None
        gradient = _take_gradient(ctx)
        if grad_output.dim() and grad_output.dim() < gradient.dim():  # one a row
            grad_output = grad_output.unsqueeze(1)
        return times(gradient, grad_output, ctx.overwritten), None, None, None


# Function.apply without its way to transforms, which `takes` has ruled out; it would take as long as a small kernel.
_apply: Callable[..., Tensor] = super(torch.autograd.Function, _Fused).apply
