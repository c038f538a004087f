"""Every run of a comparison: run stage by stage, remembered in one place."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from steepest.comparison.journal import Journal
from steepest.comparison.plan import Cell, Plan, Setting, Trial
from steepest.comparison.progress import Progress
from steepest.comparison.splits import Splits
from steepest.training.metrics import METRICS
from steepest.training.run import Curve, Record, Run

__all__ = ["Entry", "Interrupted", "Trials"]

# Weights are kept where they may be scored on test rows or handed over; a grid's would only fill memory.
_STAGES_WITH_WEIGHTS = ("confirm", "default")


_ELSEWHERE = Curve(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0))


def _lighten(record: Record) -> None:
    """Leave to the journal what takes memory."""
    record.curve, record.parameters = _ELSEWHERE, None


class Interrupted(Exception):
    """The user asked to stop; what was finished is in the trials."""


@dataclass
class Entry:
    """What came of one trial."""

    stage: str
    record: Record
    test: dict[str, float] = field(default_factory=dict)  # metric -> score on test rows, finalists only
    pruned: bool = False  # it ended at a rung, and its rate was cut there
    # Of its probabilities on test rows: see training.calibration.
    reliability: NDArray[np.float64] | None = None

    @property
    def finished(self) -> bool:
        """Whether the run came to an end of its own, a divergence included."""
        return self.record.stop_reason != "interrupted"

    @property
    def usable(self) -> bool:
        """Whether the run ended with a score."""
        return self.finished and not self.record.diverged and bool(np.isfinite(self.record.validation_score))


class Trials:
    """Runs what is asked for, once, and remembers everything in the order it was asked for.

    What the journal has is not run again; what ends is written to it, and its curve and weights are then read back from
    there (:meth:`whole`), so that the memory of a comparison hardly grows with its runs.
    """

    def __init__(
        self,
        plan: Plan,
        splits: Splits,
        *,
        num_threads: int | None,
        progress: Progress,
        stop_event: threading.Event,
        journal: Journal | None = None,
    ) -> None:
        self.entries: dict[Trial, Entry] = {}
        self._plan = plan
        self._splits = splits
        self._num_threads = num_threads
        self._progress = progress
        self._stop_event = stop_event
        self._journal = journal

    def run(self, stage: str, wanted: Iterable[Trial]) -> None:
        """Run the trials not run before.

        Raises:
            Interrupted: the user asked to stop; the runs that ended are remembered.
        """
        if self._stop_event.is_set():
            raise Interrupted
        waiting = [trial for trial in dict.fromkeys(wanted) if trial not in self.entries]
        ended = self._run_watched(stage, waiting) if waiting else {}
        # Runs end in an order that depends on the threads; they are remembered in the order of the plan.
        for index in sorted(ended):
            self.entries[waiting[index]] = Entry(stage, ended[index])
        if self._stop_event.is_set():
            raise Interrupted

    def _run_watched(self, stage: str, waiting: Sequence[Trial]) -> dict[int, Record]:
        ended: dict[int, Record] = {}
        runs = [self._plan.run(trial) for trial in waiting]
        self._progress.stage_started(stage, len(waiting), self._plan.metric)
        try:
            for index, trial in enumerate(waiting):
                record = self._journal.recall(trial, runs[index]) if self._journal is not None else None
                if record is not None:
                    ended[index] = record
                    record.is_recalled = True
                    self._progress.run_finished(record)
                    _lighten(record)
            missing = [index for index in range(len(waiting)) if index not in ended]
            left = self._with_company(waiting, runs, missing)

            def on_record(place: int, record: Record) -> None:
                index = left[place]
                if index in ended:
                    return
                if stage not in _STAGES_WITH_WEIGHTS:
                    record.parameters = None
                ended[index] = record
                is_kept = self._journal is not None and self._journal.append(waiting[index], record)
                self._progress.run_finished(record)
                if is_kept:
                    _lighten(record)

            self._splits.run_all(
                [runs[index] for index in left],
                num_threads=self._num_threads,
                on_record=on_record,
                stop_event=self._stop_event,
            )
        except KeyboardInterrupt:
            self._stop_event.set()
        finally:
            self._progress.stage_finished()
        return ended

    def whole(self, trial: Trial) -> Record:
        """What came of a trial, with its curve and what weights it has."""
        record = self.entries[trial].record
        if record.parameters is not None or record.curve is not _ELSEWHERE or self._journal is None:
            return record
        return self._journal.recall(trial, record.run) or record

    def _with_company(
        self, waiting: Sequence[Trial], runs: Sequence[Run], missing: Sequence[int]
    ) -> list[int]:
        """The missing ones of a stage, and what has to be trained beside them; never a run of a finished comparison."""
        earlier = None if self._journal is None else self._journal.earlier
        new = [index for index, trial in enumerate(waiting) if earlier is None or trial not in earlier]
        places = {index: place for place, index in enumerate(new)}
        left = self._splits.company([runs[index] for index in new], [places[index] for index in missing])
        return [new[place] for place in left]

    def known_on_test(self, trial: Trial) -> dict[str, float]:
        """What a trial of a comparison that is extended scored on the test rows; empty where that is not known."""
        earlier = None if self._journal is None else self._journal.earlier
        return {} if earlier is None else earlier.test_scores(trial)

    def train_again(self, wanted: Iterable[Trial]) -> None:
        """Get the weights of trials that were read back without them: the same run gives the same bits."""
        waiting = set(wanted)
        stages = {self.entries[trial].stage for trial in waiting}
        for stage in sorted(stages):
            beside = [trial for trial, entry in self.entries.items() if entry.stage == stage]
            runs = [self.entries[trial].record.run for trial in beside]
            asked = [place for place, trial in enumerate(beside) if trial in waiting]
            places = self._splits.company(runs, asked)
            records = self._splits.run_all([runs[place] for place in places], num_threads=self._num_threads)
            for place, record in zip(places, records, strict=True):
                if record is not None and place in asked:
                    self.entries[beside[place]].record = record

    def mark_pruned(self, cut: Iterable[Trial]) -> None:
        """These runs ended at a rung where their rate was cut."""
        for trial in cut:
            self.entries[trial].pruned = True

    def scores(self, setting: Setting, seeds: Sequence[int]) -> NDArray[np.float64]:
        """Validation scores, one a seed; NaN where the run diverged."""
        return np.array([self.score(setting.on(seed)) for seed in seeds], dtype=np.float64)

    @cached_property
    def least_on_validation(self) -> float:
        """The validation score below which the rows tell nothing apart."""
        return METRICS[self._plan.metric].least_told_apart(lambda: self._splits.first.prepared.y_validation)

    @cached_property
    def least_on_test(self) -> float:
        """The same of the test rows."""
        return METRICS[self._plan.metric].least_told_apart(lambda: self._splits.first.prepared.y_test)

    def costs(self, setting: Setting, seeds: Sequence[int]) -> NDArray[np.float64]:
        """The same so that less is better, whichever way the metric goes, as far as the rows tell scores apart."""
        scores = np.maximum(self.scores(setting, seeds), self.least_on_validation)
        return -scores if METRICS[self._plan.metric].greater_is_better else scores

    def mean_score(self, setting: Setting, seeds: Sequence[int]) -> float:
        """The mean validation score over the seeds that gave one; NaN where none did."""
        scores = self.scores(setting, seeds)
        return float(scores[np.isfinite(scores)].mean()) if np.isfinite(scores).any() else float("nan")

    def mean_best_epoch(self, setting: Setting, seeds: Sequence[int]) -> float:
        """The mean epoch whose weights were kept, over the seeds that have run; 0 where none has."""
        entries = [self.entries.get(setting.on(seed)) for seed in seeds]
        epochs = [entry.record.best_epoch for entry in entries if entry is not None]
        return float(np.mean(epochs)) if epochs else 0.0

    def score(self, trial: Trial) -> float:
        """A trial's validation score; NaN where it diverged or has not run."""
        entry = self.entries.get(trial)
        return entry.record.validation_score if entry is not None and entry.usable else float("nan")

    def read_back(self, setting: Setting, seeds: Sequence[int]) -> dict[str, float]:
        """What the runs themselves said their hyperparameters were; empty where none has run."""
        entries = (self.entries.get(setting.on(seed)) for seed in seeds)
        return next((entry.record.hyperparameters for entry in entries if entry is not None), {})

    def test_scores(self, setting: Setting, seeds: Sequence[int], metric: str) -> NDArray[np.float64]:
        """Scores on test rows, one a seed; NaN where the run diverged or was not scored."""
        entries = [self.entries.get(setting.on(seed)) for seed in seeds]
        return np.array([entry.test.get(metric, np.nan) if entry else np.nan for entry in entries])

    def count_diverged(self, cell: Cell | None = None, lr: float | None = None) -> int:
        """How many runs diverged: of all, of one cell, or of one cell at one rate."""
        return sum(
            entry.record.diverged
            for trial, entry in self.entries.items()
            if cell in (None, trial.cell) and lr in (None, trial.lr)
        )
