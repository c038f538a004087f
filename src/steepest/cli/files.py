"""A file that a command is asked to write: a place where it cannot be is refused before the work begins."""

from __future__ import annotations

import os
from pathlib import Path

from steepest.errors import InputError

__all__ = ["check_file"]


def check_file(path: Path, option: str) -> None:
    """Refuse a place where no file can be written.

    Raises:
        InputError: it is a folder, its folder is missing, or may not be written to.
    """
    if path.is_dir():
        raise InputError(f"{option} {path} is a folder; name a file.")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(
            f"{option} {path}: there is no folder {str(path.parent)!r}; make it first, or name another."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{option} {path}: there is no permission to write in {str(folder)!r}.")
