"""The CPU kernels of rules that keep averages over a matrix's rows and columns.

A step reads the gradient three times: for its squares' means, for the length of the scaled gradient, and to move the
parameter. Of a tensor that fits into a cache the last two find it there. Nothing of a parameter's size is made: what an
element is multiplied by is a product of one number of its row and one of its column.

Large tensors are cut into pieces, always the same ones, so that the number of threads changes no bit. A piece is some
whole matrices, or a part of one, cut across its longer side; what parts then have to add up is as long as the shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import carray, types

from steepest.backends import cpu
from steepest.backends.cpu import half_vectors, next_piece
from steepest.backends.cpu_optim import (
    ENGINE_STEP,
    _add,
    _add_square,
    _and_number,
    _and_rounded,
    _chain,
    _empty,
)
from steepest.backends.cpu_storage import Layout, columns, lots

if TYPE_CHECKING:
    from steepest.optim.rule import FactoredRule

__all__ = [
    "OF_PIECE",
    "Phase",
    "PieceWords",
    "extra_words",
    "factored_step",
    "pieces_kernel",
    "settle_kernel",
]

# A tensor's row in the table is as `Layout` says, and then: how many matrices, of how many rows, of how many columns.
extra_words = 3

_Words, _Numbers = types.CPointer(types.int64), types.CPointer(types.float64)
# number of the step, phase, number of pieces, a row for each, the tensors' table, hyperparameters, the pieces' numbers,
# the counter that threads take pieces from
_PIECES = types.void(types.float64, types.int64, types.int64, _Words, _Words, _Numbers, _Numbers, _Words)
# number of the step, is it the length that is asked for, number of runs of pieces, a row for each (where it begins, how
# many), the pieces, the table, hyperparameters, the pieces' numbers
_SETTLE = types.void(types.float64, types.int64, types.int64, _Words, _Words, _Words, _Numbers, _Numbers)


_AT_ONCE = 128  # rows: a sum over more is one of such sums, which loses fewer digits


class Phase(IntEnum):
    """What is done to every piece before any goes on."""

    MEASURE = 0
    SCALE = 1  # of parts of a matrix, whose averages the others have a share in
    MOVE = 2


class PieceWords(NamedTuple):
    """What kernels are told of a piece: whole matrices, or some rows, or some columns, of one; or some elements."""

    tensor: int  # its row in the table
    first_matrix: int
    num_matrices: int
    first_row: int
    num_rows: int
    first_column: int
    num_columns: int
    shared: int  # where its sums over what other parts share begin, float64; 0: it is whole


_WORDS = len(PieceWords._fields)
_TENSOR, _MATRIX, _MATRICES, _ROW, _ROWS, _COLUMN, _COLUMNS, _SHARED = range(_WORDS)

# The numbers of a piece: squares of its parameter and of its scaled gradient, the sum of its rows' averages; then the
# mean of all rows' of its matrix and the length of its tensor's step, which it is told.
OF_PIECE = 5
_OF_PARAMETER, _OF_SCALED, _OF_ROWS, _MEAN, _LENGTH = range(OF_PIECE)

add: Any
add_square: Any
all_given: Any
average: Any
averaged: Any
as_float64: Any
as_sums: Any
as_rounded: Any
choose_vectors: Any
coefficients: Any
coefficients_of: Any
float_type: Any
largest: float
length: Any
load_first: Any
load_gradient: Any
load_parameter: Any
load_second: Any
lot_of: Any
measured: Any
measured_elements: Any
moved: Any
moved_elements: Any
num_given: int
of_average: Any
of_column: Any
of_columns: Any
of_length: Any
of_row: Any
of_rows: Any
of_scale: Any
of_update: Any
rows_scales: Any
columns_scales: Any
scale: Any
scaled_squares: Any
shape_at: int
smallest: float
squares_of: Any
stepped: Any
store_first: Any
store_parameter: Any
store_second: Any
update: Any
view_first: Any
view_gradient: Any
view_parameter: Any
view_second: Any
width: int


def _coefficients_of(step: float, numbers: Any) -> Any:
    return as_float64(coefficients(step, smallest, largest, *all_given(carray(numbers, num_given))))


def _squares_of(t: Any, at: int, first: int, n: int) -> float:
    """Of so many of the parameter's elements the sum of the squares."""
    p, total = view_parameter(t, at, first, n, ()), 0.0
    for i in range(n):
        total = add_square(total, load_parameter(p, i))
    return total


# --- vectors -------------------------------------------------------------------------------------------------------


def _measured_elements(t: Any, at: int, step: float, first: int, n: int, c: Any) -> Any:
    """New averages; the sums of the squares of the parameter and of the scaled gradient."""
    choose_vectors()
    rounded, one, in_p, in_u = as_rounded(c), float_type(1.0), 0.0, 0.0
    p, g = view_parameter(t, at, first, n, ()), view_gradient(t, at, first, n, ())
    v, lot = view_first(t, at, first, n, ()), (0, 0)
    for i in range(n):
        x = np.float64(load_gradient(g, i))
        store_first(v, i, average(np.float64(load_first(v, i)), x * x, *of_average(c)), lot)
        s = scale(one, of_column(load_first(v, i), *of_columns(rounded)), *of_scale(rounded))
        in_p = add_square(in_p, load_parameter(p, i))
        in_u = add_square(in_u, s * load_gradient(g, i))
    return in_p, in_u


def _moved_elements(t: Any, at: int, step: float, first: int, n: int, step_length: float, c: Any) -> None:
    choose_vectors()
    rounded, one, by = as_rounded(c), float_type(1.0), float_type(step_length)
    p, g = view_parameter(t, at, first, n, ()), view_gradient(t, at, first, n, ())
    v, lot = view_first(t, at, first, n, ()), lot_of(t, at, first, step)
    for i in range(n):
        s = scale(one, of_column(load_first(v, i), *of_columns(rounded)), *of_scale(rounded))
        store_parameter(
            p, i, update(load_parameter(p, i), load_gradient(g, i), s, by, *of_update(rounded)), lot
        )


def _stepped_vector(t: Any, at: int, step: float, c: Any) -> None:
    n = t[at]
    in_p, in_u = measured_elements(t, at, step, 0, n, c)
    moved_elements(t, at, step, 0, n, length(np.sqrt(in_p / n), np.sqrt(in_u / n), *of_length(c)), c)


def _of_vectors(
    step: float, phase: int, num_pieces: int, pieces: Any, table: Any, numbers: Any, of_pieces: Any, counter: Any
) -> None:  # fmt: skip
    c = coefficients_of(step, numbers)
    words, own, t = (
        carray(pieces, num_pieces * _WORDS),
        carray(of_pieces, num_pieces * OF_PIECE),
        carray(table, 1 << 62),
    )
    while True:
        piece = next_piece(counter)
        if piece >= num_pieces:
            break
        q, out = words[piece * _WORDS :], own[piece * OF_PIECE :]
        at = q[_TENSOR] * width
        if phase == Phase.MEASURE:
            out[_OF_PARAMETER], out[_OF_SCALED] = measured_elements(t, at, step, q[_COLUMN], q[_COLUMNS], c)
        elif phase == Phase.MOVE:
            moved_elements(t, at, step, q[_COLUMN], q[_COLUMNS], out[_LENGTH], c)


# --- matrices ------------------------------------------------------------------------------------------------------


def _measured(
    t: Any, at: int, first: int, num_rows: int, num_columns: int, whole_columns: int, in_rows: Any, in_columns: Any
) -> None:  # fmt: skip
    """The sums of the gradient's squares over rows and columns."""
    choose_vectors()
    part = in_columns if num_rows <= _AT_ONCE else np.empty(num_columns)
    for begin in range(0, num_rows, _AT_ONCE):
        for j in range(num_columns):
            part[j] = 0.0
        for i in range(begin, min(begin + _AT_ONCE, num_rows)):
            g, total = view_gradient(t, at, first + i * whole_columns, num_columns, ()), 0.0
            for j in range(num_columns):
                x = np.float64(load_gradient(g, j))
                total = add(total, x * x)
                part[j] += x * x
            in_rows[i] = total
        if num_rows > _AT_ONCE:
            for j in range(num_columns):
                in_columns[j] = part[j] if begin == 0 else in_columns[j] + part[j]


def _averaged(t: Any, at: int, is_row: bool, first: int, n: int, sums: Any, count: int, c: Any) -> float:
    """New averages of rows or columns from sums over so many elements; what they add up to."""
    lot, total = (0, 0), 0.0
    if is_row:
        v = view_first(t, at, first, n, ())
        for i in range(n):
            store_first(v, i, average(np.float64(load_first(v, i)), sums[i] / count, *of_average(c)), lot)
            total = add(total, np.float64(load_first(v, i)))
    else:
        v = view_second(t, at, first, n, ())
        for i in range(n):
            store_second(v, i, average(np.float64(load_second(v, i)), sums[i] / count, *of_average(c)), lot)
    return total


def _rows_scales(t: Any, at: int, first: int, n: int, mean: float, c: Any, scales: Any) -> None:
    v = view_first(t, at, first, n, ())
    for i in range(n):
        scales[i] = float_type(of_row(np.float64(load_first(v, i)), mean, *of_rows(c)))


def _columns_scales(t: Any, at: int, first: int, n: int, c: Any, scales: Any) -> None:
    v = view_second(t, at, first, n, ())
    for i in range(n):
        scales[i] = float_type(of_column(np.float64(load_second(v, i)), *of_columns(c)))


def _scaled_squares(
    t: Any, at: int, first: int, num_rows: int, num_columns: int, whole_columns: int, a: Any, b: Any, c: Any
) -> float:  # fmt: skip
    """The sum of the scaled gradient's squares."""
    choose_vectors()
    rounded, total = as_rounded(c), 0.0
    for begin in range(0, num_rows, _AT_ONCE):
        part = 0.0
        for i in range(begin, min(begin + _AT_ONCE, num_rows)):
            g, of_this = view_gradient(t, at, first + i * whole_columns, num_columns, ()), a[i]
            for j in range(num_columns):
                part = add_square(part, scale(of_this, b[j], *of_scale(rounded)) * load_gradient(g, j))
        total += part
    return total


def _moved(
    t: Any, at: int, step: float, first: int, num_rows: int, num_columns: int, whole_columns: int, a: Any, b: Any,
    step_length: float, c: Any,
) -> None:  # fmt: skip
    choose_vectors()
    rounded, by = as_rounded(c), float_type(step_length)
    for i in range(num_rows):
        start, of_this = first + i * whole_columns, a[i]
        p = view_parameter(t, at, start, num_columns, ())
        g, lot = view_gradient(t, at, start, num_columns, ()), lot_of(t, at, start, step)
        for j in range(num_columns):
            s = scale(of_this, b[j], *of_scale(rounded))
            new = update(load_parameter(p, j), load_gradient(g, j), s, by, *of_update(rounded))
            store_parameter(p, j, new, lot)


def _stepped_matrices(t: Any, at: int, step: float, c: Any) -> None:
    n, matrices, rows, columns = t[at], t[at + shape_at], t[at + shape_at + 1], t[at + shape_at + 2]
    in_rows, in_columns = np.empty(rows), np.empty(columns)
    a, b = np.empty(rows, float_type), np.empty(columns, float_type)
    in_p, in_u, mean = squares_of(t, at, 0, n), 0.0, 0.0
    for k in range(matrices):
        first = k * rows * columns
        measured(t, at, first, rows, columns, columns, in_rows, in_columns)
        mean = averaged(t, at, True, k * rows, rows, in_rows, columns, c) / rows
        averaged(t, at, False, k * columns, columns, in_columns, rows, c)
        rows_scales(t, at, k * rows, rows, mean, c, a)
        columns_scales(t, at, k * columns, columns, c, b)
        in_u += scaled_squares(t, at, first, rows, columns, columns, a, b, c)
    step_length = length(np.sqrt(in_p / n), np.sqrt(in_u / n), *of_length(c))
    for k in range(matrices):
        if matrices > 1:  # of one alone they are still there
            v, mean = view_first(t, at, k * rows, rows, ()), 0.0
            for i in range(rows):
                mean = add(mean, np.float64(load_first(v, i)))
            rows_scales(t, at, k * rows, rows, mean / rows, c, a)
            columns_scales(t, at, k * columns, columns, c, b)
        moved(t, at, step, k * rows * columns, rows, columns, columns, a, b, step_length, c)


def _step(step: float, num_tensors: int, table: Any, numbers: Any) -> None:
    c = coefficients_of(step, numbers)
    t = carray(table, num_tensors * width)
    for tensor in range(num_tensors):
        if t[tensor * width] > 0:
            stepped(t, tensor * width, step, c)


# --- pieces of large tensors ----------------------------------------------------------------------------------------


def _of_matrices(
    step: float, phase: int, num_pieces: int, pieces: Any, table: Any, numbers: Any, of_pieces: Any, counter: Any
) -> None:  # fmt: skip
    c = coefficients_of(step, numbers)
    words, own, t = (
        carray(pieces, num_pieces * _WORDS),
        carray(of_pieces, num_pieces * OF_PIECE),
        carray(table, 1 << 62),
    )
    while True:
        piece = next_piece(counter)
        if piece >= num_pieces:
            break
        q, out = words[piece * _WORDS :], own[piece * OF_PIECE :]
        at, shared, num_rows, num_columns = q[_TENSOR] * width, q[_SHARED], q[_ROWS], q[_COLUMNS]
        rows, columns = t[at + shape_at + 1], t[at + shape_at + 2]
        if phase == Phase.SCALE and shared == 0:
            continue
        a, b = np.empty(num_rows, float_type), np.empty(num_columns, float_type)
        if phase == Phase.MEASURE:
            in_rows, in_columns = np.empty(num_rows), np.empty(num_columns)
            out[_OF_PARAMETER] = 0.0
            out[_OF_SCALED] = 0.0
            out[_OF_ROWS] = 0.0
        for k in range(q[_MATRIX], q[_MATRIX] + q[_MATRICES]):
            first = k * rows * columns + q[_ROW] * columns + q[_COLUMN]
            first_row, first_column = k * rows + q[_ROW], k * columns + q[_COLUMN]
            mean = out[_MEAN]
            if phase == Phase.MEASURE:
                if num_columns == columns:
                    out[_OF_PARAMETER] += squares_of(t, at, first, num_rows * columns)
                else:
                    for i in range(num_rows):
                        out[_OF_PARAMETER] += squares_of(t, at, first + i * columns, num_columns)
                measured(t, at, first, num_rows, num_columns, columns, in_rows, in_columns)
                of_rows_here = 0.0
                if num_columns == columns:
                    of_rows_here = averaged(t, at, True, first_row, num_rows, in_rows, columns, c)
                else:
                    carray(as_sums(shared), num_rows)[:] = in_rows
                if num_rows == rows:
                    averaged(t, at, False, first_column, num_columns, in_columns, rows, c)
                else:
                    carray(as_sums(shared), num_columns)[:] = in_columns
                out[_OF_ROWS] = of_rows_here
                if shared != 0:
                    continue
                mean = of_rows_here / rows
            elif shared == 0:
                v, mean = view_first(t, at, first_row, rows, ()), 0.0
                for i in range(rows):
                    mean = add(mean, np.float64(load_first(v, i)))
                mean /= rows
            rows_scales(t, at, first_row, num_rows, mean, c, a)
            columns_scales(t, at, first_column, num_columns, c, b)
            if phase == Phase.MOVE:
                moved(t, at, step, first, num_rows, num_columns, columns, a, b, out[_LENGTH], c)
            else:
                out[_OF_SCALED] += scaled_squares(t, at, first, num_rows, num_columns, columns, a, b, c)


def _settle(
    step: float, is_length: int, num_runs: int, runs: Any, pieces: Any, table: Any, numbers: Any, of_pieces: Any
) -> None:  # fmt: skip
    """What parts of a matrix share, and what pieces of a tensor do: a run of pieces each."""
    c = coefficients_of(step, numbers)
    given, t = carray(runs, 2 * num_runs), carray(table, 1 << 62)
    words, own = carray(pieces, 1 << 62), carray(of_pieces, 1 << 62)
    for run in range(num_runs):
        begin, end = given[2 * run], given[2 * run] + given[2 * run + 1]
        q = words[begin * _WORDS :]
        at = q[_TENSOR] * width
        rows, columns = t[at + shape_at + 1], t[at + shape_at + 2]
        if is_length != 0:
            in_p, in_u = 0.0, 0.0
            for piece in range(begin, end):
                in_p += own[piece * OF_PIECE + _OF_PARAMETER]
                in_u += own[piece * OF_PIECE + _OF_SCALED]
            told = length(np.sqrt(in_p / t[at]), np.sqrt(in_u / t[at]), *of_length(c))
            for piece in range(begin, end):
                own[piece * OF_PIECE + _LENGTH] = told
            continue
        is_cut_in_rows = q[_COLUMNS] == columns
        n = columns if is_cut_in_rows else rows
        together, mean = np.zeros(n), 0.0
        for piece in range(begin, end):
            part = carray(as_sums(words[piece * _WORDS + _SHARED]), n)
            for i in range(n):
                together[i] += part[i]
            mean += own[piece * OF_PIECE + _OF_ROWS]
        if is_cut_in_rows:
            averaged(t, at, False, q[_MATRIX] * columns, n, together, rows, c)
        else:
            mean = averaged(t, at, True, q[_MATRIX] * rows, n, together, columns, c)
        for piece in range(begin, end):
            own[piece * OF_PIECE + _MEAN] = mean / rows


# --- compiled -------------------------------------------------------------------------------------------------------


@cache
def factored_step(rule: FactoredRule, layout: Layout) -> cpu.Kernel:
    """The step of whole tensors: ``f(step, num_tensors, table, numbers)``; of matrices if the layout has two slots."""
    return cpu.compile_kernel(_step, ENGINE_STEP, _bindings(rule, layout))


@cache
def pieces_kernel(rule: FactoredRule, layout: Layout) -> cpu.Kernel:
    """One `Phase` of the step of pieces, for several threads at once."""
    return cpu.compile_kernel(
        _of_matrices if len(layout.slots) > 1 else _of_vectors, _PIECES, _bindings(rule, layout)
    )


@cache
def settle_kernel(rule: FactoredRule, layout: Layout) -> cpu.Kernel:
    """What comes between the phases."""
    return cpu.compile_kernel(_settle, _SETTLE, _bindings(rule, layout))


@cache
def _bindings(rule: FactoredRule, layout: Layout) -> dict[str, Any]:
    number = np.dtype(layout.computed_in).type
    parameter, gradient, slots = columns(layout)
    first, second = slots[0], slots[-1]
    num_given, num_coefficients = len(rule.hyperparameters), range(len(rule.names))
    constants = {
        "width": layout.width + extra_words, "shape_at": layout.width, "num_given": num_given, "float_type": number,
        "smallest": _EPS[layout.parameter], "largest": float(np.finfo(number).max),
    }  # fmt: skip
    functions = {
        "add": _add, "add_square": _add_square, "choose_vectors": half_vectors,
        "as_sums": cpu.pointer_at(types.float64), "lot_of": lots(layout),
        "all_given": _chain(_empty, _and_number, range(num_given)),
        "as_float64": _chain(_empty, _and_rounded, num_coefficients, np.float64),
        "as_rounded": _chain(_empty, _and_rounded, num_coefficients, number),
    }  # fmt: skip
    access = {
        "view_parameter": parameter.view, "load_parameter": parameter.load, "store_parameter": parameter.store,
        "view_gradient": gradient.view, "load_gradient": gradient.load,
        "view_first": first.view, "load_first": first.load, "store_first": first.store,
        "view_second": second.view, "load_second": second.load, "store_second": second.store,
    }  # fmt: skip
    of_rule: dict[str, Callable[..., Any]] = {
        "average": rule.average, "of_row": rule.of_row, "of_column": rule.of_column, "scale": rule.scale,
        "length": rule.length, "update": rule.update,
    }  # fmt: skip
    taken = {
        "average": "of_average", "of_row": "of_rows", "of_column": "of_columns", "scale": "of_scale",
        "length": "of_length", "update": "of_update",
    }  # fmt: skip
    of_step = {"coefficients": cpu.bind(rule.coefficients), **constants, **functions}
    made = {
        **of_step, **access, **{word: cpu.bind(function) for word, function in of_rule.items()},
        **{taken[word]: _chain(_empty, _and_number, rule.places(function)) for word, function in of_rule.items()},
        "coefficients_of": cpu.bind(_coefficients_of, of_step),
    }  # fmt: skip
    short = (_squares_of, _averaged, _rows_scales, _columns_scales)
    parts = {function.__name__[1:]: cpu.bind(function, made) for function in short}
    long = (_measured, _scaled_squares, _moved, _measured_elements, _moved_elements)
    made |= parts | {function.__name__[1:]: cpu.bind(function, made, inline=False) for function in long}
    made["stepped"] = cpu.bind(_stepped_matrices if len(slots) > 1 else _stepped_vector, made, inline=False)
    return made


_EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
