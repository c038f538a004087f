"""The CPU kernels of losses of pairs and triplets of vectors: a row is a pair, or a triplet.

Rows are computed in float64 whatever the tensors hold. A length that leaves the range once it is squared is measured
anew, scaled by a power of two.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray, types

from steepest.backends import cpu
from steepest.backends.cpu import next_piece
from steepest.backends.cpu_losses import GRADIENT, GRAIN, VALUES
from steepest.backends.cpu_softmax import add as _add
from steepest.backends.cpu_softmax import compensated_sum
from steepest.backends.cpu_softmax import sum_of as plain_sum
from steepest.backends.threads import run_in_pieces

__all__ = ["cosines", "run", "triplets"]

_TYPES = {"float32": types.float32, "float64": types.float64}
_HUGE, _TINY = 1e290, 1e-270  # squared lengths beyond these may have lost something
_DOWN, _UP = 2.0**-600, 2.0**600
_EPSILON = 1e-12  # torch's, beside the squared lengths of a cosine

sum_of: Any
unit: Any
distance: Any


def _unit(x: Any, out: Any, products: Any) -> Any:
    """``x`` by its length, with a little more in its square.

    Returns what ``x`` was scaled by to be measured, the length so scaled, and the part of the little in the square.
    """
    factor = 1.0
    for i in range(len(x)):
        products[i] = np.float64(x[i]) * np.float64(x[i])
    square = sum_of(products)
    if square > _HUGE:
        factor = _DOWN
        for i in range(len(x)):
            products[i] = (x[i] * factor) * (x[i] * factor)
        square = sum_of(products)
    more = _EPSILON * factor * factor
    square += more
    root = np.sqrt(square)
    for i in range(len(x)):
        out[i] = (np.float64(x[i]) * factor) / root
    return factor, root, more / square


def _cosines(
    first: Any, second: Any, sign: Any, by_first: Any, by_second: Any, output: Any, wants_first: bool,
    wants_second: bool, rows: int, width: int, grain: int, margin: float, scale: float, mode: int, counter: Any,
    sums: Any,
) -> None:  # fmt: skip
    num_pieces = (rows + grain - 1) // grain
    total_of = carray(sums, num_pieces)
    x1, x2, y = carray(first, rows * width), carray(second, rows * width), carray(sign, rows)
    out1 = carray(by_first, rows * width if wants_first else 0)
    out2 = carray(by_second, rows * width if wants_second else 0)
    out = carray(output, rows if mode == VALUES else 0)
    room = np.empty((3, width))
    products, u, v = room[0], room[1], room[2]
    while True:
        piece = next_piece(counter)
        if piece >= num_pieces:
            break
        total = 0.0
        lost = 0.0
        for row in range(piece * grain, min((piece + 1) * grain, rows)):
            start = row * width
            a, b = x1[start : start + width], x2[start : start + width]
            factor1, root1, more1 = unit(a, u, products)
            factor2, root2, more2 = unit(b, v, products)
            # The gradient by a is (own u + other v) / |a|, of vectors that point alike (u - v) / |a| more.
            loss: Any = 0.0
            own: Any = 0.0
            other: Any = 0.0
            apart: Any = 0.0
            if y[row] == 1.0:
                for i in range(width):
                    products[i] = (u[i] - v[i]) * (u[i] - v[i])
                loss = 0.5 * (sum_of(products) + (more1 + more2))
                own, other, apart = -loss, 0.0, 1.0
                if loss > 1.0:
                    own, other, apart = 1.0 - loss, -1.0, 0.0
            else:
                for i in range(width):  # of float32 exact, so that right angles are
                    products[i] = (np.float64(a[i]) * factor1) * (np.float64(b[i]) * factor2)
                cosine = sum_of(products) / root1 / root2
                loss = cosine - margin
                own, other = -cosine, 1.0
                if loss < 0.0:
                    loss = own = other = 0.0
                if y[row] != -1.0:
                    loss = own = other = np.nan
            if mode == GRADIENT:
                if wants_first:
                    ob = out1[start : start + width]
                    length = root1 / factor1
                    for i in range(width):
                        ob[i] = (apart * (u[i] - v[i]) + (other * v[i] + own * u[i])) / length * scale
                if wants_second:
                    ob = out2[start : start + width]
                    length = root2 / factor2
                    for i in range(width):
                        ob[i] = (apart * (v[i] - u[i]) + (other * u[i] + own * v[i])) / length * scale
            if mode == VALUES:
                out[row] = loss
            total, lost = _add(total, lost, loss)
        total_of[piece] = total + lost


def _distance(x: Any, y: Any, eps: float, difference: Any, products: Any) -> Any:
    """The length of ``x - y + eps``, which is left in ``difference`` divided by it; nothing is left of one of 0."""
    for i in range(len(difference)):
        gap: Any = (np.float64(x[i]) - np.float64(y[i])) + eps
        difference[i] = gap
        products[i] = gap * gap
    square = sum_of(products)
    factor = 1.0
    if square > _HUGE or square < _TINY:
        factor = _DOWN if square > _HUGE else _UP
        for i in range(len(difference)):
            difference[i] *= factor
            products[i] = difference[i] * difference[i]
        square = sum_of(products)
    root = np.sqrt(square)
    if root == 0.0:
        return 0.0
    for i in range(len(difference)):
        difference[i] /= root
    return root / factor


def _triplets(
    anchor: Any, positive: Any, negative: Any, by_anchor: Any, by_positive: Any, by_negative: Any, output: Any,
    wants_anchor: bool, wants_positive: bool, wants_negative: bool, rows: int, width: int, grain: int, margin: float,
    eps: float, swap: bool, scale: float, mode: int, counter: Any, sums: Any,
) -> None:  # fmt: skip
    num_pieces = (rows + grain - 1) // grain
    total_of = carray(sums, num_pieces)
    size = rows * width
    a, p, n = carray(anchor, size), carray(positive, size), carray(negative, size)
    out_a = carray(by_anchor, size if wants_anchor else 0)
    out_p = carray(by_positive, size if wants_positive else 0)
    out_n = carray(by_negative, size if wants_negative else 0)
    out = carray(output, rows if mode == VALUES else 0)
    room = np.empty((4, width))
    products, to_p, to_n, between = room[0], room[1], room[2], room[3]
    between[:] = 0.0
    while True:
        piece = next_piece(counter)
        if piece >= num_pieces:
            break
        total = 0.0
        lost = 0.0
        for row in range(piece * grain, min((piece + 1) * grain, rows)):
            start, stop = row * width, (row + 1) * width
            near = distance(a[start:stop], p[start:stop], eps, to_p, products)
            far: Any = distance(a[start:stop], n[start:stop], eps, to_n, products)
            of_n: Any = 1.0  # how much of the farther distance is the anchor's, and the positive's
            of_p: Any = 0.0
            if swap:
                other = distance(p[start:stop], n[start:stop], eps, between, products)
                of_p = 0.5 if other == far else (1.0 if other < far else 0.0)
                of_n = 1.0 - of_p
                far = other if other < far else far
            loss: Any = (near - far) + margin
            share: Any = scale
            if loss < 0.0:
                loss = share = 0.0
            if mode == GRADIENT:
                if wants_anchor:
                    ob = out_a[start:stop]
                    for i in range(width):
                        ob[i] = (to_p[i] - of_n * to_n[i]) * share
                if wants_positive:
                    ob = out_p[start:stop]
                    for i in range(width):
                        ob[i] = -(to_p[i] + of_p * between[i]) * share
                if wants_negative:
                    ob = out_n[start:stop]
                    for i in range(width):
                        ob[i] = (of_n * to_n[i] + of_p * between[i]) * share
            if mode == VALUES:
                out[row] = loss
            total, lost = _add(total, lost, loss)
        total_of[piece] = total + lost


def _parts(dtype: str) -> dict[str, Any]:
    own = {"sum_of": plain_sum if dtype == "float32" else compensated_sum}
    return {**own, "unit": cpu.bind(_unit, own), "distance": cpu.bind(_distance, own)}


def _signature(dtype: str, num_pointers: int, *others: Any) -> Any:
    pointer: Any = types.CPointer(_TYPES[dtype])
    ends = types.int64, types.CPointer(types.int64), types.CPointer(types.float64)
    return types.void(*[pointer] * num_pointers, *others, *ends)


@cache
def cosines(dtype: str) -> cpu.Kernel:
    """The kernel of the cosine embedding loss of (N, D) twice and (N,) signs."""
    flag, whole, number = types.boolean, types.int64, types.float64
    signature = _signature(dtype, 6, flag, flag, whole, whole, whole, number, number)
    return cpu.compile_kernel(_cosines, signature, _parts(dtype))


@cache
def triplets(dtype: str) -> cpu.Kernel:
    """The kernel of the triplet margin loss of (N, D) three times, by Euclidean distances."""
    flag, whole, number = types.boolean, types.int64, types.float64
    signature = _signature(dtype, 7, flag, flag, flag, whole, whole, whole, number, number, flag, number)
    return cpu.compile_kernel(_triplets, signature, _parts(dtype))


def run(
    kernel: cpu.Kernel, addresses: tuple[int, ...], flags: tuple[bool, ...], shape: tuple[int, int],
    options: tuple[float, ...], scale: float, mode: int,
) -> float:  # fmt: skip
    """The kernel over so many rows at these addresses; its sum."""
    rows, width = shape
    grain = max(1, GRAIN // width)
    return run_in_pieces(kernel, (*addresses, *flags, rows, width, grain, *options, scale, mode), rows, grain)
