"""Joining a cluster: quiet, on loopback where we start it, and one sentence where there is none."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import steepest
from steepest.comparison import cluster_worker, ray_connection
from steepest.comparison.ray_connection import check_address, connection
from steepest.comparison.versions import versions
from steepest.errors import InputError

COMMAND = [sys.executable, "-m", "steepest", "compare"]
SHORT = ["--target", "y", "--hidden", "4", "--losses", "mse", "--optimizers", "sgd", "--splits", "1"]


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_connection, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed; pip install 'steepest\[ray\]' brings it"):
        steepest.compare(([[1.0]], [1.0]), cluster="auto")


@pytest.mark.parametrize(
    "address", ["", "head", "head:", ":6379", "head:0", "head:65536", "ray://head:10001"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(InputError, match=r"A cluster is 'auto' .* or HOST:PORT, not"):
        check_address(address)


def test_nobody_at_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    said = rf"Nothing answers at the Ray cluster's address '{address}': Conn"
    with pytest.raises(InputError, match=said), connection(address):
        pass


def test_no_cluster_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray._private.services, "find_gcs_addresses", Nothing())
    with pytest.raises(InputError, match="No Ray cluster is running on this machine"), connection("auto"):
        pass


class Nothing:
    def __call__(self) -> set[str]:
        return set()

    def cache_clear(self) -> None:
        pass


def test_modules_stay_here() -> None:
    with pytest.raises(
        InputError, match="A cluster takes tables; modules of your own are trained on this machine"
    ):
        steepest.compare(model=lambda: None, data=(), cluster="auto")  # type: ignore[arg-type, return-value]


def test_a_node_of_other_versions_is_told() -> None:
    with pytest.raises(
        InputError, match=r"A node of the cluster has numba .*, and this machine 0\.1: results"
    ):
        cluster_worker._check_versions(versions() | {"numba": "0.1"})
    cluster_worker._check_versions(versions())


def test_what_is_started_here_cannot_be_reached_from_elsewhere() -> None:
    before = signal.getsignal(signal.SIGTERM), dict(os.environ)
    with connection("local") as ray:
        import psutil

        assert signal.getsignal(signal.SIGTERM) is before[0]
        ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = {
            (one.name(), place.laddr.ip)
            for one in ours
            for place in one.net_connections("tcp")
            if place.status == "LISTEN"
        }
        assert {name for name, _ in listening} >= {"gcs_server", "raylet"}
        assert {ip.removeprefix("::ffff:") for _, ip in listening} <= {"127.0.0.1", "::1"}
        with connection("auto") as same:  # a connection that is there already is used, and left alone
            assert same is ray
        assert ray.is_initialized()
    assert not ray.is_initialized()
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ


@pytest.mark.slow
def test_on_the_command_line_nothing_of_rays_is_printed(table: Path, tmp_path: Path) -> None:
    """And a Ctrl-C, which a terminal sends to every process of ours, leaves what can be resumed."""
    out = tmp_path / "out"
    asked = [*COMMAND, str(table), *SHORT, "--epochs", "400", "--out", str(out), "--ray", "local", "--json"]
    with subprocess.Popen(
        asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as first:
        journal = out / "unfinished" / "journal"
        while not (journal.exists() and journal.stat().st_size > 20_000):
            assert first.poll() is None
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGINT)
        said, told = first.communicate(timeout=60)
    assert first.returncode == 130, told
    assert json.loads(said)["status"] == "interrupted"
    assert "ray" not in told.replace("--ray", "").lower()
    assert told.rstrip().endswith(f"Go on with it: steepest compare --resume {out}")
    again = subprocess.run([*COMMAND, "--resume", str(out), "--quiet"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert json.loads((out / "verdict.json").read_text())["status"] == "complete"
