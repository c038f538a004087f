"""``steepest fit``: train one model with the loss and the optimizer you name, on a table or of your own module."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from steepest.cli import parse
from steepest.cli.options import (
    JUDGED,
    MODULES,
    OUTPUT,
    PAIRS,
    STOPS,
    Activation,
    DataIfAny,
    Group,
    Hidden,
    Ignore,
    Imports,
    Memory,
    Metric,
    Seed,
    TargetIfAny,
    Task,
    Threads,
    Time,
    Warmup,
    given,
    refuse,
)
from steepest.errors import InputError

__all__ = ["fit"]


def fit(
    *,
    data: DataIfAny = None,
    target: TargetIfAny = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the model.",
            metavar="DIR",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ],
    loss: Annotated[
        str | None,
        typer.Option(
            help="The loss; see 'steepest list'.",
            metavar="NAME",
            show_default="auto",
            rich_help_panel=PAIRS,
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="The optimizer; see 'steepest list'.",
            metavar="NAME",
            show_default="adam",
            rich_help_panel=PAIRS,
        ),
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(
            help="The learning rate; auto tries a grid.",
            metavar="X|auto",
            show_default="auto",
            rich_help_panel=PAIRS,
        ),
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(
            help="Rows a step.",
            metavar="full|1|N",
            show_default="32",
            rich_help_panel=PAIRS,
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="How the rate goes over the steps; see 'steepest list'.",
            metavar="NAME",
            show_default="constant",
            rich_help_panel=PAIRS,
        ),
    ] = None,
    warmup: Warmup = None,
    loss_options: Annotated[
        str | None,
        typer.Option(
            help="The loss's own, such as delta=1.5.",
            metavar="NAME=X,...",
            show_default=False,
            rich_help_panel=PAIRS,
        ),
    ] = None,
    optimizer_options: Annotated[
        str | None,
        typer.Option(
            help="The optimizer's own, such as beta1=0.8,eps=1e-6.",
            metavar="NAME=X,...",
            show_default=False,
            rich_help_panel=PAIRS,
        ),
    ] = None,
    hidden: Hidden = None,
    activation: Activation = None,
    metric: Metric = None,
    ignore: Ignore = None,
    group: Group = None,
    time: Time = None,
    validation: Annotated[
        float | None,
        typer.Option(
            help="Share of the rows held out for validation.",
            metavar="X",
            show_default="0.2",
            rich_help_panel=JUDGED,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many passes.",
            metavar="N",
            min=1,
            show_default="100",
            rich_help_panel=STOPS,
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many updates.",
            metavar="N",
            min=1,
            show_default=False,
            rich_help_panel=STOPS,
        ),
    ] = None,
    max_sec: Annotated[
        float | None,
        typer.Option(
            help="Stop after so many seconds.",
            metavar="X",
            show_default=False,
            rich_help_panel=STOPS,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many epochs without a better score.",
            metavar="N",
            min=1,
            show_default=False,
            rich_help_panel=STOPS,
        ),
    ] = None,
    min_gradient_norm: Annotated[
        float | None,
        typer.Option(
            help="Stop when the gradient's norm falls to this.",
            metavar="X",
            show_default=False,
            rich_help_panel=STOPS,
        ),
    ] = None,
    target_metric: Annotated[
        float | None,
        typer.Option(
            help="Stop when the metric reaches this.",
            metavar="X",
            show_default=False,
            rich_help_panel=STOPS,
        ),
    ] = None,
    task: Task = None,
    seed: Seed = None,
    threads: Threads = None,
    memory: Memory = None,
    imports: Imports = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A function of your own that makes a torch module, in place of a network for a table; also as "
            "FILE.py:NAME; under torchrun on many processes.",
            metavar="PACKAGE.MODULE:NAME",
            show_default=False,
            rich_help_panel=MODULES,
        ),
    ] = None,
    module_data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Its data, or a function that gives it: (inputs, targets), a Dataset or a DataLoader, or (train, "
            "validation) of these.",
            metavar="PACKAGE.MODULE:NAME",
            show_default=False,
            rich_help_panel=MODULES,
        ),
    ] = None,
    parallel: Annotated[
        str | None,
        typer.Option(
            help="ddp: the whole module on each process; fsdp: a part of each parameter.",
            metavar="ddp|fsdp",
            show_default="ddp",
            rich_help_panel=MODULES,
        ),
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(
            help="A process's rows of a step go through in so many micro-batches.",
            metavar="N",
            min=1,
            show_default="1",
            rich_help_panel=MODULES,
        ),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            help="Steps between checkpoints.",
            metavar="N",
            min=1,
            show_default="1000",
            rich_help_panel=MODULES,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from the last checkpoint in --out, on any number of processes.",
            rich_help_panel=MODULES,
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(help="auto, cpu or cuda.", metavar="NAME", show_default="auto", rich_help_panel=MODULES),
    ] = None,
) -> None:
    """Train one model with the loss and the optimizer you name, and save it."""
    of_modules = given(
        data=module_data,
        parallel=parallel,
        accumulate=accumulate,
        checkpoint_every=checkpoint_every,
        resume=resume or None,
        device=device,
    )
    of_tables = given(
        hidden=None if hidden is None else parse.hidden(hidden),
        activation=activation,
        metric=metric,
        ignore=None if ignore is None else parse.names(ignore, "--ignore"),
        group=group,
        time=time,
        validation=validation,
        max_sec=max_sec,
        patience=patience,
        min_gradient_norm=min_gradient_norm,
        target_metric=target_metric,
        num_threads=threads,
        memory=memory,
    )
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
        schedule=schedule,
        warmup=warmup,
        max_epochs=epochs,
        max_steps=max_steps,
        seed=seed,
    )
    if model is None:
        refuse(of_modules, "is for a module of your own, and --model is missing")
        if data is None or target is None:
            missing = "option '--target'" if data is not None else "argument 'DATA'"
            raise InputError(f"missing {missing}; see 'steepest fit --help'.")
        _fit_table(data, target, out, {**options, **of_tables})
        return
    positional = {} if data is None else {"DATA": data}
    refuse({**positional, **given(target=target), **of_tables}, "is for tables, and not for --model")
    if module_data is None:
        raise InputError("--model needs --data, such as --data my_models:text.")

    from steepest.cli.fit_module import fit_module

    fit_module(model, out, {**options, **of_modules})


def _fit_table(data: str, target: str, out: Path, options: dict[str, Any]) -> None:
    from steepest.cli.reading import told_of_reading
    from steepest.cli.show import print_fit
    from steepest.comparison.fit import fit as run_fit
    from steepest.comparison.manifest import MANIFEST, WEIGHTS
    from steepest.comparison.output import check_directory

    check_directory(
        out, (MANIFEST,), frozenset({MANIFEST, WEIGHTS})
    )  # refused before the training, not after it

    with told_of_reading() as told:
        model = run_fit(data, target, progress=told, **options)
    model.save(out)
    print_fit(model, out)
    if (
        model.record.stop_reason == "interrupted"
    ):  # what it had learned is kept, and is not what was asked for
        raise typer.Exit(130)
