"""A comparison on three Ray nodes of this machine gives what one without a cluster gives, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import steepest
from steepest.comparison.canonical import canonical_json
from steepest.comparison.journal import Journal
from steepest.comparison.progress import Silent
from steepest.comparison.unfinished import UNFINISHED

from . import formulas

pytestmark = pytest.mark.slow

OPTIONS: dict[str, Any] = {
    "hidden": (8,),
    "losses": ["mse", "wave"],
    "optimizers": ["sgd", "walk"],
    "max_epochs": 60,
    "splits": 1,
}


@pytest.fixture(scope="module", autouse=True)
def formulas_of_ones_own() -> Iterator[None]:
    formulas.enter()
    yield
    formulas.leave()


@pytest.fixture(scope="module")
def here(table: Path, formulas_of_ones_own: None) -> steepest.Comparison:
    return steepest.compare(table, "y", **OPTIONS)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Two nodes of a processor each, on loopback; a test adds a third."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        from ray._private import ray_constants

        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()


def bytes_of(comparison: steepest.Comparison) -> tuple[str, pl.DataFrame]:
    """The verdict as it is written and the runs, times apart."""
    return canonical_json(comparison.verdict | {"seconds": 0}), comparison.runs.drop("seconds")


def assert_same(one: steepest.Comparison, other: steepest.Comparison) -> None:
    (verdict, runs), (expected, all_runs) = bytes_of(one), bytes_of(other)
    assert verdict == expected
    assert runs.equals(all_runs)


class Upsets(Silent):
    """Does something once so many runs have ended."""

    def __init__(self, after: dict[int, Any]) -> None:
        self.after, self.count = after, 0

    def run_finished(self, record: Any) -> None:
        self.count += 1
        self.after.pop(self.count, lambda: None)()


def training(under: int | None = None) -> list[Any]:
    """The processes that train, of all nodes or under one node's own process."""
    import psutil
    import ray  # noqa: F401 - brings psutil along

    def is_at_it(one: Any) -> bool:
        try:
            return bool(one.name().startswith("ray::train"))
        except psutil.NoSuchProcess:  # it ended just now
            return False

    near = psutil.process_iter() if under is None else psutil.Process(under).children(recursive=True)
    return [one for one in near if is_at_it(one)]


def raylet_of(node: Any) -> int:
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


def test_a_worker_and_a_node_die_and_another_joins(
    nodes: Any, table: Path, here: steepest.Comparison
) -> None:
    joined: list[Any] = []
    has_trained, is_over = threading.Event(), threading.Event()
    doomed = nodes.add_node(num_cpus=1)

    def look() -> None:
        """At the new node all the time: a run is over in milliseconds, and then nothing shows who trained it."""
        while not (is_over.wait(0.002) or has_trained.is_set()):
            if joined and training(raylet_of(joined[0])):
                has_trained.set()

    def until_it_trains() -> None:
        """Give the new node's worker time to begin before the runs are all done."""
        has_trained.wait(0.1 if upsets.count < 200 else 1.0)  # a busy machine takes long to start a node

    upsets = Upsets(
        {
            10: lambda: training()[0].kill(),
            20: lambda: joined.append(nodes.add_node(num_cpus=1)),
            **dict.fromkeys(range(30, 250), until_it_trains),
            250: lambda: nodes.remove_node(doomed, allow_graceful=False),
        }
    )
    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        there = steepest.compare(table, "y", cluster=nodes.address, progress=upsets, **OPTIONS)
    finally:
        is_over.set()
        watcher.join()
    nodes.remove_node(joined[0])
    assert not upsets.after
    assert has_trained.is_set(), "the node that joined trained nothing"
    assert upsets.count == len(here.runs) >= 300
    assert_same(there, here)


def test_after_a_signal_nothing_trains_on_and_it_is_resumed_without_a_cluster(
    nodes: Any, table: Path, here: steepest.Comparison, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    stopped = Upsets({100: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    first = steepest.compare(table, "y", cluster=nodes.address, out=out, progress=stopped, **OPTIONS)
    assert first.interrupted
    assert not training()
    assert 100 <= len(first.runs) < len(here.runs)
    assert_same(steepest.compare(resume=out), here)


def test_after_the_drivers_death_it_is_resumed_on_the_cluster(
    nodes: Any, table: Path, here: steepest.Comparison, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    asked = {"data": str(table), "target": "y", "cluster": nodes.address, "out": str(out), **OPTIONS}
    with subprocess.Popen(
        [sys.executable, "-c", f"import formulas, steepest; formulas.enter(); steepest.compare(**{asked!r})"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    ) as driver:
        journal = out / UNFINISHED / "journal"
        while not (journal.exists() and journal.stat().st_size > 50_000):
            assert driver.poll() is None
            time.sleep(0.05)
        driver.kill()
    known = Journal(journal)
    known.close()
    assert 0 < len(known) < len(here.runs)
    until = time.monotonic() + 10
    while training() and time.monotonic() < until:
        time.sleep(0.1)
    assert not training()
    upsets = Upsets({})
    assert_same(steepest.compare(resume=out, cluster=nodes.address, progress=upsets), here)
