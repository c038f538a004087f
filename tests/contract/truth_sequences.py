"""Truth of the loss of all alignments (CTC) in 256 bits, and inputs to hold it against.

Written from the paper's formulas, not from the package: all paths where there are few, else its forward and backward
variables, as plain numbers, for these have any exponent.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exact import INF, NAN, ONE, ZERO, mp

Rows = list[list[Any]]


def by_paths(x: Rows, y: list[int], blank: int) -> tuple[Any, Rows]:
    """Minus the logarithm of the sum over all paths, and each class's share of it in each frame."""
    total, share = ZERO, [[ZERO] * len(row) for row in x]
    for path in itertools.product(range(len(x[0]) if x else 0), repeat=len(x)):
        once = [c for c, _ in itertools.groupby(path)]
        if [c for c in once if c != blank] != y:
            continue
        p = ONE
        for row, c in zip(x, path, strict=True):
            p *= mp.exp(row[c])
        total += p
        for t, c in enumerate(path):
            share[t][c] += p
    if total == 0:
        return INF, [[NAN] * len(row) for row in x]
    return -mp.log(total), [[s / total for s in row] for row in share]


def by_variables(x: Rows, y: list[int], blank: int) -> tuple[Any, Rows]:
    """The same by the paper's alpha and beta (its equations 5 to 15)."""
    states = [blank] + [c for label in y for c in (label, blank)]
    n, frames = len(states), len(x)
    if not frames:
        return (ZERO if not y else INF), []
    p = [[mp.exp(row[c]) if c in states else ZERO for c in range(len(row))] for row in x]
    before = [
        [s] + [s - 1] * (s > 0) + [s - 2] * (s > 1 and states[s] != blank and states[s] != states[s - 2])
        for s in range(n)
    ]
    alpha = [[p[0][c] * (s < 2) for s, c in enumerate(states)]]
    for t in range(1, frames):
        alpha.append([sum((alpha[-1][b] for b in before[s]), ZERO) * p[t][states[s]] for s in range(n)])
    total = sum(alpha[-1][-2:], ZERO)
    if total == 0:
        return INF, [[NAN] * len(row) for row in x]
    behind = [ONE * (s >= n - 2) for s in range(n)]  # without the frame's own probability
    share = [[ZERO] * len(row) for row in x]
    for t in range(frames - 1, -1, -1):
        if t < frames - 1:
            new = [ZERO] * n
            for s in range(n):
                for b in before[s]:
                    new[b] += behind[s] * p[t + 1][states[s]]
            behind = new
        for s, c in enumerate(states):
            share[t][c] += alpha[t][s] * behind[s] / total
    return -mp.log(total), share


def slopes(x: Rows, share: Rows) -> tuple[list[Any], list[Any]]:
    """The gradient as torch has it, and the larger of its two terms."""
    pairs = [
        (mp.exp(a), q) for row, shares in zip(x, share, strict=True) for a, q in zip(row, shares, strict=True)
    ]
    return [p - q for p, q in pairs], [max(p, q) if q == q else NAN for p, q in pairs]


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """By rows."""
    most = logits.max(-1, keepdims=True)
    result: NDArray[np.float64] = logits - most - np.log(np.exp(logits - most).sum(-1, keepdims=True))
    return result


def scores(
    kind: str, rng: np.random.Generator, shape: tuple[int, int, int], path: Any = None
) -> NDArray[np.float64]:
    """Log-probabilities (T, N, C) of a kind; ``path`` (T, N) is an alignment with the targets."""
    logits = rng.normal(size=shape)
    if kind == "plain":
        return log_softmax(logits * 2)
    if kind == "improbable":
        return log_softmax(logits * 300)
    if kind == "impossible":  # here and there
        return np.where(rng.random(shape) < 0.15, -np.inf, log_softmax(logits))
    if kind == "masked":
        return np.where(rng.random(shape) < 0.3, -1e9, log_softmax(logits))
    if kind == "no logarithms":  # of probabilities
        return logits * 10
    assert kind == "sure"
    np.put_along_axis(logits, path[..., None], rng.uniform(15, 40, (*shape[:2], 1)), -1)
    return log_softmax(logits)


KINDS = ("plain", "improbable", "impossible", "masked", "no logarithms", "sure")


def alignment(rng: np.random.Generator, y: list[int], frames: int, blank: int) -> list[int]:
    """A path of so many frames that becomes the target."""
    path: list[int] = []
    for place, label in enumerate(y):
        if place and label == y[place - 1]:
            path.append(blank)
        path.append(label)
    while len(path) < frames:
        at = int(rng.integers(0, len(path) + 1))
        if at in (0, len(path)) and rng.random() < 0.5:
            path.insert(at, blank)
        elif path:
            path.insert(at, path[min(at, len(path) - 1)])
        else:
            path.append(blank)
    return path
