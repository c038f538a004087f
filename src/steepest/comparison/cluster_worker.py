"""What a Ray worker does: it trains a shard of runs, and gives each one's record as it ends."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import llvmlite.binding

from steepest.comparison.versions import versions
from steepest.errors import InputError
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.training.run import Record, Run, TrainingData

__all__ = ["Home", "Rows", "facts_of", "processor", "train"]

Ended = tuple[int, dict[str, Any]]  # the run's place in its shard, and its record's facts

_LOOK_EVERY_SEC = 0.25  # at whether to stop
_SEND_EVERY_SEC = 0.1  # what ended meanwhile goes together: a message costs as much as a very short run


@dataclass(frozen=True)
class Rows:
    """What lies in the object store, where every worker of a node reads it: rows, and formulas of the user's own."""

    data: TrainingData
    losses: dict[str, Any]
    optimizers: dict[str, Any]


@dataclass(frozen=True)
class Home:
    """Where runs are trained.

    Args:
        key: of the rows.
        rows: the reference to :class:`Rows`, in a list, so that it and not the rows goes along with a task.
        metric: the word of the metric that validation scores are in.
        versions: of the machine that asks; other versions might give other bits.
        stop_key: there in the cluster's key-value store once the comparison is to stop.
    """

    key: str
    rows: list[Any]
    metric: str
    versions: tuple[tuple[str, str], ...]
    stop_key: str


def facts_of(record: Record) -> dict[str, Any]:
    """A record without its run, which the one who asked for it has."""
    return {part.name: getattr(record, part.name) for part in fields(Record) if part.name != "run"}


@cache
def processor() -> str:
    """The kind of processor that kernels are compiled for here: on another, sums may be rounded otherwise."""
    features = llvmlite.binding.get_host_cpu_features()
    wide = "AVX-512" if features.get("avx512f", False) else "no AVX-512"
    return f"{llvmlite.binding.get_host_cpu_name()} ({wide})"


def train(home: Home, runs: Sequence[Run]) -> Iterator[tuple[str, list[Ended]]]:
    """Train the runs one after another; give what ended, time and again, with the processor's kind.

    Once the comparison is to stop, the run under way ends as interrupted, and no other is begun.

    Raises:
        InputError: this node has other versions, or a run cannot be trained.
    """
    engine = _engine(home)
    ended: queue.SimpleQueue[Ended | BaseException | None] = queue.SimpleQueue()
    stop_event = threading.Event()

    def work() -> None:
        try:
            engine.run_all(
                runs,
                num_threads=1,
                on_record=lambda place, record: ended.put((place, facts_of(record))),
                stop_event=stop_event,
            )
            ended.put(None)
        except BaseException as error:
            ended.put(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        going_on, looked_at = True, -_LOOK_EVERY_SEC
        while going_on:
            if time.monotonic() - looked_at >= _LOOK_EVERY_SEC:
                looked_at = time.monotonic()
                if _is_to_stop(home):
                    stop_event.set()
            going_on, together = _together(ended)
            if together:
                yield processor(), together
    finally:
        stop_event.set()
        worker.join()


def _is_to_stop(home: Home) -> bool:
    from ray.experimental import internal_kv

    there: bool = internal_kv._internal_kv_exists(home.stop_key)
    return there


def _together(ended: queue.SimpleQueue[Ended | BaseException | None]) -> tuple[bool, list[Ended]]:
    """What ends until it is time to send it, and whether there is more to come."""
    together: list[Ended] = []
    until = time.monotonic() + _SEND_EVERY_SEC
    while True:
        try:
            one = ended.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return True, together
        if isinstance(one, BaseException):
            raise one
        if one is None:
            return False, together
        together.append(one)


_ENGINES: dict[str, Any] = {}  # this process's, by their rows


def _engine(home: Home) -> Any:
    if home.key not in _ENGINES:
        import ray

        from steepest.training.native import NativeEngine

        _check_versions(dict(home.versions))
        rows: Rows = ray.get(home.rows[0])
        LOSSES.update(rows.losses)
        OPTIMIZERS.update(rows.optimizers)
        _ENGINES[home.key] = NativeEngine(rows.data, home.metric)
    return _ENGINES[home.key]


def _check_versions(asked: Mapping[str, str]) -> None:
    own = versions()
    differing = [name for name, version in asked.items() if own.get(name) != version]
    if differing:
        name = differing[0]
        raise InputError(
            f"A node of the cluster has {name} {own.get(name)}, and this machine {asked[name]}: results might differ. "
            "Install the same versions on all of them."
        )
