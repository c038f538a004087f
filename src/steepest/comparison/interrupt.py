"""Ctrl-C, made gentle: it asks a comparison to stop, and what was finished is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stop_on_interrupt"]


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """An event the first Ctrl-C sets; a second Ctrl-C is an ordinary KeyboardInterrupt.

    Only the main thread hears signals: elsewhere the event is simply never set.
    """
    stop_event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop_event
        return

    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop_event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask_to_stop)
    try:
        yield stop_event
    finally:
        signal.signal(signal.SIGINT, before)
