"""The calibration of the first winner, on test rows and fresh seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from steepest.comparison.plan import Plan
from steepest.comparison.ranking import Contestant
from steepest.comparison.statistics import mean_interval
from steepest.comparison.trials import Trials
from steepest.training.calibration import NUM_BINS, expected_calibration_error
from steepest.training.run import has_classes

__all__ = ["calibration_of"]


def calibration_of(
    plan: Plan, trials: Trials, winners: Sequence[Contestant], classes: Sequence[Any] | None
) -> dict[str, Any] | None:
    """Its expected calibration error and its reliability curve; None where nothing has probabilities.

    Args:
        classes: the labels; None where there are only indices.
    """
    if not winners or not has_classes(plan.task):
        return None
    setting = winners[0].finalist.setting
    entries = [trials.entries.get(setting.on(seed)) for seed in plan.confirmation_seeds]
    found = [entry.reliability for entry in entries if entry is not None and entry.reliability is not None]
    if not found:
        return None
    errors = np.array([expected_calibration_error(bins) for bins in found])
    interval = mean_interval(errors, np.random.default_rng(plan.seed))
    together = np.sum(found, axis=0)
    return {
        "ece": float(errors.mean()),
        "interval": interval,
        "num_bins": NUM_BINS,
        "num_seeds": len(found),
        "positive": None if plan.task == "multiclass" else str(classes[1] if classes else 1),
        "curve": [
            {
                "low": place / NUM_BINS,
                "high": (place + 1) / NUM_BINS,
                "num_predictions": int(count),
                "predicted": stated / count,
                "observed": hits / count,
            }
            for place, (count, stated, hits) in enumerate(together)
            if count
        ],
    }
