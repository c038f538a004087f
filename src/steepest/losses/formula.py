"""What a loss is: two formulas, and what a person needs to know of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from steepest.tuning_range import TuningRange

__all__ = ["FORMULAS", "Interval", "LossFormula"]


FORMULAS: dict[str, LossFormula] = {}  # every formula there is, by its key


class Interval(NamedTuple):
    """The numbers between two ends; ``closed`` says which ends belong to it, as in ``"[)"``."""

    low: float
    high: float
    closed: str = "()"

    def holds(self, number: float) -> bool:
        """Whether the number lies in the interval."""
        above = number >= self.low if self.closed[0] == "[" else number > self.low
        below = number <= self.high if self.closed[1] == "]" else number < self.high
        return above and below

    def __str__(self) -> str:
        return f"{self.closed[0]}{self.low:g}, {self.high:g}{self.closed[1]}"


@dataclass(frozen=True)
class LossFormula:
    """A loss, written once; every backend, engine, page and picture derives from this.

    ``value`` and ``gradient`` use the vocabulary of :mod:`steepest.backends.reference`.

    * family ``"pointwise"``: ``value(prediction, target, *parameters)`` element by element, ``gradient`` its
      derivative with respect to the prediction.
    * family ``"softmax"``: ``value(log_p, *parameters)`` of a class's log-probability, weighted by the
      target's share of the class; ``gradient`` its derivative with respect to ``log_p``. The family supplies
      the log-softmax and the chain rule.
    * family ``"composite"``: ``value`` is a function of whole tensors, written in torch's operations for what
      no kernel of one element or one row can say; its gradient is autograd's.
    """

    name: str  # the word on the command line
    title: str
    family: Literal["pointwise", "softmax", "composite"]
    value: Callable[..., Any]
    gradient: Callable[..., Any] | None  # None: autograd's
    # What the model's output means; a margin is a real number whose sign is the class, and what comes in pairs or
    # triplets are as many tensors.
    prediction: Literal[
        "real", "logit", "probability", "logits", "log_probability", "log_rate", "margin",
        "distance", "two scores", "two vectors", "three vectors",
        "frames",
    ]  # fmt: skip
    target: Literal[
        "real", "probability", "class", "classes", "sign", "count", "positive", "sequence", "none"
    ]
    tasks: tuple[str, ...]  # where a comparison may use it: regression, binary, multiclass; () is nowhere
    formula: str
    gradient_formula: str
    domain: str
    source: str
    good_at: tuple[str, ...]
    bad_at: tuple[str, ...]
    parameters: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))  # name -> default
    valid: Mapping[str, Interval] = field(default_factory=lambda: MappingProxyType({}))
    tunable: Mapping[str, TuningRange] = field(default_factory=lambda: MappingProxyType({}))
    compared_by_default: bool = True
    # Of a softmax loss that is fitted to the classes' sizes: from each class's number of training rows, the weight
    # and the offset of its logit that an engine trains with.
    class_terms: Callable[[Any], tuple[Any, Any]] | None = None
    key: str = field(init=False)  # what a torch operator, which takes texts and not formulas, is given

    def __post_init__(self) -> None:
        code = self.value.__code__
        digest = hashlib.sha256(code.co_code + repr((code.co_names, code.co_varnames)).encode()).hexdigest()[
            :8
        ]
        key = f"{self.name}:{digest}"
        while key in FORMULAS:  # two of one name and one text: closures, or a text defined again
            key += "'"
        object.__setattr__(self, "key", key)
        FORMULAS[key] = self
