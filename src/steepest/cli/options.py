"""Options that several commands share. A default shown here stands in the library's signature; a test holds
the two together."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from steepest.errors import InputError

__all__ = [
    "DATA",
    "GOES_ON",
    "JUDGED",
    "MODULES",
    "NETWORK",
    "OUTPUT",
    "PAIRS",
    "RUNS",
    "STOPS",
    "Activation",
    "Data",
    "DataIfAny",
    "Group",
    "Hidden",
    "Ignore",
    "Imports",
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


# Under which heads a command's help has its options.
DATA = "The data"
PAIRS = "Losses and optimizers"
NETWORK = "The network"
JUDGED = "How it is judged"
STOPS = "When training stops"
RUNS = "How it runs"
GOES_ON = "Going on with one"
OUTPUT = "Output"
MODULES = "A module of your own"

_DATA = typer.Argument(
    help="A table: CSV, TSV or Parquet; a directory of such files, or a pattern in quotes.",
    metavar="DATA",
    show_default=False,
)
_TARGET = typer.Option(
    help="The column to predict.",
    metavar="COLUMN",
    show_default=False,
    rich_help_panel=DATA,
)
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
        rich_help_panel=DATA,
    ),
]
Hidden = Annotated[
    str | None,
    typer.Option(
        help="Widths of the hidden layers; none: a linear model.",
        metavar="WIDTHS",
        show_default="64,64",
        rich_help_panel=NETWORK,
    ),
]
Activation = Annotated[
    str | None,
    typer.Option(
        help="relu, tanh, gelu, silu or sigmoid.",
        metavar="NAME",
        show_default="relu",
        rich_help_panel=NETWORK,
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        help="What decides: rmse, mae, log_loss, accuracy, ...; of a training of your own, such as 'max accuracy'.",
        metavar="NAME",
        show_default="by task",
        rich_help_panel=JUDGED,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        help="Everything random follows from it.",
        metavar="N",
        show_default="0",
        rich_help_panel=RUNS,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="How much memory to take; larger data are streamed from disk.",
        metavar="SIZE",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Ignore = Annotated[
    str | None,
    typer.Option(
        help="Columns that take no part: identifiers, what is not known yet when one predicts.",
        metavar="A,B",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        help="A column whose groups (patients, machines) stay whole in one part; no feature then.",
        metavar="COLUMN",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Time = Annotated[
    str | None,
    typer.Option(
        help="A column by whose order rows are cut, the last ones held out; no feature then.",
        metavar="COLUMN",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Warmup = Annotated[
    float | None,
    typer.Option(
        help="Share of the steps over which the rate rises at first, such as 0.05.",
        metavar="X",
        show_default="0.0",
        rich_help_panel=PAIRS,
    ),
]


def _run_first(context: typer.Context, places: list[str] | None) -> list[str] | None:
    if places and not context.resilient_parsing:
        from steepest.comparison.imported import run_first

        for place in places:
            run_first(place)
    return places


# Heeded where it stands on the command line, before the others are looked at: nothing is left to do for a command.
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        help="Code of your own to run first, whose losses, optimizers and metrics other options name; may be repeated.",
        metavar="FILE.py|MODULE",
        show_default=False,
        callback=_run_first,
        is_eager=True,
        rich_help_panel=RUNS,
    ),
]
Language = Annotated[
    str | None,
    typer.Option(
        "--lang",
        help="The report's language: en or zh.",
        metavar="LANG",
        show_default="en",
        rich_help_panel=OUTPUT,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Runs trained at once.",
        metavar="N",
        min=1,
        show_default="all cores",
        rich_help_panel=RUNS,
    ),
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
