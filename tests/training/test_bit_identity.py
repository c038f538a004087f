"""A run's result is its own: alone or among many, on one thread or two, the bits are the same."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.training.activations import ACTIVATIONS
from steepest.training.native import NativeEngine
from steepest.training.run import Architecture, BatchSize, Record, Run, Stop

from .problems import problem

HIDDEN = [(), (3,), (64, 64), (5, 4, 3), (128,)]
SIZES: tuple[BatchSize, ...] = (1, 7, 32, 300, "full")


def forty(task: str) -> list[Run]:
    """Runs that differ in everything."""
    losses = [name for name, loss in LOSSES.items() if task in loss.formula.tasks]
    optimizers, activations = list(OPTIMIZERS), list(ACTIVATIONS)
    runs = []
    for i in range(40):
        architecture = Architecture(HIDDEN[i % len(HIDDEN)], activations[i % len(activations)])
        stop = Stop(max_epochs=1 + i % 4, max_steps=200, patience=2 if i % 5 == 0 else None)
        batch_size = SIZES[i % 4 if i % 9 else 4]
        loss, optimizer = losses[i % len(losses)], optimizers[i % len(optimizers)]
        runs.append(Run(loss, optimizer, 10.0 ** -(2 + i % 3), batch_size, i, architecture, stop))
    return runs


def bits(record: Record | None) -> tuple[object, ...]:
    assert record is not None
    curve = record.curve
    return (
        record.parameters.tobytes(), curve.train_loss.tobytes(), curve.validation_score.tobytes(),
        curve.step.tobytes(), record.num_steps, record.stop_reason, record.best_epoch,
        np.float64(record.validation_score).tobytes(), tuple(record.hyperparameters.items()),
    )  # fmt: skip


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_alone_among_forty_on_one_thread_and_on_two(task: str) -> None:
    data = problem(task, rows=330, validation=70)
    runs = forty(task)
    engine = NativeEngine(data, "rmse" if task == "regression" else "log_loss")
    one = [bits(record) for record in engine.run_all(runs, num_threads=1)]
    two = [bits(record) for record in engine.run_all(runs, num_threads=2)]
    assert one == two
    assert len(set(one)) == len(runs)
    backwards = [bits(record) for record in engine.run_all(runs[::-1], num_threads=2)]
    assert backwards[::-1] == one
    for index in range(0, 40, 9):
        alone = NativeEngine(data, engine.metric.name).run_all([runs[index]], num_threads=1)
        assert bits(alone[0]) == one[index]


def test_blas_threads_do_not_matter() -> None:
    """Whatever the caller allows BLAS: inside a run it has one thread."""
    data = problem("regression", rows=330, validation=70)
    run = Run("mse", "adam", 0.01, "full", architecture=Architecture((128, 128)), stop=Stop(10))
    results = []
    for limit in (1, 2):
        with threadpool_limits(limit, user_api="blas"):
            results.append(bits(NativeEngine(data, "rmse").run_all([run])[0]))
    assert results[0] == results[1]


def test_the_same_run_twice_in_one_call() -> None:
    data = problem("binary", rows=100, validation=30)
    run = Run("bce", "adam", 0.01, 16, architecture=Architecture((8,)), stop=Stop(5))
    first, second = NativeEngine(data, "accuracy").run_all([run, run], num_threads=2)
    assert bits(first) == bits(second)


def test_the_engine_leaves_its_data_alone() -> None:
    data = problem("multiclass", rows=60, validation=20)
    before = [array.copy() for array in (data.x_train, data.y_train, data.x_validation, data.y_validation)]
    start = np.linspace(-0.5, 0.5, 21, dtype=np.float32)
    kept = start.copy()
    run = Run("cross_entropy", "adam", 0.1, 16, architecture=Architecture(()), stop=Stop(3))
    NativeEngine(data, "accuracy").run_all([run, run], initial=start)
    np.testing.assert_array_equal(start, kept)
    for array, held in zip(
        (data.x_train, data.y_train, data.x_validation, data.y_validation), before, strict=True
    ):
        np.testing.assert_array_equal(array, held)
