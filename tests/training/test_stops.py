"""When a run ends, in both engines: the same reason, the same record, the best weights kept."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from steepest.training.metrics import METRICS
from steepest.training.modules import build_module
from steepest.training.native import NativeEngine, layer_sizes
from steepest.training.random import initial_parameters
from steepest.training.run import STOP_REASONS, Architecture, Record, Run, Stop, TrainingData
from steepest.training.torch_data import Rows, as_rows
from steepest.training.torch_engine import TorchEngine

from .problems import problem

DATA = problem("regression", rows=200, validation=77)
ARCHITECTURE = Architecture((16,), "tanh")


def factory(run: Run, data: TrainingData) -> Callable[[], nn.Module]:
    sizes = layer_sizes(run, data.x_train.shape[1], data.num_classes)
    return lambda: build_module(sizes, run.architecture, initial_parameters(sizes, run.seed))


def rows_of(data: TrainingData) -> tuple[Rows, Rows | None]:
    by_class = data.task != "regression"
    pairs = [
        (x, y.astype(np.int64) if by_class else y)
        for x, y in ((data.x_train, data.y_train), (data.x_validation, data.y_validation))
    ]
    return as_rows(pairs[0], "train"), as_rows(pairs[1], "validation") if len(pairs[1][0]) else None


def torch_engine(run: Run, data: TrainingData, metric: str) -> TorchEngine:
    return TorchEngine(factory(run, data), *rows_of(data), data.task, metric)  # type: ignore[arg-type]


def both(run: Run, data: TrainingData = DATA, metric: str = "rmse") -> tuple[Record, Record]:
    native = NativeEngine(data, metric).run_all([run])[0]
    other = torch_engine(run, data, metric).run_all([run])[0]
    assert native is not None
    assert other is not None
    return native, other


def flat(state: Any) -> np.ndarray[Any, Any]:
    return np.concatenate([tensor.numpy().ravel() for tensor in state.values()])


def same(native: Record, other: Record, scale: float) -> None:
    """Counts and reasons equal; figures to float32's rounding, which a few hundred steps make of 6e-8."""
    for field in ("stop_reason", "num_epochs", "num_steps", "num_examples", "best_epoch"):
        assert getattr(native, field) == getattr(other, field), field
    assert native.hyperparameters == other.hyperparameters
    np.testing.assert_array_equal(native.curve.epoch, other.curve.epoch)
    np.testing.assert_array_equal(native.curve.step, other.curve.step)
    np.testing.assert_allclose(native.curve.train_loss, other.curve.train_loss, rtol=2e-5, atol=1e-6)
    scores = np.append(native.curve.validation_score, native.validation_score)
    others = np.append(other.curve.validation_score, other.validation_score) * scale
    np.testing.assert_allclose(scores, others, rtol=2e-5, atol=1e-6)
    if not native.diverged:
        np.testing.assert_allclose(native.parameters, flat(other.parameters), rtol=0, atol=2e-5)


# what ends the run, the optimizer and its rate, the conditions (a target is in the native engine's units)
STOPS: list[tuple[str, str, float, dict[str, Any]]] = [
    ("epochs", "adam", 0.01, {"max_epochs": 7}),
    ("epochs", "sgd", 0.01, {"max_epochs": 1}),
    ("steps", "adam", 0.01, {"max_epochs": None, "max_steps": 33}),
    ("steps", "sgd", 0.01, {"max_epochs": None, "max_steps": 1}),
    ("steps", "sgd", 0.01, {"max_epochs": 3, "max_steps": 21}),  # the last step of the last epoch
    ("epochs", "sgd", 0.01, {"max_epochs": 3, "max_steps": 22}),
    ("patience", "adam", 0.05, {"max_epochs": 200, "patience": 3}),
    ("patience", "rmsprop", 0.03, {"max_epochs": 200, "patience": 1}),
    ("gradient_norm", "sgd", 0.05, {"max_epochs": 200, "min_gradient_norm": 0.4}),
    ("gradient_norm", "sgd", 0.05, {"max_epochs": 200, "min_gradient_norm": 1e6}),  # before the first step
    ("target_metric", "adam", 0.01, {"max_epochs": 200, "target_metric": 1.0}),
    ("target_metric", "adam", 0.01, {"max_epochs": 200, "target_metric": 1e6}),  # after the first epoch
    ("diverged", "sgd", 1e3, {"max_epochs": 200}),
    ("diverged", "momentum", 50.0, {"max_epochs": 200, "patience": 5, "target_metric": 0.01}),
]


@pytest.mark.parametrize(("reason", "optimizer", "lr", "conditions"), STOPS)
def test_each_condition_ends_both_engines_alike(
    reason: str, optimizer: str, lr: float, conditions: dict[str, Any]
) -> None:
    run = Run("mse", optimizer, lr, 32, seed=5, architecture=ARCHITECTURE, stop=Stop(**conditions))
    (native,) = NativeEngine(DATA, "rmse").run_all([run])
    assert native is not None
    assert native.stop_reason == reason
    # The torch engine knows no target scale: its targets are as they come.
    scale = DATA.target_scale
    if "target_metric" in conditions:
        conditions = {**conditions, "target_metric": conditions["target_metric"] / scale}
    in_its_units = Run("mse", optimizer, lr, 32, seed=5, architecture=ARCHITECTURE, stop=Stop(**conditions))
    (other,) = torch_engine(in_its_units, DATA, "rmse").run_all([in_its_units])
    assert other is not None
    if reason == "diverged":
        # On the way to infinity a rounding is soon the whole number: the end is the same, the way need not be.
        assert other.stop_reason == reason
        for record in (native, other):
            assert record.diverged
            assert record.best_epoch == 0
            assert math.isnan(record.validation_score)
        assert native.num_steps == other.num_steps
        return
    same(native, other, scale)


def test_divergence_is_a_loss_beyond_all_reason_too() -> None:
    """Finite, but ten thousand times the first: the run is over, whatever the rest would bring."""
    run = Run("mae", "sgd", 1e7, "full", seed=5, architecture=Architecture(()), stop=Stop(5))
    for record in both(run):
        assert record.stop_reason == "diverged"
        assert record.num_steps == 1
        assert record.num_epochs == 2
        assert np.isfinite(record.curve.train_loss).all()


def test_nan_features_diverge() -> None:
    x = DATA.x_train.copy()
    x[150, 2] = np.nan
    data = TrainingData("regression", 1, x, DATA.y_train, DATA.x_validation, DATA.y_validation)
    run = Run("mse", "sgd", 0.01, 32, architecture=ARCHITECTURE, stop=Stop(5))
    for record in both(run, data):
        assert record.stop_reason == "diverged"
        assert record.num_epochs == 1


def test_a_metric_that_grows() -> None:
    data = problem("binary", rows=200, validation=77)
    stop = Stop(max_epochs=60, patience=4)
    native, other = both(
        Run("bce", "adam", 0.02, 32, seed=2, architecture=ARCHITECTURE, stop=stop), data, "accuracy"
    )
    same(native, other, 1.0)
    assert native.stop_reason == "patience"
    assert native.validation_score == native.curve.validation_score.max()
    assert native.best_epoch == 1 + int(native.curve.validation_score.argmax())
    target = Stop(max_epochs=60, target_metric=float(native.curve.validation_score[0]) + 1e-9)
    native, other = both(
        Run("bce", "adam", 0.02, 32, seed=2, architecture=ARCHITECTURE, stop=target), data, "accuracy"
    )
    assert native.stop_reason == other.stop_reason == "target_metric"
    assert native.num_epochs == other.num_epochs > 1


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_the_best_weights_are_kept(engine: str) -> None:
    """Not the last: the ones whose validation score is told."""
    run = Run("mse", "adam", 0.05, 16, seed=1, architecture=Architecture((32,), "relu"), stop=Stop(40))
    record = both(run)[engine == "torch"]
    scores = record.curve.validation_score
    assert record.best_epoch == 1 + int(np.argmin(scores)) < record.num_epochs
    assert record.validation_score == scores.min()
    if engine == "native":
        predicted = NativeEngine(DATA, "rmse").predict(run, record.parameters, DATA.x_validation)
        scale = DATA.target_scale
    else:
        _, validation = rows_of(DATA)
        assert validation is not None
        predicted = torch_engine(run, DATA, "rmse").predict(run, record.parameters, validation)
        scale = 1.0
    score = METRICS["rmse"].compute(DATA.y_validation, predicted) * scale
    assert score == pytest.approx(record.validation_score, rel=1e-6)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_without_validation_rows_the_last_weights_are_kept(engine: str) -> None:
    data = problem("regression", rows=50)
    run = Run(
        "mse", "sgd", 0.01, 16, architecture=ARCHITECTURE, stop=Stop(3, patience=1, target_metric=100.0)
    )
    record = both(run, data)[engine == "torch"]
    assert record.stop_reason == "epochs"
    assert record.best_epoch == 0
    assert math.isnan(record.validation_score)
    assert np.isnan(record.curve.validation_score).all()
    longer = Run("mse", "sgd", 0.01, 16, architecture=ARCHITECTURE, stop=Stop(4))
    after = both(longer, data)[engine == "torch"]
    flat_record = record.parameters if engine == "native" else flat(record.parameters)
    flat_after = after.parameters if engine == "native" else flat(after.parameters)
    assert not np.array_equal(flat_record, flat_after)
    assert np.isfinite(flat_record).all()


def test_no_epoch_at_all_gives_the_weights_of_the_start() -> None:
    run = Run("mse", "sgd", 0.01, 16, seed=4, architecture=ARCHITECTURE, stop=Stop(0))
    for record in both(run):
        assert record.num_steps == record.num_epochs == 0
        parameters = (
            record.parameters if isinstance(record.parameters, np.ndarray) else flat(record.parameters)
        )
        sizes = layer_sizes(run, DATA.x_train.shape[1], 1)
        np.testing.assert_array_equal(parameters, initial_parameters(sizes, 4))


# --- stopped from outside ------------------------------------------------------------------------------------

ENDLESS = Stop(max_epochs=None)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_seconds(engine: str) -> None:
    run = Run("mse", "sgd", 1e-4, 8, architecture=ARCHITECTURE, stop=Stop(max_epochs=None, max_sec=0.3))
    began = time.perf_counter()
    if engine == "native":
        NativeEngine(DATA, "rmse").run_all(
            [Run("mse", "sgd", 1e-4, 8, architecture=ARCHITECTURE, stop=Stop(1))]
        )
        began = time.perf_counter()
        (record,) = NativeEngine(DATA, "rmse").run_all([run])
    else:
        (record,) = torch_engine(run, DATA, "rmse").run_all([run])
    assert record is not None
    assert record.stop_reason == "seconds"
    assert record.num_steps > 0
    assert 0.3 <= record.seconds <= time.perf_counter() - began
    assert record.best_epoch >= 1


def test_interrupting_the_native_engine() -> None:
    """Runs under way end and keep what they have; waiting ones never begin."""
    runs = [Run("mse", "sgd", 1e-4, 8, seed=s, architecture=ARCHITECTURE, stop=ENDLESS) for s in range(4)]
    event = threading.Event()
    delivered: list[tuple[int, str]] = []
    timer = threading.Timer(0.4, event.set)
    timer.start()
    records = NativeEngine(DATA, "rmse").run_all(
        runs, num_threads=2, stop_event=event,
        on_record=lambda index, record: delivered.append((index, record.stop_reason)),
    )  # fmt: skip
    timer.join()
    ended = [record for record in records if record is not None]
    assert [record is None for record in records] == [False, False, True, True]
    assert all(record.stop_reason == "interrupted" and record.num_steps > 0 for record in ended)
    assert all(np.isfinite(record.validation_score) for record in ended)
    assert sorted(delivered) == [(0, "interrupted"), (1, "interrupted")]


def test_interrupting_the_torch_engine() -> None:
    run = Run("mse", "sgd", 1e-3, 8, architecture=ARCHITECTURE, stop=ENDLESS)
    event = threading.Event()
    calls = [0]

    class Counting(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            calls[0] += 1
            if calls[0] == 40:
                event.set()
            return super().forward(inputs)

    engine = TorchEngine(lambda: Counting(6, 1), *rows_of(DATA), "regression", "rmse")
    first, second = engine.run_all([run, run], stop_event=event)
    assert second is None
    assert first is not None
    assert first.stop_reason == "interrupted"
    assert first.num_steps == 39  # one of the forty calls was a validation pass
    assert first.best_epoch >= 1


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_nothing_begins_once_stopped(engine: str) -> None:
    event = threading.Event()
    event.set()
    run = Run(
        "mse", "sgd", 1e-3, 8, architecture=ARCHITECTURE, stop=Stop(2) if engine == "torch" else ENDLESS
    )
    if engine == "torch":
        assert torch_engine(run, DATA, "rmse").run_all([run], stop_event=event) == [None]
    else:
        records = NativeEngine(DATA, "rmse").run_all([run] * 3, num_threads=1, stop_event=event)
        assert all(record is None or record.stop_reason == "interrupted" for record in records)
        assert records[1:] == [None, None]


def test_a_keyboard_interrupt_keeps_what_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    short = Run("mse", "sgd", 1e-4, 8, architecture=ARCHITECTURE, stop=Stop(1))
    endless = Run("mse", "sgd", 1e-4, 8, architecture=ARCHITECTURE, stop=ENDLESS)
    seen: dict[int, str] = {}

    def note(index: int, record: Record) -> None:
        seen[index] = record.stop_reason
        if index == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        NativeEngine(DATA, "rmse").run_all([short, endless, endless], num_threads=2, on_record=note)
    assert seen == {0: "epochs", 1: "interrupted"} or seen == {
        0: "epochs",
        1: "interrupted",
        2: "interrupted",
    }


def test_records_come_as_runs_end() -> None:
    runs = [Run("mse", "sgd", 1e-3, 32, seed=s, architecture=ARCHITECTURE, stop=Stop(2)) for s in range(6)]
    thread, seen = threading.get_ident(), []

    def note(index: int, record: Record) -> None:
        assert threading.get_ident() == thread
        assert record.run is runs[index]
        seen.append(index)

    records = NativeEngine(DATA, "rmse").run_all(runs, num_threads=2, on_record=note)
    assert sorted(seen) == list(range(6))
    assert all(record is not None and record.run is run for record, run in zip(records, runs, strict=True))
    assert NativeEngine(DATA, "rmse").run_all([]) == []


def test_the_reasons_are_those_of_the_table() -> None:
    tested = {reason for reason, *_ in STOPS} | {"seconds", "interrupted"}
    assert tested == set(STOP_REASONS)


def test_a_curve_tells_the_mean_loss_of_its_epoch() -> None:
    """Weighted by rows: the last, shorter batch counts for what it is."""
    data = problem("regression", rows=70, validation=20)
    run = Run("mse", "sgd", 1e-12, 32, seed=3, architecture=Architecture(()), stop=Stop(2))
    for record in both(run, data):
        start = initial_parameters([6, 1], 3)
        error = data.x_train @ start[:6] + start[6] - data.y_train
        np.testing.assert_allclose(record.curve.train_loss, [np.mean(error**2)] * 2, rtol=1e-6)
        assert record.num_examples == 140
        np.testing.assert_array_equal(record.curve.step, [3, 6])


def test_a_failing_observer_does_not_wait_for_runs_without_an_end() -> None:
    """The error comes through at once; runs under way are ended."""
    short = Run("mse", "sgd", 0.01, architecture=ARCHITECTURE, stop=Stop(max_epochs=1))
    endless = Run("mse", "sgd", 0.01, architecture=ARCHITECTURE, stop=Stop(max_epochs=None, max_sec=60.0))

    def fail(index: int, record: Record) -> None:
        raise RuntimeError("observer")

    started = time.perf_counter()
    with pytest.raises(RuntimeError, match="observer"):
        NativeEngine(DATA, "rmse").run_all([short, endless], num_threads=2, on_record=fail)
    assert time.perf_counter() - started < 30
