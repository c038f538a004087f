"""What a comparison asks of an engine, and the one place that starts the native one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from steepest.training.run import Record, Run, TrainingData

if TYPE_CHECKING:
    from steepest.training.windows import StreamedData

__all__ = ["Engine", "count_threads", "start_engine", "start_engine_on", "start_streamed_engine"]


class Engine(Protocol):
    """Trains runs on one set of encoded rows, and predicts with what a run gave."""

    def run_all(
        self,
        runs: Sequence[Run],
        *,
        num_threads: int | None = None,
        on_record: Callable[[int, Record], None] | None = None,
        stop_event: threading.Event | None = None,
    ) -> list[Record | None]:
        """Train every run; ``on_record(index, record)`` is called as each one ends."""
        ...

    def predict(self, run: Run, parameters: Any, features: Any) -> NDArray[Any]:
        """Standardised predictions (rows,) for regression, probabilities (rows, classes) for classes."""
        ...


def start_engine(data: TrainingData, metric: str) -> Engine:
    """The native engine; imported here because loading and predicting with a model needs no engine."""
    from steepest.training.native import NativeEngine

    return NativeEngine(data, metric)


def start_engine_on(device: str, data: TrainingData, metric: str) -> Engine:
    """The engine that trains a table's runs together on a device."""
    from steepest.training.population_tables import TablePopulation

    return TablePopulation(data, metric, device)


def start_streamed_engine(
    data: StreamedData, metric: str, on_window: Callable[[float], None] | None = None
) -> Engine:
    """The native engine on rows too many for memory; ``on_window`` is told the share of the work that is done."""
    from steepest.training.streamed import StreamedEngine

    return StreamedEngine(data, metric, on_window)


def count_threads(num_threads: int | None) -> int:
    """The number of threads asked for, or of the processors this process may use."""
    if num_threads is not None:
        return num_threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
