"""The connection to a Ray cluster: quiet, without usage statistics, and on loopback where it is ours to start."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from steepest.errors import InputError, told

__all__ = ["check_address", "connection"]

_WAIT_SEC = 5.0
# Ray reads these as it is imported. The first is about counting those who use it, which is for them to allow.
_SURROUNDINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # without it, a warning about what that will mean one day
}
_LOOPBACK = ("127.", "::1")


def check_address(address: str) -> None:
    """What can be told of an address before anything is done: Ray is there, and it is one.

    Raises:
        InputError: it is not.
    """
    if find_spec("ray") is None:
        raise InputError(
            "Ray, which trains on a cluster, is not installed; pip install 'steepest[ray]' brings it."
        )
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(
            f"A cluster is 'auto' (the one this machine is part of), 'local' (one that is started here) or HOST:PORT, "
            f"not {address!r}."
        )


@contextmanager
def connection(address: str) -> Iterator[Any]:
    """Ray, connected to the cluster at ``address``; a connection that the caller has already is used and left alone.

    Raises:
        InputError: there is no cluster there, or it cannot be joined.
    """
    check_address(address)
    with _sigterm_left_alone():
        ray = _imported()
    if ray.is_initialized():
        yield ray
        return
    if address not in ("auto", "local"):
        _check_someone_listens(address)
    with _quiet(ray):
        with _sigterm_left_alone():
            _join(ray, address)
        try:
            yield ray
        finally:
            ray.shutdown()


def _join(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "CRITICAL"}
    try:
        if address == "local":
            _start(ray, quiet)
        else:
            ray.init(address=address, **quiet)
    except ConnectionError:
        raise InputError(
            "No Ray cluster is running on this machine; start one (ray start --head), name another's HOST:PORT, or "
            "give 'local'."
        ) from None
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"The Ray cluster {address!r} cannot be joined from this machine: {told(error)}"
        ) from None


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """What Ray has to say of a node that died goes to standard output otherwise, where the result belongs."""
    worker = ray._private.worker
    before = worker._worker_logs_enabled
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before


def _imported() -> Any:
    for name, value in _SURROUNDINGS.items():
        os.environ.setdefault(name, value)
    import ray

    return ray


@contextmanager
def _sigterm_left_alone() -> Iterator[None]:
    """Ray takes the signal for itself, as it is imported and as it connects."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_someone_listens(address: str) -> None:
    """Ray itself would try for a minute, and end the process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_WAIT_SEC).close()
    except OSError as error:
        raise InputError(f"Nothing answers at the Ray cluster's address {address!r}: {told(error)}") from None


def _start(ray: Any, quiet: dict[str, Any]) -> None:
    """A cluster of this machine alone, which no other can reach.

    Ray listens on every interface unless it is kept to one machine; it reads that from its surroundings.
    """
    from ray._private import ray_constants

    name, before = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", ray_constants.ENABLE_RAY_CLUSTER
    given = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        ray.init(address="local", include_dashboard=False, **quiet)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        os.environ.pop(name)
        if given is not None:
            os.environ[name] = given
    places = [node["NodeManagerAddress"] for node in ray.nodes()]
    if not all(place.startswith(_LOOPBACK) for place in places):
        ray.shutdown()
        raise RuntimeError(f"it listens on {places[0]}, which others can reach")
