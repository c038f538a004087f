"""Who watches a comparison: the command line draws, the library stays silent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from steepest.training.run import Record

if TYPE_CHECKING:
    from steepest.comparison.plan import Plan

__all__ = ["Progress", "Silent", "Together"]


class Progress(Protocol):
    """Told what happens, in the calling thread.

    The stages: rung, tune, finish, extend, options, confirm, default; and model, the training of what is handed over,
    in which no run is counted.
    """

    def data_read(self, notes: Sequence[str]) -> None:
        """The rows are read, split and encoded: what was inferred, left out or found odd, a sentence each."""
        ...

    def plan_made(self, plan: Plan) -> None:
        """All is decided and nothing has begun: what will be run, and what was left out."""
        ...

    def stage_started(self, stage: str, num_runs: int, metric: str) -> None:
        """A stage of so many runs begins; ``metric`` is what their validation scores are."""
        ...

    def run_finished(self, record: Record) -> None:
        """One run of the stage has ended, in order of completion."""
        ...

    def stage_finished(self) -> None:
        """The stage is over, or was interrupted."""
        ...


class Silent:
    """Watches and says nothing."""

    def data_read(self, notes: Sequence[str]) -> None:
        """Say nothing."""

    def plan_made(self, plan: Plan) -> None:
        """Say nothing."""

    def stage_started(self, stage: str, num_runs: int, metric: str) -> None:
        """Say nothing."""

    def run_finished(self, record: Record) -> None:
        """Say nothing."""

    def stage_finished(self) -> None:
        """Say nothing."""


class Together:
    """Several who watch, told one after the other."""

    def __init__(self, watchers: Sequence[Progress]) -> None:
        self._watchers = watchers

    def data_read(self, notes: Sequence[str]) -> None:
        """Tell each of them."""
        for watcher in self._watchers:
            watcher.data_read(notes)

    def plan_made(self, plan: Plan) -> None:
        """Tell each of them."""
        for watcher in self._watchers:
            watcher.plan_made(plan)

    def stage_started(self, stage: str, num_runs: int, metric: str) -> None:
        """Tell each of them."""
        for watcher in self._watchers:
            watcher.stage_started(stage, num_runs, metric)

    def run_finished(self, record: Record) -> None:
        """Tell each of them."""
        for watcher in self._watchers:
            watcher.run_finished(record)

    def stage_finished(self) -> None:
        """Tell each of them."""
        for watcher in self._watchers:
            watcher.stage_finished()
