"""Files a command is asked to write: refused before the work begins, and written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from steepest.errors import InputError

__all__ = ["check_file", "write_file"]


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


def write_file(path: Path, text: str, option: str) -> None:
    """Write ``text`` as UTF-8; what stood there before stands there until all of it is written.

    Raises:
        InputError: the file system refuses.
    """
    check_file(path, option)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.absolute().parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{option} {path} cannot be written: {error.strerror}.") from None
