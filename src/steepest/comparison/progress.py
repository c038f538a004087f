"""Who watches a comparison: the command line draws, the library stays silent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from steepest.errors import InputError
from steepest.training.run import Record

if TYPE_CHECKING:
    from steepest.comparison.plan import Plan

__all__ = ["Progress", "Silent", "Together", "drawn_on_request"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


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


def drawn_on_request(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same function, whose ``progress`` may be True: what the command line draws, on standard error.

    Raises:
        InputError: it is neither that nor somebody who can be told.
    """

    @wraps(function)
    def watched(*given: _P.args, **named: _P.kwargs) -> _R:
        progress: Any = named.get("progress")
        if progress is not True:
            _check_can_be_told(progress)
            return function(*given, **named)
        from steepest.screen.watch import watch

        with watch(quiet=False) as drawn:
            named["progress"] = drawn
            return function(*given, **named)

    return watched


def _check_can_be_told(progress: object) -> None:
    told = [name for name in vars(Silent) if not name.startswith("_")]
    if progress is None or progress is False or all(callable(getattr(progress, name, None)) for name in told):
        return
    raise InputError(
        f"progress is {progress!r}; it is True, which draws a comparison's progress, or an object with the methods "
        f"{', '.join(told)}."
    )
