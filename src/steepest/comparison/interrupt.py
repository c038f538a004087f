"""Ctrl-C and SIGTERM, made gentle: they ask a comparison to stop, and what was finished is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stop_on_interrupt"]


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """An event the first Ctrl-C, or SIGTERM as schedulers send it, sets; a second one does what it did before.

    Only the main thread hears signals: elsewhere the event is simply never set.
    """
    stop_event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop_event
        return

    before = {
        number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)
    }

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop_event.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask_to_stop)
    try:
        yield stop_event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
