"""``steepest explain``: a loss, an optimizer or a schedule in words, as a formula and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steepest.cli.files import check_file
from steepest.cli.options import Imports

__all__ = ["explain"]


def explain(
    name: Annotated[
        str,
        typer.Argument(
            help="A loss, an optimizer or a schedule; see 'steepest list'.",
            metavar="NAME",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Save the drawing, .svg or .png, or the page that moves, .html.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    imports: Imports = None,
) -> None:
    """Show a loss, an optimizer or a schedule: formula, domain, defaults, source, strengths and faults."""
    if out is not None:
        check_file(out, "--out")

    from steepest.explain import explain as look_up
    from steepest.screen.console import console

    explanation = look_up(name)
    if out is not None:
        explanation.save(out)  # first: a name it cannot save under is said before anything is printed
    screen = console()
    screen.print(explanation.text, markup=False)
    if out is None:
        for line in explanation.terminal():
            screen.print(line, markup=False, soft_wrap=True)
    else:
        what = "Page" if out.suffix.lower() == ".html" else "Drawing"
        screen.print(f"{what}: {out}", markup=False, soft_wrap=True)
