"""A plain loss in one call: its tensors are looked up, held to what is expected and computed on in compiled code.

Asking torch for shapes, types and addresses from Python takes several times as long as a loss of a few hundred numbers.
Here the same questions are answered through DLPack's table of C functions (`cpu_tensors.py`). A small loss, one piece
of work, is computed on the spot by the kernel of `cpu_losses.py`, with the interpreter's lock held; for a large one the
kernel is told what was found out, and shared among threads. Whatever is not plainly fit is left to the way that takes
all, and nothing has happened then.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import torch
from numba import carray, types
from torch import Tensor

from steepest.backends import cpu, cpu_losses
from steepest.backends.cpu_losses import (
    DTYPES,
    GRADIENT,
    GRAIN,
    NO_OPERAND,
    SUM,
    address,
    num_kept_of,
    weight_kept_of,
)
from steepest.backends.cpu_softmax import on_stack
from steepest.backends.cpu_tensors import LOOK_UP, NO_SUCH_TENSOR, finds_on, look_up_at
from steepest.errors import InputError

__all__ = ["Plain", "margins", "picked", "pointwise", "softmax"]

_MOST = GRAIN  # elements that are computed on the spot: there is nothing to share
_WORDS = 6  # of a DLTensor: address, device, dimensions and type, shape, strides, offset
_CPU = 1  # DLPack's number
_ONE_LANE = 1 << 16
_INT64 = 64 << 8 | _ONE_LANE
_FLOAT32 = 2 | 32 << 8 | _ONE_LANE
_FLOATS = {torch.float32: _FLOAT32, torch.float64: 2 | 64 << 8 | _ONE_LANE}
_DONE, _LEFT, _LARGE = 1, 0, 2
_FOUND = 9  # words about a large loss


# The kernels' signatures with addresses as integers.
_i, _d, _flag = types.int64, types.float64, types.boolean
_POINTWISE = types.void(_i, _i, _i, _i, _i, _d, _i, _i, _i, _i, _i)
_SOFTMAX = types.void(
    _i, _i, _i, _i, _i, _i, _i, _i, _i, _i, _flag, _flag, _flag, _i, _d, _d, _i, _i, _i, _i
)  # fmt: skip
_PICKED = types.void(_i, _i, _i, _i, _i, _i, _i, _flag, _i, _d, _i, _i)
_MARGINS = types.void(_i, _i, _i, _i, _i, _i, _flag, _flag, _d, _d, _i, _i)
# torch's function, what is known beforehand, input, target, gradient (0: none is wanted), loss, weight (0: none), room
# for what is found out about a large loss (0: only whether it is one)
_CALL = _i(_i, types.CPointer(_i), _i, _i, _i, _i, _i, _i)

look_up: Any
as_integers: Any
size_of: Any
run_kernel: Any
count_kept: Any
add_weights32: Any
add_weights64: Any
as_float32: Any
as_float64: Any
keep: Any
run_rows: Any


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


def _keep(loss: int, kind: int, value: float) -> None:
    if kind == _FLOAT32:
        carray(as_float32(loss), 1)[0] = np.float32(value)
    else:
        carray(as_float64(loss), 1)[0] = value


def _plain_pointwise(
    function: int, known: Any, input: int, target: int, gradient: int, loss: int, weight: int, found: int
) -> int:
    kind, kernel, is_mean, options, operands = known[0], known[1], known[2], known[3], known[4]
    x, y = carray(on_stack(np.int64), _WORDS), carray(on_stack(np.int64), _WORDS)
    g, r = carray(on_stack(np.int64), _WORDS), carray(on_stack(np.int64), _WORDS)
    count = size_of(function, input, x, kind)
    if count <= 0 or size_of(function, target, y, kind) != count:
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
    if size_of(function, loss, r, kind) != 1:
        return _LEFT
    divisor = np.float64(count) if is_mean != 0 else 1.0
    if count > _MOST:
        if found != 0:
            f = carray(as_integers(found), _FOUND)
            f[0], f[1], f[2], f[3], f[4] = x[0] + x[5], y[0] + y[5], out, count, mode
            carray(as_float64(found), _FOUND)[5] = divisor
        return _LARGE
    counter, sums = on_stack(np.int64), on_stack(np.float64)
    carray(counter, 1)[0] = 0
    run_kernel(
        kernel, x[0] + x[5], y[0] + y[5], out, count, _MOST, 1.0 / divisor, options, operands, mode, address(counter),
        address(sums),
    )  # fmt: skip
    keep(r[0] + r[5], kind, carray(sums, 1)[0] / divisor)
    return _DONE


def _plain_rows(
    function: int, known: Any, input: int, target: int, gradient: int, loss: int, weight: int, found: int
) -> int:
    kind, kernel, is_mean, options, ignore_index = known[0], known[1], known[2], known[3], known[4]
    most, is_of_kept, is_in_pieces = known[5], known[6], known[7]
    x, y = carray(on_stack(np.int64), _WORDS), carray(on_stack(np.int64), _WORDS)
    g, r = carray(on_stack(np.int64), _WORDS), carray(on_stack(np.int64), _WORDS)
    w = carray(on_stack(np.int64), _WORDS)
    count = size_of(function, input, x, kind)
    dims = x[2] & 0xFFFFFFFF
    if count <= 0 or dims == 0 or (count > most and is_in_pieces == 0):
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
    if count > most and found == 0:
        return _LARGE
    index = y[0] + y[5]
    kept = count_kept(as_integers(index), rows, classes, ignore_index)
    if kept <= 0:  # a class that is none, or nothing to take a mean of
        return _LEFT
    if is_of_kept == 0 and kept != rows:
        return _LEFT
    logits = x[0] + x[5]
    out, mode = logits, SUM
    if gradient != 0:
        if size_of(function, gradient, g, kind) != count:
            return _LEFT
        out, mode = g[0] + g[5], GRADIENT
    if size_of(function, loss, r, kind) != 1:
        return _LEFT
    divisor = np.float64(kept) if is_mean != 0 else 1.0
    class_weight = logits  # any address will do for what is not read
    if weight != 0:
        if size_of(function, weight, w, kind) != classes or w[2] & 0xFFFFFFFF != 1:
            return _LEFT
        class_weight = w[0] + w[5]
        if is_mean != 0 and is_of_kept != 0:
            ignored = ignore_index
            if kind == _FLOAT32:
                divisor = add_weights32(as_integers(index), as_float32(class_weight), rows, classes, ignored)
            else:
                divisor = add_weights64(as_integers(index), as_float64(class_weight), rows, classes, ignored)
            if not divisor > 0.0:
                return _LEFT
    if count > most:
        f = carray(as_integers(found), _FOUND)
        f[0], f[1], f[2], f[3], f[4] = logits, index, out, rows, mode
        carray(as_float64(found), _FOUND)[5] = divisor
        f[6], f[7], f[8] = inner, classes, class_weight
        return _LARGE
    total = on_stack(np.float64)
    run_rows(
        kernel, logits, index, class_weight, out, rows, classes, inner, weight != 0, ignore_index, options,
        1.0 / divisor, mode, address(total),
    )  # fmt: skip
    keep(r[0] + r[5], kind, carray(total, 1)[0] / divisor)
    return _DONE


# The kernels of losses of rows, called alike.


def _run_softmax(
    kernel: int, logits: int, index: int, class_weight: int, out: int, rows: int, classes: int, inner: int,
    has_weight: bool, ignore_index: int, options: int, scale: float, mode: int, total: int,
) -> None:  # fmt: skip
    counter = on_stack(np.int64)
    carray(counter, 1)[0] = 0
    smoothing, numbers = carray(as_float64(options), 1)[0], options + 8
    run_kernel(
        kernel, logits, index, logits, class_weight, logits, out, rows, rows, classes, inner, has_weight, False, False,
        ignore_index, smoothing, scale, numbers, mode, address(counter), total,
    )  # fmt: skip


def _run_picked(
    kernel: int, logits: int, index: int, class_weight: int, out: int, rows: int, classes: int, inner: int,
    has_weight: bool, ignore_index: int, options: int, scale: float, mode: int, total: int,
) -> None:  # fmt: skip
    run_kernel(
        kernel,
        logits,
        index,
        class_weight,
        out,
        rows,
        classes,
        inner,
        has_weight,
        ignore_index,
        scale,
        mode,
        total,
    )


def _run_margins(
    kernel: int, logits: int, index: int, class_weight: int, out: int, rows: int, classes: int, inner: int,
    has_weight: bool, ignore_index: int, options: int, scale: float, mode: int, total: int,
) -> None:  # fmt: skip
    given = carray(as_float64(options), 2)
    is_squared, margin = given[0] != 0.0, given[1]
    run_kernel(
        kernel,
        logits,
        index,
        class_weight,
        out,
        rows,
        classes,
        has_weight,
        is_squared,
        margin,
        scale,
        mode,
        total,
    )


@cache
def _compiled(
    template: Callable[..., int], kernels: Any, run_rows: Callable[..., None] | None = None
) -> Callable[..., int] | None:
    """The function as Python calls it; None where torch has no table that sees the CPU.

    Args:
        template: of it.
        kernels: their signature.
        run_rows: what calls a kernel of rows.
    """
    if not finds_on(torch.device("cpu")):
        return None
    bindings = {
        "look_up": cpu.call(LOOK_UP),
        "as_integers": cpu.pointer_at(types.int64),
        "as_float32": cpu.pointer_at(types.float32),
        "as_float64": cpu.pointer_at(types.float64),
    }
    bindings |= {
        "size_of": cpu.bind(_size_of, bindings),
        "keep": cpu.bind(_keep, bindings),
        "run_kernel": cpu.call(kernels),
        "count_kept": cpu.bind(num_kept_of),
        "add_weights32": cpu.bind(weight_kept_of),
        "add_weights64": cpu.bind(weight_kept_of),
    }
    if run_rows is not None:
        bindings["run_rows"] = cpu.bind(run_rows, bindings)
    prototype = ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(_CALL.args))
    return cpu.by_address(cpu.compile_kernel(template, _CALL, bindings), prototype)  # type: ignore[no-any-return]


class Plain:
    """A plain loss of one kind: what is known of it before it is called lies where compiled code reads.

    A small one is computed on the spot; a large one in pieces, by several threads, as `_in_pieces` says.

    Args:
        function: the compiled one, or None.
        known: 64-bit words; numbers of other types and tables go by their addresses.
        kept: what these point to.
        begins_at_0: whether it writes into a gradient of zeros, and only where there is another number.
        in_pieces: of what was found out about a large loss, the sum; None: there are no large ones.
    """

    __slots__ = ("_function", "_in_pieces", "_kept", "_look_up", "_words", "begins_at_0")

    def __init__(
        self,
        function: Callable[..., int] | None,
        known: Sequence[int],
        kept: Sequence[Any],
        *,
        begins_at_0: bool = False,
        in_pieces: Callable[[_Found, bool], float] | None = None,
    ) -> None:
        self.begins_at_0, self._in_pieces = begins_at_0, in_pieces
        words = (ctypes.c_int64 * len(known))(*known)
        self._function, self._look_up = function, look_up_at()
        self._words, self._kept = ctypes.addressof(words), (words, *kept)

    def __call__(
        self,
        input: Tensor,
        target: Tensor,
        gradient: Tensor | None,
        loss: Tensor,
        weight: Tensor | None = None,
    ) -> bool:
        """Compute the loss, and into ``gradient`` its slopes; False where that is not plainly fit.

        Args:
            input: any tensor of the type it was made for.
            target: any tensor.
            gradient: a contiguous tensor like the input, if one is wanted; of zeros, where it begins at 0.
            loss: one number of the input's type, for the mean or sum.
            weight: one a class.
        """
        if self._function is None:
            return False
        given = (
            self._look_up, self._words, id(input), id(target), 0 if gradient is None else id(gradient), id(loss),
            0 if weight is None else id(weight),
        )  # fmt: skip
        try:
            status = self._function(*given, 0)
            if status != _LARGE:
                return status == _DONE
            found = _Found()
            status = self._function(*given, ctypes.addressof(found))
        except NO_SUCH_TENSOR:
            return False
        if status != _LARGE or self._in_pieces is None:
            return False
        total = self._in_pieces(found, weight is not None)
        # By way of float64: what is beyond the type's range is infinite, and no error.
        loss.copy_(torch.tensor(total / found.divisor, dtype=torch.float64, device="cpu"))
        return True


class _Found(ctypes.Structure):
    """What compiled code finds out about a large loss."""

    _fields_ = (
        ("input", ctypes.c_int64),
        ("target", ctypes.c_int64),
        ("out", ctypes.c_int64),
        ("count", ctypes.c_int64),  # elements or rows
        ("mode", ctypes.c_int64),
        ("divisor", ctypes.c_double),
        ("inner", ctypes.c_int64),
        ("classes", ctypes.c_int64),
        ("class_weight", ctypes.c_int64),
    )


@lru_cache(256)
def pointwise(
    value: Callable[..., Any],
    gradient: Callable[..., Any],
    numbers: tuple[float, ...],
    dtype: torch.dtype,
    is_mean: bool,
) -> Plain:
    """The mean or sum of a pointwise formula, without weights; ``numbers`` are its parameters."""
    kernel = cpu_losses.pointwise(value, gradient, len(numbers), DTYPES[dtype])
    options = (ctypes.c_double * max(1, len(numbers)))(*numbers)
    operands = (ctypes.c_int64 * (3 * (1 + len(numbers))))(*NO_OPERAND * (1 + len(numbers)))
    where = ctypes.addressof(options), ctypes.addressof(operands)
    known = _FLOATS[dtype], kernel.address, is_mean, *where

    def in_pieces(found: _Found, has_weight: bool) -> float:
        return cpu_losses.run_pointwise(
            kernel, found.input, found.target, found.out, found.count, 1.0 / found.divisor, *where, found.mode
        )

    function = _compiled(_plain_pointwise, _POINTWISE)
    return Plain(function, known, (kernel, options, operands), in_pieces=in_pieces)


@lru_cache(256)
def softmax(
    value: Callable[..., Any],
    gradient: Callable[..., Any],
    numbers: tuple[float, ...],
    dtype: torch.dtype,
    is_mean: bool,
    ignore_index: int,
    smoothing: float,
) -> Plain:
    """The same of a softmax formula of class indices, which takes the classes' weights."""
    kernel = cpu_losses.softmax(value, gradient, len(numbers), DTYPES[dtype])

    def in_pieces(options: int, found: _Found, has_weight: bool) -> float:
        x = found.input  # any address will do for what is not read
        return cpu_losses.run_softmax(
            kernel,
            (x, found.target, x, found.class_weight, x, found.out),
            found.count,
            found.classes,
            found.inner,
            (has_weight, False, False),
            ignore_index,
            smoothing,
            1.0 / found.divisor,
            options + 8,
            found.mode,
        )

    return _of_rows(
        kernel,
        _SOFTMAX,
        _run_softmax,
        dtype,
        is_mean,
        (smoothing, *numbers),
        ignore_index,
        in_pieces=in_pieces,
    )


@lru_cache(64)
def picked(dtype: torch.dtype, is_mean: bool, ignore_index: int) -> Plain:
    """The negative log-likelihood of classes, which takes their weights."""
    kernel = cpu_losses.picked(DTYPES[dtype])
    most = 1 << 20  # it looks at one element a row
    return _of_rows(
        kernel, _PICKED, _run_picked, dtype, is_mean, (), ignore_index, most=most, begins_at_0=True
    )


@lru_cache(64)
def margins(dtype: torch.dtype, is_mean: bool, is_squared: bool, margin: float) -> Plain:
    """The multi-class margin loss of scores (N, C), which takes the classes' weights."""
    kernel, given = cpu_losses.margins(DTYPES[dtype]), (float(is_squared), margin)
    return _of_rows(kernel, _MARGINS, _run_margins, dtype, is_mean, given, None)


def _of_rows(
    kernel: cpu.Kernel,
    signature: Any,
    run_rows: Callable[..., None],
    dtype: torch.dtype,
    is_mean: bool,
    numbers: Sequence[float],
    ignore_index: int | None,
    most: int = _MOST,
    *,
    begins_at_0: bool = False,
    in_pieces: Callable[[int, _Found, bool], float] | None = None,
) -> Plain:
    """A loss of rows.

    Args:
        kernel, signature, run_rows: the kernel, and what calls it.
        dtype: of the rows.
        is_mean: or a sum.
        numbers: what ``run_rows`` finds at its options.
        ignore_index: None: a mean is over all rows, whatever they weigh.
        most: elements up to which it is computed on the spot.
        begins_at_0: the gradient, before it is written to.
        in_pieces: how more are computed, from where the numbers lie and what was found out; None: not here.
    """
    if ignore_index is not None and not -(1 << 63) <= ignore_index < 1 << 63:
        raise InputError(f"ignore_index is {ignore_index}; it must be an integer of 64 bits.")
    options = (ctypes.c_double * max(1, len(numbers)))(*numbers)
    where = ctypes.addressof(options)
    ignored, is_of_kept = (-1, False) if ignore_index is None else (ignore_index, True)
    known = (
        _FLOATS[dtype], kernel.address, is_mean, where, ignored, most, is_of_kept, in_pieces is not None,
    )  # fmt: skip
    return Plain(
        _compiled(_plain_rows, signature, run_rows),
        known,
        (kernel, options),
        begins_at_0=begins_at_0,
        in_pieces=None if in_pieces is None else partial(in_pieces, where),
    )
