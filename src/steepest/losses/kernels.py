"""Running the fused kernels: whether they compute something, their sums, and what a mean divides these by.

On a CPU a kernel's sum is a plain number, on a GPU a tensor of that device, which nothing here waits for.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steepest.backends import cpu_losses
from steepest.backends.cpu_losses import DTYPES, NO_OPERAND
from steepest.backends.cuda_devices import runs_on
from steepest.backends.threads import run_together
from steepest.errors import InputError
from steepest.losses.checks import is_concrete, is_transformed
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches

__all__ = [
    "Run",
    "SoftmaxSettings",
    "Sum",
    "bare",
    "divisor_of",
    "doubles",
    "has_kernel",
    "integers",
    "mean_of",
    "number_like",
    "run_label_margins",
    "run_margins",
    "run_picked",
    "run_pointwise",
    "run_softmax",
    "scale_of",
    "softmax_divisor",
    "takes",
]

_ON_GPU = (*DTYPES, torch.float16, torch.bfloat16)

Sum = float | Tensor
Run = Callable[[Tensor, int, Sum], Sum]  # (output, mode, scale) -> sum


class SoftmaxSettings(NamedTuple):
    """What a softmax loss is given besides logits and targets."""

    numbers: tuple[float, ...] = ()
    weight: Tensor | None = None
    offset: Tensor | None = None
    ignore_index: int = -100
    smoothing: float = 0.0
    reduction: str = "mean"


def takes(
    input: Tensor,
    alike: Sequence[Tensor | None] = (),
    constant: Sequence[Tensor | None] = (),
    *,
    output_dtype: torch.dtype | None = None,
    formula: LossFormula | None = None,
) -> bool:
    """Whether a fused kernel computes this: plain tensors of one device, gradient by the first alone.

    Args:
        input: by what there may be a gradient.
        alike: others of its type, where they are given.
        constant: others of any type.
        output_dtype: of the result, if another than the input's was asked for.
        formula: which loss.
    """
    dtype, on_gpu = input.dtype, runs_on(input)
    if dtype not in (_ON_GPU if on_gpu else DTYPES) or not (on_gpu or input.is_cpu) or not input.numel():
        return False
    if is_transformed() or not is_concrete(input, *alike, *constant) or input.layout != torch.strided:
        return False
    device = input.device
    for other in alike:
        if other is not None and other.dtype != dtype:
            return False
    for other in (*alike, *constant):
        if other is not None and (
            other.requires_grad or other.layout != torch.strided or other.device != device
        ):
            return False
    # A wider result is rounded once from what the reference computes, not twice. On a GPU a half type's is in
    # float32 anyway; float64 has more digits than is computed with.
    if output_dtype is not None and not _is_no_wider(output_dtype, torch.float32 if on_gpu else dtype, dtype):
        return False
    return not on_gpu or formula is None or has_kernel(formula)


def _is_no_wider(output: torch.dtype, computed: torch.dtype, given: torch.dtype) -> bool:
    return torch.promote_types(output, given) in (given, torch.promote_types(computed, given))


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


def number_like(input: Tensor, number: float, dtype: torch.dtype | None = None) -> Tensor:
    """A single number where the input lies, of its type or another."""
    try:
        return torch.scalar_tensor(number, dtype=dtype or input.dtype, device=input.device)
    except RuntimeError:  # beyond the type's range, which the slower way has for infinity
        return torch.tensor(number, dtype=dtype or input.dtype, device=input.device)


def _num_classes(shape: torch.Size) -> int:
    return shape[1] if len(shape) > 1 else shape[0]


def bare(tensor: Tensor) -> Tensor:
    """The numbers as they lie in memory, one after the other."""
    if tensor.is_contiguous() and not tensor.is_neg():
        return tensor
    return tensor.detach().resolve_neg().contiguous()


class _Numbers(NamedTuple):
    """Numbers where kernels read them; they lie there as long as this lives."""

    kept: Any
    address: int


@lru_cache(256)
def doubles(numbers: tuple[float, ...]) -> _Numbers:
    """Numbers as float64, one place at least; the same place for the same numbers, most of the time."""
    kept = (ctypes.c_double * max(len(numbers), 1))(*numbers)
    return _Numbers(kept, ctypes.addressof(kept))


@lru_cache(256)
def integers(numbers: tuple[int, ...]) -> _Numbers:
    """Numbers as int64."""
    kept = (ctypes.c_int64 * len(numbers))(*numbers)
    return _Numbers(kept, ctypes.addressof(kept))


def run_pointwise(
    formula: LossFormula,
    numbers: tuple[float, ...],
    operands: Sequence[Tensor | None],
    x: Tensor,
    t: Tensor,
    out: Tensor,
    mode: int,
    scale: Sum = 1.0,
) -> Sum:
    """The kernel over contiguous tensors; its sum."""
    spread = [None if operand is None else _spread(operand, x.shape) for operand in operands]
    if runs_on(x):
        from steepest.backends import cuda_losses

        assert formula.gradient is not None
        on_gpu = cuda_losses.pointwise(formula.value, formula.gradient, x, t, numbers, spread)
        of_all: Tensor = on_gpu(out, mode, _on_device(scale, x))
        return of_all
    kernel = cpu_losses.pointwise(formula.value, formula.gradient, len(numbers), DTYPES[x.dtype])
    table: list[int] = []
    for part in spread:
        table += NO_OPERAND if part is None else (part[0].data_ptr(), *part[1:])
    options, where, count = doubles(numbers), integers(tuple(table)), x.numel()
    return cpu_losses.run_pointwise(
        kernel,
        x.data_ptr(),
        t.data_ptr(),
        out.data_ptr(),
        count,
        float(scale),
        options.address,
        where.address,
        mode,
    )


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
        return bare(operand), math.prod(shape[own[-1] + 1 :]), operand.numel()
    if not own:
        return bare(operand), 1, 1
    whole = bare(operand.expand(shape))
    return whole, 1, whole.numel()


def run_softmax(
    formula: LossFormula,
    settings: SoftmaxSettings,
    x: Tensor,
    target: Tensor,
    out: Tensor,
    mode: int,
    scale: Sum = 1.0,
) -> Sum:
    """The kernel over contiguous logits; its sum."""
    if runs_on(x):
        of_all: Tensor = _softmax_on_gpu(formula, x, target, settings)(out, mode, _on_device(scale, x))
        return of_all
    numbers, weight, offset, ignore_index, smoothing, _ = settings
    shape = x.shape
    classes = _num_classes(shape)
    rows, inner = x.numel() // classes, math.prod(shape[2:]) if len(shape) > 2 else 1
    if offset is not None and not offset.any():
        offset = None  # bare logits have the quicker kernel
    # What is not there is not read either; any address will do.
    index = shares = class_weight = offsets = x
    with_probabilities = target.is_floating_point()
    if with_probabilities:
        shares = bare(target.to(x.dtype))
    else:
        index = target.to(torch.int64).contiguous()
    if weight is not None:
        class_weight = bare(weight.to(x.dtype))
    if offset is not None:
        offsets = bare(offset.double())
    kernel = cpu_losses.softmax(
        formula.value, formula.gradient, len(numbers), DTYPES[x.dtype], offset is not None
    )
    places = x, index, shares, class_weight, offsets, out
    return cpu_losses.run_softmax(
        kernel,
        tuple(place.data_ptr() for place in places),
        rows,
        classes,
        inner,
        (weight is not None, offset is not None, with_probabilities),
        ignore_index,
        smoothing,
        float(scale),
        doubles(numbers).address,
        mode,
    )


def _softmax_on_gpu(formula: LossFormula, x: Tensor, target: Tensor, settings: SoftmaxSettings) -> Any:
    from steepest.backends import cuda_softmax

    assert formula.gradient is not None
    with_probabilities = target.is_floating_point()
    rows = cuda_softmax.Rows(
        classes=None if with_probabilities else target.to(torch.int64).contiguous(),
        probabilities=target.to(x.dtype).contiguous() if with_probabilities else None,
        weight=None if settings.weight is None else bare(settings.weight),
        offset=None if settings.offset is None else settings.offset.double().contiguous(),
        ignore_index=settings.ignore_index,
        smoothing=settings.smoothing,
    )
    return cuda_softmax.softmax(formula.value, formula.gradient, x, rows, settings.numbers)


def run_margins(
    weight: Tensor | None,
    is_squared: bool,
    margin: float,
    x: Tensor,
    target: Tensor,
    out: Tensor,
    mode: int,
    scale: Sum = 1.0,
) -> float:
    """The multi-class margin loss's kernel over contiguous scores (N, C) of a CPU; its sum."""
    index = target.to(torch.int64).contiguous()
    class_weight = x if weight is None else bare(weight.to(x.dtype))
    total = ctypes.c_double()
    arguments = (
        x.data_ptr(), index.data_ptr(), class_weight.data_ptr(), out.data_ptr(), *x.shape, weight is not None,
        is_squared, float(margin), float(scale), mode, ctypes.addressof(total),
    )  # fmt: skip
    run_together(cpu_losses.margins(DTYPES[x.dtype]), arguments, 1)
    return total.value


def run_label_margins(x: Tensor, target: Tensor, out: Tensor, mode: int, scale: Sum = 1.0) -> float:
    """The multi-label margin loss's kernel over contiguous scores (N, C) of a CPU; its sum."""
    lists = target.to(torch.int64).contiguous()
    total = ctypes.c_double()
    arguments = (
        x.data_ptr(), lists.data_ptr(), out.data_ptr(), *x.shape, float(scale), mode, ctypes.addressof(total),
    )  # fmt: skip
    run_together(cpu_losses.label_margins(DTYPES[x.dtype]), arguments, 1)
    return total.value


def run_picked(
    settings: SoftmaxSettings, x: Tensor, target: Tensor, out: Tensor, mode: int, scale: Sum = 1.0
) -> float:
    """The negative log-likelihood's kernel over contiguous log-probabilities of a CPU; its sum."""
    shape, weight = x.shape, settings.weight
    index = target.to(torch.int64).contiguous()
    class_weight = x if weight is None else bare(weight.to(x.dtype))
    if mode == cpu_losses.GRADIENT:
        out.zero_()
    total = ctypes.c_double()
    arguments = (
        x.data_ptr(), index.data_ptr(), class_weight.data_ptr(), out.data_ptr(), index.numel(), _num_classes(shape),
        math.prod(shape[2:]), weight is not None, settings.ignore_index, float(scale), mode, ctypes.addressof(total),
    )  # fmt: skip
    run_together(cpu_losses.picked(DTYPES[x.dtype]), arguments, 1)
    return total.value


def softmax_divisor(target: Tensor, settings: SoftmaxSettings, rows: int, num_kept: int | None = None) -> Sum:
    """What a mean divides by: the kept rows' class weights, or the number of kept rows (0: no row is kept)."""
    if settings.reduction == "sum":
        return 1.0
    if target.is_floating_point():
        return float(rows)
    if settings.weight is None and num_kept is not None:
        return float(num_kept)
    index = target.to(torch.int64)  # a uint8 takes -100 for 156
    if runs_on(target):
        return _divisor_on_gpu(index != settings.ignore_index, index, settings.weight)
    weight = settings.weight
    if weight is None:
        return float(torch.count_nonzero(index != settings.ignore_index))
    if weight.dtype in DTYPES and num_kept is not None:  # whose classes were looked at, in a CPU's memory
        index, weight = index.contiguous(), bare(weight)
        addresses = index.data_ptr(), weight.data_ptr()
        sum_of_kept = cpu_losses.weight_kept(DTYPES[weight.dtype])
        return sum_of_kept(*addresses, index.numel(), weight.numel(), settings.ignore_index)
    return float(weight.double()[index[index != settings.ignore_index]].sum())


def _divisor_on_gpu(kept: Tensor, index: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return kept.sum(dtype=torch.float64)
    # An index that is no class is the kernel's to tell.
    chosen = weight.double()[torch.where(kept, index, 0).clamp(0, weight.numel() - 1)]
    return torch.where(kept, chosen, 0.0).sum()


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
    return mean.to(dtype) if isinstance(mean, Tensor) else number_like(like, mean, dtype)


def divisor_of(switches: Switches, own: Sum, reduction: str, x: Tensor) -> Sum:
    """What the sum is divided by: ``own``, or the normalizer that was given."""
    given = switches.get("normalizer")
    if given is None or reduction != "mean":
        return own
    return _on_device(given, x) if isinstance(given, Tensor) and runs_on(x) else float(given)
