"""Derived formulas: their text is the derivative, on every backend, the same in every process."""

from __future__ import annotations

import inspect
import math
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numba import carray, types

from steepest.backends import cpu, cpu_vocabulary, derive, reference
from steepest.backends.derive import as_text, derivative
from steepest.backends.reference import (
    abs,
    erf,
    exp,
    exp_product,
    expm1,
    log,
    log1p,
    maximum,
    minimum,
    power,
    sigmoid,
    sigmoid_power,
    sign,
    softplus,
    sqrt,
    tanh,
    where,
)
from steepest.errors import InputError
from steepest.losses import LOSSES
from steepest.testing.exact import exactly, in_full_precision, mp
from steepest.testing.samples import generator, pointwise_samples

STEP = mp.mpf(10) ** -25


def by_differences(function: Callable[..., Any], *arguments: Any, argument: int = 0) -> Any:
    exact = in_full_precision(function)
    ends = []
    for side in (1, -1):
        moved = list(arguments)
        moved[argument] += side * STEP
        ends.append(exact(*moved))
    return (ends[0] - ends[1]) / (2 * STEP)


def assert_is_derivative(function: Callable[..., Any], *arguments: float, argument: int = 0) -> None:
    given = [mp.mpf(number) for number in arguments]
    derived = in_full_precision(derivative(function, argument))(*given)
    expected = by_differences(function, *given, argument=argument)
    # A derived formula's own constants, 2 / sqrt(pi) and the like, are float64.
    assert mp.fabs(derived - expected) <= mp.mpf(10) ** -15 * (1 + mp.fabs(expected)), (derived, expected)


def written(text: str, scope: dict[str, Any]) -> Callable[..., Any]:
    """The function of x and y with that text."""
    names = {"__name__": __name__, **scope}
    exec(f"def function(x, y):\n    return {text}\n", names)
    made: Callable[..., Any] = names["function"]
    return made


# --- each word, each operation -------------------------------------------------------------------------------

WORDS: dict[str, Callable[..., Any]] = {
    "abs": lambda x, y: abs(x - y),
    "erf": lambda x, y: erf(x * y),
    "exp": lambda x, y: exp(x * y),
    "exp_product": lambda x, y: exp_product(x * y, x),
    "expm1": lambda x, y: expm1(x * y),
    "log": lambda x, y: log(x * x + y * y),
    "log1p": lambda x, y: log1p(x * x * y * y),
    "maximum": lambda x, y: maximum(x * x, x * y),
    "minimum": lambda x, y: minimum(x * x, x * y),
    "power": lambda x, y: power(x * x, y * y),
    "sigmoid": lambda x, y: sigmoid(x * y),
    "sigmoid_power": lambda x, y: sigmoid_power(x * y, y * y),
    "sign": lambda x, y: sign(x) * y * x * x,
    "softplus": lambda x, y: softplus(x * y),
    "sqrt": lambda x, y: sqrt(1.0 + x * x * y * y),
    "tanh": lambda x, y: tanh(x * y),
    "where": lambda x, y: where((x > y) & (x > 0.0), x * y, x + x * y * y),
}
OPERATIONS: dict[str, Callable[..., Any]] = {
    "+": lambda x, y: x + y + x * 3.0 + 2,
    "-": lambda x, y: (x - y) * (2.0 - x) - x,
    "*": lambda x, y: 2.0 * x * y * (3 * x) * 0.5,
    "/": lambda x, y: (x - 1.0) / (x * x + 1.0 + y * y) / 3.0 - 1.0 / (1.0 + x * x) + y / (2.0 + x * x),
    "** 2": lambda x, y: (x * y) ** 2,
    "** 3": lambda x, y: (x - y) ** 3 + x**1,
    "** -2": lambda x, y: (1.0 + x * x) ** -2 * y,
    "** 0.5": lambda x, y: (1.0 + x * x) ** 0.5 * y + (1.0 + x * x) ** 1.5,
    "** 0": lambda x, y: x**0 * x * y,
    "-x": lambda x, y: -(-x * y) + -x,
    "+x": lambda x, y: +x * y,
    "built-in abs": written("abs(x * y)", {}),
    "power of a number": lambda x, y: power(x * x, 2.5) + power(x * x, 2.0) * power(x * x, 1.0) * y,
    "number to a power": lambda x, y: power(2.5, x) * y,
    "nothing": lambda x, y: y * 2.0 + x * 0.0,
}


def test_every_word_has_its_rule_and_its_case() -> None:
    words = set(reference.__all__) - {"compute_dtype"}
    assert set(derive.WORDS) == words == set(WORDS) == set(cpu_vocabulary.VOCABULARY)


@pytest.mark.parametrize("argument", [0, 1])
@pytest.mark.parametrize("case", [*WORDS, *OPERATIONS])
def test_the_rule_of_each_word_and_operation(case: str, argument: int) -> None:
    """In 256 bits, against central differences."""
    function = {**WORDS, **OPERATIONS}[case]
    rng = generator(case)
    for x, y in rng.normal(size=(20, 2)) * 1.5:
        assert_is_derivative(function, x, y, argument=argument)


SMOOTH = [
    "({a} + {b})", "({a} - {b})", "({a} * {b})", "({a} / (1.0 + {b} * {b}))", "(-{a})", "(2.5 * {a})", "tanh({a})",
    "sigmoid({a})", "softplus({a})", "erf({a})", "exp(-{a} * {a})", "log1p({a} * {a})", "sqrt(1.0 + {a} * {a})",
    "log(2.0 + {a} * {a})", "expm1(tanh({a}))", "abs({a} - 0.1)", "maximum({a}, {b})", "minimum({a}, 0.3)",
    "where({a} > {b}, {a} * {b}, {b})", "power(1.0 + {a} * {a}, 1.5)", "tanh({a}) ** 3",
]  # fmt: skip


def composed(rng: np.random.Generator, depth: int) -> str:
    if depth == 0:
        return str(rng.choice(["x", "y", "x", "(0.7 * y)"]))
    a, b = composed(rng, depth - 1), composed(rng, int(rng.integers(0, depth)))
    return str(rng.choice(SMOOTH)).format(a=a, b=b)


@pytest.mark.parametrize("number", range(40))
def test_formulas_put_together_at_random(number: int) -> None:
    rng = generator("composed", number)
    words = {word: getattr(reference, word) for word in derive.WORDS}
    function = written(f"{composed(rng, 4)} + 0.0 * x", words)
    for x, y in rng.normal(size=(3, 2)):
        assert_is_derivative(function, x, y)


def curved(x: Any, y: Any, c: Any) -> Any:
    return c * log1p((x - y) * (x - y) / c) + sqrt(1.0 + x * x * x * x)


def test_derivatives_of_derivatives() -> None:
    second = derivative(derivative(curved))
    for x, y in generator("twice").normal(size=(10, 2)):
        given = [mp.mpf(x), mp.mpf(y), mp.mpf(1.5)]
        expected = by_differences(derivative(curved), *given)
        assert mp.fabs(in_full_precision(second)(*given) - expected) < 1e-18 * (1 + mp.fabs(expected))


# --- kinks and branches: as autograd -------------------------------------------------------------------------

KINKS: dict[str, Callable[..., Any]] = {
    "abs": lambda x, y: abs(x - y),
    "sign": lambda x, y: sign(x - y) + x,
    "maximum": lambda x, y: maximum(x, y),
    "maximum, both move": lambda x, y: maximum(3.0 * x - y, x + y),
    "minimum": lambda x, y: minimum(2.0 * x, y + x),
    "clamped": lambda x, y: maximum(minimum(x - y, 1.0), -1.0) * x,
    "hinge": lambda x, y: maximum(0.0, 1.0 - x * y),
    "squared hinge": lambda x, y: maximum(0.0, 1.0 - x * y) * maximum(0.0, 1.0 - x * y),
    "where": lambda x, y: where(x > y, x * x, where(x < y, -x, 3.0 * x)),
    "relu of relu": lambda x, y: maximum(0.0, maximum(0.0, x) - y),
}


@pytest.mark.parametrize("case", KINKS)
def test_kinks_as_autograd(case: str) -> None:
    numbers = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]
    x, y = (
        part.flatten()
        for part in torch.meshgrid(*[torch.tensor(numbers, dtype=torch.float64)] * 2, indexing="ij")
    )
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(KINKS[case](leaf, y).sum(), leaf)
    derived = torch.as_tensor(derivative(KINKS[case])(x, y), dtype=torch.float64).expand_as(x)
    torch.testing.assert_close(derived, expected, rtol=1e-15, atol=0)


BRANCHES: dict[str, tuple[Callable[..., Any], float, float]] = {
    # what is not taken is NaN, infinite or has no slope there
    "a logarithm": (lambda x, y: where(x > 0.0, log(x), x * y), -1.0, 2.0),
    "a root at 0": (lambda x, y: sqrt(where(x > 0.0, x, 0.0 * x)) + y * x, 0.0, 2.0),
    "a root of nothing": (lambda x, y: sqrt(maximum(x, 0.0)) + y * x, -1.0, 2.0),
    "a quotient": (lambda x, y: where(x == 0.0, y * x, y / x), 0.0, 3.0),
    "an overflow": (lambda x, y: where(x > 1.0, exp(x * 1e4), y * x), 0.5, 3.0),
    "a factor that is infinite": (lambda x, y: minimum(x, 1.0) * x * 0.5 + y * x * 0.0, math.inf, 1.0),
}


@pytest.mark.parametrize("case", BRANCHES)
def test_nothing_leaks_from_the_branch_that_is_not_taken(case: str) -> None:
    function, x, y = BRANCHES[case]
    slope = float(
        derivative(function)(torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64))
    )
    assert slope == {"a factor that is infinite": 0.5}.get(case, y)


# --- the losses of the library -------------------------------------------------------------------------------

STATED = [name for name, loss in LOSSES.items() if loss.formula.gradient is not None]


@pytest.mark.parametrize("name", STATED)
def test_the_derived_gradient_is_the_stated_one(name: str) -> None:
    """In 256 bits: two texts of one function agree to far more digits than any type has; at ties too."""
    formula = LOSSES[name].formula
    given = [mp.mpf(parameter) for parameter in formula.parameters.values()]
    if formula.family == "softmax":
        points = [(mp.log(mp.mpf(share)),) for share in generator(name, "shares").uniform(0.001, 0.999, 60)]
    else:
        points = list(zip(*map(exactly, pointwise_samples(formula, "float64", tails=False)), strict=True))
        if formula.target == "real":
            points += [(y, y) for _, y in points[:5]]
    count = len(points[0]) + len(given)
    derived = in_full_precision(derivative(formula.value, 0, count))
    stated = in_full_precision(formula.gradient)
    for point in points:
        ours, its = derived(*point, *given), mp.mpf(stated(*point, *given))
        assert mp.fabs(ours - its) <= mp.mpf(10) ** -60 * (1 + mp.fabs(its)), (point, ours, its)


# --- every backend, every process ----------------------------------------------------------------------------

formula: Any = None  # bound when a kernel is compiled


def _apply(xs: Any, ys: Any, out: Any, n: int) -> None:
    x, y, o = carray(xs, n), carray(ys, n), carray(out, n)
    for i in range(n):
        o[i] = formula(x[i], y[i])


@pytest.mark.parametrize("case", ["power", "clamped", "/", "where", "tanh", "a root of nothing"])
def test_the_kernel_and_the_tensors_agree(case: str) -> None:
    function = {**WORDS, **OPERATIONS, **KINKS, **{k: f for k, (f, _, __) in BRANCHES.items()}}[case]
    slope = derivative(function)
    doubles = types.CPointer(types.float64)
    kernel = cpu.compile_kernel(
        _apply, types.void(doubles, doubles, doubles, types.int64), {"formula": cpu.bind(slope)}
    )
    rng = generator(case, "kernel")
    x, y, out = rng.normal(size=257), rng.normal(size=257), np.empty(257)
    pointers = [part.ctypes.data_as(kernel.function.argtypes[0]) for part in (x, y, out)]
    kernel(*pointers, 257)
    expected = torch.as_tensor(slope(torch.tensor(x), torch.tensor(y)), dtype=torch.float64).expand(257)
    torch.testing.assert_close(torch.tensor(out), expected, rtol=1e-13, atol=1e-15)


SCRIPT = """
from steepest.backends import cpu
from steepest.backends.derive import derivative
from steepest.backends.reference import log1p, maximum, sqrt, tanh, where

def value(p, y, c, d):
    e = (p - y) / c
    return where(e > d, log1p(e * e), maximum(tanh(e), sqrt(1.0 + e * e))) * c * c

def template(x):
    return formula(x, x, x, x)

slope = derivative(value)
print(slope.__code__.co_code.hex(), slope.__code__.co_names, slope.__code__.co_consts, slope.__code__.co_varnames)
print(cpu._digest(cpu._rebind(template, {"formula": cpu.bind(slope)}), "float64(float64)"))
"""


def test_two_processes_derive_the_same_code() -> None:
    """So the compiled kernel is found on disk again."""
    told = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1
    assert len(told.pop().splitlines()) == 2


def test_the_text_can_be_read() -> None:
    slope = derivative(curved)
    assert inspect.getsource(slope).startswith("def curved_derivative(x, y, c):\n")
    assert slope.__module__ == curved.__module__


def test_what_is_simplified() -> None:
    def squared(p: Any, y: Any) -> Any:
        return (p - y) * (p - y)

    def half_squared(p: Any, y: Any) -> Any:
        e = abs(p - y)
        return 0.5 * e * e

    def absolute(p: Any, y: Any) -> Any:
        return abs(p - y)

    assert as_text(derivative(squared)) == "2.0 * (p - y)"
    assert as_text(derivative(half_squared)) == "p - y"
    assert as_text(derivative(absolute)) == "sign(p - y)"


# --- what a formula may be written with ----------------------------------------------------------------------

CONSTANT = 2.0
NUMPYS = np.float64(0.5)


def helper(x: Any, c: Any) -> Any:
    return deeper(x) * c


def deeper(x: Any) -> Any:
    return x * x * CONSTANT


def with_helpers(p: Any, y: Any, sign_: Any = 1.5) -> Any:
    e = p - y
    return helper(e, sign_) * NUMPYS + math.pi * e


def enclosing(number: float) -> Callable[..., Any]:
    return lambda p, y: number * (p - y) * (p - y)


def of_many(p: Any, *others: Any) -> Any:
    return p * others[0] + p * p * others[1]


def test_helpers_constants_and_enclosed_numbers() -> None:
    assert_is_derivative(with_helpers, 0.3, 1.2, 1.5)
    assert_is_derivative(enclosing(3.0), 0.3, 1.2)
    slope = derivative(of_many, 0, 3)
    assert slope(1.0, 2.0, 3.0) == 2.0 + 2 * 1.0 * 3.0


def shadowing(sign: Any, where: Any) -> Any:
    return abs(sign - where)


def test_an_argument_may_have_a_words_name() -> None:
    assert_is_derivative(shadowing, 0.3, 1.2)


TENSOR = torch.ones(2)


def branching(p: Any, y: Any) -> Any:
    if p > y:
        return p
    return y


REFUSED: list[tuple[Callable[..., Any], str]] = [
    (branching, r"branching uses Python's if.*where\(condition, a, b\)"),
    (lambda p, y: max(p - y, 0.0), "Python's if, and, or, not, min or max.*maximum"),
    (lambda p, y: where(p > 0 and y > 0, p, y), "Python's if, and"),
    (lambda p, y: (p - y).abs(), r"uses \.abs"),
    (lambda p, y: torch.abs(p - y), "uses torch.abs"),
    (lambda p, y: TENSOR * p, "uses TENSOR, a Tensor; its constants are plain numbers"),
    (lambda p, y: math.exp(p - y), "uses math.exp"),
    (lambda p, y: np.exp(p - y), "uses np.exp"),
    (lambda p, y: reference.exp(p - y), "uses reference.exp"),
    (lambda p, y: torch.nn.functional.relu(p - y), "uses torch.nn.functional.relu"),
    (lambda p, y: log2(p - y), "'log2' is not defined"),  # type: ignore[name-defined]  # noqa: F821
    (lambda p, y: p**y, r"write power\(x, a\)"),
    (lambda p, y: 2.0 ** (p - y), r"\*\* with a value as the exponent"),
    (lambda p, y: (p > y) * p, "comparison as if it were a number"),
    (lambda p, y: p > y, "returns a comparison"),
    (lambda p, y: p % y, "uses %"),
    (lambda p, y: p // y, "uses //"),
    (lambda p, y: p[0], r"uses \[ \]"),
    (lambda p, y: float(p), r"uses float\(\)"),
    (lambda p, y: round(p), "uses rounding"),
    (lambda p, y: sqrt(2.0) * p, "sqrt on a plain number"),
    (lambda p, y: where(p, p, y), "something other than a comparison"),
    (lambda p, y: maximum(p), "gives maximum 1 arguments; it takes 2"),
    (lambda p, y: (p & y) * p, "joins two comparisons"),
    (lambda p, y: [p], "computes with a list"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_is_not_of_the_vocabulary_is_refused_by_name(case: int) -> None:
    function, words = REFUSED[case]
    with pytest.raises(InputError, match=words) as caught:
        derivative(function)
    assert "\n" not in str(caught.value)
    assert "a formula may use" in str(caught.value)


def test_a_word_from_the_function_around_is_refused() -> None:
    from steepest.backends.reference import log1p as inner

    with pytest.raises(InputError, match="takes inner from the function around it; import or define inner"):
        derivative(lambda p, y: inner(p - y))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((math.exp,), "no plain function"),
        ((curved, 3), "no argument 3"),
        ((curved, 0, 5), "takes 3 arguments"),
    ],
)
def test_wrong_requests_are_refused(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        derivative(*arguments)
