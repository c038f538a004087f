"""A schedule laid out over the steps of a training, a warm-up before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from steepest.errors import InputError, near_names
from steepest.schedules.registry import SCHEDULES
from steepest.schedules.schedule import Schedule

__all__ = ["Course", "check_schedule", "check_warmup", "warmed_up"]


def warmed_up(
    factor_of: Callable[[float], float], step: float, num_steps: float, warmup_steps: float
) -> float:
    """The factor in a step: evenly up over the warm-up, to reach 1 in the step after it; then the schedule's."""
    if step < warmup_steps:
        return (step + 1.0) / (warmup_steps + 1.0)
    return factor_of((step - warmup_steps) / (num_steps - warmup_steps))


@dataclass(frozen=True)
class Course:
    """A schedule over so many steps.

    Args:
        schedule: its word.
        num_steps: of the whole training.
        warmup: the share of them that the warm-up takes, rounded to whole steps: at least one, and never all.
    """

    schedule: str
    num_steps: int
    warmup: float = 0.0

    @property
    def warmup_steps(self) -> int:
        """Steps before the schedule begins."""
        if self.warmup == 0.0:
            return 0
        return min(max(1, round(self.warmup * self.num_steps)), self.num_steps - 1)

    def factor(self, step: int) -> float:
        """What the base rate is multiplied by in a step (from 0)."""
        factor_of = SCHEDULES[self.schedule].factor
        return warmed_up(factor_of, float(step), float(self.num_steps), float(self.warmup_steps))


def check_schedule(word: object) -> Schedule:
    """A schedule that is known.

    Raises:
        InputError: there is none of that name.
    """
    if not isinstance(word, str) or word not in SCHEDULES:
        raise InputError(f"There is no schedule {word!r}{near_names(word, SCHEDULES)}")
    return SCHEDULES[word]


def check_warmup(given: object) -> float:
    """A share of the steps.

    Raises:
        InputError: it is none, or leaves no step for the schedule.
    """
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0.0 <= given < 1.0:
        raise InputError(
            f"warmup is a share of the steps, from 0 to below 1 (0.05: a twentieth), not {given!r}."
        )
    return float(given)
