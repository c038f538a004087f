"""The live display of a comparison: time left, the grid of losses and optimizers as it fills, the best so far."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from steepest.screen.console import is_terminal, number
from steepest.screen.tally import Tally, print_notes, print_plan

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.progress import Progress as Bar
    from rich.table import Table
    from rich.text import Text

    from steepest.comparison.plan import Plan
    from steepest.training.run import Record

__all__ = ["Grid", "LiveProgress"]

_SCORE_WIDTH, _METER_WIDTH, _DIVERGED_WIDTH = 8, 6, 5
_LINES_AROUND = 6  # the bar, the head, the summary, and room for the prompt
_CLOSE = 0.01  # a score within one percent of the best is shown as near it


@dataclass
class _Square:
    """What is known of one pair in one batch regime."""

    num_done: int = 0
    num_diverged: int = 0
    best: float = math.nan


class Grid:
    """The pairs of a plan and what their runs have given.

    Args:
        plan: decides the rows (optimizers, in each batch regime) and the columns (losses).
        greater_is_better: of the metric.
    """

    def __init__(self, plan: Plan, greater_is_better: bool) -> None:
        from steepest.training.run import regime

        self.losses = list(plan.losses)
        regimes = [regime(size, schedule) for size in plan.batch_sizes for schedule in plan.schedules]
        self.rows = [(name, each) for name in plan.optimizers for each in regimes]
        self.several_regimes = len(regimes) > 1
        self.runs_a_cell = plan.runs_a_cell
        self.greater_is_better = greater_is_better
        self.squares = {(loss, *row): _Square() for loss in self.losses for row in self.rows}

    def add(self, record: Record) -> None:
        """A run ended."""
        from steepest.training.run import regime

        run = record.run
        square = self.squares.get((run.loss, run.optimizer, regime(run.batch_size, run.schedule)))
        if square is None:
            return
        square.num_done += 1
        square.num_diverged += record.diverged
        if self._is_better(record.validation_score, square.best):
            square.best = record.validation_score

    def _is_better(self, score: float, than: float) -> bool:
        if math.isnan(score) or math.isnan(than):
            return not math.isnan(score)
        return score > than if self.greater_is_better else score < than

    @property
    def best(self) -> float:
        """The best score of all; NaN before there is one."""
        best = math.nan
        for square in self.squares.values():
            if self._is_better(square.best, best):
                best = square.best
        return best

    def picture(self, width: int, height: int, ascii_only: bool) -> Table:
        """Optimizers down, losses across, as many as there is room for, the best first where there is not."""
        from rich.table import Table
        from rich.text import Text

        names = {row: f"{row[0]}, {_batch(row[1])}" if self.several_regimes else row[0] for row in self.rows}
        name_width = max(map(len, names.values()))
        with_meter = name_width + len(self.losses) * (self._cell_width(True) + 2) <= width
        columns = self._fitting(self.losses, (width - name_width) // (self._cell_width(with_meter) + 2))
        rows = self._fitting(self.rows, height - _LINES_AROUND)
        table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
        table.add_column("")
        for loss in columns:
            table.add_column(loss, no_wrap=True, header_style="bold")
        best = self.best
        for row in rows:
            squares = (self.squares[(loss, *row)] for loss in columns)
            cells = [self._cell(square, best, with_meter, ascii_only) for square in squares]
            table.add_row(Text(names[row]), *cells)
        hidden = len(self.squares) - len(rows) * len(columns)
        if hidden:
            table.add_row(Text(f"and {hidden} more", style="dim"))
        return table

    def _cell_width(self, with_meter: bool) -> int:
        return _SCORE_WIDTH + (_METER_WIDTH + 1) * with_meter + _DIVERGED_WIDTH

    def _fitting(self, entries: list[Any], room: int) -> list[Any]:
        """All of them in the plan's order; the best ones, where there is no room for all."""
        if len(entries) <= room:
            return entries

        def cost(entry: Any) -> float:
            own = [square.best for key, square in self.squares.items() if entry in (key[0], key[1:])]
            known = [-score if self.greater_is_better else score for score in own if not math.isnan(score)]
            return min(known, default=math.inf)

        return sorted(entries, key=cost)[: max(1, room)]

    def _cell(self, square: _Square, best: float, with_meter: bool, ascii_only: bool) -> Text:
        from rich.text import Text

        text = Text()
        if math.isnan(square.best):
            text.append(("." if ascii_only else "·").ljust(_SCORE_WIDTH), style="dim")
        else:
            near = abs(square.best - best) <= _CLOSE * abs(best)
            style = "bold green" if square.best == best else "green" if near else ""
            text.append(number(square.best).ljust(_SCORE_WIDTH), style=style)
        if with_meter:
            full = min(_METER_WIDTH, _METER_WIDTH * square.num_done // max(1, self.runs_a_cell))
            mark, rest = ("#", "-") if ascii_only else ("━", "─")
            text.append(" ")
            text.append(mark * full, style="cyan")
            text.append(rest * (_METER_WIDTH - full), style="dim")
        if square.num_diverged:
            sign = "x" if ascii_only else "✗"
            text.append(f" {sign}{square.num_diverged}", style="red")
        return text


def _batch(size: str) -> str:
    size, _, schedule = size.partition(" ")
    return ("full batch" if size == "full" else f"batch {size}") + f", {schedule}" * bool(schedule)


@cache
def _let_forked_processes_print() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_print_as_ever)


def _print_as_ever() -> None:
    """Take the display away from a forked process, such as a data loader's worker: what it prints would wait for ever
    for the display's lock, where a thread that it has not got held that.
    """
    from rich.file_proxy import FileProxy

    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, FileProxy):
            setattr(sys, name, stream.rich_proxied_file)


class LiveProgress:
    """A bar with the runs done and the time left; the grid below it; then the best so far."""

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
        self._plan: Plan | None = None
        self._grid: Grid | None = None
        self._bar: Bar = Bar(*columns, console=screen, expand=True, speed_estimate_period=120.0)
        self._task = self._bar.add_task("reading the data", total=None)

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draw while the comparison runs; leave the last state on the screen."""
        from rich.live import Live

        _let_forked_processes_print()
        live = Live(
            get_renderable=self._picture,
            console=self._screen,
            refresh_per_second=8,
            redirect_stdout=is_terminal(sys.stdout),  # into a file or a pipe it goes as ever
        )
        with live:
            yield

    def data_read(self, notes: Sequence[str]) -> None:
        """Say what is to be said of the data, above the bar, and what takes time now."""
        print_notes(self._screen, notes)
        self._bar.update(self._task, description="getting the kernels ready")

    def plan_made(self, plan: Plan) -> None:
        """Say what will be run, above the bar."""
        print_plan(self._screen, plan)
        self._plan = plan
        self._tally.plan_made(plan)

    def stage_started(self, stage: str, num_runs: int, metric: str) -> None:
        """Name the stage."""
        self._tally.start(stage, num_runs, metric)
        if self._grid is None and self._plan is not None and self._tally.metric is not None:
            self._grid = Grid(self._plan, self._tally.metric.greater_is_better)
        self._bar.update(self._task, total=self._tally.num_planned, description=self._tally.stage)

    def run_finished(self, record: Record) -> None:
        """Count the run."""
        self._tally.add(record)
        if self._grid is not None:
            self._grid.add(record)
        self._bar.advance(self._task)

    def stage_finished(self) -> None:
        """Nothing to draw: the next stage follows."""

    def _picture(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        parts = [self._bar.get_renderable()]
        if self._grid is not None:
            screen = self._screen
            ascii_only = not screen.encoding.lower().startswith("utf")
            parts.append(self._grid.picture(screen.width, screen.height, ascii_only))
        parts.append(Text(self._tally.summary(), style="dim", overflow="ellipsis"))
        return Group(*parts)
