"""The page of a schedule: everything from its entry, drawn by its own formula."""

from __future__ import annotations

from steepest.explain.figure import BESIDE, Figure, Line, Panel, Window
from steepest.explain.page import Explanation
from steepest.schedules import Schedule, ScheduleLR
from steepest.schedules.course import Course

__all__ = ["schedule_page"]

_STEPS, _WARMUP = 200, 0.1


def schedule_page(schedule: Schedule) -> Explanation:
    """The page of a schedule."""
    name = schedule.name
    sections = [
        ("factor", (f"{schedule.formula} in step k of n (k = 0, ..., n - 1), times the learning rate",)),
        ("ends", (schedule.ends,)),
        (
            "warm-up",
            ("of w steps, any schedule's: (k + 1)/(w + 1); then k and n count the steps after it",),
        ),
        ("in Python", (f'steepest.schedules.{ScheduleLR.__name__}(optimizer, "{name}", num_steps=n)',)),
        (
            "command",
            (
                f"--schedule {name}; of a comparison, --schedules with several",
                "--warmup 0.05: a rise over a twentieth of the steps first",
            ),
        ),
        ("source", (schedule.source,)),
        ("good at", schedule.good_at),
        ("bad at", schedule.bad_at),
    ]
    return Explanation(
        name=name,
        title=f"{name}: {schedule.title}",
        sections=tuple(sections),
        make_figure=lambda: schedule_figure(schedule),
        make_page=_still,
    )


def schedule_figure(schedule: Schedule) -> Figure:
    """The factor of every step, without a warm-up and with one."""
    lines = []
    for label, series, warmup in (("with a warm-up", BESIDE, _WARMUP), (schedule.name, 0, 0.0)):
        course = Course(schedule.name, _STEPS, warmup)
        factors = tuple(course.factor(step) for step in range(_STEPS))
        lines.append(Line(label, tuple(map(float, range(_STEPS))), factors, series))
    panel = Panel(
        "factor", "step", "times the learning rate", tuple(lines),
        given_window=Window(0.0, float(_STEPS), 0.0, 1.05),
    )  # fmt: skip
    return Figure(
        title=f"The factor of the schedule {schedule.name}",
        panels=(panel,),
        caption=(f"Over {_STEPS} steps; the warm-up takes {_WARMUP:.0%} of them.",),
    )


def _still(page: Explanation) -> str:
    """A page without scripts, for there is nothing in it to move; light or dark by the browser's own colours."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<style>body { margin: 0; }</style>\n'
        f"<title>{page.title}</title>\n</head>\n<body>\n<main>\n{page._repr_html_()}\n</main>\n</body>\n</html>\n"
    )
