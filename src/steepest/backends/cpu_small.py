"""A small loss in one call: its tensors are looked up, held to what is expected and computed on in compiled code.

Asking torch for shapes, types and addresses from Python takes several times as long as a loss of a few hundred numbers.
Here the same questions are answered through DLPack's table of C functions (`cpu_tensors.py`), and the kernel of
`cpu_losses.py` is called on the spot, in one piece, with the interpreter's lock held. Whatever is not plainly fit is
left to the way that takes all, and nothing has happened then.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numba import carray, types
from torch import Tensor

from steepest.backends import cpu
from steepest.backends.cpu_losses import GRADIENT, SUM, address, num_kept_of, weight_kept_of
from steepest.backends.cpu_softmax import on_stack
from steepest.backends.cpu_tensors import LOOK_UP, NO_SUCH_TENSOR, finds_on, look_up_at

__all__ = ["pointwise", "softmax"]

_MOST = 1 << 14  # elements: a loss of more takes long enough for other threads to want the interpreter
_WORDS = 6  # of a DLTensor: address, device, dimensions and type, shape, strides, offset
_CPU = 1  # DLPack's number
_ONE_LANE = 1 << 16
_INT64 = 64 << 8 | _ONE_LANE
_FLOAT32 = 2 | 32 << 8 | _ONE_LANE
_FLOATS = {torch.float32: _FLOAT32, torch.float64: 2 | 64 << 8 | _ONE_LANE}
_DONE, _LEFT = 1, 0

# The kernels' signatures with addresses as integers.
_i, _d, _flag = types.int64, types.float64, types.boolean
_POINTWISE = types.void(_i, _i, _i, _i, _i, _d, _i, _i, _i, _i, _i)
_SOFTMAX = types.void(
    _i, _i, _i, _i, _i, _i, _i, _i, _i, _i, _flag, _flag, _flag, _i, _d, _d, _i, _i, _i, _i
)  # fmt: skip
_RESULT = types.CPointer(_d)
_SMALL_POINTWISE = _i(_i, _i, _i, _i, _i, _i, _i, _i, _i, _RESULT)
_SMALL_SOFTMAX = _i(_i, _i, _i, _i, _i, _i, _i, _i, _i, _i, _d, _RESULT)

look_up: Any
as_integers: Any
size_of: Any
run_kernel: Any
count_kept: Any
add_weights32: Any
add_weights64: Any
as_float32: Any
as_float64: Any


def _size_of(function: int, tensor: int, words: Any, kind: int) -> int:
    """Look a tensor up; its number of elements if it is of this type, contiguous and in the CPU's memory, else -1."""
    if look_up(function, tensor, words) != 0:
        return -1
    if words[1] != _CPU or words[2] >> 32 != kind:
        return -1
    dims = words[2] & 0xFFFFFFFF
    shape, strides = carray(as_integers(words[3]), dims), carray(as_integers(words[4]), dims)
    size = 1
    for d in range(dims - 1, -1, -1):
        if shape[d] != 1 and strides[d] != size:
            return -1
        size *= shape[d]
    return size


def _small_pointwise(
    function: int, input: int, target: int, gradient: int, kind: int, kernel: int, options: int, operands: int,
    is_mean: int, result: Any,
) -> int:  # fmt: skip
    x, y = carray(on_stack(np.int64), _WORDS), carray(on_stack(np.int64), _WORDS)
    g = carray(on_stack(np.int64), _WORDS)
    count = size_of(function, input, x, kind)
    if count <= 0 or count > _MOST or size_of(function, target, y, kind) != count:
        return _LEFT
    dims = x[2] & 0xFFFFFFFF
    if dims != y[2] & 0xFFFFFFFF:
        return _LEFT
    shape, wanted = carray(as_integers(x[3]), dims), carray(as_integers(y[3]), dims)
    for d in range(dims):
        if shape[d] != wanted[d]:
            return _LEFT
    out, mode = x[0] + x[5], SUM
    if gradient != 0:
        if size_of(function, gradient, g, kind) != count:
            return _LEFT
        out, mode = g[0] + g[5], GRADIENT
    divisor = np.float64(count) if is_mean != 0 else 1.0
    counter, sums = on_stack(np.int64), on_stack(np.float64)
    carray(counter, 1)[0] = 0
    run_kernel(
        kernel, x[0] + x[5], y[0] + y[5], out, count, _MOST, 1.0 / divisor, options, operands, mode, address(counter),
        address(sums),
    )  # fmt: skip
    carray(result, 1)[0] = carray(sums, 1)[0] / divisor
    return _DONE


def _small_softmax(
    function: int, input: int, target: int, gradient: int, kind: int, kernel: int, options: int, ignore_index: int,
    is_mean: int, weight: int, smoothing: float, result: Any,
) -> int:  # fmt: skip
    x, y = carray(on_stack(np.int64), _WORDS), carray(on_stack(np.int64), _WORDS)
    g, w = carray(on_stack(np.int64), _WORDS), carray(on_stack(np.int64), _WORDS)
    count = size_of(function, input, x, kind)
    dims = x[2] & 0xFFFFFFFF
    if count <= 0 or count > _MOST or dims == 0:
        return _LEFT
    shape = carray(as_integers(x[3]), dims)
    place = 1 if dims > 1 else 0  # of the classes
    classes = shape[place]
    rows = count // classes
    if size_of(function, target, y, _INT64) != rows or y[2] & 0xFFFFFFFF != dims - 1:
        return _LEFT
    wanted = carray(as_integers(y[3]), dims - 1)
    inner = 1
    for d in range(dims - 1):
        if shape[d if d < place else d + 1] != wanted[d]:
            return _LEFT
        inner *= wanted[d] if d >= place else 1
    index = y[0] + y[5]
    kept = count_kept(as_integers(index), rows, classes, ignore_index)
    if kept <= 0:  # a class that is none, or nothing to take a mean of
        return _LEFT
    logits = x[0] + x[5]
    out, mode = logits, SUM
    if gradient != 0:
        if size_of(function, gradient, g, kind) != count:
            return _LEFT
        out, mode = g[0] + g[5], GRADIENT
    divisor = np.float64(kept) if is_mean != 0 else 1.0
    class_weight = logits  # any address will do for what is not read
    if weight != 0:
        if size_of(function, weight, w, kind) != classes or w[2] & 0xFFFFFFFF != 1:
            return _LEFT
        class_weight = w[0] + w[5]
        if is_mean != 0:
            ignored = ignore_index
            if kind == _FLOAT32:
                divisor = add_weights32(as_integers(index), as_float32(class_weight), rows, classes, ignored)
            else:
                divisor = add_weights64(as_integers(index), as_float64(class_weight), rows, classes, ignored)
            if not divisor > 0.0:
                return _LEFT
    counter, sums = on_stack(np.int64), on_stack(np.float64)
    carray(counter, 1)[0] = 0
    run_kernel(
        kernel, logits, index, logits, class_weight, logits, out, rows, rows, classes, inner, weight != 0, False, False,
        ignore_index, smoothing, 1.0 / divisor, options, mode, address(counter), address(sums),
    )  # fmt: skip
    carray(result, 1)[0] = carray(sums, 1)[0] / divisor
    return _DONE


def _compiled(template: Callable[..., int], signature: Any, kernels: Any) -> Callable[..., int]:
    """The function as Python calls it; it leaves all to others where torch has no table that sees the CPU."""
    if not finds_on(torch.device("cpu")):
        return lambda *arguments: _LEFT
    bindings = {"look_up": cpu.call(LOOK_UP), "as_integers": cpu.pointer_at(types.int64)}
    bindings |= {
        "size_of": cpu.bind(_size_of, bindings),
        "run_kernel": cpu.call(kernels),
        "count_kept": cpu.bind(num_kept_of),
        "add_weights32": cpu.bind(weight_kept_of),
        "add_weights64": cpu.bind(weight_kept_of),
        "as_float32": cpu.pointer_at(types.float32),
        "as_float64": cpu.pointer_at(types.float64),
    }
    words = [ctypes.c_double if argument == _d else ctypes.c_int64 for argument in signature.args]
    prototype = ctypes.PYFUNCTYPE(ctypes.c_int64, *words[:-1], ctypes.c_void_p)
    return partial(cpu.by_address(cpu.compile_kernel(template, signature, bindings), prototype), look_up_at())


@cache
def _pointwise() -> Callable[..., int]:
    return _compiled(_small_pointwise, _SMALL_POINTWISE, _POINTWISE)


@cache
def _softmax() -> Callable[..., int]:
    return _compiled(_small_softmax, _SMALL_SOFTMAX, _SOFTMAX)


def pointwise(
    kernel: cpu.Kernel,
    input: Tensor,
    target: Tensor,
    gradient: Tensor | None,
    options: int,
    operands: int,
    is_mean: bool,
) -> float | None:
    """The mean or sum of a pointwise loss by its kernel, and into ``gradient`` its slopes; None: not plainly fit.

    Args:
        kernel: of the input's type, as `cpu_losses.pointwise` gives it.
        input: any tensor of a real type.
        target: any tensor.
        gradient: a contiguous tensor like the input, if one is wanted.
        options: the address of the loss's parameters.
        operands: the address of the table that says there is no weight.
        is_mean: or a sum.
    """
    result = ctypes.c_double()
    try:
        status = _pointwise()(
            id(input), id(target), 0 if gradient is None else id(gradient), _FLOATS[input.dtype], kernel.address,
            options, operands, is_mean, ctypes.addressof(result),
        )  # fmt: skip
    except NO_SUCH_TENSOR:
        return None
    return result.value if status == _DONE else None


def softmax(
    kernel: cpu.Kernel,
    input: Tensor,
    target: Tensor,
    gradient: Tensor | None,
    options: int,
    ignore_index: int,
    is_mean: bool,
    weight: Tensor | None,
    smoothing: float,
) -> float | None:
    """The same of a softmax loss of class indices, with the classes' weights."""
    result = ctypes.c_double()
    try:
        status = _softmax()(
            id(input), id(target), 0 if gradient is None else id(gradient), _FLOATS[input.dtype], kernel.address,
            options, ignore_index, is_mean, 0 if weight is None else id(weight), smoothing, ctypes.addressof(result),
        )  # fmt: skip
    except NO_SUCH_TENSOR:
        return None
    return result.value if status == _DONE else None
