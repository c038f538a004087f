"""Descent along a ravine: a quadratic a hundred times steeper across than along, turned against the axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from steepest.optim import OptimizerEntry, Rule

__all__ = [
    "CONDITION",
    "NEAR",
    "OPTIMUM",
    "START",
    "TURN_DEGREES",
    "WATCHED",
    "Descent",
    "best_descent",
    "descend",
    "hessian",
    "rates",
]

CONDITION = 100.0  # how much steeper across than along
TURN_DEGREES = 20.0  # turned, so that no direction is a parameter's own
NEAR = 0.01  # "there": this share of the distance at the start
MAX_STEPS = 400
WATCHED = 2 * MAX_STEPS  # steps taken, so that passing near is not taken for staying there
RATES_A_DECADE = 16

_ALONG, _ACROSS = 1.0, 0.2  # from the start to the optimum, in the ravine's own directions


def _turn() -> Tensor:
    c, s = math.cos(math.radians(TURN_DEGREES)), math.sin(math.radians(TURN_DEGREES))
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def hessian() -> Tensor:
    """The second derivatives: ``f(p) = (p - OPTIMUM) H (p - OPTIMUM) / 2``."""
    turn = _turn()
    return turn @ torch.diag(torch.tensor([1.0, CONDITION], dtype=torch.float64)) @ turn.T


# Not the origin: a layer-wise rule asks how long the parameters are, and there they have no length.
START = torch.tensor([-0.5, 0.5], dtype=torch.float64)
OPTIMUM = START + _turn() @ torch.tensor([_ALONG, -_ACROSS], dtype=torch.float64)


@dataclass(frozen=True)
class Descent:
    """One optimizer's way from the start, at its best rate."""

    lr: float
    path: Tensor  # (MAX_STEPS + 1, 2)
    num_steps: int  # after which it is near the optimum and stays there; more than MAX_STEPS: not in time

    @property
    def arrives(self) -> bool:
        """Whether it comes near and stays."""
        return self.num_steps <= MAX_STEPS

    @property
    def distances(self) -> list[float]:
        """From the optimum, after every step, as a share of the distance at the start."""
        far = (self.path - OPTIMUM).norm(dim=1)
        shares: list[float] = (far / far[0]).tolist()
        return shares


def rates(entry: OptimizerEntry) -> list[float]:
    """The grid of rates that are tried: all of the entry's range, evenly on a log scale."""
    low, high = (math.log10(end) for end in entry.rates)
    count = round((high - low) * RATES_A_DECADE)
    return [10 ** (low + i / RATES_A_DECADE) for i in range(count + 1)]


def descend(entry: OptimizerEntry, learning_rates: list[float], num_steps: int = WATCHED) -> Tensor:
    """The paths from the start, one a rate: (steps + 1, rates, 2), by the entry's own update rule."""
    group = entry.cls([torch.nn.Parameter(torch.zeros(1))], **{"lr": 1.0, **entry.options}).param_groups[0]
    rule: Rule = entry.cls.rule_of(group)
    hyper = [{**entry.cls.hyperparameters_of(group), "lr": lr} for lr in learning_rates]
    scalars = [rule.scalars_at_first(given) for given in hyper]
    curvature = hessian()
    p = START.expand(len(learning_rates), 2).clone()
    slots = [_at_first(rule, name, hyper, p) for name in rule.slots]
    path = [p]
    for step in range(1, num_steps + 1):
        worked_out = [
            rule.coefficients(float(step), *given.values(), *own)
            for given, own in zip(hyper, scalars, strict=True)
        ]
        scalars = [list(numbers[: len(rule.scalars)]) for numbers in worked_out]
        factors = [numbers[len(rule.scalars) :] for numbers in worked_out]
        gradient = (p - OPTIMUM) @ curvature
        if rule.measure is not None:
            factors = _with_trust(rule, (p, gradient, *slots), factors)
        coefficients = torch.tensor(factors, dtype=torch.float64).T.unsqueeze(-1)
        p, *slots = rule.update(p, gradient, *slots, *coefficients)
        path.append(p)
    return torch.stack(path)


def _at_first(rule: Rule, name: str, hyper: list[dict[str, float]], p: Tensor) -> Tensor:
    """A state slot before the first step, one row a rate."""
    starts = [rule.begins_at(name, given) for given in hyper]
    if starts[0] == "gradient":
        return (p - OPTIMUM) @ hessian()
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


def best_descent(entry: OptimizerEntry) -> Descent:
    """The way at the rate of the grid that is near the optimum, for good, in the fewest steps.

    Where no rate is within :data:`MAX_STEPS`, it is the one that keeps nearest to the optimum after them.
    """
    grid = rates(entry)
    paths = descend(entry, grid)
    far = (paths - OPTIMUM).norm(dim=2).nan_to_num(nan=math.inf)
    arrivals = [min(_arrival(far[:, i] / far[0, i]), MAX_STEPS + 1) for i in range(len(grid))]
    best = min(range(len(grid)), key=lambda i: (arrivals[i], float(far[MAX_STEPS:, i].max())))
    return Descent(grid[best], paths[: MAX_STEPS + 1, best], arrivals[best])


def _arrival(shares: Tensor) -> int:
    outside = torch.nonzero(shares > NEAR)
    return int(outside[-1]) + 1 if len(outside) else 0
