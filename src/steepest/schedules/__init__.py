"""Schedules of the learning rate, each written once as a formula, and as a scheduler for PyTorch code.

``SCHEDULES`` maps the word used on the command line to its entry: the formula and what to know of it.
"""

from steepest.schedules.registry import SCHEDULES
from steepest.schedules.schedule import Schedule
from steepest.schedules.scheduler import ScheduleLR

__all__ = ["SCHEDULES", "Schedule", "ScheduleLR"]
