"""The native engine against an independent torch loop: the same start and order give the same weights.

Losses, optimizers, activations and batch sizes reach the engine as separate functions and numbers, so not every
combination is run: each loss with each optimizer of RATES in each regime, the activations in turn, and each further
optimizer with one loss.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.training.activations import ACTIVATIONS
from steepest.training.native import NativeEngine
from steepest.training.native_kernel import MICRO_BATCH
from steepest.training.run import Architecture, BatchSize, Run, Stop, TrainingData

from .problems import problem
from .torch_loop import ACTIVATIONS as TORCH_ACTIVATIONS
from .torch_loop import trained

# Rates at which every problem here is far from instability: at its edge, rounding grows from step to step.
RATES = {
    "sgd": 0.03, "momentum": 0.005, "nesterov": 0.005, "momentum_ema": 0.03,
    "rmsprop": 0.001, "adam": 0.002, "adamw": 0.002,
}  # fmt: skip
# Where a gradient is 0 but for rounding, the quotient g / sqrt(v) is noise; so large an eps keeps it out.
STEADY = {"rmsprop": {"eps": 1e-3}, "adam": {"eps": 1e-3}, "adamw": {"eps": 1e-3}}
REGIMES: tuple[BatchSize, ...] = (1, 32, "full")
NUM_STEPS = 200

# Largest difference of any weight, the weights being of size 1. float64: measured 2e-15. float32: a step rounds
# at 6e-8 and 200 steps are made; measured 1e-6.
TOLERANCE = {"float64": 1e-11, "float32": 5e-6}
# Where two float32 trajectories a rounding apart come to opposite sides of a loss's kink, they part for good: by
# 0.002 in 200 steps of the full batch (quantile, adamw). There fewer steps are made; in float64 all 200.
KINKED_LOSSES, STEPS_AT_KINKS = ("mae", "quantile"), 20

# A ReLU whose input passes 0 within a rounding parts the paths too: here about step 130, by 1e-3.
STEPS_BEFORE_A_KINK = {("asymmetric", "adamw", 32): 120}
TASKS = [(name, task) for name, loss in LOSSES.items() for task in loss.formula.tasks]


def metric_of(data: TrainingData) -> str:
    return "rmse" if data.task == "regression" else "log_loss"


def largest_difference(run: Run, data: TrainingData, num_steps: int, dtype: str) -> float:
    (record,) = NativeEngine(data, metric_of(data), dtype=dtype).run_all([run])
    assert record is not None
    assert record.num_steps == num_steps
    assert record.parameters.dtype == dtype
    return float(np.abs(record.parameters - trained(run, data, num_steps, getattr(torch, dtype))).max())


def run_of(loss: str, optimizer: str, batch_size: BatchSize, num_steps: int, **more: Any) -> Run:
    return Run(
        loss, optimizer, RATES.get(optimizer, 0.002), batch_size, seed=more.pop("seed", 3),
        stop=Stop(max_epochs=None, max_steps=num_steps), optimizer_options=STEADY.get(optimizer, {}), **more,
    )  # fmt: skip


def test_every_registered_name_is_here() -> None:
    assert set(RATES) <= set(OPTIMIZERS)
    assert set(TORCH_ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("optimizer", RATES)
@pytest.mark.parametrize(("loss", "task"), TASKS)
def test_every_loss_with_every_optimizer_in_every_regime(
    loss: str, task: str, optimizer: str, dtype: str
) -> None:
    data = problem(task)
    turn = list(LOSSES).index(loss) + list(OPTIMIZERS).index(optimizer)
    for number, batch_size in enumerate(REGIMES):
        activation = list(ACTIVATIONS)[(turn + number) % len(ACTIVATIONS)]
        at_kinks = dtype == "float32" and loss in KINKED_LOSSES and batch_size == "full"
        num_steps = STEPS_AT_KINKS if at_kinks else NUM_STEPS
        if dtype == "float32":
            num_steps = STEPS_BEFORE_A_KINK.get((loss, optimizer, batch_size), num_steps)
        run = run_of(loss, optimizer, batch_size, num_steps, architecture=Architecture((7, 5), activation))
        off = largest_difference(run, data, num_steps, dtype)
        assert off <= TOLERANCE[dtype], f"batch size {batch_size}, {activation}: {off:.3g}"


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name not in RATES])
@pytest.mark.parametrize("batch_size", REGIMES)
def test_every_further_optimizer_in_every_regime(optimizer: str, batch_size: BatchSize) -> None:
    """Slots, scalars and norms of all kinds; in float64, where no sign of a gradient is a matter of rounding."""
    run = run_of("mse", optimizer, batch_size, 50, architecture=Architecture((7, 5), "tanh"))
    assert largest_difference(run, problem("regression"), 50, "float64") <= TOLERANCE["float64"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_every_activation(loss: str, activation: str) -> None:
    data = problem("regression" if loss == "mse" else "multiclass")
    for batch_size in REGIMES:
        run = run_of(loss, "momentum", batch_size, NUM_STEPS, architecture=Architecture((7, 5), activation))
        assert largest_difference(run, data, NUM_STEPS, "float64") <= TOLERANCE["float64"]


# Linear; deep; layers of one unit; layers wide enough for BLAS in both directions.
HIDDEN = [(), (4,), (1, 1), (3, 4, 3, 4), (150,), (64, 64)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("loss", "task"), [("mse", "regression"), ("bce", "binary"), ("bce_probability", "binary")]
)
def test_a_linear_model_of_any_number_of_features_a_row_at_a_time(loss: str, task: str, dtype: str) -> None:
    for num_features in range(1, 10):
        run = run_of(loss, "momentum", 1, NUM_STEPS, architecture=Architecture(()))
        data = problem(task, features=num_features)
        assert largest_difference(run, data, NUM_STEPS, dtype) <= TOLERANCE[dtype], num_features


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_every_shape_of_network(hidden: tuple[int, ...], dtype: str) -> None:
    for task, loss in (("regression", "mse"), ("multiclass", "cross_entropy")):
        for batch_size in REGIMES:
            run = run_of(loss, "adam", batch_size, 50, architecture=Architecture(hidden, "tanh"))
            assert largest_difference(run, problem(task), 50, dtype) <= TOLERANCE[dtype], (task, batch_size)


def test_one_feature_and_many() -> None:
    for features in (1, 2, 300):
        data = problem("regression", rows=40, features=features)
        run = run_of("mse", "sgd", 8, 50, architecture=Architecture((6,), "tanh"))
        assert largest_difference(run, data, 50, "float64") <= TOLERANCE["float64"]


@pytest.mark.parametrize("targets", ["one-hot", "probabilities"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_cross_entropy_with_distributions_for_targets(task: str, targets: str) -> None:
    data = problem(task, targets=targets)
    assert data.y_train.ndim == 2
    for optimizer, batch_size in itertools.product(("sgd", "adam"), REGIMES):
        run = run_of(
            "cross_entropy", optimizer, batch_size, NUM_STEPS, architecture=Architecture((7,), "gelu")
        )
        assert largest_difference(run, data, NUM_STEPS, "float64") <= TOLERANCE["float64"]


def test_one_hot_targets_and_class_numbers_train_alike() -> None:
    run = run_of("cross_entropy", "adam", 32, 100, architecture=Architecture((7,), "tanh"))
    results = [
        NativeEngine(problem("multiclass", targets=targets), "log_loss", dtype="float64").run_all([run])[0]
        for targets in ("plain", "one-hot")
    ]
    np.testing.assert_allclose(results[0].parameters, results[1].parameters, rtol=0, atol=1e-14)


# Rows that go through the net together, and how many a step takes of 700.
BATCHES: list[BatchSize] = [
    MICRO_BATCH - 1,
    MICRO_BATCH,
    MICRO_BATCH + 1,
    300,
    2 * MICRO_BATCH,
    600,
    699,
    "full",
]


@pytest.mark.parametrize("batch_size", BATCHES)
def test_batches_larger_than_what_goes_through_the_net_at_once(batch_size: BatchSize) -> None:
    for task, loss in (("regression", "mse"), ("multiclass", "cross_entropy"), ("binary", "bce")):
        data = problem(task, rows=700)
        run = run_of(loss, "adam", batch_size, 30, architecture=Architecture((7, 5), "tanh"))
        for dtype, tolerance in TOLERANCE.items():
            assert largest_difference(run, data, 30, dtype) <= tolerance, (task, dtype)


def test_a_batch_larger_than_the_table_is_the_whole_table() -> None:
    data = problem("regression", rows=50)
    engine = NativeEngine(data, "rmse")
    records = engine.run_all([run_of("mse", "sgd", size, 20) for size in (50, 51, 10_000, "full")])
    assert all(np.array_equal(record.parameters, records[0].parameters) for record in records)


LOSS_OPTIONS = [
    ("huber", {"delta": 0.2}), ("quantile", {"quantile": 0.9}), ("bce", {"pos_weight": 3.5}),
]  # fmt: skip
OPTIMIZER_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {"weight_decay": 0.1}),
    ("sgd", {"maximize": True}),
    ("momentum", {"momentum": 0.5, "dampening": 0.3}),
    ("momentum_ema", {"momentum": 0.99, "weight_decay": 0.1}),
    ("rmsprop", {"centered": True, "momentum": 0.5, "eps": 1e-2, "alpha": 0.9}),
    ("adam", {"amsgrad": True, "betas": (0.8, 0.95), "eps": 1e-3}),
    ("adamw", {"weight_decay": 0.5, "eps": 1e-3}),
]


@pytest.mark.parametrize(("loss", "options"), LOSS_OPTIONS)
def test_options_of_losses(loss: str, options: dict[str, float]) -> None:
    data = problem(LOSSES[loss].formula.tasks[0])
    run = run_of(loss, "sgd", 32, NUM_STEPS, architecture=Architecture((5,), "tanh"), loss_options=options)
    assert largest_difference(run, data, NUM_STEPS, "float64") <= TOLERANCE["float64"]
    (record,) = NativeEngine(data, metric_of(data)).run_all([run])
    assert options.items() <= record.hyperparameters.items()


@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZER_OPTIONS)
def test_options_of_optimizers(optimizer: str, options: dict[str, Any]) -> None:
    data = problem("regression")
    run = Run(
        "mse", optimizer, RATES[optimizer] / 3, 32, seed=1, architecture=Architecture((5,), "tanh"),
        stop=Stop(None, 50), optimizer_options=options,
    )  # fmt: skip
    assert largest_difference(run, data, 50, "float64") <= TOLERANCE["float64"]
    (record,) = NativeEngine(data, "rmse").run_all([run])
    expected = {name: value for name, value in options.items() if name in record.hyperparameters}
    assert {name: record.hyperparameters[name] for name in expected} == expected
    assert record.hyperparameters["lr"] == run.lr
