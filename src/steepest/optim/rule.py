"""What an optimizer is: one update rule, its state, and what a person needs to know of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from steepest.tuning_range import TuningRange

__all__ = ["FactoredRule", "OptimizerEntry", "Rule"]

_BETA = re.compile(r"beta[1-9]")


@dataclass(frozen=True)
class Rule:
    """An update rule, written once; every backend and engine derives from this.

    ``coefficients(step, *hyperparameters, *scalars)`` gives, once a step (counted from 1.0), the new scalars
    and then the numbers that ``update(parameter, gradient, *slots, *coefficients)`` uses for every element;
    it returns the new parameter and the new slots. All numbers in ``update`` come as coefficients, so that it
    stays in the parameters' own precision; ``coefficients`` works in float64 and returns floats.

    A layer-wise rule also has ``measure(parameter, gradient, *slots, *coefficients)``, two numbers for every
    element, and ``trust(norm_a, norm_b, *coefficients)``, which makes of their Euclidean norms over the
    tensor (float64) one ratio: the last coefficient of ``update``.
    """

    update: Callable[..., tuple[Any, ...]]
    coefficients: Callable[..., tuple[float, ...]]
    slots: tuple[str, ...]  # torch's names, so that state dictionaries are exchanged
    hyperparameters: tuple[str, ...]
    # Where slots and scalars begin: a number, a hyperparameter's name, "parameter" or "gradient"; else at 0.
    initial: Mapping[str, float | str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    scalars: tuple[str, ...] = ()  # numbers a parameter tensor has in its state, advanced by coefficients
    measure: Callable[..., tuple[Any, Any]] | None = None
    trust: Callable[..., float] | None = None
    # Slots that may be kept in fewer bits, as averages may: "signed", or "unsigned" if a step divides by them.
    averages: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    @property
    def num_coefficients(self) -> int:
        """How many numbers ``update`` takes from ``coefficients``."""
        taken = self.update.__code__.co_argcount - 2 - len(self.slots)
        return taken if self.measure is None else taken - 1

    def begins_at(self, name: str, hyperparameters: Mapping[str, float]) -> float | str:
        """Where a slot or scalar begins: a number, ``"parameter"`` or ``"gradient"``."""
        start = self.initial.get(name, 0.0)
        return hyperparameters[start] if isinstance(start, str) and start in hyperparameters else start

    def scalars_at_first(self, hyperparameters: Mapping[str, float]) -> list[float]:
        """Where the scalars begin."""
        return [float(self.begins_at(name, hyperparameters)) for name in self.scalars]


@dataclass(frozen=True)
class FactoredRule:
    """An update rule that keeps, of the squares of a matrix's gradient, averages over rows and columns alone.

    A tensor of two dimensions or more is matrices in its last two; one of fewer keeps an average for every element,
    and what is said of a column is meant of an element. Lengths are of whole tensors.

    ``coefficients(step, smallest, largest, *hyperparameters)`` gives, once a step, the numbers that the others use, in
    the order of ``names``; ``smallest`` is the parameter's type's distance from 1 to the next number, ``largest`` the
    largest number of the type computed in. Each of the others takes those that it names, after

    * ``average(old, mean square)``: a new average;
    * ``of_row(average, mean of all rows')`` and ``of_column(average)``: what the two have in an element's scale;
    * ``scale(of_row, of_column)``: what an element's gradient is multiplied by (``of_row`` is 1 in a vector);
    * ``length(root mean square of the parameter, of the scaled gradient)``: the step's, one a tensor;
    * ``update(parameter, gradient, scale, length)``: the new parameter.
    """

    coefficients: Callable[..., tuple[float, ...]]
    names: tuple[str, ...]
    average: Callable[..., Any]
    of_row: Callable[..., Any]
    of_column: Callable[..., Any]
    scale: Callable[..., Any]
    length: Callable[..., Any]
    update: Callable[..., Any]
    hyperparameters: tuple[str, ...]
    slots: tuple[str, ...]  # rows' and columns'
    vector_slots: tuple[str, ...]  # elements'
    scalars: tuple[str, ...] = ()
    averages: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    def for_dimensions(self, count: int) -> FactoredRule:
        """The rule as a tensor of so many dimensions keeps it."""
        return self if count > 1 else replace(self, slots=self.vector_slots)

    def places(self, function: Callable[..., Any]) -> list[int]:
        """Which of the coefficients a function of the rule takes."""
        taken = function.__code__.co_varnames[: function.__code__.co_argcount]
        return [self.names.index(word) for word in taken if word in self.names]


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
    tunable: Mapping[str, TuningRange] = field(
        default_factory=lambda: MappingProxyType({})
    )  # by the rule's names
    compared_by_default: bool = True

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options by the rule's names or the class's as the class takes them: ``beta1`` is the first of ``betas``."""
        taken = inspect.signature(self.cls).parameters  # a rule of a person's own may take beta1 as it stands
        in_betas = {name for name in given if _BETA.fullmatch(name) and name not in taken}
        arguments = {name: value for name, value in given.items() if name not in in_betas}
        numbered = {int(name[-1]): given[name] for name in in_betas}
        if numbered:
            betas = arguments.get("betas", taken["betas"].default)
            arguments["betas"] = tuple(numbered.get(place, beta) for place, beta in enumerate(betas, start=1))
        return arguments
