"""How a comparison is going: a live display on a terminal, a line every few seconds elsewhere.

It is drawn on standard error, so that standard output holds the result and nothing else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from steepest.screen.console import can_be_drawn_on, console
from steepest.screen.live import LiveProgress
from steepest.screen.tally import Tally, print_notes, print_plan

if TYPE_CHECKING:
    from rich.console import Console

    from steepest.comparison.plan import Plan
    from steepest.comparison.progress import Progress
    from steepest.training.run import Record

__all__ = ["PlainProgress", "watch"]

_LINE_EVERY_SEC = 5.0


@contextmanager
def watch(*, quiet: bool) -> Iterator[Progress | None]:
    """The observer to hand to a comparison: live, by lines, or none, as where there is no standard error."""
    if quiet or sys.stderr is None or getattr(sys.stderr, "closed", False):
        yield None
        return
    screen = console(sys.stderr)
    if not can_be_drawn_on(screen):
        yield PlainProgress(screen)
        return
    live = LiveProgress(screen)
    with live.drawn():
        yield live


class PlainProgress:
    """A line when a stage begins and ends, and every few seconds between."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._tally = Tally()
        self._last_line = 0.0

    def data_read(self, notes: Sequence[str]) -> None:
        """Say what is to be said of the data while there is time to do something about it, and what takes time now."""
        print_notes(self._screen, notes)
        self._screen.print("Getting the kernels ready: about a minute where they have to be compiled, once.")

    def plan_made(self, plan: Plan) -> None:
        """Say what will be run."""
        self._tally.plan_made(plan)
        print_plan(self._screen, plan)

    def stage_started(self, stage: str, num_runs: int, metric: str) -> None:
        """Say which stage begins."""
        self._tally.start(stage, num_runs, metric)
        self._line()

    def run_finished(self, record: Record) -> None:
        """Count the run; say where things stand now and then."""
        self._tally.add(record)
        if time.monotonic() - self._last_line >= _LINE_EVERY_SEC:
            self._line()

    def stage_finished(self) -> None:
        """Say how the stage ended."""
        if self._tally.num_runs:
            self._line()

    def _line(self) -> None:
        self._last_line = time.monotonic()
        tally = self._tally
        seconds = time.monotonic() - tally.started
        text = f"{seconds:5.0f} s  {tally.stage}"
        if tally.num_runs:
            counted = f"{tally.num_done:,} of {tally.num_runs:,} runs"
            text += f": {'; '.join(filter(None, [counted, tally.time_left(), tally.summary()]))}"
        self._screen.print(text, markup=False, soft_wrap=True)
