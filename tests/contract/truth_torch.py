"""Truth of torch's further losses in 256 bits, and inputs to hold them against: tails, ties, ends of the range.

Written from the literature, not from the package. A pointwise truth is (value, gradient by the prediction), of
(prediction, target, *parameters); a term of a sum or difference is listed where the terms may cancel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exact import INF, NAN, ONE, VOCABULARY, ZERO, mp

Truth = Callable[..., Any]
Columns = tuple[NDArray[np.float64], ...]

softplus, sigmoid = VOCABULARY["softplus"], VOCABULARY["sigmoid"]
log, log1p = VOCABULARY["log"], VOCABULARY["log1p"]


# --- pointwise -----------------------------------------------------------------------------------------------


def _smooth_l1(p: Any, y: Any, beta: Any) -> Any:
    e = abs(p - y)
    return e**2 / (2 * beta) if e < beta else e - beta / 2


def _kl(x: Any, t: Any) -> Any:
    return ZERO if t == 0 else t * (log(t) - x)


def _kl_log(x: Any, t: Any) -> Any:
    return ZERO if t == -INF else mp.exp(t) * (t - x)


def _product(t: Any, x: Any) -> Any:
    return ZERO if t == 0 else t * x


def _poisson(x: Any, t: Any) -> Any:
    return INF if x == INF else mp.exp(x) - _product(t, x)


def _stirling(t: Any) -> Any:
    return t * mp.log(t) - t + mp.log(2 * mp.pi * t) / 2 if t > 1 else ZERO


def _rate(x: Any, t: Any, eps: Any) -> Any:
    return INF if x == INF else x - _product(t, log(x + eps))


def _rate_gradient(x: Any, t: Any, eps: Any) -> Any:
    if t == 0 or x == INF:
        return ONE
    return 1 - t / (x + eps) if x + eps > 0 else -INF


KNOWN: dict[str, tuple[Truth, Truth]] = {
    "smooth_l1": (
        _smooth_l1,
        lambda p, y, beta: NAN if mp.isnan(p - y) else max(-ONE, min(ONE, (p - y) / beta)),
    ),
    "kl_div": (_kl, lambda x, t: -t),
    "poisson_nll": (_poisson, lambda x, t: mp.exp(x) - t),
    "hinge_embedding": (
        lambda x, y, m: NAN if mp.isnan(x) else x if y == 1 else max(ZERO, m - x),
        lambda x, y, m: ONE if y == 1 else -ONE if x <= m else ZERO,
    ),
    "soft_margin": (lambda x, y: softplus(-y * x), lambda x, y: -y * sigmoid(-y * x)),
}

# The second formulas of a loss, by the option that asks for them.
VARIANTS: dict[str, tuple[Truth, Truth]] = {
    "kl_div log_target": (_kl_log, lambda x, t: -mp.exp(t)),
    "poisson_nll full": (lambda x, t: _poisson(x, t) + _stirling(t), KNOWN["poisson_nll"][1]),
    "poisson_nll rate": (_rate, _rate_gradient),
    "poisson_nll full rate": (lambda x, t, eps: _rate(x, t, eps) + _stirling(t), _rate_gradient),
}


def _full_terms(x: Any, t: Any) -> Any:
    """Of ``e^x - t x + t log t - t``: d = x - log t is known no better than log t, and its slope is e^x - t."""
    d = x - log(t) if t > 1 else INF
    if abs(d) >= mp.mpf("0.49"):
        return max(_poisson_terms(x, t), abs(_stirling(t)))
    return max(t * abs(d) * max(ONE, abs(log(t))), mp.log(2 * mp.pi * t) / 2)


def _poisson_terms(x: Any, t: Any) -> Any:
    return INF if abs(x) == INF else max(mp.exp(x), abs(t * x))


def _rate_terms(x: Any, t: Any, eps: Any) -> Any:
    return x if t == 0 or x == INF or x + eps == 0 else max(x, abs(t * log(x + eps)))


# The larger term of a value that is a difference: where its terms nearly cancel, the error is in units of it, for
# no formula over rounded inputs, with logarithms and exponentials of the type, can do better.
LARGER_TERM_OF_VALUE: dict[str, Truth] = {
    "kl_div": lambda x, t: ZERO if t == 0 else max(abs(t * log(t)), abs(t * x)),
    "poisson_nll": _poisson_terms,
    "poisson_nll full": _full_terms,
    "poisson_nll rate": _rate_terms,
    "poisson_nll full rate": lambda x, t, eps: max(_rate_terms(x, t, eps), abs(_stirling(t)), t),
}
_OF_POISSON: Truth = lambda x, t: max(mp.exp(x), t)  # noqa: E731
_OF_RATE: Truth = lambda x, t, eps: max(abs(x - t), eps) / (x + eps) if 0 < x + eps < INF else ONE  # noqa: E731
LARGER_TERM: dict[tuple[str, str], Truth] = {
    **{
        (backend, name): _OF_POISSON
        for backend in ("cpu", "reference")
        for name in ("poisson_nll", "poisson_nll full")
    },
    # Autograd goes through d = x - log t, known no better than log t.
    ("reference", "poisson_nll full"): lambda x, t: max(mp.exp(x), t * max(ONE, abs(log(max(t, ONE))))),
    **{("cpu", name): _OF_RATE for name in ("poisson_nll rate", "poisson_nll full rate")},
    # Autograd has 1 and t / (x + eps) apart.
    **{
        ("reference", name): lambda x, t, eps: max(ONE, t / (x + eps)) if 0 < x + eps < INF else ONE
        for name in ("poisson_nll rate", "poisson_nll full rate")
    },
}


# --- inputs: n drawn ones, and the ends ------------------------------------------------------------------------


def _stack(n: int, *blocks: tuple[Any, ...]) -> Columns:
    """Blocks of columns, one below the other; a number stands for a column of it."""
    wide = [np.broadcast_arrays(*(np.asarray(c, np.float64) for c in block)) for block in blocks]
    return tuple(np.concatenate([np.atleast_1d(block[i]) for block in wide]) for i in range(len(wide[0])))


def _signs(rng: np.random.Generator, n: int) -> Any:
    return rng.choice([-1.0, 1.0], n)


def real_pairs(rng: np.random.Generator, info: Any, n: int, kink: float = 1.0) -> Columns:
    """Predictions and targets that are real numbers; ``kink`` is a distance at which a formula changes."""
    held = lambda numbers: np.asarray(numbers, info.dtype).astype(np.float64)  # noqa: E731
    m = n // 8
    offset = held(10.0 ** rng.uniform(0, 8, m) * _signs(rng, m))
    near = held(rng.normal(size=m) * 10.0 ** rng.uniform(-3, 3, m))
    tie = held(rng.normal(size=m) * 100)
    wide = 10.0 ** rng.uniform(-3, 4, (2, m)) * rng.choice([-1, 1], (2, m))
    small = rng.uniform(-1, 1, (2, m)) * float(info.tiny)
    huge = rng.uniform(-0.49, 0.49, (2, m)) * float(info.max)
    at_kink = rng.integers(-1000, 1000, m).astype(np.float64)
    return _stack(
        n,
        (rng.normal(size=n - 7 * m) * 3, rng.normal(size=n - 7 * m) * 3),
        (wide[0], wide[1]),
        (offset + rng.normal(size=m), offset + rng.normal(size=m)),
        (tie, tie),
        (near, np.nextafter(near.astype(info.dtype), np.inf).astype(np.float64)),
        (small[0], small[1]),
        (huge[0], huge[1]),
        (at_kink, at_kink + kink * _signs(rng, m)),
        ([0.0, np.inf, 0.0, -np.inf, 1.0], [-0.0, 0.0, np.inf, np.inf, -np.inf]),
    )


def _log_probabilities(rng: np.random.Generator, info: Any, n: int) -> Any:
    m = n // 4
    return np.concatenate(
        [
            -(10.0 ** rng.uniform(-12, 4, n - 3 * m)),
            -rng.exponential(3, m),
            -rng.uniform(80, 800, m),
            rng.uniform(-1, 0, m) * float(info.tiny),
        ]
    )


def kl_pairs(rng: np.random.Generator, info: Any, n: int) -> Columns:
    """Log-probabilities and probabilities, nearly equal ones and certain ones among them."""
    m = n // 4
    x = _log_probabilities(rng, info, n - m)
    least = np.log10(float(info.tiny))
    t = np.concatenate([rng.uniform(0, 1, m), 10.0 ** rng.uniform(least - 3, 0, n - 2 * m)])
    agreeing = -rng.exponential(2, m).astype(info.dtype)
    t_agreeing = np.exp(agreeing)
    return _stack(
        n,
        (x, rng.permutation(t)),
        (agreeing, t_agreeing),
        (x[:50], 0.0),
        (x[:50], 1.0),
        (
            [-np.inf, -np.inf, 0.0, 0.0, 0.0, 0.0],
            [0.0, 0.5, 0.0, 1.0, float(info.smallest_subnormal), float(info.tiny)],
        ),
    )


def kl_log_pairs(rng: np.random.Generator, info: Any, n: int) -> Columns:
    """Log-probabilities twice."""
    x, t = _log_probabilities(rng, info, n), rng.permutation(_log_probabilities(rng, info, n))
    near = x[:50].astype(info.dtype)
    return _stack(
        n,
        (x, t),
        (near, np.nextafter(near, np.asarray(0.0, info.dtype))),
        (near, near),
        ([-np.inf, -np.inf, -1.0, 0.0, 0.0], [-np.inf, -1.0, -np.inf, -np.inf, 0.0]),
    )


def _counts(rng: np.random.Generator, n: int) -> Any:
    m = n // 3
    return np.concatenate(
        [rng.poisson(3, n - 2 * m), np.floor(10.0 ** rng.uniform(0, 7, m)), rng.integers(0, 3, m)]
    ).astype(np.float64)


def log_rate_pairs(rng: np.random.Generator, info: Any, n: int) -> Columns:
    """Log-rates and counts, the right log-rate of a count among them."""
    m = n // 4
    t = rng.permutation(_counts(rng, n))
    of_counts = np.log(np.maximum(t[:m], 1.0))
    most = np.log(float(info.max))
    x = np.concatenate(
        [
            of_counts + rng.normal(size=m) * 10.0 ** rng.uniform(-6, 0, m),
            rng.normal(size=n - 3 * m) * 3,
            rng.uniform(-800, most, m),
            _signs(rng, m) * 10.0 ** rng.uniform(-20, 2, m),
        ]
    )
    ends = np.array([-np.inf, np.inf, 0.0, float(info.tiny), -1e4, most])
    return _stack(n, (x, t), (x[:50], 0.5), (ends, 0.0), (ends, 1.0), (ends, 7.0))


def rate_pairs(rng: np.random.Generator, info: Any, n: int) -> Columns:
    """Rates and counts, equal and neighbouring ones among them."""
    m = n // 4
    t = rng.permutation(_counts(rng, n))
    equal = np.maximum(t[:m], 1.0)
    x = np.concatenate(
        [
            equal * (1 + rng.normal(size=m) * 10.0 ** rng.uniform(-8, -1, m)),
            rng.exponential(5, n - 3 * m),
            10.0 ** rng.uniform(-12, 8, m),
            10.0 ** rng.uniform(np.log10(float(info.tiny)) - 2, 0, m),
        ]
    )
    neighbours = np.nextafter(equal[:50].astype(info.dtype), np.inf)
    ends = np.array([0.0, float(info.tiny), 1.0, float(info.max), np.inf])
    return _stack(
        n, (x, t), (equal[:50], equal[:50]), (neighbours, equal[:50]), (ends, 0.0), (ends, 1.0), (ends, 9.0)
    )


def margin_pairs(rng: np.random.Generator, info: Any, n: int) -> Columns:
    """Margins and signs."""
    m = n // 4
    bends = np.array(
        [0.0, 17.0, 36.7, 37.5, 87.3, 88.7, 103.9, 104.0, 708.4, 709.8, 745.1, 745.2, 1e4, np.inf]
    )
    x = np.concatenate(
        [
            rng.normal(size=n - 3 * m) * 3,
            rng.uniform(-1e4, 1e4, m),
            rng.uniform(-800, 800, m),
            _signs(rng, m) * 10.0 ** rng.uniform(np.log10(float(info.tiny)) - 2, 0, m),
        ]
    )
    return _stack(n, (x, _signs(rng, n)), (bends, 1.0), (-bends, 1.0), (bends, -1.0), (-bends, -1.0))


def distance_pairs(rng: np.random.Generator, info: Any, n: int) -> Columns:
    """Distances and signs, distances at the margin and beside it among them."""
    m = n // 4
    margin = np.asarray(0.75, info.dtype)
    x = np.concatenate(
        [
            np.abs(rng.normal(size=n - 2 * m)),
            10.0 ** rng.uniform(np.log10(float(info.tiny)) - 2, 8, m),
            0.75 * (1 + _signs(rng, m) * 10.0 ** rng.uniform(-16, 0, m)),
        ]
    )
    ends = np.array(
        [0.0, 0.75, float(np.nextafter(margin, 0)), float(np.nextafter(margin, 1)), np.inf, -np.inf]
    )
    return _stack(n, (x, _signs(rng, n)), (ends, 1.0), (ends, -1.0))


PAIRS: dict[str, Callable[..., Columns]] = {
    "smooth_l1": real_pairs,
    "kl_div": kl_pairs,
    "kl_div log_target": kl_log_pairs,
    "poisson_nll": log_rate_pairs,
    "poisson_nll full": log_rate_pairs,
    "poisson_nll rate": rate_pairs,
    "poisson_nll full rate": rate_pairs,
    "soft_margin": margin_pairs,
    "hinge_embedding": distance_pairs,
}


# --- losses of whole rows ----------------------------------------------------------------------------------------


def gaussian(mean: Any, y: Any, var: Any, eps: Any, full: bool) -> tuple[Any, Any, Any]:
    """Value, gradient by the mean (minus it by the target) and by the variance, the least variance's included."""
    v = max(var, eps)
    value = (mp.log(v) + (mean - y) ** 2 / v) / 2 + (mp.log(2 * mp.pi) / 2 if full else 0)
    return value, (mean - y) / v, (1 / v - (mean - y) ** 2 / v**2) / 2


def gaussian_terms(mean: Any, y: Any, var: Any, eps: Any, full: bool) -> tuple[Any, Any, Any]:
    """The larger terms of the same three."""
    v = max(var, eps)
    squared = (mean - y) ** 2 / v
    return max(abs(mp.log(v)), squared, ONE * full) / 2, ZERO, max(1 / v, squared / v) / 2


def multilabel(x: list[Any], y: list[Any], w: list[Any]) -> tuple[Any, list[Any], list[Any]]:
    """One row's value, its gradient by the logits, and the larger terms of that."""
    n = len(x)
    value = sum(
        w[c]
        * (
            (ZERO if y[c] == 1 else (1 - y[c]) * softplus(x[c]))
            + (ZERO if y[c] == 0 else y[c] * softplus(-x[c]))
        )
        for c in range(n)
    )
    slopes = [w[c] * ((1 - y[c]) * sigmoid(x[c]) - y[c] * sigmoid(-x[c])) / n for c in range(n)]
    terms = [w[c] * max((1 - y[c]) * sigmoid(x[c]), y[c] * sigmoid(-x[c])) / n for c in range(n)]
    return value / n, slopes, terms


def multi_margin(x: list[Any], target: int, w: Any, p: int, margin: Any) -> tuple[Any, list[Any]]:
    """One row's value, and its gradient by the scores."""
    n = len(x)
    hinges = [ZERO if c == target else max(ZERO, margin - x[target] + x[c]) for c in range(n)]
    slopes = [w / n * (p * h ** (p - 1) if h > 0 else ZERO) for h in hinges]
    slopes[target] = -sum(slopes, ZERO)
    return w / n * sum((h**p for h in hinges), ZERO), slopes
