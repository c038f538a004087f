"""Descent along a ravine: a quadratic a hundred times steeper across than along, turned against the axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from steepest.optim import OptimizerEntry

__all__ = [
    "CONDITION",
    "NEAR",
    "OPTIMUM",
    "TURN_DEGREES",
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
RATES_A_DECADE = 16

_ALONG, _ACROSS = 1.0, 0.2  # where the optimum lies, in the ravine's own directions


def _turn() -> Tensor:
    c, s = math.cos(math.radians(TURN_DEGREES)), math.sin(math.radians(TURN_DEGREES))
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def hessian() -> Tensor:
    """The second derivatives: ``f(p) = (p - OPTIMUM) H (p - OPTIMUM) / 2``."""
    turn = _turn()
    return turn @ torch.diag(torch.tensor([1.0, CONDITION], dtype=torch.float64)) @ turn.T


OPTIMUM = _turn() @ torch.tensor([_ALONG, -_ACROSS], dtype=torch.float64)


@dataclass(frozen=True)
class Descent:
    """One optimizer's way from the origin, at its best rate."""

    lr: float
    path: Tensor  # (steps + 1, 2)
    num_steps: int  # after which it is near the optimum and stays there; MAX_STEPS: never

    @property
    def arrives(self) -> bool:
        """Whether it comes near and stays."""
        return self.num_steps < MAX_STEPS

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


def descend(entry: OptimizerEntry, learning_rates: list[float], num_steps: int = MAX_STEPS) -> Tensor:
    """The paths from the origin, one a rate: (steps + 1, rates, 2), by the entry's own update rule."""
    group = entry.cls([torch.nn.Parameter(torch.zeros(1))], **{"lr": 1.0, **entry.options}).param_groups[0]
    rule, hyper = entry.cls.rule_of(group), entry.cls.hyperparameters_of(group)
    curvature = hessian()
    p = torch.zeros(len(learning_rates), 2, dtype=torch.float64)
    slots = [torch.zeros_like(p) for _ in rule.slots]
    path = [p]
    for step in range(1, num_steps + 1):
        numbers = [rule.coefficients(float(step), *{**hyper, "lr": lr}.values()) for lr in learning_rates]
        coefficients = torch.tensor(numbers, dtype=torch.float64).T.unsqueeze(-1)
        p, *slots = rule.update(p, (p - OPTIMUM) @ curvature, *slots, *coefficients)
        path.append(p)
    return torch.stack(path)


def best_descent(entry: OptimizerEntry) -> Descent:
    """The way at the rate of the grid that is near the optimum, for good, in the fewest steps."""
    grid = rates(entry)
    paths = descend(entry, grid)
    far = (paths - OPTIMUM).norm(dim=2).nan_to_num(nan=math.inf)
    arrivals = [_arrival(far[:, i] / far[0, i]) for i in range(len(grid))]
    best = min(range(len(grid)), key=lambda i: (arrivals[i], float(far[-1, i])))
    return Descent(grid[best], paths[:, best], arrivals[best])


def _arrival(shares: Tensor) -> int:
    outside = torch.nonzero(shares > NEAR)
    return int(outside[-1]) + 1 if len(outside) else 0
