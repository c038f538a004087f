"""Tables with a known truth, and runs on them through the native engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.training.native import NativeEngine
from steepest.training.run import Architecture, BatchSize, Record, Run, Stop, TrainingData

__all__ = [
    "LINEAR",
    "Array",
    "least_squares",
    "linear_table",
    "new_run",
    "root_mean_square",
    "train",
    "with_bias",
]

Array = NDArray[np.float64]
LINEAR = Architecture(hidden=())


def linear_table(seed: int, num_rows: int, num_features: int = 3, noise: float = 0.0) -> tuple[Array, Array]:
    """Features from a normal distribution, and a target that depends on them linearly."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(num_rows, num_features))
    y = x @ random.normal(size=num_features) + random.normal() + noise * random.normal(size=num_rows)
    return x, y


def with_bias(x: Array) -> Array:
    """The features and a column of ones: what a linear model multiplies its parameters with."""
    return np.column_stack([x, np.ones(len(x))])


def least_squares(x: Array, y: Array) -> Array:
    """The weights and the bias with the smallest squared error, in closed form."""
    solution: Array = np.linalg.lstsq(with_bias(x), y, rcond=None)[0]
    return solution


def root_mean_square(values: Array) -> float:
    """The root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def new_run(loss: str, optimizer: str, lr: float, **options: Any) -> Run:
    """A run of a linear model over full batches, unless ``options`` say otherwise."""
    batch_size: BatchSize = options.pop("batch_size", "full")
    stop = Stop(**{"max_epochs": None, **options.pop("stop", {})})
    return Run(
        loss,
        optimizer,
        lr,
        batch_size,
        architecture=options.pop("architecture", LINEAR),
        stop=stop,
        **options,
    )


def train(
    runs: Sequence[Run],
    x: Array,
    y: Array,
    *,
    watched: tuple[Array, Array] | None = None,
    metric: str = "rmse",
    task: Any = "regression",
    start: Array | None = None,
) -> list[Record]:
    """Train every run on the rows in float64.

    ``watched`` are rows that the metric is taken on at every epoch's end; without them a record holds the
    last weights.
    """
    seen = watched or (np.empty((0, x.shape[1])), np.empty(0))
    data = TrainingData(task, {"regression": 1, "binary": 2}[task], x, y, *seen)  # type: ignore[arg-type]
    records = NativeEngine(data, metric, dtype="float64").run_all(list(runs), num_threads=2, initial=start)
    assert all(record is not None for record in records)
    return [record for record in records if record is not None]
