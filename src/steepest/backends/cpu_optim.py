"""The CPU kernel an optimizer's update rule is put in: one pass over all tensors of a group."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import carray, njit, types

from steepest.backends import cpu
from steepest.backends.cpu import half_vectors, next_piece
from steepest.backends.cpu_storage import BLOCK, Column, Layout, columns, inlined, lots
from steepest.backends.cpu_vocabulary import AS_PART, _inline

if TYPE_CHECKING:
    from steepest.optim.rule import Rule

__all__ = ["ENGINE_STEP", "counters", "in_parts", "optimizer_step", "stored_step"]

# step number, number of tensors, table of addresses, hyperparameters and then scalars (which the step advances)
#
# A tensor has a row in the table: number of elements, then where parameter, gradient and each state slot begin, and
# what else `Layout` says.
ENGINE_STEP = types.void(
    types.float64, types.int64, types.CPointer(types.int64), types.CPointer(types.float64)
)

# number of tensors, numbers of each, table of addresses, the numbers that all tensors have
#
# A tensor has a row in the table: where its step count lies, then where each of its scalars does.
COUNTERS = types.boolean(types.int64, types.int64, types.CPointer(types.int64), types.CPointer(types.float64))

# address of a step, step number, number of parts, a row for each (number of tensors, where its table begins),
# number of numbers, these, room for what the step makes of them, the counter that threads take parts from
_PARTS = types.void(
    types.int64, types.float64, types.int64, types.CPointer(types.int64), types.int64,
    types.CPointer(types.float64), types.CPointer(types.float64), types.CPointer(types.int64),
)  # fmt: skip

update: Any
measure: Any
trust: Any
coefficients: Any
coefficients_of: Any
add_square: Any
num_hyper: int
num_given: int
all_given: Any
width: int
block: int
choose_vectors: Any
make_scratch: Any
float_type: Any
as_pointer: Any
as_scalar: Any
as_table: Any
take_step: Any
view_parameter: Any
view_gradient: Any
load_parameter: Any
load_gradient: Any
store_parameter: Any
views: Any
load: Any
store: Any
close: Any
lot_of: Any
as_float64: Any
rounded: Any
keep_scalars: Any
start_at_gradient: Any

# A sum over a tensor may be taken in any order (it is fixed once compiled), so that it becomes SIMD code.
_sums = njit(fastmath={"contract", "reassoc", "nsz"}, forceinline=True, **AS_PART)


@_sums
def _add_square(total: float, x: Any) -> float:
    return total + np.float64(x) * np.float64(x)


def _coefficients_of(step: float, numbers: Any) -> Any:
    """What depends on the step alone: worked out once, in float64. The scalars move on."""
    given = carray(numbers, num_given)
    values = coefficients(step, *all_given(given))
    keep_scalars(given, values)
    return as_float64(values)


def _step(step: float, num_tensors: int, table: Any, numbers: Any) -> None:
    choose_vectors()
    factors = rounded(coefficients_of(step, numbers))
    scratch = make_scratch()
    t = carray(table, num_tensors * width)
    for tensor in range(num_tensors):
        at = tensor * width
        for first in range(0, t[at], block):
            n = min(t[at] - first, block)
            p, g = view_parameter(t, at, first, n, scratch), view_gradient(t, at, first, n, scratch)
            s, lot = views(t, at, first, n, scratch), lot_of(t, at, first, step)
            if step == 1.0:
                start_at_gradient(s, g)
            for i in range(n):
                new = update(load_parameter(p, i), load_gradient(g, i), *load(s, i), *factors)
                store_parameter(p, i, new[0], lot)
                store(s, i, new, lot)
            close(t, at, first, n, s, lot)


def _measured_step(step: float, num_tensors: int, table: Any, numbers: Any) -> None:
    exact = coefficients_of(step, numbers)
    factors = rounded(exact)
    scratch = make_scratch()
    t = carray(table, num_tensors * width)
    for tensor in range(num_tensors):
        at = tensor * width
        squares_a = 0.0
        squares_b = 0.0
        for first in range(0, t[at], block):
            n = min(t[at] - first, block)
            p, g = view_parameter(t, at, first, n, scratch), view_gradient(t, at, first, n, scratch)
            s = views(t, at, first, n, scratch)
            if step == 1.0:
                start_at_gradient(s, g)
            for i in range(n):
                a, b = measure(load_parameter(p, i), load_gradient(g, i), *load(s, i), *factors)
                squares_a = add_square(squares_a, a)
                squares_b = add_square(squares_b, b)
        ratio = float_type(trust(np.sqrt(squares_a), np.sqrt(squares_b), *exact))
        for first in range(0, t[at], block):
            n = min(t[at] - first, block)
            p, g = view_parameter(t, at, first, n, scratch), view_gradient(t, at, first, n, scratch)
            s, lot = views(t, at, first, n, scratch), lot_of(t, at, first, step)
            for i in range(n):
                new = update(load_parameter(p, i), load_gradient(g, i), *load(s, i), *factors, ratio)
                store_parameter(p, i, new[0], lot)
                store(s, i, new, lot)
            close(t, at, first, n, s, lot)


def _in_parts(
    address: int,
    step: float,
    num_parts: int,
    parts: Any,
    num_numbers: int,
    numbers: Any,
    moved: Any,
    counter: Any,
) -> None:
    """Step part after part; every part begins with the same numbers, and all make the same of them."""
    rows = carray(parts, 2 * num_parts)
    given = carray(numbers, num_numbers)
    own = np.empty(num_numbers)
    while True:
        part = next_piece(counter)
        if part >= num_parts:
            break
        own[:] = given
        take_step(address, step, rows[2 * part], as_table(rows[2 * part + 1]), own)
        if part == 0:
            carray(moved, num_numbers)[:] = own


def _agree(num_tensors: int, width: int, table: Any, numbers: Any) -> bool:
    """Whether all tensors have the same step count and scalars, and which: the count with one more step."""
    t = carray(table, num_tensors * width)
    s = carray(numbers, width)
    step = carray(as_pointer(t[0]), 1)[0]
    for k in range(1, width):
        s[k] = carray(as_scalar(t[k]), 1)[0]
    for tensor in range(1, num_tensors):
        at = tensor * width
        if carray(as_pointer(t[at]), 1)[0] != step:
            return False
        for k in range(1, width):
            if carray(as_scalar(t[at + k]), 1)[0] != s[k]:
                return False
    s[0] = np.float64(step + float_type(1.0))
    return True


def _note(num_tensors: int, width: int, table: Any, numbers: Any) -> bool:
    """Give all tensors the same step count and scalars."""
    t = carray(table, num_tensors * width)
    s = carray(numbers, width)
    for tensor in range(num_tensors):
        at = tensor * width
        carray(as_pointer(t[at]), 1)[0] = float_type(s[0])
        for k in range(1, width):
            carray(as_scalar(t[at + k]), 1)[0] = s[k]
    return True


# Tuples of any length, one member at a time: each function below does what the one before it does, and one
# place more. Numba inlines the chain, and no trace of it is left in the loop.


def _chain(first: Any, link: Callable[..., Any], places: Sequence[int], *arguments: Any) -> Any:
    chain = inlined(first)
    for place in places:
        chain = _inline(link(chain, place, *arguments))
    return chain


def _empty(*arguments: Any) -> Any:
    return ()


def _nothing(*arguments: Any) -> None:
    return


def _and_view(before: Any, place: int, slots: Sequence[Column]) -> Any:
    view = slots[place].view

    def views(t: Any, at: int, first: int, n: int, scratch: Any) -> Any:
        return before(t, at, first, n, scratch) + (view(t, at, first, n, scratch),)  # noqa: RUF005 - Numba's form

    return views


def _and_element(before: Any, place: int, slots: Sequence[Column]) -> Any:
    load_one = slots[place].load

    def load(s: Any, i: int) -> Any:
        return before(s, i) + (load_one(s[place], i),)  # noqa: RUF005

    return load


def _and_store(before: Any, place: int, slots: Sequence[Column]) -> Any:
    store_one = slots[place].store
    after = place + 1  # the new parameter comes first

    def store(s: Any, i: int, new: Any, lot: Any) -> None:
        before(s, i, new, lot)
        store_one(s[place], i, new[after], lot)

    return store


def _and_close(before: Any, place: int, slots: Sequence[Column]) -> Any:
    close_one = slots[place].close

    def close(t: Any, at: int, first: int, n: int, s: Any, lot: Any) -> None:
        before(t, at, first, n, s, lot)
        close_one(t, at, first, n, s[place], lot)

    return close


def _and_number(before: Any, place: int) -> Any:
    def numbers(given: Any) -> Any:
        return before(given) + (given[place],)  # noqa: RUF005

    return numbers


def _and_rounded(before: Any, place: int, float_type: Any) -> Any:
    def rounded(values: Any) -> Any:
        return before(values) + (float_type(values[place]),)  # noqa: RUF005

    return rounded


def _and_scalar(before: Any, place: int, num_hyper: int) -> Any:
    def keep_scalars(given: Any, values: Any) -> None:
        before(given, values)
        given[num_hyper + place] = values[place]

    return keep_scalars


def _and_gradient(before: Any, place: int) -> Any:
    def start_at_gradient(s: Any, g: Any) -> None:
        before(s, g)
        s[place][:] = g

    return start_at_gradient


@cache
def optimizer_step(rule: Rule, dtype: str) -> cpu.Kernel:
    """The fused step of a rule on parameters and state of one type: ``f(step, num_tensors, table, numbers)``."""
    return stored_step(rule, Layout(dtype, (dtype,) * len(rule.slots)))


@cache
def stored_step(rule: Rule, layout: Layout) -> cpu.Kernel:
    """The same for tensors that lie in memory as ``layout`` says."""
    number = np.dtype(layout.computed_in).type
    slots, num_scalars, num_coefficients = range(len(rule.slots)), len(rule.scalars), rule.num_coefficients
    num_hyper = len(rule.hyperparameters)
    of_step = {
        "coefficients": cpu.bind(rule.coefficients),
        "num_given": num_hyper + num_scalars,
        "all_given": _chain(_empty, _and_number, range(num_hyper + num_scalars)),
        "keep_scalars": _chain(_nothing, _and_scalar, range(num_scalars), num_hyper),
        "as_float64": _chain(
            _empty, _and_rounded, range(num_scalars, num_scalars + num_coefficients), np.float64
        ),
    }
    # Where types differ, such a slot has been filled already.
    at_gradient = [
        place for place in slots
        if rule.initial.get(rule.slots[place]) == "gradient" and layout.slots[place] == layout.parameter
    ]  # fmt: skip
    bindings = {
        **_access(layout),
        "update": cpu.bind(rule.update),
        "coefficients_of": cpu.bind(_coefficients_of, of_step),
        "rounded": _chain(_empty, _and_rounded, range(num_coefficients), number),
        "start_at_gradient": _chain(_nothing, _and_gradient, at_gradient),
    }
    if rule.measure is None or rule.trust is None:
        return cpu.compile_kernel(_step, ENGINE_STEP, bindings)
    measured = {
        "measure": cpu.bind(rule.measure), "trust": cpu.bind(rule.trust), "add_square": _add_square,
        "float_type": number,
    }  # fmt: skip
    return cpu.compile_kernel(_measured_step, ENGINE_STEP, {**bindings, **measured})


@cache
def _access(layout: Layout) -> dict[str, Any]:
    """What hangs on the layout alone, so that the rules that share one share what Numba made of it."""
    parameter, gradient, state = columns(layout)
    slots, in_blocks = range(len(layout.slots)), layout.num_eight_bit > 0
    return {
        "width": layout.width,
        "block": BLOCK if in_blocks else 1 << 62,
        # Codes are arithmetic, which gains by whole vectors; the rest waits for memory.
        "choose_vectors": inlined(_nothing) if in_blocks else half_vectors,
        "make_scratch": _scratch(layout.num_eight_bit) if in_blocks else inlined(_empty),
        "view_parameter": parameter.view,
        "view_gradient": gradient.view,
        "load_parameter": parameter.load,
        "load_gradient": gradient.load,
        "store_parameter": parameter.store,
        "views": _chain(_empty, _and_view, slots, state),
        "load": _chain(_empty, _and_element, slots, state),
        "store": _chain(_nothing, _and_store, slots, state),
        "close": _chain(_nothing, _and_close, slots if in_blocks else (), state),
        "lot_of": lots(layout),
    }


def _scratch(num_rows: int) -> Any:
    """Where a block's new numbers wait until all are known."""

    def make_scratch() -> Any:
        return np.empty((num_rows, BLOCK), np.float32)

    return _inline(make_scratch)


@cache
def counters(dtype: str) -> tuple[Callable[..., bool], Callable[..., bool]]:
    """What reads the step counts (of that type) and scalars (float64) of many tensors, and what writes them.

    Called as COUNTERS says, with addresses as integers.
    """
    float_type = {"float32": types.float32, "float64": types.float64}[dtype]
    bindings = {
        "as_pointer": cpu.pointer_at(float_type),
        "as_scalar": cpu.pointer_at(types.float64),
        "float_type": np.dtype(dtype).type,
    }
    integer, address = ctypes.c_int64, ctypes.c_void_p
    prototype = ctypes.PYFUNCTYPE(ctypes.c_bool, integer, integer, address, address)
    agree, note = (cpu.compile_kernel(part, COUNTERS, bindings) for part in (_agree, _note))
    return cpu.by_address(agree, prototype), cpu.by_address(note, prototype)


@cache
def in_parts() -> cpu.Kernel:
    """What steps the parts of a table, whatever the rule, for several threads at once."""
    bindings = {"take_step": cpu.call(ENGINE_STEP), "as_table": cpu.pointer_at(types.int64)}
    return cpu.compile_kernel(_in_parts, _PARTS, bindings)
