"""A contestant in a process of its own, where memory and a start from nothing can be measured."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["in_process", "peak_bytes", "reset_peak", "resident_bytes"]


def in_process(
    task: str, *, environment: Mapping[str, str] | None = None, **arguments: Any
) -> dict[str, Any]:
    """Run a task of this file in a fresh interpreter; what it found.

    Raises:
        RuntimeError: it failed; the message is the last line it wrote.
    """
    ended = subprocess.run(
        [sys.executable, "-m", "steepest.bench.child", task, json.dumps(arguments)],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise RuntimeError(
            (ended.stderr.strip() or f"the process ended with {ended.returncode}").splitlines()[-1]
        )
    found: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return found


def resident_bytes() -> int:
    """The memory this process holds now."""
    return _status("VmRSS:") or _rusage_bytes()


def peak_bytes() -> int:
    """The most memory this process has held, since :func:`reset_peak` where the system has such a thing."""
    return _status("VmHWM:") or _rusage_bytes()


def reset_peak() -> None:
    """Forget the peak (Linux)."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass  # the peak so far stays, which can only make ours and the peer's look larger


def _status(name: str) -> int:
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
    except (OSError, StopIteration):
        return 0


def _rusage_bytes() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


_TASKS = {  # the module and the function that do each; only what is asked for is imported
    "linear_cross_entropy": ("steepest.bench.linear_cross_entropy", "measured_here"),
    "first_run": ("steepest.bench.first_run", "run_here"),
    "gpu_peak": ("steepest.bench.gpu.device", "measured_here"),
}


def _main(task: str, arguments: Mapping[str, Any]) -> None:
    module, name = _TASKS[task]
    function: Callable[..., Mapping[str, float]] = getattr(importlib.import_module(module), name)
    sys.stdout.write(json.dumps(function(**arguments)) + "\n")


if __name__ == "__main__":
    _main(sys.argv[1], json.loads(sys.argv[2]))
