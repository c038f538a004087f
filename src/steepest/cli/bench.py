"""``steepest bench``: measure training against what a person would use instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from steepest.cli.files import check_file, write_file

__all__ = ["bench"]


def bench(
    name: Annotated[str, typer.Argument(help="What to measure.", metavar="NAME")] = "training",
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Write the measurements to this file too.", metavar="FILE", show_default=False
        ),
    ] = None,
) -> None:
    """Measure training against an eager PyTorch loop in the same process: medians and ratios."""
    if json_file is not None:
        check_file(json_file, "--json")

    from steepest.bench import run
    from steepest.cli.show import console, rows_table

    result = run(name)
    screen = console()
    screen.print(rows_table(result["rows"]))
    screen.print(", ".join(f"{name} {value}" for name, value in result["machine"].items()), markup=False)
    if json_file is not None:
        write_file(json_file, json.dumps(result, indent=2) + "\n", "--json")
