"""A comparison's plan, and nothing done of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from steepest.screen.console import console
from steepest.screen.tally import print_notes, print_plan

if TYPE_CHECKING:
    from steepest.comparison.plan import Plan
    from steepest.training.run import Record

__all__ = ["PlanOnly"]


class PlanOnly:
    """Prints what is to be said of the data, and the plan, on standard output; ends before the first run."""

    def data_read(self, notes: Sequence[str]) -> None:
        """Print."""
        print_notes(console(), notes)

    def plan_made(self, plan: Plan) -> None:
        """Print, and leave."""
        print_plan(console(), plan)
        raise typer.Exit

    def stage_started(self, stage: str, num_runs: int, metric: str) -> None:
        """Never reached."""

    def run_finished(self, record: Record) -> None:
        """Never reached."""

    def stage_finished(self) -> None:
        """Never reached."""
