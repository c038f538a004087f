"""Inputs drawn by what a formula says it takes: the middle, the tails, large offsets, ties, near ties."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steepest.losses import LossFormula

__all__ = ["DTYPES", "generator", "pointwise_samples", "softmax_samples"]

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
Numbers = NDArray[np.float64]


def generator(*words: object) -> np.random.Generator:
    """The same numbers for the same words, on every machine."""
    return np.random.default_rng(zlib.crc32(" ".join(map(str, words)).encode()))


def pointwise_samples(formula: LossFormula, dtype: str, *, tails: bool = True) -> tuple[Tensor, Tensor]:
    """Predictions and targets; without ``tails`` only what is well inside every type's range."""
    rng = generator(formula.prediction, formula.target, dtype, tails)
    p = _predictions(rng, formula.prediction, tails)
    y = _targets(rng, formula.target, len(p), tails)
    if tails and (formula.prediction, formula.target) == ("real", "real"):
        p, y = _with_ties(rng, p, y)
    held = DTYPES[dtype]
    return torch.tensor(p).to(held), torch.tensor(y).to(held)


def _predictions(rng: np.random.Generator, kind: str, tails: bool) -> Numbers:
    middle = rng.normal(size=64) * 3
    if kind == "probability":
        drawn = [rng.uniform(0.02, 0.98, 64)]
        if tails:
            drawn += [10.0 ** rng.uniform(-30, -1, 16), 1.0 - 2.0 ** -rng.integers(3, 20, 16).astype(float)]
        return np.concatenate(drawn)
    if kind == "log_probability":
        return -(10.0 ** rng.uniform(-6 if tails else -1, 1.5 if tails else 0.5, 80))
    if not tails:
        return middle
    # A rate's logarithm stays where its exponential is finite in float32.
    far = 80.0 if kind == "log_rate" else 1e4
    wide = np.minimum(10.0 ** rng.uniform(-6, 4, 48), far) * rng.choice([-1.0, 1.0], 48)
    return np.concatenate([middle, wide, [0.0, 1.0, -1.0, far, -far]])


def _targets(rng: np.random.Generator, kind: str, count: int, tails: bool) -> Numbers:
    if kind == "probability":
        hard = rng.integers(0, 2, count).astype(np.float64)
        return np.where(rng.uniform(size=count) < 0.3, rng.uniform(0, 1, count), hard)
    if kind == "sign":
        return rng.choice([-1.0, 1.0], count)
    if kind == "count":
        return rng.poisson(3.0, count).astype(np.float64)
    if kind == "positive":
        return 10.0 ** rng.uniform(-3 if tails else -1, 3 if tails else 1, count)
    middle = rng.normal(size=count) * 3
    wide = 10.0 ** rng.uniform(-3, 4, count) * rng.choice([-1.0, 1.0], count)
    return np.where(rng.uniform(size=count) < (0.3 if tails else 0.0), wide, middle)


def _with_ties(rng: np.random.Generator, p: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """Predictions equal to their targets, next to them, and both beside a large offset."""
    offsets = np.round(10.0 ** rng.uniform(0, 8, 24) * rng.choice([-1.0, 1.0], 24))
    ties = np.float64(np.float32(np.concatenate([rng.normal(size=8), [0.0, 1.0]])))
    near = np.float32(rng.normal(size=12))
    beside = np.nextafter(near, np.float32(np.inf))
    return (
        np.concatenate([p, offsets + rng.normal(size=24), ties, np.float64(near)]),
        np.concatenate([y, offsets + rng.normal(size=24), ties, np.float64(beside)]),
    )


def softmax_samples(
    dtype: str, num_classes: int | None = None, *, tails: bool = True
) -> list[tuple[Tensor, Tensor]]:
    """Blocks of logits (N, C) and class indices (N,): the middle, tails, offsets, ties, few classes and many."""
    rng = generator("softmax", dtype, tails)

    def block(rows: int, classes: int, draw: Any) -> tuple[Tensor, Tensor]:
        classes = num_classes or classes
        index = rng.integers(0, classes, rows)
        return torch.tensor(draw(rows, classes)).to(DTYPES[dtype]), torch.tensor(index)

    def normal(scale: float) -> Any:
        return lambda n, c: rng.normal(size=(n, c)) * scale

    def beside_offsets(n: int, c: int) -> Any:
        offsets = 10.0 ** rng.uniform(0, 8, (n, 1)) * rng.choice([-1, 1], (n, 1))
        return offsets + rng.normal(size=(n, c)) * 3

    def confident(n: int, c: int) -> Any:
        return 30.0 * np.eye(c)[0] * rng.uniform(0.5, 4.0, (n, 1))

    if not tails:
        return [block(40, 4, normal(2.0))]
    return [
        block(40, 4, normal(3.0)),
        block(24, 2, normal(10.0)),
        block(16, 3, lambda n, c: rng.uniform(-1e3, 1e3, (n, c))),
        block(16, 5, beside_offsets),
        block(6, 7, lambda n, c: np.repeat(rng.normal(size=(n, 1)), c, axis=1)),
        block(12, 3, confident),
        block(2, 65, normal(2.0)),
    ]
