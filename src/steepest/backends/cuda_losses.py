"""The Triton kernel a pointwise formula is put in, and what all loss kernels share.

float32 and float64 are computed in float64, so a float32 result carries one rounding; half types in float32, in words
that are as exact as they need. Every program leaves the sum of its block, in float64; the blocks' sums are added up by
torch's own, in a fixed order. Nothing is read back: counts, divisors and results stay on the device. Offsets have 64
bits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from steepest.backends.cuda import OPTIONS, bound, formula
from steepest.backends.cuda_storage import store

__all__ = [
    "DTYPES",
    "GRADIENT",
    "SUM",
    "VALUES",
    "on_device_of",
    "places",
    "pointwise",
    "scale_in_place",
    "store",
    "unpacked",
]

SUM, GRADIENT, VALUES = (tl.constexpr(mode) for mode in range(3))  # as in cpu_losses
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_BLOCK = 1024
_WARPS = 8  # 4 elements a thread: with 8, the longest formulas have more numbers at once than registers
_SCALED = 8192  # by a program that mostly has nothing to do: the fewer there are, the sooner that is seen
_PRECISIONS = {torch.float64: "full", torch.float32: "narrow"}  # others: half

# Bound by `pointwise`:
value: Any
gradient: Any


@triton.jit
def unpacked(numbers, NUM: tl.constexpr, WORK: tl.constexpr, like):
    """Float64 numbers from their bits, as which they are passed: a float argument would be cut to float32."""
    given = ()
    for place in tl.static_range(NUM):
        number = numbers[place].to(tl.int64).to(tl.float64, bitcast=True).to(WORK)
        given = given + (tl.broadcast_to(number, like.shape),)
    return given


@triton.jit
def places(count, BLOCK: tl.constexpr):
    """A program's places, which of them are some, whose segment it is, and where its sum goes.

    A segment is ``count`` places of a loss of its own; a single loss is one segment.
    """
    segment, block = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64)
    i = block * BLOCK + tl.arange(0, BLOCK)
    return segment * count + i, i < count, segment, segment * tl.num_programs(0) + block


@triton.jit
def _pointwise(
    predictions, targets, output, sums, scale, numbers, operands, count,
    NUM: tl.constexpr, VARIES: tl.constexpr, MODE: tl.constexpr, WORK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i, inside, segment, block = places(count, BLOCK)
    x = tl.load(predictions + i, mask=inside, other=0.0).to(WORK)
    y = tl.load(targets + i, mask=inside, other=0.0).to(WORK)
    constants = unpacked(numbers, NUM, WORK, x)
    options = ()
    for place in tl.static_range(NUM):
        if VARIES[place + 1]:
            # Element i has the operand's (i // inner) % size.
            operand, inner, size = operands[place + 1]
            options = options + (tl.load(operand + (i // inner) % size, mask=inside, other=1.0).to(WORK),)
        else:
            options = options + (constants[place],)
    terms = value(x, y, *options)
    factor = tl.load(scale + segment).to(WORK)
    if VARIES[0]:
        operand, inner, size = operands[0]
        weight = tl.load(operand + (i // inner) % size, mask=inside, other=0.0).to(WORK)
        terms = terms * weight
        factor = weight * factor
    tl.store(sums + block, tl.sum(tl.where(inside, terms.to(tl.float64), 0.0)))
    if MODE == 1:
        store(output, i, gradient(x, y, *options) * factor, inside)
    if MODE == 2:
        store(output, i, terms, inside)


@triton.jit
def _scale(gradients, factor, count, BLOCK: tl.constexpr):
    by = tl.load(factor)
    if by != 1.0:
        i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        g = tl.load(gradients + i, mask=i < count, other=0.0)
        if g.dtype == tl.float64:
            g = g * by.to(tl.float64)
        else:
            g = g.to(tl.float32) * by.to(tl.float32)
        store(gradients, i, g, i < count)


@cache
def _pointwise_kernel(
    value: Callable[..., Any], gradient: Callable[..., Any], num_parameters: int, precision: str
) -> Any:
    taken = 2 + num_parameters
    return bound(
        _pointwise,
        {
            "value": formula(value, taken, precision),
            "gradient": formula(gradient, taken, precision),
        },
    )


def pointwise(
    value: Callable[..., Any],
    gradient: Callable[..., Any],
    x: Tensor,
    t: Tensor,
    numbers: Sequence[float],
    operands: Sequence[tuple[Tensor, int, int] | None],
    segments: tuple[int, ...] = (),
) -> Callable[[Tensor, int, Tensor], Tensor]:
    """The fused kernel over contiguous tensors: ``run(output, mode, scale)`` gives the sum, float64 on the device.

    ``operands`` are the weight and one for each parameter, None where it is the constant in ``numbers``. Of ``(n,)``
    segments, equal parts that lie one after another, each has a sum and a scale of its own.
    """
    kernel = _pointwise_kernel(value, gradient, len(numbers), _PRECISIONS.get(x.dtype, "half"))
    varies = tuple(operand is not None for operand in operands)
    given = tuple((x, 1, 1) if operand is None else operand for operand in operands)
    count = x.numel() // math.prod(segments)
    num_blocks = triton.cdiv(count, _BLOCK)

    def run(out: Tensor, mode: int, scale: Tensor) -> Tensor:
        sums = x.new_empty((*segments, num_blocks), dtype=torch.float64)
        with on_device_of(x):
            kernel[(num_blocks, *segments)](
                x, t, out, sums, scale, number_bits(numbers), given, count,
                NUM=len(numbers), VARIES=varies, MODE=int(mode), WORK=work_type(x.dtype), BLOCK=_BLOCK,
                num_warps=_WARPS, **OPTIONS,
            )  # fmt: skip
        return sums.sum(dim=-1)

    return run


def scale_in_place(gradient: Tensor, by: Tensor) -> Tensor:
    """``gradient * by`` for a single number on the device; where it is 1 nothing is touched."""
    with on_device_of(gradient):
        _scale[(triton.cdiv(gradient.numel(), _SCALED),)](
            gradient, by, gradient.numel(), BLOCK=_SCALED, num_warps=8, **OPTIONS
        )
    return gradient


def number_bits(numbers: Sequence[float]) -> tuple[int, ...]:
    """Each number's bits as an integer."""
    return struct.unpack(f"<{len(numbers)}q", struct.pack(f"<{len(numbers)}d", *numbers))


def work_type(dtype: torch.dtype) -> Any:
    """What a tensor of this type is computed in."""
    return tl.float64 if dtype in _PRECISIONS else tl.float32


def on_device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Launches go to this tensor's device."""
    return torch.cuda.device_of(tensor) if tensor.is_cuda else nullcontext()
