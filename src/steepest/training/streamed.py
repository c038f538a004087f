"""The native engine on rows too many for memory: runs of one seed go through the same windows together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.losses.formula import LossFormula
from steepest.training.native import (
    INTERRUPTED,
    Job,
    NativeEngine,
    Window,
    blas,
    check_range,
    class_terms,
    original_targets,
    processors,
    stop_overdue,
)
from steepest.training.rows_on_disk import page_aligned
from steepest.training.run import Record, Run, TrainingData
from steepest.training.windows import NUM_BUFFERS, ReadAhead, Rows, StreamedData, Stretch

__all__ = ["StreamedEngine"]


class StreamedEngine(NativeEngine):
    """Trains runs on rows on disk.

    Runs of one seed visit the rows in the same order, so each window is read once for all of them. A run's result does
    not depend on which others go with it.

    Args:
        data: encoded rows on disk.
        metric: the word of the metric that validation scores are in.
        on_window: called with the share of the runs' work that is behind them, 0 to 1, after each window.
    """

    def __init__(
        self, data: StreamedData, metric: str, on_window: Callable[[float], None] | None = None
    ) -> None:
        nothing, no_target = np.empty((0, data.train.num_features), np.float32), np.empty(0, np.float32)
        without_rows = TrainingData(
            data.task, data.num_classes, nothing, no_target, nothing, no_target, data.target_scale, data.target_mean
        )  # fmt: skip
        super().__init__(without_rows, metric)
        self.rows = data
        self.num_rows, self.num_validation = data.train.num_rows, data.validation.num_rows
        self.most_rows = min(data.layout.window_rows, max(self.num_rows, self.num_validation))
        self.by_window = True
        self.nothing = (nothing, no_target)
        self._on_window = on_window
        self._buffers: list[Rows] = []

    def targets(self, formula: LossFormula) -> tuple[NDArray[Any], NDArray[Any], float]:
        """No targets, since they come with each window, and what one of a loss's units is in the target's own.

        Raises:
            InputError: a loss for counts or amounts, and targets that are none.
        """
        if formula.prediction != "log_rate":
            return self._y, self._yv, self.data.target_scale
        check_range(formula, self.rows.least_target)
        return self._y, self._yv, self.data.target_mean

    def class_terms(self, formula: LossFormula) -> NDArray[np.float64]:
        """What a loss fitted to the classes' sizes makes of the training rows."""
        return class_terms(formula, self.rows.class_counts[None], self.data.num_classes)

    def run_all(
        self,
        runs: Sequence[Run],
        *,
        num_threads: int | None = None,
        on_record: Callable[[int, Record], None] | None = None,
        stop_event: threading.Event | None = None,
        initial: NDArray[Any] | None = None,
    ) -> list[Record | None]:
        """Train every run, seed by seed; see :meth:`NativeEngine.run_all`."""
        records: list[Record | None] = [None] * len(runs)
        jobs = [Job(self, run, initial) for run in runs]
        stop_event = stop_event or threading.Event()
        with (
            blas().limit(limits=1, user_api="blas"),
            ThreadPoolExecutor(min(num_threads or processors(), max(len(jobs), 1))) as pool,
        ):
            for seed in dict.fromkeys(run.seed for run in runs):
                if stop_event.is_set():
                    break
                places = [place for place, run in enumerate(runs) if run.seed == seed]
                march = _March(self, [jobs[place] for place in places], pool, stop_event)
                for ended in march.records():
                    records[places[ended]] = record = jobs[places[ended]].record()
                    if on_record is not None:
                        on_record(places[ended], record)
        return records

    def buffers(self) -> list[Rows]:
        """The windows' memory, laid out once."""
        if not self._buffers:
            rows = self.most_rows
            width = self.rows.train.num_features
            self._buffers = [
                Rows(
                    page_aligned(rows, width),
                    np.empty(rows, np.float32),
                    np.empty(rows, np.float32),
                )
                for _ in range(NUM_BUFFERS)
            ]
        return self._buffers

    def told(self, share: float) -> None:
        """Say how far the runs are."""
        if self._on_window is not None:
            self._on_window(share)


class _March:
    """Runs of one seed on their way through the windows, side by side."""

    def __init__(
        self, engine: StreamedEngine, jobs: list[Job], pool: ThreadPoolExecutor, stop_event: threading.Event
    ) -> None:
        self.engine, self.jobs, self.pool, self.stop_event = engine, jobs, pool, stop_event
        self.seed = jobs[0].run.seed
        self.live = list(range(len(jobs)))
        self.needs_multiples = any(job.formula.prediction == "log_rate" for job in jobs)

    def records(self) -> Iterator[int]:
        """The places of the runs, each once it has ended."""
        for job in self.jobs:
            job.begin()
        epoch = 0
        while self.live:
            # One reader goes on from epoch to epoch; where all runs end within one, it starts anew at its validation.
            with self._read_ahead(self._all_windows(epoch)) as windows:
                coming = iter(windows)
                while self.live and self._train(coming):
                    self._validate(coming)
                    epoch += 1
                    yield from self._ended()
            if self.live and all(self.jobs[place].has_ended for place in self.live):
                with self._read_ahead(iter(self.engine.rows.validation_windows())) as windows:
                    self._validate(iter(windows))
                yield from self._ended()

    def _all_windows(self, epoch: int) -> Iterator[list[Stretch]]:
        for later in count(epoch):
            yield from self.engine.rows.training_windows(self.seed, later)
            yield from self.engine.rows.validation_windows()

    def _read_ahead(self, windows: Iterator[list[Stretch]]) -> ReadAhead:
        return ReadAhead(windows, self.engine.buffers(), self._finish)

    def _finish(self, window: Rows) -> None:
        if self.needs_multiples:
            rows, mean = slice(window.num_rows), self.engine.data.target_mean
            window.multiples[rows] = original_targets(self.engine.data, window.targets[rows]) / mean

    def _train(self, windows: Iterator[Rows]) -> bool:
        """An epoch's training rows; false where all runs ended before the last of them."""
        left = self.engine.num_rows
        number = 0
        while left:
            going = [place for place in self.live if not self.jobs[place].has_ended]
            if not going:
                return False
            window = next(windows)
            number += 1
            self._advance(going, window, left, self.engine.num_validation, number, is_validation=False)
            left -= window.num_rows
            self._tell()
        return True

    def _validate(self, windows: Iterator[Rows]) -> None:
        left = self.engine.num_validation
        while left:
            window = next(windows)
            self._advance(self.live, window, 0, left, 0, is_validation=True)
            left -= window.num_rows

    def _advance(
        self, places: list[int], window: Rows, left: int, validation_left: int, number: int, *, is_validation: bool
    ) -> None:  # fmt: skip
        """All of these runs through a window, as many at once as there are threads."""
        futures = []
        for place in places:
            job = self.jobs[place]
            filled, nothing = _filled(window, job.formula), self.engine.nothing
            train, validation = (nothing, filled) if is_validation else (filled, nothing)
            futures.append(
                self.pool.submit(
                    job.advance,
                    Window(train[0], train[1], validation[0], validation[1], left, validation_left, number),
                )
            )
        pending = set(futures)
        try:
            while pending:
                _, pending = wait(pending, timeout=0.05)
                if self.stop_event.is_set():
                    for job in self.jobs:
                        job.ask_to_stop(INTERRUPTED)
                stop_overdue(self.jobs)
        except BaseException:
            for job in self.jobs:
                job.ask_to_stop(INTERRUPTED)
            wait(pending)
            raise
        for future in futures:
            future.result()
        for place in places:
            self.jobs[place].heed_stop()

    def _ended(self) -> Iterator[int]:
        ended = [place for place in self.live if self.jobs[place].has_ended]
        self.live = [place for place in self.live if place not in ended]
        yield from ended

    def _tell(self) -> None:
        now = time.perf_counter()
        shares = [1.0 if job.has_ended else job.share_done(now) for job in self.jobs]
        self.engine.told(min(shares))


def _filled(window: Rows, formula: LossFormula) -> tuple[NDArray[Any], NDArray[Any]]:
    rows = slice(window.num_rows)
    targets = window.multiples if formula.prediction == "log_rate" else window.targets
    return window.features[rows], targets[rows]
