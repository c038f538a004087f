"""Random numbers that depend on (seed, stream, index) alone: the same alone, in company, on any thread.

SplitMix64 (Steele, Lea and Flood 2014, Fast Splittable Pseudorandom Number Generators, figure 16) read as a
counter-based generator: number i of a stream is the mixed value of ``key + i * golden``.
"""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numba import carray, njit, types
from numpy.typing import NDArray

from steepest.backends import cpu
from steepest.backends.cpu_vocabulary import AS_PART

__all__ = [
    "ROWS",
    "SAMPLE",
    "SPLIT",
    "data_order",
    "epoch_seed",
    "hashed",
    "initial_parameters",
    "permute",
    "scattered",
]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)

_ORDER, _WEIGHTS, _EPOCHS, SPLIT, SCATTER, SAMPLE, ROWS = 1, 2, 3, 4, 5, 6, 7  # streams
_ROUNDS = 4
_KEPT_UP_TO = 100_000  # parameters; drawing more takes little beside training them


def _mix(z: Any) -> Any:
    z = (z ^ (z >> _S30)) * _MIX1
    z = (z ^ (z >> _S27)) * _MIX2
    return z ^ (z >> _S31)


mix = njit(_mix, **AS_PART)


@njit(**AS_PART)
def permute(order: Any, n: int, seed: int, epoch: int) -> None:
    """Write the order of the rows in an epoch: Fisher and Yates' shuffle on stream (seed, epoch)."""
    key = mix(mix(mix(np.uint64(seed)) + np.uint64(1)) + np.uint64(epoch))
    for i in range(n):
        order[i] = i
    for i in range(n - 1, 0, -1):
        bits = mix(key + np.uint64(i) * _GOLDEN) >> _S32
        j = np.int64((bits * np.uint64(i + 1)) >> _S32)
        order[i], order[j] = order[j], order[i]


def _data_order(order: Any, n: int, seed: int, epoch: int) -> None:
    permute(carray(order, n), n, seed, epoch)


@cache
def _order_kernel() -> cpu.Kernel:
    signature = types.void(types.CPointer(types.int64), types.int64, types.int64, types.int64)
    return cpu.compile_kernel(_data_order, signature)


def data_order(num_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which the engines visit the rows in an epoch (counted from 0)."""
    order = np.empty(num_rows, dtype=np.int64)
    kernel = _order_kernel()
    kernel(order.ctypes.data_as(kernel.function.argtypes[0]), num_rows, seed, epoch)
    return order


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed, below 2**32, of what a module and its data draw in an epoch (counted from 0)."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        key = _mix(_mix(np.uint64(seed)) + np.uint64(_EPOCHS))
        return int(_mix(key + np.uint64(epoch) * _GOLDEN) >> _S32)


def initial_parameters(sizes: list[int], seed: int) -> NDArray[np.float32]:
    """Weights and biases of a multi-layer perceptron, flat, torch's layout and torch's default law.

    Every number is uniform in +-1 / sqrt(inputs of its layer), as ``torch.nn.Linear`` draws them. The
    earlier layers do not depend on the later ones' sizes, so nets that differ in their last layer are paired.
    """
    if sum((rows + 1) * columns for rows, columns in pairwise(sizes)) > _KEPT_UP_TO:
        return _draw_parameters(tuple(sizes), seed)
    return _drawn_before(tuple(sizes), seed).copy()


def _draw_parameters(sizes: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    total = sum((rows + 1) * columns for rows, columns in pairwise(sizes))
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        key = _mix(_mix(np.uint64(seed)) + np.uint64(_WEIGHTS))
        bits = _mix(key + np.arange(total, dtype=np.uint64) * _GOLDEN)
    unit = (bits >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0  # [-1, 1), 24 bits
    bounds = np.concatenate(
        [np.full((rows + 1) * columns, 1.0 / np.sqrt(rows)) for rows, columns in pairwise(sizes)]
    )
    return np.asarray(unit * bounds, dtype=np.float32)


_drawn_before = lru_cache(maxsize=64)(_draw_parameters)  # a comparison's runs share their seeds


def hashed(seed: int, stream: int, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A random number, uniform over 64 bits, for each number; nothing but (seed, stream, number) decides it."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        key = _mix(_mix(np.uint64(seed)) + np.uint64(stream))
        mixed: NDArray[np.uint64] = _mix(key + numbers * _GOLDEN)
        return mixed


def scattered(numbers: NDArray[np.uint64], total: int, seed: int) -> NDArray[np.uint64]:
    """Where each of the numbers 0 to ``total - 1`` goes under a random permutation of them all, none of it in memory.

    A Feistel network of four rounds on the smallest even number of bits that holds ``total``; what falls beyond it goes
    through again until it does not (Black and Rogaway 2002, Ciphers with Arbitrary Finite Domains, section 4).
    """
    half = np.uint64(max(1, (max(total - 1, 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = hashed(seed, SCATTER, np.arange(_ROUNDS, dtype=np.uint64))
    places = numbers.astype(np.uint64)
    beyond = np.arange(len(places))
    while len(beyond):
        left, right = places[beyond] >> half, places[beyond] & mask
        for key in keys:
            with np.errstate(over="ignore"):
                left, right = right, left ^ (_mix(right + key) >> (np.uint64(64) - half))
        places[beyond] = (left << half) | right
        beyond = beyond[places[beyond] >= total]
    return places
