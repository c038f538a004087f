"""The Triton kernels of softmax losses: short rows in one pass, long ones in stretches that several programs share.

The mathematics is the CPU's (:mod:`~steepest.backends.cpu_softmax`): with m the largest logit at class k, e_j =
exp(x_j - m) and rest the sum of the others, a class's log-probability is (x_j - m) - log1p(rest), exact in both tails.
float32 and half-type logits are exponentiated in float32 with the difference's rounding error carried along; float64
logits, and those with an offset, in float64. What is one number a row is float64.

Rows of at most ``_WHOLE`` classes are read once. Of longer rows every stretch first gives its own peak and sum
(`_peaks`); these are joined (`_join`), where more than one class has a share the stretches' contributions are summed
(`_share`, `_total`), and the gradient is written (`_slopes`). Stretches and their order hang on the shape alone, so
equal inputs give equal bits.

A class index outside the classes makes its row's loss and gradient NaN: to refuse it would mean to wait for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from steepest.backends.cuda import OPTIONS, bound, formula
from steepest.backends.cuda_losses import GRADIENT, number_bits, on_device_of, places, unpacked
from steepest.backends.cuda_storage import store
from steepest.backends.cuda_vocabulary import exp_difference32, exp_difference64, log1p64

__all__ = ["Rows", "softmax"]

_WHOLE = 4096  # classes, the longest rows that one program holds
_BLOCK = 4096  # elements a program holds
_MOST_ROWS = 64
_STRETCH = 4096
_PROGRAMS = 512  # that long rows are to be shared among, if they are few
_JOINED = 32  # rows a program joins

# Bound by `_kernels`:
value: Any
gradient: Any
exp_difference: Any


# --- parts --------------------------------------------------------------------------------------------------------


@triton.jit
def _first_element(row, inner, num_classes):
    """Where a row's first class lies: (N, C, d1, ...) has inner = d1 * ..."""
    return (row // inner) * (num_classes * inner) + row % inner


@triton.jit
def _logits(x, at, inside, offset, j, num_classes, WORK: tl.constexpr, HAS_OFFSET: tl.constexpr):
    part = tl.load(x + at, mask=inside, other=float("-inf")).to(WORK)
    if HAS_OFFSET:
        part = part + tl.load(offset + j, mask=j < num_classes, other=0.0)
    return part


@triton.jit
def _shares(
    own, q, at, inside, class_weight, j, num_classes, smoothing_bits,
    HAS_PROBABILITIES: tl.constexpr, HAS_WEIGHT: tl.constexpr,
):  # fmt: skip
    """``w_j q_j`` of each class: smoothed, weighted."""
    if HAS_PROBABILITIES:
        plain = tl.load(q + at, mask=inside, other=0.0).to(tl.float64)
    else:
        plain = (j == own).to(tl.float64)
    smoothing = smoothing_bits.to(tl.int64).to(tl.float64, bitcast=True)
    share = smoothing / num_classes + (1.0 - smoothing) * plain
    if HAS_WEIGHT:
        share = share * tl.load(class_weight + j, mask=j < num_classes, other=0.0).to(tl.float64)
    return tl.where(inside, share, 0.0)


@triton.jit
def _terms(share, log_p, numbers, NUM: tl.constexpr):
    """Terms of the loss and contributions to its slopes. No share, no term: infinities times 0 are not to be seen."""
    options = unpacked(numbers, NUM, tl.float64, log_p)
    loss = tl.where(share != 0.0, share * value(log_p, *options), 0.0)
    return loss, tl.where(share != 0.0, share * gradient(log_p, *options), 0.0)


@triton.jit
def _of_one_class(
    log_p, target, class_weight, is_class, numbers, NUM: tl.constexpr, HAS_WEIGHT: tl.constexpr
):
    """A row's loss and the contribution of its only class."""
    share = tl.where(is_class, 1.0, 0.0).to(tl.float64)
    if HAS_WEIGHT:
        share = tl.load(class_weight + target, mask=is_class, other=0.0).to(tl.float64)
    return _terms(share, log_p, numbers, NUM)


@triton.jit
def _settled(number, is_ignored, is_class, HAS_PROBABILITIES: tl.constexpr):
    """0 for an ignored row, NaN for one of no class."""
    if HAS_PROBABILITIES:
        return number
    return tl.where(is_ignored, 0.0, tl.where(is_class, number, float("nan")))


# --- rows that one program holds ----------------------------------------------------------------------------------


@triton.jit
def _whole(
    x, targets, q, class_weight, offset, output, sums, scale, numbers, count, num_classes, inner,
    ignore_index, smoothing_bits,
    NUM: tl.constexpr, HAS_PROBABILITIES: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_OFFSET: tl.constexpr,
    IS_SMOOTH: tl.constexpr, MODE: tl.constexpr, WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row, is_row, segment, block = places(count, ROWS)
    j = tl.arange(0, COLUMNS).to(tl.int64)[None, :]
    at = _first_element(row, inner, num_classes)[:, None] + j * inner
    inside = is_row[:, None] & (j < num_classes)
    logits = _logits(x, at, inside, offset, j, num_classes, WORK, HAS_OFFSET)
    largest = tl.max(logits, axis=1)
    k = tl.min(tl.where((logits == largest[:, None]) & inside, j, num_classes), axis=1)
    is_peak = j == k[:, None]
    e = tl.where(inside, exp_difference(logits, largest[:, None]), 0.0)
    rest = tl.sum(tl.where(is_peak, 0.0, e.to(tl.float64)), axis=1)
    peak = largest.to(tl.float64)
    rest = tl.where(peak - peak == 0.0, rest, float("nan"))
    log_total, total = log1p64(rest), 1.0 + rest
    target = tl.load(targets + row, mask=is_row & (not HAS_PROBABILITIES), other=0)
    is_ignored = target == ignore_index
    is_class = (target >= 0) & (target < num_classes)
    factor = tl.load(scale + segment)
    if HAS_PROBABILITIES or IS_SMOOTH:
        share = _shares(
            target[:, None], q, at, inside, class_weight, j, num_classes, smoothing_bits, HAS_PROBABILITIES, HAS_WEIGHT
        )  # fmt: skip
        log_p = (logits.to(tl.float64) - peak[:, None]) - log_total[:, None]
        terms, c = _terms(share, log_p, numbers, NUM)
        loss = tl.sum(terms, axis=1)
        if MODE == 1:
            own = tl.sum(tl.where(is_peak, c, 0.0), axis=1)
            mass = tl.sum(tl.where(is_peak, 0.0, c), axis=1)
            slope = c - ((own + mass) / total)[:, None] * e.to(tl.float64)
            slope = tl.where(is_peak, ((own * rest - mass) / total)[:, None], slope) * factor
    else:
        is_own = j == target[:, None]
        own_logit = tl.sum(tl.where(is_own, logits, 0.0).to(tl.float64), axis=1)
        loss, c = _of_one_class(
            (own_logit - peak) - log_total, target, class_weight, is_class & is_row, numbers, NUM, HAS_WEIGHT
        )
        if MODE == 1:
            others = tl.where(
                k == target, rest, total - tl.sum(tl.where(is_own, e.to(tl.float64), 0.0), axis=1)
            )
            slope = e.to(tl.float64) * (-factor * c / total)[:, None]
            slope = tl.where(is_own, (factor * (c * (others / total)))[:, None], slope)
    loss = _settled(loss, is_ignored, is_class, HAS_PROBABILITIES)
    tl.store(sums + block, tl.sum(tl.where(is_row, loss, 0.0)))
    if MODE == 1:
        slope = _settled(slope, is_ignored[:, None], is_class[:, None], HAS_PROBABILITIES)
        store(output, at, slope, inside)
    if MODE == 2:
        store(output, row, loss, is_row)


# --- rows in stretches --------------------------------------------------------------------------------------------
# Of a row: its peak, where it stands, the rest, its loss, the largest class's contribution and that of the others.

_PEAK, _PLACE, _REST, _LOSS, _OWN, _MASS, _WIDTH = (tl.constexpr(column) for column in range(7))


@triton.jit
def _joined(peak, place, rest, other_peak, other_place, other_rest):
    """Two parts of a row as one; a part of nothing but -inf adds nothing."""
    is_higher = other_peak > peak
    high, low = tl.where(is_higher, other_peak, peak), tl.where(is_higher, peak, other_peak)
    less = tl.where(is_higher, rest, other_rest)
    moved = tl.where(low == float("-inf"), 0.0 * less, (1.0 + less) * exp_difference64(low, high))
    return high, tl.where(is_higher, other_place, place), tl.where(is_higher, other_rest, rest) + moved


@triton.jit
def _peaks(
    x, offset, parts, num_classes, inner, a_part,
    WORK: tl.constexpr, HAS_OFFSET: tl.constexpr, STRETCH: tl.constexpr,
):  # fmt: skip
    row, part, num_parts = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.num_programs(1)
    base = _first_element(row, inner, num_classes)
    peak = tl.full([], float("-inf"), tl.float64)
    place = tl.full([], 0, tl.int64)
    rest = tl.full([], 0.0, tl.float64)
    start = part * a_part
    stop = tl.minimum(start + a_part, num_classes)
    for first in range(start, stop, STRETCH):
        j = first + tl.arange(0, STRETCH).to(tl.int64)
        inside = j < stop
        logits = _logits(x, base + j * inner, inside, offset, j, num_classes, WORK, HAS_OFFSET)
        largest = tl.max(logits, axis=0)
        k = tl.min(tl.where((logits == largest) & inside, j, num_classes), axis=0)
        e = tl.where(inside & (j != k), exp_difference(logits, largest), 0.0)
        own_rest = tl.where(largest == float("-inf"), 0.0, tl.sum(e.to(tl.float64), axis=0))
        own_rest = tl.where(tl.max((logits != logits).to(tl.int32), axis=0) > 0, float("nan"), own_rest)
        peak, place, rest = _joined(peak, place, rest, largest.to(tl.float64), k, own_rest)
    column = parts + (row * num_parts + part) * 3
    tl.store(column, peak)
    tl.store(column + 1, place.to(tl.float64))
    tl.store(column + 2, rest)


@triton.jit
def _join(
    x, targets, class_weight, offset, output, sums, parts, table, numbers, count, num_classes, inner,
    ignore_index, num_parts,
    NUM: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_OFFSET: tl.constexpr, IS_ONE_CLASS: tl.constexpr,
    MODE: tl.constexpr, WORK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row, is_row, _segment, block = places(count, ROWS)
    peak = tl.full([ROWS], float("-inf"), tl.float64)
    place = tl.full([ROWS], 0.0, tl.float64)
    rest = tl.full([ROWS], 0.0, tl.float64)
    for part in range(num_parts):
        column = parts + (row * num_parts + part) * 3
        other_peak = tl.load(column, mask=is_row, other=0.0)
        other_place = tl.load(column + 1, mask=is_row, other=0.0)
        other_rest = tl.load(column + 2, mask=is_row, other=0.0)
        peak, place, rest = _joined(peak, place, rest, other_peak, other_place, other_rest)
    rest = tl.where(peak - peak == 0.0, rest, float("nan"))
    entry = table + row * _WIDTH
    tl.store(entry + _PEAK, peak, mask=is_row)
    tl.store(entry + _PLACE, place, mask=is_row)
    tl.store(entry + _REST, rest, mask=is_row)
    if IS_ONE_CLASS:
        target = tl.load(targets + row, mask=is_row, other=0)
        is_ignored = target == ignore_index
        is_class = (target >= 0) & (target < num_classes)
        at = _first_element(row, inner, num_classes) + target * inner
        own = _logits(x, at, is_row & is_class, offset, target, num_classes, WORK, HAS_OFFSET).to(tl.float64)
        loss, c = _of_one_class(
            (own - peak) - log1p64(rest), target, class_weight, is_class & is_row, numbers, NUM, HAS_WEIGHT
        )
        loss = _settled(loss, is_ignored, is_class, False)
        tl.store(entry + _OWN, _settled(c, is_ignored, is_class, False), mask=is_row)
        tl.store(sums + block, tl.sum(tl.where(is_row, loss, 0.0)))
        if MODE == 2:
            store(output, row, loss, is_row)


@triton.jit
def _found(targets, table, row, HAS_PROBABILITIES: tl.constexpr):
    """Of a row whose stretches are joined: its entry in the table, peak, place and rest, and its class."""
    entry = table + row * _WIDTH
    place = tl.load(entry + _PLACE).to(tl.int64)
    target = place
    if not HAS_PROBABILITIES:
        target = tl.load(targets + row).to(tl.int64)
    return entry, tl.load(entry + _PEAK), place, tl.load(entry + _REST), target


@triton.jit
def _share(
    x, targets, q, class_weight, offset, table, parts, numbers, num_classes, inner, smoothing_bits, a_part,
    NUM: tl.constexpr, HAS_PROBABILITIES: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_OFFSET: tl.constexpr,
    WORK: tl.constexpr, STRETCH: tl.constexpr,
):  # fmt: skip
    row, part, num_parts = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.num_programs(1)
    base = _first_element(row, inner, num_classes)
    _entry, peak, place, rest, target = _found(targets, table, row, HAS_PROBABILITIES)
    log_total = log1p64(rest)
    loss = tl.full([], 0.0, tl.float64)
    own = tl.full([], 0.0, tl.float64)
    mass = tl.full([], 0.0, tl.float64)
    start = part * a_part
    stop = tl.minimum(start + a_part, num_classes)
    for first in range(start, stop, STRETCH):
        j = first + tl.arange(0, STRETCH).to(tl.int64)
        inside = j < stop
        at = base + j * inner
        logits = _logits(x, at, inside, offset, j, num_classes, WORK, HAS_OFFSET).to(tl.float64)
        share = _shares(
            target, q, at, inside, class_weight, j, num_classes, smoothing_bits, HAS_PROBABILITIES, HAS_WEIGHT
        )
        log_p = (logits - peak) - log_total
        terms, c = _terms(share, log_p, numbers, NUM)
        loss += tl.sum(terms, axis=0)
        own += tl.sum(tl.where(j == place, c, 0.0), axis=0)
        mass += tl.sum(tl.where(j == place, 0.0, c), axis=0)
    column = parts + (row * num_parts + part) * 3
    tl.store(column, loss)
    tl.store(column + 1, own)
    tl.store(column + 2, mass)


@triton.jit
def _total(
    targets, output, sums, parts, table, count, num_classes, ignore_index, num_parts,
    HAS_PROBABILITIES: tl.constexpr, MODE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row, is_row, _segment, block = places(count, ROWS)
    loss = tl.full([ROWS], 0.0, tl.float64)
    own = tl.full([ROWS], 0.0, tl.float64)
    mass = tl.full([ROWS], 0.0, tl.float64)
    for part in range(num_parts):
        column = parts + (row * num_parts + part) * 3
        loss += tl.load(column, mask=is_row, other=0.0)
        own += tl.load(column + 1, mask=is_row, other=0.0)
        mass += tl.load(column + 2, mask=is_row, other=0.0)
    target = tl.load(targets + row, mask=is_row & (not HAS_PROBABILITIES), other=0)
    is_class = (target >= 0) & (target < num_classes)
    loss = _settled(loss, target == ignore_index, is_class, HAS_PROBABILITIES)
    entry = table + row * _WIDTH
    tl.store(entry + _OWN, own, mask=is_row)
    tl.store(entry + _MASS, mass, mask=is_row)
    tl.store(sums + block, tl.sum(tl.where(is_row, loss, 0.0)))
    if MODE == 2:
        store(output, row, loss, is_row)


@triton.jit
def _slopes(
    x, targets, q, class_weight, offset, output, scale, table, numbers, count, num_classes, inner,
    ignore_index, smoothing_bits, a_part,
    NUM: tl.constexpr, HAS_PROBABILITIES: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_OFFSET: tl.constexpr,
    IS_SMOOTH: tl.constexpr, WORK: tl.constexpr, STRETCH: tl.constexpr,
):  # fmt: skip
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    base = _first_element(row, inner, num_classes)
    entry, peak, place, rest, target = _found(targets, table, row, HAS_PROBABILITIES)
    own = tl.load(entry + _OWN)
    total = 1.0 + rest
    log_total = log1p64(rest)
    factor = tl.load(scale + row // count)
    is_ignored = target == ignore_index
    is_class = (target >= 0) & (target < num_classes)
    start = part * a_part
    stop = tl.minimum(start + a_part, num_classes)
    for first in range(start, stop, STRETCH):
        j = first + tl.arange(0, STRETCH).to(tl.int64)
        inside = j < stop
        at = base + j * inner
        logits = _logits(x, at, inside, offset, j, num_classes, WORK, HAS_OFFSET)
        e = exp_difference(logits, peak.to(WORK)).to(tl.float64)
        if HAS_PROBABILITIES or IS_SMOOTH:
            mass = tl.load(entry + _MASS)
            share = _shares(
                target, q, at, inside, class_weight, j, num_classes, smoothing_bits, HAS_PROBABILITIES, HAS_WEIGHT
            )  # fmt: skip
            log_p = (logits.to(tl.float64) - peak) - log_total
            _, c = _terms(share, log_p, numbers, NUM)
            slope = tl.where(j == place, (own * rest - mass) / total, c - ((own + mass) / total) * e) * factor
        else:
            others = tl.where(place == target, rest, total - e)
            slope = tl.where(j == target, factor * (own * (others / total)), e * (-factor * own / total))
        slope = _settled(slope, is_ignored, is_class, HAS_PROBABILITIES)
        store(output, at, slope, inside)


# --- launching ----------------------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """What the rows are given besides their logits, each on their device."""

    classes: Tensor | None  # int64, or
    probabilities: Tensor | None
    weight: Tensor | None
    offset: Tensor | None  # float64
    ignore_index: int
    smoothing: float


@cache
def _kernels(
    value: Callable[..., Any], gradient: Callable[..., Any], num_parameters: int, is_wide: bool
) -> dict[str, Any]:
    names = {
        "value": formula(value, 1 + num_parameters, "full"),
        "gradient": formula(gradient, 1 + num_parameters, "full"),
        "exp_difference": exp_difference64 if is_wide else exp_difference32,
    }
    names["_terms"] = bound(_terms, names)
    names["_of_one_class"] = bound(_of_one_class, names)
    kernels = {"whole": _whole, "peaks": _peaks, "join": _join, "share": _share, "slopes": _slopes}
    return {**{name: bound(kernel, names) for name, kernel in kernels.items()}, "total": _total}


def softmax(
    value: Callable[..., Any],
    gradient: Callable[..., Any],
    x: Tensor,
    rows: Rows,
    numbers: Sequence[float],
    segments: tuple[int, ...] = (),
) -> Callable[[Tensor, int, Tensor], Tensor]:
    """The kernels over contiguous logits (N, C, ...) or (C,): ``run(output, mode, scale)`` gives the sum, float64.

    Of ``(n,)`` segments, equal parts of the N samples, each has a sum and a scale of its own.
    """
    dimension = 1 if x.dim() > 1 else 0
    num_classes, inner = x.shape[dimension], x.shape[dimension + 1 :].numel()
    num_rows = x.numel() // num_classes
    count = num_rows // math.prod(segments)  # a segment
    is_wide = x.dtype == torch.float64 or rows.offset is not None
    kernels = _kernels(value, gradient, len(numbers), is_wide)
    of_rows = {
        "NUM": len(numbers), "HAS_PROBABILITIES": rows.probabilities is not None,
        "HAS_WEIGHT": rows.weight is not None, "HAS_OFFSET": rows.offset is not None,
    }  # fmt: skip
    is_smooth = rows.smoothing != 0.0
    work = tl.float64 if is_wide else tl.float32
    targets, q, weight, offset = (
        x if tensor is None else tensor
        for tensor in (rows.classes, rows.probabilities, rows.weight, rows.offset)
    )
    bits = number_bits(numbers)
    (smoothing_bits,) = number_bits([rows.smoothing])
    is_one_class = rows.probabilities is None and not is_smooth

    def whole(out: Tensor, mode: int, scale: Tensor) -> Tensor:
        columns = max(triton.next_power_of_2(num_classes), 2)
        at_once = min(_MOST_ROWS, _BLOCK // columns)
        num_blocks = triton.cdiv(count, at_once)
        sums = x.new_empty((*segments, num_blocks), dtype=torch.float64)
        kernels["whole"][(num_blocks, *segments)](
            x, targets, q, weight, offset, out, sums, scale, bits, count, num_classes, inner, rows.ignore_index,
            smoothing_bits, **of_rows, IS_SMOOTH=is_smooth, MODE=mode, WORK=work, ROWS=at_once, COLUMNS=columns,
            **OPTIONS,
        )  # fmt: skip
        return sums.sum(dim=-1)

    def in_stretches(out: Tensor, mode: int, scale: Tensor) -> Tensor:
        num_stretches = triton.cdiv(num_classes, _STRETCH)
        num_parts = min(num_stretches, max(1, _PROGRAMS // count))
        a_part = triton.cdiv(num_stretches, num_parts) * _STRETCH
        grid, num_blocks = (num_rows, triton.cdiv(num_classes, a_part)), triton.cdiv(count, _JOINED)
        parts = x.new_empty((num_rows, grid[1], 3), dtype=torch.float64)
        table = x.new_empty((num_rows, _WIDTH.value), dtype=torch.float64)
        sums = x.new_empty((*segments, num_blocks), dtype=torch.float64)
        of_logits = {"WORK": work, "HAS_OFFSET": rows.offset is not None}
        kernels["peaks"][grid](
            x, offset, parts, num_classes, inner, a_part, **of_logits, STRETCH=_STRETCH, **OPTIONS
        )
        kernels["join"][(num_blocks, *segments)](
            x, targets, weight, offset, out, sums, parts, table, bits, count, num_classes, inner, rows.ignore_index,
            grid[1], **of_logits, NUM=len(numbers), HAS_WEIGHT=rows.weight is not None, IS_ONE_CLASS=is_one_class,
            MODE=mode, ROWS=_JOINED, **OPTIONS,
        )  # fmt: skip
        if not is_one_class:
            kernels["share"][grid](
                x, targets, q, weight, offset, table, parts, bits, num_classes, inner, smoothing_bits, a_part,
                **of_rows, WORK=work, STRETCH=_STRETCH, **OPTIONS,
            )  # fmt: skip
            kernels["total"][(num_blocks, *segments)](
                targets, out, sums, parts, table, count, num_classes, rows.ignore_index, grid[1],
                HAS_PROBABILITIES=rows.probabilities is not None, MODE=mode, ROWS=_JOINED, **OPTIONS,
            )  # fmt: skip
        if mode == GRADIENT.value:
            kernels["slopes"][grid](
                x, targets, q, weight, offset, out, scale, table, bits, count, num_classes, inner, rows.ignore_index,
                smoothing_bits, a_part, **of_rows, IS_SMOOTH=is_smooth, WORK=work, STRETCH=_STRETCH, **OPTIONS,
            )  # fmt: skip
        return sums.sum(dim=-1)

    way = whole if num_classes <= _WHOLE else in_stretches

    def run(out: Tensor, mode: int, scale: Tensor) -> Tensor:
        with on_device_of(x):
            return way(out, mode, scale)

    return run
