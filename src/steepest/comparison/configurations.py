"""Tuning beyond the rate (``--tune all``): momentum, decay, a loss's threshold, ... around each cell's best rate.

Every cell gets the same number of configurations, however many options it has: as many points of a Sobol sequence, in
the learning rate (half a decade to each side of the best) and whatever its loss and its optimizer declare a range for.
The best rate with the options as they come stays in the running.
Source: Choi et al. 2019, On Empirical Comparisons of Optimizers for Deep Learning, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from steepest.comparison.plan import Cell, OptionValues, Plan, Setting
from steepest.comparison.statistics import mean_cost
from steepest.comparison.trials import Trials
from steepest.tuning_range import TuningRange

__all__ = ["best_configuration", "configurations"]

_AROUND = 10.0**0.5  # the rate is tried from the best one divided by this to the best one times this


def configurations(plan: Plan, cell: Cell, lr: float) -> list[Setting]:
    """The settings to try for a cell whose best rate is ``lr``: a function of the plan and that rate."""
    rates = TuningRange(lr / _AROUND, lr * _AROUND, "log")
    loss, optimizer = plan.loss_ranges.get(cell.loss, {}), plan.optimizer_ranges.get(cell.optimizer, {})
    points = _points(plan.num_configurations, 1 + len(loss) + len(optimizer), plan.seed)
    return [
        Setting(
            cell,
            rates.at(point[0]),
            loss_options=_options(loss, point[1 : 1 + len(loss)]),
            optimizer_options=_options(optimizer, point[1 + len(loss) :]),
        )
        for point in points.tolist()
    ]


def _options(ranges: Mapping[str, TuningRange], shares: Sequence[float]) -> OptionValues:
    return tuple((name, ranges[name].at(share)) for name, share in zip(ranges, shares, strict=True))


def _points(count: int, num_dimensions: int, seed: int) -> NDArray[np.float64]:
    """A Sobol sequence (count, dimensions) in the unit cube, moved round it by a random vector.

    Source: Cranley and Patterson 1976, Randomization of Number Theoretic Methods for Multiple Integration.
    """
    from scipy.stats import qmc  # takes most of a second to import

    points: NDArray[np.float64] = qmc.Sobol(num_dimensions, scramble=False).random(count)
    return (points + np.random.default_rng(seed).random(num_dimensions)) % 1.0


def best_configuration(plan: Plan, trials: Trials, tried: list[Setting]) -> Setting:
    """The one with the best seed mean; one that diverged on a seed only where all did."""
    return min(tried, key=lambda setting: mean_cost(trials.costs(setting, plan.tuning_seeds)))
