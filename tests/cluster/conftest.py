"""A small table, what a comparison on it gives on this machine, and Ray nodes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import steepest

OPTIONS: dict[str, Any] = {
    "hidden": (8,),
    "losses": ["mse", "mae"],
    "optimizers": ["sgd", "momentum"],
    "max_epochs": 100,
    "splits": 1,
}


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    path = tmp_path_factory.mktemp("data") / "table.csv"
    pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": x @ [1.0, -2.0, 0.5]}).write_csv(path)
    return path


@pytest.fixture(scope="session")
def here(table: Path) -> steepest.Comparison:
    return steepest.compare(table, "y", **OPTIONS)


@pytest.fixture(scope="session")
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
