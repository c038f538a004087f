"""A time budget: the plan is trimmed by a measured speed before the first run, and says what was left out."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from steepest.comparison.engine import Engine, count_threads
from steepest.comparison.plan import MIN_EPOCHS, Plan, rate_grids
from steepest.errors import InputError
from steepest.training.run import BatchSize, Run, Stop

__all__ = ["RUNGS", "estimate_sec", "measure", "seconds_of", "trim", "without_names"]

# The rest is kept for wider grids, for the reading of results and for a speed that was measured too well.
_SHARE_OF_BUDGET = 0.8
_PROBE = Stop(max_epochs=None, max_steps=200, max_sec=0.5)
RUNGS = (0.1, 0.3)  # shares of the epochs; after each, a cell's better third goes on
_ONE_STEP = Stop(max_epochs=None, max_steps=1)
_NOT_TRIED = " were not tried: "
FEWEST_CONFIGURATIONS = 4
_UNITS_SEC: Mapping[str, float] = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds_of(budget: float | str) -> float:
    """``60``, ``"60s"``, ``"5m"`` or ``"1.5h"`` as seconds.

    Raises:
        InputError: it is not a positive time.
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z]*)\s*", str(budget).lower())
    if found is None or found[2] not in _UNITS_SEC or not 0.0 < float(found[1]) < math.inf:
        raise InputError(f"A budget is a positive time such as 60, '60s', '5m' or '1h', not {budget!r}.")
    return float(found[1]) * _UNITS_SEC[found[2]]


def measure(
    plan: Plan, engine: Engine, num_threads: int | None, stop_event: threading.Event | None = None
) -> dict[BatchSize, float]:
    """Seconds a step takes in each batch regime, the mean over the optimizers, with all threads at work.

    Raises:
        KeyboardInterrupt: the event was set; nothing has begun.
    """
    threads = count_threads(num_threads)
    first = Run(
        plan.losses[0], plan.optimizers[0], 1e-6, plan.batch_sizes[0], plan.seed, plan.architecture, _ONE_STEP
    )
    # What is done once, such as compiling, is no part of a step.
    engine.run_all([first], num_threads=1, stop_event=stop_event)
    return {
        batch_size: _seconds_a_step(plan, engine, batch_size, threads, stop_event)
        for batch_size in plan.batch_sizes
    }


def _seconds_a_step(
    plan: Plan, engine: Engine, batch_size: BatchSize, num_threads: int, stop_event: threading.Event | None
) -> float:
    runs = [
        Run(plan.losses[0], optimizer, min(rates), batch_size, plan.seed, plan.architecture, _PROBE)
        for optimizer, rates in plan.rates.items()
        for _ in range(num_threads)
    ]
    given = engine.run_all(runs, num_threads=num_threads, stop_event=stop_event)
    if stop_event is not None and stop_event.is_set():
        raise KeyboardInterrupt
    records = [record for record in given if record is not None]
    return sum(record.seconds for record in records) / max(1, sum(record.num_steps for record in records))


def estimate_sec(plan: Plan, seconds_per_step: Mapping[BatchSize, float], num_threads: int | None) -> float:
    """How long the plan's runs take, extensions of the grid apart."""
    cells_a_regime = len(plan.losses) * len(plan.optimizers) * len(plan.schedules)
    seconds_an_epoch = sum(
        _steps_an_epoch(plan, batch_size) * seconds_per_step[batch_size] for batch_size in plan.batch_sizes
    )
    return seconds_an_epoch * cells_a_regime * plan.epochs_a_cell / count_threads(num_threads)


def _steps_an_epoch(plan: Plan, batch_size: BatchSize) -> int:
    if isinstance(batch_size, str) or plan.num_train_rows is None:
        return 1  # as the engine of a training function counts them
    return math.ceil(plan.num_train_rows / batch_size)


def trim(
    plan: Plan, seconds_per_step: Mapping[BatchSize, float], num_threads: int | None, seconds: float
) -> tuple[Plan, list[str]]:
    """The largest plan on the ladder that fits the budget, and what it leaves out, in sentences.

    Step by step: each cell's rates are pruned; fewer settings of the other options; no confirmation of neighbouring
    rates; fewer epochs; fewer batch regimes; fewer schedules; fewer optimizers or losses, whichever are more, the last
    named first; two rates a decade in place of three. Never fewer seeds, and never a narrower range of rates:
    those make a comparison fair.
    """

    def fits(candidate: Plan) -> bool:
        return estimate_sec(candidate, seconds_per_step, num_threads) <= _SHARE_OF_BUDGET * seconds

    trimmed = next((candidate for candidate in _ladder(plan, fits) if fits(candidate)), None)
    if trimmed is None:
        *_, trimmed = _ladder(plan, fits)
    left_out = _left_out(plan, trimmed)
    if not fits(trimmed):
        estimate = estimate_sec(trimmed, seconds_per_step, num_threads) / _SHARE_OF_BUDGET
        left_out.append(
            f"The smallest fair comparison takes about {estimate:.0f} s here, more than the budget leaves."
        )
    return replace(trimmed, left_out=plan.left_out + tuple(left_out)), left_out


def _ladder(plan: Plan, fits: Callable[[Plan], bool]) -> Iterator[Plan]:
    """Ever smaller plans. After each step that takes something away, as many epochs as fit are given back."""
    yield plan
    smaller = replace(plan, rungs=RUNGS)
    yield smaller
    if smaller.num_configurations > FEWEST_CONFIGURATIONS:
        smaller = replace(smaller, num_configurations=FEWEST_CONFIGURATIONS)
        yield smaller
    smaller = replace(smaller, confirm_neighbours=False)
    yield smaller
    yield (smaller := _with_fitting_epochs(smaller, plan.epochs, fits))
    while len(smaller.batch_sizes) > 1:
        smaller = replace(smaller, batch_sizes=smaller.batch_sizes[:-1])
        yield (smaller := _with_fitting_epochs(smaller, plan.epochs, fits))
    while len(smaller.schedules) > 1:
        smaller = replace(smaller, schedules=smaller.schedules[:-1])
        yield (smaller := _with_fitting_epochs(smaller, plan.epochs, fits))
    while len(smaller.optimizers) > 1 or len(smaller.losses) > 1:
        if len(smaller.optimizers) >= len(smaller.losses):
            smaller = _without_last_optimizer(smaller)
        else:
            smaller = replace(smaller, losses=smaller.losses[:-1])
        yield (smaller := _with_fitting_epochs(smaller, plan.epochs, fits))
    smaller = replace(smaller, points_per_decade=2, rates=rate_grids(smaller.optimizers, 2))
    yield _with_fitting_epochs(smaller, plan.epochs, fits)


def _with_fitting_epochs(plan: Plan, most: int, fits: Callable[[Plan], bool]) -> Plan:
    """The plan with as many epochs as fit, at least five (or what was asked for, if that is less)."""
    fewest = min(MIN_EPOCHS, most)
    fitting = (epochs for epochs in range(most, fewest, -1) if fits(replace(plan, epochs=epochs)))
    return replace(plan, epochs=next(fitting, fewest))


def _without_last_optimizer(plan: Plan) -> Plan:
    optimizers = plan.optimizers[:-1]
    return replace(
        plan,
        optimizers=optimizers,
        rates={name: plan.rates[name] for name in optimizers},
        default_rates={name: plan.default_rates[name] for name in optimizers},
    )


def _rungs_in_words(plan: Plan) -> str:
    first, *kept = plan.rates_at_rungs
    lengths = [str(epochs) for epochs in (*plan.rung_epochs, "all")]
    steps = [f"all {first} run {lengths[0]} of {plan.epochs} epochs"]
    steps += [f"the better {count} run {length}" for count, length in zip(kept, lengths[1:], strict=True)]
    return f"{', '.join(steps)}; {plan.num_finished} of those cut are finished all the same"


def without_names(sentences: Sequence[str], added: Sequence[str]) -> tuple[str, ...]:
    """What was left out, once some of it has been added after all."""
    left = []
    for sentence in sentences:
        what, is_list, names = sentence.partition(_NOT_TRIED)
        still = [name for name in names.rstrip(".").split(", ") if name not in added]
        if not is_list:
            left.append(sentence)
        elif still:
            left.append(f"{what}{_NOT_TRIED}{', '.join(still)}.")
    return tuple(left)


def _left_out(plan: Plan, trimmed: Plan) -> list[str]:
    why, sentences = "To keep to the budget", []
    if trimmed.rung_epochs and not plan.rung_epochs:
        sentences.append(f"{why}, the rates of each pair are pruned: {_rungs_in_words(trimmed)}.")
    if trimmed.num_configurations < plan.num_configurations:
        counts = f"{trimmed.num_configurations} in place of {plan.num_configurations}"
        sentences.append(f"{why}, {counts} settings of the other options are tried.")
    if plan.confirm_neighbours and not trimmed.confirm_neighbours:
        sentences.append(f"{why}, only the best rate of each pair is confirmed, not its neighbours.")
    if trimmed.epochs < plan.epochs:
        sentences.append(f"{why}, every run has {trimmed.epochs} epochs in place of {plan.epochs}.")
    for what, before, after in (
        ("batch sizes", plan.batch_sizes, trimmed.batch_sizes),
        ("schedules", plan.schedules, trimmed.schedules),
        ("optimizers", plan.optimizers, trimmed.optimizers),
        ("losses", plan.losses, trimmed.losses),
    ):
        if len(after) < len(before):
            gone = ", ".join(str(name) for name in before[len(after) :])
            sentences.append(f"{why}, these {what}{_NOT_TRIED}{gone}.")
    if trimmed.points_per_decade < plan.points_per_decade:
        sentences.append(f"{why}, the rates are two a decade in place of three.")
    return sentences
