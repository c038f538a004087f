"""How much memory this process has, and what a limit in words means."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from steepest.backends.available import available_bytes
from steepest.errors import InputError

__all__ = ["limit_bytes", "resident_bytes"]

_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_WORDS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_WHERE_NOTHING_SAYS = 4 * 2**30  # bytes of available memory, where the system does not tell


def limit_bytes(memory: int | str | None) -> int:
    """A limit of memory in bytes: as given (``"1GB"``, ``"512 MiB"``, a number), or half of what is available.

    Raises:
        InputError: it is no amount of memory.
    """
    if memory is None:
        there = available_bytes()
        return int((there if math.isfinite(there) else _WHERE_NOTHING_SAYS) // 2)
    if isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        return memory
    found = _WORDS.fullmatch(memory) if isinstance(memory, str) else None
    if found is None or found[2].lower() not in _UNITS or float(found[1]) == 0:
        raise InputError(
            f"memory={memory!r} is no amount of memory; give a number of bytes, or one with a unit such as '1GB'."
        )
    return int(float(found[1]) * _UNITS[found[2].lower()])


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
