"""From nothing to the first finished run of a comparison, its kernels compiled on the way or found in the cache."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import partial
from typing import Any

from steepest.bench.child import in_process
from steepest.bench.work import OURS, Contestant, Field, Within, Work

__all__ = ["cold", "run_here", "warm"]

COLD_SEC, WARM_SEC = 20.0, 3.0


def cold(quick: bool) -> Work:
    """An empty cache: every kernel is compiled."""
    name = "comparison from a cold start to its first finished run"
    rounds = 1 if quick else 7
    return Work(name, partial(_cold_field, quick), (Within(COLD_SEC),), rounds=rounds, warm_up=False)


def warm(quick: bool) -> Work:
    """A full cache."""
    name = "comparison from a warm start to its first finished run"
    rounds = 1 if quick else 9
    return Work(name, partial(_warm_field, quick), (Within(WARM_SEC),), rounds=rounds)


def _cold_field(quick: bool) -> Field:
    def call() -> None:
        with tempfile.TemporaryDirectory() as cache:
            _start(cache, quick)

    return {OURS: Contestant(call)}


def _warm_field(quick: bool) -> Field:
    cache = tempfile.TemporaryDirectory()  # kept by the closure, removed with it
    return {OURS: Contestant(lambda: _start(cache.name, quick))}


def _start(cache: str, quick: bool) -> None:
    in_process("first_run", environment={"STEEPEST_CACHE_DIR": cache}, quick=quick)


def run_here(quick: bool) -> Mapping[str, float]:
    """Start a comparison with the defaults and leave this process when a run has ended."""
    import numpy as np

    from steepest.comparison.compare import compare

    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 10))
    y = x @ rng.normal(size=10) + rng.normal(size=1000)
    few: dict[str, Any] = {"losses": ["mse"], "optimizers": ["sgd"]} if quick else {}
    compare((x, y), hidden=(16,), progress=_Leave(), **few)
    raise AssertionError("a comparison has a run")


class _Leave:
    """Ends the process at the first finished run."""

    def data_read(self, notes: object) -> None:
        """Nothing to do."""

    def plan_made(self, sentences: object) -> None:
        """Nothing to do."""

    def stage_started(self, stage: str, num_runs: int, metric: str) -> None:
        """Nothing to do."""

    def run_finished(self, record: object) -> None:
        """Leave, without waiting for the runs beside it."""
        os.write(1, b"{}\n")
        os._exit(0)

    def stage_finished(self) -> None:
        """Nothing to do."""
