"""``steepest report``: build the report of a finished comparison again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steepest.cli.options import Language

__all__ = ["report"]


def report(
    directory: Annotated[
        Path, typer.Argument(help="A folder that compare wrote.", metavar="DIR", show_default=False)
    ],
    lang: Language = None,
) -> None:
    """Build DIR/report.html again from what the comparison recorded."""
    from steepest.report import write

    typer.echo(f"Report: {write(directory, lang or 'en')}")
