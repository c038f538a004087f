"""Truth of the robust, the positive-target and the margin losses in 256 bits, and inputs to hold them against.

Written from the literature, not from the package: (value, gradient by the prediction), of (prediction, target,
*parameters).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exact import INF, NAN, ONE, VOCABULARY, ZERO, mp

Truth = Callable[..., Any]
Pairs = tuple[NDArray[np.float64], NDArray[np.float64]]

log1p, expm1 = VOCABULARY["log1p"], VOCABULARY["expm1"]


# --- errors of real predictions -------------------------------------------------------------------------------


def _log_cosh(p: Any, y: Any) -> Any:
    e = abs(p - y)
    if e == INF:
        return INF
    # 1 + 2 sinh(e/2)^2 = cosh e
    return log1p((expm1(e / 2) - expm1(-e / 2)) ** 2 / 2) if e < 1 else e - mp.log(2) + log1p(mp.exp(-2 * e))


def _charbonnier(p: Any, y: Any, d: Any) -> Any:
    # d^2 (sqrt(1 + z^2) - 1), and sqrt(1 + s) - 1 = expm1(log(1 + s) / 2)
    return d**2 * expm1(log1p(((p - y) / d) ** 2) / 2)


def _charbonnier_gradient(p: Any, y: Any, d: Any) -> Any:
    return mp.sign(p - y) * d if abs(p - y) == INF else (p - y) / mp.sqrt(1 + ((p - y) / d) ** 2)


def _cauchy_gradient(p: Any, y: Any, c: Any) -> Any:
    return ZERO if abs(p - y) == INF else (p - y) / (1 + ((p - y) / c) ** 2)


def _tukey(p: Any, y: Any, c: Any) -> Any:
    w = ((p - y) / c) ** 2
    return c**2 / 2 * (w - w**2 + w**3 / 3) if w <= 1 else c**2 / 6


def _tukey_gradient(p: Any, y: Any, c: Any) -> Any:
    e = p - y
    return e * (1 - (e / c) ** 2) ** 2 if abs(e) <= c else (NAN if mp.isnan(e) else ZERO)


def _barron(p: Any, y: Any, alpha: Any, c: Any) -> Any:
    """Barron 2019, eq. 8, and its limit at inf; (1 + s)^(alpha/2) - 1 = expm1(alpha/2 log(1 + s))."""
    s = ((p - y) / c) ** 2
    if alpha == 2:
        return s / 2
    if alpha == 0:
        return log1p(s / 2)
    if alpha == -INF:
        return -expm1(-s / 2)
    if alpha == INF:
        return expm1(s / 2)
    b = abs(alpha - 2)
    return b / alpha * expm1(alpha / 2 * log1p(s / b))


def _barron_gradient(p: Any, y: Any, alpha: Any, c: Any) -> Any:
    """Barron 2019, eq. 9."""
    e = p - y
    if abs(e) == INF:
        return mp.sign(e) * (INF if alpha > 1 else (1 / c if alpha == 1 else ZERO))
    s = (e / c) ** 2
    if abs(alpha) == INF:
        return e / c**2 * mp.exp(mp.sign(alpha) * s / 2)
    if alpha == 2:
        return e / c**2
    return e / c**2 * mp.exp((alpha / 2 - 1) * log1p(s / abs(alpha - 2)))


# --- likelihoods from the logarithm of the mean ---------------------------------------------------------------


def _gamma(x: Any, y: Any) -> Any:
    return INF if abs(x) == INF else y * mp.exp(-x) + x


def _tweedie_terms(x: Any, y: Any, power: Any) -> tuple[Any, Any]:
    """``y exp((1 - power) x)`` and ``exp((2 - power) x)``."""
    return (ZERO if y == 0 else y * mp.exp((1 - power) * x)), mp.exp((2 - power) * x)


def _tweedie(x: Any, y: Any, power: Any) -> Any:
    of_target, of_mean = _tweedie_terms(x, y, power)
    return of_mean / (2 - power) - of_target / (1 - power)


def _tweedie_gradient(x: Any, y: Any, power: Any) -> Any:
    of_target, of_mean = _tweedie_terms(x, y, power)
    return of_mean - of_target


def _squared_hinge_gradient(x: Any, y: Any, margin: Any) -> Any:
    return -2 * y * max(ZERO, margin - y * x)


KNOWN: dict[str, tuple[Truth, Truth]] = {
    "log_cosh": (_log_cosh, lambda p, y: mp.tanh(p - y)),
    "charbonnier": (_charbonnier, _charbonnier_gradient),
    "cauchy": (lambda p, y, c: c**2 / 2 * log1p(((p - y) / c) ** 2), _cauchy_gradient),
    "tukey": (_tukey, _tukey_gradient),
    "barron": (_barron, _barron_gradient),
    "gamma": (_gamma, lambda x, y: 1 - y * mp.exp(-x)),
    "tweedie": (_tweedie, _tweedie_gradient),
    "hinge": (
        lambda x, y, margin: max(ZERO, margin - y * x),
        lambda x, y, margin: -y if margin - y * x > 0 else ZERO,
    ),
    "squared_hinge": (lambda x, y, margin: max(ZERO, margin - y * x) ** 2, _squared_hinge_gradient),
}

# The larger of two terms that may nearly cancel. No formula over an exponential that is itself rounded can do better
# than a few units in the last place of it.
LARGER_TERM_OF_VALUE: dict[str, Truth] = {
    "gamma": lambda x, y: INF if abs(x) == INF else max(y * mp.exp(-x), abs(x)),
}
LARGER_TERM: dict[tuple[str, str], Truth] = {
    **{(backend, "gamma"): lambda x, y: max(ONE, y * mp.exp(-x)) for backend in ("cpu", "reference")},
    **{
        (backend, "tweedie"): lambda x, y, power: max(_tweedie_terms(x, y, power))
        for backend in ("cpu", "reference")
    },
}


# Float64 bars above the common 4, in units in the last place, by backend and loss.
BARS: dict[tuple[str, str], float] = {
    # Near the cut-off the gradient is the square of a small difference: each rounding of it counts twice.
    ("cpu", "tukey"): 5.0,
    # Autograd multiplies a chain of more factors than the gradient has.
    ("reference", "tukey"): 8.0,
    ("reference", "cauchy"): 6.0,
    # A power, a logarithm and an exponential of rounded numbers, one inside the other.
    ("cpu", "barron"): 6.0,
    ("reference", "barron"): 6.0,
    # Beyond exp(600), two exponentials of half the exponent each.
    ("cpu", "tweedie"): 6.0,
    ("reference", "tweedie"): 6.0,
}


def barron_condition(p: Any, y: Any, alpha: Any, c: Any) -> tuple[Any, Any]:
    """By how much a relative error of ``p - y`` grows in the value and in the gradient, at least 1.

    ``p - y`` has one of half a unit in the last place, and no formula over it can do better.
    """
    if abs(p - y) == INF:
        return ONE, ONE
    s = ((p - y) / c) ** 2
    value, slope = _barron(p, y, alpha, c), _barron_gradient(p, y, alpha, c)
    of_value = abs((p - y) * slope / value) if value else ONE
    if abs(alpha) == INF:
        of_slope = 1 + mp.sign(alpha) * s
    else:
        of_slope = 1 + (alpha - 2) * s / (abs(alpha - 2) + s) if alpha != 2 else ONE
    return max(ONE, of_value), max(ONE, abs(of_slope))


# --- inputs: about n drawn ones, and the ends -------------------------------------------------------------------


def _stack(*blocks: tuple[Any, Any]) -> Pairs:
    """Blocks of predictions and targets, one below the other; a number stands for a column of it."""
    wide = [np.broadcast_arrays(np.asarray(p, np.float64), np.asarray(y, np.float64)) for p, y in blocks]
    return (
        np.concatenate([np.atleast_1d(p) for p, _ in wide]),
        np.concatenate([np.atleast_1d(y) for _, y in wide]),
    )


def _signs(rng: np.random.Generator, n: int) -> Any:
    return rng.choice([-1.0, 1.0], n)


def _magnitudes(rng: np.random.Generator, info: Any, n: int) -> Any:
    """Of either sign, evenly over every exponent of the type, the subnormal ones included."""
    exponents = rng.uniform(np.log2(float(info.smallest_subnormal)), np.log2(float(info.max)) - 1, n)
    return 2.0**exponents * _signs(rng, n)


def real_pairs(rng: np.random.Generator, info: Any, n: int, *scales: float) -> Pairs:
    """Predictions and targets that are real numbers; errors about each of ``scales``, where a formula changes."""
    held = lambda numbers: np.asarray(numbers, info.dtype).astype(np.float64)  # noqa: E731
    m = n // 10
    offset = held(10.0 ** rng.uniform(0, 8, m) * _signs(rng, m))
    near = held(rng.normal(size=m) * 10.0 ** rng.uniform(-3, 3, m))
    tie = held(rng.normal(size=m) * 100)
    small = rng.uniform(-1, 1, (2, m)) * float(info.tiny)
    huge = rng.uniform(-0.49, 0.49, (2, m)) * float(info.max)
    scale = rng.choice([1.0, *scales], m)
    about = scale * (1 + rng.choice([0.0, 1e-15, 1e-12, 1e-8, 1e-4], m) * rng.normal(size=m))
    grid = held(rng.integers(-1000, 1000, m))
    roots = np.sqrt(float(info.max)) * rng.uniform(0.5, 2.0, 50)
    return _stack(
        (rng.normal(size=n - 9 * m) * 3, rng.normal(size=n - 9 * m) * 3),
        (10.0 ** rng.uniform(-3, 4, m) * _signs(rng, m), rng.normal(size=m) * 10.0 ** rng.uniform(-3, 4, m)),
        (offset + rng.normal(size=m) * 3, offset + rng.normal(size=m)),
        (tie, tie),
        (near, np.nextafter(near.astype(info.dtype), np.inf).astype(np.float64)),
        (small[0], small[1]),
        (huge[0], huge[1]),
        (_magnitudes(rng, info, m), 0.0),
        (about * _signs(rng, m), rng.choice([0.0, 1e-17, 1e-9], m)),
        (grid + scale * _signs(rng, m), grid),
        (roots, 0.0),
        (list(scales), 0.0),
        ([0.0, np.inf, 0.0, -np.inf, 1.0], [-0.0, 0.0, np.inf, np.inf, -np.inf]),
    )


def positive_pairs(rng: np.random.Generator, info: Any, n: int) -> Pairs:
    """Log-means and positive targets, the right log-mean of a target among them."""
    m = n // 5
    least, most = np.log(float(info.tiny)), np.log(float(info.max))
    y = np.exp(rng.uniform(-8, 8, 3 * m))
    ends = np.array([-np.inf, np.inf, 0.0, float(info.tiny), -1e4, 1e4])
    return _stack(
        (rng.normal(size=n - 4 * m) * 3, np.exp(rng.normal(size=n - 4 * m))),
        (np.log(y[:m]) + rng.normal(size=m) * 10.0 ** rng.uniform(-9, 0, m), y[:m]),
        (_signs(rng, m) * 10.0 ** rng.uniform(-20, 2, m), y[m : 2 * m]),
        (rng.uniform(-1500, 1500, m), np.exp(rng.uniform(max(least - 5, -700), most - 12, m))),
        (rng.uniform(-1e4, 1e4, m), y[2 * m :]),
        (ends, 1.0),
        (ends, float(info.tiny)),
    )


def count_pairs(rng: np.random.Generator, info: Any, n: int) -> Pairs:
    """Log-means and targets of which some are 0."""
    x, y = positive_pairs(rng, info, n)
    return _stack(
        (x, np.where(rng.uniform(size=len(x)) < 0.2, 0.0, y)), ([-np.inf, np.inf, -1e4, 1e4, 0.0], 0.0)
    )


def margin_pairs(rng: np.random.Generator, info: Any, n: int, margin: float = 1.0) -> Pairs:
    """Scores and signs; scores about the margin."""
    m = n // 5
    at = np.asarray(margin, info.dtype)
    about = np.concatenate(
        [[at, np.nextafter(at, 0), np.nextafter(at, 9)], at * (1 + rng.normal(size=m) * 1e-6)]
    )
    ends = np.array([-np.inf, np.inf, 0.0, float(info.tiny), float(info.max) / 2])
    return _stack(
        (rng.normal(size=n - 4 * m) * 3, _signs(rng, n - 4 * m)),
        (rng.uniform(-1e4, 1e4, m), _signs(rng, m)),
        (10.0 ** rng.uniform(0, 8, m) * _signs(rng, m), _signs(rng, m)),
        (_magnitudes(rng, info, m), _signs(rng, m)),
        (about, 1.0),
        (-about, -1.0),
        (ends, 1.0),
        (ends, -1.0),
    )
