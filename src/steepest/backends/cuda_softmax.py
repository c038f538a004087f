"""The Triton kernels of softmax losses: short rows in one pass, long ones in stretches.

The mathematics is the CPU's (:mod:`~steepest.backends.cpu_softmax`): with m the largest logit, e_j = exp(x_j - m) and
rest the sum of all but one of the largest, a class's log-probability is (x_j - m) - log1p(rest), exact in both tails.
float32 and half-type logits are exponentiated in float32; float64 logits, and those with an offset, in float64, and
summed with what their sums lose. What is one number a row is float64.

Only a largest logit that stands alone, far above the rest, has a slope whose own terms would drown the others'; where
rest >= 1 no slope does. So the largest is known by its value, and its place need not be found.

Rows of at most ``_WHOLE`` classes are read once, several by one program. Of longer ones a program takes a row, if
there are enough of them (`_row`): it reads its stretches for peak and rest (`_peak_of`), where more classes share it
again for their contributions (`_share_of`), and again for the slopes (`_write_slopes`), when the card's cache may have
it. Few long rows are shared among programs: each part's peak and rest (`_peaks`) are joined (`_join`), so are the
contributions (`_share`, `_total`), and the slopes are written (`_slopes`). Sums are kept lane by lane and added up once
a part, in an order that hangs on the shape alone, so equal inputs give equal bits.

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
from steepest.backends.cuda_vocabulary import (
    exp_difference32,
    exp_difference64,
    exp_within32,
    exp_within64,
    frame32,
    frame64,
    log1p64,
)

__all__ = ["Rows", "softmax"]

_WHOLE = 4096  # classes, the longest rows that one program holds
_BLOCK = 2048  # elements a program holds of several rows
_MOST_ROWS = 128
_STRETCH = 8192  # of logits in float32 with one class a row: 16 a thread; of others half
_WARPS = 16
_PROGRAMS = 512  # that long rows are to be shared among, if they are few
_JOINED = 32  # rows a program joins

# Bound by `_kernels`:
value: Any
gradient: Any
exp_difference: Any
frame: Any
exp_within: Any
total_of: Any
added: Any
scaled: Any


# --- sums -----------------------------------------------------------------------------------------------------------


@triton.jit
def _added_narrow(total, lost, terms):
    """Terms of float32, which a float64 sum need not compensate."""
    return total + terms, lost


@triton.jit
def _added_wide(total, lost, terms):
    """Knuth's sum of two and its error; an infinite one has none to keep."""
    new = total + terms
    back = new - total
    error = (total - (new - back)) + (terms - back)
    return new, lost + tl.where(new - new == 0.0, error, 0.0)


@triton.jit
def _total_narrow(terms, AXIS: tl.constexpr):
    return tl.sum(terms, axis=AXIS)


@triton.jit
def _total_wide(terms, AXIS: tl.constexpr):
    """A sum in any order, rounded about once: of the terms' leading bits, which is exact, and of what they leave."""
    plain = tl.sum(terms, axis=AXIS)
    largest = tl.max(tl.abs(terms), axis=AXIS)
    # A power of two above all partial sums of up to 4096 terms: what is added to it is rounded to its last place.
    bits = (largest.to(tl.int64, bitcast=True) & 0x7FF0000000000000) + (14 << 52)
    grid = tl.expand_dims(bits.to(tl.float64, bitcast=True), AXIS)
    leading = (grid + terms) - grid
    exact = tl.sum(leading, axis=AXIS) + tl.sum(terms - leading, axis=AXIS)
    return tl.where(largest < 1e300, exact, plain)  # not for infinities and NaN


@triton.jit
def _scaled_narrow(e, factor):
    """``factor e_j`` in float32, rounded as once: the factor in two parts where both are normal numbers."""
    size = tl.abs(factor)
    if ((size > 1e-25) & (size < 1e25)) | (factor == 0.0):
        high = factor.to(tl.float32)
        low = (factor - high.to(tl.float64)).to(tl.float32)
        slope = tl.fma(e, high, e * low)
    else:
        slope = (e.to(tl.float64) * factor).to(tl.float32)
    return slope


@triton.jit
def _scaled_wide(e, factor):
    return e * factor


# --- parts --------------------------------------------------------------------------------------------------------


@triton.jit
def _first_element(row, inner, num_classes):
    """Where a row's first class lies: (N, C, d1, ...) has inner = d1 * ..."""
    return (row // inner) * num_classes * inner + row % inner  # row has 64 bits, and so has each product


@triton.jit
def _at(base, j, inner):
    return base + j.to(tl.int64) * inner


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
    first = _first_element(row, inner, num_classes)
    j = tl.arange(0, COLUMNS)[None, :]
    at = _at(first[:, None], j, inner)
    inside = is_row[:, None] & (j < num_classes)
    logits = _logits(x, at, inside, offset, j, num_classes, WORK, HAS_OFFSET)
    largest = tl.max(logits, axis=1)
    is_peak = logits == largest[:, None]
    e = tl.where(inside, exp_difference(logits, largest[:, None]), 0.0)
    peak = largest.to(tl.float64)
    others_at_peak = tl.sum(is_peak.to(tl.int32), axis=1) - 1
    rest = total_of(tl.where(is_peak, 0.0, e.to(tl.float64)), 1) + others_at_peak
    rest = tl.where(peak - peak == 0.0, rest, float("nan"))
    log_total, total = log1p64(rest), 1.0 + rest
    target = tl.load(targets + row, mask=is_row & (not HAS_PROBABILITIES), other=0)
    is_ignored = target == ignore_index
    is_class = (target >= 0) & (target < num_classes)
    place = _place(target, is_class)
    factor = tl.load(scale + segment)
    if HAS_PROBABILITIES or IS_SMOOTH:
        share = _shares(
            place[:, None], q, at, inside, class_weight, j, num_classes, smoothing_bits, HAS_PROBABILITIES, HAS_WEIGHT
        )  # fmt: skip
        log_p = (logits.to(tl.float64) - peak[:, None]) - log_total[:, None]
        terms, c = _terms(share, log_p, numbers, NUM)
        loss = total_of(terms, 1)
        if MODE == 1:
            is_alone = logits.to(tl.float64) == _alone(peak, rest)[:, None]
            own = tl.sum(tl.where(is_alone, c, 0.0), axis=1)
            mass = total_of(tl.where(is_alone, 0.0, c), 1)
            slope = c - ((own + mass) / total)[:, None] * e.to(tl.float64)
            slope = tl.where(is_alone, ((own * rest - mass) / total)[:, None], slope) * factor
    else:
        own_logit = _own_logit(
            x, first, target, inner, is_row & is_class, offset, num_classes, WORK, HAS_OFFSET
        )
        loss, c = _of_one_class(
            (own_logit.to(tl.float64) - peak) - log_total, target, class_weight, is_class & is_row, numbers, NUM,
            HAS_WEIGHT,
        )  # fmt: skip
        if MODE == 1:
            others = _others(own_logit, largest, rest, exp_difference(own_logit, largest).to(tl.float64))
            slope = e.to(tl.float64) * (-factor * c / total)[:, None]
            slope = tl.where(j == place[:, None], (factor * (c * (others / total)))[:, None], slope)
    loss = _settled(loss, is_ignored, is_class, HAS_PROBABILITIES)
    tl.store(sums + block, tl.sum(tl.where(is_row, loss, 0.0)))
    if MODE == 1:
        tl.debug_barrier()  # written over the logits, perhaps, which each warp has read its rows' classes from by now
        slope = _settled(slope, is_ignored[:, None], is_class[:, None], HAS_PROBABILITIES)
        store(output, at, slope, inside)
    if MODE == 2:
        store(output, row, loss, is_row)


@triton.jit
def _alone(peak, rest):
    """The peak, if its slope needs care; else what no logit equals."""
    return tl.where(rest < 1.0, peak, float("nan"))


@triton.jit
def _place(target, is_class):
    """A row's class among its columns, or -1."""
    return tl.where(is_class, target, -1).to(tl.int32)


@triton.jit
def _own_logit(
    x, first, target, inner, is_known, offset, num_classes, WORK: tl.constexpr, HAS_OFFSET: tl.constexpr
):
    return _logits(x, first + target * inner, is_known, offset, target, num_classes, WORK, HAS_OFFSET)


@triton.jit
def _others(own, largest, rest, power):
    """Of a class the sum of all exponentials but its own, which is ``power``."""
    return tl.where(own == largest, rest, (1.0 + rest) - power)


# --- a part of a row, stretch by stretch ----------------------------------------------------------------------------


@triton.jit
def _peak_of(
    x, base, offset, start, stop, num_classes, inner,
    WORK: tl.constexpr, HAS_OFFSET: tl.constexpr, STRETCH: tl.constexpr,
):  # fmt: skip
    """The largest logit of a part, and the sum of the others' exponentials relative to it."""
    lane = tl.arange(0, STRETCH)
    peak = tl.full([], float("-inf"), WORK)
    shift, rounder, least, unit = frame(tl.full([], 0.0, WORK))
    rest = tl.zeros([STRETCH], tl.float64)  # in units
    lost = tl.zeros([STRETCH if tl.float64 == WORK else 1], tl.float64)
    for first in range(start, stop, STRETCH):
        j = first + lane
        logits = _logits(x, _at(base, j, inner), j < stop, offset, j, num_classes, WORK, HAS_OFFSET)
        largest = tl.max(logits, axis=0)
        peaks = 0
        if largest > peak:
            # The peak so far is one of the others now, and all but one that are as large as the new one.
            moved = exp_difference64(peak.to(tl.float64), largest.to(tl.float64))
            peaks = tl.sum((logits == largest).to(tl.int32), axis=0)
            rest = tl.where(lane == 0, rest * unit + 1.0, rest * unit) * moved
            lost = lost * unit * moved
            peak = largest
            shift, rounder, least, unit = frame(peak)
            rest = tl.where(lane == 0, rest + (peaks - 1), rest) / unit
            lost = lost / unit
        e = exp_within(logits, shift, rounder, least)
        rest, lost = added(rest, lost, tl.where((logits == peak) & (peaks > 0), 0.0, e).to(tl.float64))
    return peak.to(tl.float64), (total_of(rest, 0) + tl.sum(lost, axis=0)) * unit


@triton.jit
def _share_of(
    x, base, q, class_weight, offset, start, stop, target, peak, rest, numbers, num_classes, inner, smoothing_bits,
    NUM: tl.constexpr, HAS_PROBABILITIES: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_OFFSET: tl.constexpr,
    WORK: tl.constexpr, STRETCH: tl.constexpr,
):  # fmt: skip
    """The loss of a part, the contribution of a peak that stands alone, and that of all others."""
    log_total, alone = log1p64(rest), _alone(peak, rest)
    place = _place(target, (target >= 0) & (target < num_classes))
    loss = tl.zeros([STRETCH], tl.float64)
    loss_lost = tl.zeros([STRETCH if tl.float64 == WORK else 1], tl.float64)
    own = tl.zeros([STRETCH], tl.float64)
    mass = tl.zeros([STRETCH], tl.float64)
    mass_lost = tl.zeros([STRETCH if tl.float64 == WORK else 1], tl.float64)
    for first in range(start, stop, STRETCH):
        j = first + tl.arange(0, STRETCH)
        inside = j < stop
        at = _at(base, j, inner)
        logits = _logits(x, at, inside, offset, j, num_classes, WORK, HAS_OFFSET).to(tl.float64)
        share = _shares(
            place, q, at, inside, class_weight, j, num_classes, smoothing_bits, HAS_PROBABILITIES, HAS_WEIGHT
        )
        terms, c = _terms(share, (logits - peak) - log_total, numbers, NUM)
        is_alone = logits == alone
        loss, loss_lost = added(loss, loss_lost, terms)
        own += tl.where(is_alone, c, 0.0)
        mass, mass_lost = added(mass, mass_lost, tl.where(is_alone, 0.0, c))
    whole_loss = total_of(loss, 0) + tl.sum(loss_lost, axis=0)
    return whole_loss, tl.sum(own, axis=0), total_of(mass, 0) + tl.sum(mass_lost, axis=0)


@triton.jit
def _write_slopes(
    x, base, q, class_weight, offset, output, start, stop, target, is_class, peak, rest, own, mass, factor, numbers,
    num_classes, inner, ignore_index, smoothing_bits,
    NUM: tl.constexpr, HAS_PROBABILITIES: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_OFFSET: tl.constexpr,
    IS_SMOOTH: tl.constexpr, WORK: tl.constexpr, STRETCH: tl.constexpr,
):  # fmt: skip
    """The gradient of a part; an ignored row is not read."""
    total = 1.0 + rest
    shift, rounder, least, unit = frame(peak.to(WORK))
    place = _place(target, is_class)
    is_read = tl.full([], True, tl.int1)
    if not HAS_PROBABILITIES:
        is_read = target != ignore_index
        factor = tl.where(is_class, factor, float("nan"))
    if not is_read:
        for first in range(start, stop, STRETCH):
            j = first + tl.arange(0, STRETCH)
            store(output, _at(base, j, inner), tl.zeros([STRETCH], WORK), j < stop)
    elif HAS_PROBABILITIES or IS_SMOOTH:
        log_total, alone = log1p64(rest), _alone(peak, rest)
        at_peak, by = factor * ((own * rest - mass) / total), ((own + mass) / total) * unit
        for first in range(start, stop, STRETCH):
            j = first + tl.arange(0, STRETCH)
            inside = j < stop
            at = _at(base, j, inner)
            logits = _logits(x, at, inside, offset, j, num_classes, WORK, HAS_OFFSET)
            e = exp_within(logits, shift, rounder, least).to(tl.float64)
            logits = logits.to(tl.float64)
            share = _shares(
                place, q, at, inside, class_weight, j, num_classes, smoothing_bits, HAS_PROBABILITIES, HAS_WEIGHT
            )  # fmt: skip
            _, c = _terms(share, (logits - peak) - log_total, numbers, NUM)
            slope = tl.where(logits == alone, at_peak, factor * (c - by * e))
            store(output, at, slope, inside)
    else:
        # What another thread or program may have written its slope over; only who writes there uses what it reads.
        own_logit = _own_logit(x, base, target, inner, is_class, offset, num_classes, WORK, HAS_OFFSET)
        power = exp_within(own_logit, shift, rounder, least).to(tl.float64) * unit
        others = _others(own_logit, peak.to(WORK), rest, power)
        at_own = (factor * (own * (others / total))).to(WORK)
        by = -factor * own / total * unit
        for first in range(start, stop, STRETCH):
            j = first + tl.arange(0, STRETCH)
            inside = j < stop
            at = _at(base, j, inner)
            logits = _logits(x, at, inside, offset, j, num_classes, WORK, HAS_OFFSET)
            slope = scaled(exp_within(logits, shift, rounder, least), by)
            store(output, at, tl.where(j == place, at_own, slope), inside)


# --- long rows, each by one program ---------------------------------------------------------------------------------


@triton.jit
def _row(
    x, targets, q, class_weight, offset, output, losses, scale, numbers, count, num_classes, inner,
    ignore_index, smoothing_bits,
    NUM: tl.constexpr, HAS_PROBABILITIES: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_OFFSET: tl.constexpr,
    IS_SMOOTH: tl.constexpr, MODE: tl.constexpr, WORK: tl.constexpr, STRETCH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    base = _first_element(row, inner, num_classes)
    target = tl.full([], -1, tl.int64)
    if not HAS_PROBABILITIES:
        target = tl.load(targets + row)
    is_class = (target >= 0) & (target < num_classes)
    is_read = tl.full([], True, tl.int1)
    if not HAS_PROBABILITIES:
        is_read = target != ignore_index
    peak = tl.full([], float("-inf"), tl.float64)
    rest = tl.full([], 0.0, tl.float64)
    loss = tl.full([], 0.0, tl.float64)
    own = tl.full([], 0.0, tl.float64)
    mass = tl.full([], 0.0, tl.float64)
    if is_read:
        peak, rest = _peak_of(x, base, offset, 0, num_classes, num_classes, inner, WORK, HAS_OFFSET, STRETCH)
        rest = tl.where(peak - peak == 0.0, rest, float("nan"))
        if HAS_PROBABILITIES or IS_SMOOTH:
            loss, own, mass = _share_of(
                x, base, q, class_weight, offset, 0, num_classes, target, peak, rest, numbers, num_classes, inner,
                smoothing_bits, NUM, HAS_PROBABILITIES, HAS_WEIGHT, HAS_OFFSET, WORK, STRETCH,
            )  # fmt: skip
        else:
            own_logit = _own_logit(x, base, target, inner, is_class, offset, num_classes, WORK, HAS_OFFSET)
            log_p = (own_logit.to(tl.float64) - peak) - log1p64(rest)
            loss, own = _of_one_class(log_p, target, class_weight, is_class, numbers, NUM, HAS_WEIGHT)
    loss = _settled(loss, target == ignore_index, is_class, HAS_PROBABILITIES)
    tl.store(losses + row, loss)
    if MODE == 1:
        tl.debug_barrier()  # as in `_whole`
        _write_slopes(
            x, base, q, class_weight, offset, output, 0, num_classes, target, is_class, peak, rest, own, mass,
            tl.load(scale + row // count), numbers, num_classes, inner, ignore_index, smoothing_bits,
            NUM, HAS_PROBABILITIES, HAS_WEIGHT, HAS_OFFSET, IS_SMOOTH, WORK, STRETCH,
        )  # fmt: skip
    if MODE == 2:
        store(output, row, loss, row >= 0)


# --- long rows, shared among programs -------------------------------------------------------------------------------
# Of a row: its peak, the rest, the contribution of its class, or of a peak that stands alone, and that of the others.

_PEAK, _REST, _OWN, _MASS, _WIDTH = (tl.constexpr(column) for column in range(5))


@triton.jit
def _part(num_classes, a_part):
    """A program's row, where its part of it begins and ends, and its number among all parts of all rows."""
    row, part, num_parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    start = part * a_part
    return row, start, tl.minimum(start + a_part, num_classes), row * num_parts + part


@triton.jit
def _joined(peak, rest, other_peak, other_rest):
    """Two parts of a row as one; a part of nothing but -inf adds nothing."""
    is_higher = other_peak > peak
    high, low = tl.where(is_higher, other_peak, peak), tl.where(is_higher, peak, other_peak)
    less = tl.where(is_higher, rest, other_rest)
    moved = tl.where(low == float("-inf"), 0.0 * less, (1.0 + less) * exp_difference64(low, high))
    return high, tl.where(is_higher, other_rest, rest) + moved


@triton.jit
def _peaks(
    x, offset, parts, num_classes, inner, a_part,
    WORK: tl.constexpr, HAS_OFFSET: tl.constexpr, STRETCH: tl.constexpr,
):  # fmt: skip
    row, start, stop, number = _part(num_classes, a_part)
    base = _first_element(row, inner, num_classes)
    peak, rest = _peak_of(x, base, offset, start, stop, num_classes, inner, WORK, HAS_OFFSET, STRETCH)
    tl.store(parts + number * 3, peak)
    tl.store(parts + number * 3 + 1, rest)


@triton.jit
def _join(
    x, targets, class_weight, offset, output, sums, parts, table, numbers, count, num_classes, inner,
    ignore_index, num_parts,
    NUM: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_OFFSET: tl.constexpr, IS_ONE_CLASS: tl.constexpr,
    MODE: tl.constexpr, WORK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row, is_row, _segment, block = places(count, ROWS)
    peak = tl.full([ROWS], float("-inf"), tl.float64)
    rest = tl.full([ROWS], 0.0, tl.float64)
    for part in range(num_parts):
        column = parts + (row * num_parts + part) * 3
        other_peak = tl.load(column, mask=is_row, other=0.0)
        peak, rest = _joined(peak, rest, other_peak, tl.load(column + 1, mask=is_row, other=0.0))
    rest = tl.where(peak - peak == 0.0, rest, float("nan"))
    entry = table + row * _WIDTH
    tl.store(entry + _PEAK, peak, mask=is_row)
    tl.store(entry + _REST, rest, mask=is_row)
    if IS_ONE_CLASS:
        target = tl.load(targets + row, mask=is_row, other=0)
        is_ignored = target == ignore_index
        is_class = (target >= 0) & (target < num_classes)
        first = _first_element(row, inner, num_classes)
        own = _own_logit(x, first, target, inner, is_row & is_class, offset, num_classes, WORK, HAS_OFFSET)
        log_p = (own.to(tl.float64) - peak) - log1p64(rest)
        loss, c = _of_one_class(log_p, target, class_weight, is_class & is_row, numbers, NUM, HAS_WEIGHT)
        loss = _settled(loss, is_ignored, is_class, False)
        tl.store(entry + _OWN, c, mask=is_row)
        tl.store(sums + block, tl.sum(tl.where(is_row, loss, 0.0)))
        if MODE == 2:
            store(output, row, loss, is_row)


@triton.jit
def _found(targets, table, row, HAS_PROBABILITIES: tl.constexpr):
    """Of a row whose parts are joined: its entry in the table, peak, rest and class."""
    entry = table + row * _WIDTH
    target = tl.full([], -1, tl.int64)
    if not HAS_PROBABILITIES:
        target = tl.load(targets + row)
    return entry, tl.load(entry + _PEAK), tl.load(entry + _REST), target


@triton.jit
def _share(
    x, targets, q, class_weight, offset, table, parts, numbers, num_classes, inner, smoothing_bits, a_part,
    NUM: tl.constexpr, HAS_PROBABILITIES: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_OFFSET: tl.constexpr,
    WORK: tl.constexpr, STRETCH: tl.constexpr,
):  # fmt: skip
    row, start, stop, number = _part(num_classes, a_part)
    _entry, peak, rest, target = _found(targets, table, row, HAS_PROBABILITIES)
    loss, own, mass = _share_of(
        x, _first_element(row, inner, num_classes), q, class_weight, offset, start, stop, target, peak, rest, numbers,
        num_classes, inner, smoothing_bits, NUM, HAS_PROBABILITIES, HAS_WEIGHT, HAS_OFFSET, WORK, STRETCH,
    )  # fmt: skip
    column = parts + number * 3
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
    loss_lost = tl.full([ROWS], 0.0, tl.float64)
    own = tl.full([ROWS], 0.0, tl.float64)
    mass = tl.full([ROWS], 0.0, tl.float64)
    mass_lost = tl.full([ROWS], 0.0, tl.float64)
    for part in range(num_parts):
        column = parts + (row * num_parts + part) * 3
        loss, loss_lost = _added_wide(loss, loss_lost, tl.load(column, mask=is_row, other=0.0))
        own += tl.load(column + 1, mask=is_row, other=0.0)
        mass, mass_lost = _added_wide(mass, mass_lost, tl.load(column + 2, mask=is_row, other=0.0))
    loss, mass = loss + loss_lost, mass + mass_lost
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
    row, start, stop, _number = _part(num_classes, a_part)
    entry, peak, rest, target = _found(targets, table, row, HAS_PROBABILITIES)
    is_class = (target >= 0) & (target < num_classes)
    mass = tl.full([], 0.0, tl.float64)
    if HAS_PROBABILITIES or IS_SMOOTH:
        mass = tl.load(entry + _MASS)
    base = _first_element(row, inner, num_classes)
    _write_slopes(
        x, base, q, class_weight, offset, output, start, stop, target, is_class, peak, rest, tl.load(entry + _OWN),
        mass, tl.load(scale + row // count), numbers, num_classes, inner, ignore_index, smoothing_bits,
        NUM, HAS_PROBABILITIES, HAS_WEIGHT, HAS_OFFSET, IS_SMOOTH, WORK, STRETCH,
    )  # fmt: skip


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
        "frame": frame64 if is_wide else frame32,
        "exp_within": exp_within64 if is_wide else exp_within32,
        "total_of": _total_wide if is_wide else _total_narrow,
        "added": _added_wide if is_wide else _added_narrow,
        "scaled": _scaled_wide if is_wide else _scaled_narrow,
    }
    for part in (_terms, _of_one_class, _peak_of, _share_of, _write_slopes):
        names[part.__name__] = bound(part, names)
    kernels = {
        "whole": _whole, "row": _row, "peaks": _peaks, "join": _join, "share": _share, "slopes": _slopes
    }  # fmt: skip
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
    stretch = _STRETCH if is_one_class and not is_wide else max(_STRETCH // 2, 1)

    def whole(out: Tensor, mode: int, scale: Tensor) -> Tensor:
        columns = max(triton.next_power_of_2(num_classes), 2)
        at_once = min(_MOST_ROWS, max(1, _BLOCK // columns))
        num_blocks = triton.cdiv(count, at_once)
        sums = x.new_empty((*segments, num_blocks), dtype=torch.float64)
        kernels["whole"][(num_blocks, *segments)](
            x, targets, q, weight, offset, out, sums, scale, bits, count, num_classes, inner, rows.ignore_index,
            smoothing_bits, **of_rows, IS_SMOOTH=is_smooth, MODE=mode, WORK=work, ROWS=at_once, COLUMNS=columns,
            **OPTIONS,
        )  # fmt: skip
        return sums.sum(dim=-1)

    def row_by_row(out: Tensor, mode: int, scale: Tensor) -> Tensor:
        losses = x.new_empty((*segments, count), dtype=torch.float64)
        kernels["row"][(num_rows,)](
            x, targets, q, weight, offset, out, losses, scale, bits, count, num_classes, inner, rows.ignore_index,
            smoothing_bits, **of_rows, IS_SMOOTH=is_smooth, MODE=mode, WORK=work, STRETCH=stretch, num_warps=_WARPS,
            **OPTIONS,
        )  # fmt: skip
        return losses.sum(dim=-1)

    def in_parts(out: Tensor, mode: int, scale: Tensor) -> Tensor:
        num_stretches = triton.cdiv(num_classes, stretch)
        num_parts = min(num_stretches, max(1, _PROGRAMS // count))
        a_part = triton.cdiv(num_stretches, num_parts) * stretch
        grid, num_blocks = (num_rows, triton.cdiv(num_classes, a_part)), triton.cdiv(count, _JOINED)
        parts = x.new_empty((num_rows, grid[1], 3), dtype=torch.float64)
        table = x.new_empty((num_rows, _WIDTH.value), dtype=torch.float64)
        sums = x.new_empty((*segments, num_blocks), dtype=torch.float64)
        of_logits = {"WORK": work, "HAS_OFFSET": rows.offset is not None}
        of_parts: dict[str, Any] = {"STRETCH": stretch, "num_warps": _WARPS, **OPTIONS}
        kernels["peaks"][grid](x, offset, parts, num_classes, inner, a_part, **of_logits, **of_parts)
        kernels["join"][(num_blocks, *segments)](
            x, targets, weight, offset, out, sums, parts, table, bits, count, num_classes, inner, rows.ignore_index,
            grid[1], **of_logits, NUM=len(numbers), HAS_WEIGHT=rows.weight is not None, IS_ONE_CLASS=is_one_class,
            MODE=mode, ROWS=_JOINED, **OPTIONS,
        )  # fmt: skip
        if not is_one_class:
            kernels["share"][grid](
                x, targets, q, weight, offset, table, parts, bits, num_classes, inner, smoothing_bits, a_part,
                **of_rows, WORK=work, **of_parts,
            )  # fmt: skip
            kernels["total"][(num_blocks, *segments)](
                targets, out, sums, parts, table, count, num_classes, rows.ignore_index, grid[1],
                HAS_PROBABILITIES=rows.probabilities is not None, MODE=mode, ROWS=_JOINED, **OPTIONS,
            )  # fmt: skip
        if mode == GRADIENT.value:
            kernels["slopes"][grid](
                x, targets, q, weight, offset, out, scale, table, bits, count, num_classes, inner, rows.ignore_index,
                smoothing_bits, a_part, **of_rows, IS_SMOOTH=is_smooth, WORK=work, **of_parts,
            )  # fmt: skip
        return sums.sum(dim=-1)

    way = whole if num_classes <= _WHOLE else row_by_row if num_rows >= _PROGRAMS else in_parts

    def run(out: Tensor, mode: int, scale: Tensor) -> Tensor:
        with on_device_of(x):
            return way(out, mode, scale)

    return run
