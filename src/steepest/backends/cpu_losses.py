"""The CPU kernels a loss formula is put in: pointwise here, and softmax over class rows (`cpu_softmax.py`).

A pointwise formula is computed in float64 whatever the tensors hold, so float32 results carry one rounding. Sums are
taken in several chains inside blocks and compensated (Neumaier) across them; pieces of fixed size are summed exactly
(`math.fsum`), so a result does not depend on the number of threads. A kernel takes piece after piece from a counter
that all threads share.
"""

from __future__ import annotations

import ctypes
import types as python_types
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, types

from steepest.backends import cpu, cpu_softmax
from steepest.backends.cpu import next_piece
from steepest.backends.cpu_softmax import BLOCK as ROW_BLOCK
from steepest.backends.cpu_softmax import IGNORED, LANES, PROBABILITIES, compensated_sum, on_stack
from steepest.backends.cpu_softmax import add as _add
from steepest.backends.cpu_softmax import sum_of as plain_sum
from steepest.backends.cpu_vocabulary import NARROW, VOCABULARY, _inline, intrinsic
from steepest.backends.threads import run_in_pieces
from steepest.errors import InputError

__all__ = [
    "ENGINE_LOSS",
    "address",
    "engine_loss",
    "label_margins",
    "margins",
    "num_kept",
    "num_kept_of",
    "picked",
    "pointwise",
    "run_pointwise",
    "run_softmax",
    "softmax",
    "weight_kept",
    "weight_kept_of",
]

DTYPES = {torch.float32: "float32", torch.float64: "float64"}
NO_OPERAND = (0, 1, 1)  # a line of the table of operands: address, inner, count
GRAIN = 1 << 15  # elements a piece; fixed, so that sums do not depend on the number of threads
SUM, GRADIENT, VALUES = 0, 1, 2  # what a kernel writes: nothing, scaled gradients, values
_BLOCK = 512
_SHORT = 192  # rows of up to so many classes go through side by side
_TYPES = {"float32": types.float32, "float64": types.float64}


def _pointer(dtype: str) -> Any:
    return types.CPointer(_TYPES[dtype])


_DOUBLES = types.CPointer(types.float64)


def ENGINE_LOSS(dtype: str) -> Any:
    """``sum = f(outputs, targets, gradient, rows, outputs_a_row, scale, parameters, output, target)``, feature-major.

    The last two are the first of theirs once more, in registers: a pointwise loss of one number reads these, and its
    step need not wait until what it has just stored can be loaded.
    """
    pointer: Any = _pointer(dtype)
    number: Any = _TYPES[dtype]
    return types.float64(
        pointer, pointer, pointer, types.int64, types.int64, types.float64, _DOUBLES, number, number
    )


# --- parameters: a formula's own (delta, quantile, ...) ------------------------------------------------------
# A row of doubles for each, so that one may differ from element to element as weights do.


@_inline
def _at0(rows: Any, i: int) -> Any:
    return ()


@_inline
def _at1(rows: Any, i: int) -> Any:
    return (rows[0, i],)


@_inline
def _at2(rows: Any, i: int) -> Any:
    return (rows[0, i], rows[1, i])


@_inline
def _at3(rows: Any, i: int) -> Any:
    return (rows[0, i], rows[1, i], rows[2, i])


_AT = (_at0, _at1, _at2, _at3)
at: Any
num_parameters: int


def _constants(parameters: Any) -> Any:
    """The parameters as one column where they lie, for kernels in which they are constants."""
    return carray(parameters, (num_parameters, 1))


def _bindings(
    value: Callable[..., Any], gradient: Callable[..., Any], num_parameters: int, *, narrow: bool = False
) -> dict[str, Any]:
    if num_parameters >= len(_AT):
        raise InputError(
            f"A loss has at most {len(_AT) - 1} parameters of its own; this one {num_parameters}."
        )
    words = _narrow_words(value, gradient) if narrow else {}
    return {
        "value": cpu.bind(value, words),
        "gradient": cpu.bind(gradient, words),
        "at": _AT[num_parameters],
        "num_parameters": num_parameters,
        "constants": cpu.bind(_constants, {"num_parameters": num_parameters}),
    }


def _narrow_words(*functions: Callable[..., Any]) -> dict[str, Any]:
    """The names by which formulas use the vocabulary, and the shorter words they get.

    None, which leaves the formulas at their full length, where one name means different things in two modules.
    """
    found: dict[str, Any] = {}
    waiting: list[Any] = list(functions)
    seen: set[int] = set()
    while waiting:
        function = waiting.pop()
        if id(function) in seen:
            continue
        seen.add(id(function))
        for name in cpu._names(function.__code__):
            if name not in function.__globals__:
                continue
            meant = function.__globals__[name]
            if found.setdefault(name, meant) is not meant:
                return {}
            if id(meant) not in cpu._REFERENCE and isinstance(meant, python_types.FunctionType):
                waiting += [meant] if cpu._is_formula(meant) else []
    words = {id(entry): word for word, entry in VOCABULARY.items()}
    return {
        name: NARROW[words[id(cpu._REFERENCE[id(meant)])]]
        for name, meant in found.items()
        if id(meant) in cpu._REFERENCE
    }


# --- pieces of the work, taken in turn by the threads ---------------------------------------------------------


@intrinsic
def address(typingctx: Any, pointer: Any) -> Any:
    """Where a pointer points."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], ir.IntType(64))

    return types.int64(pointer), codegen


# --- pointwise -----------------------------------------------------------------------------------------------

value: Any
gradient: Any
constants: Any
as_pointer: Any
fill: Any
values_of: Any
values_and_slopes: Any
sum_of: Any


def _fill(row: Any, address: int, inner: int, count: int, first: int, width: int) -> None:
    """An operand's part of a block: element i of the whole has the operand's ``(i // inner) % count``."""
    operand = carray(as_pointer(address), count)
    if inner == 1 and first + width <= count:
        part = operand[first : first + width]
        for i in range(width):
            row[i] = part[i]
        return
    j = (first // inner) % count
    left = inner - first % inner
    for i in range(width):
        row[i] = operand[j]
        left -= 1
        if left == 0:
            left = inner
            j = j + 1 if j + 1 < count else 0


def _values_of(p: Any, t: Any, options: Any, values: Any) -> None:
    for i in range(len(values)):
        values[i] = value(np.float64(p[i]), np.float64(t[i]), *options)


def _values_and_slopes(p: Any, t: Any, options: Any, scale: float, values: Any, out: Any) -> None:
    """One loop, so that value and gradient share their exponentials."""
    for i in range(len(values)):
        prediction, wanted = np.float64(p[i]), np.float64(t[i])
        values[i] = value(prediction, wanted, *options)
        out[i] = gradient(prediction, wanted, *options) * scale


def _pointwise(
    prediction: Any, target: Any, output: Any, count: int, grain: int, scale: float, parameters: Any, operands: Any,
    mode: int, counter: Any, sums: Any,
) -> None:  # fmt: skip
    num_pieces = (count + grain - 1) // grain
    total_of = carray(sums, num_pieces)
    p = carray(prediction, count)
    t = carray(target, count)
    out = carray(output, count)
    # Address, inner and count of the weight, then of each parameter that is no constant; address 0: there is none.
    table = carray(operands, 3 * (num_parameters + 1))
    given = carray(parameters, num_parameters)
    varies = table[0] != 0
    for k in range(num_parameters):
        varies = varies or table[3 * k + 3] != 0
    over_predictions = address(output) == address(prediction)
    constant = at(constants(parameters), 0)
    # One piece of memory, whose rows LLVM knows to lie apart; gradients written over the predictions stay apart too.
    scratch = np.empty((num_parameters + 3, _BLOCK))
    weights, values, slopes = scratch[0], scratch[1], scratch[2]
    options = scratch[3:]
    for k in range(num_parameters):
        options[k, :] = given[k]
    weights[:] = 1.0
    before = np.empty(_BLOCK, p.dtype)
    while True:
        piece = next_piece(counter)
        if piece >= num_pieces:
            break
        total = 0.0
        lost = 0.0
        stop = min((piece + 1) * grain, count)
        for first in range(piece * grain, stop, _BLOCK):
            last = min(first + _BLOCK, stop)
            width = last - first
            pb = p[first:last]
            tb = t[first:last]
            block = values[:width]
            if varies:
                if table[0] != 0:
                    fill(weights, table[0], table[1], table[2], first, width)
                for k in range(num_parameters):
                    if table[3 * k + 3] != 0:
                        fill(options[k], table[3 * k + 3], table[3 * k + 4], table[3 * k + 5], first, width)
                for i in range(width):
                    x, y = np.float64(pb[i]), np.float64(tb[i])
                    values[i] = value(x, y, *at(options, i)) * weights[i]
                    slopes[i] = gradient(x, y, *at(options, i)) * (weights[i] * scale)
                if mode == GRADIENT:
                    ob = out[first:last]
                    for i in range(width):
                        ob[i] = slopes[i]
            elif mode != GRADIENT:
                values_of(pb, tb, constant, block)
            elif over_predictions:
                before[:width] = pb
                values_and_slopes(before, tb, constant, scale, block, pb)
            else:
                values_and_slopes(pb, tb, constant, scale, block, out[first:last])
            if mode == VALUES:
                ob = out[first:last]
                for i in range(width):
                    ob[i] = values[i]
            total, lost = _add(total, lost, sum_of(block))
        total_of[piece] = total + lost


@cache
def pointwise(
    value: Callable[..., Any], gradient: Callable[..., Any], num_parameters: int, dtype: str
) -> cpu.Kernel:
    """The fused kernel of a pointwise formula over contiguous arrays of one dtype, in pieces of ``grain``."""
    pointer, integers = _pointer(dtype), types.CPointer(types.int64)
    signature = types.void(
        pointer, pointer, pointer, types.int64, types.int64, types.float64, _DOUBLES, integers, types.int64,
        integers, _DOUBLES,
    )  # fmt: skip
    bindings = _bindings(value, gradient, num_parameters, narrow=dtype == "float32")
    parts = {
        "fill": cpu.bind(_fill, {"as_pointer": cpu.pointer_at(_TYPES[dtype])}),
        "values_of": cpu.bind(_values_of, bindings),
        "values_and_slopes": cpu.bind(_values_and_slopes, bindings),
        "sum_of": plain_sum if dtype == "float32" else compensated_sum,
    }
    return cpu.compile_kernel(_pointwise, signature, {**bindings, **parts})


def run_pointwise(
    kernel: cpu.Kernel, x: int, target: int, out: int, count: int, scale: float, options: int, operands: int, mode: int
) -> float:  # fmt: skip
    """The kernel over so many elements at these addresses; its sum."""
    return run_in_pieces(kernel, (x, target, out, count, GRAIN, scale, options, operands, mode), count, GRAIN)


# --- softmax over rows of logits -----------------------------------------------------------------------------

work: Any
row_loss: Any
lanes_loss: Any


def _softmax(
    logits: Any,
    target: Any,
    probabilities: Any,
    weight: Any,
    offsets: Any,
    output: Any,
    count: int,
    grain: int,  # rows a piece
    num_classes: int,
    inner: int,  # elements after the class dimension: (N, C, d1, ...) has inner = d1 * ...
    has_weight: bool,
    has_offset: bool,
    has_probabilities: bool,
    ignore_index: int,
    smoothing: float,
    scale: float,
    parameters: Any,
    mode: int,
    counter: Any,
    sums: Any,
) -> None:
    num_pieces = (count + grain - 1) // grain
    total_of = carray(sums, num_pieces)
    size = ((count - 1) // inner + 1) * num_classes * inner
    x = carray(logits, size)
    out = carray(output, count if mode == VALUES else size)
    index = carray(target, count)
    q = carray(probabilities, size)
    class_weight = carray(weight, num_classes if has_weight else 0)
    offset = carray(offsets, num_classes if has_offset else 0)
    options = at(constants(parameters), 0)
    one_class = not has_probabilities and smoothing == 0.0
    in_lanes = inner > 1 or num_classes <= _SHORT
    # Rows in lanes, or one row: its logits where they are shifted, its exponentials, its contributions.
    height = num_classes if in_lanes else 0
    length = 0 if in_lanes else num_classes
    lanes_x = np.empty((height, LANES), work)
    lanes_e = np.empty((height, LANES), work)
    lanes_c = np.empty((0 if one_class else height, LANES))
    base = np.empty(LANES, np.int64)
    classes = np.empty(LANES, np.int64)
    losses = np.empty(LANES)
    row_x = np.empty(length if has_offset else 0)
    row_e = np.empty(length, work)
    row_c = np.empty(0 if one_class else length)
    block = np.empty(ROW_BLOCK)
    while True:
        piece = next_piece(counter)
        if piece >= num_pieces:
            break
        total = 0.0
        lost = 0.0
        stop = min((piece + 1) * grain, count)
        for start in range(piece * grain, stop, LANES):
            width = min(stop - start, LANES)
            if inner == 1:
                for r in range(width):
                    base[r] = (start + r) * num_classes
            else:
                for r in range(width):
                    row = start + r
                    base[r] = (row // inner) * num_classes * inner + row % inner
            if has_probabilities:
                for r in range(width):
                    classes[r] = PROBABILITIES
            else:
                given = index[start : start + width]
                for r in range(width):
                    classes[r] = IGNORED if given[r] == ignore_index else given[r]
            if in_lanes:
                lanes_loss(
                    x, out, base, inner, width, classes, has_probabilities, q, class_weight, offset, smoothing, scale,
                    options, mode == GRADIENT, lanes_x, lanes_e, lanes_c, losses,
                )  # fmt: skip
            else:
                for r in range(width):
                    here = base[r]
                    there = here + num_classes if mode == GRADIENT else here
                    slopes = out[here:there]
                    if classes[r] == IGNORED:
                        losses[r] = 0.0
                        slopes[:] = 0.0
                    else:
                        losses[r] = row_loss(
                            x[here : here + num_classes], slopes, classes[r], q[here : here + num_classes],
                            class_weight, offset, smoothing, scale, options, mode == GRADIENT, row_x, row_e, row_c,
                            block,
                        )  # fmt: skip
            if mode == VALUES:
                values = out[start : start + width]
                for r in range(width):
                    values[r] = losses[r]
            total, lost = _add(total, lost, sum_of(losses[:width]))
        total_of[piece] = total + lost


@cache
def softmax(
    value: Callable[..., Any],
    gradient: Callable[..., Any],
    num_parameters: int,
    dtype: str,
    with_offset: bool = False,
) -> cpu.Kernel:
    """The fused kernel of a softmax formula over the rows of contiguous (N, C, ...) logits, in pieces of ``grain``."""
    pointer, integers = _pointer(dtype), types.CPointer(types.int64)
    integer, flag = types.int64, types.boolean
    signature = types.void(
        pointer, integers, pointer, pointer, _DOUBLES, pointer, integer, integer, integer, integer, flag, flag, flag,
        integer, types.float64, types.float64, _DOUBLES, integer, integers, _DOUBLES,
    )  # fmt: skip
    bindings = _softmax_bindings(value, gradient, num_parameters, dtype, with_offset)
    return cpu.compile_kernel(_softmax, signature, bindings)


def run_softmax(
    kernel: cpu.Kernel,
    addresses: tuple[int, ...],
    rows: int,
    classes: int,
    inner: int,
    given: tuple[bool, bool, bool],
    ignore_index: int,
    smoothing: float,
    scale: float,
    options: int,
    mode: int,
) -> float:
    """The kernel over so many rows; its sum.

    Args:
        kernel: as :func:`softmax` gives it.
        addresses: of the logits, class indices, probabilities, class weights, offsets and the output.
        rows, classes, inner: what there is; a row's classes lie ``inner`` elements apart.
        given: whether there are class weights, offsets and probabilities.
        ignore_index, smoothing, scale: as the loss has them; what gradients are multiplied by.
        options: the address of the loss's parameters.
        mode: what is written.
    """
    grain = max(1, GRAIN // classes)
    arguments = (
        *addresses, rows, grain, classes, inner, *given, ignore_index, smoothing, scale, options, mode,
    )  # fmt: skip
    return run_in_pieces(kernel, arguments, rows, grain)


def _softmax_bindings(
    value: Callable[..., Any],
    gradient: Callable[..., Any],
    num_parameters: int,
    dtype: str,
    with_offset: bool,
) -> dict[str, Any]:
    formula = _bindings(value, gradient, num_parameters)
    return {**formula, **cpu_softmax.bindings(formula, dtype, with_offset)}


# --- the classes of rows ---------------------------------------------------------------------------------------


def num_kept_of(index: Any, count: int, num_classes: int, ignore_index: int) -> int:
    """How many rows are not ignored; -1 if one of these has a class that is none of ``[0, num_classes)``."""
    given = carray(index, count)
    kept = 0
    wrong = 0
    for i in range(count):
        is_kept = given[i] != ignore_index
        kept += is_kept
        wrong |= is_kept & (np.uint64(given[i]) >= np.uint64(num_classes))
    return -1 if wrong else kept


@cache
def num_kept() -> Callable[[int, int, int, int], int]:
    """``kept = f(index, count, num_classes, ignore_index)``, called with an address for the index."""
    integer: Any = types.int64
    compiled = cpu.compile_kernel(num_kept_of, integer(types.CPointer(integer), integer, integer, integer))
    words = [ctypes.c_void_p, *[ctypes.c_int64] * 3]
    function: Callable[[int, int, int, int], int] = cpu.by_address(
        compiled, ctypes.CFUNCTYPE(ctypes.c_int64, *words)
    )
    return function


def weight_kept_of(index: Any, weight: Any, count: int, num_classes: int, ignore_index: int) -> float:
    """The weights of the classes of the rows that are not ignored, added up."""
    given, of_class = carray(index, count), carray(weight, num_classes)
    total = 0.0
    lost = 0.0
    for i in range(count):
        if given[i] != ignore_index:
            total, lost = _add(total, lost, np.float64(of_class[given[i]]))
    return total + lost


@cache
def weight_kept(dtype: str) -> Callable[[int, int, int, int, int], float]:
    """``sum = f(index, weight, count, num_classes, ignore_index)``, called with addresses; all classes are known."""
    integer: Any = types.int64
    signature = types.float64(types.CPointer(integer), _pointer(dtype), integer, integer, integer)
    words = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3]
    function: Callable[[int, int, int, int, int], float] = cpu.by_address(
        cpu.compile_kernel(weight_kept_of, signature), ctypes.CFUNCTYPE(ctypes.c_double, *words)
    )
    return function


# --- log-probabilities of which each row's own is picked ---------------------------------------------------------


def _picked(
    log_p: Any, index: Any, weight: Any, output: Any, rows: int, num_classes: int, inner: int, has_weight: bool,
    ignore_index: int, scale: float, mode: int, sum_of_all: Any,
) -> None:  # fmt: skip
    size = ((rows - 1) // inner + 1) * num_classes * inner
    x = carray(log_p, size)
    y = carray(index, rows)
    class_weight = carray(weight, num_classes if has_weight else 0)
    out = carray(output, rows if mode == VALUES else size)
    total = 0.0
    lost = 0.0
    for row in range(rows):
        loss = 0.0
        if y[row] != ignore_index:
            share = np.float64(class_weight[y[row]]) if has_weight else 1.0
            place = ((row // inner) * num_classes + y[row]) * inner + row % inner
            # No weight, no loss: not 0 * inf.
            loss = -share * np.float64(x[place]) if share != 0.0 else 0.0
            if mode == GRADIENT:
                out[place] = -share * scale
        if mode == VALUES:
            out[row] = loss
        total, lost = _add(total, lost, loss)
    carray(sum_of_all, 1)[0] = total + lost


@cache
def picked(dtype: str) -> cpu.Kernel:
    """The kernel of the negative log-likelihood of (N, C, ...) log-probabilities; gradients into zeros."""
    pointer, integers, integer = _pointer(dtype), types.CPointer(types.int64), types.int64
    signature = types.void(
        pointer, integers, pointer, pointer, integer, integer, integer, types.boolean, integer, types.float64, integer,
        _DOUBLES,
    )  # fmt: skip
    return cpu.compile_kernel(_picked, signature)


# --- margins between each row's own score and every other ---------------------------------------------------------


def _margins(
    scores: Any, index: Any, weight: Any, output: Any, rows: int, num_classes: int, has_weight: bool, is_squared: bool,
    margin: float, scale: float, mode: int, sum_of_all: Any,
) -> None:  # fmt: skip
    x = carray(scores, rows * num_classes)
    y = carray(index, rows)
    class_weight = carray(weight, num_classes if has_weight else 0)
    out = carray(output, rows if mode == VALUES else rows * num_classes)
    total = 0.0
    lost_of_total = 0.0
    for row in range(rows):
        start = row * num_classes
        logits = x[start : start + num_classes]
        share = (np.float64(class_weight[y[row]]) if has_weight else 1.0) / num_classes
        own = np.float64(logits[y[row]])
        # margin - own and what it lost, which shows where another score nearly cancels it.
        lead = margin - own
        back = lead + own
        lost: Any = (margin - back) - (own - (back - lead))
        lost = lost if abs(lost) < np.inf else 0.0
        loss: Any = 0.0
        slopes: Any = 0.0
        for j in range(num_classes):
            missing: Any = (np.float64(logits[j]) + lead) + lost
            missing = 0.0 if missing <= 0.0 or j == y[row] else missing
            slope = (missing + missing) if is_squared else (0.0 if missing == 0.0 else 1.0)
            loss += missing * missing if is_squared else missing
            slopes += slope
            if mode == GRADIENT:
                out[start + j] = slope * (share * scale)
        if mode == GRADIENT:
            out[start + y[row]] = -slopes * (share * scale)
        loss *= share
        if mode == VALUES:
            out[row] = loss
        total, lost_of_total = _add(total, lost_of_total, loss)
    carray(sum_of_all, 1)[0] = total + lost_of_total


@cache
def margins(dtype: str) -> cpu.Kernel:
    """The kernel of the multi-class margin loss of (N, C) scores."""
    pointer, integers, integer, flag = (
        _pointer(dtype),
        types.CPointer(types.int64),
        types.int64,
        types.boolean,
    )
    signature = types.void(
        pointer, integers, pointer, pointer, integer, integer, flag, flag, types.float64, types.float64, integer,
        _DOUBLES,
    )  # fmt: skip
    return cpu.compile_kernel(_margins, signature)


def _label_margins(
    scores: Any,
    lists: Any,
    output: Any,
    rows: int,
    num_classes: int,
    scale: float,
    mode: int,
    sum_of_all: Any,
) -> None:
    x = carray(scores, rows * num_classes)
    y = carray(lists, rows * num_classes)
    out = carray(output, rows if mode == VALUES else rows * num_classes)
    room = np.empty((2, num_classes))
    is_other, slopes = room[0], room[1]
    total = 0.0
    lost_of_total = 0.0
    for row in range(rows):
        start = row * num_classes
        logits = x[start : start + num_classes]
        labels = y[start : start + num_classes]
        is_other[:] = 1.0
        slopes[:] = 0.0
        num_labels = 0
        while num_labels < num_classes and labels[num_labels] >= 0:
            is_other[labels[num_labels]] = 0.0
            num_labels += 1
        loss: Any = 0.0
        for k in range(num_labels):
            own = np.float64(logits[labels[k]])
            # 1 - own and what it lost, which shows where another score nearly cancels it.
            lead = 1.0 - own
            back = lead + own
            lost: Any = (1.0 - back) - (own - (back - lead))
            lost = lost if abs(lost) < np.inf else 0.0
            slope_of_own = 0.0
            for j in range(num_classes):
                missing: Any = (np.float64(logits[j]) + lead) + lost
                missing = 0.0 if missing <= 0.0 or is_other[j] == 0.0 else missing
                slope = 0.0 if missing == 0.0 else 1.0
                loss += missing
                slopes[j] += slope
                slope_of_own += slope
            slopes[labels[k]] -= slope_of_own
        loss /= num_classes
        if mode == GRADIENT:
            ob = out[start : start + num_classes]
            for j in range(num_classes):
                ob[j] = slopes[j] / num_classes * scale
        if mode == VALUES:
            out[row] = loss
        total, lost_of_total = _add(total, lost_of_total, loss)
    carray(sum_of_all, 1)[0] = total + lost_of_total


@cache
def label_margins(dtype: str) -> cpu.Kernel:
    """The kernel of the multi-label margin loss of (N, C) scores and lists of classes, each ended by -1."""
    pointer, integers, integer = _pointer(dtype), types.CPointer(types.int64), types.int64
    signature = types.void(pointer, integers, pointer, integer, integer, types.float64, integer, _DOUBLES)
    return cpu.compile_kernel(_label_margins, signature)


# --- the native engine's form: one micro-batch, outputs x rows ------------------------------------------------


def _engine_pointwise(
    outputs: Any, targets: Any, gradients: Any, rows: int, num_outputs: int, scale: float, parameters: Any,
    output: Any, target: Any,
) -> Any:  # fmt: skip
    n = rows * num_outputs
    p = carray(outputs, n)
    t = carray(targets, n)
    out = carray(gradients, n)
    options = at(constants(parameters), 0)
    if n == 1:  # a row at a time: the loop's way into its lanes would take longer than the loss
        prediction = np.float64(output)
        wanted = np.float64(target)
        out[0] = gradient(prediction, wanted, *options) * scale
        return value(prediction, wanted, *options)
    total = 0.0
    for i in range(n):
        prediction = np.float64(p[i])
        wanted = np.float64(t[i])
        total += value(prediction, wanted, *options)
        out[i] = gradient(prediction, wanted, *options) * scale
    return total


with_probabilities: bool
with_class_terms: bool


def _engine_softmax(
    outputs: Any, targets: Any, gradients: Any, rows: int, num_outputs: int, scale: float, parameters: Any,
    output: Any, target: Any,
) -> Any:  # fmt: skip
    x = carray(outputs, rows * num_outputs)
    t = carray(targets, rows * num_outputs if with_probabilities else rows)
    out = carray(gradients, rows * num_outputs)
    # After the loss's own parameters, where there are any: a weight for each class, then an offset for each.
    num_terms = num_outputs if with_class_terms else 0
    given = carray(parameters, num_parameters + 2 * num_terms)
    class_weight = given[num_parameters : num_parameters + num_terms]
    offset = given[num_parameters + num_terms :]
    options = at(constants(parameters), 0)
    # A call for memory would be a part of a small net's step that counts: one, and what has a fixed size on the stack.
    lanes = np.empty((2 * num_outputs, LANES), work)
    lanes_x, lanes_e = lanes[:num_outputs], lanes[num_outputs:]
    lanes_c = np.empty((num_outputs if with_probabilities else 0, LANES))
    base = carray(on_stack(np.int64), LANES)
    classes = carray(on_stack(np.int64), LANES)
    losses = carray(on_stack(np.float64), LANES)
    total = 0.0
    for start in range(0, rows, LANES):
        width = min(rows - start, LANES)
        for r in range(width):
            base[r] = start + r
            classes[r] = PROBABILITIES if with_probabilities else np.int64(t[start + r])
        lanes_loss(
            x, out, base, rows, width, classes, with_probabilities, t, class_weight, offset, 0.0, scale, options, True,
            lanes_x, lanes_e, lanes_c, losses,
        )  # fmt: skip
        total += sum_of(losses[:width])
    return total


@cache
def engine_loss(
    family: str,
    value: Callable[..., Any],
    gradient: Callable[..., Any],
    num_parameters: int,
    dtype: str,
    with_class_terms: bool = False,
) -> cpu.Kernel:
    """The loss as the native engine calls it: ``family`` is pointwise, classes or probabilities.

    ``with_class_terms``: a weight and an offset for each class follow the parameters (softmax losses only).
    """
    if family == "pointwise":
        bindings = _bindings(value, gradient, num_parameters, narrow=dtype == "float32")
        return cpu.compile_kernel(_engine_pointwise, ENGINE_LOSS(dtype), bindings)
    bindings = _softmax_bindings(value, gradient, num_parameters, dtype, with_class_terms)
    bindings |= {"with_probabilities": family == "probabilities", "with_class_terms": with_class_terms}
    return cpu.compile_kernel(_engine_softmax, ENGINE_LOSS(dtype), bindings)
