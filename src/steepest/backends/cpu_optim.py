"""The CPU kernel an optimizer's update rule is put in: one pass over all tensors of a group."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import carray, types
from numba.np.unsafe import ndarray

from steepest.backends import cpu
from steepest.backends.cpu_vocabulary import _inline

__all__ = ["ENGINE_STEP", "optimizer_step", "row_length"]

# step number, number of tensors, table of addresses, hyperparameters
ENGINE_STEP = types.void(
    types.float64, types.int64, types.CPointer(types.int64), types.CPointer(types.float64)
)

to_fixed_tuple: Any = ndarray.to_fixed_tuple

update: Any
coefficients: Any
num_slots: int
num_hyper: int
num_coefficients: int
float_type: Any
as_pointer: Any
views: Any
load: Any
store: Any


def row_length(slots: int) -> int:
    """Columns of the address table: number of elements, parameter, gradient, one for each state slot."""
    return 3 + slots


# State slots come as a tuple of arrays; one loader and one storer for each number of slots.
def _views1(t: Any, at: int, n: int) -> Any:
    return (carray(as_pointer(t[at]), n),)


def _views2(t: Any, at: int, n: int) -> Any:
    return (carray(as_pointer(t[at]), n), carray(as_pointer(t[at + 1]), n))


def _views3(t: Any, at: int, n: int) -> Any:
    return (carray(as_pointer(t[at]), n), carray(as_pointer(t[at + 1]), n), carray(as_pointer(t[at + 2]), n))


def _no_views(t: Any, at: int, n: int) -> Any:
    return ()


@_inline
def _load0(s: Any, i: int) -> Any:
    return ()


@_inline
def _load1(s: Any, i: int) -> Any:
    return (s[0][i],)


@_inline
def _load2(s: Any, i: int) -> Any:
    return (s[0][i], s[1][i])


@_inline
def _load3(s: Any, i: int) -> Any:
    return (s[0][i], s[1][i], s[2][i])


@_inline
def _store0(s: Any, i: int, new: Any) -> None:
    return


@_inline
def _store1(s: Any, i: int, new: Any) -> None:
    s[0][i] = new[1]


@_inline
def _store2(s: Any, i: int, new: Any) -> None:
    s[0][i] = new[1]
    s[1][i] = new[2]


@_inline
def _store3(s: Any, i: int, new: Any) -> None:
    s[0][i] = new[1]
    s[1][i] = new[2]
    s[2][i] = new[3]


_VIEWS = (_no_views, _views1, _views2, _views3)
_LOAD = (_load0, _load1, _load2, _load3)
_STORE = (_store0, _store1, _store2, _store3)


def _step(step: float, num_tensors: int, table: Any, hyper: Any) -> None:
    # What depends on the step alone is worked out once, in float64, then rounded to the parameters' type.
    given = to_fixed_tuple(carray(hyper, num_hyper), num_hyper)
    rounded = np.empty(num_coefficients, dtype=float_type)
    for j, coefficient in enumerate(coefficients(step, *given)):
        rounded[j] = coefficient
    factors = to_fixed_tuple(rounded, num_coefficients)
    width = 3 + num_slots
    t = carray(table, num_tensors * width)
    for tensor in range(num_tensors):
        at = tensor * width
        n = t[at]
        p = carray(as_pointer(t[at + 1]), n)
        g = carray(as_pointer(t[at + 2]), n)
        s = views(t, at + 3, n)
        for i in range(n):
            new = update(p[i], g[i], *load(s, i), *factors)
            p[i] = new[0]
            store(s, i, new)


@cache
def optimizer_step(
    update: Callable[..., Any],
    coefficients: Callable[..., Any],
    num_slots: int,
    num_hyper: int,
    dtype: str,
) -> cpu.Kernel:
    """The fused step of a rule: ``f(step, num_tensors, table, hyperparameters)``."""
    float_type = {"float32": types.float32, "float64": types.float64}[dtype]
    probe = coefficients(2.0, *([0.5] * num_hyper))
    as_pointer = cpu.pointer_at(float_type)
    bindings = {
        "update": cpu.bind(update),
        "coefficients": cpu.bind(coefficients),
        "num_slots": num_slots,
        "num_hyper": num_hyper,
        "num_coefficients": len(probe),
        "float_type": np.dtype(dtype).type,
        "as_pointer": as_pointer,
        "views": cpu.bind(_VIEWS[num_slots], {"as_pointer": as_pointer}),
        "load": _LOAD[num_slots],
        "store": _STORE[num_slots],
    }
    return cpu.compile_kernel(_step, ENGINE_STEP, bindings)
