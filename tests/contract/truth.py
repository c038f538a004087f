"""Truth in 256-bit arithmetic: of any formula, by its own text; of the known ones, by a text of the test's own."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mpmath
import numpy as np
import torch

from steepest.backends import reference
from steepest.losses import LossFormula

mp = mpmath.mp.clone()
mp.prec = 256
ZERO, ONE, INF, NAN = mp.mpf(0), mp.mpf(1), mp.inf, mp.nan

MANTISSA_BITS = {"float32": 24, "float64": 53, "float16": 11, "bfloat16": 8}
EXPONENTS = {"float32": (-126, 127), "float64": (-1022, 1023), "float16": (-14, 15), "bfloat16": (-126, 127)}


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
    errors = [ulps_off(*row, dtype, scale) for *row, scale in zip(numbers, truths, scales, strict=True)]
    place = int(np.argmax(errors))
    return errors[place], place


# --- the vocabulary ------------------------------------------------------------------------------------------


def _log1p(x: Any) -> Any:
    return x - x * x / 2 if abs(x) < mp.mpf(2) ** -200 else mp.log(1 + x)


def _softplus(x: Any) -> Any:
    return x + _log1p(mp.exp(-x)) if x > 0 else _log1p(mp.exp(x))


def _extreme(better: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def pick(a: Any, b: Any) -> Any:
        return NAN if mp.isnan(a) or mp.isnan(b) else (a if better(a, b) else mp.mpf(b))

    return pick


def _expm1(x: Any) -> Any:
    return x + x * x / 2 if abs(x) < mp.mpf(2) ** -200 else mp.exp(x) - 1


VOCABULARY: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "erf": mp.erf,
    "exp": mp.exp,
    "expm1": _expm1,
    "log": lambda x: NAN if x < 0 else (-INF if x == 0 else mp.log(x)),
    "log1p": lambda x: NAN if x < -1 else (-INF if x == -1 else (x if mp.isinf(x) else _log1p(x))),
    "maximum": _extreme(lambda a, b: a > b),
    "minimum": _extreme(lambda a, b: a < b),
    "sigmoid": lambda x: ONE / (1 + mp.exp(-x)) if x > 0 else mp.exp(x) / (1 + mp.exp(x)),
    "sign": lambda x: NAN if mp.isnan(x) else mp.sign(x),
    "softplus": lambda x: NAN if mp.isnan(x) else (x if x == INF else _softplus(x)),
    "sqrt": lambda x: NAN if x < 0 else mp.sqrt(x),
    "tanh": mp.tanh,
    "where": lambda condition, a, b: mp.mpf(a) if condition else mp.mpf(b),
}


def in_full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """A formula's function with every word of the vocabulary in 256-bit arithmetic."""
    words = {id(getattr(reference, word)): exact for word, exact in VOCABULARY.items()}
    scope = {"__builtins__": __builtins__}
    for name, value in function.__globals__.items():
        if id(value) in words:
            scope[name] = words[id(value)]
        elif isinstance(value, types.FunctionType) and value.__module__ == function.__module__:
            scope[name] = value if value is function else _Later(value)
        else:
            scope[name] = value
    return types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )


class _Later:
    """A helper of the formula's module, made exact when it is called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return in_full_precision(self.function)(*arguments)


# --- pointwise -----------------------------------------------------------------------------------------------


def _bce(x: Any, y: Any, w: Any) -> Any:
    negative = ZERO if y == 1 else (1 - y) * VOCABULARY["softplus"](x)
    positive = ZERO if y == 0 else w * y * VOCABULARY["softplus"](-x)
    return negative + positive


def _bce_gradient(x: Any, y: Any, w: Any) -> Any:
    sigmoid = VOCABULARY["sigmoid"]
    return (1 - y) * sigmoid(x) - w * y * sigmoid(-x)


def _held(logarithm: Any) -> Any:
    return max(logarithm, mp.mpf(-100))


# Written here from the literature, not from the package: value and derivative by the prediction.
KNOWN: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "mse": (lambda p, y: (p - y) ** 2, lambda p, y: 2 * (p - y)),
    "mae": (lambda p, y: abs(p - y), lambda p, y: NAN if mp.isnan(p - y) else mp.sign(p - y)),
    "huber": (
        lambda p, y, d: (p - y) ** 2 / 2 if abs(p - y) <= d else d * (abs(p - y) - d / 2),
        lambda p, y, d: NAN if mp.isnan(p - y) else max(-d, min(d, p - y)),
    ),
    "quantile": (
        lambda p, y, q: NAN if mp.isnan(y - p) else max(q * (y - p), (q - 1) * (y - p)),
        lambda p, y, q: NAN if mp.isnan(y - p) else (-q if y > p else (1 - q if y < p else ZERO)),
    ),
    "bce": (_bce, _bce_gradient),
    "bce_probability": (
        lambda p, y: -(y * _held(VOCABULARY["log"](p)) + (1 - y) * _held(VOCABULARY["log1p"](-p))),
        lambda p, y: (p - y) / max(p * (1 - p), mp.mpf(1e-12)),
    ),
}

# Gradients that are a difference of two terms: where the two nearly cancel, the error is in units of the
# larger term, for no formula over rounded inputs can do better.
LARGER_TERM: dict[tuple[str, str], Callable[..., Any]] = {
    (backend, "bce"): lambda x, y, w: max(
        abs((1 - y) * VOCABULARY["sigmoid"](x)), abs(w * y * VOCABULARY["sigmoid"](-x))
    )
    for backend in ("cpu", "reference")
}
# The kernel has (p - y) / (p (1 - p)), which loses nothing; autograd has the two terms' difference.
LARGER_TERM["reference", "bce_probability"] = lambda p, y: max(
    y / max(p, mp.mpf(1e-12)), (1 - y) / max(1 - p, mp.mpf(1e-12))
)


def pointwise_truth(
    formula: LossFormula, predictions: Any, targets: Any, parameters: Sequence[float], backend: str = "cpu"
) -> tuple[list[Any], list[Any], list[Any]]:
    """Values, gradients, and the scale of a gradient's terms where a backend takes their difference."""
    own = (in_full_precision(formula.value), in_full_precision(formula.gradient))
    value, gradient = KNOWN.get(formula.name, own)
    scale = LARGER_TERM.get((backend, formula.name))
    given = [mp.mpf(parameter) for parameter in parameters]
    rows = list(zip(exactly(predictions), exactly(targets), strict=True))
    return (
        [value(p, y, *given) for p, y in rows],
        [gradient(p, y, *given) for p, y in rows],
        [scale(p, y, *given) if scale else None for p, y in rows],
    )


# --- softmax -------------------------------------------------------------------------------------------------


def softmax_truth(
    formula: LossFormula,
    logits: Sequence[Any],
    shares: Sequence[Any],
    parameters: Sequence[float] = (),
    weights: Sequence[Any] | None = None,
) -> tuple[Any, list[Any], list[Any]]:
    """One row: ``sum_j w_j q_j value(log p_j)``, its gradient by the logits, and the scale of its terms.

    Nothing is taken from 1: log p_j = -log(1 + sum over the others of exp(x_i - x_j)), and 1 - p_j is the sum
    of the others.
    """
    value, gradient = in_full_precision(formula.value), in_full_precision(formula.gradient)
    given = [mp.mpf(parameter) for parameter in parameters]
    classes = range(len(logits))
    weights = [ONE] * len(logits) if weights is None else weights
    largest = max(logits)
    if mp.isnan(largest) or mp.isinf(largest) or any(mp.isnan(x) for x in logits):
        return NAN, [NAN] * len(logits), [None] * len(logits)
    e = [mp.exp(x - largest) for x in logits]
    total = sum(e)
    others = [sum((e[i] for i in classes if i != j), ZERO) for j in classes]
    log_p = [-_log1p(others[j] / e[j]) if e[j] > 0 else -INF for j in classes]
    p = [e[j] / total for j in classes]
    kept = [j for j in classes if shares[j] * weights[j] != 0]
    loss = sum((weights[j] * shares[j] * value(log_p[j], *given) for j in kept), ZERO)
    c = [weights[j] * shares[j] * gradient(log_p[j], *given) if j in kept else ZERO for j in classes]
    mass = [sum((c[i] for i in kept if i != j), ZERO) for j in classes]
    slopes = [c[j] * (others[j] / total) - p[j] * mass[j] for j in classes]
    scales = [max(abs(c[j] * (others[j] / total)), abs(p[j] * mass[j])) for j in classes]
    return loss, slopes, scales
