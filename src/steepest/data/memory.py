"""How much memory there is, how much of it this process has, and what a limit in words means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from steepest.errors import InputError

__all__ = ["available_bytes", "limit_bytes", "resident_bytes"]

_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_WORDS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_WHERE_NOTHING_SAYS = 4 * 2**30  # bytes of available memory, where the system does not tell
_CGROUPS = Path("/sys/fs/cgroup")


def limit_bytes(memory: int | str | None) -> int:
    """A limit of memory in bytes: as given (``"1GB"``, ``"512 MiB"``, a number), or half of what is available.

    Raises:
        InputError: it is no amount of memory.
    """
    if memory is None:
        return available_bytes() // 2
    if isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        return memory
    found = _WORDS.fullmatch(memory) if isinstance(memory, str) else None
    if found is None or found[2].lower() not in _UNITS or float(found[1]) == 0:
        raise InputError(
            f"memory={memory!r} is no amount of memory; give a number of bytes, or one with a unit such as '1GB'."
        )
    return int(float(found[1]) * _UNITS[found[2].lower()])


def available_bytes() -> int:
    """What this process could have without anything being paged out: the system's figure or its control group's."""
    return max(0, min([_of_the_system(), *_of_control_groups()]))


def resident_bytes() -> int:
    """The memory this process has now, or, where only that is told, the most it had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
        import sys

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    except ImportError:  # Windows
        return 0


def _of_the_system() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return _WHERE_NOTHING_SAYS


def _of_control_groups() -> Iterator[int]:
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
