"""``steepest report``: build the report of a finished comparison again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    directory: Annotated[
        Path, typer.Argument(help="A folder that compare wrote.", metavar="DIR", show_default=False)
    ],
) -> None:
    """Build DIR/report.html again from what the comparison recorded."""
    from steepest.report import write

    typer.echo(f"Report: {write(directory)}")
