"""Softmax losses on the CPU: one row at a time where it is long, 128 rows in SIMD lanes where rows are short.

float32 logits are exponentiated in float32 (`cpu_exponentials.py`), and everything that is one number a row is
float64: the sums, the logarithm, the formula. float64 logits, and those with an offset, go through the same code in
float64 throughout. No pass needs more than a row, or 128 short ones, of memory of its own.

With m the maximum at class k, e_j = exp(x_j - m), held in the row's unit, and rest = sum_{j != k} e_j, a class's
log-probability is (x_j - m) - log1p(rest), exact in both tails. The gradient by x_j is c_j - e_j mass / (1 + rest) with
c_j = w_j q_j gradient(log p_j) and mass = sum c_j, of which no class but k can lose more than half to rounding, as
e_j <= (1 + rest) / 2. At k, whose own terms would drown the rest, it is (c_k rest - (mass - c_k)) / (1 + rest), where
mass - c_k is the sum of the other contributions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils

from steepest.backends import cpu
from steepest.backends.cpu_exponentials import exp_within32, exp_within64, frame32, frame64
from steepest.backends.cpu_lanes import LANES, load, store
from steepest.backends.cpu_vocabulary import (
    AS_PART,
    _inline,
    _log_parts,
    intrinsic,
)

__all__ = ["IGNORED", "LANES", "PROBABILITIES", "add", "bindings", "compensated_sum", "on_stack", "sum_of"]

PROBABILITIES, IGNORED = -1, -2  # in place of a row's class
BLOCK = 1024  # of a long row, what stays in the nearest cache
_STRETCH = 512
_CHAINS = 16

# Bound by `bindings`:
work: Any  # the type of logits and exponentials
frame: Any  # what a row's exponentials are relative to
exp_within: Any
add_power: Any  # how exponentials are summed
scale_row: Any
scale_lanes: Any
shifted: Any  # whether offsets are added to the logits
value: Any
gradient: Any


# --- words ---------------------------------------------------------------------------------------------------


@intrinsic
def _rank(typingctx: Any, x: Any) -> Any:
    """A float's bits as an integer of the same order, for LLVM takes no maximum of floats in lanes.

    NaN ranks above or below all numbers, by its sign.
    """
    integer: Any = types.int32 if x == types.float32 else types.int64

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.IntType(integer.bitwidth)
        bits = builder.bitcast(args[0], kind)
        sign = builder.ashr(bits, ir.Constant(kind, integer.bitwidth - 1))
        return builder.xor(bits, builder.and_(sign, ir.Constant(kind, 2 ** (integer.bitwidth - 1) - 1)))

    return integer(x), codegen


@intrinsic
def _of_rank(typingctx: Any, rank: Any) -> Any:
    """The float of a rank."""
    real = types.float32 if rank == types.int32 else types.float64

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.IntType(rank.bitwidth)
        sign = builder.ashr(args[0], ir.Constant(kind, rank.bitwidth - 1))
        bits = builder.xor(args[0], builder.and_(sign, ir.Constant(kind, 2 ** (rank.bitwidth - 1) - 1)))
        return builder.bitcast(bits, context.get_value_type(real))

    return real(rank), codegen


@intrinsic
def _higher(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger of two integers, in their own type (Numba's ``max`` widens)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed(">", *args), *args)

    return a(a, b), codegen


@intrinsic
def on_stack(typingctx: Any, dtype: Any) -> Any:
    """LANES numbers on the stack, which LLVM knows to overlap nothing else."""
    number = dtype.instance_type if isinstance(dtype, types.ClassType) else dtype.dtype

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = cgutils.alloca_once(builder, context.get_value_type(number), size=LANES)
        place.align = 64
        return place

    return types.CPointer(number)(dtype), codegen


@njit(fastmath={"contract", "reassoc"}, forceinline=True, **AS_PART)
def sum_of(terms: Any) -> Any:
    """The sum of some thousand terms at most, in as many float64 chains as the processor likes."""
    total = 0.0
    for i in range(len(terms)):
        total += np.float64(terms[i])
    return total


@_inline
def _log1p_by(rest: float, inverse: float) -> Any:
    """``log1p(rest)`` for a sum of exponentials, with ``1 / (1 + rest)`` at hand."""
    total = 1.0 + rest
    lost = (rest - (total - 1.0)) if rest < 1.0 else (1.0 - (total - rest))
    result = _log_parts(total, lost * inverse)
    result = rest if rest < 1e-18 or rest == np.inf else result
    return result if rest >= 0.0 else np.nan


@_inline
def add(total: float, lost: float, term: float) -> Any:
    """Neumaier's compensated sum; an infinite total has no rounding error to keep."""
    new = total + term
    lost += (total - new) + term if abs(total) >= abs(term) else (term - new) + total
    return new, lost if abs(new) < np.inf else 0.0


@_inline
def compensated_sum(terms: Any) -> Any:
    """Neumaier's sum in chains side by side, for float64, which has no digits to spare."""
    totals = carray(on_stack(np.float64), _CHAINS)
    losses = carray(on_stack(np.float64), _CHAINS)
    for i in range(_CHAINS):
        totals[i] = losses[i] = 0.0
    whole = len(terms) // _CHAINS * _CHAINS
    for start in range(0, whole, _CHAINS):
        part = terms[start : start + _CHAINS]
        for i in range(_CHAINS):
            totals[i], losses[i] = add(totals[i], losses[i], part[i])
    total = 0.0
    lost = 0.0
    for i in range(_CHAINS):
        total, lost = add(total, lost, totals[i])
    for i in range(whole, len(terms)):
        total, lost = add(total, lost, terms[i])
    for i in range(_CHAINS):
        lost += losses[i]
    return total + lost


@_inline
def plain_add(total: float, lost: float, term: float) -> Any:
    """A sum of float32 terms, which float64 need not compensate."""
    return total + term, lost


# --- one long row --------------------------------------------------------------------------------------------


@_inline
def _largest(part: Any) -> Any:
    best = _rank(part[0])
    for i in range(len(part)):
        best = _higher(best, _rank(part[i]))
    return _of_rank(best)


@_inline
def _where_first(part: Any, wanted: Any) -> Any:
    nowhere = np.int32(len(part))
    place = nowhere
    for i in range(len(part)):
        here = np.int32(i) if part[i] == wanted else nowhere
        place = here if here < place else place
    return np.int64(place)


def peak(row: Any) -> Any:
    """The largest of a row and where it stands first."""
    best = row[0]
    stretch = 0
    for start in range(0, len(row), _STRETCH):
        largest = _largest(row[start : start + _STRETCH])
        if largest > best:
            best = largest
            stretch = start
    k = stretch + _where_first(row[stretch : stretch + _STRETCH], best)
    return best, k if k < len(row) else 0  # no number equals NaN


def exponentials(row: Any, shift: Any, rounder: Any, least: Any, k: int, e: Any) -> Any:
    """``e_j = exp(x_j - largest)``, and their sum without ``e_k`` (a k below 0: without none)."""
    total = 0.0
    lost = 0.0
    for start in range(0, len(row), BLOCK):
        part = row[start : start + BLOCK]
        block = e[start : start + BLOCK]
        for i in range(len(part)):
            block[i] = exp_within(part[i], shift, rounder, least)
        if start <= k < start + BLOCK:
            block[k - start] = work(0.0)
        total, lost = add(total, lost, sum_of(block))
    return total + lost


def contributions(
    row: Any, largest: float, log_total: float, target: int, q: Any, class_weight: Any, smoothing: float,
    spread: float, options: Any, k: int, c: Any, block: Any,
) -> Any:  # fmt: skip
    """``c_j``, the row's loss, ``c_k`` and the sum of the other contributions; target and k as places in the row."""
    loss = 0.0
    loss_lost = 0.0
    mass = 0.0
    mass_lost = 0.0
    own = 0.0
    for start in range(0, len(row), BLOCK):
        part = row[start : start + BLOCK]
        width = len(part)
        contribution = c[start : start + BLOCK]
        terms = block[:width]
        if target == PROBABILITIES:
            shares = q[start : start + BLOCK]
            for i in range(width):
                contribution[i] = spread + (1.0 - smoothing) * np.float64(shares[i])
        else:
            contribution[:] = spread
            if start <= target < start + BLOCK:
                contribution[target - start] += 1.0 - smoothing
        if len(class_weight) > 0:
            factors = class_weight[start : start + BLOCK]
            for i in range(width):
                contribution[i] *= np.float64(factors[i])
        for i in range(width):
            log_p = (np.float64(part[i]) - largest) - log_total
            share = contribution[i]
            # No share, no term: infinities times 0 are not to be seen.
            terms[i] = share * value(log_p, *options) if share != 0.0 else 0.0
            contribution[i] = share * gradient(log_p, *options) if share != 0.0 else 0.0
        loss, loss_lost = add(loss, loss_lost, sum_of(terms))
        if start <= k < start + BLOCK:
            own = contribution[k - start]
            contribution[k - start] = 0.0
        mass, mass_lost = add(mass, mass_lost, sum_of(contribution))
    return loss + loss_lost, own, mass + mass_lost


def slopes(out: Any, e: Any, c: Any, scale: float, factor: float) -> None:
    """``scale (c_j - factor e_j)``: the gradient of every class but k."""
    for start in range(0, len(e), BLOCK):
        block = out[start : start + BLOCK]
        power = e[start : start + BLOCK]
        contribution = c[start : start + BLOCK]
        for i in range(len(power)):
            block[i] = scale * (contribution[i] - factor * np.float64(power[i]))


@_inline
def scaled(out: Any, e: Any, factor: float) -> None:
    """``factor e_j``."""
    for i in range(len(e)):
        out[i] = factor * np.float64(e[i])


@_inline
def _has_two_parts(factor: float) -> Any:
    """Whether a factor is 0 or both its float32 parts are normal numbers."""
    return 1e-25 < abs(factor) < 1e25 or factor == 0.0


@_inline
def scaled_narrow(out: Any, e: Any, factor: float) -> None:
    """The same in float32, with the factor in two parts: one rounding, sixteen to a vector."""
    if _has_two_parts(factor):
        high = np.float32(factor)
        low = np.float32(factor - np.float64(high))
        for i in range(len(e)):
            out[i] = e[i] * low + e[i] * high
    else:
        for i in range(len(e)):
            out[i] = factor * np.float64(e[i])


def row_loss(
    logits: Any,  # the row; out may be the same memory
    out: Any,
    target: int,  # its class, or PROBABILITIES
    q: Any,
    class_weight: Any,  # empty: all ones
    offset: Any,
    smoothing: float,
    scale: float,
    options: Any,
    want_gradient: bool,
    copy: Any,  # num_classes float64, for shifted logits
    e: Any,  # num_classes of the work type
    c: Any,  # num_classes float64, where more than one class has a share
    block: Any,
) -> Any:
    """``sum_j w_j q_j value(log p_j)`` of a row whose classes lie side by side, and its gradient."""
    if shifted:
        row = copy
        for j in range(len(row)):
            row[j] = np.float64(logits[j]) + offset[j]
    else:
        row = logits
    best, k = peak(row)
    largest = np.float64(best)
    shift, rounder, least, unit = frame(best)
    rest = exponentials(row, shift, rounder, least, k, e) * unit
    if largest - largest != 0.0:
        rest = np.nan
    total = 1.0 + rest
    inverse = 1.0 / total
    log_total = _log1p_by(rest, inverse)
    if target >= 0 and smoothing == 0.0:
        share = np.float64(class_weight[target]) if len(class_weight) > 0 else 1.0
        loss = 0.0
        contribution = 0.0
        if share != 0.0:
            log_p = (np.float64(row[target]) - largest) - log_total
            loss = share * value(log_p, *options)
            contribution = share * gradient(log_p, *options)
        if want_gradient:
            others = rest if target == k else total - unit * np.float64(e[target])
            factor = -scale * contribution * inverse
            scale_row(out, e, factor * unit)
            out[k] = factor
            out[target] = scale * (contribution * (others * inverse))
        return loss
    spread = smoothing / len(row)
    loss, own, mass = contributions(
        row, largest, log_total, target, q, class_weight, smoothing, spread, options, k, c, block
    )
    if want_gradient:
        slopes(out, e, c, scale, (own + mass) * inverse * unit)
        out[k] = scale * inverse * (own * rest - mass)
    return loss


# --- short rows, or rows whose classes lie apart ----------------------------------------------------------


@_inline
def scaled_lanes(e: Any, factor: Any, width: int) -> None:
    """``factor[r] e_j`` of every row."""
    for j in range(len(e)):
        for r in range(width):
            e[j, r] = factor[r] * np.float64(e[j, r])


@_inline
def scaled_lanes_narrow(e: Any, factor: Any, width: int) -> None:
    """The same as `scaled_narrow` does it."""
    high = carray(on_stack(np.float32), LANES)
    low = carray(on_stack(np.float32), LANES)
    num_apart = 0
    for r in range(width):
        fits = _has_two_parts(factor[r])
        moderate = factor[r] if fits else 1.0
        high[r] = np.float32(moderate)
        low[r] = np.float32(moderate - np.float64(high[r]))
        num_apart += 0 if fits else 1
    for j in range(len(e)):
        for r in range(width):
            e[j, r] = e[j, r] * low[r] + e[j, r] * high[r]
    if num_apart > 0:
        for r in range(width):
            if not _has_two_parts(factor[r]):
                for j in range(len(e)):
                    e[j, r] = factor[r] * np.float64(e[j, r])


def lanes_loss(
    x: Any,
    out: Any,  # the same layout; may be the same memory
    base: Any,  # where the rows begin
    stride: int,  # from class to class
    width: int,  # the number of rows, at most LANES
    index: Any,  # their classes, or PROBABILITIES, or IGNORED
    with_probabilities: bool,
    q: Any,
    class_weight: Any,
    offset: Any,
    smoothing: float,
    scale: float,
    options: Any,
    want_gradient: bool,
    logits: Any,  # (C, LANES) of the work type
    e: Any,  # the same
    c: Any,  # (C, LANES) float64, where more than one class has a share
    losses: Any,  # LANES float64: the result
) -> None:
    """The loss of up to 128 rows, and its gradient; every loop runs over rows."""
    num_classes = len(logits)
    load(logits, x, base, stride, width)
    if shifted:
        for j in range(num_classes):
            for r in range(width):
                logits[j, r] += offset[j]
    # One number a row.
    largest = carray(on_stack(work), LANES)
    shift = carray(on_stack(work), LANES)
    rounder = carray(on_stack(work), LANES)
    least = carray(on_stack(work), LANES)
    unit = carray(on_stack(np.float64), LANES)
    inverse = carray(on_stack(np.float64), LANES)
    first = carray(on_stack(np.int32), LANES)
    rest = carray(on_stack(np.float64), LANES)
    lost = carray(on_stack(np.float64), LANES)
    log_total = carray(on_stack(np.float64), LANES)
    for r in range(width):
        largest[r] = logits[0, r]
        first[r] = 0
    for j in range(1, num_classes):
        this = np.int32(j)
        for r in range(width):
            x_j = logits[j, r]
            larger = x_j > largest[r]
            largest[r] = x_j if larger else largest[r]
            first[r] = this if larger else first[r]
    for r in range(width):
        rest[r] = 0.0 if largest[r] - largest[r] == 0.0 else np.nan
        lost[r] = 0.0
    for r in range(width):
        shift[r], rounder[r], least[r], unit[r] = frame(largest[r])
    for j in range(num_classes):
        for r in range(width):
            e[j, r] = exp_within(logits[j, r], shift[r], rounder[r], least[r])
    for j in range(num_classes):
        this = np.int32(j)
        for r in range(width):
            term = e[j, r] if first[r] != this else work(0.0)
            rest[r], lost[r] = add_power(rest[r], lost[r], np.float64(term))
    for r in range(width):
        rest[r] = (rest[r] + lost[r]) * unit[r]
        inverse[r] = 1.0 / (1.0 + rest[r])
        log_total[r] = _log1p_by(rest[r], inverse[r])
    if with_probabilities or smoothing != 0.0:
        _lanes_shared(
            base, stride, width, index, with_probabilities, q, class_weight, smoothing, scale, options, logits, e, c,
            largest, first, unit, inverse, rest, log_total, losses,
        )  # fmt: skip
    else:
        _lanes_of_one_class(
            width,
            index,
            class_weight,
            scale,
            options,
            logits,
            e,
            largest,
            first,
            unit,
            inverse,
            rest,
            log_total,
            losses,
        )
    num_ignored = 0
    for r in range(width):
        num_ignored += index[r] == IGNORED
    if num_ignored > 0:
        for r in range(width):
            if index[r] == IGNORED:
                losses[r] = 0.0
                for j in range(num_classes):
                    e[j, r] = 0.0
    if want_gradient:
        store(out, e, base, stride, width)


def _lanes_of_one_class(
    width: int, index: Any, class_weight: Any, scale: float, options: Any, logits: Any, e: Any, largest: Any,
    first: Any, unit: Any, inverse: Any, rest: Any, log_total: Any, losses: Any,
) -> None:  # fmt: skip
    """Losses, and the gradients in place of the exponentials."""
    log_p = carray(on_stack(np.float64), LANES)
    share = carray(on_stack(np.float64), LANES)
    others = carray(on_stack(np.float64), LANES)
    for r in range(width):
        t = max(index[r], 0)
        log_p[r] = np.float64(logits[t, r])
        share[r] = np.float64(class_weight[t]) if len(class_weight) > 0 else 1.0
        others[r] = rest[r] if t == first[r] else (1.0 + rest[r]) - unit[r] * np.float64(e[t, r])
    for r in range(width):
        log_p[r] = (log_p[r] - np.float64(largest[r])) - log_total[r]
    for r in range(width):
        losses[r] = share[r] * value(log_p[r], *options) if share[r] != 0.0 else 0.0
        contribution = share[r] * gradient(log_p[r], *options) if share[r] != 0.0 else 0.0
        factor = scale * contribution * inverse[r]
        share[r] = -factor * unit[r]
        others[r] *= factor
    scale_lanes(e, share, width)
    for r in range(width):
        e[max(index[r], 0), r] = others[r]


def _lanes_shared(
    base: Any, stride: int, width: int, index: Any, with_probabilities: bool, q: Any, class_weight: Any,
    smoothing: float, scale: float, options: Any, logits: Any, e: Any, c: Any, largest: Any,
    first: Any, unit: Any, inverse: Any, rest: Any, log_total: Any, losses: Any,
) -> None:  # fmt: skip
    """The same where every class may have a share."""
    num_classes = len(e)
    loss = carray(on_stack(np.float64), LANES)
    lost = carray(on_stack(np.float64), LANES)
    own = carray(on_stack(np.float64), LANES)
    mass = carray(on_stack(np.float64), LANES)
    mass_lost = carray(on_stack(np.float64), LANES)
    factor = carray(on_stack(np.float64), LANES)
    peak_slope = carray(on_stack(np.float64), LANES)
    spread = smoothing / num_classes
    if with_probabilities:
        load(c, q, base, stride, width)
    else:
        c[:, :width] = 0.0
        for r in range(width):
            c[max(index[r], 0), r] = 1.0
    for r in range(width):
        loss[r] = lost[r] = own[r] = mass[r] = mass_lost[r] = 0.0
    for j in range(num_classes):
        factor_j = np.float64(class_weight[j]) if len(class_weight) > 0 else 1.0
        this = np.int32(j)
        for r in range(width):
            share = (spread + (1.0 - smoothing) * c[j, r]) * factor_j
            log_p = (np.float64(logits[j, r]) - np.float64(largest[r])) - log_total[r]
            term = share * value(log_p, *options) if share != 0.0 else 0.0
            contribution = share * gradient(log_p, *options) if share != 0.0 else 0.0
            c[j, r] = contribution
            loss[r], lost[r] = add(loss[r], lost[r], term)
            own[r] = contribution if first[r] == this else own[r]
            mass[r], mass_lost[r] = add(mass[r], mass_lost[r], contribution if first[r] != this else 0.0)
    for r in range(width):
        losses[r] = loss[r] + lost[r]
        mass[r] += mass_lost[r]
        peak_slope[r] = scale * inverse[r] * (own[r] * rest[r] - mass[r])
        factor[r] = (own[r] + mass[r]) * inverse[r] * unit[r]
    for j in range(num_classes):
        this = np.int32(j)
        for r in range(width):
            slope = scale * (c[j, r] - factor[r] * np.float64(e[j, r]))
            e[j, r] = peak_slope[r] if first[r] == this else slope


# --- binding -------------------------------------------------------------------------------------------------


def bindings(formula: dict[str, Any], dtype: str, with_offset: bool) -> dict[str, Any]:
    """``row_loss`` and ``lanes_loss`` for a bound formula's ``value`` and ``gradient``."""
    narrow = dtype == "float32" and not with_offset
    names = {
        **formula,
        "work": np.float32 if narrow else np.float64,
        "frame": frame32 if narrow else frame64,
        "exp_within": exp_within32 if narrow else exp_within64,
        "add_power": plain_add if narrow else add,
        "sum_of": sum_of if narrow else compensated_sum,
        "scale_lanes": scaled_lanes_narrow if narrow else scaled_lanes,
        "scale_row": scaled_narrow if narrow else scaled,
        "shifted": with_offset,
    }
    return {
        "work": names["work"],
        "sum_of": names["sum_of"],
        "row_loss": cpu.bind(row_loss, names, inline=False),
        "lanes_loss": cpu.bind(lanes_loss, names, inline=False),
    }
