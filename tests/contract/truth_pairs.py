"""Truth of the losses of pairs, triplets and lists of classes in 256 bits, and inputs to hold them against.

Written from the formulas, not from the package. With a value and its gradients come terms, in units of which a result
in the inputs' own type may be off: what it is the difference of, and knows no better.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exact import ONE, ZERO, mp

Row = list[Any]
Vectors = tuple[NDArray[np.float64], ...]
EPSILON = mp.mpf(1e-12)
_BLUR = mp.mpf(2) ** -48


def is_settled(gap: Any, term: Any) -> bool:
    """Whether rounding, and the range, cannot tell a hinge or the smaller of two the other way."""
    return bool(gap == 0 or abs(gap) > max(_BLUR * term, mp.mpf(1e-300)))


def ranking(a: Any, b: Any, y: Any, margin: Any) -> tuple[Any, Any, Any, Any]:
    """Value, and the gradients by both scores and the sign."""
    gap = margin - y * (a - b)
    counts = ONE * (gap >= 0)
    return max(ZERO, gap), -y * counts, y * counts, (b - a) * counts


def cosine(a: Row, b: Row, y: Any, margin: Any) -> tuple[Any, Row, Row, Any, Row, Row] | None:
    """Value and gradients by both vectors; the terms of the three. None where rounding decides."""
    length_a, length_b = (mp.sqrt(sum(x * x for x in v) + EPSILON) for v in (a, b))
    u, v = [x / length_a for x in a], [x / length_b for x in b]
    c = sum((p * q for p, q in zip(a, b, strict=True)), ZERO) / length_a / length_b
    spread = sum((abs(p * q) for p, q in zip(u, v, strict=True)), ZERO)
    along = [max(abs(p), abs(q)) for p, q in zip(u, v, strict=True)]
    terms_a, terms_b = [t / length_a for t in along], [t / length_b for t in along]
    if y == 1:
        by_a = [(c * p - q) / length_a for p, q in zip(u, v, strict=True)]
        by_b = [(c * q - p) / length_b for p, q in zip(u, v, strict=True)]
        return 1 - c, by_a, by_b, mp.sqrt(2 * (1 - c)), terms_a, terms_b
    if not is_settled(c - margin, max(spread, abs(margin))):
        return None
    counts = ONE * (c >= margin)
    by_a = [counts * (q - c * p) / length_a for p, q in zip(u, v, strict=True)]
    by_b = [counts * (p - c * q) / length_b for p, q in zip(u, v, strict=True)]
    return max(ZERO, c - margin), by_a, by_b, max(spread, abs(margin)), terms_a, terms_b


def _apart(x: Row, z: Row, p: Any, eps: Any) -> tuple[Any, Row, Any, Row]:
    """A distance and its gradient by the first; the terms of both."""
    d = [i - j + eps for i, j in zip(x, z, strict=True)]
    size = [max(abs(i - j), eps) for i, j in zip(x, z, strict=True)]
    if p == mp.inf:
        far = max(abs(i) for i in d)
        most = [ONE * (abs(i) == far) for i in d]
        return (
            far,
            [mp.sign(i) * m / sum(most) for i, m in zip(d, most, strict=True)],
            max(size),
            [ONE] * len(d),
        )
    far, scale = (sum(abs(i) ** p for i in part) ** (1 / p) for part in (d, size))
    if far == 0:
        return ZERO, [ZERO] * len(d), scale, [ZERO] * len(d)
    slopes = [mp.sign(i) * (abs(i) / far) ** (p - 1) for i in d]
    return (
        far,
        slopes,
        scale,
        [max(ONE, s / far) ** max(ONE, p - 1) for s in size] if p != 2 else [s / far for s in size],
    )


def triplet(a: Row, p: Row, n: Row, margin: Any, degree: Any, eps: Any, swap: bool) -> tuple[Any, ...] | None:
    """Value and gradients by the three vectors; the terms of the four. None where rounding decides."""
    near, of_near, t_near, s_near = _apart(a, p, degree, eps)
    far, of_far, t_far, s_far = _apart(a, n, degree, eps)
    between, of_between, t_between, s_between = _apart(p, n, degree, eps)
    other = ZERO if not swap or between > far else (ONE if between < far else ONE / 2)
    gap = margin + near - (min(far, between) if swap else far)
    term = max(t_near, t_far, margin, t_between * swap)
    if not is_settled(gap, term) or (swap and not is_settled(far - between, max(t_far, t_between))):
        return None
    counts = ONE * (gap >= 0)
    by_a = [counts * (x - (1 - other) * y) for x, y in zip(of_near, of_far, strict=True)]
    by_p = [-counts * (x + other * y) for x, y in zip(of_near, of_between, strict=True)]
    by_n = [counts * ((1 - other) * x + other * y) for x, y in zip(of_far, of_between, strict=True)]
    terms = [[max(x, y, z) for x, y, z in zip(s_near, s_far, s_between, strict=True)]] * 3
    return max(ZERO, gap), by_a, by_p, by_n, term, *terms


def labels(x: Row, listed: list[int]) -> tuple[Any, Row]:
    """One row's value, and its gradient by the scores."""
    own = listed[: listed.index(-1)] if -1 in listed else listed
    value, slopes = ZERO, [ZERO] * len(x)
    for k in own:
        for j in range(len(x)):
            gap = 1 - x[k] + x[j]
            if j in own or gap <= 0:
                continue
            value += gap
            slopes[j] += 1
            slopes[k] -= 1
    return value / len(x), [s / len(x) for s in slopes]


# --- inputs --------------------------------------------------------------------------------------------------------


def vectors(rng: np.random.Generator, info: Any, n: int, width: int) -> Vectors:
    """Pairs: drawn ones, of any length, beside an offset, nearly parallel either way, at right angles, parallel, 0."""
    held = lambda numbers: np.asarray(numbers, info.dtype).astype(np.float64)  # noqa: E731
    m = n // 8 + 1
    normal = lambda: rng.normal(size=(m, width))  # noqa: E731
    largest = np.log10(float(info.max)) - 1
    length = lambda: 10.0 ** rng.uniform(-largest + 2, largest, (m, 1))  # noqa: E731
    moderate = lambda: 10.0 ** rng.uniform(-8, 8, (m, 1))  # noqa: E731
    offset = 10.0 ** rng.uniform(0, 8, (m, 1))
    a = held(normal() * moderate())
    near = held(
        a * 10.0 ** rng.uniform(-2, 2, (m, 1)) * (1 + 10.0 ** rng.uniform(-14, -1, (m, 1)) * normal())
    )
    right = np.zeros((m, width))
    right[:, 0], right[:, 1] = -a[:, 1], a[:, 0]
    zero = np.zeros((2, width))
    blocks = [
        (normal(), normal()),
        (normal() * length(), normal() * length()),
        (normal() * moderate(), normal() * moderate()),
        (offset + normal(), offset + normal()),
        (a, near),
        (a, -near),
        (a, right),
        (a, 2 * a),
        (zero, np.ones((2, width))),
        (zero, zero),
    ]
    return np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks])
