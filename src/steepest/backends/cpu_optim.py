"""The CPU kernel an optimizer's update rule is put in: one pass over all tensors of a group."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import carray, njit, types

from steepest.backends import cpu
from steepest.backends.cpu import half_vectors, next_piece
from steepest.backends.cpu_storage import BLOCK, Column, Layout, columns, inlined, lots
from steepest.backends.cpu_vocabulary import AS_PART, _inline

if TYPE_CHECKING:
    from steepest.optim.rule import Rule

__all__ = [
    "ENGINE_STEP", "GroupPart", "in_parts", "optimizer_step", "step_bindings", "step_group", "stored_step",
    "tell_group",
]  # fmt: skip

# step number, number of tensors, table of addresses, hyperparameters and then scalars (which the step advances)
#
# A tensor has a row in the table: number of elements, then where parameter, gradient and each state slot begin, and
# what else `Layout` says.
ENGINE_STEP = types.void(
    types.float64, types.int64, types.CPointer(types.int64), types.CPointer(types.float64)
)

# number of parts, a `GroupPart` for each, and where the group's gradients lie
_TELL = types.boolean(types.int64, types.CPointer(types.int64), types.CPointer(types.int64))
_STEP_GROUP = types.void(types.int64, types.CPointer(types.int64))

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
as_counts: Any
as_scalars: Any
as_table: Any
load_count: Any
load_scalar: Any
store_count: Any
store_scalar: Any
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
def _add(total: float, x: float) -> float:
    return total + x


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


class GroupPart(NamedTuple):
    """What compiled code is told of tensors that step alike, as 64-bit words.

    Where these tensors keep their step counts and scalars is a table of its own, a row a tensor. ``numbers`` are the
    number of the step to take, the hyperparameters and the scalars: float64.
    """

    kernel: int  # the step's address; 0: others take it
    num_rows: int  # of the step's table
    width: int
    table: int
    owners: int  # for each row the place of its gradient among the group's
    offsets: int  # and how far in that it begins
    num_tensors: int
    num_counters: int  # of each
    counters: int
    counts_steps: int  # or the number of the step stays what it is
    num_hyper: int
    numbers: int


_PART_WORDS = len(GroupPart._fields)
_KERNEL, _ROWS, _WIDTH, _TABLE, _OWNERS, _OFFSETS, _TENSORS, _COUNTERS, _AT, _COUNTS, _HYPER, _NUMBERS = (
    range(_PART_WORDS)
)


def _tell_group(num_parts: int, parts: Any, gradients: Any) -> bool:
    """Whether all tensors of a part have the same step count and scalars; if so, note these and where gradients lie."""
    given = carray(parts, num_parts * _PART_WORDS)
    for part in range(num_parts):
        q = given[part * _PART_WORDS :]
        width, first = q[_COUNTERS], q[_COUNTS]
        t = carray(as_table(q[_AT]), q[_TENSORS] * width)
        for tensor in range(1, q[_TENSORS]):
            at = tensor * width
            if first != 0 and load_count(t[at]) != load_count(t[0]):
                return False
            for k in range(first, width):
                if load_scalar(t[at + k]) != load_scalar(t[k]):
                    return False
    for part in range(num_parts):
        q = given[part * _PART_WORDS :]
        num_rows, width, num_hyper, first = q[_ROWS], q[_WIDTH], q[_HYPER], q[_COUNTS]
        counters = carray(as_table(q[_AT]), q[_COUNTERS])
        numbers = carray(as_scalars(q[_NUMBERS]), 1 + num_hyper + q[_COUNTERS] - first)
        if first != 0:
            numbers[0] = np.float64(load_count(counters[0]) + np.float32(1.0))
        for k in range(first, q[_COUNTERS]):
            numbers[1 + num_hyper + k - first] = load_scalar(counters[k])
        owners, offsets = carray(as_table(q[_OWNERS]), num_rows), carray(as_table(q[_OFFSETS]), num_rows)
        where, t = carray(gradients, 1 << 62), carray(as_table(q[_TABLE]), num_rows * width)
        for row in range(num_rows):
            t[row * width + 2] = where[owners[row]] + offsets[row]
    return True


def _step_group(num_parts: int, parts: Any) -> None:
    """Step part after part, those apart that others step; count the step, and keep the new scalars."""
    given = carray(parts, num_parts * _PART_WORDS)
    for part in range(num_parts):
        q = given[part * _PART_WORDS :]
        num_hyper, first, width = q[_HYPER], q[_COUNTS], q[_COUNTERS]
        numbers = carray(as_scalars(q[_NUMBERS]), 1 + num_hyper + width - first)
        if q[_KERNEL] != 0:
            take_step(q[_KERNEL], numbers[0], q[_ROWS], as_table(q[_TABLE]), numbers[1:])
        t = carray(as_table(q[_AT]), q[_TENSORS] * width)
        for tensor in range(q[_TENSORS]):
            at = tensor * width
            if first != 0:
                store_count(t[at], numbers[0])
            for k in range(first, width):
                store_scalar(t[at + k], numbers[1 + num_hyper + k - first])


def _load_count(address: int) -> Any:
    return carray(as_counts(address), 1)[0]


def _load_scalar(address: int) -> Any:
    return carray(as_scalars(address), 1)[0]


def _store_count(address: int, value: float) -> None:
    carray(as_counts(address), 1)[0] = np.float32(value)


def _store_scalar(address: int, value: float) -> None:
    carray(as_scalars(address), 1)[0] = value


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
    return cpu.compile_kernel(
        _step if rule.measure is None else _measured_step, ENGINE_STEP, step_bindings(rule, layout)
    )


@cache
def step_bindings(rule: Rule, layout: Layout) -> dict[str, Any]:
    """What a template's names stand for in the kernels of a rule, on tensors that lie as ``layout`` says."""
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
        return bindings
    measured = {
        "measure": cpu.bind(rule.measure), "trust": cpu.bind(rule.trust), "add_square": _add_square,
        "float_type": number,
    }  # fmt: skip
    return {**bindings, **measured}


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
def tell_group() -> Callable[[int, int, int], bool]:
    """``f(number of parts, their words, where the gradients lie)``, addresses as integers; as `_tell_group` says."""
    return _of_group(
        _tell_group, _TELL, ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_int64, *[ctypes.c_void_p] * 2)
    )


@cache
def step_group() -> Callable[[int, int], None]:
    """``f(number of parts, their words)``, with the interpreter's lock released."""
    return _of_group(_step_group, _STEP_GROUP, ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p))


def _of_group(template: Callable[..., Any], signature: Any, prototype: Any) -> Any:
    pointers = {
        "as_table": cpu.pointer_at(types.int64),
        "as_counts": cpu.pointer_at(types.float32),
        "as_scalars": cpu.pointer_at(types.float64),
    }
    parts = {
        name.__name__[1:]: cpu.bind(name, pointers)
        for name in (_load_count, _load_scalar, _store_count, _store_scalar)
    }
    bindings = {**pointers, **parts, "take_step": cpu.call(ENGINE_STEP)}
    return cpu.by_address(cpu.compile_kernel(template, signature, bindings), prototype)


@cache
def in_parts() -> cpu.Kernel:
    """What steps the parts of a table, whatever the rule, for several threads at once."""
    bindings = {"take_step": cpu.call(ENGINE_STEP), "as_table": cpu.pointer_at(types.int64)}
    return cpu.compile_kernel(_in_parts, _PARTS, bindings)
