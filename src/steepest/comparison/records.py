"""``runs.parquet``: a row a run, everything that was tried."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import polars as pl

from steepest.comparison.confirm import test_names
from steepest.comparison.plan import Plan, Trial
from steepest.comparison.trials import Trials

__all__ = ["options_in_words", "runs_frame"]

_ROWS_AT_ONCE = 1000
_COLUMNS: dict[str, Any] = {
    "run_id": pl.Int64,
    "stage": pl.String,
    "loss": pl.String,
    "optimizer": pl.String,
    "batch_size": pl.String,
    "schedule": pl.String,
    "lr": pl.Float64,
    "options": pl.String,
    "seed": pl.Int64,
    "hidden": pl.String,
    "activation": pl.String,
}
_RESULTS: dict[str, Any] = {
    "num_epochs": pl.Int64,
    "num_steps": pl.Int64,
    "num_examples": pl.Int64,
    "stop_reason": pl.String,
    "diverged": pl.Boolean,
    "best_epoch": pl.Int64,
    "validation_score": pl.Float64,
}
_CURVES: dict[str, Any] = {
    "seconds": pl.Float64,
    "curve_epoch": pl.List(pl.Int64),
    "curve_step": pl.List(pl.Int64),
    "curve_train_loss": pl.List(pl.Float64),
    "curve_validation": pl.List(pl.Float64),
    "curve_examples": pl.List(pl.Int64),  # these two where the engine counts them on the way
    "curve_seconds": pl.List(pl.Float64),
}


def runs_frame(plan: Plan, trials: Trials) -> pl.DataFrame:
    """Every run in the order of the plan. What a run has no value for is null."""
    names = sorted({name for entry in trials.entries.values() for name in entry.record.hyperparameters})
    metrics = test_names(plan)
    schema = (
        _COLUMNS
        | {f"hyper_{name}": pl.Float64 for name in names}
        | _RESULTS
        | {f"test_{name}": pl.Float64 for name in metrics}
        | _CURVES
    )
    # As Python's objects a run takes ten times the memory of its row in the frame.
    parts = [
        pl.DataFrame(
            [
                _row(plan, start + place, trial, trials, names, metrics)
                for place, trial in enumerate(together)
            ],
            schema=schema,
            orient="row",
        )
        for start, together in _chunks(list(trials.entries))
    ]
    return pl.concat(parts) if parts else pl.DataFrame(schema=schema)


def _chunks(every: list[Trial]) -> Iterator[tuple[int, list[Trial]]]:
    for start in range(0, len(every), _ROWS_AT_ONCE):
        yield start, every[start : start + _ROWS_AT_ONCE]


def options_in_words(options: Iterable[tuple[str, float]]) -> str:
    """The options of a setting, the loss's and then the optimizer's, as a row has them."""
    return ", ".join(f"{name}={value:g}" for name, value in options)


def _row(
    plan: Plan, number: int, trial: Trial, trials: Trials, names: list[str], metrics: list[str]
) -> dict[str, Any]:
    entry, record = trials.entries[trial], trials.whole(trial)
    curve = record.curve
    return {
        "run_id": number,
        "stage": entry.stage,
        "loss": trial.cell.loss,
        "optimizer": trial.cell.optimizer,
        "batch_size": str(trial.cell.batch_size),
        "schedule": trial.cell.schedule,
        "lr": trial.lr,
        "options": options_in_words(trial.setting.options),
        "seed": trial.seed,
        "hidden": ",".join(str(width) for width in plan.architecture.hidden),
        "activation": plan.architecture.activation,
        **{f"hyper_{name}": _number(record.hyperparameters.get(name)) for name in names},
        "num_epochs": record.num_epochs,
        "num_steps": record.num_steps,
        "num_examples": record.num_examples,
        "stop_reason": "pruned" if entry.pruned and not record.diverged else record.stop_reason,
        "diverged": record.diverged,
        "best_epoch": record.best_epoch,
        "validation_score": _number(record.validation_score),
        **{f"test_{name}": _number(entry.test.get(name)) for name in metrics},
        "seconds": record.seconds,
        "curve_epoch": np.asarray(curve.epoch).tolist(),
        "curve_step": np.asarray(curve.step).tolist(),
        "curve_train_loss": _numbers(curve.train_loss),
        "curve_validation": _numbers(curve.validation_score),
        "curve_examples": np.asarray(curve.examples).tolist() or None,
        "curve_seconds": _numbers(curve.seconds) or None,
    }


def _numbers(values: Any) -> list[float | None]:
    return [_number(value) for value in np.asarray(values, dtype=np.float64).tolist()]


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
