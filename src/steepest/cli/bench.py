"""``steepest bench``: measure the library against what a person would use instead."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steepest.cli.files import check_file
from steepest.files import write_file

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["bench"]


def bench(
    name: Annotated[
        str, typer.Argument(help="losses, optimizers, training, compare or all.", metavar="NAME")
    ] = "training",
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Tiny sizes, two rounds: see that it runs; the times mean nothing."),
    ] = False,
    device: Annotated[
        str,
        typer.Option(
            "--device", help="cpu, or cuda: a GPU, for losses, optimizers and training.", metavar="DEVICE"
        ),
    ] = "cpu",
    only: Annotated[
        str,
        typer.Option(
            "--only", help="The works with this in their name alone.", metavar="TEXT", show_default=False
        ),
    ] = "",
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Write the measurements to this file too, after each work.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Measure against PyTorch, JAX, scikit-learn, Optuna and Ray Tune, side by side: medians and ratios."""
    if json_file is not None:
        check_file(json_file, "--json")

    from steepest.bench import run
    from steepest.screen.console import console

    def keep(result: Mapping[str, Any]) -> None:
        if json_file is not None:
            write_file(json_file, (json.dumps(result, indent=2) + "\n").encode(), "--json {path}")

    with _watched() as on_work:
        result = run(name, quick=quick, device=device, only=only, on_work=on_work, on_rows=keep)
    screen = console()
    screen.print(_table(result["rows"]))
    for note in dict.fromkeys(f"{row['peer']}: {row['note']}" for row in result["rows"] if row["note"]):
        screen.print(note, markup=False, style="dim", soft_wrap=True)
    screen.print(", ".join(f"{name} {value}" for name, value in result["machine"].items()), markup=False)
    if quick:
        screen.print("A quick run: the times mean nothing.")


@contextmanager
def _watched() -> Iterator[Callable[[int, int, str], None]]:
    """A bar on standard error while it is measured, or a line a work where that is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from steepest.screen.console import can_be_drawn_on, console

    screen = console(sys.stderr)
    if not can_be_drawn_on(screen):
        yield lambda done, total, work: screen.print(
            f"{done + 1} of {total}  {work}", markup=False, soft_wrap=True
        )
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total, work: progress.update(task, completed=done, total=total, description=work)


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from steepest.bench.table import HEAD, cells, verdict

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, title in enumerate(HEAD):
        table.add_column(title, overflow="fold", justify="right" if 2 <= number <= 5 else "left")
    styles = {"reached": "green", "missed": "yellow", "slower": "red", "larger": "red"}
    for row in rows:
        table.add_row(*(Text(entry) for entry in cells(row)), style=styles.get(verdict(row)))
    return table
