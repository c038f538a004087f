"""Every schedule, by its word."""

from __future__ import annotations

from steepest.schedules.constant import CONSTANT
from steepest.schedules.cosine import COSINE
from steepest.schedules.linear import LINEAR
from steepest.schedules.schedule import Schedule
from steepest.schedules.wsd import WSD

__all__ = ["SCHEDULES"]

SCHEDULES: dict[str, Schedule] = {each.name: each for each in (CONSTANT, LINEAR, COSINE, WSD)}
