"""Runs trained on a Ray cluster: sharded over its processors, their records streamed back as they end.

A run gives the same bits wherever it is trained, so nothing of a verdict depends on who trains what. A shard is a task
of Ray's that yields records; what it has yielded is kept when its worker or node dies, and the rest is handed out
again. Tasks wait at Ray for a free processor, so a node that joins is used at once.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.comparison.cluster_worker import Home, Rows, processor, train
from steepest.comparison.engine import Engine, start_engine
from steepest.comparison.ray_connection import check_address, connection
from steepest.comparison.shards import Shards
from steepest.comparison.versions import versions
from steepest.errors import InputError
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.optim.rule import OptimizerEntry
from steepest.training.run import Curve, Record, Run, TrainingData

__all__ = ["Cluster", "ClusterEngine", "check_cluster", "connected"]

_LOOK_EVERY_SEC = 0.05  # at whether to stop
_COUNT_EVERY_SEC = 1.0  # the processors, of which there may be more by then
_TASKS_A_PROCESSOR = 2  # one at work, and one that follows without a pause
_MOST_SEC_TO_STOP = 10.0


def check_cluster(address: str, model: Any) -> None:
    """Before anything is done: Ray is there, ``address`` is one, and it is a table that is compared on.

    Raises:
        InputError: it is not.
    """
    if model is not None:
        raise InputError(
            "A cluster takes tables; modules of your own are trained on this machine, so leave cluster out."
        )
    check_address(address)


@contextmanager
def connected(address: str | None) -> Iterator[Cluster | None]:
    """The cluster at an address, for as long as it is needed; None without an address.

    Raises:
        InputError: Ray is not installed, or there is no cluster at that address.
    """
    if address is None:
        yield None
        return
    with connection(address) as ray:
        yield Cluster(ray)


class Cluster:
    """The processors of a Ray cluster.

    Args:
        ray: the package, connected.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._task = ray.remote(num_cpus=1, max_retries=0, num_returns="streaming")(train)
        self._versions = tuple(versions().items())
        self._stop_key = f"steepest-stop-{uuid.uuid4()}"
        self._num_processors, self._counted_at = 0, -_COUNT_EVERY_SEC
        self._kinds = {processor()}  # of processors that took part; the model is trained here

    @property
    def num_processors(self) -> int:
        """How many there are by now, and at least one: one may be on its way."""
        if time.monotonic() - self._counted_at >= _COUNT_EVERY_SEC:
            self._num_processors = max(1, int(self._ray.cluster_resources().get("CPU", 0)))
            self._counted_at = time.monotonic()
        return self._num_processors

    @property
    def notes(self) -> list[str]:
        """What there is to say where processors of several kinds took part."""
        if len(self._kinds) == 1:
            return []
        kinds = " and ".join(sorted(self._kinds))
        note = f"Runs were trained on processors of different kinds ({kinds}): some of their last digits may differ."
        return [note]

    def engine(self, data: TrainingData, metric: str) -> ClusterEngine:
        """An engine that trains on these rows, which go to the object store."""
        losses, optimizers = _users_own(LOSSES), _users_own(OPTIMIZERS)
        with _sent_whole(self._ray, [*losses.values(), *optimizers.values()]):
            rows = self._ray.put(Rows(data, losses, optimizers))
        return ClusterEngine(
            self, Home(rows.hex(), [rows], metric, self._versions, self._stop_key), start_engine(data, metric)
        )

    def run_all(
        self,
        wanted: Sequence[tuple[Engine, Run]],
        *,
        num_threads: int | None = None,
        on_record: Callable[[int, Record], None] | None = None,
        stop_event: threading.Event | None = None,
    ) -> list[Record | None]:
        """Train every run on its engine's rows; as an engine's ``run_all`` otherwise.

        Args:
            wanted: engines of this cluster, and the runs.
        """
        homes = [engine.home for engine, _ in wanted if isinstance(engine, ClusterEngine)]
        records: list[Record | None] = [None] * len(wanted)
        shards = Shards([home.key for home in homes])
        streams: dict[Any, list[int]] = {}  # what each task under way trains

        def deliver(indices: Sequence[int], part: tuple[str, list[tuple[int, dict[str, Any]]]]) -> None:
            kind, ended = part
            self._kinds.add(kind)
            for place, facts in ended:
                index = indices[place]
                if shards.end(index, facts["seconds"]):
                    records[index] = record = _record(wanted[index][1], facts)
                    if on_record is not None:
                        on_record(index, record)

        stopped = True
        try:
            while not shards.all_ended and not (stop_event is not None and stop_event.is_set()):
                most = num_threads or _TASKS_A_PROCESSOR * self.num_processors
                while len(streams) < most and (shard := shards.take(self.num_processors)):
                    runs = [_plain(wanted[index][1]) for index in shard]
                    streams[self._task.remote(homes[shard[0]], runs)] = shard
                self._receive(streams, shards, deliver, _LOOK_EVERY_SEC)
            stopped = not shards.all_ended
        finally:
            with self._told_to_stop() if stopped else nullcontext():
                until = time.monotonic() + _MOST_SEC_TO_STOP
                while streams and time.monotonic() < until:
                    self._receive(streams, shards, deliver, _LOOK_EVERY_SEC)
        return records

    def _receive(
        self,
        streams: dict[Any, list[int]],
        shards: Shards,
        deliver: Callable[[Sequence[int], Any], None],
        timeout_sec: float,
    ) -> None:
        """Take what a task has to give."""
        ready, _ = self._ray.wait(list(streams), num_returns=1, timeout=timeout_sec, fetch_local=False)
        for stream in ready:
            try:
                part = self._ray.get(next(stream))
            except StopIteration:
                # One that lost an object on its way ends like any other.
                shards.lose(streams.pop(stream), "its results were lost", with_node=False)
            except self._ray.exceptions.RayTaskError as error:
                streams.pop(stream)
                raise _fault(error) from None
            except self._ray.exceptions.RayError as error:
                with_node = isinstance(error, self._ray.exceptions.NodeDiedError)
                shards.lose(streams.pop(stream), type(error).__name__, with_node=with_node)
            else:
                deliver(streams[stream], part)

    @contextmanager
    def _told_to_stop(self) -> Iterator[None]:
        """Every task of this comparison's ends soon: its run under way as interrupted, and no other is begun.

        Ray's own cancelling will not do: where it meets a task that is just ending, it ends this process (2.60).
        """
        from ray.experimental import internal_kv

        internal_kv._internal_kv_put(self._stop_key, b"")
        yield
        internal_kv._internal_kv_del(self._stop_key)


class ClusterEngine:
    """Trains runs on one set of rows, somewhere on a cluster."""

    def __init__(self, cluster: Cluster, home: Home, here: Engine) -> None:
        self.home = home
        self._cluster, self._here = cluster, here

    def run_all(
        self,
        runs: Sequence[Run],
        *,
        num_threads: int | None = None,
        on_record: Callable[[int, Record], None] | None = None,
        stop_event: threading.Event | None = None,
    ) -> list[Record | None]:
        """Train every run; one alone is trained here, for it would gain nothing elsewhere."""
        if len(runs) == 1:
            return self._here.run_all(
                runs, num_threads=num_threads, on_record=on_record, stop_event=stop_event
            )
        return self._cluster.run_all(
            [(self, run) for run in runs],
            num_threads=num_threads,
            on_record=on_record,
            stop_event=stop_event,
        )

    def predict(self, run: Run, parameters: Any, features: Any) -> NDArray[Any]:
        """See :meth:`steepest.comparison.engine.Engine.predict`."""
        return self._here.predict(run, parameters, features)


def _users_own(registry: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that a fresh steepest elsewhere does not have."""
    return {name: entry for name, entry in registry.items() if not _home_of(entry).startswith("steepest.")}


def _home_of(entry: Any) -> str:
    """The module that a loss's or an optimizer's formula was written in."""
    if isinstance(entry, OptimizerEntry):
        rule = getattr(entry.cls, "rule", None)
        return entry.cls.__module__ if rule is None else str(rule.update.__module__)
    return str(entry.formula.value.__module__)


@contextmanager
def _sent_whole(ray: Any, entries: Sequence[Any]) -> Iterator[None]:
    """The modules that define these are sent along: another node may not have them."""
    homes = {_home_of(entry) for entry in entries} - {"__main__"}
    modules = [sys.modules[home] for home in homes if home in sys.modules]
    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            ray.cloudpickle.unregister_pickle_by_value(module)


def _plain(run: Run) -> Run:
    """A run that can be sent: read-only views of dictionaries cannot."""
    return replace(run, loss_options=dict(run.loss_options), optimizer_options=dict(run.optimizer_options))


def _record(run: Run, facts: dict[str, Any]) -> Record:
    """A record of arrays of its own: those that came are read-only, and hold on to the object store's memory."""
    curve = facts["curve"]
    own = {part.name: np.array(getattr(curve, part.name)) for part in fields(Curve)}
    return Record(run=run, **facts | {"curve": Curve(**own), "parameters": np.array(facts["parameters"])})


def _fault(error: Any) -> BaseException:
    """What went wrong in a task, as if it had gone wrong here."""
    cause = error.cause
    if isinstance(cause, InputError):
        return InputError(str(cause))
    if "No module named" in str(cause):
        return InputError(
            f"A node of the cluster lacks a package ({cause}); install steepest, in the same version, on every node."
        )
    fault: BaseException = error
    return fault
