"""The plan: everything a comparison decides before its first run.

It is a function of the data and the options alone, so the same question gets the same runs on every
machine. Written as ``plan.json``, it can be given again and is then followed to the letter.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from steepest.comparison import options as check
from steepest.comparison.canonical import canonical_json
from steepest.comparison.losses import choose_losses
from steepest.comparison.options import Options
from steepest.comparison.rates import coarse_to_fine, equal_grids
from steepest.comparison.statistics import overlap_factor, seeds_to_tell
from steepest.errors import MALFORMED, InputError
from steepest.files import parse_json, read_bytes
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.training.metrics import METRICS, own_score
from steepest.training.rates import check_course
from steepest.training.run import OWN, Architecture, BatchSize, Run, Stop, Task, has_classes, regime
from steepest.tuning_range import TuningRange

if TYPE_CHECKING:
    from steepest.comparison.splits import AnyPrepared

__all__ = [
    "Cell",
    "OptionValues",
    "Plan",
    "Setting",
    "Trial",
    "loss_ranges",
    "make_plan",
    "rate_grids",
    "read_plan",
]

FORMAT = 1
VALIDATION = 0.2
TEST = 0.2
POINTS_PER_DECADE = 3
CONFIRMATION_SEEDS = 10
EXAMPLES_A_RUN = 200_000
MIN_EPOCHS, MAX_EPOCHS = 5, 100
SMALL_TABLE = 1_000  # rows; below, the luck of a single split may decide
MOST_RUNS = 10_000_000
CONFIGURATIONS = 16  # a power of two, as Sobol's sequence likes them
KEEPS_ONE_IN, MIN_KEPT = 3, 2  # rates of a cell that a rung keeps

# Seeds of one comparison lie in a block of their own: the tuning seeds first, the fresh ones far behind.
_SEED_BLOCK = 10_000
_FRESH = 5_000


@dataclass(frozen=True)
class Cell:
    """What is compared: a loss with an optimizer in one batch regime, under one schedule of the rate."""

    loss: str
    optimizer: str
    batch_size: BatchSize
    schedule: str = "constant"

    @property
    def regime(self) -> str:
        """The batch size and the schedule in one word."""
        return regime(self.batch_size, self.schedule)


OptionValues = tuple[tuple[str, float], ...]  # names and values, in a form that a setting can be looked up by


@dataclass(frozen=True)
class Setting:
    """A cell at a rate, with options of its own: all that decides a run, the seed apart."""

    cell: Cell
    lr: float
    epochs: int | None = None  # None: the plan's; fewer on the way to a rung
    loss_options: OptionValues = ()  # where they are not as the loss comes
    optimizer_options: OptionValues = ()  # by the update rule's names

    @property
    def options(self) -> OptionValues:
        """The loss's and the optimizer's."""
        return self.loss_options + self.optimizer_options

    def on(self, seed: int) -> Trial:
        """The setting on one seed."""
        return Trial(self, seed)


@dataclass(frozen=True)
class Trial:
    """One run: a setting on a seed."""

    setting: Setting
    seed: int

    @property
    def cell(self) -> Cell:
        """The setting's."""
        return self.setting.cell

    @property
    def lr(self) -> float:
        """The setting's."""
        return self.setting.lr


@dataclass(frozen=True)
class Plan:
    """What will be run. Every cell gets the same number of rates, seeds and epochs."""

    task: Task
    asked_task: str  # what was asked for, "auto" perhaps: intake says different things then
    target: str
    metric: str
    losses: tuple[str, ...]
    loss_reasons: Mapping[str, str]  # loss -> why it takes part, a clause; empty where they were named
    optimizers: tuple[str, ...]
    batch_sizes: tuple[BatchSize, ...]
    rates: Mapping[str, tuple[float, ...]]  # optimizer -> its grid, ascending
    points_per_decade: int
    default_rates: Mapping[str, float]  # optimizer -> the rate it comes with: the untuned contestants
    epochs: int
    tuning_seeds: tuple[int, ...]
    confirmation_seeds: tuple[int, ...]
    confirm_neighbours: bool  # whether the rates beside the best one are confirmed too
    architecture: Architecture
    validation: float
    test: float
    seed: int
    num_train_rows: int | None  # None: a training function of the user's own has rows of its own
    data_sha256: str
    group: str | None = None  # the column whose groups are whole in one part
    time: str | None = None  # the column in whose order the parts follow one another
    rungs: tuple[
        float, ...
    ] = ()  # shares of the epochs after which each cell's worse rates are cut; (): none is
    num_configurations: int = (
        0  # settings of the other options tried around each cell's best rate; 0: rates alone
    )
    loss_ranges: Mapping[str, Mapping[str, TuningRange]] = field(
        default_factory=dict
    )  # loss -> option -> range
    optimizer_ranges: Mapping[str, Mapping[str, TuningRange]] = field(
        default_factory=dict
    )  # by the rules' names
    splits: int = 1  # of the rows beside the test's; more than one: each fresh seed has its own
    rows: int | None = None  # so many were drawn at random before anything else; None: all take part
    together: bool = False  # runs are trained many at once: of a module, or of a table on a GPU
    schedules: tuple[str, ...] = ("constant",)
    warmup: float = 0.0  # of every run, a share of its steps
    ignore: tuple[str, ...] = ()  # columns that take no part
    module_sha256: str | None = None  # of a module of the user's own: of its layers and its weights' shapes
    left_out: tuple[str, ...] = ()  # what a budget took away, in sentences

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every loss with every optimizer in every batch regime under every schedule."""
        return tuple(
            Cell(loss, optimizer, batch_size, schedule)
            for loss in self.losses
            for optimizer in self.optimizers
            for batch_size in self.batch_sizes
            for schedule in self.schedules
        )

    @property
    def num_rates(self) -> int:
        """How many rates the grid of each optimizer has."""
        return len(next(iter(self.rates.values())))

    @property
    def rung_epochs(self) -> tuple[int, ...]:
        """The epochs at which rates are cut, ascending and short of the full length."""
        found = {max(1, round(share * self.epochs)) for share in self.rungs}
        return tuple(sorted(epochs for epochs in found if epochs < self.epochs))

    @property
    def rates_at_rungs(self) -> tuple[int, ...]:
        """How many rates of each cell begin, and how many are kept at each rung: the better third."""
        counts = [self.num_rates]
        for _ in self.rung_epochs:
            counts.append(max(min(MIN_KEPT, counts[-1]), math.ceil(counts[-1] / KEEPS_ONE_IN)))
        return tuple(counts)

    @property
    def num_finished(self) -> int:
        """How many of the rates that are cut run to full length all the same: one a rung that cuts any."""
        return sum(before > after for before, after in itertools.pairwise(self.rates_at_rungs))

    @property
    def overlap(self) -> float:
        """What standard errors over the fresh seeds are multiplied by: see ``statistics.overlap_factor``."""
        return overlap_factor(self.splits, self.validation / (1.0 - self.validation - self.test))

    @property
    def runs_a_cell(self) -> int:
        """At most so many runs for each cell, extensions of the grid apart: tuning, confirmation, default."""
        tuning = sum(self.rates_at_rungs) + self.num_finished + self.num_configurations
        return tuning * len(self.tuning_seeds) + self._confirmations

    @property
    def epochs_a_cell(self) -> int:
        """The epochs of all these runs."""
        lengths = (*self.rung_epochs, self.epochs)
        tuning = (self.num_finished + self.num_configurations) * self.epochs
        tuning += sum(count * length for count, length in zip(self.rates_at_rungs, lengths, strict=True))
        return tuning * len(self.tuning_seeds) + self._confirmations * self.epochs

    @property
    def _confirmations(self) -> int:
        confirmed = (3 if self.confirm_neighbours else 1) + (self.num_configurations > 0)
        return (confirmed + 1) * len(self.confirmation_seeds)

    def trials(
        self, grids: Mapping[Cell, Sequence[float]], seeds: Sequence[int], epochs: int | None = None
    ) -> list[Trial]:
        """Each cell at its rates, seed by seed and from coarse to fine: an interrupted stage has tried all alike."""
        most = max((len(rates) for rates in grids.values()), default=0)
        return [
            Setting(cell, rates[place], epochs).on(seed)
            for seed in seeds
            for place in coarse_to_fine(most)
            for cell, rates in grids.items()
            if place < len(rates)
        ]

    def in_words(self) -> list[str]:
        """What is about to be run and what had to be left out, in sentences."""
        counted = [
            *[(len(self.losses), "loss", "es")] * (OWN not in self.losses),
            (len(self.optimizers), "optimizer", "s"),
            *[(len(self.batch_sizes), "batch size", "s")] * (OWN not in self.batch_sizes),
            *[(len(self.schedules), "schedule", "s")] * (len(self.schedules) > 1),
        ]
        axes = " x ".join(f"{count} {name}{ending * (count != 1)}" for count, name, ending in counted)
        cells = len(self.cells)
        best = "the best rate and its neighbours" if self.confirm_neighbours else "the best rate"
        tried = f"{self.num_rates} learning rates on {len(self.tuning_seeds)} seeds"
        lengths = f"up to {self.epochs}" if self.rung_epochs else f"{self.epochs}"
        if self.num_configurations:
            tried += f" and {self.num_configurations} settings of the other options around the best of them"
            best += ", the best setting"
        confirmed = f"{best} and the untuned default on {len(self.confirmation_seeds)} fresh seeds"
        confirmed += ", each with its own draw of training and validation rows" * (self.splits > 1)
        runs = f"{cells * self.runs_a_cell:,} runs of {lengths} epoch{'s' * (self.epochs != 1)}"
        each = f"for each of the {cells}, " if cells > 1 else ""
        return [
            f"Plan: {axes}; {each}{tried}, then {confirmed}.",
            f"About {runs}, more where a best rate is the last of its grid.",
            *self._courses_in_words(),
            *self._split_in_words(),
            *self._losses_in_words(),
            *self.left_out,
        ]

    def _courses_in_words(self) -> list[str]:
        told = [f"The rate of every run goes by the schedule {self.schedules[0]}."]
        if len(self.schedules) > 1:
            told = [f"The rate goes by these schedules: {', '.join(self.schedules)}."]
        if self.schedules == ("constant",):
            told = []
        rising = f"It rises at first, over {self.warmup:.3g} of the steps of every run."
        return told + [rising if told else rising.replace("It", "The rate", 1)] * (self.warmup > 0.0)

    def _split_in_words(self) -> list[str]:
        drawn = []
        if self.rows is not None:
            drawn = [f"On {self.rows:,} rows drawn at random (all, where there are no more)."]
        if self.ignore:
            drawn.append(f"Without {' and '.join(map(repr, self.ignore))}.")
        if self.group is not None:
            how = "none of its groups is in two parts, and classes are not kept in proportion"
            return [*drawn, f"Split by {self.group!r}, which is no feature: {how}."]
        if self.time is not None:
            how = "training rows come first, then validation, then test"
            return [*drawn, f"Split by {self.time!r}, which is no feature: {how}."]
        return drawn

    def _losses_in_words(self) -> list[str]:
        by_reason: dict[str, list[str]] = {}
        for loss in self.losses:
            if loss in self.loss_reasons:
                by_reason.setdefault(self.loss_reasons[loss], []).append(loss)
        reasons = [f"{' and '.join(losses)} ({reason})" for reason, losses in by_reason.items()]
        return [f"Losses: {', '.join(reasons)}."] * bool(reasons)

    def run(self, trial: Trial) -> Run:
        """A trial, as the engine takes it."""
        return Run(
            loss=trial.cell.loss,
            optimizer=trial.cell.optimizer,
            lr=trial.lr,
            batch_size=trial.cell.batch_size,
            seed=trial.seed,
            architecture=self.architecture,
            stop=Stop(max_epochs=trial.setting.epochs or self.epochs),
            loss_options=dict(trial.setting.loss_options),
            optimizer_options=OPTIMIZERS[trial.cell.optimizer].arguments(
                dict(trial.setting.optimizer_options)
            ),
            schedule=trial.cell.schedule,
            warmup=self.warmup,
            # A run up to a rung is the beginning of the long one: its schedule is laid out over all epochs.
            schedule_epochs=self.epochs if trial.setting.epochs else None,
        )

    def to_json(self) -> str:
        """The text of ``plan.json``: the same bytes for the same plan."""
        return canonical_json({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """The plan a ``plan.json`` holds.

        Raises:
            InputError: the text is not a plan, or names what this version does not know.
        """
        try:
            given = parse_json(text)
        except ValueError as error:
            raise InputError(f"The plan is not valid JSON: {error}.") from None
        return _plan_of(given)


def make_plan(prepared: AnyPrepared, options: Options) -> Plan:
    """Decide every run from the data and the options alone.

    Raises:
        InputError: an option names nothing known, does not fit the task, or is out of range.
    """
    num_train_rows = prepared.num_rows.get("train")
    optimizers = check.check_optimizers(options.optimizers)
    num_seeds = check.check_seeds(options.seeds)
    seed = check.check_seed(options.seed)
    first = seed * _SEED_BLOCK
    fresh = first + _FRESH
    reasons = choose_losses(prepared.task, prepared.diagnosis) if options.losses is None else {}
    losses = (
        check.check_losses(options.losses, prepared.task) if options.losses is not None else tuple(reasons)
    )
    batch_sizes = check.check_batch_sizes(options.batch_sizes, num_train_rows)
    schedules = check.check_schedules(options.schedules)
    num_cells = len(losses) * len(optimizers) * len(batch_sizes) * len(schedules)
    num_contestants = 2 * num_cells  # each cell tuned, and untuned
    num_fresh = max(CONFIRMATION_SEEDS, num_seeds, seeds_to_tell(num_contestants))
    splits = _num_splits(prepared, options, num_fresh)
    num_fresh = num_fresh if splits == 1 else splits
    plan = Plan(
        task=prepared.task,
        asked_task=options.task,
        target=prepared.target,
        metric=check.check_metric(options.metric, prepared.task),
        losses=losses,
        loss_reasons=reasons,
        optimizers=optimizers,
        batch_sizes=batch_sizes,
        rates=rate_grids(optimizers, POINTS_PER_DECADE),
        points_per_decade=POINTS_PER_DECADE,
        default_rates={name: OPTIMIZERS[name].default_lr for name in optimizers},
        epochs=check.check_count("max_epochs", options.max_epochs) or default_epochs(num_train_rows or 1),
        tuning_seeds=tuple(range(first, first + num_seeds)),
        confirmation_seeds=tuple(range(fresh, fresh + num_fresh)),
        confirm_neighbours=True,
        architecture=check.check_architecture(options.hidden, options.activation),
        validation=VALIDATION,
        test=TEST,
        seed=seed,
        num_train_rows=num_train_rows,
        data_sha256=prepared.data_sha256,
        **_tuning_beyond_rates(check.check_tune(options.tune), losses, optimizers),
        splits=splits,
        group=options.group,
        time=options.time,
        rows=check.check_count("rows", options.rows),
        schedules=schedules,
        warmup=check.check_warmup(options.warmup),
        ignore=check.check_ignore(options.ignore),
    )
    _check_courses(plan)
    return plan


def _check_courses(plan: Plan) -> None:
    """Every schedule has steps to go over, as far as it is known how many there are.

    Raises:
        InputError: in some batch regime a run has one.
    """
    num_rows = plan.num_train_rows
    if num_rows is None:
        return
    for cell in plan.cells:
        run = plan.run(Setting(cell, 1.0).on(plan.seed))
        size = num_rows if cell.batch_size == "full" else int(cell.batch_size)
        check_course(run, math.ceil(num_rows / size))


def _num_splits(prepared: AnyPrepared, options: Options, num_fresh: int) -> int:
    """What was asked for; else for a small table one for each fresh seed, which costs no run more.

    Raises:
        InputError: too few, or several where the rows cannot be drawn again.
    """
    asked = check.check_splits(options.splits, CONFIRMATION_SEEDS)
    fixed = "time has one" if options.time is not None else None
    fixed = "their parts are given" if not hasattr(prepared, "y_train") else fixed
    if asked is not None and asked > 1 and fixed is not None:
        raise InputError(f"There is one split of these rows ({fixed}); leave splits out.")
    # Whole groups may leave a class out of the training rows: not a risk to take unasked.
    is_risky = options.group is not None and has_classes(prepared.task)
    is_small = sum(prepared.num_rows.values()) < SMALL_TABLE
    return asked or (num_fresh if is_small and fixed is None and not is_risky else 1)


def _tuning_beyond_rates(track: str, losses: Sequence[str], optimizers: Sequence[str]) -> dict[str, Any]:
    if track == "rates":
        return {}
    return {
        "num_configurations": CONFIGURATIONS,
        "loss_ranges": loss_ranges(losses),
        "optimizer_ranges": {name: dict(OPTIMIZERS[name].tunable) for name in optimizers},
    }


def loss_ranges(losses: Sequence[str]) -> dict[str, dict[str, TuningRange]]:
    """What of each loss is tuned; nothing of one that only a training function of the user's knows."""
    return {name: {} if name == OWN else dict(LOSSES[name].formula.tunable) for name in losses}


def rate_grids(optimizers: tuple[str, ...], points_per_decade: int) -> dict[str, tuple[float, ...]]:
    """Each optimizer's grid over its own range, all of one length."""
    return equal_grids({name: OPTIMIZERS[name].rates for name in optimizers}, points_per_decade)


def default_epochs(num_train_rows: int) -> int:
    """About 200,000 examples a run, within 5 and 100 epochs."""
    return min(MAX_EPOCHS, max(MIN_EPOCHS, math.ceil(EXAMPLES_A_RUN / num_train_rows)))


def read_plan(given: Plan | Mapping[str, Any] | str | os.PathLike[str]) -> Plan:
    """A plan from itself, its JSON object, or the path of a ``plan.json``.

    Raises:
        InputError: the file cannot be read, or does not hold a plan.
    """
    if isinstance(given, Plan):
        return given
    if isinstance(given, Mapping):
        return _plan_of(given)
    try:
        return Plan.from_json(read_bytes(Path(given)))
    except OSError as error:
        raise InputError(f"The plan {str(given)!r} cannot be read: {error.strerror}.") from None


def _plan_of(given: object) -> Plan:
    if not isinstance(given, Mapping) or given.get("format") != FORMAT:
        raise InputError(f'The plan is not one of ours: it should be an object with "format": {FORMAT}.')
    names = {part.name for part in fields(Plan)}
    # An older plan lacks what it had no choice in.
    given = _defaults() | dict(given)
    wrong = sorted(names.symmetric_difference(set(given) - {"format"}))
    if wrong:
        raise InputError(f"The plan has missing or unknown entries: {', '.join(wrong)}.")
    try:
        _check_known(given)
        plan = _typed(given)
    except MALFORMED as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"The plan has an entry of the wrong kind: {error}.") from None
    num_cells = len(plan.losses) * len(plan.optimizers) * len(plan.batch_sizes) * len(plan.schedules)
    num_runs = num_cells * plan.runs_a_cell
    if num_runs > MOST_RUNS:
        raise InputError(f"The plan has {num_runs:,} runs; {MOST_RUNS:,} would take years.")
    changed = [name for name, value in asdict(plan).items() if value != _tuples(given[name])]
    if changed:
        raise InputError(f"The plan's {changed[0]} is of the wrong kind: {given[changed[0]]!r}.")
    return plan


def _defaults() -> dict[str, Any]:
    made = {part.name: part.default_factory() for part in fields(Plan) if part.default_factory is not MISSING}
    return made | {part.name: part.default for part in fields(Plan) if part.default is not MISSING}


def _check_known(given: Mapping[str, Any]) -> None:
    """Every name is known in this program: one of the user's own is when what makes it has run.

    Raises:
        InputError: one is not.
    """
    if given["task"] == OWN:
        own_score(given["metric"])
    named = (
        ("loss", given["losses"], (*LOSSES, *([OWN] * (given["task"] == OWN)))),
        ("optimizer", given["optimizers"], OPTIMIZERS),
        ("metric", given["metric"], METRICS),
    )
    for kind, words, known in named:
        for word in [words] if isinstance(words, str) else words:
            if isinstance(word, str) and word not in known:
                raise InputError(
                    f"The plan's {kind} {word!r} is not known here; if it is your own, import what makes it first "
                    "(--import)."
                )


def _typed(given: Mapping[str, Any]) -> Plan:
    """The plan an object describes, each entry checked by the rules its option is checked by."""
    task = cast(Task, given["task"])
    if task not in check.DEFAULT_METRICS:
        raise InputError(f"The plan's task {task!r} is none of {', '.join(check.DEFAULT_METRICS)}.")
    optimizers = check.check_optimizers(given["optimizers"])
    num_train_rows = None if task == OWN else int(given["num_train_rows"])
    return Plan(
        task=task,
        asked_task=str(given["asked_task"]),
        target=str(given["target"]),
        metric=check.check_metric(given["metric"], task),
        losses=check.check_losses(given["losses"], task),
        loss_reasons={str(loss): str(reason) for loss, reason in given["loss_reasons"].items()},
        optimizers=optimizers,
        batch_sizes=check.check_batch_sizes(given["batch_sizes"], num_train_rows),
        rates={name: _rates(given["rates"][name]) for name in optimizers},
        points_per_decade=_points_per_decade(given["points_per_decade"]),
        default_rates={
            name: check.check_positive("A default rate", given["default_rates"][name]) for name in optimizers
        },
        epochs=check.check_count("epochs", given["epochs"]) or MIN_EPOCHS,
        tuning_seeds=_seeds(given["tuning_seeds"], check.MIN_SEEDS),
        confirmation_seeds=_fresh_seeds(given["confirmation_seeds"], given["tuning_seeds"]),
        confirm_neighbours=bool(given["confirm_neighbours"]),
        architecture=check.check_architecture(
            given["architecture"]["hidden"], given["architecture"]["activation"]
        ),
        validation=float(given["validation"]),
        test=float(given["test"]),
        seed=check.check_seed(given["seed"]),
        num_train_rows=num_train_rows,
        data_sha256=str(given["data_sha256"]),
        group=_column(given["group"]),
        time=_column(given["time"]),
        splits=_splits(given),
        rows=check.check_count("rows", given["rows"]),
        rungs=_rungs(given["rungs"]),
        num_configurations=_num_configurations(given["num_configurations"]),
        loss_ranges=_ranges(given["loss_ranges"]),
        optimizer_ranges=_ranges(given["optimizer_ranges"]),
        together=bool(given["together"]),
        schedules=check.check_schedules(given["schedules"]),
        warmup=check.check_warmup(given["warmup"]),
        ignore=check.check_ignore(given["ignore"]),
        module_sha256=None if given["module_sha256"] is None else str(given["module_sha256"]),
        left_out=tuple(given["left_out"]),
    )


def _splits(given: Mapping[str, Any]) -> int:
    splits, fresh = check.check_count("splits", given["splits"]) or 1, len(given["confirmation_seeds"])
    if splits not in (1, fresh) or (splits > 1 and given["time"] is not None):
        raise InputError(
            f"The plan's splits are 1, or one for each of its {fresh} fresh seeds and not by time."
        )
    return splits


def _points_per_decade(given: Any) -> int:
    points = check.check_count("points_per_decade", given) or POINTS_PER_DECADE
    if points > 100:
        raise InputError(f"The plan's points_per_decade are 100 at most, not {points:,}.")
    return points


def _num_configurations(given: Any) -> int:
    return 0 if given == 0 else check.check_count("num_configurations", given) or 0


def _ranges(given: Any) -> dict[str, dict[str, TuningRange]]:
    ranges = {
        str(owner): {str(name): TuningRange(*found) for name, found in own.items()}
        for owner, own in given.items()
    }
    for own in ranges.values():
        for name, (low, high, scale) in own.items():
            if not low < high or (scale == "log" and low <= 0) or (scale == "log_complement" and high >= 1):
                raise InputError(
                    f"The plan's range of {name} is not from a lower to a higher number on its scale."
                )
    return ranges


def _rungs(given: Any) -> tuple[float, ...]:
    rungs = tuple(float(share) for share in given)
    if list(rungs) != sorted(set(rungs)) or not all(0.0 < share < 1.0 for share in rungs):
        raise InputError("The plan's rungs are an ascending list of shares of the epochs, between 0 and 1.")
    return rungs


def _column(given: Any) -> str | None:
    return None if given is None else str(given)


def _rates(given: Any) -> tuple[float, ...]:
    rates = tuple(check.check_positive("A learning rate", rate) for rate in given)
    if not rates or list(rates) != sorted(set(rates)):
        raise InputError("The plan's rates are an ascending list for each optimizer.")
    return rates


def _seeds(given: Any, at_least: int) -> tuple[int, ...]:
    seeds = tuple(int(seed) for seed in given)
    if len(set(seeds)) != len(seeds) or len(seeds) < at_least or min(seeds) < 0:
        raise InputError(f"The plan's seeds are at least {at_least} different whole numbers from 0.")
    return seeds


def _fresh_seeds(given: Any, used: Any) -> tuple[int, ...]:
    seeds = _seeds(given, CONFIRMATION_SEEDS)
    if set(seeds) & set(used):
        raise InputError("The plan confirms on seeds it has tuned on; they have to be fresh ones.")
    return seeds


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples, so that what was read can be compared with what was understood."""
    if isinstance(value, Mapping):
        return {name: _tuples(entry) for name, entry in value.items()}
    return tuple(_tuples(entry) for entry in value) if isinstance(value, (list, tuple)) else value
