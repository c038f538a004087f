"""What RMSProp is good at: problems that change under way."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from steepest.optim import SGD, RMSprop

SEEDS = range(2)
NUM_STREAMS = 16  # problems beside one another: updates are element by element
NEAR = 0.1
STEPS_BEFORE, STEPS_AFTER = 500, 10_000
SCALE_BEFORE, SCALE_AFTER = 1000.0, 1.0

ADAGRAD: Any = torch.optim.Adagrad  # divides too, but by all gradients there ever were: it forgets nothing
CLASSES: dict[str, Any] = {"sgd": SGD, "rmsprop": RMSprop, "adagrad": ADAGRAD}
# From too small to too large; a test sees to it that the best lies inside.
RATES = {
    "sgd": [10**exponent for exponent in (-3.75, -3.5, -3.25, -3.0)],
    "rmsprop": [10**exponent for exponent in (-2.0, -1.5, -1.0, -0.5)],
    "adagrad": [10**exponent for exponent in (0.0, 0.25, 0.5, 0.75, 1.0)],
}


def steps_to_adapt(seed: int, optimizer_class: Any, lr: float) -> int:
    """The steps after the change until the median stream is near its new optimum; ``STEPS_AFTER`` where it is
    not by then, or had not settled near the old one when the change came."""
    random = torch.Generator().manual_seed(seed)
    p = torch.nn.Parameter(torch.zeros(NUM_STREAMS, dtype=torch.float64))
    optimizer = optimizer_class([p], lr=lr)

    def step(scale: float, optimum: float) -> float:
        noise = 0.1 * torch.randn(NUM_STREAMS, generator=random, dtype=torch.float64)
        p.grad = scale * (p.detach() - optimum + noise)
        optimizer.step()
        return float((p.detach() - optimum).abs().median())

    before = [step(SCALE_BEFORE, 1.0) for _ in range(STEPS_BEFORE)]
    if max(before[-100:]) > NEAR:
        return STEPS_AFTER
    return next((n for n in range(1, STEPS_AFTER) if step(SCALE_AFTER, -1.0) < NEAR), STEPS_AFTER)


@cache
def counts(seed: int, name: str) -> list[int]:
    """The steps to adapt at each rate."""
    return [steps_to_adapt(seed, CLASSES[name], lr) for lr in RATES[name]]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_rate_lies_inside_the_grid(seed: int, name: str) -> None:
    """The comparison below is fair: to either side of each optimizer's best rate it does worse."""
    tried = counts(seed, name)
    assert min(tried) < min(tried[0], tried[-1])


@pytest.mark.parametrize("other", ["sgd", "adagrad"])
@pytest.mark.parametrize("seed", SEEDS)
def test_it_adapts_in_a_fraction_of_the_steps(seed: int, other: str) -> None:
    """RMSProp is good at non-stationary problems: where the optimum moves and the gradient's scale falls to a
    thousandth, it is near the new optimum in less than a third of the steps that plain descent, which must
    keep a rate fit for the old scale, and Adagrad, which never forgets it, need at their best rates."""
    assert 3 * min(counts(seed, "rmsprop")) < min(counts(seed, other))


@pytest.mark.parametrize("seed", SEEDS)
def test_its_steps_keep_their_length_when_the_scale_changes(seed: int) -> None:
    """A thousand times the gradient makes plain descent's steps a thousand times as long, and leaves RMSProp's,
    once it has forgotten the old scale, as they were."""

    def lengths(optimizer_class: Any) -> list[float]:
        random = torch.Generator().manual_seed(seed)
        p = torch.nn.Parameter(torch.zeros(NUM_STREAMS, dtype=torch.float64))
        optimizer = optimizer_class([p], lr=0.01)
        found = []
        for scale in (1.0, 1000.0, 1.0):
            for _ in range(2000):
                before = p.detach().clone()
                p.grad = scale * torch.randn(NUM_STREAMS, generator=random, dtype=torch.float64)
                optimizer.step()
            found.append(float((p.detach() - before).abs().mean()))
        return found

    first, during, after = lengths(RMSprop)
    assert max(first, during, after) < 3 * min(first, during, after)
    first, during, _ = lengths(SGD)
    assert during > 300 * first
