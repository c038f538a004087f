"""An optimizer's way down a surface, by its own update rule, at the rate that suits it best there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from steepest.explain.surfaces import RAVINE, Surface, noise_of, slopes
from steepest.optim import OptimizerEntry, Rule

__all__ = ["Descent", "best_descent", "descend", "rates", "shares"]

RATES_A_DECADE = 16


@dataclass(frozen=True)
class Descent:
    """One optimizer's way from the start, at its best rate."""

    surface: Surface
    lr: float
    path: Tensor  # (max_steps + 1, 2)
    num_steps: int  # after which it is near a minimum and stays there; more than max_steps: not in time

    @property
    def arrives(self) -> bool:
        """Whether it comes near and stays."""
        return self.num_steps <= self.surface.max_steps

    @property
    def distances(self) -> list[float]:
        """From the nearest minimum, after every step, as a share of the distance at the start."""
        found: list[float] = shares(self.surface, self.path).tolist()
        return found


def rates(entry: OptimizerEntry) -> list[float]:
    """The grid of rates that are tried: all of the entry's range, evenly on a log scale."""
    low, high = (math.log10(end) for end in entry.rates)
    count = round((high - low) * RATES_A_DECADE)
    return [10 ** (low + i / RATES_A_DECADE) for i in range(count + 1)]


def descend(
    entry: OptimizerEntry, learning_rates: list[float], num_steps: int, surface: Surface = RAVINE
) -> Tensor:
    """The paths from the start, one a rate: (steps + 1, rates, 2), by the entry's own update rule."""
    group = entry.cls([torch.nn.Parameter(torch.zeros(1))], **{"lr": 1.0, **entry.options}).param_groups[0]
    rule: Rule = entry.cls.rule_of(group)
    hyper = [{**entry.cls.hyperparameters_of(group), "lr": lr} for lr in learning_rates]
    scalars = [rule.scalars_at_first(given) for given in hyper]
    p = torch.tensor(surface.start, dtype=torch.float64).expand(len(learning_rates), 2).clone()
    slots = [_at_first(rule, name, hyper, p, surface) for name in rule.slots]
    path = [p]
    for step in range(1, num_steps + 1):
        worked_out = [
            rule.coefficients(float(step), *given.values(), *own)
            for given, own in zip(hyper, scalars, strict=True)
        ]
        scalars = [list(numbers[: len(rule.scalars)]) for numbers in worked_out]
        factors = [numbers[len(rule.scalars) :] for numbers in worked_out]
        gradient = _gradient(surface, p, step)
        if rule.measure is not None:
            factors = _with_trust(rule, (p, gradient, *slots), factors)
        coefficients = torch.tensor(factors, dtype=torch.float64).T.unsqueeze(-1)
        p, *slots = rule.update(p, gradient, *slots, *coefficients)
        path.append(p)
    return torch.stack(path)


def _gradient(surface: Surface, p: Tensor, step: int) -> Tensor:
    x, y = p.unbind(dim=1)
    gradient = torch.stack([slope(x, y) for slope in slopes(surface)], dim=1)
    return gradient + noise_of(surface)[step - 1] if surface.noise else gradient


def _at_first(rule: Rule, name: str, hyper: list[dict[str, float]], p: Tensor, surface: Surface) -> Tensor:
    """A state slot before the first step, one row a rate."""
    starts = [rule.begins_at(name, given) for given in hyper]
    if starts[0] == "gradient":
        return _gradient(surface, p, 1)
    if starts[0] == "parameter":
        return p.clone()
    return torch.tensor(starts, dtype=torch.float64).unsqueeze(-1).expand_as(p).clone()


def _with_trust(
    rule: Rule, tensors: tuple[Tensor, ...], factors: list[tuple[float, ...]]
) -> list[tuple[float, ...]]:
    """A layer-wise rule's ratio after its coefficients; the two numbers of a place are one layer."""
    assert rule.measure is not None
    assert rule.trust is not None
    coefficients = torch.tensor(factors, dtype=torch.float64).T.unsqueeze(-1)
    measured = rule.measure(*tensors, *coefficients)
    norms = [torch.linalg.vector_norm(part, dim=1).tolist() for part in measured]
    return [(*row, rule.trust(a, b, *row)) for row, a, b in zip(factors, *norms, strict=True)]


def shares(surface: Surface, paths: Tensor) -> Tensor:
    """The distance from the nearest minimum along paths (steps, ..., 2), as a share of that at the start."""
    minima = torch.tensor(surface.minima, dtype=torch.float64)
    far: Tensor = (paths.unsqueeze(-2) - minima).norm(dim=-1).nan_to_num(nan=math.inf).amin(dim=-1)
    return far / far[0]


def best_descent(entry: OptimizerEntry, surface: Surface = RAVINE) -> Descent:
    """The way at the rate of the grid that is near a minimum, for good, in the fewest steps.

    It is watched for twice as long as is counted, so that passing near is not taken for staying there. Where no rate
    is there within ``max_steps``, it is the one that keeps nearest to a minimum after them.
    """
    grid, last = rates(entry), surface.max_steps
    paths = descend(entry, grid, 2 * last, surface)
    far = shares(surface, paths)
    arrivals = [min(_arrival(far[:, i], surface.near), last + 1) for i in range(len(grid))]
    best = min(range(len(grid)), key=lambda i: (arrivals[i], float(far[last:, i].max())))
    return Descent(surface, grid[best], paths[: last + 1, best], arrivals[best])


def _arrival(shares: Tensor, near: float) -> int:
    outside = torch.nonzero(~(shares <= near))
    return int(outside[-1]) + 1 if len(outside) else 0
