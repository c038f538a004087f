"""The words formulas are written in, as the CPU backend compiles them, against 256-bit truth."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numba import carray, types
from numpy.typing import NDArray
from tests.contract.samples import generator
from tests.contract.truth import VOCABULARY as EXACT
from tests.contract.truth import exactly, mp, ulps_off

from steepest.backends import cpu, reference
from steepest.backends.cpu_vocabulary import VOCABULARY

# The module's own promise, in units in the last place.
BARS = {"float32": 1.0, "float64": 2.0}
UNARY = [word for word in VOCABULARY if word not in ("maximum", "minimum", "power", "where")]
NUMBA = {"float32": types.float32, "float64": types.float64}

function: Any = None  # bound when a kernel is compiled


def _map(x: Any, y: Any, out: Any, n: int) -> None:
    given = carray(x, n)
    result = carray(out, n)
    for i in range(n):
        result[i] = function(given[i])


def _map_two(x: Any, y: Any, out: Any, n: int) -> None:
    first = carray(x, n)
    second = carray(y, n)
    result = carray(out, n)
    for i in range(n):
        result[i] = function(first[i], second[i])


@cache
def kernel(word: str, dtype: str, arguments: int = 1) -> cpu.Kernel:
    pointer = types.CPointer(NUMBA[dtype])
    signature = types.void(pointer, pointer, pointer, types.int64)
    return cpu.compile_kernel(_map if arguments == 1 else _map_two, signature, {"function": VOCABULARY[word]})


def computed(word: str, *arguments: NDArray[Any]) -> NDArray[Any]:
    dtype = str(arguments[0].dtype)
    compiled = kernel(word, dtype, len(arguments))
    out = np.full(len(arguments[0]), 7.0, dtype)
    given = [np.ascontiguousarray(arguments[0]), np.ascontiguousarray(arguments[-1]), out]
    at = [array.ctypes.data_as(kind) for array, kind in zip(given, compiled.function.argtypes, strict=False)]
    compiled(*at, len(out))
    return out


def points(word: str, dtype: str) -> NDArray[Any]:
    """All of the type's range; the ends of it; and what each word finds hard."""
    rng = generator(word, dtype)
    info = np.finfo(dtype)
    low, high = math.log2(float(info.smallest_subnormal)), math.log2(float(info.max))
    signs = rng.choice([-1.0, 1.0], 600)
    anywhere = signs * np.exp2(rng.uniform(low, high, 600))
    middle = signs[:400] * np.exp2(rng.uniform(-30, 8, 400))
    near_one = 1 + np.concatenate([signs[:100] * np.exp2(rng.uniform(-24, -1, 100)), [0.0, 1.0]])
    ends = np.array([
        0.0, -0.0, float(info.tiny), float(info.smallest_subnormal), float(info.max), math.inf, math.nan,
        math.sqrt(0.5), math.sqrt(2.0), math.e, math.log(2), 0.5 * math.log(2), 1.5 * math.log(2),
    ])  # fmt: skip
    # Where exp and its relatives overflow, underflow, turn subnormal, saturate or change their form.
    bends = np.array([
        17.3, 18.0, 19.1, 22.0, 36.7, 37.4, 87.33, 88.72, 88.73, 103.2, 103.98, 708.39, 709.78, 709.79, 710.0,
        744.4, 745.13, 745.14, 746.0, 800.0, 1e4,
    ])  # fmt: skip
    around = np.concatenate([bends + step for step in (-1e-3, 0.0, 1e-3)])
    return np.concatenate([anywhere, middle, near_one, -near_one, ends, -ends, around, -around]).astype(dtype)


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("word", UNARY)
def test_words_of_one_argument(word: str, dtype: str) -> None:
    given = points(word, dtype)
    with np.errstate(all="ignore"):
        results = computed(word, given)
    exact = EXACT[word]
    for x, result in zip(given, results, strict=True):
        truth = mp.nan if np.isnan(x) else exact(mp.mpf(float(x)))
        off = ulps_off(float(result), truth, dtype)
        assert off < BARS[dtype], f"{word}({x!r}) = {result!r}, {off:.3g} ulp off"


ODD = ("abs", "erf", "expm1", "log1p", "sign", "sqrt", "tanh")


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("word", [word for word in UNARY if word in ODD])
def test_zeros_keep_their_sign(word: str, dtype: str) -> None:
    zeros = np.array([0.0, -0.0], dtype)
    results = computed(word, zeros)
    assert not results.any()
    assert np.signbit(results).tolist() == [False, word != "abs"]


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("word", UNARY)
def test_results_do_not_depend_on_the_lane(word: str, dtype: str) -> None:
    """SIMD code and the loop's tail give the same bits: each number alone, and among others at every offset."""
    given = points(word, dtype)[::7]
    with np.errstate(all="ignore"):
        together = computed(word, given)
        alone = np.concatenate([computed(word, given[i : i + 1]) for i in range(len(given))])
        shifted = computed(word, given[3:])
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(shifted, together[3:])


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("word", ["maximum", "minimum"])
def test_the_larger_and_the_smaller(word: str, dtype: str) -> None:
    values = np.array([0.0, -0.0, 1.5, -2.0, math.inf, -math.inf, math.nan], dtype)
    a, b = (grid.ravel() for grid in np.meshgrid(values, values))
    expected = getattr(np, word)(a, b)
    np.testing.assert_array_equal(computed(word, a, b), expected)
    np.testing.assert_array_equal(
        getattr(reference, word)(torch.tensor(a), torch.tensor(b)).numpy(), expected
    )


@pytest.mark.parametrize("dtype", BARS)
def test_powers(dtype: str) -> None:
    rng = generator("power", dtype)
    base = np.concatenate([10.0 ** rng.uniform(-30, 30, 300), [0.0, 0.0, 0.0, 1.0, math.inf]]).astype(dtype)
    exponent = np.concatenate([rng.uniform(-1.2, 1.2, 300), [0.0, 0.5, 2.0, 3.0, 0.5]]).astype(dtype)
    results = computed("power", base, exponent)
    for x, a, result in zip(exactly(base), exactly(exponent), results, strict=True):
        assert ulps_off(float(result), EXACT["power"](x, a), dtype) <= BARS[dtype], (x, a)
    np.testing.assert_allclose(
        reference.power(torch.tensor(base), torch.tensor(exponent)), results, rtol=1e-6
    )


@pytest.mark.parametrize("word", UNARY)
def test_the_reference_means_the_same_words(word: str) -> None:
    """PyTorch's operation of the name, in float64: a few units off at most where it saturates no tail."""
    given = points(word, "float64")
    given = given[np.isfinite(given)]
    results = getattr(reference, word)(torch.tensor(given)).tolist()
    for x, result, truth in zip(given, results, map(EXACT[word], exactly(given)), strict=True):
        if word == "sigmoid" and x < -700:
            continue  # torch's sigmoid is 1 / (1 + exp(-x)), which overflows to 0 here; no value is taken from it
        off = ulps_off(result, truth, "float64")
        assert off <= 3, f"{word}({x!r}) = {result!r}, {off:.3g} ulp off"


def test_both_backends_have_the_same_words() -> None:
    words = set(reference.__all__) - {"compute_dtype"}
    assert words == set(VOCABULARY) == set(EXACT)


@pytest.mark.parametrize("dtype", BARS)
def test_words_keep_the_type(dtype: str) -> None:
    """float32 stays float32, so that a formula in float32 stays in SIMD lanes of float32."""

    def _probe(x: Any, y: Any, out: Any, n: int) -> None:
        result = carray(out, n)
        given = carray(x, n)
        result[0] = function(given[0] * given[0])  # the square overflows in float32 alone

    pointer = types.CPointer(NUMBA[dtype])
    compiled = cpu.compile_kernel(
        _probe, types.void(pointer, pointer, pointer, types.int64), {"function": VOCABULARY["abs"]}
    )
    big, out = np.array([1e30], dtype), np.zeros(1, dtype)
    at = [
        array.ctypes.data_as(kind)
        for array, kind in zip((big, big, out), compiled.function.argtypes, strict=False)
    ]
    compiled(*at, 1)
    assert np.isinf(out[0]) == (dtype == "float32")
