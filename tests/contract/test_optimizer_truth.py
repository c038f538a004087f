"""Every optimizer of the registry, every combination of its options: 20 steps against the published rule."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steepest.optim import OPTIMIZERS

from .optimizer_truth import option_sets, peer_options, truth
from .samples import DTYPES, generator

SIZES = (1, 7, 8, 9, 63, 64, 65, 4097)
NUM_STEPS = 20
RATE = 0.01
CLASSES = {entry.cls.__name__: entry.cls for entry in OPTIMIZERS.values()}
CASES = [(name, options) for name, cls in CLASSES.items() for options in option_sets(cls)]
WITH_A_PEER = [
    (name, options) for name, options in CASES
    if hasattr(torch.optim, name) and peer_options(name, options, RATE) is not None
]  # fmt: skip

# An error of one rounding a step, in units of half the type's spacing at what the parameter and its steps add up
# to. Measured: 11 (float32) and 17 (float64) at worst, torch's own 15 and 18.
BAR = 20.0
MEANING = 1000.0  # so far off torch may be and still mean the same: its RAdam and ASGD in float64, about 900


def described(options: dict[str, Any]) -> str:
    return "-".join(f"{name}={value}" for name, value in options.items() if value) or "plain"


@cache
def starts(dtype: torch.dtype) -> list[Tensor]:
    rng = generator("start")
    return [torch.tensor(rng.normal(size=size)).to(dtype) for size in SIZES]


@cache
def gradients(dtype: torch.dtype) -> list[list[Tensor]]:
    """One list a step: over five orders of magnitude, and now and then exactly 0."""
    rng = generator("gradients")
    draw = lambda n: rng.normal(size=n) * 10.0 ** rng.uniform(-4, 1, n) * (rng.uniform(size=n) > 0.02)  # noqa: E731
    return [[torch.tensor(draw(size)).to(dtype) for size in SIZES] for _ in range(NUM_STEPS)]


def walked(cls: Any, options: dict[str, Any], dtype: torch.dtype, sizes: int = len(SIZES)) -> list[Tensor]:
    parameters = [nn.Parameter(start.clone()) for start in starts(dtype)[:sizes]]
    optimizer = cls(parameters, **options)
    for row in gradients(dtype):
        for parameter, gradient in zip(parameters, row, strict=False):
            parameter.grad = gradient.clone()
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


@contextlib.contextmanager
def scalars_in(dtype: torch.dtype) -> Iterator[None]:
    """torch keeps running products and sums in the default type, which for float64 parameters is too narrow."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if dtype == torch.float64 else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def roundings_off(paths: list[list[Any]], dtype: torch.dtype, ends: list[Tensor]) -> float:
    """The largest error, in roundings of what the parameter and its steps add up to."""
    worst = 0.0
    for path, end in zip(paths, ends, strict=True):
        moved = np.abs(path[0]) + sum(np.abs(b - a) for a, b in itertools.pairwise(path))
        off = np.abs(end.double().numpy() - path[-1]) / (moved * torch.finfo(dtype).eps / 2)
        worst = max(worst, float(np.max(off)))
    return worst


def true_paths(
    cls: Any, options: dict[str, Any], dtype: torch.dtype, sizes: int = len(SIZES)
) -> list[list[Any]]:
    """For each size: where the parameter is before the first and after each step, with digits to spare."""
    wide = np.longdouble if dtype == torch.float64 else np.float64
    as_wide = lambda tensor: tensor.double().numpy().astype(wide)  # noqa: E731
    return [
        truth(cls, options, as_wide(start), [as_wide(row[i]) for row in gradients(dtype)])
        for i, start in enumerate(starts(dtype)[:sizes])
    ]


def test_every_class_of_the_registry_has_its_cases() -> None:
    assert {name for name, _ in CASES} == set(CLASSES)
    for name, cls in CLASSES.items():
        told = {tuple(sorted(options.items())) for case, options in CASES if case == name}
        for entry in OPTIMIZERS.values():
            if entry.cls is cls:
                assert any(set(entry.options.items()) <= set(options) for options in told), entry.name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: v if isinstance(v, str) else described(v))
def test_twenty_steps_against_the_published_rule(name: str, options: dict[str, Any], dtype: str) -> None:
    cls, given, held = CLASSES[name], {**options, "lr": RATE}, DTYPES[dtype]
    paths = true_paths(cls, given, held)
    off = roundings_off(paths, held, walked(cls, given, held))
    assert off <= BAR, f"{off:.2f} roundings off"
    peer, same = getattr(torch.optim, name, None), peer_options(name, options, RATE)
    if peer is not None and same is not None:
        with scalars_in(held):
            its = roundings_off(paths, held, walked(peer, same, held))
        assert its <= MEANING, f"torch is {its:.2f} roundings off: it means something else by these options"
        assert off <= 1.5 * its + 3, f"{off:.2f} roundings off, torch {its:.2f}"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("name", "options"), WITH_A_PEER, ids=lambda v: v if isinstance(v, str) else described(v)
)
def test_half_types_are_no_further_off_than_torch(name: str, options: dict[str, Any], dtype: str) -> None:
    """On average over the elements of the smaller sizes: at a single one either may be lucky."""
    peer, same = getattr(torch.optim, name), peer_options(name, options, RATE)
    assert same is not None
    cls, given, held = CLASSES[name], {**options, "lr": RATE}, DTYPES[dtype]
    few = len(SIZES) - 1
    paths = true_paths(cls, given, held, few)

    def mean_error(ends: list[Tensor]) -> float:
        errors = [np.abs(end.double().numpy() - path[-1]) for path, end in zip(paths, ends, strict=True)]
        return float(np.mean(np.concatenate(errors)))

    ours = mean_error(walked(cls, given, held, few))
    theirs = mean_error(walked(peer, {**same, "foreach": False}, held, few))
    assert np.isfinite(ours)
    assert ours <= 1.05 * theirs or not np.isfinite(theirs)  # 217 elements: luck is worth a few per cent


def is_elementwise(cls: Any) -> bool:
    return cls.rule_of(cls([nn.Parameter(torch.zeros(1))], lr=RATE).param_groups[0]).measure is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [name for name, cls in CLASSES.items() if is_elementwise(cls)])
def test_a_long_tensor_is_updated_like_its_parts(name: str, dtype: str) -> None:
    """Large tensors are cut for the threads: to the bit what many small ones give, the last element too."""
    rng = generator(name, dtype, "long")
    start, gradient = (torch.tensor(rng.normal(size=200_003)).to(DTYPES[dtype]) for _ in range(2))
    results = []
    for cut in (len(start), 9_973):
        parts = [nn.Parameter(part.clone()) for part in start.split(cut)]
        decay = {"weight_decay": 0.1} if "weight_decay" in inspect.signature(CLASSES[name]).parameters else {}
        optimizer = CLASSES[name](parts, lr=RATE, **decay)
        for step in range(3):
            for part, slope in zip(parts, gradient.split(cut), strict=True):
                part.grad = slope / (step + 1)
            optimizer.step()
        results.append(torch.cat([part.detach() for part in parts]))
    assert torch.equal(*results)
