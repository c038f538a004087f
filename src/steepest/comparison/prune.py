"""Pruning within each cell, where a budget cannot afford the whole grid: successive halving over the rates.

All rates of a cell run a short way on all tuning seeds; by their seed means the better third goes on to the next rung,
and from the last rung to full length. Never a whole cell is left. The best rate that each rung cut is finished all the
same: it is the likeliest to have been cut wrongly, and what it shows is published as the regret.

A schedule of the rate is laid out over the full length, so a short run is the beginning of the long one, to the bit.
Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from steepest.comparison.plan import Cell, Plan, Setting
from steepest.comparison.statistics import mean_cost
from steepest.comparison.trials import Trials
from steepest.screen.console import number
from steepest.training.metrics import METRICS

__all__ = ["Pruned", "facts", "finish_where_all_diverged", "in_words", "prune", "regret"]

Grids = Mapping[Cell, tuple[float, ...]]


@dataclass(frozen=True)
class Pruned:
    """A cell's rates after the last rung."""

    kept: tuple[float, ...]  # go on to full length
    finished: tuple[float, ...]  # cut, and run to full length all the same: the best that each rung cut
    left: tuple[float, ...]  # cut for good, the best of them first


def prune(plan: Plan, trials: Trials, grids: Grids) -> dict[Cell, Pruned]:
    """Run the rungs, and say which of each cell's rates go on. Without rungs all do.

    Raises:
        Interrupted: the user asked to stop.
    """
    going = dict(grids)
    cut: dict[Cell, list[tuple[float, ...]]] = {cell: [] for cell in grids}  # rung by rung, the best first
    for epochs, num_kept in zip(plan.rung_epochs, plan.rates_at_rungs[1:], strict=True):
        trials.run("rung", plan.trials(going, plan.tuning_seeds, epochs))
        for cell, rates in going.items():
            order = _best_first(plan, trials, cell, rates, epochs)
            going[cell] = tuple(sorted(order[:num_kept]))
            cut[cell].append(order[num_kept:])
            trials.mark_pruned(
                Setting(cell, lr, epochs).on(seed) for lr in order[num_kept:] for seed in plan.tuning_seeds
            )
    return {cell: _pruned(rates, cut[cell]) for cell, rates in going.items()}


def _best_first(
    plan: Plan, trials: Trials, cell: Cell, rates: Sequence[float], epochs: int
) -> tuple[float, ...]:
    """Those that diverged on fewer seeds first, then by the seed mean, then the lower rate."""
    return tuple(
        sorted(
            rates, key=lambda lr: (*mean_cost(trials.costs(Setting(cell, lr, epochs), plan.tuning_seeds)), lr)
        )
    )


def _pruned(kept: tuple[float, ...], cut: Sequence[tuple[float, ...]]) -> Pruned:
    finished = [rates[0] for rates in cut if rates]
    # What went further before it was cut comes first.
    left = [lr for rates in reversed(cut) for lr in rates[1:]]
    return Pruned(kept, tuple(sorted(finished)), tuple(left))


def finish_where_all_diverged(
    plan: Plan, trials: Trials, pruned: Mapping[Cell, Pruned]
) -> dict[Cell, Pruned]:
    """Where every rate at full length diverged, those left take their place, the best first, until one holds.

    Raises:
        Interrupted: the user asked to stop.
    """
    found = dict(pruned)
    while True:
        lost = {
            cell: one.left[:1]
            for cell, one in found.items()
            if one.left and not _holds(plan, trials, cell, (*one.kept, *one.finished))
        }
        if not lost:
            return found
        trials.run("finish", plan.trials(lost, plan.tuning_seeds))
        for cell, (lr,) in lost.items():
            one = found[cell]
            found[cell] = Pruned(one.kept, tuple(sorted((*one.finished, lr))), one.left[1:])


def _holds(plan: Plan, trials: Trials, cell: Cell, rates: Sequence[float]) -> bool:
    return any(_full_cost(plan, trials, cell, lr)[0] == 0 for lr in rates)


def _full_cost(plan: Plan, trials: Trials, cell: Cell, lr: float) -> tuple[int, float]:
    return mean_cost(trials.costs(Setting(cell, lr), plan.tuning_seeds))


def regret(plan: Plan, trials: Trials, cell: Cell, one: Pruned) -> float | None:
    """By how much the best rate that was cut, of those finished, beats the best that went on, in the metric's units.

    0 where it does not; None where nothing was cut, or every rate of one side diverged on a seed.
    """
    kept, finished = (
        [mean for num_lost, mean in (_full_cost(plan, trials, cell, lr) for lr in rates) if num_lost == 0]
        for rates in (one.kept, one.finished)
    )
    return max(0.0, min(kept) - min(finished)) if kept and finished else None


def facts(plan: Plan, trials: Trials, regrets: Mapping[Cell, float | None]) -> dict[str, Any] | None:
    """What was pruned and what it may have cost, for the verdict; None where nothing was.

    Args:
        regrets: of every cell, as :func:`regret` gives them.
    """
    if not plan.rung_epochs:
        return None
    known = {cell: found for cell, found in regrets.items() if found is not None}
    worst = max(known, key=lambda cell: known[cell], default=None)
    finished = {trial.setting for trial, entry in trials.entries.items() if entry.stage == "finish"}
    return {
        "rung_epochs": plan.rung_epochs,
        "rates": plan.rates_at_rungs,
        "num_pruned_runs": sum(entry.pruned for entry in trials.entries.values()),
        "num_finished": len(finished),
        "num_regretted": sum(found > 0 for found in known.values()),
        "regret": None if worst is None else known[worst],
        "worst": None if worst is None else asdict(worst),
    }


def in_words(plan: Plan, found: Mapping[str, Any]) -> str:
    """The regret in a sentence or two."""
    title = METRICS[plan.metric].title
    begin = (
        f"Pruned after {' and '.join(map(str, plan.rung_epochs))} of {plan.epochs} epochs; {found['num_finished']} of "
        "the rates cut were finished all the same"
    )
    if found["regret"] is None:
        return f"{begin}, but diverged: what pruning cost is not known."
    if not found["num_regretted"]:
        return f"{begin}, and in no pair did one of them beat the best that went on: a regret of 0."
    worst = found["worst"]
    return (
        f"{begin}. In {found['num_regretted']} of {len(plan.cells)} pairs the best of them beat all that went on, and "
        f"was taken instead; the largest regret is {number(found['regret'])} {title} ({worst['loss']} + "
        f"{worst['optimizer']}). Rates that were cut for good may hide more of it."
    )
