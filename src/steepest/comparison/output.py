"""Writing a directory whole or not at all, and only over what is ours."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from steepest.errors import InputError
from steepest.files import held, parse_json, read_bytes

__all__ = ["check_directory", "place_of", "recover", "recover_held", "write_directory", "written_beside"]

_BEFORE = "before"


def check_directory(
    path: str | os.PathLike[str],
    markers: Sequence[str],
    ours: frozenset[str],
    within: Mapping[str, frozenset[str]] = MappingProxyType({}),
) -> Path:
    """The place a directory will be written to, once it is known that it may be.

    Args:
        path: where to write. It may exist if it is empty, or if it holds a directory of ours.
        markers: the files any of which tells a directory of ours: JSON with a ``"format"``.
        ours: the names a directory of ours may hold. Anything else in it belongs to someone.
        within: the same of directories in it.

    Raises:
        InputError: it holds something else, is a file, or cannot be written to.
    """
    place = place_of(path)
    if place.exists() and not place.is_dir():
        raise InputError(f"The output {str(path)!r} is a file; name a directory.")
    if place.is_dir():
        _check_content(place, markers, ours)
        for name, inner in within.items():
            if (place / name).is_dir():
                _check_no_others(place / name, inner)
    parent = next(above for above in place.parents if above.exists())
    if not parent.is_dir():
        raise InputError(f"The output {str(path)!r} cannot be made: {str(parent)!r} is a file.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(
            f"The output {str(path)!r} cannot be written: {str(parent)!r} may not be written to."
        )
    return place


def place_of(path: str | os.PathLike[str]) -> Path:
    """Where a directory is to be, links and ``~`` resolved.

    Raises:
        InputError: the path leads nowhere: links in a circle, a name that is too long, a home that is not known.
    """
    try:
        place = Path(path).expanduser().resolve()
        place.exists()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0].rstrip(".")
        raise InputError(f"The output {str(path)!r} is no place to write to: {reason}.") from None
    return place


def _check_content(place: Path, markers: Sequence[str], ours: frozenset[str]) -> None:
    try:
        names = {entry.name for entry in place.iterdir()}
    except OSError as error:
        raise InputError(f"The output directory {str(place)!r} cannot be read: {error.strerror}.") from None
    if not names:
        return
    if not any(_has_format(place / marker) for marker in markers):
        raise InputError(
            f"The output directory {str(place)!r} is not empty and not written by steepest; name another one."
        )
    _check_no_others(place, ours)


def _check_no_others(place: Path, ours: frozenset[str]) -> None:
    foreign = sorted({entry.name for entry in place.iterdir()} - ours)
    if foreign:
        raise InputError(
            f"The output directory {str(place)!r} also holds {foreign[0]!r}, which steepest did not write; "
            "move it away or name another directory."
        )


def _has_format(path: Path) -> bool:
    try:
        content = parse_json(read_bytes(path))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "format" in content


def write_directory(place: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write into a fresh directory beside ``place``, then put it in its place at once.

    Raises:
        InputError: the file system refuses. What stood at ``place`` before still stands there.
    """
    try:
        with written_beside(place) as fresh:
            fill(fresh)
            _to_disk(fresh)
            fresh.chmod(0o755)
            _put_in_place(fresh, place)
    except OSError as error:
        raise InputError(f"The output {str(place)!r} cannot be written: {error.strerror or error}.") from None


@contextlib.contextmanager
def written_beside(place: Path) -> Iterator[Path]:
    """A fresh directory beside ``place``, to be renamed into it, or what is in it; else it is gone afterwards.

    What a kill leaves of it goes with the next :func:`recover`.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _to_disk(directory: Path) -> None:
    """What is renamed into its place has to be on the disk by then, or a power failure leaves empty files there."""
    for path in directory.rglob("*"):
        if path.is_file():
            with open(path, "r+b") as file:  # Windows has none of this for a file that is only read
                os.fsync(file.fileno())


def recover(place: Path) -> None:
    """Undo what a kill in the middle of :func:`write_directory` has left behind; nothing while a process is at work."""
    if not any(_left_by_a_kill(place)):
        return
    with contextlib.suppress(InputError), held(place):
        recover_held(place)


def recover_held(place: Path) -> None:
    """The same where the place is held already."""
    for left in _left_by_a_kill(place):
        if (left / _BEFORE).is_dir() and not place.exists():
            (left / _BEFORE).rename(place)
        shutil.rmtree(left, ignore_errors=True)


def _left_by_a_kill(place: Path) -> Iterator[Path]:
    return place.parent.glob(f".{glob.escape(place.name)}-????????")


def _put_in_place(fresh: Path, place: Path) -> None:
    if not place.exists():
        fresh.rename(place)
        return
    before = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    place.rename(before / _BEFORE)
    try:
        fresh.rename(place)
    except BaseException:  # an interruption too: what stood here is put back before anything is removed
        (before / _BEFORE).rename(place)
        raise
    finally:
        shutil.rmtree(before, ignore_errors=True)
