"""Writing a file whole or not at all: what stood there before stands there until the new one is on the disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from steepest.errors import InputError

__all__ = ["encoded", "write_file"]


def write_file(
    path: str | os.PathLike[str], content: bytes | Iterable[bytes], name: str = "The file {path}"
) -> None:
    """Write a file whole or not at all.

    Args:
        path: where. A device or a pipe (``/dev/null``, ``/dev/stdout``) is written to and not replaced.
        content: all of it, or its pieces in order.
        name: what to call it in a message; ``{path}`` stands for its path.

    Raises:
        InputError: the file system refuses; what stood there before still stands there.
    """
    place = Path(path).expanduser()
    pieces = [content] if isinstance(content, bytes) else content
    try:
        if place.exists() and not place.is_file():
            with open(place, "wb") as file:
                file.writelines(pieces)
            return
        _replace(place, pieces)
    except (OSError, RuntimeError) as error:  # a home that is not known is a RuntimeError
        told = name.format(path=repr(str(path)))
        raise InputError(f"{told} cannot be written: {getattr(error, 'strerror', None) or error}.") from None


def _replace(place: Path, pieces: Iterable[bytes]) -> None:
    handle, fresh = tempfile.mkstemp(prefix=".steepest-", dir=place.absolute().parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(fresh, 0o644)  # a temporary file is its owner's alone
        os.replace(fresh, place)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


def encoded(text: str) -> bytes:
    """JSON text as UTF-8; a path's bytes that are none (Python's lone surrogates) become JSON's own escapes."""
    return text.encode("utf-8", "backslashreplace")
