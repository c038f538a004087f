"""The CPU kernels a loss formula is put in: pointwise, and softmax over class rows.

Every kernel computes in float64 whatever the tensors hold, so float32 results carry one rounding. Sums are
taken pairwise inside blocks and compensated (Neumaier) across them; pieces of fixed size are summed exactly
(`math.fsum`), so a result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import carray, types

from steepest.backends import cpu
from steepest.backends.cpu_vocabulary import _inline, exp, log1p

__all__ = ["ENGINE_LOSS", "engine_loss", "pointwise", "softmax"]

SUM, GRADIENT, VALUES = 0, 1, 2  # what a kernel writes: nothing, scaled gradients, values
_BLOCK = 256
_TYPES = {"float32": types.float32, "float64": types.float64}


def _pointer(dtype: str) -> Any:
    return types.CPointer(_TYPES[dtype])


_DOUBLES = types.CPointer(types.float64)


def ENGINE_LOSS(dtype: str) -> Any:
    """``sum = f(outputs, targets, gradient, rows, outputs_a_row, scale, parameters)``, feature-major."""
    pointer = _pointer(dtype)
    return types.float64(pointer, pointer, pointer, types.int64, types.int64, types.float64, _DOUBLES)


# --- parameters: a formula's own (delta, quantile, ...) come as an array of doubles ---------------------------


@_inline
def _take0(p: Any) -> Any:
    return ()


@_inline
def _take1(p: Any) -> Any:
    return (p[0],)


@_inline
def _take2(p: Any) -> Any:
    return (p[0], p[1])


@_inline
def _take3(p: Any) -> Any:
    return (p[0], p[1], p[2])


_TAKE = (_take0, _take1, _take2, _take3)


def _bindings(value: Callable[..., Any], gradient: Callable[..., Any], num_parameters: int) -> dict[str, Any]:
    return {"value": cpu.bind(value), "gradient": cpu.bind(gradient), "take": _TAKE[num_parameters]}


@_inline
def _pairwise_sum(block: Any) -> Any:
    width = _BLOCK // 2
    while width > 0:
        for i in range(width):
            block[i] += block[i + width]
        width //= 2
    return block[0]


@_inline
def _add(total: float, lost: float, term: float) -> Any:
    """Neumaier's compensated sum; an infinite total has no rounding error to keep."""
    new = total + term
    if abs(new) < np.inf:
        lost += (total - new) + term if abs(total) >= abs(term) else (term - new) + total
    return new, lost


# --- pointwise -----------------------------------------------------------------------------------------------

value: Any
gradient: Any
take: Any
row_loss: Any


def _pointwise(
    prediction: Any, target: Any, output: Any, start: int, stop: int, scale: float, parameters: Any, mode: int
) -> Any:
    p = carray(prediction, stop)
    t = carray(target, stop)
    out = carray(output, stop)
    options = take(parameters)
    block = np.empty(_BLOCK)
    total = 0.0
    lost = 0.0
    for first in range(start, stop, _BLOCK):
        last = min(first + _BLOCK, stop)
        # Views from 0 on, so that the loops below become SIMD code.
        pb = p[first:last]
        tb = t[first:last]
        width = last - first
        for i in range(width):
            block[i] = value(np.float64(pb[i]), np.float64(tb[i]), *options)
        if mode == VALUES:
            ob = out[first:last]
            for i in range(width):
                ob[i] = block[i]
            continue
        for i in range(width, _BLOCK):
            block[i] = 0.0
        if mode == GRADIENT:
            ob = out[first:last]
            for i in range(width):
                ob[i] = gradient(np.float64(pb[i]), np.float64(tb[i]), *options) * scale
        term = _pairwise_sum(block)
        total, lost = _add(total, lost, term)
    return total + lost


@cache
def pointwise(
    value: Callable[..., Any], gradient: Callable[..., Any], num_parameters: int, dtype: str
) -> cpu.Kernel:
    """The fused kernel of a pointwise formula over ``[start, stop)`` of contiguous arrays of one dtype."""
    pointer = _pointer(dtype)
    signature = types.float64(
        pointer, pointer, pointer, types.int64, types.int64, types.float64, _DOUBLES, types.int64
    )
    return cpu.compile_kernel(_pointwise, signature, _bindings(value, gradient, num_parameters))


# --- softmax over rows of logits -----------------------------------------------------------------------------


@_inline
def _exp_difference(a: float, b: float) -> Any:
    """``exp(a - b)`` with the difference's rounding error carried along."""
    d = a - b
    back = a - d
    error = (back - b) + (a - (d + back))
    e = exp(d)
    corrected = e * (1.0 + error)
    return corrected if d > -800.0 else e  # beyond, the error of an infinite difference is NaN


@_inline
def _sum(terms: Any, n: int) -> Any:
    # Four independent chains keep the adders busy; the order is fixed.
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    whole = n - n % 4
    for j in range(0, whole, 4):
        a += terms[j]
        b += terms[j + 1]
        c += terms[j + 2]
        d += terms[j + 3]
    for j in range(whole, n):
        a += terms[j]
    return (a + b) + (c + d)


@_inline
def _largest(terms: Any, n: int) -> Any:
    # Four independent chains; NaN is passed over here and comes back through the exponentials.
    a = b = c = d = terms[0]
    whole = n - n % 4
    for j in range(0, whole, 4):
        a = terms[j] if terms[j] > a else a
        b = terms[j + 1] if terms[j + 1] > b else b
        c = terms[j + 2] if terms[j + 2] > c else c
        d = terms[j + 3] if terms[j + 3] > d else d
    for j in range(whole, n):
        a = terms[j] if terms[j] > a else a
    a = b if b > a else a
    c = d if d > c else c
    return c if c > a else a


@_inline
def _share(j: int, target: int, q: Any, q_base: int, q_stride: int, smoothing: float, spread: float) -> Any:
    """The target distribution's share of class j, smoothed."""
    if target >= 0:
        return spread + (1.0 - smoothing if j == target else 0.0)
    return spread + (1.0 - smoothing) * np.float64(q[q_base + j * q_stride])


def _softmax_row(
    x: Any,  # logits, the row's at x[base + j * stride]
    out: Any,  # same layout
    base: int,
    stride: int,
    num_classes: int,
    target: int,  # class index, or -1 where q gives probabilities
    q: Any,
    q_base: int,
    q_stride: int,
    class_weight: Any,  # empty: all ones
    smoothing: float,
    scale: float,
    parameters: Any,
    want_gradient: bool,
    scratch: Any,  # 2 * num_classes float64
) -> Any:
    """Sum over classes of ``w_j q_j value(log p_j)``, and its gradient with respect to the logits.

    With m the maximum at class k and rest = sum_{j != k} exp(x_j - m), the log-probability is
    (x_j - m) - log1p(rest), exact in both tails. The gradient is c_j (1 - p_j) - p_j (mass - c_j) with
    c_j = w_j q_j value'(log p_j) and mass = sum c_j: at the true class 1 - p_j is the sum of the others.
    """
    options = take(parameters)
    # The row as float64, side by side: what follows is SIMD code whatever the layout was.
    logits = scratch[:num_classes]
    e = scratch[num_classes:]
    if stride == 1:
        row = x[base : base + num_classes]
        for j in range(num_classes):
            logits[j] = row[j]
    else:
        for j in range(num_classes):
            logits[j] = x[base + j * stride]
    largest = _largest(logits, num_classes)
    k = 0
    while k < num_classes - 1 and logits[k] != largest:
        k += 1
    for j in range(num_classes):
        e[j] = _exp_difference(logits[j], largest)
    e[k] = 0.0 if largest - largest == 0.0 else np.nan
    rest = _sum(e, num_classes)
    log_total = log1p(rest)
    total = 1.0 + rest
    e[k] = 1.0
    spread = smoothing / num_classes
    weighted = len(class_weight) > 0
    one_class = target >= 0 and smoothing == 0.0
    first = target if one_class else 0
    last = target + 1 if one_class else num_classes
    loss = 0.0
    mass_k = 0.0  # apart from the others', which a difference would lose beside it
    mass_others = 0.0
    for j in range(first, last):
        share = _share(j, target, q, q_base, q_stride, smoothing, spread)
        if weighted:
            share *= class_weight[j]
        if share != 0.0:
            log_p = (logits[j] - largest) - log_total
            loss += share * value(log_p, *options)
            if j == k:
                mass_k = share * gradient(log_p, *options)
            else:
                mass_others += share * gradient(log_p, *options)
    mass = mass_k + mass_others
    if want_gradient:
        factor = -scale * mass / total
        if stride == 1:
            gradient_row = out[base : base + num_classes]
            for j in range(num_classes):
                gradient_row[j] = factor * e[j]
        else:
            for j in range(num_classes):
                out[base + j * stride] = factor * e[j]
        for j in range(first, last):
            share = _share(j, target, q, q_base, q_stride, smoothing, spread)
            if weighted:
                share *= class_weight[j]
            if share != 0.0:
                at = base + j * stride
                log_p = (logits[j] - largest) - log_total
                contribution = share * gradient(log_p, *options)
                others = rest if j == k else total - e[j]
                mass_left = mass_others if j == k else mass - contribution
                out[at] = scale * (contribution * (others / total) - (e[j] / total) * mass_left)
    return loss


def _softmax(
    logits: Any,
    target: Any,
    probabilities: Any,
    weight: Any,
    output: Any,
    start: int,
    stop: int,
    num_classes: int,
    inner: int,  # elements after the class dimension: (N, C, d1, ...) has inner = d1 * ...
    has_weight: bool,
    has_probabilities: bool,
    ignore_index: int,
    smoothing: float,
    scale: float,
    parameters: Any,
    mode: int,
) -> Any:
    size = ((stop - 1) // inner + 1) * num_classes * inner
    x = carray(logits, size)
    out = carray(output, stop if mode == VALUES else size)
    index = carray(target, stop)
    q = carray(probabilities, size)
    class_weight = carray(weight, num_classes if has_weight else 0)
    scratch = np.empty(2 * num_classes)
    total = 0.0
    lost = 0.0
    for row in range(start, stop):
        base = (row // inner) * num_classes * inner + row % inner
        term = 0.0
        if not has_probabilities and index[row] == ignore_index:
            if mode == GRADIENT:
                for j in range(num_classes):
                    out[base + j * inner] = 0.0
        else:
            term = row_loss(
                x, out, base, inner, num_classes, np.int64(-1) if has_probabilities else index[row],
                q, base, inner, class_weight, smoothing, scale, parameters, mode == GRADIENT, scratch,
            )  # fmt: skip
        if mode == VALUES:
            out[row] = term
        total, lost = _add(total, lost, term)
    return total + lost


@cache
def softmax(
    value: Callable[..., Any], gradient: Callable[..., Any], num_parameters: int, dtype: str
) -> cpu.Kernel:
    """The fused kernel of a softmax formula over rows ``[start, stop)`` of contiguous (N, C, ...) logits."""
    pointer = _pointer(dtype)
    integer, flag = types.int64, types.boolean
    signature = types.float64(
        pointer, types.CPointer(types.int64), pointer, pointer, pointer, integer, integer, integer, integer,
        flag, flag, integer, types.float64, types.float64, _DOUBLES, integer,
    )  # fmt: skip
    bindings = _bindings(value, gradient, num_parameters)
    return cpu.compile_kernel(_softmax, signature, {"row_loss": cpu.bind(_softmax_row, bindings)})


# --- the native engine's form: one micro-batch, outputs x rows ------------------------------------------------


def _engine_pointwise(
    outputs: Any, targets: Any, gradients: Any, rows: int, num_outputs: int, scale: float, parameters: Any
) -> Any:
    n = rows * num_outputs
    p = carray(outputs, n)
    t = carray(targets, n)
    out = carray(gradients, n)
    options = take(parameters)
    total = 0.0
    for i in range(n):
        prediction = np.float64(p[i])
        wanted = np.float64(t[i])
        total += value(prediction, wanted, *options)
        out[i] = gradient(prediction, wanted, *options) * scale
    return total


def _engine_classes(
    outputs: Any, targets: Any, gradients: Any, rows: int, num_outputs: int, scale: float, parameters: Any
) -> Any:
    x = carray(outputs, rows * num_outputs)
    t = carray(targets, rows)
    out = carray(gradients, rows * num_outputs)
    no_weight = t[:0]
    scratch = np.empty(2 * num_outputs)
    total = 0.0
    for row in range(rows):
        total += row_loss(
            x,
            out,
            row,
            rows,
            num_outputs,
            np.int64(t[row]),
            t,
            0,
            0,
            no_weight,
            0.0,
            scale,
            parameters,
            True,
            scratch,
        )
    return total


def _engine_probabilities(
    outputs: Any, targets: Any, gradients: Any, rows: int, num_outputs: int, scale: float, parameters: Any
) -> Any:
    x = carray(outputs, rows * num_outputs)
    q = carray(targets, rows * num_outputs)
    out = carray(gradients, rows * num_outputs)
    no_weight = q[:0]
    scratch = np.empty(2 * num_outputs)
    total = 0.0
    for row in range(rows):
        total += row_loss(
            x,
            out,
            row,
            rows,
            num_outputs,
            np.int64(-1),
            q,
            row,
            rows,
            no_weight,
            0.0,
            scale,
            parameters,
            True,
            scratch,
        )
    return total


@cache
def engine_loss(
    family: str, value: Callable[..., Any], gradient: Callable[..., Any], num_parameters: int, dtype: str
) -> cpu.Kernel:
    """The loss as the native engine calls it: ``family`` is pointwise, classes or probabilities."""
    bindings = _bindings(value, gradient, num_parameters)
    if family == "pointwise":
        return cpu.compile_kernel(_engine_pointwise, ENGINE_LOSS(dtype), bindings)
    template = _engine_classes if family == "classes" else _engine_probabilities
    return cpu.compile_kernel(template, ENGINE_LOSS(dtype), {"row_loss": cpu.bind(_softmax_row, bindings)})
