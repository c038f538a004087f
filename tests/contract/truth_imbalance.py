"""Truth of the losses for unequal classes in 256 bits, and inputs to hold them against: tails, ties, the ends.

Written from the papers, not from the package. A pointwise truth is (value, gradient by the logit), of (logit,
target, *parameters); a softmax truth (value, gradient by log p), of (log p, *parameters).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exact import INF, ONE, VOCABULARY, ZERO, mp

Truth = Callable[..., Any]

softplus, sigmoid, power = VOCABULARY["softplus"], VOCABULARY["sigmoid"], VOCABULARY["power"]


# --- pointwise -----------------------------------------------------------------------------------------------


def _term(x: Any, gamma: Any) -> Any:
    """-(1 - p)^gamma log p of a class whose logit is x."""
    return softplus(-x) * power(sigmoid(-x), gamma)


def _descent(x: Any, gamma: Any) -> Any:
    """Minus its derivative: (1 - p)^gamma ((1 - p) - gamma p log p)."""
    wrong = ZERO if x == -INF else sigmoid(x) * softplus(-x)
    return power(sigmoid(-x), gamma) * (sigmoid(-x) + gamma * wrong)


def _part(share: Any, term: Any, *arguments: Any) -> Any:
    return ZERO if share == 0 else share * term(*arguments)


def _focal(x: Any, y: Any, alpha: Any, gamma: Any) -> Any:
    return _part(alpha * y, _term, x, gamma) + _part((1 - alpha) * (1 - y), _term, -x, gamma)


def _focal_gradient(x: Any, y: Any, alpha: Any, gamma: Any) -> Any:
    return _part((1 - alpha) * (1 - y), _descent, -x, gamma) - _part(alpha * y, _descent, x, gamma)


def _focal_terms(x: Any, y: Any, alpha: Any, gamma: Any) -> Any:
    negative = _part((1 - alpha) * (1 - y), _descent, -x, gamma)
    return max(negative, _part(alpha * y, _descent, x, gamma))


def _plain_focal(x: Any, y: Any, gamma: Any) -> Any:
    return _part(y, _term, x, gamma) + _part(1 - y, _term, -x, gamma)


def _plain_focal_gradient(x: Any, y: Any, gamma: Any) -> Any:
    return _part(1 - y, _descent, -x, gamma) - _part(y, _descent, x, gamma)


def _shifted(x: Any, gamma: Any, clip: Any) -> Any:
    m = max(sigmoid(x) - clip, ZERO)
    return power(m, gamma) * -VOCABULARY["log1p"](-m)


def _shifted_slope(x: Any, gamma: Any, clip: Any) -> Any:
    m = sigmoid(x) - clip
    if m <= 0 or x == INF:
        return ZERO
    by_m = power(m, gamma) / (1 - m) - gamma * m ** (gamma - 1) * mp.log(1 - m)
    return sigmoid(x) * sigmoid(-x) * by_m


def _asymmetric(x: Any, y: Any, gamma_neg: Any, gamma_pos: Any, clip: Any) -> Any:
    return _part(y, _term, x, gamma_pos) + _part(1 - y, _shifted, x, gamma_neg, clip)


def _asymmetric_gradient(x: Any, y: Any, gamma_neg: Any, gamma_pos: Any, clip: Any) -> Any:
    return _part(1 - y, _shifted_slope, x, gamma_neg, clip) - _part(y, _descent, x, gamma_pos)


def _play(x: Any, clip: Any) -> tuple[Any, Any]:
    """p, and p - clip where p is good to four halves of its last place."""
    p = sigmoid(x)
    return p, abs(p - clip) + mp.mpf(2) ** -51 * p


def _asymmetric_value_terms(x: Any, y: Any, gamma_neg: Any, gamma_pos: Any, clip: Any) -> Any:
    """p times the slope by p - clip: what that difference makes of the last place of p."""
    p, m = _play(x, clip)
    if m >= 1 - clip:
        return ZERO
    by_m = m**gamma_neg / (1 - m) - gamma_neg * m ** (gamma_neg - 1) * mp.log(1 - m)
    return (1 - y) * p * by_m


def _asymmetric_terms(x: Any, y: Any, gamma_neg: Any, gamma_pos: Any, clip: Any) -> Any:
    """The larger of the gradient's two, and p times the slope of the negative's by p - clip."""
    g = gamma_neg
    larger = max(_part(1 - y, _shifted_slope, x, g, clip), _part(y, _descent, x, gamma_pos))
    p, m = _play(x, clip)
    if m < 1 - clip:
        loss = -mp.log(1 - m)
        bent = abs(g * (g - 1)) * m ** (g - 2) * loss + 2 * g * m ** (g - 1) / (1 - m) + m**g / (1 - m) ** 2
        larger = max(larger, (1 - y) * p * p * sigmoid(-x) * bent)
    return max(
        larger, mp.mpf(2) ** -960
    )  # below, sigmoid is subnormal, or 0 to torch, and 1 / clip multiplies it


def _unclipped(x: Any, y: Any, gamma_neg: Any, gamma_pos: Any) -> Any:
    return _part(y, _term, x, gamma_pos) + _part(1 - y, _term, -x, gamma_neg)


def _unclipped_gradient(x: Any, y: Any, gamma_neg: Any, gamma_pos: Any) -> Any:
    return _part(1 - y, _descent, -x, gamma_neg) - _part(y, _descent, x, gamma_pos)


KNOWN: dict[str, tuple[Truth, Truth]] = {
    "binary_focal": (_focal, _focal_gradient),
    "asymmetric": (_asymmetric, _asymmetric_gradient),
}
# The formulas of alpha=None and of clip=0, of which the registry does not know.
VARIANTS: dict[str, tuple[Truth, Truth]] = {
    "binary_focal unweighted": (_plain_focal, _plain_focal_gradient),
    "asymmetric unclipped": (_unclipped, _unclipped_gradient),
}

# With a target between 0 and 1 a gradient is a difference of two terms: errors are in units of the larger.
LARGER_TERM: dict[tuple[str, str], Truth] = {
    (backend, name): terms
    for backend in ("cpu", "reference")
    for name, terms in {"binary_focal": _focal_terms, "asymmetric": _asymmetric_terms}.items()
}
LARGER_TERM_OF_VALUE: dict[str, Truth] = {"asymmetric": _asymmetric_value_terms}
LARGER_TERM_OF_VARIANT: dict[str, Truth] = {
    "binary_focal unweighted": lambda x, y, gamma: max(
        _part(y, _descent, x, gamma), _part(1 - y, _descent, -x, gamma)
    ),
    "asymmetric unclipped": lambda x, y, gamma_neg, gamma_pos: max(
        _part(y, _descent, x, gamma_pos), _part(1 - y, _descent, -x, gamma_neg)
    ),
}


# --- softmax -------------------------------------------------------------------------------------------------


def _focal_of_log(log_p: Any, gamma: Any) -> Any:
    return -log_p * power(-mp.expm1(log_p), gamma)


def _focal_of_log_slope(log_p: Any, gamma: Any) -> Any:
    if log_p == 0 or log_p == -INF:
        return -ONE if gamma == 0 or log_p != 0 else ZERO
    miss = -mp.expm1(log_p)
    return gamma * miss ** (gamma - 1) * mp.exp(log_p) * log_p - miss**gamma


def _generalized(log_p: Any, q: Any) -> Any:
    return -mp.expm1(q * log_p) / q


def _generalized_slope(log_p: Any, q: Any) -> Any:
    return -mp.exp(q * log_p)


def _poly(log_p: Any, epsilon: Any) -> Any:
    if log_p == -INF:
        return INF
    with mp.workprec(1600):  # epsilon = -1 takes all but the square of 1 - p away
        return -log_p - epsilon * mp.expm1(log_p)


def _poly_slope(log_p: Any, epsilon: Any) -> Any:
    with mp.workprec(1600):
        return -1 - epsilon * mp.exp(log_p)


SOFTMAX_KNOWN: dict[str, tuple[Truth, Truth]] = {
    "focal": (_focal_of_log, _focal_of_log_slope),
    "generalized_cross_entropy": (_generalized, _generalized_slope),
    "poly_cross_entropy": (_poly, _poly_slope),
    "logit_adjusted": (lambda log_p: -log_p, lambda log_p: -ONE),
    "class_balanced": (lambda log_p: -log_p, lambda log_p: -ONE),
}


# --- bars ----------------------------------------------------------------------------------------------------


def bar(name: str, parameters: Sequence[float], dtype: str) -> float:
    """Units in the last place for values and gradients. float32 is computed in float64 and rounded once.

    Softmax losses' exponentials are float32's: good to 1.04, and a power of them to as many times that.
    """
    if dtype == "float32" and name not in SOFTMAX_KNOWN:
        return 0.51
    if dtype == "float32" and name == "focal":
        return max(4.0, 1.1 * (parameters[0] + 1.0))
    if dtype == "float32" and name != "poly_cross_entropy":
        return 4.0
    if name == "poly_cross_entropy":
        # log p may be subnormal, its last place times 1 + epsilon; with -1 the loss is the square of 1 - p.
        return 4.0 + 2.0 * abs(parameters[0])
    if name == "generalized_cross_entropy":
        return 4.0 + 0.5 / parameters[0]  # q log p may be subnormal, and its last place is divided by q
    if name in ("binary_focal", "binary_focal unweighted", "asymmetric unclipped"):
        return 4.0 + 0.5 * max(parameters[-2:])
    gammas = {"asymmetric": parameters[:2], "focal": parameters}
    powers = gammas.get(name.split()[0], (0.0,))
    # A power multiplies its base's error. Where the loss is below 1e-18 the exponent is gamma + 1: what its rounding
    # loses counts times the logarithm of the smallest number there is.
    return max(4.0 + 3.0 * g + 745.0 * 2**53 * abs(math.fsum((g, 1.0, -(g + 1.0)))) for g in powers)


def further(name: str, parameters: Sequence[float], log_p: Any) -> float:
    """What a float64 gradient may be off besides: p^q is exp(q log p), so log p's last place counts q |log p| times."""
    return 2.0 * parameters[0] * abs(float(log_p)) if name == "generalized_cross_entropy" else 0.0


# --- inputs --------------------------------------------------------------------------------------------------

_BENDS = (
    0.0,
    17.0,
    36.7,
    37.5,
    41.4,
    87.3,
    88.7,
    103.9,
    104.0,
    708.4,
    709.8,
    745.1,
    745.2,
    799.0,
    801.0,
    1e4,
    math.inf,
)


def logit_pairs(rng: np.random.Generator, count: int, clip: float = 0.5) -> NDArray[np.float64]:
    """``count`` rows of (logit, target): the middle, tails, bends, the neighbourhood of p = clip, soft targets."""
    tie = math.log(clip / (1 - clip)) if clip else 0.0
    near = tie + 10.0 ** rng.uniform(-7, 0, count) * rng.choice([-1, 1], count)
    far = 10.0 ** rng.uniform(0.5, 4, count) * rng.choice([-1, 1], count)
    steep = rng.uniform(30, 800, count) * rng.choice([-1, 1], count)
    small = 10.0 ** rng.uniform(-320, 0, count) * rng.choice([-1, 1], count)
    bends = rng.choice(np.array(_BENDS), count) * rng.choice([-1, 1], count)
    kinds = [rng.normal(size=count) * 3, near, far, steep, small, bends, np.full(count, tie)]
    x = np.choose(rng.choice(7, count, p=[0.25, 0.15, 0.15, 0.25, 0.1, 0.08, 0.02]), kinds)
    y = np.where(rng.random(count) < 0.8, rng.integers(0, 2, count), rng.random(count))
    return np.stack([x, y], 1)


def logit_rows(rng: np.random.Generator, count: int, classes: int) -> NDArray[np.float64]:
    """``count`` rows of logits: the middle, tails, offsets up to 1e8, ties, sure rows, masked classes."""
    x = rng.normal(size=(count, classes))
    kind = rng.integers(0, 8, count)
    scale = np.choose(
        kind,
        [
            np.full(count, 3.0),
            10.0 ** rng.uniform(-6, 4, count),
            np.full(count, 3.0),
            np.zeros(count),
            np.full(count, 1.0),
            np.full(count, 1.0),
            np.full(count, 5.0),
            np.full(count, 100.0),
        ],
    )
    x = x * scale[:, None]
    offset = 10.0 ** rng.uniform(0, 8, count) * rng.choice([-1, 1], count)
    x = x + np.where((kind == 2) | (kind == 3), offset, 0.0)[:, None]
    ahead = np.choose(kind % 2, [rng.uniform(20, 120, count), rng.uniform(120, 900, count)])
    sure = (kind == 4) | (kind == 5)
    x[sure, 0] += ahead[sure]
    if classes > 2:
        x[kind == 6, 2] = -math.inf  # never the target: see targets_of
    return x


def targets_of(rng: np.random.Generator, rows: NDArray[np.float64]) -> NDArray[np.int64]:
    """A class for each row, no masked one."""
    drawn = rng.integers(0, rows.shape[1], len(rows))
    return np.where(np.isinf(rows[np.arange(len(rows)), drawn]), 0, drawn)


def class_weights(counts: Sequence[int], beta: Any) -> list[Any]:
    """Cui et al.'s: in proportion to (1 - beta) / (1 - beta^n), summing to the number of classes."""
    raw = [(1 - mp.mpf(beta)) / (1 - mp.mpf(beta) ** n) for n in counts]
    return [len(counts) * w / sum(raw) for w in raw]
