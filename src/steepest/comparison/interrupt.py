"""Ctrl-C and SIGTERM, made gentle: they ask a comparison to stop, and what was finished is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from steepest.training.interruption import ask_to_stop, under_way

__all__ = ["stop_on_interrupt"]


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """An event the first Ctrl-C, or SIGTERM as schedulers send it, sets, and those of what this is a part of; a second
    one does what it did before.

    Only the main thread hears signals: elsewhere the event is simply never set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield threading.Event()
        return

    before = {
        number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)
    }

    def ask(number: int, frame: FrameType | None) -> None:
        ask_to_stop()
        signal.signal(number, before[signal.Signals(number)])

    with under_way() as stop_event:
        for number in before:
            signal.signal(number, ask)
        try:
            yield stop_event
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
