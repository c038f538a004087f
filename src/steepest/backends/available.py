"""How much memory there is to be had: what would take more is refused in a sentence, before the system kills for it."""

from __future__ import annotations

import math
from pathlib import Path

__all__ = ["available_bytes", "in_words"]

# Of the container, if there is one: the limit and what is used of it, control groups of version 2 and of version 1.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_bytes() -> float:
    """What the system, the container and the process's own limit leave; infinity where they do not say."""
    return min(_of_system(), _of_process(), *(_of_group(*paths) for paths in _GROUPS))


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
    return max(0.0, float(limit - pages * resource.getpagesize()))


def _of_group(limit: str, used: str) -> float:
    try:
        return max(
            0.0,
            float(Path(limit).read_text(encoding="ascii")) - float(Path(used).read_text(encoding="ascii")),
        )
    except (OSError, ValueError):  # there is none, or its limit is "max"
        return math.inf
