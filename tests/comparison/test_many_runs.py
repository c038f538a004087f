"""A comparison's memory hardly grows with its runs: curves and weights lie in the journal until they are asked for."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steepest.comparison.journal import Journal
from steepest.comparison.plan import Plan, Setting
from steepest.comparison.progress import Silent
from steepest.comparison.records import runs_frame
from steepest.comparison.splits import Split, Splits
from steepest.comparison.trials import Trials
from steepest.data import prepare
from steepest.training.native import NativeEngine
from steepest.training.run import Architecture, Curve, Record, Run, Stop

NUM_EVALUATIONS, NUM_WEIGHTS = 500, 5000
BYTES_OF_A_RUN = 8 * 4 * NUM_EVALUATIONS + 4 * NUM_WEIGHTS


@pytest.fixture
def large_records(engine: Callable[..., Any]) -> Any:
    """An engine whose records take 36 KB each."""
    fake = engine()
    small = fake.record

    def record(run: Run) -> Record:
        draw = np.random.default_rng(run.seed)
        steps = np.arange(NUM_EVALUATIONS)
        curve = Curve(steps, steps + 1, draw.random(NUM_EVALUATIONS), draw.random(NUM_EVALUATIONS))
        weights = draw.random(NUM_WEIGHTS).astype(np.float32)
        return replace(small(run), curve=curve, parameters=weights)

    fake.record = record
    return fake


@pytest.fixture
def plan(plan_of: Callable[..., Plan]) -> Plan:
    return plan_of(losses=["mse"], optimizers=["sgd"])


def trials_with(plan: Plan, engine: Any, journal: Journal | None) -> Trials:
    splits = Splits(plan, Split(None, engine))  # type: ignore[arg-type]
    return Trials(
        plan, splits, num_threads=1, progress=Silent(), stop_event=threading.Event(), journal=journal
    )


def kept_bytes(trials: Trials, plan: Plan, seeds: range) -> int:
    """What is still there of the memory that these runs took."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        trials.run("confirm", [Setting(plan.cells[0], 0.1).on(seed) for seed in seeds])
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_a_run_leaves_little_in_memory(plan: Plan, large_records: Any, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    trials = trials_with(plan, large_records, journal)
    kept_bytes(trials, plan, range(20))  # what is made once
    a_run = kept_bytes(trials, plan, range(20, 320)) / 300
    journal.close()
    assert a_run < 3000
    assert (tmp_path / "journal").stat().st_size > 320 * BYTES_OF_A_RUN


def test_what_lies_in_the_journal_is_read_back_to_the_bit(
    plan: Plan, large_records: Any, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    trials, kept = trials_with(plan, large_records, journal), trials_with(plan, large_records, None)
    wanted = [Setting(plan.cells[0], 0.1).on(seed) for seed in range(5)]
    for one in (trials, kept):
        one.run("confirm", wanted)
    for trial in reversed(wanted):
        assert trials.entries[trial].record.parameters is None
        read, whole = trials.whole(trial), kept.whole(trial)
        assert whole is kept.entries[trial].record
        assert np.array_equal(read.parameters, whole.parameters)
        assert np.array_equal(read.curve.train_loss, whole.curve.train_loss)
        assert (read.run, read.hyperparameters, read.seconds) == (
            whole.run,
            whole.hyperparameters,
            whole.seconds,
        )
    assert runs_frame(plan, trials).equals(runs_frame(plan, kept))
    trials.run("confirm", [Setting(plan.cells[0], 0.1).on(7)])  # it still writes at its end
    journal.close()
    again = Journal(tmp_path / "journal")
    assert len(again) == 6
    again.close()


def test_the_frame_is_the_same_in_any_chunks(
    plan: Plan, large_records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = trials_with(plan, large_records, None)
    trials.run("tune", [Setting(plan.cells[0], 0.1).on(seed) for seed in range(7)])
    whole = runs_frame(plan, trials)
    monkeypatch.setattr("steepest.comparison.records._ROWS_AT_ONCE", 3)
    assert runs_frame(plan, trials).equals(whole)
    assert whole["run_id"].to_list() == list(range(7))


def test_a_run_that_has_ended_lets_go_of_what_it_worked_in() -> None:
    """All runs of a stage are there from its start to its end; their working memory is not."""
    x = np.random.default_rng(0).normal(size=(200, 4))
    native = NativeEngine(prepare((x, x[:, 0])).training_data(), "rmse")

    def peak_bytes(count: int) -> int:
        runs = [Run("mse", "adam", 0.01, 32, seed, Architecture((16,)), Stop(3)) for seed in range(count)]
        tracemalloc.start()
        try:
            native.run_all(runs, num_threads=1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(10)  # what is made once
    assert (peak_bytes(250) - peak_bytes(50)) / 200 < 10_000
