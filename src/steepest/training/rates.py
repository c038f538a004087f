"""A run's schedule: laid out over its steps, and compiled for the native engine."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from numba import types

from steepest.backends import cpu
from steepest.errors import InputError
from steepest.schedules import SCHEDULES
from steepest.schedules.course import Course, check_schedule, check_warmup, warmed_up
from steepest.training.run import Run

__all__ = ["RATE_FACTOR", "check_course", "course_of", "has_course", "rate_kernel", "set_rate"]

RATE_FACTOR = types.float64(types.float64, types.float64, types.float64)  # of step, steps, warm-up's steps

factor_of: Any = None  # bound when a kernel is compiled
warmed: Any = None


def has_course(run: Run) -> bool:
    """Whether the rate changes on the way."""
    return run.schedule != "constant" or run.warmup > 0.0


def course_of(run: Run, steps_an_epoch: int) -> Course | None:
    """The run's schedule over its steps; None where the rate is the same in all of them.

    Raises:
        InputError: there is no such schedule, or nothing says how many steps there will be.
    """
    schedule, warmup = check_schedule(run.schedule), check_warmup(run.warmup)
    if not has_course(run):
        return None
    epochs = run.schedule_epochs or run.stop.max_epochs
    lengths = [] if epochs is None else [epochs * steps_an_epoch]
    lengths += [] if run.stop.max_steps is None else [run.stop.max_steps]
    if not lengths:
        what = f"The schedule {schedule.name!r}" if schedule.name != "constant" else "A warm-up"
        raise InputError(f"{what} needs a length that is known beforehand; give max_epochs or max_steps.")
    return Course(schedule.name, min(lengths), warmup)


def check_course(run: Run, steps_an_epoch: int) -> None:
    """A schedule has steps to go over.

    Raises:
        InputError: it has one, in which nothing could change; or what :func:`course_of` raises.
    """
    course = course_of(run, steps_an_epoch)
    if course is not None and course.num_steps < 2:
        what = "a schedule" if run.schedule != "constant" else "a warm-up"
        raise InputError(
            f"The training has a single step, over which {what} cannot change the rate; give more epochs or a smaller "
            "batch size, or leave it out."
        )


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The rate of all of an optimizer's parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _factor(step: float, num_steps: float, warmup_steps: float) -> float:
    return warmed(factor_of, step, num_steps, warmup_steps)  # type: ignore[no-any-return]


@cache
def rate_kernel(schedule: str) -> cpu.Kernel:
    """The factor of a step, by the schedule's own formula."""
    parts = {"factor_of": cpu.bind(SCHEDULES[schedule].factor), "warmed": cpu.bind(warmed_up)}
    return cpu.compile_kernel(_factor, RATE_FACTOR, parts)
