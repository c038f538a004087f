"""SIGTERM and Ctrl-C ask a training to stop after the step under way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from steepest.training.interruption import ask_to_stop, under_way

__all__ = ["asked_to_stop"]


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that the first of them sets, and those of what this is a part of. Later ones change nothing: torchrun
    hands on what the terminal has sent already, and the second must not tear the checkpoint that the first asked for.
    SIGKILL ends at once.

    Only the main thread hears signals: elsewhere the event is never set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield threading.Event()
        return

    def ask(number: int, frame: FrameType | None) -> None:
        ask_to_stop()

    with under_way() as event:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield event
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)
