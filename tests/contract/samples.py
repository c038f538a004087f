"""Inputs drawn by a formula's declared domain: the middle, the tails, the ties, the ends of the type's range."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steepest.losses import LossFormula
from steepest.testing.samples import pointwise_samples as drawn_by_kind

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def generator(*words: object) -> np.random.Generator:
    """The same numbers for the same words, on every machine."""
    return np.random.default_rng(zlib.crc32(" ".join(map(str, words)).encode()))


def parameters_of(formula: LossFormula) -> list[float]:
    """The formula's own parameters at their defaults."""
    return [float(value) for value in formula.parameters.values()]


def pointwise_samples(
    formula: LossFormula, dtype: str, *, tails: bool = True, draw: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and targets; without ``tails`` only what is well inside every type's range; others each ``draw``."""
    rng = generator(formula.name, dtype, tails, *[draw] * (draw > 0))
    kinds = {"real": _real_pairs, "logit": _logit_pairs, "probability": _probability_pairs}
    if formula.prediction not in kinds:
        return drawn_by_kind(formula, dtype, tails=tails)
    draw = kinds[formula.prediction]
    predictions, targets = draw(rng, np.finfo(dtype if dtype != "bfloat16" else "float32"), tails)
    return torch.tensor(predictions).to(DTYPES[dtype]), torch.tensor(targets).to(DTYPES[dtype])


Pairs = tuple[NDArray[np.float64], NDArray[np.float64]]


def _join(*pairs: tuple[Any, Any]) -> Pairs:
    columns = [np.broadcast_arrays(np.asarray(p, np.float64), np.asarray(y, np.float64)) for p, y in pairs]
    return np.concatenate([np.atleast_1d(p) for p, _ in columns]), np.concatenate(
        [np.atleast_1d(y) for _, y in columns]
    )


def _real_pairs(rng: np.random.Generator, info: Any, tails: bool) -> Pairs:
    middle = (rng.normal(size=200) * 3, rng.normal(size=200) * 3)
    if not tails:
        return middle
    as_held = lambda numbers: np.asarray(numbers, info.dtype).astype(np.float64)  # noqa: E731
    wide = 10.0 ** rng.uniform(-3, 4, (2, 300)) * rng.choice([-1, 1], (2, 300))
    offsets = 10.0 ** rng.uniform(0, 8, 200) * rng.choice([-1, 1], 200)
    apart = rng.normal(size=(2, 200))
    ties = as_held(np.concatenate([rng.normal(size=20), offsets[:20], [0.0, 1.0, info.tiny]]))
    near = as_held(rng.normal(size=40) * 10.0 ** rng.uniform(-3, 3, 40))
    small = rng.uniform(-1, 1, (2, 40)) * float(info.tiny)
    huge = rng.uniform(-0.49, 0.49, (2, 40)) * float(info.max)
    roots = np.sqrt(float(info.max)) * rng.uniform(0.5, 2.0, 20)
    return _join(
        middle,
        (wide[0], wide[1]),
        (offsets + apart[0], offsets + apart[1]),
        (ties, ties),
        (0.0, -0.0),
        (near, np.nextafter(near.astype(info.dtype), np.inf).astype(np.float64)),
        (small[0], small[1]),
        (huge[0], huge[1]),
        (roots, 0.0),
        ([np.inf, 0.0, -np.inf, 1.0], [0.0, np.inf, np.inf, -np.inf]),
    )


def _logit_pairs(rng: np.random.Generator, info: Any, tails: bool) -> Pairs:
    logits = [rng.normal(size=300) * 3]
    if tails:
        bends = np.array(
            [0.0, 17.0, 36.7, 37.5, 87.3, 88.7, 103.9, 104.0, 708.4, 709.8, 745.1, 745.2, 1e4, np.inf]
        )
        small = rng.uniform(-1, 1, 20) * float(info.tiny)
        far = np.concatenate(
            [rng.uniform(20, 120, 150), rng.uniform(120, 800, 100), rng.uniform(800, 1e4, 50)]
        )
        logits += [bends, -bends, small, far, -far, 10.0 ** rng.uniform(-12, 0, 60)]
    x = np.concatenate(logits)
    hard = np.arange(len(x)) % 2
    soft = rng.uniform(0, 1, len(x))
    return _join((x, hard), (x, 1 - hard), (x[:: 1 if tails else 3], soft[:: 1 if tails else 3]))


def _probability_pairs(rng: np.random.Generator, info: Any, tails: bool) -> Pairs:
    p = [rng.uniform(0.02, 0.98, 300)]
    if tails:
        low = 10.0 ** rng.uniform(np.log10(float(info.tiny)) - 2, -1, 150)
        high = 1.0 - float(info.eps) * rng.integers(1, 1 << 10, 100)
        p += [low, high, np.array([0.0, 1.0, 0.5, float(info.smallest_subnormal), float(info.tiny)])]
    p_all = np.concatenate(p)
    hard = np.arange(len(p_all)) % 2
    return _join((p_all, hard), (p_all, 1 - hard), (p_all, rng.uniform(0, 1, len(p_all))))


def softmax_samples(dtype: str, draw: int = 0) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Named blocks of (logits (N, C), targets (N,)): tails, offsets, ties, masked classes, one class, many."""
    rng = generator("softmax", dtype, *[draw] * (draw > 0))

    def block(name: str, x: NDArray[Any]) -> tuple[str, torch.Tensor, torch.Tensor]:
        index = torch.tensor(rng.integers(0, x.shape[1], len(x)))
        return name, torch.tensor(x).to(DTYPES[dtype]), index

    offsets = 10.0 ** rng.uniform(0, 8, (40, 1)) * rng.choice([-1, 1], (40, 1))
    masked = rng.normal(size=(20, 5)) * 5
    masked[:, 3] = -np.inf
    confident = np.tile([30.0, 0.0, 0.0], (20, 1)) * rng.uniform(0.5, 4.0, (20, 1))
    blocks = [
        block("middle", rng.normal(size=(100, 4)) * 3),
        block("two", rng.normal(size=(60, 2)) * 10),
        block("tails", rng.uniform(-1e4, 1e4, (60, 3))),
        block("wide", rng.normal(size=(40, 5)) * 10.0 ** rng.uniform(-6, 3, (40, 1))),
        block("offsets", offsets + rng.normal(size=(40, 6)) * 3),
        block("ties", np.repeat(rng.normal(size=(20, 1)), 7, axis=1)),
        block("confident", confident),
        block("one", rng.normal(size=(5, 1)) * 100),
        block("many", rng.normal(size=(3, 257)) * 2),
    ]
    # A masked class is never the target here: its loss is infinite, which has a test of its own.
    return [*blocks, ("masked", torch.tensor(masked).to(DTYPES[dtype]), torch.tensor(rng.integers(0, 3, 20)))]
