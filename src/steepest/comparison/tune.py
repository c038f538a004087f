"""Tuning: every cell at every rate of its grid on the same seeds; the best rate by validation score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from steepest.comparison.configurations import best_configuration, configurations
from steepest.comparison.plan import Cell, Plan, Setting
from steepest.comparison.prune import finish_where_all_diverged, prune, regret
from steepest.comparison.rates import decade_above, decade_below
from steepest.comparison.statistics import mean_cost
from steepest.comparison.trials import Trials

__all__ = ["Tuned", "best_row", "choose_rate", "tune", "tuned_so_far"]

# Best at a grid's edge: the grid grows by a decade in that direction, at most so many times.
MAX_EXTENSIONS = 2


@dataclass(frozen=True)
class Tuned:
    """A cell with the rates it was tried at and the best of them."""

    cell: Cell
    rates: tuple[float, ...]  # ascending, extensions and what was pruned included
    best: float
    at_edge: bool  # still the last rate tried: the cell is not tuned
    rate_interval: tuple[float, float]  # the rates within one standard error of the best
    epochs: int | None = None  # of the runs that this was read from; None: the plan's
    regret: float | None = None  # see prune.regret
    configuration: Setting | None = None  # the best found beyond the rates, where that was looked for

    @property
    def best_and_neighbours(self) -> tuple[float, ...]:
        """The best rate and those beside it, ascending."""
        place = self.rates.index(self.best)
        return self.rates[max(0, place - 1) : place + 2]


def tune(plan: Plan, trials: Trials) -> list[Tuned]:
    """Run the grid, widen it where the best rate is its last, and choose each cell's rate.

    Raises:
        Interrupted: the user asked to stop.
    """
    grids = {cell: plan.rates[cell.optimizer] for cell in plan.cells}
    pruned = prune(plan, trials, grids)
    trials.run("tune", plan.trials({cell: one.kept for cell, one in pruned.items()}, plan.tuning_seeds))
    trials.run("finish", plan.trials({cell: one.finished for cell, one in pruned.items()}, plan.tuning_seeds))
    pruned = finish_where_all_diverged(plan, trials, pruned)
    for _ in range(MAX_EXTENSIONS):
        longer = {cell: _extended(plan, trials, cell, rates) for cell, rates in grids.items()}
        if longer == grids:
            break
        wanted = plan.trials(longer, plan.tuning_seeds)
        trials.run("extend", [trial for trial in wanted if trial.lr not in pruned[trial.cell].left])
        grids = longer
    tuned = [
        replace(choose_rate(plan, trials, cell, rates), regret=regret(plan, trials, cell, pruned[cell]))
        for cell, rates in grids.items()
    ]
    return _tune_beyond_rates(plan, trials, tuned) if plan.num_configurations else tuned


def _tune_beyond_rates(plan: Plan, trials: Trials, tuned: Sequence[Tuned]) -> list[Tuned]:
    tried = {found: configurations(plan, found.cell, found.best) for found in tuned}
    in_turn = [setting for together in zip(*tried.values(), strict=True) for setting in together]
    trials.run("options", [setting.on(seed) for seed in plan.tuning_seeds for setting in in_turn])
    return [
        replace(found, configuration=best_configuration(plan, trials, own)) for found, own in tried.items()
    ]


def tuned_so_far(plan: Plan, trials: Trials) -> list[Tuned]:
    """What an interrupted tuning has found: each cell at the rates it was tried at, as far as all cells got."""
    tried: dict[Cell, set[float]] = {cell: set(plan.rates[cell.optimizer]) for cell in plan.cells}
    for trial, entry in trials.entries.items():
        if trial.seed in plan.tuning_seeds and entry.stage != "options":
            tried[trial.cell].add(trial.lr)
    epochs = _length_reached(plan, trials)
    return [choose_rate(plan, trials, cell, tuple(sorted(rates)), epochs) for cell, rates in tried.items()]


def _length_reached(plan: Plan, trials: Trials) -> int | None:
    """The epochs of the longest runs that every cell has begun; None: the plan's."""
    lengths = (None, *reversed(plan.rung_epochs))
    begun = {
        epochs: {trial.cell for trial in trials.entries if trial.setting.epochs == epochs}
        for epochs in lengths
    }
    return next((epochs for epochs in lengths if len(begun[epochs]) == len(plan.cells)), lengths[-1])


def _extended(plan: Plan, trials: Trials, cell: Cell, rates: tuple[float, ...]) -> tuple[float, ...]:
    """The cell's rates, one decade longer where the best is the first or the last."""
    found = choose_rate(plan, trials, cell, rates)
    if not found.at_edge:
        return rates
    if found.best == rates[0]:
        return decade_below(rates, plan.points_per_decade) + rates
    return rates + decade_above(rates, plan.points_per_decade)


def choose_rate(
    plan: Plan, trials: Trials, cell: Cell, rates: tuple[float, ...], epochs: int | None = None
) -> Tuned:
    """The rate with the best seed mean of the validation score, and what is nearly as good."""
    costs = np.stack([trials.costs(Setting(cell, lr, epochs), plan.tuning_seeds) for lr in rates])
    best = best_row(costs)
    low, high = _nearly_as_good(costs, best)
    return Tuned(
        cell=cell,
        rates=rates,
        best=rates[best],
        at_edge=best in (0, len(rates) - 1) and bool(np.isfinite(costs[best]).all()),
        rate_interval=(rates[low], rates[high]),
        epochs=epochs,
    )


def best_row(costs: NDArray[np.float64]) -> int:
    """The row (a rate) with the lowest mean cost over its columns (seeds).

    A row with a divergence (NaN) is taken only when every row has one. Of equally good rows the middle
    one is taken: a plateau that reaches the grid's edge is no reason to widen the grid.
    """
    ranks = [mean_cost(row) for row in costs]
    equal = [index for index, rank in enumerate(ranks) if rank == min(ranks)]
    return equal[len(equal) // 2]


def _nearly_as_good(costs: NDArray[np.float64], best: int) -> tuple[int, int]:
    """The first and last row of the unbroken stretch within one standard error of the best."""
    seeds = costs[best][np.isfinite(costs[best])]
    if len(seeds) < 2:
        return best, best
    limit = seeds.mean() + seeds.std(ddof=1) / np.sqrt(len(seeds))
    good = [rank[0] == 0 and rank[1] <= limit for rank in map(mean_cost, costs)]
    return _walk(good, best, -1), _walk(good, best, +1)


def _walk(good: Sequence[bool], start: int, step: int) -> int:
    place = start
    while 0 <= place + step < len(good) and good[place + step]:
        place += step
    return place
