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
from tests.contract.truth import exactly, mp, ulp, ulps_off

from steepest.backends import cpu, reference
from steepest.backends.cpu_vocabulary import NARROW, VOCABULARY

# The module's own promise, in units in the last place.
BARS = {"float32": 1.0, "float64": 2.0}
BINARY = ("exp_product", "maximum", "minimum", "power", "sigmoid_power", "where")
UNARY = [word for word in VOCABULARY if word not in BINARY]
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
def kernel(meaning: Any, dtype: str, arguments: int = 1) -> cpu.Kernel:
    pointer = types.CPointer(NUMBA[dtype])
    signature = types.void(pointer, pointer, pointer, types.int64)
    return cpu.compile_kernel(_map if arguments == 1 else _map_two, signature, {"function": meaning})


def computed(word: str, *arguments: NDArray[Any]) -> NDArray[Any]:
    return _computed(VOCABULARY[word], *arguments)


def _computed(meaning: Any, *arguments: NDArray[Any]) -> NDArray[Any]:
    dtype = str(arguments[0].dtype)
    compiled = kernel(meaning, dtype, len(arguments))
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


def products() -> tuple[NDArray[Any], NDArray[Any]]:
    """Factors and numbers whose product is anywhere in the exponential's range; the ends."""
    rng = generator("products")
    a = rng.choice([-1.0, 1.0], 400) * 10.0 ** rng.uniform(-3, 3, 400)
    x = rng.uniform(-800, 800, 400) / np.abs(a)
    ends = np.array(
        [
            [0.5, math.inf],
            [0.5, -math.inf],
            [-2.0, math.inf],
            [1e-3, 1e300],
            [2.0, 0.0],
            [0.0, 3.0],
            [1e305, 1e-305],
            [1.1, 1.3e20],  # what rounding loses of these is a large number itself, and below 0
            [2.3, 1.7e20],
            [-3.0, -3e38],
        ]
    )
    return np.append(a, ends[:, 0]), np.append(x, ends[:, 1])


def powers_of_sigmoids() -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits and exponents, up to where the power is no number any more; the ends."""
    rng = generator("powers of sigmoids")
    x = np.append(rng.choice([-1.0, 1.0], 300) * 10.0 ** rng.uniform(-12, 3, 300), rng.uniform(-45, 45, 100))
    a = rng.choice([0.0, 0.01, 0.5, 1.0, 2.0, 3.7, 5.0], 400)
    ends = np.array(
        [[math.inf, 2.0], [-math.inf, 2.0], [-math.inf, 0.0], [math.inf, 0.0], [0.0, 1.0], [-0.0, 2.0]]
    )
    return np.append(x, ends[:, 0]), np.append(a, ends[:, 1])


PAIRS = {"exp_product": products, "sigmoid_power": powers_of_sigmoids}


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("word", PAIRS)
def test_words_whose_rounded_argument_would_cost_hundreds_of_ulp(word: str, dtype: str) -> None:
    with np.errstate(over="ignore"):
        first, second = (given.astype(dtype) for given in PAIRS[word]())
    means = getattr(reference, word)(torch.tensor(first).double(), torch.tensor(second).double()).tolist()
    for a, x, result, of_reference in zip(first, second, computed(word, first, second), means, strict=True):
        truth = EXACT[word](mp.mpf(float(a)), mp.mpf(float(x)))
        # (1 + exp(x))**-a multiplies its base's error.
        bar = 4.0 + 0.5 * float(x) if word == "sigmoid_power" else BARS["float64"]
        assert ulps_off(float(result), truth, dtype) <= (BARS[dtype] if dtype == "float32" else bar), (a, x)
        assert ulps_off(of_reference, truth, "float64") <= bar, (a, x)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.0])
def test_powers_of_sigmoids_have_derivatives_everywhere(exponent: float) -> None:
    x = torch.tensor(
        [-1e4, -750.0, -40.0, -1.0, 0.0, 1.0, 40.0, 750.0], dtype=torch.float64, requires_grad=True
    )
    a = torch.full_like(x, exponent).requires_grad_()
    by_x, by_a = torch.autograd.grad(reference.sigmoid_power(x, a).sum(), (x, a), create_graph=True)
    (bend,) = torch.autograd.grad(by_x.sum(), x)
    for i, at in enumerate(exactly(x.detach())):
        s, rest = EXACT["sigmoid"](at), EXACT["sigmoid"](-at)
        power, e = EXACT["power"](s, mp.mpf(exponent)), mp.mpf(exponent)
        truths = (e * power * rest, -power * EXACT["softplus"](-at), e * power * rest * (e * rest - s))
        for found, truth in zip((by_x, by_a, bend), truths, strict=True):
            assert float(found[i].detach()) == pytest.approx(float(truth), rel=1e-12, abs=1e-16), (i, at)


NARROW_BAR = 2.0**-11  # of an ulp of float32, which is a relative 2**-35


@pytest.mark.parametrize("word", [word for word in NARROW if NARROW[word] is not VOCABULARY[word]])
def test_the_shorter_words(word: str) -> None:
    """In float64, where float32 holds the result: what is left of a float32 result's ulp is its own rounding."""
    if word in UNARY:
        given: tuple[NDArray[Any], ...] = (points(word, "float64"),)
    elif word in PAIRS:
        given = PAIRS[word]()
    else:
        rng = generator("narrow", word)
        base = np.append(
            10.0 ** rng.uniform(-30, 30, 400),
            1 + rng.choice([-1.0, 1.0], 100) * 10.0 ** rng.uniform(-16, -1, 100),
        )
        given = (
            np.append(base, [0.0, 0.0, 1.0, math.inf, 5e-324, math.nan, math.nan, 2.0]),
            np.append(rng.uniform(-3, 3, 500), [0.0, 2.0, 7.0, 0.5, 0.05, 2.0, -0.5, math.nan]),
        )
    compiled = _computed(NARROW[word], *given)
    for *numbers, result in zip(*given, compiled, strict=True):
        exact = [mp.mpf(float(number)) for number in numbers]
        truth = mp.nan if any(map(mp.isnan, exact)) else EXACT[word](*exact)
        if mp.isnan(truth) or mp.isinf(truth) or truth == 0:
            # sigmoid and softplus end at exp(-700), which float32 has not.
            kind = np.float32 if word in UNARY else np.float64
            assert str(kind(result)) == str(kind(float(truth))), numbers
        elif mp.mpf(2) ** -149 < abs(truth) < mp.mpf(2) ** 128:
            off = abs(mp.mpf(float(result)) - truth) / ulp(truth, "float32")
            assert off <= NARROW_BAR, (numbers, result)


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
