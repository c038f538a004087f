"""The CPU kernels that step some rows of a tensor alone: those that a sparse gradient has.

A row may come several times. Its entries are found and added up without sorting them: the first one of a row leaves a
mark where the row has its place, and every entry knows the next one of its row.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import carray, types

from steepest.backends import cpu
from steepest.backends.cpu import next_piece
from steepest.backends.cpu_optim import step_bindings
from steepest.backends.cpu_storage import Layout

if TYPE_CHECKING:
    from steepest.optim.rule import Rule

__all__ = ["find_rows", "rows_step"]

_Words, _Marks, _Numbers = (
    types.CPointer(types.int64),
    types.CPointer(types.int32),
    types.CPointer(types.float64),
)
# number of entries, each one's row, number of rows, a mark for each row, -1 before and after; then what is found out
_FIND = types.int64(types.int64, _Words, types.int64, _Marks, _Words, _Words, _Words)
# number of the step, number of rows found, each one's first entry, each entry's next one, each entry's row, length of a
# row, the tensor's row in a table, hyperparameters, rows in a piece, the counter that threads take pieces from
_ROWS = types.void(
    types.float64, types.int64, _Words, _Words, _Words, types.int64, _Words, _Numbers, types.int64, _Words
)

close: Any
coefficients_of: Any
float_type: Any
load: Any
load_gradient: Any
load_parameter: Any
lot_of: Any
rounded: Any
store: Any
store_parameter: Any
update: Any
view_gradient: Any
view_parameter: Any
views: Any
width: int


def _find_rows(
    count: int, rows: Any, num_rows: int, marks: Any, firsts: Any, lasts: Any, following: Any
) -> int:
    """How many different rows there are, or -1 - k where entry k has none; the first and last entry of each."""
    of, mark = carray(rows, count), carray(marks, num_rows)
    first, last, after = carray(firsts, count), carray(lasts, count), carray(following, count)
    found, wrong = 0, -1
    for k in range(count):
        row = of[k]
        if row < 0 or row >= num_rows:
            wrong = k
            break
        after[k] = -1
        place = mark[row]
        if place < 0:
            mark[row] = found
            first[found] = k
            last[found] = k
            found += 1
        else:
            after[last[place]] = k
            last[place] = k
    for place in range(found):
        mark[of[first[place]]] = -1
    return found if wrong < 0 else -1 - wrong


def _step_rows(
    step: float, found: int, firsts: Any, following: Any, rows: Any, n: int, table: Any, numbers: Any, at_once: int,
    counter: Any,
) -> None:  # fmt: skip
    factors = rounded(coefficients_of(step, numbers))
    t, first = carray(table, width), carray(firsts, found)
    after, of = carray(following, 1 << 62), carray(rows, 1 << 62)
    sums = np.empty(n)
    while True:
        begin = next_piece(counter) * at_once
        if begin >= found:
            break
        for place in range(begin, min(begin + at_once, found)):
            k = first[place]
            start = of[k] * n
            p, g = view_parameter(t, 0, start, n, ()), view_gradient(t, 0, k * n, n, ())
            s, lot = views(t, 0, start, n, ()), lot_of(t, 0, start, step)
            if after[k] < 0:
                for i in range(n):
                    new = update(load_parameter(p, i), load_gradient(g, i), *load(s, i), *factors)
                    store_parameter(p, i, new[0], lot)
                    store(s, i, new, lot)
                continue
            for i in range(n):
                sums[i] = np.float64(load_gradient(g, i))
            k = after[k]
            while k >= 0:
                g = view_gradient(t, 0, k * n, n, ())
                for i in range(n):
                    sums[i] += np.float64(load_gradient(g, i))
                k = after[k]
            for i in range(n):
                new = update(load_parameter(p, i), float_type(sums[i]), *load(s, i), *factors)
                store_parameter(p, i, new[0], lot)
                store(s, i, new, lot)


@cache
def find_rows() -> Callable[..., int]:
    """As `_find_rows` says, addresses as integers."""
    places = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 4]
    made: Callable[..., int] = cpu.by_address(
        cpu.compile_kernel(_find_rows, _FIND), ctypes.CFUNCTYPE(ctypes.c_int64, *places)
    )
    return made


@cache
def rows_step(rule: Rule, layout: Layout) -> cpu.Kernel:
    """The step of an elementwise rule on some rows of a tensor, for several threads at once."""
    bindings = {**step_bindings(rule, layout), "float_type": np.dtype(layout.computed_in).type}
    return cpu.compile_kernel(_step_rows, _ROWS, bindings)
