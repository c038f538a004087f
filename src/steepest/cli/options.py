"""Options that several commands share. A default shown here stands in the library's signature; a test holds
the two together."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from steepest.errors import InputError

__all__ = [
    "MODULES",
    "Activation",
    "Data",
    "DataIfAny",
    "Group",
    "Hidden",
    "Ignore",
    "Language",
    "Memory",
    "Metric",
    "Seed",
    "Target",
    "TargetIfAny",
    "Task",
    "Threads",
    "Time",
    "given",
    "refuse",
]

MODULES = "A module of your own"  # the options of one, in a command's help

_DATA = typer.Argument(
    help="A table: CSV, TSV or Parquet; a directory of such files, or a pattern in quotes.",
    metavar="DATA",
    show_default=False,
)
_TARGET = typer.Option(help="The column to predict.", metavar="COLUMN", show_default=False)
Data = Annotated[str, _DATA]
DataIfAny = Annotated[str | None, _DATA]
Target = Annotated[str, _TARGET]
TargetIfAny = Annotated[str | None, _TARGET]
Task = Annotated[
    str | None,
    typer.Option(
        help="regression, binary or multiclass, instead of what the target looks like.",
        metavar="TASK",
        show_default="auto",
    ),
]
Hidden = Annotated[
    str | None,
    typer.Option(
        help="Widths of the hidden layers; none: a linear model.", metavar="WIDTHS", show_default="64,64"
    ),
]
Activation = Annotated[
    str | None, typer.Option(help="relu, tanh, gelu, silu or sigmoid.", metavar="NAME", show_default="relu")
]
Metric = Annotated[
    str | None,
    typer.Option(
        help="What decides: rmse, mae, log_loss, accuracy, ...", metavar="NAME", show_default="by task"
    ),
]
Seed = Annotated[
    int | None, typer.Option(help="Everything random follows from it.", metavar="N", show_default="0")
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="How much memory to take; larger data are streamed from disk.",
        metavar="SIZE",
        show_default=False,
    ),
]
Ignore = Annotated[
    str | None,
    typer.Option(
        help="Columns that take no part: identifiers, what is not known yet when one predicts.",
        metavar="A,B",
        show_default=False,
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        help="A column whose groups (patients, machines) stay whole in one part; no feature then.",
        metavar="COLUMN",
        show_default=False,
    ),
]
Time = Annotated[
    str | None,
    typer.Option(
        help="A column by whose order rows are cut, the last ones held out; no feature then.",
        metavar="COLUMN",
        show_default=False,
    ),
]
Warmup = Annotated[
    float | None,
    typer.Option(
        help="Share of the steps over which the rate rises at first, such as 0.05.",
        metavar="X",
        show_default="0.0",
    ),
]
Language = Annotated[
    str | None,
    typer.Option("--lang", help="The report's language: en or zh.", metavar="LANG", show_default="en"),
]
Threads = Annotated[
    int | None, typer.Option(help="Runs trained at once.", metavar="N", min=1, show_default="all cores")
]


def given(**options: Any) -> dict[str, Any]:
    """Only the options a person gave, so that every default stays in the library's own signature."""
    return {name: value for name, value in options.items() if value is not None}


_WORDS = {"num_threads": "threads", "cluster": "ray"}  # where the library's name is another


def refuse(options: dict[str, Any], why: str) -> None:
    """Refuse options that have nothing to do with what is asked for.

    Raises:
        InputError: there is one.
    """
    for name in options:
        word = _WORDS.get(name, name).replace("_", "-")
        raise InputError(f"{word if word.isupper() else f'--{word}'} {why}.")
