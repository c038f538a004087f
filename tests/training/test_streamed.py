"""Rows too many for memory: windows change nothing but where rows lie, runs share them, and an epoch is well mixed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steepest.errors import InputError
from steepest.training import rows_on_disk
from steepest.training.mixing import epoch_order, measure_order
from steepest.training.native import NativeEngine
from steepest.training.random import SPLIT, data_order, hashed, scattered
from steepest.training.rows_on_disk import RowFile, check_room, page_aligned
from steepest.training.run import Architecture, BatchSize, Record, Run, Stop, TrainingData
from steepest.training.scatter import ScatterWriter
from steepest.training.streamed import StreamedEngine
from steepest.training.windows import NUM_BUFFERS, Layout, ReadAhead, Rows, StreamedData, Stretch

from .problems import problem

LAYOUT = Layout(block_rows=32, blocks_a_window=8)  # windows of 256 rows: a micro-batch never spans two
OPENED: list[RowFile] = []
METRICS = {"regression": "rmse", "binary": "log_loss", "multiclass": "log_loss"}


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary files go here, and nothing is left of them."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield
    while OPENED:
        OPENED.pop().close()
    assert list(tmp_path.iterdir()) == []


def on_disk(data: TrainingData, layout: Layout = LAYOUT, seed: int = 0, staged: int = 100) -> StreamedData:
    """The same rows on disk, as if they had come a few at a time."""
    n, width = data.x_train.shape
    train, validation = RowFile(n, width), RowFile(len(data.x_validation), width)
    OPENED.extend((train, validation))
    writer = ScatterWriter(train, layout.block_rows, staged, seed)
    for at in range(0, n, 77):
        writer.add(data.x_train[at : at + 77], data.y_train[at : at + 77].astype(np.float32))
    writer.flush()
    validation.write(0, data.x_validation, data.y_validation.astype(np.float32))
    counts = np.zeros(0) if data.task == "regression" else np.bincount(data.y_train.astype(int))
    least = np.concatenate([data.y_train, data.y_validation]).min() * data.target_scale + data.target_mean
    return StreamedData(
        data.task, data.num_classes, train, validation, layout, data.target_scale, data.target_mean,
        float(least), counts.astype(np.int64),
    )  # fmt: skip


def as_visited(data: TrainingData, layout: Layout, seed: int) -> TrainingData:
    """The rows, arranged so that the engine in memory visits them in its first epoch as the one on disk does."""
    n = len(data.x_train)
    arranged = np.empty(n, np.int64)
    arranged[data_order(n, seed, 0)] = epoch_order(n, layout, seed, 0)
    return replace(data, x_train=data.x_train[arranged], y_train=data.y_train[arranged])


def result(record: Record | None) -> tuple[Any, ...]:
    assert record is not None
    return (
        record.parameters.tobytes(), record.curve.train_loss.tobytes(), record.curve.validation_score.tobytes(),
        record.num_steps, record.num_examples, record.stop_reason, record.best_epoch,
    )  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 8, 32, 256, 1024])
@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_an_epoch_through_windows_is_the_same_bits_as_in_memory(task: str, batch_size: BatchSize) -> None:
    """Window by window, a batch over several of them and validation in pieces too: the state outlives each call."""
    data = problem(task, rows=1536, validation=600)
    loss = {"regression": "huber", "binary": "bce", "multiclass": "cross_entropy"}[task]
    run = Run(loss, "adam", 0.01, batch_size, 3, Architecture((8,)), Stop(max_epochs=1))
    streamed = StreamedEngine(on_disk(data, seed=3), METRICS[task])
    arranged = as_visited(data, LAYOUT, 3)
    (record,) = streamed.run_all([run])
    assert result(record) == result(NativeEngine(arranged, METRICS[task]).run_all([run])[0])


def test_a_schedule_goes_on_from_window_to_window() -> None:
    data = problem("regression", rows=1536, validation=600)
    run = Run(
        "mse", "adam", 0.01, 32, 3, Architecture((8,)), Stop(max_epochs=1), schedule="cosine", warmup=0.1
    )
    (record,) = StreamedEngine(on_disk(data, seed=3), "rmse").run_all([run])
    whole = NativeEngine(as_visited(data, LAYOUT, 3), "rmse")
    assert result(record) == result(whole.run_all([run])[0])
    assert result(record) != result(whole.run_all([replace(run, schedule="linear")])[0])


@pytest.mark.parametrize("layout", [LAYOUT, Layout(block_rows=37, blocks_a_window=3)])
def test_a_batch_of_all_rows_is_the_same_but_for_the_order_of_its_sum(layout: Layout) -> None:
    data = problem("regression", rows=1500, validation=600)
    run = Run("mse", "sgd", 0.1, "full", 3, Architecture((8,)), Stop(max_epochs=20))
    streamed = StreamedEngine(on_disk(data, layout), "rmse").run_all([run])[0]
    whole = NativeEngine(data, "rmse").run_all([run])[0]
    assert streamed is not None
    assert whole is not None
    np.testing.assert_allclose(streamed.parameters, whole.parameters, rtol=1e-4, atol=1e-6)
    assert (streamed.num_steps, streamed.num_examples) == (20, 30_000)


def test_a_loss_for_counts_sees_multiples_of_the_mean() -> None:
    data = problem("regression", rows=640, validation=300)
    run = Run("poisson_nll", "adam", 0.01, 32, 1, Architecture(()), Stop(max_epochs=1))
    streamed = StreamedEngine(on_disk(data, seed=1), "rmse").run_all([run, replace(run, loss="mse")])
    arranged = NativeEngine(as_visited(data, LAYOUT, 1), "rmse")
    assert [result(record) for record in streamed] == [
        result(record) for record in arranged.run_all([run, replace(run, loss="mse")])
    ]
    below = replace(on_disk(data), least_target=-1.0)
    with pytest.raises(InputError, match="the smallest one here is -1"):
        StreamedEngine(below, "rmse").run_all([run])


def test_a_loss_for_rare_classes_knows_their_counts() -> None:
    data = problem("multiclass", rows=640, validation=300)
    run = Run("class_balanced", "adam", 0.01, 32, 1, Architecture(()), Stop(max_epochs=1))
    streamed = StreamedEngine(on_disk(data, seed=1), "log_loss").run_all([run])
    assert result(streamed[0]) == result(
        NativeEngine(as_visited(data, LAYOUT, 1), "log_loss").run_all([run])[0]
    )


def test_every_epoch_reads_every_block_in_an_order_of_its_own() -> None:
    rows = on_disk(problem("regression", rows=1000))
    orders = [
        [part.at for window in rows.training_windows(seed, epoch) for part in window]
        for seed, epoch in ((0, 0), (0, 1), (0, 2), (1, 0))
    ]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(0, 1000, 32)) for order in orders)


def test_a_run_is_the_same_alone_in_company_and_on_two_threads() -> None:
    rows = on_disk(problem("regression", rows=1000, validation=200))
    runs = [
        Run(loss, optimizer, 0.01, size, seed, Architecture(hidden), Stop(max_epochs=3, patience=2))
        for loss, optimizer, size, hidden in (
            ("mse", "sgd", 7, ()), ("mae", "adam", 32, (8,)), ("huber", "rmsprop", 300, (8, 4)),
            ("mse", "adam", "full", ()),
        )
        for seed in (0, 1)
    ]  # fmt: skip
    together = [result(record) for record in StreamedEngine(rows, "rmse").run_all(runs, num_threads=2)]
    one = [result(record) for record in StreamedEngine(rows, "rmse").run_all(runs[::-1], num_threads=1)]
    assert one[::-1] == together
    assert [result(StreamedEngine(rows, "rmse").run_all([run])[0]) for run in runs[:3]] == together[:3]
    assert len(set(together)) == len(runs)


def test_what_is_staged_changes_no_byte() -> None:
    data = problem("regression", rows=1000)
    files = []
    for staged in (10, 333, 5000):
        rows = on_disk(data, staged=staged)
        x, y = np.empty((1000, 6), np.float32), np.empty(1000, np.float32)
        rows.train.read(0, x, y)
        files.append((x.tobytes(), y.tobytes()))
    assert files[0] == files[1] == files[2]
    assert np.array_equal(np.sort(np.frombuffer(files[0][1], np.float32)), np.sort(data.y_train))


def test_without_validation_rows_the_last_weights_are_kept() -> None:
    rows = on_disk(problem("binary", rows=700))
    record = StreamedEngine(rows, "accuracy").run_all([Run("bce", "sgd", 0.1, 16, stop=Stop(max_epochs=2))])[
        0
    ]
    assert record is not None
    assert (record.best_epoch, record.num_examples, record.stop_reason) == (0, 1400, "epochs")
    assert np.isnan(record.validation_score)


@pytest.mark.parametrize(
    ("stop", "reason", "steps"),
    [
        (Stop(max_epochs=9, max_steps=40), "steps", 40),
        (Stop(max_epochs=2), "epochs", 64),
        (Stop(max_epochs=None, target_metric=1e9), "target_metric", 32),
        (Stop(max_epochs=9, min_gradient_norm=1e9), "gradient_norm", 0),
    ],
)
def test_runs_end_for_the_reasons_they_end_in_memory(stop: Stop, reason: str, steps: int) -> None:
    data = problem("regression", rows=1000, validation=300)
    run = Run("mse", "sgd", 0.01, 32, stop=stop, architecture=Architecture(()))
    for engine in (StreamedEngine(on_disk(data), "rmse"), NativeEngine(data, "rmse")):
        # Beside one that goes on: the shorter one waits for the epoch's validation rows, and for nothing else.
        short, long = engine.run_all([run, replace(run, stop=Stop(max_epochs=3))])
        assert short is not None
        assert long is not None
        assert (short.stop_reason, short.num_steps) == (reason, steps)
        assert np.isfinite(short.validation_score)
        assert (long.num_epochs, long.num_steps) == (3, 96)


def test_patience_seconds_and_divergence() -> None:
    rows = on_disk(problem("regression", rows=1000, validation=300))
    still = Run("mse", "sgd", 1e-30, 32, stop=Stop(max_epochs=50, patience=2), architecture=Architecture(()))
    wild = replace(still, lr=1e20)
    slow = replace(still, batch_size=1, stop=Stop(max_epochs=None, max_sec=0.3))
    patient, diverged, timed = StreamedEngine(rows, "rmse").run_all([still, wild, slow])
    assert patient is not None
    assert diverged is not None
    assert timed is not None
    assert (patient.stop_reason, patient.num_epochs, patient.best_epoch) == ("patience", 3, 1)
    assert (diverged.stop_reason, diverged.best_epoch) == ("diverged", 0)
    assert (timed.stop_reason, timed.best_epoch > 0) == ("seconds", True)


@pytest.mark.parametrize("batch_size", [1, "full"])
def test_an_interrupted_run_keeps_what_it_learned(batch_size: BatchSize) -> None:
    stop_event = threading.Event()
    rows = on_disk(problem("regression", rows=1000, validation=300))
    engine = StreamedEngine(rows, "rmse", on_window=lambda share: stop_event.set())
    run = Run("mse", "sgd", 0.01, batch_size, stop=Stop(max_epochs=None, max_sec=60))
    record = engine.run_all([run, replace(run, seed=1)], stop_event=stop_event)
    assert record[1] is None
    assert record[0] is not None
    assert record[0].stop_reason == "interrupted"
    assert np.isfinite(record[0].validation_score)
    assert record[0].num_examples < 1000


def test_progress_goes_from_nothing_to_all() -> None:
    shares: list[float] = []
    rows = on_disk(problem("regression", rows=1000, validation=300))
    StreamedEngine(rows, "rmse", shares.append).run_all([Run("mse", "sgd", 0.01, stop=Stop(max_epochs=3))])
    assert shares == sorted(shares)
    assert len(shares) == 12
    assert 0 < shares[0] < 0.1
    assert shares[-1] == 1.0


def test_memory_is_that_of_the_windows() -> None:
    """However many rows there are."""
    for num_rows in (2_000, 20_000):
        rows = on_disk(problem("regression", rows=num_rows, validation=num_rows // 4))
        engine = StreamedEngine(rows, "rmse")
        engine.run_all([Run("mse", "sgd", 0.01, stop=Stop(max_epochs=2))])
        held = sum(buffer.features.nbytes + buffer.targets.nbytes for buffer in engine.buffers())
        assert held == NUM_BUFFERS * LAYOUT.window_rows * (6 + 1) * 4


@pytest.mark.parametrize(
    ("num_rows", "num_features"), [(1, 1), (1000, 3), (10**7, 100), (10**9, 30), (10**6, 10**5), (10**10, 1)]
)
def test_a_layout_is_within_its_bounds(num_rows: int, num_features: int) -> None:
    layout = Layout.of(num_rows, num_features)
    assert layout.window_rows * (num_features + 1) * 4 <= 1 << 25
    assert 1 <= layout.window_rows <= 1 << 18
    assert layout.blocks_a_window == 1 or -(-num_rows // layout.block_rows) <= 2 * 4096


def test_an_error_while_reading_reaches_the_caller() -> None:
    rows = on_disk(problem("regression", rows=1000, validation=300))
    rows.train.close()
    with pytest.raises(ValueError, match="closed file"):
        StreamedEngine(rows, "rmse").run_all([Run("mse", "sgd", 0.01, stop=Stop(max_epochs=1))])
    assert not [thread for thread in threading.enumerate() if thread.name == "steepest-read-ahead"]


def test_reading_ends_with_who_reads() -> None:
    rows = on_disk(problem("regression", rows=1000))
    buffers = [Rows(*(np.empty(shape, np.float32) for shape in ((256, 6), 256, 256))) for _ in range(3)]  # type: ignore[arg-type]

    def forever() -> Iterator[list[Stretch]]:
        while True:
            yield [Stretch(rows.train, 0, 256)]

    with ReadAhead(forever(), buffers, lambda window: None) as windows:
        for number, window in enumerate(windows):
            assert window.num_rows == 256
            if number == 5:
                break
    assert not [thread for thread in threading.enumerate() if thread.name == "steepest-read-ahead"]


# --- how well rows are mixed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [1, 2, 3, 64, 65, 1000, 4097])
def test_scattering_is_a_permutation(total: int) -> None:
    places = scattered(np.arange(total, dtype=np.uint64), total, seed=5)
    assert np.array_equal(np.sort(places), np.arange(total))


def test_scattering_does_not_depend_on_who_asks() -> None:
    whole = scattered(np.arange(1000, dtype=np.uint64), 1000, seed=5)
    assert np.array_equal(scattered(np.arange(300, 310, dtype=np.uint64), 1000, seed=5), whole[300:310])
    assert not np.array_equal(scattered(np.arange(1000, dtype=np.uint64), 1000, seed=6), whole)


def test_random_numbers_of_rows_are_uniform_and_independent() -> None:
    luck = hashed(7, SPLIT, np.arange(100_000, dtype=np.uint64)) * 2.0**-64
    counts = np.histogram(luck, bins=50, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 85.4  # chi squared, 49 degrees of freedom, 0.1%
    assert abs(np.corrcoef(luck[1:], luck[:-1])[0, 1]) < 0.012
    assert abs(np.corrcoef(luck, hashed(8, SPLIT, np.arange(100_000, dtype=np.uint64)))[0, 1]) < 0.012


def test_an_epoch_mixes_sorted_rows_as_a_uniform_shuffle_does() -> None:
    """Bars of four standard errors; a file read in order, or shuffled within windows alone, is far beyond them."""
    n, error = 100_000, 100_000**-0.5
    layout = Layout.of(n, 20, window_bytes=n // 20 * 21 * 4)
    first, second = (epoch_order(n, layout, seed=3, epoch=epoch) for epoch in (0, 1))
    assert np.array_equal(np.sort(first), np.arange(n))
    assert not np.array_equal(first, second)
    for order in (first, second):
        found = measure_order(order)
        assert abs(found["correlation"]) < 4 * error
        assert abs(found["autocorrelation"]) < 4 * error
        assert abs(found["travel"] - 1 / 3) < 0.003
        assert found["window_deviation"] == pytest.approx(1.0, abs=0.25)
    within_windows = np.concatenate(
        [np.random.default_rng(0).permutation(5000) + at for at in range(0, n, 5000)]
    )
    bad = measure_order(within_windows)
    assert bad["correlation"] > 0.9
    assert bad["autocorrelation"] > 0.9
    assert bad["window_deviation"] > 10


# --- the disk --------------------------------------------------------------------------------------------------------


def test_rows_come_back_from_the_disk() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)).astype(np.float32), rng.normal(size=50).astype(np.float32)
    file = RowFile(50, 3)
    for at in (30, 0, 10):
        file.write(at, x[at : at + 20], y[at : at + 20])
    into_x, into_y = np.empty((15, 3), np.float32), np.empty(15, np.float32)
    file.read(25, into_x, into_y)
    file.close()
    assert np.array_equal(into_x, x[25:40])
    assert np.array_equal(into_y, y[25:40])


def test_pages_are_read_past_the_systems_cache_to_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole pages directly, the rest as ever; and where a file system cannot, all of them as ever."""
    rows = np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32)
    file = RowFile(5000, 3)
    OPENED.append(file)
    file.write(0, rows, rows[:, 0])
    file.settle()
    into, targets = page_aligned(3000, 3), np.empty(3000, np.float32)
    assert into.ctypes.data % 4096 == 0
    for at in (0, 1024, 7):
        file.read(at, into, targets)
        assert np.array_equal(into, rows[at : at + 3000])
        assert np.array_equal(targets, rows[at : at + 3000, 0])

    def refused(*arguments: Any) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "preadv", refused, raising=False)
    into[:] = 0
    file.read(1024, into, targets)
    assert np.array_equal(into, rows[1024:4024])
    assert file._direct is None


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"The encoded rows take 1e\+09 GB in .*TMPDIR"):
        check_room(10**18, tmp_path)
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    file = RowFile(10, 2)
    for one in file._files:
        one.close()
    file._files = [Path("/dev/full").open("wb", buffering=0) for _ in range(2)]  # noqa: SIM115
    with pytest.raises(InputError, match="is full"):
        file.write(0, np.ones((10, 2), np.float32), np.ones(10, np.float32))
    file.close()


def test_large_temporary_files_do_not_go_where_memory_may_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert rows_on_disk.temporary_directory() == tmp_path
    monkeypatch.delenv("TMPDIR")
    if Path("/var/tmp").is_dir():
        assert rows_on_disk.temporary_directory() == Path("/var/tmp")
