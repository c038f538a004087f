"""What a loss is: two formulas, and what a person needs to know of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

__all__ = ["LossFormula"]


@dataclass(frozen=True)
class LossFormula:
    """A loss, written once; every backend, engine, page and picture derives from this.

    ``value`` and ``gradient`` use the vocabulary of :mod:`steepest.backends.reference`.

    * family ``"pointwise"``: ``value(prediction, target, *parameters)`` element by element, ``gradient`` its
      derivative with respect to the prediction.
    * family ``"softmax"``: ``value(log_p, *parameters)`` of a class's log-probability, weighted by the
      target's share of the class; ``gradient`` its derivative with respect to ``log_p``. The family supplies
      the log-softmax and the chain rule.
    """

    name: str  # the word on the command line
    title: str
    family: Literal["pointwise", "softmax"]
    value: Callable[..., Any]
    gradient: Callable[..., Any]
    prediction: Literal["real", "logit", "probability", "logits"]  # what the model's output means
    target: Literal["real", "probability", "class"]
    tasks: tuple[str, ...]  # where it may be used: regression, binary, multiclass
    formula: str
    gradient_formula: str
    domain: str
    source: str
    good_at: tuple[str, ...]
    bad_at: tuple[str, ...]
    parameters: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))  # name -> default
    valid: Mapping[str, tuple[float, float]] = field(
        default_factory=lambda: MappingProxyType({})
    )  # open range
    compared_by_default: bool = True
