"""A finished comparison is asked for more: more seeds, losses or optimizers, as if all had been asked at once."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from steepest.comparison import options as check
from steepest.comparison.budget import without_names
from steepest.comparison.plan import Plan, loss_ranges, rate_grids, read_plan
from steepest.comparison.statistics import seeds_to_tell
from steepest.comparison.unfinished import UNFINISHED
from steepest.errors import MALFORMED, InputError, near_directories
from steepest.files import check_sums, parse_json, read_bytes
from steepest.optim import OPTIMIZERS

__all__ = ["extended", "finished_plan"]

Names = Sequence[str] | str | None


def finished_plan(place: Path) -> Plan:
    """The plan of the finished comparison in a directory.

    Raises:
        InputError: there is none, or it has not been finished.
    """
    if (place / UNFINISHED / "plan.json").exists():
        raise InputError(
            f"{str(place)!r} holds an unfinished comparison: go on with it by --resume {shlex.quote(str(place))}, then "
            "extend it."
        )
    try:
        status = parse_json(read_bytes(place / "verdict.json"))["status"]
    except (OSError, *MALFORMED):
        raise InputError(
            f"There is nothing to extend: {str(place)!r} holds no comparison{near_directories(place)}"
        ) from None
    if status != "complete":
        raise InputError(
            f"The comparison in {str(place)!r} was interrupted; only a finished one can be extended."
        )
    check_sums(place, ("verdict.json", "plan.json", "runs.parquet"))
    return read_plan(place / "plan.json")


def extended(plan: Plan, *, losses: Names, optimizers: Names, more_seeds: int | None) -> Plan:
    """The plan of the comparison that would have had all of it from the start.

    Args:
        plan: of the finished comparison.
        losses: more of them, after those it has.
        optimizers: the same.
        more_seeds: so many more for tuning, and as many fresh ones as then are due.

    Raises:
        InputError: nothing is asked for, or something it has already, or that does not exist.
    """
    more = check.check_count("more_seeds", more_seeds) or 0
    new_losses = () if losses is None else check.check_losses(losses, plan.task)
    new_optimizers = () if optimizers is None else check.check_optimizers(optimizers)
    if not (more or new_losses or new_optimizers):
        raise InputError("Nothing is to be added; give more_seeds, add_losses or add_optimizers.")
    for what, known, new in (
        ("loss", plan.losses, new_losses),
        ("optimizer", plan.optimizers, new_optimizers),
    ):
        for name in new:
            if name in known:
                raise InputError(f"The comparison has the {what} {name!r} already; name those it lacks.")
    all_losses, all_optimizers = plan.losses + new_losses, plan.optimizers + new_optimizers
    num_seeds = check.check_seeds(len(plan.tuning_seeds) + more)
    num_contestants = 2 * len(all_losses) * len(all_optimizers) * len(plan.batch_sizes) * len(plan.schedules)
    # With tuning of the rates alone there are no ranges.
    more_ranges = (new_losses, new_optimizers) if plan.num_configurations else ((), ())
    num_fresh = max(len(plan.confirmation_seeds), num_seeds, seeds_to_tell(num_contestants))
    return replace(
        plan,
        losses=all_losses,
        optimizers=all_optimizers,
        rates=_rates(plan, all_optimizers),
        default_rates={
            name: plan.default_rates.get(name, OPTIMIZERS[name].default_lr) for name in all_optimizers
        },
        loss_ranges={
            **plan.loss_ranges,
            **loss_ranges(more_ranges[0]),
        },
        optimizer_ranges={
            **plan.optimizer_ranges,
            **{name: dict(OPTIMIZERS[name].tunable) for name in more_ranges[1]},
        },
        tuning_seeds=_longer(plan.tuning_seeds, num_seeds),
        confirmation_seeds=_longer(plan.confirmation_seeds, num_fresh),
        splits=1 if plan.splits == 1 else num_fresh,
        left_out=without_names(plan.left_out, (*new_losses, *new_optimizers)),
    )


def _rates(plan: Plan, optimizers: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    """The grids are equally long: one that is wider makes the others wider, and what they had stays in them."""
    if optimizers == plan.optimizers:
        return dict(plan.rates)
    if dict(plan.rates) != rate_grids(plan.optimizers, plan.points_per_decade):
        raise InputError("The comparison followed a plan with rates of its own; it takes no more optimizers.")
    return rate_grids(optimizers, plan.points_per_decade)


def _longer(seeds: tuple[int, ...], count: int) -> tuple[int, ...]:
    after = max(seeds) + 1
    return seeds + tuple(range(after, after + count - len(seeds)))
