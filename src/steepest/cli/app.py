"""The commands and their names."""

from __future__ import annotations

from typing import Annotated

import typer

from steepest import __version__
from steepest.cli.bench import bench
from steepest.cli.compare import compare
from steepest.cli.explain import explain
from steepest.cli.fit import fit
from steepest.cli.names import list_names
from steepest.cli.once import OnceCommand
from steepest.cli.predict import predict
from steepest.cli.report import report

__all__ = ["app"]

app = typer.Typer(
    help="Which loss function and which gradient optimizer should I use for my data?",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command("compare", cls=OnceCommand)(compare)
app.command("fit", cls=OnceCommand)(fit)
app.command("predict", cls=OnceCommand)(predict)
app.command("explain", cls=OnceCommand)(explain)
app.command("list", cls=OnceCommand)(list_names)
app.command("report", cls=OnceCommand)(report)
app.command("bench", cls=OnceCommand)(bench)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"steepest {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _steepest(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
