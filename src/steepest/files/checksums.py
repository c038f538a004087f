"""The digests of a directory's files, in the form of ``sha256sum``: a torn or changed file is named and refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from steepest.errors import InputError
from steepest.files.read import read_bytes

__all__ = ["SUMS", "check_sums", "write_sums"]

SUMS = "SHA256SUMS"


def write_sums(directory: Path, names: Iterable[str]) -> None:
    """Write down the digests of those of the named files that are there; ``sha256sum -c SHA256SUMS`` checks them.

    Args:
        directory: where the files lie, and the digests will.
        names: of files in it.

    Raises:
        OSError: a file cannot be read, or the digests not written.
    """
    places = {name: directory / name for name in names}
    lines = [f"{_digest(path)}  {name}\n" for name, path in sorted(places.items()) if path.is_file()]
    (directory / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def check_sums(directory: Path, names: Iterable[str]) -> None:
    """Hold the named files to their digests. What has none, as in a directory of an older version, is not held to any.

    The names come from the caller and never out of the file, so no path in it can lead anywhere.

    Raises:
        InputError: a file is not what was written.
    """
    try:
        lines = read_bytes(directory / SUMS).decode("ascii", "replace").splitlines()
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{str(directory / SUMS)!r} cannot be read: {error.strerror}.") from None
    digests = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in names:
        try:
            changed = name in digests and _digest(directory / name) != digests[name]
        except FileNotFoundError:  # whoever reads it says so in words of their own
            continue
        except OSError as error:
            raise InputError(f"{str(directory / name)!r} cannot be read: {error.strerror}.") from None
        if changed:
            raise InputError(
                f"{str(directory / name)!r} is not what steepest wrote: it was changed or torn, and its digest in "
                f"{SUMS} is another. Put it back, or make the comparison anew."
            )


def _digest(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, None)).hexdigest()
