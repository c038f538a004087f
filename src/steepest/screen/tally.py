"""What has been seen of a comparison so far, and how it is said."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from steepest.screen.console import in_course, is_terminal, number

if TYPE_CHECKING:
    from rich.console import Console

    from steepest.comparison.plan import Plan
    from steepest.training.metrics import Metric
    from steepest.training.run import Record

__all__ = ["Tally", "print_notes", "print_plan"]

_STAGES = {
    "rung": "pruning",
    "tune": "tuning",
    "finish": "finishing some of the pruned",
    "extend": "extending the rates",
    "options": "tuning the other options",
    "confirm": "confirming on fresh seeds",
    "default": "library defaults",
    "model": "training the model that is handed over",
}


_LEFT_IS_TOLD_AFTER_SEC = 10.0  # of runs: before that the speed is a guess


class Tally:
    """What has been seen so far: the stage, how many runs, the best score, the divergences, the time that is left."""

    def __init__(self) -> None:
        self.stage = ""
        self.num_done = 0
        self.num_runs = 0
        self.num_ended = 0  # in all stages
        self.num_recalled = 0  # of these: no time went into them
        self.num_planned = 0  # in all stages, as far as the plan knows them
        self.num_diverged = 0
        self.best: Record | None = None
        self.metric: Metric | None = None
        self.started = time.monotonic()
        self.runs_began: float | None = None

    def plan_made(self, plan: Plan) -> None:
        """So many runs are to be expected."""
        self.num_planned = len(plan.cells) * plan.runs_a_cell

    def start(self, stage: str, num_runs: int, metric: str) -> None:
        """A stage of ``num_runs`` runs begins, each scored by ``metric``."""
        from steepest.training.metrics import METRICS

        self.stage = _STAGES.get(stage, stage)
        self.num_done, self.num_runs = 0, num_runs
        if stage == "extend":  # wider grids, of which the plan could not know
            self.num_planned += num_runs
        if stage == "default":  # the last one; the plan counts more confirmations than there may be
            self.num_planned = 0
        self.num_planned = max(self.num_planned, self.num_ended + num_runs)
        self.metric = METRICS[metric]
        if self.runs_began is None:
            self.runs_began = time.monotonic()

    def add(self, record: Record) -> None:
        """A run ended."""
        self.num_done += 1
        self.num_ended += 1
        self.num_recalled += record.is_recalled
        self.num_diverged += record.diverged
        score = record.validation_score
        if self.metric is None or math.isnan(score):
            return
        best = None if self.best is None else self.best.validation_score
        if best is None or (score > best if self.metric.greater_is_better else score < best):
            self.best = record

    def time_left(self) -> str:
        """``"about 24 min left"`` by the speed so far; nothing while that is not known, and at the end."""
        seconds = 0.0 if self.runs_began is None else time.monotonic() - self.runs_began
        num_run, num_left = self.num_ended - self.num_recalled, self.num_planned - self.num_ended
        if not num_run or seconds < _LEFT_IS_TOLD_AFTER_SEC or num_left <= 0:
            return ""
        left = seconds / num_run * num_left
        return f"about {_duration(left)} left"

    def summary(self) -> str:
        """The best so far, and how many runs diverged."""
        parts = []
        if self.metric is not None and self.best is not None:
            run = self.best.run
            score = number(self.best.validation_score)
            parts.append(
                f"best so far {run.loss} + {run.optimizer}, rate {run.lr:.3g}{in_course(run)}: "
                f"{self.metric.title} {score}"
            )
        if self.num_diverged:
            parts.append(f"{self.num_diverged:,} diverged")
        return "; ".join(parts)


def _duration(seconds: float) -> str:
    """In the unit that a person would take: seconds, minutes, hours, days."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(1.0, seconds):.0f} s"


def print_notes(screen: Console, notes: Sequence[str]) -> None:
    """What is to be said of the data, a line each."""
    for note in notes:
        _print_line(screen, f"Note: {note}", style="dim")


def print_plan(screen: Console, plan: Plan) -> None:
    """What is about to be run, and what was left out, a line each."""
    for sentence in plan.in_words():
        _print_line(screen, sentence)


def _print_line(screen: Console, text: str, style: str | None = None) -> None:
    """One line in a file or a pipe; on a terminal, which would break it within a word, broken between words."""
    screen.print(text, markup=False, soft_wrap=not is_terminal(screen.file), style=style)
