"""What is measured, as data: a work, its contestants, its limit, and the bars it is held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["OURS", "Bar", "Contestant", "Field", "Limit", "Missing", "Ratio", "Share", "Within", "Work"]

OURS = "steepest"


@dataclass(frozen=True)
class Contestant:
    """One way to do the work.

    ``call`` does it, or returns what was measured elsewhere, in another process (``{"time": seconds, ...}``).
    """

    call: Callable[[], Mapping[str, float] | None]
    version: str = ""
    units: float = 1.0  # how often a call does the work: a loop of 200 steps does 200
    before: Callable[[], object] | None = None  # untimed, in front of every call
    facts: Callable[[], Mapping[str, float]] = field(default=dict)  # asked once, after the rounds
    note: str = ""


@dataclass(frozen=True)
class Missing:
    """A contestant that cannot take part here, and why."""

    reason: str


Field = Mapping[str, Contestant | Missing]  # by name; ours is OURS


@dataclass(frozen=True)
class Limit:
    """What no contestant can beat: bytes that have to move, or floating-point operations, in one work.

    ``by`` makes what measures its speed, told whether quickly; a unit is a byte or an operation. None: the CPU's.
    """

    kind: Literal["memory bandwidth", "sgemm", "copy bandwidth", "bfloat16 product"]
    amount: float
    by: Callable[[bool], Contestant] | None = None


@dataclass(frozen=True)
class Ratio:
    """Held to peers, to the best of them that is there: theirs over ours, above 1 where ours is better."""

    peers: tuple[str, ...]
    at_least: float | None = None  # None: shown, not judged
    quantity: str = "time"


@dataclass(frozen=True)
class Share:
    """Held to the limit: a share of it."""

    at_least: float | None = None  # None: shown, not judged


@dataclass(frozen=True)
class Within:
    """Held to an amount of its own: seconds, or of another quantity bytes."""

    at_most: float
    quantity: str = "time"


Bar = Ratio | Share | Within


@dataclass(frozen=True)
class Work:
    """One thing to measure; every bar makes a row.

    ``build`` makes the contestants when their turn comes, so that one work's memory is gone before the next.
    """

    name: str
    build: Callable[[], Field]
    bars: tuple[Bar, ...]
    limit: Limit | None = None
    num_threads: int | None = None  # of torch and BLAS, the limit's included; None: theirs
    rounds: int | None = None  # None: the suite's
    warm_up: bool = True  # False: each call begins afresh, in a process of its own
