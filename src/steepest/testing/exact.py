"""256-bit numbers, the vocabulary of formulas over them, and how far a computed number is from them."""

from __future__ import annotations

import builtins
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from steepest.backends import reference

try:
    import mpmath  # type: ignore[import-untyped]
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "steepest.testing computes its truth with the package mpmath, which is not installed: pip install mpmath.",
        name="mpmath",
    ) from missing

__all__ = [
    "INF",
    "NAN",
    "ONE",
    "VOCABULARY",
    "ZERO",
    "exactly",
    "in_full_precision",
    "mp",
    "ulp",
    "ulps_off",
    "worst_ulps",
]

mp = mpmath.mp.clone()
mp.prec = 256
ZERO, ONE, INF, NAN = mp.mpf(0), mp.mpf(1), mp.inf, mp.nan

MANTISSA_BITS = {"float32": 24, "float64": 53, "float16": 11, "bfloat16": 8}
EXPONENTS = {"float32": (-126, 127), "float64": (-1022, 1023), "float16": (-14, 15), "bfloat16": (-126, 127)}


# --- the vocabulary ------------------------------------------------------------------------------------------


def _log1p(x: Any) -> Any:
    return x - x * x / 2 if abs(x) < mp.mpf(2) ** -200 else mp.log(1 + x)


def _softplus(x: Any) -> Any:
    return x + _log1p(mp.exp(-x)) if x > 0 else _log1p(mp.exp(x))


def _extreme(better: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def pick(a: Any, b: Any) -> Any:
        return NAN if mp.isnan(a) or mp.isnan(b) else mp.mpf(a if better(a, b) else b)

    return pick


def _expm1(x: Any) -> Any:
    return x + x * x / 2 if abs(x) < mp.mpf(2) ** -200 else mp.exp(x) - 1


def _power(x: Any, a: Any) -> Any:
    if mp.isnan(x) or mp.isnan(a) or x < 0:
        return NAN
    if a == 0 or x == 1:
        return ONE
    return mp.mpf(x) ** a


VOCABULARY: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "erf": mp.erf,
    "exp": mp.exp,
    "exp_product": lambda a, x: mp.exp(mp.mpf(a) * x),
    "expm1": _expm1,
    "log": lambda x: NAN if x < 0 else (-INF if x == 0 else mp.log(x)),
    "log1p": lambda x: NAN if x < -1 else (-INF if x == -1 else (x if mp.isinf(x) else _log1p(x))),
    "maximum": _extreme(lambda a, b: a > b),
    "minimum": _extreme(lambda a, b: a < b),
    "power": lambda x, a: _power(mp.mpf(x), mp.mpf(a)),
    "sigmoid": lambda x: ONE / (1 + mp.exp(-x)) if x > 0 else mp.exp(x) / (1 + mp.exp(x)),
    "sigmoid_power": lambda x, a: _power(VOCABULARY["sigmoid"](x), mp.mpf(a)),
    "sign": lambda x: NAN if mp.isnan(x) else mp.sign(x),
    "softplus": lambda x: NAN if mp.isnan(x) else (x if x == INF else _softplus(x)),
    "sqrt": lambda x: NAN if x < 0 else mp.sqrt(x),
    "tanh": mp.tanh,
    "where": lambda condition, a, b: mp.mpf(a) if condition else mp.mpf(b),
}


def in_full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """A formula's function with every word of the vocabulary in 256-bit arithmetic, its helpers' words too."""
    return _with_words(function, {id(getattr(reference, word)): exact for word, exact in VOCABULARY.items()})


def _with_words(function: Callable[..., Any], words: dict[int, Callable[..., Any]]) -> Callable[..., Any]:
    assert isinstance(function, types.FunctionType), f"{function!r} is no plain function"
    scope: dict[str, Any] = {"__builtins__": builtins}
    for name, value in function.__globals__.items():
        if id(value) in words:
            scope[name] = words[id(value)]
        elif isinstance(value, types.FunctionType) and _home(value) not in _ELSEWHERE:
            scope[name] = _Later(value, words)
        else:
            scope[name] = value
    return types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )


_ELSEWHERE = ("numba", "numpy", "torch", "mpmath")


def _home(function: Callable[..., Any]) -> str:
    return (function.__module__ or "").partition(".")[0]


class _Later:
    """A helper of the formula's, made exact when it is called."""

    def __init__(self, function: Callable[..., Any], words: dict[int, Callable[..., Any]]) -> None:
        self.function, self.words = function, words

    def __call__(self, *arguments: Any) -> Any:
        return _with_words(self.function, self.words)(*arguments)


# --- distances -----------------------------------------------------------------------------------------------


def exactly(numbers: Any) -> list[Any]:
    """The numbers of an array or tensor, each exactly as the type holds it."""
    if isinstance(numbers, torch.Tensor):
        numbers = numbers.detach().double().numpy()
    return [mp.mpf(float(number)) for number in np.asarray(numbers).ravel()]


def ulp(truth: Any, dtype: str) -> Any:
    """The distance of neighbouring numbers of the type at ``truth``; the subnormal one near 0."""
    low, high = EXPONENTS[dtype]
    exponent = low if truth == 0 else max(int(mp.frexp(truth)[1]) - 1, low)
    return mp.mpf(2) ** (min(exponent, high) - MANTISSA_BITS[dtype] + 1)


def ulps_off(computed: float, truth: Any, dtype: str, scale: Any = None) -> float:
    """How far a number is from truth, in units in the last place of the truth (or of ``scale``, if larger).

    An infinite result stands for the first number beyond the type's range, as in rounding.
    """
    computed = mp.mpf(computed)
    if mp.isnan(truth) or mp.isnan(computed):
        return 0.0 if mp.isnan(truth) and mp.isnan(computed) else float("inf")
    beyond = mp.mpf(2) ** (EXPONENTS[dtype][1] + 1)
    if abs(truth) >= beyond:
        return 0.0 if computed == mp.sign(truth) * INF else float("inf")
    if mp.isinf(computed):
        computed = mp.sign(computed) * beyond
    unit = ulp(truth if scale is None else max(abs(truth), abs(scale)), dtype)
    return float(abs(computed - truth) / unit)


def worst_ulps(
    computed: torch.Tensor, truths: Sequence[Any], scales: Iterable[Any] | None = None
) -> tuple[float, int]:
    """The largest error of a tensor in ulps, and where it is."""
    dtype = str(computed.dtype).removeprefix("torch.")
    numbers = computed.detach().double().reshape(-1).tolist()
    assert len(numbers) == len(truths)
    scales = [None] * len(truths) if scales is None else scales
    rows = zip(numbers, truths, scales, strict=True)
    errors = [ulps_off(number, truth, dtype, scale) for number, truth, scale in rows]
    place = int(np.argmax(errors))
    return errors[place], place
