"""``steepest compare``: train every sensible pair of loss and optimizer on a table or of your own module, and say which
to use.
"""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from steepest.cli import parse
from steepest.cli.options import (
    DATA,
    GOES_ON,
    JUDGED,
    MODULES,
    OUTPUT,
    PAIRS,
    RUNS,
    STOPS,
    Activation,
    DataIfAny,
    Group,
    Hidden,
    Ignore,
    Imports,
    Language,
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

__all__ = ["compare"]


def compare(
    data: DataIfAny = None,
    target: TargetIfAny = None,
    task: Task = None,
    losses: Annotated[
        str | None,
        typer.Option(
            help="Losses to compare.",
            metavar="A,B",
            show_default="up to five that suit the data",
            rich_help_panel=PAIRS,
        ),
    ] = None,
    optimizers: Annotated[
        str | None,
        typer.Option(
            help="Optimizers to compare.",
            metavar="A,B",
            show_default="six usual ones",
            rich_help_panel=PAIRS,
        ),
    ] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            help="Rows a step: full, 1 or a number; several with commas.",
            metavar="A,B",
            show_default="32",
            rich_help_panel=PAIRS,
        ),
    ] = None,
    schedules: Annotated[
        str | None,
        typer.Option(
            help="Schedules of the rate, each an axis more; see 'steepest list'.",
            metavar="A,B",
            show_default="constant",
            rich_help_panel=PAIRS,
        ),
    ] = None,
    warmup: Warmup = None,
    hidden: Hidden = None,
    activation: Activation = None,
    metric: Metric = None,
    ignore: Ignore = None,
    group: Group = None,
    time: Time = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Seeds each rate is tuned on.",
            metavar="N",
            show_default="3",
            rich_help_panel=JUDGED,
        ),
    ] = None,
    splits: Annotated[
        int | None,
        typer.Option(
            help="1, or from 10: so many fresh seeds, each drawing training and validation rows again.",
            metavar="N",
            min=1,
            show_default="by size",
            rich_help_panel=JUDGED,
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            help="Draw so many rows at random and compare on them; the data may then be larger than memory.",
            metavar="N",
            min=1,
            show_default="all",
            rich_help_panel=DATA,
        ),
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option(
            help="What is tuned: the rates, or all that has a range (momentum, decay, a loss's threshold) too.",
            metavar="rates|all",
            show_default="rates",
            rich_help_panel=JUDGED,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the data in each run.",
            metavar="N",
            min=1,
            show_default="by size",
            rich_help_panel=STOPS,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Trim the plan beforehand to about this time: 60s, 5m, 1h.",
            metavar="TIME",
            show_default=False,
            rich_help_panel=JUDGED,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the report, the runs and the model.",
            metavar="DIR",
            show_default="steepest-<table>, or -<module>",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    seed: Seed = None,
    threads: Threads = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            help="Run the plan.json of an earlier comparison.",
            metavar="FILE",
            show_default=False,
            rich_help_panel=JUDGED,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with a comparison that was interrupted or killed: its --out. What has ended is not run again.",
            metavar="DIR",
            show_default=False,
            rich_help_panel=GOES_ON,
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            help="Write TensorBoard's logs too, a folder a run.",
            metavar="DIR",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    extend: Annotated[
        Path | None,
        typer.Option(
            help="Add to a finished comparison, its --out, what the three options below name. No run is repeated.",
            metavar="DIR",
            show_default=False,
            rich_help_panel=GOES_ON,
        ),
    ] = None,
    more_seeds: Annotated[
        int | None,
        typer.Option(
            help="With --extend: so many more seeds.",
            metavar="N",
            min=1,
            show_default=False,
            rich_help_panel=GOES_ON,
        ),
    ] = None,
    add_losses: Annotated[
        str | None,
        typer.Option(
            help="With --extend: more losses.",
            metavar="A,B",
            show_default=False,
            rich_help_panel=GOES_ON,
        ),
    ] = None,
    add_optimizers: Annotated[
        str | None,
        typer.Option(
            help="With --extend: more optimizers.",
            metavar="A,B",
            show_default=False,
            rich_help_panel=GOES_ON,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Train on a Ray cluster: auto, its HOST:PORT, or local to start one here.",
            metavar="auto|ADDRESS",
            show_default=False,
            rich_help_panel=RUNS,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, or cuda: many runs at once on a GPU, to the same scores to rounding.",
            metavar="DEVICE",
            show_default="cpu",
            rich_help_panel=RUNS,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A function of your own that makes a torch module, in place of networks for a table; also as "
            "FILE.py:NAME.",
            metavar="PACKAGE.MODULE:NAME",
            show_default=False,
            rich_help_panel=MODULES,
        ),
    ] = None,
    module_data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Its data, or a function that gives them: (train, validation, test), each (inputs, targets), a "
            "Dataset or a DataLoader.",
            metavar="PACKAGE.MODULE:NAME",
            show_default=False,
            rich_help_panel=MODULES,
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            help="Any training of your own: a function that is given a trial, trains with its loss and optimizer, and "
            "returns a score; also as FILE.py:NAME.",
            metavar="PACKAGE.MODULE:NAME",
            show_default=False,
            rich_help_panel=MODULES,
        ),
    ] = None,
    together: Annotated[
        bool | None,
        typer.Option(
            "--together/--one-by-one",
            help="Train many runs of a small module at once, to the same scores to rounding, or none.",
            show_default="by size",
            rich_help_panel=MODULES,
        ),
    ] = None,
    compiles: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Put each module through torch.compile, which pays for large ones.",
            rich_help_panel=MODULES,
        ),
    ] = False,
    imports: Imports = None,
    lang: Language = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would be run, and stop: nothing is written.",
            rich_help_panel=RUNS,
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print verdict.json and nothing else.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="No progress and no table.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
) -> None:
    """Train every sensible loss and optimizer on a table or by your own code, tune each fairly, say which to use."""
    if as_json and dry_run:
        raise InputError("--json prints the verdict, and with --dry-run there is none; give one of them.")
    of_modules = given(data=module_data, together=together, compile=compiles or None)
    of_tables = given(
        hidden=None if hidden is None else parse.hidden(hidden),
        activation=activation,
        ignore=None if ignore is None else parse.names(ignore, "--ignore"),
        group=group,
        time=time,
        splits=splits,
        rows=rows,
        num_threads=threads,
        cluster=ray,
    )
    options = given(
        task=task,
        losses=None if losses is None else parse.names(losses, "--losses"),
        optimizers=None if optimizers is None else parse.names(optimizers, "--optimizers"),
        batch_sizes=None if batch_sizes is None else parse.batch_sizes(batch_sizes),
        schedules=None if schedules is None else parse.names(schedules, "--schedules"),
        warmup=warmup,
        metric=metric,
        seeds=seeds,
        tune=tune,
        max_epochs=epochs,
        budget=budget,
        seed=seed,
        plan=plan,
        resume=resume,
        tensorboard=tensorboard,
        extend=extend,
        device=device,
        lang=lang,
    )
    added = given(
        more_seeds=more_seeds,
        add_losses=None if add_losses is None else parse.names(add_losses, "--add-losses"),
        add_optimizers=None if add_optimizers is None else parse.names(add_optimizers, "--add-optimizers"),
    )
    if extend is None:
        refuse(added, "goes with --extend and a finished comparison")
    goes_on = _goes_on(resume, extend, out)
    known = {"data": goes_on is not None, "target": goes_on is not None or plan is not None}
    if train is not None:
        refuse(
            {**given(DATA=data, target=target, model=model, device=device), **of_modules, **of_tables},
            "is not for --train, whose function has its data and its network itself",
        )
        question: dict[str, Any] = {"train": train}
    else:
        question = _question(data, target, model, of_modules, of_tables, known=known)
    place = goes_on or out or Path(f"steepest-{_name_of(data, train or model)}")

    from steepest.cli.plan_only import PlanOnly
    from steepest.cli.show import print_fit_on_all_rows, print_verdict
    from steepest.comparison.compare import compare as run_comparison
    from steepest.screen.watch import watch

    # Nothing but the verdict is to be printed, whatever code of the user's own prints.
    aside = redirect_stdout(sys.stderr) if as_json else nullcontext()
    with aside, nullcontext(PlanOnly()) if dry_run else watch(quiet=quiet) as progress:
        comparison = run_comparison(
            **question, **added, out=place if goes_on is None else None, progress=progress, **options
        )
    if as_json:
        typer.echo((place / "verdict.json").read_text(encoding="utf-8").rstrip())
    else:
        print_verdict(comparison.verdict, place, has_model=comparison.model is not None, table=not quiet)
        print_fit_on_all_rows(comparison.verdict, data)
    if comparison.interrupted:
        again = ["steepest", "compare", "--resume", str(place)]
        again += [] if model is None else ["--model", model, "--data", str(module_data)]
        again += [] if train is None else ["--train", train]
        # The plan does not say where and how steps are computed, and the rest should be computed alike.
        again += ["--compile"] if compiles else []
        again += [] if device is None else ["--device", device]
        again += [word for file in imports or () for word in ("--import", file)]
        typer.echo(f"Go on with it: {shlex.join(again)}", err=True)
        raise typer.Exit(130)


def _goes_on(resume: Path | None, extend: Path | None, out: Path | None) -> Path | None:
    """The output of the comparison that is gone on with or added to, if one is.

    Raises:
        InputError: both are asked for, or another output.
    """
    if resume is not None and extend is not None:
        raise InputError("--resume goes on with a comparison and --extend adds to one; give one of them.")
    for option, directory in (("--resume", resume), ("--extend", extend)):
        if directory is not None and out is not None:
            raise InputError(f"{option} names the output already; leave --out away.")
    return resume or extend


def _question(
    data: str | None,
    target: str | None,
    model: str | None,
    of_modules: dict[str, Any],
    of_tables: dict[str, Any],
    *,
    known: dict[str, bool],
) -> dict[str, Any]:
    """A table or a module, and what may be asked of that alone; ``known``: what need not be named again.

    Raises:
        InputError: it is missing, or options of the one stand beside the other.
    """
    if model is not None:
        refuse({**given(DATA=data, target=target), **of_tables}, "is for tables, and not for --model")
        if "data" not in of_modules:
            raise InputError("--model needs --data, such as --data my_models:parts.")
        return {"model": model, **of_modules}
    refuse(of_modules, "is for a module of your own, and --model is missing")
    if data is None and not known["data"]:
        raise InputError("missing argument 'DATA'; see 'steepest compare --help'.")
    if target is None and not known["target"]:
        raise InputError("missing option '--target'; see 'steepest compare --help'.")
    return {"data": data, "target": target, **of_tables}


def _name_of(data: str | None, users_own: str | None) -> str:
    """A word for the output: the table's or the folder's name, or the module's or the training function's."""
    if users_own is not None:
        return users_own.rpartition(":")[2]
    place = Path(data or "")
    while "*" in place.name and place.name != str(place):  # of a pattern: the folder it is about
        place = place.parent
    return place.stem.replace("*", "") or "data"
