"""Reading what another may have written: regular files, within bounds, and never by way of a link."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

__all__ = ["MOST_BYTES", "parse_json", "read_bytes", "regular"]

MOST_BYTES = 64 * 2**20  # of a JSON file of ours: a comparison of 100,000 runs has a verdict of a few


def read_bytes(path: Path, most_bytes: int | None = MOST_BYTES) -> bytes:
    """What a file in a directory of ours holds.

    Args:
        path: a regular file.
        most_bytes: more is refused before any memory is taken for it; None: no limit.

    Raises:
        OSError: it cannot be read, or is refused; ``strerror`` says why.
    """
    size = regular(path).stat().st_size
    if most_bytes is not None and size > most_bytes:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, and {most_bytes:,} would be many")
    return path.read_bytes()


def regular(path: Path) -> Path:
    """The path, which is that of a regular file: a symbolic link could lead anywhere, a pipe or a device never ends.

    Raises:
        OSError: it is not; ``strerror`` says why.
    """
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, "it is a symbolic link; put the file itself in its place")
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    return path


def parse_json(content: bytes | str) -> Any:
    """JSON of anyone's; unlike ``json.loads``, it says ValueError of whatever is wrong.

    Raises:
        ValueError: it is no JSON, holds NaN or infinity, or is nested beyond all reason.
    """
    try:
        return json.loads(content, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")
