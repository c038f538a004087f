"""Losses of several tensors in fused CPU kernels, with a gradient by each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steepest.backends import cpu, cpu_losses, cpu_pairs
from steepest.backends.cuda_devices import runs_on
from steepest.losses import kernels
from steepest.losses.checks import check_dense, check_floating, check_parameters, check_reduction
from steepest.losses.formula import LossFormula
from steepest.losses.fused import times
from steepest.losses.kernels import bare
from steepest.losses.switches import Switches, check_switches

__all__ = ["Element", "Part", "Rows", "check_pair", "several", "takes"]

Gradients = list[Tensor | None]


def check_pair(
    formula: LossFormula,
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float,
    reduction: str,
    switches: Switches,
) -> None:
    """What a loss of two inputs, their target and a margin looks at before their shapes.

    Raises:
        InputError: something of it is not as the loss takes it.
    """
    check_dense(formula.name, input1=input1, input2=input2, target=target)
    check_floating(formula.name, input1, "input1")
    check_floating(formula.name, input2, "input2")
    check_reduction(reduction)
    check_switches(formula.name, switches, reduction)
    check_parameters(formula, (margin,))


class Part(NamedTuple):
    """A run of the pointwise kernel.

    Args:
        formula: whose value and gradient are functions of three numbers of the tensors, then of ``numbers``; its
            gradient is the one by the first.
        order: which of the loss's tensors these three are.
        numbers: what is the same for every element, two at most.
    """

    formula: LossFormula
    order: tuple[int, int, int]
    numbers: tuple[float, ...]

    def run(self, tensors: Sequence[Tensor], out: Tensor, mode: int, scale: float = 1.0) -> float:
        """The kernel over the elements; the sum of the values."""
        first, second, third = (tensors[place] for place in self.order)
        operands = (None, third, *[None] * len(self.numbers))
        return float(
            kernels.run_pointwise(
                self.formula, (0.0, *self.numbers), operands, bare(first), bare(second), out, mode, scale
            )
        )


class Element(NamedTuple):
    """A loss of three tensors of one shape, element by element.

    Args:
        parts: for each tensor what gives the gradient by it, None where that is minus the one by the first; the value
            is the first one's.
        reference: the loss in torch's operations.
        reduction: none, mean or sum.
        switches: as they were given.
    """

    parts: tuple[Part | None, ...]
    reference: Callable[..., Tensor]
    reduction: str
    switches: Switches

    def shape(self, tensors: Sequence[Tensor]) -> torch.Size:
        """Of the values."""
        return tensors[0].shape

    def values(self, tensors: Sequence[Tensor], out: Tensor) -> None:
        """Every element's value."""
        self._first.run(tensors, out, cpu_losses.VALUES)

    def sum(self, tensors: Sequence[Tensor]) -> float:
        """Of the values."""
        return self._first.run(tensors, tensors[0], cpu_losses.SUM)

    def gradients(
        self, tensors: Sequence[Tensor], wanted: Sequence[bool], scale: float
    ) -> tuple[Gradients, float | None]:
        """``scale`` times those that are wanted, and the sum of the values if it came along."""
        found: Gradients = [None] * len(tensors)
        total, by_first = None, None
        if any(asked for part, asked in zip(self.parts, wanted, strict=True) if part in (self._first, None)):
            by_first = torch.empty_like(tensors[0], memory_format=torch.contiguous_format)
            total = self._first.run(tensors, by_first, cpu_losses.GRADIENT, scale)
        for place, part in enumerate(self.parts):
            if not wanted[place]:
                continue
            if place == 0:
                found[place] = by_first
            elif part is None:
                assert by_first is not None
                found[place] = -by_first
            else:
                out = torch.empty_like(tensors[place], memory_format=torch.contiguous_format)
                part.run(tensors, out, cpu_losses.GRADIENT, scale)
                found[place] = out
        return found, total

    @property
    def _first(self) -> Part:
        first = self.parts[0]
        assert first is not None
        return first


class Rows(NamedTuple):
    """A loss of rows of several tensors, with a kernel of its own.

    Args:
        kernel: which, in which type.
        num_vectors: how many of the tensors, the first ones, have rows, of one shape, and a gradient by them; what
            comes behind has a number a row.
        options: the kernel's own numbers.
        reference: the loss in torch's operations.
        reduction: none, mean or sum.
        switches: as they were given.
    """

    kernel: cpu.Kernel
    num_vectors: int
    options: tuple[float, ...]
    reference: Callable[..., Tensor]
    reduction: str
    switches: Switches

    def shape(self, tensors: Sequence[Tensor]) -> torch.Size:
        """Of the values."""
        return tensors[0].shape[:-1]

    def values(self, tensors: Sequence[Tensor], out: Tensor) -> None:
        """Every row's value."""
        self._run(tensors, [None] * self.num_vectors, out, cpu_losses.VALUES)

    def sum(self, tensors: Sequence[Tensor]) -> float:
        """Of the values."""
        return self._run(tensors, [None] * self.num_vectors, None, cpu_losses.SUM)

    def gradients(
        self, tensors: Sequence[Tensor], wanted: Sequence[bool], scale: float
    ) -> tuple[Gradients, float | None]:
        """``scale`` times those that are wanted, and the sum of the values."""
        found: Gradients = [
            torch.empty_like(tensor, memory_format=torch.contiguous_format) if asked else None
            for tensor, asked in zip(tensors[: self.num_vectors], wanted, strict=False)
        ]
        total = self._run(tensors, found, None, cpu_losses.GRADIENT, scale)
        return [*found, *[None] * (len(tensors) - self.num_vectors)], total

    def _run(
        self, tensors: Sequence[Tensor], outs: Gradients, values: Tensor | None, mode: int, scale: float = 1.0
    ) -> float:
        given = [bare(tensor) for tensor in tensors]
        places = [*given, *(given[0] if out is None else out for out in (*outs, values))]
        width = given[0].shape[-1]
        return cpu_pairs.run(
            self.kernel,
            tuple(place.data_ptr() for place in places),
            tuple(out is not None for out in outs),
            (given[0].numel() // width, width),
            self.options,
            scale,
            mode,
        )


_Work = Element | Rows


def takes(tensors: Sequence[Tensor], switches: Switches, signs: Tensor | None = None) -> bool:
    """Whether all, by each of which there may be a gradient, are plain tensors of one shape on a CPU; so ``signs``."""
    first, *others = [tensor.detach() for tensor in tensors]
    return (
        first.is_cpu
        and not runs_on(first)
        and all(other.shape == first.shape for other in others)
        and switches.get("output_dtype") in (None, first.dtype)
        and kernels.takes(first, others if signs is None else [*others, signs.detach()])
    )


def several(work: _Work, *tensors: Tensor) -> Tensor:
    """The loss; its gradients are made on the way, where there may be a need of them."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return _apply(work, *tensors)
    return _loss(work, tensors, None)


def _loss(work: _Work, tensors: Sequence[Tensor], ctx: Any) -> Tensor:
    """The reduced loss or the values; the gradients beside them, for a ``ctx`` that keeps them."""
    first = tensors[0]
    if work.reduction == "none":
        values = first.new_empty(work.shape(tensors))
        work.values(tensors, values)
        return values
    divisor, scale = _divisor_and_scale(work, tensors)
    total = None
    if ctx is not None:
        ctx.gradients, total = work.gradients(tensors, ctx.needs_input_grad[1:], scale)
    if total is None:
        total = work.sum(tensors)
    return kernels.mean_of(total, divisor, first, first.dtype, zero_on_empty=_zero_on_empty(work))


def _divisor_and_scale(work: _Work, tensors: Sequence[Tensor]) -> tuple[float, float]:
    if work.reduction == "none":
        return 1.0, 1.0
    own = float(work.shape(tensors).numel()) if work.reduction == "mean" else 1.0
    divisor = float(kernels.divisor_of(work.switches, own, work.reduction, tensors[0]))
    return divisor, float(kernels.scale_of(divisor, zero_on_empty=_zero_on_empty(work)))


def _zero_on_empty(work: _Work) -> bool:
    return work.switches.get("on_empty") == "zero"


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: _Work, *tensors: Tensor) -> Tensor:
        ctx.work, ctx.gradients = work, None
        ctx.save_for_backward(*tensors)
        return _loss(work, tensors, ctx)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        given, work, wanted = ctx.saved_tensors, ctx.work, ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            return (None, *_differentiable(work, given, wanted, grad_output))
        gradients, ctx.gradients = ctx.gradients, None  # handed out once
        if gradients is None:
            gradients, _ = work.gradients(given, wanted, _divisor_and_scale(work, given)[1])
        if grad_output.dim() and grad_output.dim() < given[0].dim():  # one a row
            grad_output = grad_output.unsqueeze(-1)
        return (None, *(None if g is None else times(g, grad_output) for g in gradients))


def _differentiable(
    work: _Work, given: Sequence[Tensor], wanted: Sequence[bool], grad_output: Tensor
) -> list[Tensor | None]:
    """The gradients by the loss in torch's operations, so that they can be differentiated in turn."""
    with torch.enable_grad():
        # Views of them: one tensor that was given twice has a gradient in each place.
        leaves = [
            tensor.view_as(tensor) if asked else tensor for tensor, asked in zip(given, wanted, strict=True)
        ]
        asked_for = [leaf for leaf, asked in zip(leaves, wanted, strict=True) if asked]
        loss = work.reference(*leaves)
        found = iter(torch.autograd.grad(loss, asked_for, grad_output, create_graph=True, allow_unused=True))
        gradients: list[Tensor | None] = []
        for leaf, asked in zip(leaves, wanted, strict=True):
            gradient = next(found) if asked else None
            if gradient is not None and not gradient.requires_grad:  # a linear loss: its derivative is 0
                gradient = torch.where(torch.zeros_like(leaf, dtype=torch.bool), leaf, gradient)
            gradients.append(gradient)
    return gradients


# Function.apply without its way to transforms, which `takes` has ruled out.
_apply: Callable[..., Tensor] = super(torch.autograd.Function, _Fused).apply
