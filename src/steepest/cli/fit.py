"""``steepest fit``: train one model with the loss and the optimizer you name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steepest.cli import parse
from steepest.cli.options import (
    Activation,
    Data,
    Group,
    Hidden,
    Metric,
    Seed,
    Target,
    Task,
    Threads,
    Time,
    given,
)

__all__ = ["fit"]


def fit(
    data: Data,
    target: Target,
    out: Annotated[Path, typer.Option(help="Folder for the model.", metavar="DIR", show_default=False)],
    loss: Annotated[
        str | None, typer.Option(help="The loss; see 'steepest list'.", metavar="NAME", show_default="auto")
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(help="The optimizer; see 'steepest list'.", metavar="NAME", show_default="adam"),
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(help="The learning rate; auto tries a grid.", metavar="X|auto", show_default="auto"),
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option(help="Rows a step.", metavar="full|1|N", show_default="32")
    ] = None,
    loss_options: Annotated[
        str | None,
        typer.Option(help="The loss's own, such as delta=1.5.", metavar="NAME=X,...", show_default=False),
    ] = None,
    optimizer_options: Annotated[
        str | None,
        typer.Option(
            help="The optimizer's own, such as beta1=0.8,eps=1e-6.", metavar="NAME=X,...", show_default=False
        ),
    ] = None,
    hidden: Hidden = None,
    activation: Activation = None,
    metric: Metric = None,
    group: Group = None,
    time: Time = None,
    validation: Annotated[
        float | None,
        typer.Option(help="Share of the rows held out for validation.", metavar="X", show_default="0.2"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Stop after so many passes.", metavar="N", min=1, show_default="100")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(help="Stop after so many updates.", metavar="N", min=1, show_default=False)
    ] = None,
    max_sec: Annotated[
        float | None, typer.Option(help="Stop after so many seconds.", metavar="X", show_default=False)
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many epochs without a better score.", metavar="N", min=1, show_default=False
        ),
    ] = None,
    min_gradient_norm: Annotated[
        float | None,
        typer.Option(help="Stop when the gradient's norm falls to this.", metavar="X", show_default=False),
    ] = None,
    target_metric: Annotated[
        float | None, typer.Option(help="Stop when the metric reaches this.", metavar="X", show_default=False)
    ] = None,
    task: Task = None,
    seed: Seed = None,
    threads: Threads = None,
) -> None:
    """Train one model with the loss and the optimizer you name, and save it."""
    options = given(
        task=task,
        loss=loss,
        optimizer=optimizer,
        lr=None if lr is None else parse.learning_rate(lr),
        batch_size=None if batch_size is None else parse.batch_size(batch_size),
        loss_options=None if loss_options is None else parse.options(loss_options, "--loss-options"),
        optimizer_options=None
        if optimizer_options is None
        else parse.options(optimizer_options, "--optimizer-options"),
        hidden=None if hidden is None else parse.hidden(hidden),
        activation=activation,
        metric=metric,
        group=group,
        time=time,
        validation=validation,
        max_epochs=epochs,
        max_steps=max_steps,
        max_sec=max_sec,
        patience=patience,
        min_gradient_norm=min_gradient_norm,
        target_metric=target_metric,
        seed=seed,
        num_threads=threads,
    )

    from steepest.cli.show import print_fit
    from steepest.comparison.fit import fit as run_fit
    from steepest.comparison.manifest import MANIFEST, WEIGHTS
    from steepest.comparison.output import check_directory

    check_directory(
        out, (MANIFEST,), frozenset({MANIFEST, WEIGHTS})
    )  # refused before the training, not after it

    model = run_fit(data, target, **options)
    model.save(out)
    print_fit(model, out)
