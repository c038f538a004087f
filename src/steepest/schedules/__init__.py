"""Schedules of the learning rate, each written once as a formula, and as a scheduler for PyTorch code.

``SCHEDULES`` maps the word used on the command line to its entry: the formula and what to know of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steepest.schedules.registry import SCHEDULES
from steepest.schedules.schedule import Schedule

if TYPE_CHECKING:
    from steepest.schedules.scheduler import ScheduleLR

__all__ = ["SCHEDULES", "Schedule", "ScheduleLR"]


def __getattr__(name: str) -> Any:
    if name == "ScheduleLR":  # a report reads the formulas, and needs no torch
        from steepest.schedules.scheduler import ScheduleLR

        return ScheduleLR
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
