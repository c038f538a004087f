"""``steepest list``: every loss, optimizer, schedule and metric there is, under the name that commands take."""

from __future__ import annotations

from typing import Annotated

import typer

from steepest.cli.options import Imports

__all__ = ["list_names"]


def list_names(
    names: Annotated[
        bool, typer.Option("--names", help="Only the names of losses, optimizers and schedules, one a line.")
    ] = False,
    imports: Imports = None,
) -> None:
    """List every loss, optimizer, schedule and metric, under the name that commands take."""
    from steepest.losses import LOSSES
    from steepest.optim import OPTIMIZERS
    from steepest.schedules import SCHEDULES

    if names:
        typer.echo("\n".join([*LOSSES, *OPTIMIZERS, *SCHEDULES]))
        return

    from steepest.cli.show import rows_table
    from steepest.screen.console import console
    from steepest.training.metrics import METRICS

    screen = console()
    losses = [
        {
            "loss": name,
            "what it is": loss.formula.title,
            "for": ", ".join(loss.formula.tasks) or "your own code",
        }
        for name, loss in LOSSES.items()
    ]
    optimizers = [
        {"optimizer": name, "what it is": entry.title, "default rate": f"{entry.default_lr:g}"}
        for name, entry in OPTIMIZERS.items()
    ]
    schedules = [
        {"schedule": name, "what it is": each.title, "factor": each.formula}
        for name, each in SCHEDULES.items()
    ]
    metrics = [
        {"metric": name, "what it is": metric.title, "for": ", ".join(metric.tasks)}
        for name, metric in METRICS.items()
    ]
    for rows in (losses, optimizers, schedules, metrics):
        screen.print(rows_table(rows))
    screen.print("'steepest explain NAME' tells more of a loss, an optimizer or a schedule.", markup=False)
