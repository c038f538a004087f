"""What a person sees in the terminal: the verdict, the table of cells, the names there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steepest.errors import inert
from steepest.screen.console import console, in_course, number

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from steepest.comparison.fitted import FittedModel

__all__ = ["print_fit", "print_fit_on_all_rows", "print_verdict", "rows_table"]

_MOST_ROWS = 20  # the report has them all
_UNBOUNDED = 1000  # columns of text: more than any line has


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
    if table and (cells := _with_marks(verdict)):
        screen.print(_table(cells[:_MOST_ROWS], verdict, screen))
        screen.print(
            _caption(verdict), style="table.caption", markup=False
        )  # the table's own is broken at its width
        if rest := cells[_MOST_ROWS:]:
            winners = sum(bool(cell["wins"]) for cell in rest)
            which = "all" if winners == len(rest) else str(winners)
            also = f", {which} of them {'a winner' if winners == 1 else 'winners'} too" if winners else ""
            screen.print(f"{len(rest)} more in the report{also}.", style="dim")
    if table:
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
    """The cells, each with what it is called in the winner set, or nothing."""
    winning = {_key(cell) for cell in verdict.get("winners", [])}
    word = "best so far" if verdict.get("status") == "interrupted" else "winner"
    return [{**cell, "wins": word * (_key(cell) in winning)} for cell in verdict.get("cells", [])]


def _table(cells: Sequence[Mapping[str, Any]], verdict: Mapping[str, Any], screen: Console) -> Table:
    """The cells, as far as they fit the screen: the rest is left to the report, what decides least first."""
    from rich.measure import Measurement

    unbounded = screen.options.update(max_width=_UNBOUNDED)
    for left_out in ((), ("95% interval",), ("95% interval", "batch", "rate")):
        table = _table_without(left_out, cells, verdict)
        if Measurement.get(screen, unbounded, table).maximum <= screen.width:
            break
    return table


def _caption(verdict: Mapping[str, Any]) -> str:
    """What the scores are, and what needs no model."""
    told = f"{_title(verdict)}: {'higher' if verdict.get('greater_is_better') else 'lower'} is better"
    if baseline := verdict.get("baseline"):
        told += f"; without a model, always {baseline['says']}: {number(baseline['score'])}"
    return told


def _title(verdict: Mapping[str, Any]) -> str:
    return str(verdict.get("metric_title", verdict.get("metric", "score")))


def _table_without(
    left_out: Sequence[str], cells: Sequence[Mapping[str, Any]], verdict: Mapping[str, Any]
) -> Table:
    from rich import box
    from rich.table import Table

    columns = [(head, values) for head, values in _columns(cells, _title(verdict)) if head not in left_out]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, (head, _) in enumerate(columns):
        table.add_column(head, justify="left" if place < 2 or not head else "right")
    for cell, *row in zip(cells, *(values for _, values in columns), strict=True):
        table.add_row(*row, style="bold green" if cell["wins"] else "dim" if cell.get("barred") else None)
    return table


def _columns(cells: Sequence[Mapping[str, Any]], title: str) -> list[tuple[str, list[str]]]:
    """Heads, and what stands below each; where all cells have the same batches, the sentence says which."""
    from steepest.training.run import regime

    regimes = [regime(cell["batch_size"], cell.get("schedule", "constant")) for cell in cells]
    ends = [[end for end in cell.get("interval") or () if end is not None] for cell in cells]
    return [
        ("loss", [str(cell["loss"]) for cell in cells]),
        ("optimizer", [str(cell["optimizer"]) for cell in cells]),
        *([("batch", regimes)] if len(set(regimes)) > 1 else []),
        ("rate", [f"{cell['lr']:.3g}" for cell in cells]),
        (title, [number(cell.get("score")) for cell in cells]),
        ("95% interval", [" to ".join(map(number, both)) if both else "-" for both in ends]),
        ("", [_mark(cell) for cell in cells]),
    ]


def _mark(cell: Mapping[str, Any]) -> str:
    marks = [cell["wins"]] if cell["wins"] else []
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


def print_fit(model: FittedModel, out: Path) -> None:
    """Print what a single run came to, and where the model is."""
    record = model.record
    from steepest.screen.tally import print_notes
    from steepest.training.metrics import METRICS

    run = record.run
    screen = console()
    print_notes(screen, model.notes)
    judged = f"{record.num_epochs:,} epoch{'s' * (record.num_epochs != 1)} without validation rows"
    if record.best_epoch:
        score = number(record.validation_score)
        judged = f"validation {METRICS[model.metric].title} {score} at epoch {record.best_epoch} of {record.num_epochs}"
    reason = record.stop_reason
    ended = reason if reason == "interrupted" else f"stopped by {reason}"
    screen.print(
        f"{run.loss} with {run.optimizer}, rate {run.lr:.3g}{in_course(run)}, batch {run.batch_size}: {judged}, "
        f"{ended} after {record.num_steps:,} steps and {record.seconds:.1f} s.",
        markup=False,
    )
    screen.print(f"Model: {out}", markup=False, soft_wrap=True)
