"""Whether a table is read whole or streamed: by its size and the memory there is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steepest.backends.available import available_bytes, in_words
from steepest.data.batches import Batches, bytes_in_memory
from steepest.data.files import PARQUET, TEXT, expanded, is_parquet, many_files, told_files
from steepest.data.memory import limit_bytes
from steepest.data.text_files import as_parquet
from steepest.errors import InputError
from steepest.training.rows_on_disk import temporary_directory

__all__ = ["LEAST_MEMORY", "check_fits", "files_of", "large_files", "open_batches"]

# What Python, torch, Numba and the compiler take of the limit, the first time on a machine; measured, rounded up.
_PROGRAM = 800 * 10**6
LEAST_MEMORY = 950 * 10**6  # that, the windows, and a batch on its way
_ALWAYS_READ = 128 * 10**6  # what is smaller is not worth a thought, however little memory there is


def large_files(data: Any, memory: int | str | None) -> tuple[list[Path], int] | None:
    """The files that are too large to be read whole under a limit of memory, and the limit in bytes; None: read them.

    Args:
        data: what the user handed over.
        memory: the limit, as :func:`steepest.data.memory.limit_bytes` takes it.

    Raises:
        InputError: the limit is none, is too small, or the data are in memory already.
    """
    limit = limit_bytes(memory)
    if memory is not None and limit < LEAST_MEMORY:
        raise InputError(
            f"memory={memory!r} is too little: Python, torch and the compiler take up to {in_words(_PROGRAM)} of it"
            f" themselves; give at least {in_words(LEAST_MEMORY)}."
        )
    if memory is not None and not isinstance(data, str | os.PathLike):
        raise InputError(
            f"memory={memory!r} is for files, which can be read in pieces; these data are in memory already."
        )
    paths = files_of(data)
    budget = max(limit - _PROGRAM, _ALWAYS_READ)
    if not paths or bytes_in_memory(paths, budget) <= budget:
        return None
    return paths, max(limit, LEAST_MEMORY)


def check_fits(data: Any) -> None:
    """Files, if these are such, fit in the memory that is available.

    Raises:
        InputError: they do not.
    """
    budget = max(available_bytes(), _ALWAYS_READ)
    paths = files_of(data)
    if paths and (needed := bytes_in_memory(paths, budget)) > budget:
        raise InputError(
            f"The data take about {in_words(needed)} of memory, where {in_words(budget)} are available, and a"
            " comparison needs its rows at once; compare on some of them, drawn at random (rows=100_000,"
            " --rows 100000), and train the winner on all with fit, which streams."
        )


def files_of(data: Any) -> list[Path]:
    """The files that are meant; none where they are no files, or reading them will say what is wrong."""
    if not isinstance(data, str | os.PathLike):
        return []
    paths = many_files(data)
    if paths is not None:
        return paths
    path = expanded(data)
    suffixes = {suffix.lower() for suffix in path.suffixes[-2:]}
    return [path] if os.path.isfile(path) and suffixes & {*PARQUET, *TEXT} else []


@contextmanager
def open_batches(
    paths: list[Path], told: Callable[[str, float], None] | None = None, ignored: Sequence[str] = ()
) -> Iterator[Batches]:
    """The files' rows in batches, less some columns; text becomes Parquet first, in a temporary directory."""
    if is_parquet(paths[0]):
        yield Batches(paths, ignored=ignored)
        return
    with tempfile.TemporaryDirectory(prefix="steepest-", dir=temporary_directory()) as directory:
        parts, digest, notes = as_parquet(paths, Path(directory), told)
        yield Batches(parts, digest, ignored, told_files(paths), notes)
