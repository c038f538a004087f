"""``compare``: which loss and which optimizer to use on a table, found by measurement."""

from __future__ import annotations

import io
import json
import os
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import polars as pl
import torch

from steepest.comparison import options as check
from steepest.comparison.baseline import baseline_of, warning
from steepest.comparison.budget import measure, seconds_of, trim
from steepest.comparison.canonical import canonical_json
from steepest.comparison.cluster import Cluster, check_cluster, connected
from steepest.comparison.conduct import Outcome, conduct, found_so_far
from steepest.comparison.engine import Engine, start_engine, start_engine_on
from steepest.comparison.extend import extended, finished_plan
from steepest.comparison.fitted import FittedModel
from steepest.comparison.imported import data_of, factory_of, training_of
from steepest.comparison.interrupt import stop_on_interrupt
from steepest.comparison.manifest import FILES as MODEL_FILES
from steepest.comparison.model import about_model, model_of
from steepest.comparison.modules import (
    PreparedModules,
    TrainedModule,
    check_device,
    notes_on_engine,
    prepare_modules,
)
from steepest.comparison.options import Options
from steepest.comparison.output import check_directory, place_of, recover, recover_held, write_directory
from steepest.comparison.own_training import (
    OwnTrainingEngine,
    PreparedTraining,
    TrainingTrial,
    prepare_training,
)
from steepest.comparison.plan import TEST, VALIDATION, Plan, make_plan, read_plan
from steepest.comparison.progress import Progress, Silent, Together, drawn_on_request
from steepest.comparison.records import runs_frame
from steepest.comparison.splits import Split, Splits
from steepest.comparison.trials import Interrupted
from steepest.comparison.unfinished import (
    QUESTION,
    UNFINISHED,
    Question,
    Unfinished,
    begin,
    go_on,
    question_of,
    under_way,
)
from steepest.comparison.verdict import assemble
from steepest.data import Prepared, Table, prepare, read
from steepest.data.draw import draw
from steepest.data.source import check_fits
from steepest.data.table import without
from steepest.errors import InputError, inert
from steepest.files import SUMS, encoded, held, write_sums
from steepest.training.metrics import Metric
from steepest.training.run import OWN, BatchSize
from steepest.training.torch_engine import with_gradients

if TYPE_CHECKING:
    from torch import nn

    from steepest.comparison.splits import AnyPrepared

__all__ = ["Comparison", "compare"]

VERDICT, PLAN, RUNS, MODEL, REPORT = "verdict.json", "plan.json", "runs.parquet", "model", "report.html"
_PROBES = 16  # runs side by side whose speed is measured, where they are trained together
_MARKERS = (VERDICT, f"{UNFINISHED}/{PLAN}")
_SUMMED = (VERDICT, PLAN, RUNS, QUESTION)
_FILES = frozenset({*_SUMMED, SUMS, MODEL, REPORT, UNFINISHED})
_WITHIN = {MODEL: MODEL_FILES}


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What a comparison found.

    Attributes:
        verdict: the content of ``verdict.json``; ``verdict["sentence"]`` says it in one sentence.
        runs: every run, a row each.
        plan: what was decided before the first run; ``compare(..., plan=plan)`` runs it again.
        model: the first winner's settings, trained on all rows but the test rows, for as many epochs as its runs
            on fresh seeds took to their best (a ``TrainedModule``, one of these runs, where modules were compared);
            None where no run gave one.
        interrupted: whether Ctrl-C ended it early.
    """

    verdict: dict[str, Any]
    runs: pl.DataFrame
    plan: Plan
    model: FittedModel | TrainedModule | None
    interrupted: bool

    def __repr__(self) -> str:
        """The verdict, and how much it rests on."""
        count = len(self.plan.cells)
        what = f"{count:,} pair{'s' * (count != 1)} on {self.plan.target!r}, {self.runs.height:,} runs"
        return f"Comparison of {what}. {inert(self.verdict['sentence'])}"

    def _repr_html_(self) -> str:
        from steepest.report import in_notebook

        return in_notebook(self.verdict)

    def report(self, path: str | os.PathLike[str], lang: str = "en") -> Path:
        """Write the report, one HTML file that opens offline, in English or Chinese (``"zh"``); return its path.

        Raises:
            InputError: there is no such language, or the file cannot be written.
        """
        from steepest.report import build, write_page

        place = Path(path)
        page = build(self.verdict, _plan_object(self.plan), self.runs, lang)
        return write_page(page, place)

    def save(self, path: str | os.PathLike[str], lang: str = "en") -> Path:
        """Write verdict.json, plan.json, runs.parquet, model/ and report.html into a directory.

        Raises:
            InputError: there is something at ``path`` that is not a comparison, it cannot be written, or the report has
                no such language.
        """
        _check_language(lang)
        place = check_directory(path, _MARKERS, _FILES, _WITHIN)
        with held(place):
            return self._save(place, None, lang)

    def _save(self, place: Path, work: Unfinished | None, lang: str) -> Path:
        """``work``, if there is any, stays until everything is written; after an interruption, for good."""

        def fill(directory: Path) -> None:
            self._write_records(directory)
            if work is not None:
                work.copy_into(directory)
                if not self.interrupted:
                    work.copy_question_into(directory)
            write_sums(directory, _SUMMED)

        write_directory(place, fill)
        # The records are safe before the report is drawn from them.
        self.report(place / REPORT, lang)
        if work is not None and not self.interrupted:
            work.remove()
        return place

    def _write_records(self, directory: Path) -> None:
        (directory / VERDICT).write_bytes(encoded(canonical_json(self.verdict)))
        (directory / PLAN).write_bytes(encoded(self.plan.to_json()))
        parquet = io.BytesIO()  # polars' own writing to a full disk is an error without the system's words
        self.runs.write_parquet(parquet)
        (directory / RUNS).write_bytes(parquet.getbuffer())
        if self.model is not None:
            (directory / MODEL).mkdir()
            self.model.write_into(directory / MODEL)


@with_gradients()
@drawn_on_request
def compare(
    data: Any = None,
    target: str | None = None,
    *,
    model: Callable[[], nn.Module] | str | None = None,
    train: Callable[[TrainingTrial], Any] | str | None = None,
    task: str = "auto",
    losses: Sequence[str] | str | None = None,
    optimizers: Sequence[str] | str | None = None,
    batch_sizes: Sequence[BatchSize | str] | BatchSize | str | None = None,
    hidden: Sequence[int] = (64, 64),
    activation: str = "relu",
    metric: str | Metric | None = None,
    seeds: int = 3,
    budget: float | str | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    num_threads: int | None = None,
    plan: Plan | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    max_epochs: int | None = None,
    progress: Progress | bool | None = None,
    device: str = "cpu",
    compile: bool = False,
    resume: str | os.PathLike[str] | None = None,
    extend: str | os.PathLike[str] | None = None,
    more_seeds: int | None = None,
    add_losses: Sequence[str] | str | None = None,
    add_optimizers: Sequence[str] | str | None = None,
    group: str | None = None,
    time: str | None = None,
    tensorboard: str | os.PathLike[str] | None = None,
    tune: str = "rates",
    lang: str = "en",
    splits: int | None = None,
    rows: int | None = None,
    cluster: str | None = None,
    together: bool | None = None,
    schedules: Sequence[str] | str = "constant",
    warmup: float = 0.0,
    ignore: Sequence[str] | str | None = None,
) -> Comparison:
    """Train every pair of loss and optimizer on a table, tune each one fairly, and say which to use.

    Args:
        data: a path, of a directory of files too, or a pattern such as ``"data/*.parquet"``; a data frame; or a pair
            ``(X, y)``. With ``model``: ``(train, validation, test)``, each
            ``(X, y)``, a ``Dataset`` or a ``DataLoader``; a function that gives them; or the
            ``"package.module:name"`` of either.
        target: the column to predict; None for a pair.
        model: a function without arguments that gives a fresh ``nn.Module``, to compare on in place of the
            perceptrons (whose ``hidden`` and ``activation`` then mean nothing); or its ``"package.module:name"`` or
            ``"folder/file.py:name"``. Its outputs have the targets' shape (regression, two classes), or are logits with
            one axis more: (rows, classes, ...), as in torch, or (rows, ..., classes).
        train: a training of your own, whatever it is: a function that is given a :class:`steepest.TrainingTrial`,
            trains with its loss and optimizer, and returns a score; or its name, as ``model``'s. Its data are its own.
        task: ``"regression"``, ``"binary"``, ``"multiclass"``, ``"classification"`` or ``"auto"``.
        losses: names out of ``steepest.losses.LOSSES``; None: up to five that suit the data; with ``train``, its own.
        optimizers: names out of ``steepest.optim.OPTIMIZERS``; None: the defaults.
        batch_sizes: rows a step, ``"full"`` for all of them; each regime is compared. None: 32, or what the train
            DataLoader has.
        hidden: widths of the hidden layers; ``()`` is a linear model.
        activation: ``relu``, ``tanh``, ``gelu``, ``silu`` or ``sigmoid``.
        metric: what decides, the same for every run; None: ``rmse`` or ``log_loss``. With ``model``, one of your
            own too: :func:`steepest.metric`, or its name. With ``train``, what its score is called, and which way it
            goes: ``"max accuracy"``, ``"min perplexity"``; None: ``"min score"``.
        seeds: how many seeds each learning rate is tuned on, from 3. Confirmation takes at least 10 others.
        budget: about how long it may take: seconds, or ``"60s"``, ``"5m"``, ``"1h"``. The plan is trimmed
            beforehand by a measured speed, and says what it leaves out.
        out: a directory for the report, the verdict, the runs, the plan and the model.
        seed: everything random follows from it.
        num_threads: runs trained at once; None: one a processor. The result does not depend on it.
        plan: a plan or the path of a ``plan.json``, to follow to the letter: it decides the other options.
        max_epochs: passes over the training rows in each run; None: by the number of rows, and 10 with ``train``.
        progress: True draws it as the command line does, on standard error: live in a terminal, a line every few
            seconds elsewhere, as in a notebook. Or an object of your own with the methods of
            :class:`steepest.comparison.progress.Progress`, which is told of every stage and run.
        device: where ``model``'s modules are trained, ``"cpu"``, ``"cuda"`` or what else torch has here. A table's
            perceptrons are trained by the native engine on ``"cpu"``, and elsewhere many at once, to the same scores to
            rounding.
        compile: put each of ``model``'s modules through ``torch.compile``, which pays where they are large.
        resume: the ``out`` of a comparison that was interrupted or killed, to go on with: its plan decides the
            options, and what has ended is not run again. ``data`` may be left out where it was a file; a module
            is given again.
        extend: the ``out`` of a finished comparison, to add to: the result is what it would have been, had all been
            asked for at once, and no run is repeated. ``data`` may be left out as with ``resume``.
        more_seeds: with ``extend``, so many more seeds for each learning rate (and for confirmation as many as
            ``seeds`` would ask for).
        add_losses: with ``extend``, more losses.
        add_optimizers: with ``extend``, more optimizers.
        group: a column none of whose values is to be in two parts of the rows (patients, machines). It is no
            feature, and classes are then not kept in proportion.
        time: a column in whose order the rows are cut: training first, then validation, then test. It is no feature.
        tensorboard: a directory for TensorBoard's logs, a folder a run, written as each run ends. It takes the
            package tensorboard: ``pip install 'steepest[tensorboard]'``.
        tune: ``"rates"`` tunes each pair's learning rate; ``"all"`` then also momentum, decay, a loss's threshold and
            whatever else has a range declared, in 16 settings for each pair.
        lang: the report's language, ``"en"`` or ``"zh"``.
        splits: 1, or from 10: so many fresh seeds, each of which draws the training and validation rows again (the
            test rows stay), so that a verdict does not hang on one draw. None: a table of under 1,000 rows has one
            for each fresh seed, which is no run more; a larger one has one for all.
        rows: draw so many rows at random, and compare on them alone. Files are then gone through a piece at a time, and
            may be larger than memory; ``fit`` trains the winner on all of them. None: all rows.
        cluster: train the runs on a Ray cluster: ``"auto"``, the one this machine is part of; its ``"HOST:PORT"``; or
            ``"local"``, one that is started here for the purpose. The result does not depend on it. Tables only. It
            takes the package ray: ``pip install 'steepest[ray]'``.
        together: with ``model``: train many runs at once, through ``torch.vmap`` (True), one after another (False), or
            as pays for a module of this size (None). Scores are the same to rounding; a module, a loss or an optimizer
            that cannot be stacked is trained one run after another, and a note says why. The plan keeps it, so that
            resuming gives the same bytes; an extension's are those of all asked at once to rounding.
        schedules: names out of ``steepest.schedules.SCHEDULES``; each pair is tuned and compared under each of them.
            None: a constant rate alone.
        warmup: the share of the steps over which every run's rate rises at first, from 0 to below 1.
        ignore: columns that take no part, such as an identifier, or what is not known yet when one predicts.

    Returns:
        The verdict, the runs, the plan and the trained model. An interruption (Ctrl-C) keeps what was
        finished: ``interrupted`` is set, and the verdict says so.

    Raises:
        InputError: the data or an option cannot be used; nothing has been run or written.
    """
    started = perf_counter()
    given = Options(
        task,
        losses,
        optimizers,
        batch_sizes,
        hidden,
        activation,
        metric,
        seeds,
        seed,
        max_epochs,
        group,
        time,
        tune,
        splits,
        rows,
        schedules,
        warmup,
        ignore,
    )
    check.check_threads(num_threads)
    _check_language(lang)
    seconds = None if budget is None else seconds_of(budget)
    observer = _watchers(progress, tensorboard)
    work: Unfinished | None = None
    if resume is not None:
        if plan is not None or out is not None:
            raise InputError("resume has its plan and its output; leave plan and out away.")
        out = resume
        recover(place_of(out))
    if extend is not None:
        if resume is not None or plan is not None or out is not None:
            raise InputError("extend has its plan and its output; leave resume, plan and out away.")
        out = extend
        recover(place_of(out))
    elif any(value is not None for value in (more_seeds, add_losses, add_optimizers)):
        raise InputError("more_seeds, add_losses and add_optimizers go with extend, a finished comparison.")
    place = None if out is None else check_directory(out, _MARKERS, _FILES, _WITHIN)
    if place is not None and resume is not None:
        under_way(place)  # refused before the data are looked for, where there is nothing to go on with
    if (
        place is not None
        and data is None
        and model is None
        and train is None
        and (resume is not None or extend is not None)
    ):
        data, target = _asked_before(place, "extend" if resume is None else "resume")
    if train is not None:
        _check_is_of_training(data, target, model, device, together, compile, cluster, given)
    _check_together(together, is_module=model is not None)
    _check_compile(compile, is_module=model is not None)
    if cluster is not None:
        check_cluster(cluster, model)
    question = Question.of(data, target, model, train)
    if train is not None:
        train = training_of(train)
    elif model is None:
        _check_place(device, cluster)
    else:  # before the plan is read, which may name a metric that comes with the module
        model, data = factory_of(model), data_of(data)
    if resume is not None and place is not None:
        work = go_on(place)
        plan = work.plan
    if extend is not None and place is not None:
        plan = extended(
            finished_plan(place), losses=add_losses, optimizers=add_optimizers, more_seeds=more_seeds
        )
    followed = None if plan is None else _plan_to_follow(plan, given, target, seconds, together)
    if followed is not None and (followed.task == OWN) != (train is not None):
        of = "a training of your own (train)" if followed.task == OWN else "a table or a module"
        raise InputError(f"The plan was made for {of}; give what it is for, or make a new comparison.")
    if data is None and model is not None:
        raise InputError("There are no data to compare on; with model=..., give (train, validation, test).")
    if data is None and train is None:
        raise InputError("There are no data to compare on; give a path, a data frame or a pair (X, y).")
    prepared: AnyPrepared
    if train is not None:
        prepared = prepare_training(train)
        given = prepared.options(given)
    elif model is None:
        table = _read(data, target, given, followed)
        prepared = _prepare(table, given, followed)
    else:
        _check_is_of_modules(given, target)
        assert not isinstance(model, str)
        prepared = prepare_modules(model, data, task if followed is None else followed.task, device, compile)
        given = prepared.options(given)
    chosen = (
        make_plan(prepared, given)
        if followed is None
        else _fitting(followed, prepared, resumed=resume is not None)
    )
    if isinstance(prepared, PreparedModules) and followed is None:
        chosen = replace(
            chosen,
            together=prepared.together_pays(chosen) if together is None else together,
            module_sha256=prepared.module_sha256,
        )
    if isinstance(prepared, Prepared):
        chosen = _placed(chosen, device, is_new=followed is None)
    observer.data_read(prepared.notes)
    if isinstance(prepared, Prepared):
        _check_targets(chosen, prepared)
    redrawn = range(1, chosen.splits + 1) if chosen.splits > 1 else ()
    fresh = [_prepare(table, given, chosen, number) for number in redrawn]
    with connected(cluster) as pool, stop_on_interrupt() as stop_event, ExitStack() as until_written:
        first, *others = [Split(one, _engine(one, chosen, pool, device)) for one in (prepared, *fresh)]
        all_splits = Splits(chosen, first, others, pool)
        if seconds is not None:
            at_once = _runs_at_once(
                num_threads, pool, is_serial=not isinstance(prepared, Prepared) or chosen.together
            )
            beside = max(1, _PROBES // len(chosen.optimizers)) if chosen.together else at_once
            speed = measure(chosen, all_splits.first.engine, beside, stop_event)
            left_sec = max(1.0, seconds - (perf_counter() - started))  # kernels took time to compile
            chosen, _ = trim(chosen, speed, at_once, left_sec)
        observer.plan_made(chosen)
        if place is not None:
            until_written.enter_context(held(place))
        if place is not None and work is None:
            recover_held(place)
            work = begin(place, chosen, question, extends=extend is not None)
        journal = None if work is None else work.open_journal()
        try:
            outcome = conduct(chosen, all_splits, num_threads, observer, stop_event, journal)
            notes = [] if journal is None or journal.earlier is None else journal.earlier.notes
            notes = [*notes, *([] if pool is None else pool.notes)]
            comparison = _comparison(chosen, all_splits, outcome, notes, started, stop_event, observer)
            # Of an extension that was interrupted, the finished comparison stays, and the work to go on with.
            if place is not None and not (comparison.interrupted and work is not None and work.is_extension):
                comparison._save(place, work, lang)
        except InputError:
            # Of what was refused before a run was done nothing stays.
            if work is not None and journal is not None and resume is None and not len(journal):
                journal.close()
                work.forget()
            raise
        finally:
            if journal is not None:
                journal.close()
    return comparison


def _asked_before(place: Path, word: str) -> tuple[str | None, str | None]:
    """The data and the target that a directory's comparison is about.

    Raises:
        InputError: it is about a module or a training: code is not run because a directory names it.
    """
    asked = question_of(place) or Question(None, None)
    if asked.train is not None:
        words = [f"--{word}", str(place), "--train", asked.train]
        raise InputError(
            f"The comparison in {str(place)!r} is of a training of your own; name it again: {shlex.join(words)}."
        )
    if asked.model is not None:
        words = [f"--{word}", str(place), "--model", asked.model, "--data", str(asked.data)]
        raise InputError(
            f"The comparison in {str(place)!r} is of a module of your own; name it again: {shlex.join(words)}."
        )
    return asked.data, asked.target


def _check_targets(plan: Plan, prepared: Prepared) -> None:
    """The targets are such as the losses take; those of test rows too, where fresh splits train on them.

    Raises:
        InputError: they are not.
    """
    from steepest.training.native import check_range, formula_of, least_target

    formulas = [formula_of(loss) for loss in plan.losses]
    if any(formula.prediction == "log_rate" for formula in formulas):
        least = least_target(prepared.training_data())
        if plan.splits > 1 and len(prepared.y_test):
            least = min(least, float(prepared.y_test_original.min()))
        for formula in formulas:
            check_range(formula, least)


def _watchers(progress: Progress | bool | None, tensorboard: str | os.PathLike[str] | None) -> Progress:
    watcher = Silent() if progress is None or isinstance(progress, bool) else progress
    if tensorboard is None:
        return watcher
    from steepest.comparison.tensorboard import TensorBoardLog

    return Together([watcher, TensorBoardLog(tensorboard)])


def _check_language(lang: str) -> None:
    if lang != "en":  # drawing takes a second to import
        from steepest.report import speaking

        with speaking(lang):
            pass


def _engine(prepared: AnyPrepared, plan: Plan, cluster: Cluster | None, device: str) -> Engine:
    """The native engine for a table, here or on a cluster; the torch or the population engine for one's own modules,
    and the latter for a table elsewhere than on a CPU; for a training of one's own, what calls it."""
    if isinstance(prepared, PreparedTraining):
        return prepared.start_engine(plan.metric, plan.confirmation_seeds)
    if isinstance(prepared, PreparedModules):
        return prepared.start_engine(plan.metric, plan.together)
    if plan.together:
        return start_engine_on(device, prepared.training_data(), plan.metric)
    start = start_engine if cluster is None else cluster.engine
    return start(prepared.training_data(), plan.metric)


def _runs_at_once(num_threads: int | None, cluster: Cluster | None, *, is_serial: bool) -> int | None:
    if is_serial:
        return 1  # modules share one thread, together or not
    return cluster.num_processors if num_threads is None and cluster is not None else num_threads


def _check_together(together: object, *, is_module: bool) -> None:
    if together not in (None, True, False):
        raise InputError(f"together is {together!r}; it is True, False or None.")
    if together is not None and not is_module:
        raise InputError(
            "together is for modules of your own, model=...; a table's runs need no such choice."
        )


def _check_compile(compile: object, *, is_module: bool) -> None:
    if not isinstance(compile, bool):
        raise InputError(f"compile is {compile!r}; it is True or False.")
    if compile and not is_module:
        raise InputError(
            "compile is for modules of your own, model=...; a table's networks have kernels of their own."
        )


def _check_place(device: str, cluster: str | None) -> None:
    """Where a table's runs are trained can be had."""
    if cluster is not None and device != "cpu":
        raise InputError(
            f"A cluster trains on its machines' processors; leave out cluster or device={device!r}."
        )
    check_device(device)


def _is_elsewhere(device: str) -> bool:
    return torch.device(device).type != "cpu"


def _placed(plan: Plan, device: str, *, is_new: bool) -> Plan:
    """The plan of a table's comparison; that its runs are trained together, elsewhere than on a CPU, stays with it.

    Raises:
        InputError: a plan to follow was made for the other way, whose numbers differ in their last bits.
    """
    elsewhere = _is_elsewhere(device)
    if is_new:
        return replace(plan, together=elsewhere)
    if plan.together and not elsewhere:
        raise InputError(
            "The plan's runs are trained together on a GPU; say which with device, as in device='cuda'."
        )
    if elsewhere and not plan.together:
        raise InputError(f"The plan's runs are trained on a CPU; leave out device={device!r} or the plan.")
    return plan


def _check_is_of_modules(given: Options, target: str | None) -> None:
    """With a module nothing is left to choose of the rows, nor of the network."""
    if target is not None:
        raise InputError("With model=..., data holds the targets already; leave target out.")
    for name in ("hidden", "activation"):
        if getattr(given, name) != getattr(Options(), name):
            raise InputError(f"With model=..., the network is your own; leave {name} out.")
    for name in ("group", "time", "rows", "ignore"):
        if getattr(given, name) is not None:
            raise InputError(f"With model=..., data holds the three parts already; leave {name} out.")


def _check_is_of_training(
    data: Any,
    target: str | None,
    model: object,
    device: str,
    together: object,
    compile: object,
    cluster: object,
    given: Options,
) -> None:
    """A training of the user's own has its data and its network itself."""
    default = Options()
    decided = {
        "data": data is not None,
        "target": target is not None,
        "model": model is not None,
        "device": device != "cpu",
        "together": together is not None,
        "compile": compile is not False,
        "cluster": cluster is not None,
        **{
            name: getattr(given, name) != getattr(default, name)
            for name in ("task", "hidden", "activation", "group", "time", "rows", "ignore")
        },
    }
    for name, is_given in decided.items():
        if is_given:
            raise InputError(
                f"With train=..., your function has its data and its network itself; leave {name} out."
            )


def _read(data: Any, target: str | None, given: Options, followed: Plan | None) -> Table:
    """The columns that take part, of all rows or some drawn; a plan to follow has decided the target and these."""
    rows, seed, ignored = check.check_count("rows", given.rows), given.seed, check.check_ignore(given.ignore)
    if followed is not None:
        target = None if isinstance(data, tuple) else followed.target
        rows, seed, ignored = followed.rows, followed.seed, followed.ignore
    if rows is not None:
        return without(draw(data, target, rows, check.check_seed(seed)), ignored)
    check_fits(data)
    return without(read(data, target), ignored)


def _prepare(table: Table, given: Options, followed: Plan | None, redrawn: int = 0) -> Prepared:
    """The rows, split once and first; a plan to follow has decided the split, and may draw parts of it again."""
    if followed is None:
        return prepare(
            table,
            task=given.task,
            seed=check.check_seed(given.seed),
            validation=VALIDATION,
            test=TEST,
            group=given.group,
            time=given.time,
        )
    return prepare(
        table,
        task=followed.asked_task,
        seed=followed.seed,
        validation=followed.validation,
        test=followed.test,
        group=followed.group,
        time=followed.time,
        redrawn=redrawn,
    )


def _plan_to_follow(
    given: Plan | Mapping[str, Any] | str | os.PathLike[str],
    options: Options,
    target: str | None,
    seconds: float | None,
    together: bool | None,
) -> Plan:
    """The plan, if no option contradicts it."""
    plan = read_plan(given)
    default = Options()
    names = [field.name for field in fields(Options)]
    # resume and extend hand over the plan itself.
    source = "The comparison's own plan" if isinstance(given, Plan) else "The plan that was given"
    decided = [name for name in names if getattr(options, name) != getattr(default, name)]
    decided += ["budget"] * (seconds is not None)
    decided += ["together"] * (together is not None)
    decided += ["target"] * (target not in (None, plan.target))
    if decided:
        raise InputError(
            f"{source} has decided {decided[0]} already; leave {decided[0]} out, or make a new comparison."
        )
    return plan


def _fitting(plan: Plan, prepared: AnyPrepared, *, resumed: bool) -> Plan:
    """The plan, if it was made for these rows, and for this module; or for this training.

    A training function that ended its comparison by an error is mended before that is resumed: then its text is
    another one, which a note says.
    """
    if isinstance(prepared, PreparedTraining) and plan.data_sha256 != prepared.data_sha256:
        if resumed:
            prepared.notes.append(
                f"The text of {prepared.name} has changed since the comparison began: runs of before are by the "
                "earlier one."
            )
            return replace(plan, data_sha256=prepared.data_sha256)
        raise InputError(
            f"The plan was made for another training function: the text of {prepared.name} differs from the one it "
            "was made for; make a new comparison."
        )
    if plan.data_sha256 != prepared.data_sha256:
        raise InputError(
            "The plan was made for other data: the table's content differs from the one it names "
            f"(sha256 {plan.data_sha256[:12]}..., not {prepared.data_sha256[:12]}...); give the data that it was made "
            "for, or make a new comparison."
        )
    # Plans of before say nothing of the module.
    if isinstance(prepared, PreparedModules) and plan.module_sha256 not in (None, prepared.module_sha256):
        raise InputError(
            "The plan was made for another module: its layers, or the names, shapes or types of its weights, differ "
            f"from this {prepared.module_name}'s; give the module that it was made for, or make a new comparison."
        )
    return plan


def _comparison(
    plan: Plan,
    splits: Splits,
    outcome: Outcome,
    notes: Sequence[str],
    started: float,
    stop_event: threading.Event,
    observer: Progress,
) -> Comparison:
    trials, prepared = outcome.trials, splits.first.prepared
    trains_on = bool(outcome.winners) and isinstance(prepared, Prepared)
    try:
        if trains_on:
            observer.stage_started("model", 0, plan.metric)
        model = model_of(plan, splits, trials, outcome.winners, stop_event)
    except Interrupted:
        outcome = found_so_far(plan, trials)
        model = model_of(plan, splits, trials, outcome.winners, stop_event)
    finally:
        if trains_on:
            observer.stage_finished()
    baseline = None
    if not outcome.interrupted:
        first = next(iter(outcome.winners), None)
        baseline = baseline_of(plan, splits, first, None if model is None else model.record)
    verdict = assemble(
        plan,
        prepared,
        trials,
        outcome.contestants,
        outcome.winners,
        sentence=warning(plan, baseline, prepared.num_rows.get("test", 0)) + outcome.sentence,
        baseline=baseline,
        interrupted=outcome.interrupted,
        notes=[*outcome.notes, *_notes_on_training(plan, splits.first), *notes],
        model=about_model(plan, splits, model),
        seconds=perf_counter() - started,
    )
    return Comparison(verdict, runs_frame(plan, trials), plan, model, outcome.interrupted)


def _notes_on_training(plan: Plan, split: Split) -> list[str]:
    of_engine = notes_on_engine(plan, split.engine)
    if isinstance(split.engine, OwnTrainingEngine):
        return split.engine.notes()
    if not isinstance(split.prepared, PreparedModules):
        return of_engine
    return [*split.prepared.notes_on(plan.batch_sizes), *of_engine]


def _plan_object(plan: Plan) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(plan.to_json())
    return content
