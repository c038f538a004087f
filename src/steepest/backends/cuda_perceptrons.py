"""The Triton kernels of many perceptrons at once: a layer of all members in one launch, forward and back.

The members' weights lie side by side, (members, numbers), and a program works out a tile of one member's matrix
product. What is done element by element rides along: the bias and the activation with the product forward, the
activation's derivative with the product back, the bias's gradient with the weights'.

Products are summed up in the weights' own type, float32 in IEEE arithmetic and not in tf32, so a number is off by at
most as many roundings as it has terms, of the sum of their sizes. No program reads another member's numbers, and tiles
hang on a layer's shapes alone: a member's bits are the same whoever is beside it. Offsets have 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from steepest.backends.cuda import OPTIONS, bound, formula
from steepest.backends.cuda_losses import on_device_of

__all__ = ["DTYPES", "Layer", "multiply_by_derivative", "through", "to_inputs", "to_weights"]

Formula = Callable[..., Any]
DTYPES = {torch.float32: ("single", tl.float32), torch.float64: ("full", tl.float64)}
_LEAST, _MOST, _DEPTH = 16, 64, 32  # a tile's sides, and how much of a product's length is read at a time
_BLOCK = 1024
# Sizes and places that a kernel is not compiled anew for: a batch's short end, where a layer's numbers lie.
_PLAIN = ["num_numbers", "weight_at", "bias_at", "num_rows"]

# Bound by `_kernels`:
value: Any
gradient: Any


class Layer(NamedTuple):
    """A linear layer and the activation after it, and where a member's numbers for it lie."""

    inputs: int
    outputs: int
    weight_at: int  # of (outputs, inputs), row by row
    bias_at: int | None
    activation: tuple[Formula, Formula] | None  # value and derivative; None: there is none


# --- a tile -------------------------------------------------------------------------------------------------------


@triton.jit
def _tile(num_columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The rows and columns of a result that a program works out, and whether the columns are the first."""
    across = (num_columns + COLUMNS - 1) // COLUMNS
    down, along = tl.program_id(0) // across, tl.program_id(0) % across
    row = down.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = along.to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    return row, column, along == 0


@triton.jit
def _product(
    a, b, row, column, num_rows, num_columns, length, a_row, a_step, b_step, b_column,
    IS_SUMMED: tl.constexpr, WORK: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """A tile of ``a b``, factors that lie in any direction; and the sums of the first one's rows, if asked for."""
    total = tl.zeros([row.shape[0], column.shape[0]], WORK)
    sums = tl.zeros([row.shape[0]], WORK)
    for start in range(0, length, DEPTH):
        step = start + tl.arange(0, DEPTH).to(tl.int64)
        inside = step < length
        left = tl.load(
            a + row[:, None] * a_row + step[None, :] * a_step,
            mask=(row < num_rows)[:, None] & inside[None, :],
            other=0.0,
        )
        right = tl.load(
            b + step[:, None] * b_step + column[None, :] * b_column,
            mask=inside[:, None] & (column < num_columns)[None, :],
            other=0.0,
        )
        total = tl.dot(left, right, total, input_precision="ieee", out_dtype=WORK)
        if IS_SUMMED:
            sums += tl.sum(left, axis=1)
    return total, sums


# --- a layer ------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=_PLAIN)
def _through(
    x, which, flat, sums, out, num_numbers, weight_at, bias_at, num_rows, inputs, outputs,
    HAS_BIAS: tl.constexpr, HAS_ACTIVATION: tl.constexpr, KEEPS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WORK: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """``activation(x w^T + b)``; what the activation was of is kept too, for its derivative."""
    member = tl.program_id(1).to(tl.int64)
    row, column, _ = _tile(outputs, ROWS, COLUMNS)
    own = flat + member * num_numbers
    source = x + tl.load(which + member).to(tl.int64) * num_rows * inputs
    z, _ = _product(
        source, own + weight_at, row, column, num_rows, outputs, inputs, inputs, 1, 1, inputs, False, WORK, DEPTH
    )  # fmt: skip
    is_column = column < outputs
    if HAS_BIAS:
        z += tl.load(own + bias_at + column, mask=is_column, other=0.0)[None, :]
    at = (member * num_rows + row)[:, None] * outputs + column[None, :]
    inside = (row < num_rows)[:, None] & is_column[None, :]
    if HAS_ACTIVATION:
        if KEEPS:
            tl.store(sums + at, z, mask=inside)
        z = value(z)
    tl.store(out + at, z, mask=inside)


@triton.jit(do_not_specialize=_PLAIN)
def _to_weights(
    slopes, x, which, gradients, num_numbers, weight_at, bias_at, num_rows, inputs, outputs,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WORK: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """The weights' gradient, ``slopes^T x``, and the bias's, their sum over the rows."""
    member = tl.program_id(1).to(tl.int64)
    row, column, is_first = _tile(inputs, ROWS, COLUMNS)
    own = gradients + member * num_numbers
    source = x + tl.load(which + member).to(tl.int64) * num_rows * inputs
    total, sums = _product(
        slopes + member * num_rows * outputs, source, row, column, outputs, inputs, num_rows,
        1, outputs, inputs, 1, HAS_BIAS, WORK, DEPTH,
    )  # fmt: skip
    at = row[:, None] * inputs + column[None, :]
    tl.store(own + weight_at + at, total, mask=(row < outputs)[:, None] & (column < inputs)[None, :])
    if HAS_BIAS:
        tl.store(own + bias_at + row, sums, mask=row < tl.where(is_first, outputs, 0))


@triton.jit(do_not_specialize=_PLAIN)
def _to_inputs(
    slopes, flat, sums, below, num_numbers, weight_at, num_rows, inputs, outputs,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WORK: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """The slopes of what the layer below summed up: ``slopes w``, times its activation's derivative."""
    member = tl.program_id(1).to(tl.int64)
    row, column, _ = _tile(inputs, ROWS, COLUMNS)
    total, _ = _product(
        slopes + member * num_rows * outputs, flat + member * num_numbers + weight_at, row, column,
        num_rows, inputs, outputs, outputs, 1, inputs, 1, False, WORK, DEPTH,
    )  # fmt: skip
    at = (member * num_rows + row)[:, None] * inputs + column[None, :]
    inside = (row < num_rows)[:, None] & (column < inputs)[None, :]
    z = tl.load(sums + at, mask=inside, other=0.0)
    tl.store(below + at, total * gradient(z), mask=inside)


@triton.jit
def _derive(sums, slopes, count, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    z = tl.load(sums + i, mask=inside, other=0.0)
    tl.store(slopes + i, tl.load(slopes + i, mask=inside, other=0.0) * gradient(z), mask=inside)


# --- launching ----------------------------------------------------------------------------------------------------


@cache
def _kernels(activation: tuple[Formula, Formula] | None, dtype: torch.dtype) -> dict[str, Any]:
    """Of one activation; of none, those that need none."""
    if activation is None:
        return {"through": _through, "to_weights": _to_weights}
    precision, _ = DTYPES[dtype]
    names = {"value": formula(activation[0], 1, precision), "gradient": formula(activation[1], 1, precision)}
    kernels = {"through": _through, "to_inputs": _to_inputs, "derive": _derive}
    return {name: bound(kernel, names) for name, kernel in kernels.items()}


def _side(length: int) -> int:
    return int(min(_MOST, max(_LEAST, triton.next_power_of_2(length))))


def _launch(
    kernel: Any,
    flat: Tensor,
    arguments: tuple[Any, ...],
    shape: tuple[int, int],
    length: int,
    **of_layer: bool,
) -> None:
    """Over the tiles of every member's result of a shape, each a sum of so many products."""
    rows, columns = map(_side, shape)
    grid = (triton.cdiv(shape[0], rows) * triton.cdiv(shape[1], columns), len(flat))
    with on_device_of(flat):
        kernel[grid](
            *arguments, **of_layer, ROWS=rows, COLUMNS=columns, WORK=DTYPES[flat.dtype][1],
            DEPTH=min(_side(length), _DEPTH), **OPTIONS,
        )  # fmt: skip


def through(layer: Layer, flat: Tensor, x: Tensor, which: Tensor, *, keeps: bool) -> tuple[Tensor, Tensor]:
    """What the layer sums up and what it puts out, (members, rows, outputs) each; the former only if it is to be kept.

    Args:
        flat: the members' numbers, (members, numbers).
        x: (groups, rows, inputs).
        which: the group of each member, (members,), whole numbers.
    """
    outputs = x.new_empty((len(flat), x.shape[1], layer.outputs))
    has_activation = layer.activation is not None
    sums = torch.empty_like(outputs) if keeps and has_activation else outputs
    arguments = (
        x, which, flat, sums, outputs, flat.shape[1], layer.weight_at, layer.bias_at or 0, x.shape[1], layer.inputs,
        layer.outputs,
    )  # fmt: skip
    _launch(
        _kernels(layer.activation, flat.dtype)["through"], flat, arguments, (x.shape[1], layer.outputs), layer.inputs,
        HAS_BIAS=layer.bias_at is not None, HAS_ACTIVATION=has_activation, KEEPS=keeps,
    )  # fmt: skip
    return sums, outputs


def to_weights(layer: Layer, slopes: Tensor, x: Tensor, which: Tensor, gradients: Tensor) -> None:
    """Write the gradients by the layer's weights and biases into ``gradients``, (members, numbers)."""
    num_rows = x.shape[1]
    arguments = (
        slopes, x, which, gradients, gradients.shape[1], layer.weight_at, layer.bias_at or 0, num_rows, layer.inputs,
        layer.outputs,
    )  # fmt: skip
    shape = (layer.outputs, layer.inputs)
    _launch(
        _kernels(None, gradients.dtype)["to_weights"], gradients, arguments, shape, num_rows,
        HAS_BIAS=layer.bias_at is not None,
    )  # fmt: skip


def to_inputs(
    layer: Layer, flat: Tensor, slopes: Tensor, sums: Tensor, activation: tuple[Formula, Formula]
) -> Tensor:
    """The slopes of what the layer below summed up, (members, rows, inputs); ``activation`` is that layer's."""
    below = torch.empty_like(sums)
    num_rows = sums.shape[1]
    arguments = (
        slopes, flat, sums, below, flat.shape[1], layer.weight_at, num_rows, layer.inputs, layer.outputs
    )  # fmt: skip
    kernel = _kernels(activation, flat.dtype)["to_inputs"]
    _launch(kernel, flat, arguments, (num_rows, layer.inputs), layer.outputs)
    return below


def multiply_by_derivative(slopes: Tensor, sums: Tensor, activation: tuple[Formula, Formula]) -> None:
    """Of outputs' slopes make those of what the last layer summed up, in place."""
    with on_device_of(slopes):
        _kernels(activation, slopes.dtype)["derive"][(triton.cdiv(slopes.numel(), _BLOCK),)](
            sums, slopes, slopes.numel(), BLOCK=_BLOCK, **OPTIONS
        )  # fmt: skip
