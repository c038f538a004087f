"""``steepest report``: build the report of a finished comparison again, or set two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steepest.cli.options import Language
from steepest.errors import InputError

__all__ = ["report"]


def report(
    directory: Annotated[
        Path, typer.Argument(help="A folder that compare wrote.", metavar="DIR", show_default=False)
    ],
    other: Annotated[
        Path | None,
        typer.Argument(help="Another, to be set beside it.", metavar="DIR", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The page about both.", metavar="FILE", show_default="beside.html"),
    ] = None,
    lang: Language = None,
) -> None:
    """Build DIR/report.html again from what the comparison recorded; of two, a page with both side by side."""
    if other is not None:
        if lang not in (None, "en"):
            raise InputError("--lang goes with one folder; the page about two is in English.")
        from steepest.comparison.beside import write as write_both

        typer.echo(f"Report: {write_both(directory, other, out or Path('beside.html'))}")
        return
    if out is not None:
        raise InputError("--out goes with two folders; the report of one is written into it.")
    from steepest.report import write

    typer.echo(f"Report: {write(directory, lang or 'en')}")
