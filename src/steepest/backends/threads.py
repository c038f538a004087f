"""The threads that kernels are spread over: torch's own, where they can be had.

After an operation of torch's its OpenMP threads wait in a loop for the next one, for a millisecond or more. Threads
beside them would have to share their processors with this waiting; so a kernel is handed to the same threads, by
the call that compilers make of ``#pragma omp parallel``. They take it up within a microsecond, too. Where torch has
another runtime a pool of Python threads does the work; kernels release the interpreter lock.

A kernel that several threads run takes its pieces of work from a counter they share.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

from steepest.backends import cpu

__all__ = ["run_in_pieces", "run_together"]

_pool: ThreadPoolExecutor | None = None
_is_fork = False


def run_together(kernel: cpu.Kernel, arguments: Sequence[float | int], num_threads: int) -> None:
    """Call the kernel in so many threads at once, this one among them; all get the same arguments."""
    told = kernel.told
    record = told.layout.pack(kernel.address, *arguments)
    if num_threads == 1:
        told.call(record)
        return
    team = None if _is_fork else _torchs_team()
    if team is not None:
        team(told.address, record, num_threads, 0)
        return
    pool = _own_pool()
    others = [pool.submit(told.call, record) for _ in range(num_threads - 1)]
    told.call(record)
    for other in others:
        if not other.cancel():  # one that has not begun finds nothing to do
            other.result()


def run_in_pieces(kernel: cpu.Kernel, arguments: Sequence[Any], count: int, grain: int) -> float:
    """Run a loss's kernel over ``[0, count)`` in pieces of ``grain``, on torch's number of threads; the exact sum.

    After its arguments it takes the counter that pieces are taken from, and the room for their sums.
    """
    num_pieces = 1 if count <= grain else -(-count // grain)
    shared = (ctypes.c_double * (1 + num_pieces))()  # the counter, which begins at 0 as int64 too; the sums
    where = ctypes.addressof(shared)
    if num_pieces == 1:
        run_together(kernel, (*arguments, where, where + 8), 1)
        return shared[1]
    run_together(kernel, (*arguments, where, where + 8), min(torch.get_num_threads(), num_pieces))
    totals = shared[1:]
    return math.fsum(totals) if all(map(math.isfinite, totals)) else sum(totals)


@cache
def _torchs_team() -> Callable[..., Any] | None:
    """``GOMP_parallel(function, data, num_threads, flags)`` of the OpenMP runtime that torch has loaded."""
    for path in sorted(Path(torch.__file__).parent.glob("lib/libgomp*.so*")):
        try:
            parallel = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD).GOMP_parallel
        except (OSError, AttributeError):
            continue
        parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        parallel.restype = None
        return parallel
    return None


def _own_pool() -> ThreadPoolExecutor:
    """As many threads as torch uses when it is first asked for."""
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="steepest")
    return _pool


def _forget() -> None:
    global _pool, _is_fork
    _pool, _is_fork = None, True  # no thread survives a fork, and OpenMP's runtime would wait for its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
