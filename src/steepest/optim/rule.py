"""What an optimizer is: one update rule, its state, and what a person needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["OptimizerEntry", "Rule"]


@dataclass(frozen=True)
class Rule:
    """An update rule, written once; every backend and engine derives from this.

    ``coefficients(step, *hyperparameters)`` gives, once a step (counted from 1.0), the numbers that
    ``update(parameter, gradient, *slots, *coefficients)`` uses for every element; it returns the new
    parameter and the new slots. All numbers in ``update`` come as coefficients, so that it stays in the
    parameters' own precision; ``coefficients`` works in float64 and returns floats.
    """

    update: Callable[..., tuple[Any, ...]]
    coefficients: Callable[..., tuple[float, ...]]
    slots: tuple[str, ...]  # torch's names, so that state dictionaries are exchanged
    hyperparameters: tuple[str, ...]


@dataclass(frozen=True)
class OptimizerEntry:
    """A word on the command line: a class with fixed options, and its rates."""

    name: str
    title: str
    cls: Any  # a torch.optim.Optimizer with rule_of(group) and hyperparameters_of(group)
    default_lr: float
    rates: tuple[float, float]  # the first grid's ends
    formula: str
    source: str
    good_at: tuple[str, ...]
    bad_at: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    compared_by_default: bool = True
