"""How a comparison is going: a live display on a terminal, a line every few seconds elsewhere.

It is drawn on standard error, so that standard output holds the result and nothing else.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from steepest.cli.show import console, number

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.progress import Progress as Bar

    from steepest.comparison.progress import Progress
    from steepest.training.metrics import Metric
    from steepest.training.run import Record

__all__ = ["LiveProgress", "PlainProgress", "PlanOnly", "Tally", "watch"]

_LINE_EVERY_SEC = 5.0
_STAGES = {
    "rung": "pruning",
    "tune": "tuning",
    "finish": "finishing some of the pruned",
    "extend": "extending the rates",
    "confirm": "confirming on fresh seeds",
    "default": "library defaults",
}


@contextmanager
def watch(*, quiet: bool) -> Iterator[Progress | None]:
    """The observer to hand to a comparison: live, by lines, or none."""
    if quiet:
        yield None
        return
    screen = console(sys.stderr)
    if not screen.is_terminal or screen.is_dumb_terminal:
        yield PlainProgress(screen)
        return
    live = LiveProgress(screen)
    with live.drawn():
        yield live


class Tally:
    """What has been seen so far: the stage, how many runs, the best score, the divergences."""

    def __init__(self) -> None:
        self.stage = ""
        self.num_done = 0
        self.num_runs = 0
        self.num_diverged = 0
        self.best: Record | None = None
        self.metric: Metric | None = None
        self.started = time.monotonic()

    def start(self, stage: str, num_runs: int, metric: str) -> None:
        """A stage of ``num_runs`` runs begins, each scored by ``metric``."""
        from steepest.training.metrics import METRICS

        self.stage = _STAGES.get(stage, stage)
        self.num_done, self.num_runs = 0, num_runs
        self.metric = METRICS[metric]

    def add(self, record: Record) -> None:
        """A run ended."""
        self.num_done += 1
        self.num_diverged += record.diverged
        score = record.validation_score
        if self.metric is None or math.isnan(score):
            return
        best = None if self.best is None else self.best.validation_score
        if best is None or (score > best if self.metric.greater_is_better else score < best):
            self.best = record

    def summary(self) -> str:
        """The best so far, and how many runs diverged."""
        parts = []
        if self.metric is not None and self.best is not None:
            run = self.best.run
            score = number(self.best.validation_score)
            parts.append(
                f"best so far {run.loss} + {run.optimizer}, rate {run.lr:.3g}: {self.metric.title} {score}"
            )
        if self.num_diverged:
            parts.append(f"{self.num_diverged:,} diverged")
        return "; ".join(parts)


class PlainProgress:
    """A line when a stage begins and ends, and every few seconds between."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._tally = Tally()
        self._last_line = 0.0

    def plan_made(self, sentences: Sequence[str]) -> None:
        """Say what will be run."""
        _print_plan(self._screen, sentences)

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
        self._line()

    def _line(self) -> None:
        self._last_line = time.monotonic()
        tally = self._tally
        seconds = time.monotonic() - tally.started
        text = f"{seconds:5.0f} s  {tally.stage}: {tally.num_done:,} of {tally.num_runs:,} runs"
        summary = tally.summary()
        self._screen.print(f"{text}; {summary}" if summary else text, markup=False, soft_wrap=True)


class PlanOnly:
    """Prints the plan on standard output, and ends the command before the first run."""

    def plan_made(self, sentences: Sequence[str]) -> None:
        """Print, and leave."""
        _print_plan(console(), sentences)
        raise typer.Exit

    def stage_started(self, stage: str, num_runs: int, metric: str) -> None:
        """Never reached."""

    def run_finished(self, record: Record) -> None:
        """Never reached."""

    def stage_finished(self) -> None:
        """Never reached."""


class LiveProgress:
    """A bar with the runs done and the time left, and the best so far below it."""

    def __init__(self, screen: Console) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        columns = [TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn()]
        if screen.width >= 72:
            columns += [TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(compact=True)]
        self._screen = screen
        self._tally = Tally()
        self._bar: Bar = Bar(*columns, console=screen, expand=True)
        self._task = self._bar.add_task("reading the table", total=None)

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draw while the comparison runs; leave the last state on the screen."""
        from rich.live import Live

        with Live(get_renderable=self._picture, console=self._screen, refresh_per_second=8):
            yield

    def plan_made(self, sentences: Sequence[str]) -> None:
        """Say what will be run, above the bar."""
        _print_plan(self._screen, sentences)

    def stage_started(self, stage: str, num_runs: int, metric: str) -> None:
        """Begin a new bar."""
        self._tally.start(stage, num_runs, metric)
        self._bar.reset(self._task, total=num_runs, description=self._tally.stage)

    def run_finished(self, record: Record) -> None:
        """Count the run."""
        self._tally.add(record)
        self._bar.advance(self._task)

    def stage_finished(self) -> None:
        """Nothing to draw: the next stage follows."""

    def _picture(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        return Group(
            self._bar.get_renderable(), Text(self._tally.summary(), style="dim", overflow="ellipsis")
        )


def _print_plan(screen: Console, sentences: Sequence[str]) -> None:
    for sentence in sentences:
        screen.print(sentence, markup=False, soft_wrap=True)
