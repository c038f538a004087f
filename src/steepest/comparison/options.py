"""The options of a comparison and a fit, checked: every complaint names what was given and what would do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steepest.comparison.forward import ACTIVATIONS
from steepest.errors import InputError, near_names
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.schedules.course import check_schedule, check_warmup
from steepest.training.metrics import METRICS, Metric, own_score
from steepest.training.run import OWN, Architecture, BatchSize, Task

__all__ = ["MIN_SEEDS", "Options", "check_schedule", "check_warmup"]

MIN_SEEDS = 3
MAX_SEEDS = 1000
TRACKS = ("rates", "all")
DEFAULT_BATCH_SIZE = 32

DEFAULT_METRICS: Mapping[str, str] = {
    "regression": "rmse",
    "binary": "log_loss",
    "multiclass": "log_loss",
    OWN: "min score",
}


@dataclass(frozen=True)
class Options:
    """What a user may decide about a comparison, with the defaults; ``None`` leaves it to the data."""

    task: str = "auto"
    losses: Sequence[str] | str | None = None
    optimizers: Sequence[str] | str | None = None
    batch_sizes: Sequence[BatchSize | str] | BatchSize | str | None = None
    hidden: Sequence[int] = (64, 64)
    activation: str = "relu"
    metric: str | Metric | None = None
    seeds: int = MIN_SEEDS
    seed: int = 0
    max_epochs: int | None = None
    group: str | None = None
    time: str | None = None
    tune: str = "rates"
    splits: int | None = None
    rows: int | None = None
    schedules: Sequence[str] | str = "constant"
    warmup: float = 0.0
    ignore: Sequence[str] | str | None = None


def check_losses(given: Sequence[str] | str | None, task: Task) -> tuple[str, ...]:
    """The losses to compare: those given, or the task's defaults."""
    if given is None:
        return tuple(
            name
            for name, loss in LOSSES.items()
            if task in loss.formula.tasks and loss.formula.compared_by_default
        )
    words = _distinct("loss", _words(given))
    for word in words:
        check_loss(word, task)
    return words


def check_loss(word: str, task: Task) -> str:
    """A loss that is known and fits the task; a training function of the user's own may take any."""
    if task == OWN and word == OWN:
        return word
    if not isinstance(word, str) or word not in LOSSES:
        raise InputError(f"There is no loss {word!r}{near_names(word, LOSSES)}")
    if task != OWN and task not in LOSSES[word].formula.tasks:
        fitting = [name for name, loss in LOSSES.items() if task in loss.formula.tasks]
        of_classes = [other for other in LOSSES[word].formula.tasks if other != "regression"]
        hint = f" For classes that come as floats, the task is {of_classes[0]!r}." if of_classes else ""
        raise InputError(
            f"The loss {word!r} does not fit a {task} target; these do: {', '.join(fitting)}."
            + hint * (task == "regression")
        )
    return word


def check_optimizers(given: Sequence[str] | str | None) -> tuple[str, ...]:
    """The optimizers to compare: those given, or the defaults."""
    if given is None:
        return tuple(name for name, entry in OPTIMIZERS.items() if entry.compared_by_default)
    words = _distinct("optimizer", _words(given))
    for word in words:
        check_optimizer(word)
    return words


def check_optimizer(word: str) -> str:
    """An optimizer that is known."""
    if not isinstance(word, str) or word not in OPTIMIZERS:
        raise InputError(f"There is no optimizer {word!r}{near_names(word, OPTIMIZERS)}")
    return word


def check_metric(given: str | Metric | None, task: Task) -> str:
    """The word of the metric every run is judged by: of the one given, or the task's default."""
    if task == OWN:  # whose word is made here
        return own_score(DEFAULT_METRICS[task] if given is None else given).name
    if given is None:
        return DEFAULT_METRICS[task]
    if isinstance(given, Metric):
        if given.is_users_own:
            METRICS[given.name] = given  # another of the name may have been made since
        given = given.name
    if callable(given):
        raise InputError(
            "The metric is a function that does not say whether more of it is better; give "
            "metric=steepest.metric(function, greater_is_better=...)."
        )
    if not isinstance(given, str) or given not in METRICS:
        raise InputError(f"There is no metric {given!r}{near_names(given, METRICS)}")
    if task not in METRICS[given].tasks:
        fitting = [name for name, metric in METRICS.items() if task in metric.tasks]
        raise InputError(
            f"The metric {given!r} does not fit a {task} target; these do: {', '.join(fitting)}."
        )
    return given


def check_batch_sizes(
    given: Sequence[BatchSize | str] | BatchSize | str | None, num_train_rows: int | None
) -> tuple[BatchSize, ...]:
    """The batch regimes to compare: those given, or the default; ``None``: how many rows there are is not known."""
    if given is None:
        return (OWN if num_train_rows is None else default_batch_size(num_train_rows),)
    items = _words(given) if isinstance(given, (str, int)) else tuple(given)
    return _distinct("batch size", [check_batch_size(item, num_train_rows) for item in items])


def default_batch_size(num_train_rows: int) -> int:
    """So many rows a step, or all where there are fewer."""
    return min(DEFAULT_BATCH_SIZE, num_train_rows)


def check_batch_size(given: object, num_train_rows: int | None) -> BatchSize:
    """``"full"``, or a whole number of rows that the training part has, as far as is known."""
    if given == "full":
        return "full"
    if given == OWN and num_train_rows is None:
        return OWN
    size = _whole_number(given)
    if size is None or size < 1:
        raise InputError(f"A batch size is 'full' or a positive whole number, not {given!r}.")
    if num_train_rows is not None and size > num_train_rows:
        raise InputError(
            f"The batch size {size} is larger than the {num_train_rows} training rows; "
            f"give {num_train_rows} or less, or 'full'."
        )
    return size


def check_schedules(given: Sequence[str] | str) -> tuple[str, ...]:
    """The schedules to compare."""
    return tuple(check_schedule(word).name for word in _distinct("schedule", _words(given)))


def check_ignore(given: Sequence[str] | str | None) -> tuple[str, ...]:
    """The columns to leave out: none, or names."""
    return _distinct("column to ignore", list(map(str, _words(given)))) if given else ()


def check_architecture(hidden: Sequence[int], activation: str) -> Architecture:
    """A perceptron of positive widths with a known activation."""
    widths = [_whole_number(width) for width in _words(hidden)]
    if any(width is None or width < 1 for width in widths):
        raise InputError(
            "Hidden layers are positive whole numbers such as (64, 64), or () for a linear model, "
            f"not {hidden!r}."
        )
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise InputError(f"There is no activation {activation!r}{near_names(activation, ACTIVATIONS)}")
    return Architecture(tuple(width for width in widths if width is not None), activation)


def check_tune(given: object) -> str:
    """What is tuned: the rates, or all that a loss or an optimizer declares a range for."""
    if given not in TRACKS:
        raise InputError(f"What is tuned is {' or '.join(map(repr, TRACKS))}, not {given!r}.")
    return str(given)


def check_seeds(given: object) -> int:
    """How many seeds tune a learning rate: at least three."""
    count = _whole_number(given)
    if count is None or not MIN_SEEDS <= count <= MAX_SEEDS:
        raise InputError(
            f"The number of seeds is a whole number from {MIN_SEEDS} to {MAX_SEEDS}, not {given!r}: "
            "with fewer than three, luck decides."
        )
    return count


def check_splits(given: object, least: int) -> int | None:
    """How many splits of the rows: one, or enough for each fresh seed to have its own; ``None``: by the table."""
    count = check_count("splits", given)
    if count is not None and count != 1 and not least <= count <= MAX_SEEDS:
        raise InputError(
            f"splits is 1, or from {least} to {MAX_SEEDS}: each fresh seed has a split of its own, and fewer seeds do "
            f"not tell pairs apart; {given!r} is neither."
        )
    return count


def check_seed(given: object) -> int:
    """The seed everything random follows from."""
    seed = _whole_number(given)
    if seed is None or not 0 <= seed < 2**31:
        raise InputError(f"A seed is a whole number from 0 to {2**31 - 1}, not {given!r}.")
    return seed


def check_count(name: str, given: object) -> int | None:
    """A positive whole number, or ``None`` for no limit."""
    if given is None:
        return None
    count = _whole_number(given)
    if count is None or count < 1:
        raise InputError(f"{name} is a positive whole number, not {given!r}.")
    return count


def check_positive(name: str, given: object) -> float:
    """A positive, finite number."""
    number = _number(given)
    if number is None or not 0.0 < number < math.inf:
        raise InputError(f"{name} is a positive number, not {given!r}.")
    return number


def check_limit(name: str, given: object) -> float | None:
    """A positive, finite number, or ``None`` for no limit."""
    return None if given is None else check_positive(name, given)


def check_number(name: str, given: object) -> float | None:
    """A finite number, or ``None`` for none."""
    number = _number(given)
    if given is not None and (number is None or not math.isfinite(number)):
        raise InputError(f"{name} is a number, not {given!r}.")
    return number


def check_threads(given: object) -> int | None:
    """The number of threads, or ``None`` for one a processor."""
    return check_count("num_threads", given)


def _words(given: object) -> tuple[Any, ...]:
    """``"a, b"``, ``"a"``, ``1`` and ``["a", "b"]`` as a tuple of items."""
    if isinstance(given, str):
        return tuple(word.strip() for word in given.split(",") if word.strip())
    return tuple(given) if isinstance(given, Iterable) else (given,)


def _distinct(what: str, items: Sequence[Any]) -> tuple[Any, ...]:
    if not items:
        raise InputError(f"Give at least one {what}.")
    twice = [item for position, item in enumerate(items) if item in items[:position]]
    if twice:
        raise InputError(f"The {what} {twice[0]!r} is given twice; name each one once.")
    return tuple(items)


def _number(given: object) -> float | None:
    """A real number, from a number or its text; ``None`` for anything else (booleans too)."""
    if isinstance(given, bool):
        return None
    try:
        number = float(given)  # type: ignore[arg-type]  # what cannot be converted is caught below
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def _whole_number(given: object) -> int | None:
    number = _number(given)
    return int(number) if number is not None and math.isfinite(number) and number == int(number) else None
