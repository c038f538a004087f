"""Encoded rows in a temporary file, written in any order and read in stretches.

The file has no name where the system allows it, so that nothing of it outlives the process, however that ends.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from steepest.errors import InputError

__all__ = ["RowFile", "check_room", "page_aligned", "temporary_directory"]

_NUMBER = np.dtype(np.float32)
_PAGE = 4096  # bytes, what disks and memory are divided into
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))  # no quotas on Windows
_MOST_UNSETTLED = 1 << 27  # bytes that wait in memory to be on the disk


def temporary_directory() -> Path:
    """Where large temporary files go: ``$TMPDIR``, or else ``/var/tmp``, since ``/tmp`` may lie in memory."""
    lasting = Path("/var/tmp")
    if not os.environ.get("TMPDIR") and lasting.is_dir() and os.access(lasting, os.W_OK):
        return lasting
    return Path(tempfile.gettempdir())


def check_room(num_bytes: int, directory: Path) -> None:
    """There is room for so many bytes.

    Raises:
        InputError: there is not.
    """
    free = shutil.disk_usage(directory).free
    if free < num_bytes:
        raise InputError(
            f"The encoded rows take {num_bytes / 1e9:.3g} GB in {str(directory)!r}, where {free / 1e9:.3g} GB are"
            " free; make room, or name another place with the environment variable TMPDIR."
        )


def page_aligned(*shape: int) -> NDArray[np.float32]:
    """An uninitialised float32 array that begins a page of memory."""
    num_bytes = _NUMBER.itemsize * math.prod(shape)
    room = np.empty(num_bytes + _PAGE, dtype=np.uint8)
    start = -room.ctypes.data % _PAGE
    return room[start : start + num_bytes].view(_NUMBER).reshape(shape)


class RowFile:
    """Features (rows, features) and targets (rows,), float32, on disk.

    Args:
        num_rows: how many rows there will be.
        num_features: columns.
        directory: where; None: see :func:`temporary_directory`.
    """

    def __init__(self, num_rows: int, num_features: int, directory: Path | None = None) -> None:
        self.num_rows, self.num_features = num_rows, num_features
        self._unsettled = 0
        self.directory = directory or temporary_directory()
        self._files: list[IO[Any]] = [
            tempfile.TemporaryFile(dir=self.directory, buffering=0)  # noqa: SIM115 - closed by close()
            for _ in ("features", "targets")
        ]
        self._direct = self._open_direct()

    def write(self, at: int, features: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
        """Write rows from row ``at`` on.

        Raises:
            InputError: the disk is full.
        """
        if len(targets) == 0:
            return
        for file, values, width in zip(self._files, (features, targets), (self.num_features, 1), strict=True):
            left = np.ascontiguousarray(values, dtype=_NUMBER).data.cast("B")
            try:
                file.seek(at * width * _NUMBER.itemsize)
                while left:
                    left = left[file.write(left) :]
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                raise InputError(
                    f"The disk of {str(self.directory)!r} is full ({error.strerror}); make room, or name another"
                    " place with the environment variable TMPDIR."
                ) from None
        self._unsettled += (self.num_features + 1) * len(targets) * _NUMBER.itemsize
        if self._unsettled >= _MOST_UNSETTLED:
            self.settle()

    def read(self, at: int, features: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
        """Fill contiguous arrays with the rows from row ``at`` on.

        Features go past the system's cache of files where their place on disk and in memory (:func:`page_aligned`)
        begins a page: what is larger than memory gains nothing from it, and making room in it takes long.
        """
        if len(targets) == 0:
            return
        for file, values, width in zip(self._files, (features, targets), (self.num_features, 1), strict=True):
            into = values.data.cast("B")
            offset = at * width * _NUMBER.itemsize
            if values is features and offset % _PAGE == 0 and values.ctypes.data % _PAGE == 0:
                done = self._read_directly(into, offset)
                into, offset = into[done:], offset + done
            file.seek(offset)
            while into:
                count = file.readinto(into)  # type: ignore[attr-defined]
                if not count:
                    raise OSError(f"a temporary file in {str(self.directory)!r} was cut short")
                into = into[count:]

    def _read_directly(self, into: memoryview, offset: int) -> int:
        """As many bytes as whole pages hold; none where the system or the disk's file system cannot."""
        pages = len(into) // _PAGE * _PAGE
        if self._direct is None or not pages:
            return 0
        done = 0
        try:
            while done < pages:
                count = os.preadv(self._direct, [into[done:pages]], offset + done)
                done += count
                if count == 0 or count % _PAGE:
                    break
        except OSError:
            self._close_direct()
        return done

    def _open_direct(self) -> int | None:
        if not hasattr(os, "O_DIRECT") or not hasattr(os, "preadv"):
            return None
        try:
            return os.open(f"/proc/self/fd/{self._files[0].fileno()}", os.O_RDONLY | os.O_DIRECT)
        except OSError:
            return None

    def _close_direct(self) -> None:
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def settle(self) -> None:
        """Have what was written on the disk, and not in memory that waits for it."""
        self._unsettled = 0
        for file in self._files:
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Give the disk's space back."""
        self._close_direct()
        for file in self._files:
            file.close()
