"""The CPU kernel of the loss of all alignments of two sequences (CTC): a piece of work is a sequence.

The sums over alignments run forwards and backwards over the frames. Each is a number with an exponent of its own,
``m 2**e`` with m in [1, 2) and e a float64: no logarithm is taken on the way, so float64 loses a few of its digits per
frame in any range, and an alignment may be as improbable as it likes. A sum of nothing has the exponent -inf.

States lie in two rows, the labels' and the blanks' around them: blank j stands before label j. A frame has only those
from which the rest of the frames suffice, and to which the frames before do: ``[first, end)`` of either row.

Each frame's probabilities are relative to that of one alignment, the *lead*, which takes the likeliest step each time.
All others are summed beside it. Where the lead is nearly all there is, the loss is minus the sum of its
log-probabilities less ``log1p`` of what is beside it, and keeps the digits that a sum near 1 has lost.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray, types

from steepest.backends import cpu
from steepest.backends.cpu import next_piece
from steepest.backends.cpu_losses import GRADIENT, VALUES
from steepest.backends.cpu_softmax import LANES, on_stack
from steepest.backends.cpu_softmax import add as _add
from steepest.backends.cpu_softmax import sum_of as sum_of_terms
from steepest.backends.cpu_vocabulary import (
    _bits,
    _exp64,
    _expm1_reduced,
    _fma,
    _from_bits,
    _inline,
    _log1p64,
    _log64,
    _power_of_two,
    _round_to_even,
)
from steepest.backends.threads import run_in_pieces

__all__ = ["alignments", "run"]

_TYPES = {"float32": types.float32, "float64": types.float64}
_NONE = -np.inf  # the exponent of a sum of nothing
_FLOOR = -1.79e308  # below any other exponent, and no infinity, whose difference would be NaN
_LOG2_E = 1.4426950408889634
_LN2, _LN2_REST = 0.6931471805599453, 2.3190468138462996e-17
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_FAR = -1e15  # a log-probability of which float64 has no fraction
_TRAPPED = 600.0  # so much below the likeliest label, in logarithms, the lead is given up
_MANTISSA, _ONE = 0x000FFFFFFFFFFFFF, 0x3FF0000000000000

add: Any
sum_of: Any
probabilities: Any
slopes: Any
highest: Any
count_bad: Any
step: Any
weigh: Any
times: Any
close: Any
as_number: Any
relative: Any
band: Any


@_inline
def _down(d: float) -> float:
    """``2**d``, d at most some hundreds; 0 where that is far below all digits."""
    power = _power_of_two(max(d, -1022.0))
    return power if d > -1000.0 else 0.0


@_inline
def _mantissa(x: float) -> float:
    return _from_bits((_bits(x) & _MANTISSA) | _ONE)


@_inline
def _exponent(x: float) -> float:
    # Of a normal number above 0; as a float by writing it under 2**52.
    return _from_bits(((_bits(x) >> 52) & 0x7FF) | 0x4330000000000000) - (4503599627370496.0 + 1023.0)


@_inline
def _relative(x: float, lead: float) -> Any:
    """``exp(x - lead)`` as a mantissa about 1 and an exponent."""
    d = x - lead
    back = x - d
    lost = (back - lead) + (x - (d + back))
    k = _round_to_even(d * _LOG2_E)
    r = _fma(-k, _LN2, d) - k * _LN2_REST
    near = d > _FAR and d < -_FAR
    lost = lost if near else 0.0
    r = r + lost if near else 0.0
    return 1.0 + _expm1_reduced(r), k


@_inline
def _as_number(m: float, e: float) -> float:
    return 0.0 if e < -1000.0 else (m * _power_of_two(min(e, 1023.0)))


@_inline
def _close(m: Any, e: Any, first: int, end: int) -> None:
    """Nothing is before the first and behind the last of a row; one place before it is kept for that."""
    m[first] = 0.0
    e[first] = _NONE
    m[end + 1] = 0.0
    e[end + 1] = _NONE


def _step(
    m1: Any, e1: Any, m2: Any, e2: Any, m3: Any, e3: Any, allowed: Any, ym: Any, ye: Any, out_m: Any, out_e: Any,
    first: int, end: int,
) -> None:  # fmt: skip
    """Sums of three places each, the third where it is allowed (exponent 0, else -inf), times a probability."""
    stack_m, stack_e = carray(on_stack(np.float64), LANES), carray(on_stack(np.float64), LANES)
    for start in range(first, end, LANES):
        width = min(LANES, end - start)
        for i in range(width):
            j = start + i
            a, b, c = e1[j], e2[j], e3[j] + allowed[j]
            most = max(max(a, b), max(c, _FLOOR))
            total = (m1[j] * _down(a - most) + m2[j] * _down(b - most) + m3[j] * _down(c - most)) * ym[j]
            stack_m[i] = _mantissa(total)
            exponent = (most + _exponent(total)) + ye[j]
            stack_e[i] = exponent if total > 0.0 else _NONE
        for i in range(width):
            out_m[start + i] = stack_m[i]
            out_e[start + i] = stack_e[i]


def _times(m: Any, e: Any, ym: Any, ye: Any, out_m: Any, out_e: Any, first: int, end: int) -> None:
    """Sums times probabilities."""
    stack_m, stack_e = carray(on_stack(np.float64), LANES), carray(on_stack(np.float64), LANES)
    for start in range(first, end, LANES):
        width = min(LANES, end - start)
        for i in range(width):
            j = start + i
            product = m[j] * ym[j]
            stack_m[i] = _mantissa(product)
            stack_e[i] = (e[j] + _exponent(product)) + ye[j]
        for i in range(width):
            out_m[start + i] = stack_m[i]
            out_e[start + i] = stack_e[i]


def _weigh(am: Any, ae: Any, bm: Any, be: Any, total_m: float, total_e: float, out: Any, count: int) -> None:
    """The shares of all alignments that go through each place."""
    inverse = 1.0 / total_m
    stack = carray(on_stack(np.float64), LANES)
    for start in range(0, count, LANES):
        width = min(LANES, count - start)
        for i in range(width):
            j = start + i
            d = max((ae[j] + be[j]) - total_e, -1100.0)
            half = _round_to_even(d * 0.5)  # two factors, so that what is barely above 0 is reached
            stack[i] = ((am[j] * bm[j] * inverse) * _power_of_two(half)) * _power_of_two(d - half)
        for i in range(width):
            out[start + i] = stack[i]


def _probabilities(p: Any, lead: float, out_m: Any, out_e: Any, first: int, end: int) -> None:
    """Of labels, relative to the lead's."""
    stack_m, stack_e = carray(on_stack(np.float64), LANES), carray(on_stack(np.float64), LANES)
    for start in range(first, end, LANES):
        width = min(LANES, end - start)
        for i in range(width):
            stack_m[i], stack_e[i] = _relative(p[start + i], lead)
        for i in range(width):
            out_m[start + i] = stack_m[i]
            out_e[start + i] = stack_e[i]


def _slopes(row: Any, shares: Any, by: float, out: Any, count: int) -> None:
    """Each class's probability less the share of the alignments that go through it."""
    stack = carray(on_stack(np.float64), LANES)
    for start in range(0, count, LANES):
        width = min(LANES, count - start)
        for i in range(width):
            stack[i] = (_exp64(np.float64(row[start + i])) - shares[start + i]) * by
        for i in range(width):
            out[start + i] = stack[i]


def _count_bad(row: Any) -> int:
    """How many are no logarithms of probabilities: NaN, or inf."""
    count = 0
    for c in range(len(row)):
        count += 0 if row[c] < np.inf else 1
    return count


def _highest(p: Any, first: int, end: int) -> float:
    """The largest, by four at a time: one would wait for another."""
    a, b, c, d = -np.inf, -np.inf, -np.inf, -np.inf
    j = first
    while j + 4 <= end:
        a, b, c, d = max(a, p[j]), max(b, p[j + 1]), max(c, p[j + 2]), max(d, p[j + 3])
        j += 4
    for i in range(j, end):
        a = max(a, p[i])
    return max(max(a, b), max(c, d))


@_inline
def _band(t: int, frames: int, length: int) -> Any:
    """Where labels, and where blanks, may stand in a frame."""
    spare = length - frames + t
    return max(0, spare), min(length, t + 1), max(0, spare + 1), min(length + 1, t + 1)


def _alignments(
    log_p: Any, classes_of: Any, offsets: Any, frames_of: Any, length_of: Any, output: Any, values: Any, slots: Any,
    memory: Any, num_slots: int, most_frames: int, num_sequences: int, num_classes: int, num_labels: int,
    longest: int, blank: int, zero_infinity: bool, by_length: bool, scale: float, mode: int, counter: Any, sums: Any,
) -> None:  # fmt: skip
    stride = num_sequences * num_classes
    x = carray(log_p, most_frames * stride)
    out = carray(output, most_frames * stride if mode == GRADIENT else 0)
    out_values = carray(values, num_sequences if mode == VALUES else 0)
    starts, num_frames = carray(offsets, num_sequences), carray(frames_of, num_sequences)
    lengths, total_of = carray(length_of, num_sequences), carray(sums, num_sequences)
    every_label = carray(classes_of, num_labels)
    width = longest + 3  # a place before, one blank more than labels, a place behind
    rows = max(most_frames, 1) if mode == GRADIENT else 2
    # Of each frame: labels' and blanks' sums, mantissas and exponents.
    slot = next_piece(slots)  # a thread's own part of the memory
    if slot >= num_slots:
        return
    size = 4 * rows * width
    own = carray(memory, num_slots * size)[slot * size : (slot + 1) * size].reshape((4, rows, width))
    am, ae, bm, be = own[0], own[1], own[2], own[3]
    leads = np.empty(max(most_frames, 1))
    room = np.empty((16, width))
    p, pm, pe, qm, qe, allowed, never, shares = (
        room[0], room[1], room[2], room[3], room[4], room[5], room[6], room[7],
    )  # fmt: skip
    gam, gae, gbm, gbe = room[8], room[9], room[10], room[11]  # from the frame behind
    ham, hae, hbm, hbe = room[12], room[13], room[14], room[15]
    ones, zeros = np.ones(width), np.zeros(width)
    never[:] = _NONE
    share_of = np.zeros(num_classes)
    while True:
        n = next_piece(counter)
        if n >= num_sequences:
            break
        frames, length, start = num_frames[n], lengths[n], starts[n]
        label = every_label[start : start + length]
        repeats = 0
        allowed[0] = allowed[length] = _NONE
        for j in range(1, length):
            same = label[j] == label[j - 1]
            repeats += same
            allowed[j] = _NONE if same else 0.0
        loss: Any = 0.0
        total_m: Any = 1.0
        total_e: Any = 0.0
        num_bad = 0
        for t in range(frames):
            num_bad += count_bad(x[t * stride + n * num_classes : t * stride + (n + 1) * num_classes])
        is_bad = num_bad > 0
        if is_bad:
            loss = np.nan
        elif length + repeats > frames:
            loss = np.inf
        else:
            sum_of_leads: Any = 0.0
            lost: Any = 0.0
            beside: Any = 0.0
            lead = -1
            is_led = True
            last = 0
            for t in range(frames):
                row = x[t * stride + n * num_classes : t * stride + (n + 1) * num_classes]
                first_a, end_a, first_b, end_b = band(t, frames, length)
                for j in range(first_a, end_a):
                    p[j] = row[label[j]]
                best: Any = highest(p, first_a, end_a)
                of_blank: Any = -np.inf
                if first_b < end_b:
                    of_blank = np.float64(row[blank])
                    best = max(best, of_blank)
                # The lead's step: the likeliest of those it can take, the states counted blanks and labels by turns.
                before = lead
                reference: Any = -np.inf
                choice = -1
                if is_led:
                    low = max(before, 0)
                    for s in range(
                        low, min(low + 3, 2 * length + 1) if before >= 0 else min(2, 2 * length + 1)
                    ):
                        j = s >> 1
                        if s & 1:
                            if (
                                j < first_a
                                or j >= end_a
                                or (s == before + 2 and before >= 0 and allowed[j] != 0.0)
                            ):
                                continue
                            here: Any = p[j]
                        else:
                            if j < first_b or j >= end_b or (s == before + 2 and before >= 0):
                                continue
                            here = of_blank
                        if choice < 0 or here > reference:
                            choice = s
                            reference = here
                lead = choice
                if choice < 0 or not reference >= best - _TRAPPED or reference == -np.inf:
                    is_led = False
                    reference = best
                if reference == -np.inf:
                    is_led = False
                    reference = 0.0
                leads[t] = reference
                sum_of_leads, lost = add(sum_of_leads, lost, reference)
                probabilities(p, reference, pm, pe, first_a, end_a)
                blank_m, blank_e = relative(of_blank, reference)
                for j in range(first_b, end_b):
                    qm[j] = blank_m
                    qe[j] = blank_e
                now = t if mode == GRADIENT else t & 1
                if t == 0:
                    for j in range(first_a, end_a):
                        am[now, j + 1] = pm[j]
                        ae[now, j + 1] = pe[j]
                    for j in range(first_b, end_b):
                        bm[now, j + 1] = qm[j]
                        be[now, j + 1] = qe[j]
                else:
                    if is_led:  # what comes to the lead's place from others
                        for s in range(max(lead - 2, 0), lead + 1):
                            j = s >> 1
                            if s == before or (s == lead - 2 and (s & 1 == 0 or allowed[lead >> 1] != 0.0)):
                                continue
                            if s & 1:
                                beside += as_number(am[last, j + 1], ae[last, j + 1])
                            else:
                                beside += as_number(bm[last, j + 1], be[last, j + 1])
                    l_am, l_ae, l_bm, l_be = am[last], ae[last], bm[last], be[last]
                    step(
                        l_am[1:], l_ae[1:], l_bm[1:], l_be[1:], l_am, l_ae, allowed, pm, pe, am[now, 1:], ae[now, 1:],
                        first_a, end_a,
                    )  # fmt: skip
                    step(
                        l_bm[1:], l_be[1:], l_am, l_ae, zeros, never, zeros, qm, qe, bm[now, 1:], be[now, 1:], first_b,
                        end_b,
                    )  # fmt: skip
                close(am[now], ae[now], first_a, end_a)
                close(bm[now], be[now], first_b, end_b)
                last = now
            if frames > 0:
                total_m, total_e = bm[last, length + 1], be[last, length + 1]
                if length > 0:
                    more_m, more_e = am[last, length], ae[last, length]
                    if is_led:
                        if lead & 1:
                            beside += as_number(total_m, total_e)
                        else:
                            beside += as_number(more_m, more_e)
                    most = max(max(total_e, more_e), _FLOOR)
                    total: Any = total_m * _down(total_e - most) + more_m * _down(more_e - most)
                    total_m = _mantissa(total)
                    total_e = most + _exponent(total) if total > 0.0 else _NONE
                if total_e == _NONE:
                    loss = np.inf
                elif is_led and beside < 0.5:
                    loss = 0.0 - ((sum_of_leads + _log1p64(beside)) + lost)  # no minus 0
                else:
                    high = total_e * _LN2_HIGH
                    rounded = sum_of_leads + high
                    part = rounded - sum_of_leads
                    off = (sum_of_leads - (rounded - part)) + (high - part)
                    small = (total_e * _LN2_LOW + _log64(total_m)) + (
                        lost + off if abs(rounded) < np.inf else 0.0
                    )
                    loss = 0.0 - (rounded + small)
        is_none = loss == np.inf
        if is_none and zero_infinity:
            loss = 0.0
        share: Any = 1.0 / np.float64(max(length, 1)) if by_length else 1.0
        if by_length:
            loss = loss / np.float64(max(length, 1))
        total_of[n] = loss
        if mode == VALUES:
            out_values[n] = loss
        if mode != GRADIENT:
            continue
        by = scale * share
        for t in range(frames, most_frames):
            for c in range(num_classes):
                out[t * stride + n * num_classes + c] = 0.0
        if is_bad or is_none:
            fill: Any = 0.0 if is_none and zero_infinity and not is_bad else np.nan
            for t in range(frames):
                for c in range(num_classes):
                    out[t * stride + n * num_classes + c] = fill
            continue
        for t in range(frames - 1, -1, -1):
            row = x[t * stride + n * num_classes : t * stride + (n + 1) * num_classes]
            ob = out[t * stride + n * num_classes : t * stride + (n + 1) * num_classes]
            first_a, end_a, first_b, end_b = band(t, frames, length)
            if t == frames - 1:
                for j in range(first_a, end_a):
                    ham[j + 1] = 1.0
                    hae[j + 1] = 0.0
                for j in range(first_b, end_b):
                    hbm[j + 1] = 1.0
                    hbe[j + 1] = 0.0
            else:
                step(
                    gam[1:], gae[1:], gbm[2:], gbe[2:], gam[2:], gae[2:], allowed[1:], ones, zeros, ham[1:], hae[1:],
                    first_a, end_a,
                )  # fmt: skip
                step(
                    gbm[1:], gbe[1:], gam[1:], gae[1:], zeros, never, zeros, ones, zeros, hbm[1:], hbe[1:], first_b,
                    end_b,
                )  # fmt: skip
            reference = leads[t]
            if end_a > first_a:
                weigh(
                    am[t, first_a + 1 :], ae[t, first_a + 1 :], ham[first_a + 1 :], hae[first_a + 1 :], total_m,
                    total_e, shares, end_a - first_a,
                )  # fmt: skip
                for j in range(first_a, end_a):
                    share_of[label[j]] += shares[j - first_a]
                    p[j] = row[label[j]]
                probabilities(p, reference, pm, pe, first_a, end_a)
                times(ham[1:], hae[1:], pm, pe, gam[1:], gae[1:], first_a, end_a)
            if end_b > first_b:
                weigh(
                    bm[t, first_b + 1 :], be[t, first_b + 1 :], hbm[first_b + 1 :], hbe[first_b + 1 :], total_m,
                    total_e, shares, end_b - first_b,
                )  # fmt: skip
                share_of[blank] += sum_of(shares[: end_b - first_b])
                blank_m, blank_e = relative(np.float64(row[blank]), reference)
                for j in range(first_b, end_b):
                    qm[j] = blank_m
                    qe[j] = blank_e
                times(hbm[1:], hbe[1:], qm, qe, gbm[1:], gbe[1:], first_b, end_b)
            close(gam, gae, first_a, end_a)
            close(gbm, gbe, first_b, end_b)
            slopes(row, share_of, by, ob, num_classes)
            share_of[blank] = 0.0
            for j in range(first_a, end_a):
                share_of[label[j]] = 0.0


@cache
def alignments(dtype: str) -> cpu.Kernel:
    """The kernel of log-probabilities (T, N, C)."""
    number: Any = types.CPointer(_TYPES[dtype])
    indices, whole, flag = types.CPointer(types.int64), types.int64, types.boolean
    doubles = types.CPointer(types.float64)
    signature = types.void(
        number, indices, indices, indices, indices, number, number, indices, doubles, *[whole] * 7, flag, flag,
        types.float64, whole, indices, doubles,
    )  # fmt: skip
    parts = {
        "add": _add,
        "sum_of": sum_of_terms,
        "probabilities": cpu.bind(_probabilities, inline=False),
        "slopes": cpu.bind(_slopes, inline=False),
        "count_bad": cpu.bind(_count_bad, inline=False),
        "highest": cpu.bind(_highest, inline=False),
        "step": cpu.bind(_step, inline=False),
        "times": cpu.bind(_times, inline=False),
        "weigh": cpu.bind(_weigh, inline=False),
        "close": _close,
        "as_number": _as_number,
        "relative": _relative,
        "band": _band,
    }
    return cpu.compile_kernel(_alignments, signature, parts)


def run(
    kernel: cpu.Kernel, addresses: tuple[int, ...], shape: tuple[int, int, int], num_labels: int, longest: int,
    blank: int, zero_infinity: bool, by_length: bool, scale: float, mode: int,
) -> float:  # fmt: skip
    """The kernel over N sequences at these addresses; the sum of their losses."""
    # Memory is asked for here, where there is an error if there is not enough.
    num_slots = max(1, min(torch.get_num_threads(), shape[1]))
    rows = max(shape[0], 1) if mode == GRADIENT else 2
    memory = torch.empty(1 + num_slots * 4 * rows * (longest + 3), dtype=torch.float64, device="cpu")
    memory[:1] = 0.0  # the count of slots taken, whose bits are those of an integer 0
    where = memory.data_ptr(), memory.data_ptr() + 8
    options = num_labels, longest, blank, zero_infinity, by_length, scale, mode
    return run_in_pieces(kernel, (*addresses, *where, num_slots, *shape, *options), shape[1], 1)
