"""What a person sees in the terminal: the verdict, the table of cells, the names there are."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from steepest.errors import inert

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from steepest.comparison.fitted import FittedModel
    from steepest.training.run import Run

__all__ = [
    "console",
    "in_course",
    "number",
    "print_fit",
    "print_fit_on_all_rows",
    "print_verdict",
    "rows_table",
]

_MOST_ROWS = 20  # the report has them all
_NARROW = 72  # columns of text; below it the table keeps only what decides


def console(stream: TextIO | None = None) -> Console:
    """A console on ``stream`` (standard output). A file or a pipe gets lines wide enough not to be broken.

    Names out of a table are text to it: no markup, no emoji codes, and nothing that the terminal would obey.
    """
    from rich.console import Console

    class Inert(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(inert(text), **options)

    target = stream or sys.stdout
    width = None if target.isatty() or "COLUMNS" in os.environ else 120
    return Inert(file=target, width=width, highlight=False, markup=False, emoji=False)


def number(value: float | None) -> str:
    """A score as a person reads it: four figures, so that columns line up, and seldom an exponent."""
    if value is None or value != value:
        return "-"
    if 1e4 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:#.4g}".rstrip(".")


def print_verdict(
    verdict: Mapping[str, Any], out: Path, *, has_model: bool = True, table: bool = True
) -> None:
    """Print the sentence, the cells best first (if ``table``), and where the report and the model are."""
    from rich.panel import Panel
    from rich.text import Text

    screen = console()
    done = verdict.get("status") == "complete"
    screen.print()
    screen.print(
        Panel(
            Text(inert(str(verdict["sentence"])), style="bold"),
            title="verdict" if done else "verdict so far (interrupted)",
            title_align="left",
            border_style="green" if done else "yellow",
            padding=(0, 1),
        )
    )
    if table:
        cells = _with_marks(verdict)
        screen.print(_table(cells[:_MOST_ROWS], verdict, narrow=screen.width < _NARROW))
        if rest := cells[_MOST_ROWS:]:
            winners = sum(cell["wins"] for cell in rest)
            also = f", {winners} of them winners too" if winners else ""
            screen.print(f"{len(rest)} more in the report{also}.", style="dim")
        for note in verdict.get("notes", []):
            screen.print(f"Note: {note}", markup=False, style="dim")
    screen.print(f"\nReport: {out / 'report.html'}", markup=False, soft_wrap=True)
    if has_model:
        screen.print(f"Model:  {out / 'model'}", markup=False, soft_wrap=True)


def print_fit_on_all_rows(verdict: Mapping[str, Any], data: str | None) -> None:
    """Where rows were drawn: the command that trains the first winner on all of them."""
    if verdict.get("rows") is None or data is None or not verdict["winners"]:
        return
    from steepest.report.again import fit_command

    command = inert(fit_command(verdict, data, "model"))
    console().print(f"On all rows: {command}", markup=False, soft_wrap=True)


def _key(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(cell.get(name) for name in ("loss", "optimizer", "batch_size", "schedule", "lr", "kind"))


def _with_marks(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cells, each with whether it is in the winner set."""
    winning = {_key(cell) for cell in verdict.get("winners", [])}
    return [{**cell, "wins": _key(cell) in winning} for cell in verdict.get("cells", [])]


def _table(cells: Sequence[Mapping[str, Any]], verdict: Mapping[str, Any], *, narrow: bool) -> Table:
    from rich import box
    from rich.table import Table

    from steepest.training.run import regime

    title = str(verdict.get("metric_title", verdict.get("metric", "score")))
    better = "higher" if verdict.get("greater_is_better") else "lower"
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, caption=f"{title}: {better} is better", caption_justify="left"
    )
    table.add_column("loss")
    table.add_column("optimizer")
    if not narrow:
        table.add_column("batch", justify="right")
        table.add_column("rate", justify="right")
    table.add_column(title, justify="right")
    if not narrow:
        table.add_column("95% interval", justify="right")
    table.add_column("")
    for cell in cells:
        interval = [end for end in cell.get("interval") or () if end is not None]
        row = [str(cell["loss"]), str(cell["optimizer"])]
        if not narrow:
            row += [regime(cell["batch_size"], cell.get("schedule", "constant")), f"{cell['lr']:.3g}"]
        row.append(number(cell.get("score")))
        if not narrow:
            row.append(" to ".join(number(end) for end in interval) if interval else "-")
        row.append(_mark(cell))
        table.add_row(*row, style="bold green" if cell["wins"] else "dim" if cell.get("barred") else None)
    if baseline := verdict.get("baseline"):
        between = [""] * (len(table.columns) - 4 - (not narrow))
        row = ["none", f"always {baseline['says']}", *between, number(baseline["score"])]
        table.add_section()
        table.add_row(*row, *[""] * (not narrow), "baseline")
    return table


def _mark(cell: Mapping[str, Any]) -> str:
    marks = []
    if cell["wins"]:
        marks.append("winner")
    if cell.get("kind") == "default":
        marks.append("default")
    elif not cell.get("tuned", True):
        marks.append("not tuned")
    return ", ".join(marks)


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A table of rows that all have the same keys; the keys are its head."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, value in (rows[0] if rows else {}).items():
        table.add_column(
            name.replace("_", " "), justify="right" if isinstance(value, (int, float)) else "left"
        )
    for row in rows:
        table.add_row(*(number(value) if isinstance(value, float) else str(value) for value in row.values()))
    return table


def in_course(run: Run) -> str:
    """How a run's rate goes, where it does not stay; to stand behind the rate."""
    named = [run.schedule] * (run.schedule != "constant")
    named += [f"warm-up {run.warmup:g}"] * (run.warmup > 0.0)
    return f" ({', '.join(named)})" if named else ""


def print_fit(model: FittedModel, out: Path) -> None:
    """Print what a single run came to, and where the model is."""
    record = model.record
    run = record.run
    screen = console()
    score = number(record.validation_score)
    screen.print(
        f"{run.loss} with {run.optimizer}, rate {run.lr:.3g}{in_course(run)}, batch {run.batch_size}: "
        f"validation {model.metric} {score} at epoch {record.best_epoch} of {record.num_epochs}, "
        f"stopped by {record.stop_reason} after {record.num_steps:,} steps and {record.seconds:.1f} s.",
        markup=False,
    )
    screen.print(f"Model: {out}", markup=False, soft_wrap=True)
