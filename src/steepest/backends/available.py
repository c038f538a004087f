"""How much memory there is to be had: what would take more is refused in a sentence, before the system kills for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available_bytes", "in_words"]

_CGROUPS = Path("/sys/fs/cgroup")


def available_bytes() -> float:
    """What the system, its control groups and the process's own limit leave; infinity where they do not say."""
    return max(0.0, min(_of_system(), _of_process(), *_of_control_groups()))


def in_words(num_bytes: float) -> str:
    """``"1.5 GB"``, ``"20 MB"``."""
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:,.1f} GB"
    return f"{math.ceil(num_bytes / 1e6):,} MB"


def _of_system() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return math.inf
    found = [line for line in lines if line.startswith("MemAvailable:")]
    return 1024.0 * int(found[0].split()[1]) if found else math.inf


def _of_process() -> float:
    try:
        import resource
    except ImportError:
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return math.inf
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        pages = 0
    return float(limit - pages * resource.getpagesize())


def _of_control_groups() -> Iterator[float]:
    """What is left under the limit of each group that this process is in (cgroups of version 2 and 1)."""
    for directory, version in _groups():
        limit_name, used_name, cached_name = (
            ("memory.max", "memory.current", "inactive_file")
            if version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        try:
            limit = int((directory / limit_name).read_text())  # "max" is none
            used = int((directory / used_name).read_text())
            figures = dict(line.split() for line in (directory / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        yield limit - used + int(figures.get(cached_name, 0))  # what only caches files gives way


def _groups() -> Iterator[tuple[Path, int]]:
    """The directories of this process' groups, from its own up to the root that can be seen."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            root, version = _CGROUPS, 2
        elif "memory" in controllers.split(","):
            root, version = _CGROUPS / "memory", 1
        else:
            continue
        own = root / path.lstrip("/")
        for directory in (own, *own.parents):
            if directory == root.parent:
                break
            yield directory, version
