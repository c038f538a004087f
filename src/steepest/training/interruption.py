"""What Ctrl-C asks to stop: all that is under way in the main thread, each within the one before it.

A training function of the user's own may call ``fit_module`` or ``compare``: who interrupts that means the whole.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ask_to_stop", "under_way"]

_events: list[threading.Event] = []


@contextmanager
def under_way() -> Iterator[threading.Event]:
    """An event that :func:`ask_to_stop` sets, as long as this lasts."""
    event = threading.Event()
    _events.append(event)
    try:
        yield event
    finally:
        _events.remove(event)


def ask_to_stop() -> None:
    """Set the events of all that is under way."""
    for event in _events:
        event.set()
