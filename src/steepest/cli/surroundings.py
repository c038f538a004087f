"""What a command stands in: its standard streams, the signals it gets, and what the system refuses it."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from steepest.errors import inert

__all__ = ["REFUSALS", "fill_standard_places", "gentle_end", "let_go_of_output", "plain_warnings", "refusal"]

# What is neither a fault of ours nor of the input: the disk, the memory, the limits of the process.
REFUSALS = frozenset(
    getattr(errno, name)
    for name in (
        "ENOSPC",
        "EDQUOT",
        "EFBIG",
        "EROFS",
        "EIO",
        "EMFILE",
        "ENFILE",
        "ENOMEM",
        "EAGAIN",
        "ESTALE",
    )
    if hasattr(errno, name)
)


def fill_standard_places() -> None:
    """A closed standard stream (``>&-``) leaves a place that the next file would get, and with it what is printed."""
    for place in range(3):
        try:
            os.fstat(place)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest place that is free
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """A warning of ours is a sentence, without the line of code that gave it."""
    before = warnings.formatwarning

    def told(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if f"{os.sep}steepest{os.sep}" in filename:
            return f"steepest: {inert(str(message))}\n"
        return before(message, category, filename, lineno, line)

    warnings.formatwarning = told
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def gentle_end() -> Iterator[Callable[[], bool]]:
    """SIGTERM, as schedulers send it, is Ctrl-C: what was begun is tidied up. A comparison under way does more.

    Gives what tells whether either came: a library's import that one of them cuts short may swallow it, and fail later.
    """
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def interrupt(number: int, frame: Any) -> None:
        heard.append(number)
        signal.default_int_handler(number, frame)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, interrupt)
    # Whoever ignores it, nohup or a shell, goes on doing so.
    if before[signal.SIGINT] is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield lambda: bool(heard)
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that Python did not set
                signal.signal(number, handler)


def let_go_of_output() -> None:
    """What could not be written is not tried again when Python ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refusal(error: OSError) -> str:
    """The sentence about it."""
    where = f" for {str(error.filename)!r}" if error.filename else ""
    return f"the system refuses{where}: {error.strerror}; mend that and run the command again."
