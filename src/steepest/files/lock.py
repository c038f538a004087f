"""One process at a time writes a place: a lock beside it, which goes with the process however that ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steepest.errors import InputError

__all__ = ["held"]


@contextmanager
def held(place: Path) -> Iterator[None]:
    """Hold a place while the block runs. Where the system has no such locks, everybody may write.

    The lock is on an empty file beside the place, ``.NAME.lock``, for the place itself is renamed. It is removed at
    the end; one that a kill has left behind holds nobody up.

    Raises:
        InputError: another process holds it, or nothing can be written there.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = place.parent / f".{place.name}.lock"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"The output {str(place)!r} cannot be written: {error.strerror}.") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _taken(place) from None
        except OSError:  # a file system without locks
            pass
        if not _is_still_there(handle, path):  # whoever held it has removed it in the meantime
            raise _taken(place)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _is_still_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _taken(place: Path) -> InputError:
    return InputError(f"Another process is at work on {str(place)!r}; let it end, or stop it.")
