"""Which loss function and which gradient optimizer should I use for my data? Answered with evidence.

The public names, nothing else. Each is imported when it is first asked for, so ``import steepest`` costs
nothing and pulls in neither torch nor numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from steepest.errors import InputError

if TYPE_CHECKING:
    from steepest import explain, losses, optim, schedules
    from steepest.comparison.compare import Comparison, compare
    from steepest.comparison.fit import fit
    from steepest.comparison.fit_module import fit_module
    from steepest.comparison.fitted import FittedModel, load
    from steepest.comparison.own_training import TrainingTrial
    from steepest.estimators import SteepestClassifier, SteepestRegressor
    from steepest.training.metrics import metric

__all__ = [
    "Comparison",
    "FittedModel",
    "InputError",
    "SteepestClassifier",
    "SteepestRegressor",
    "TrainingTrial",
    "compare",
    "explain",
    "fit",
    "fit_module",
    "load",
    "losses",
    "metric",
    "optim",
    "schedules",
]

__version__ = "0.1.0"

_MODULES = frozenset({"explain", "losses", "optim", "schedules"})
_HOMES = {
    "Comparison": "steepest.comparison.compare",
    "FittedModel": "steepest.comparison.fitted",
    "SteepestClassifier": "steepest.estimators",
    "SteepestRegressor": "steepest.estimators",
    "TrainingTrial": "steepest.comparison.own_training",
    "compare": "steepest.comparison.compare",
    "fit": "steepest.comparison.fit",
    "fit_module": "steepest.comparison.fit_module",
    "load": "steepest.comparison.fitted",
    "metric": "steepest.training.metrics",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"steepest.{name}")
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'steepest' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
