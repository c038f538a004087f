"""What a schedule is: the learning rate's factor as a function of how far training is, and what to know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """A word on the command line: a formula and its texts.

    ``factor(share)`` is what the base rate is multiplied by, a float of a float: ``share`` is how much of the steps is
    behind, k/n in step k of n (k = 0, ..., n - 1), of those that follow a warm-up where there is one. It is ordinary
    arithmetic with :mod:`math`, so that the native engine compiles it as it stands, and the report
    writes it into a program: it names nothing else. At a share of 1, which no step
    has, it may be 0.
    """

    name: str
    title: str
    factor: Callable[[float], float]
    formula: str
    ends: str  # the factors of the first and the last step
    source: str
    good_at: tuple[str, ...]
    bad_at: tuple[str, ...]
