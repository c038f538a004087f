"""How far a long reading and training is, on standard error: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from steepest.screen.console import can_be_drawn_on, console

__all__ = ["told_of_reading"]

_LINE_EVERY_SEC = 5.0


@contextmanager
def told_of_reading() -> Iterator[Callable[[str, float], None]]:
    """What to call as ``told(what, share)``; nothing is drawn before it is called."""
    screen = console(sys.stderr)
    if not can_be_drawn_on(screen):
        last, said = 0.0, ""

        def line(what: str, share: float) -> None:
            nonlocal last, said
            now = time.monotonic()
            if what != said or now - last >= _LINE_EVERY_SEC:
                last, said = now, what
                screen.print(f"{what}: {share:.0%}", markup=False, soft_wrap=True)

        yield line
        return

    from rich.progress import Progress, TaskID

    bar = Progress(console=screen, transient=True)
    tasks: dict[str, TaskID] = {}

    def drawn(what: str, share: float) -> None:
        if not tasks:
            bar.start()
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=1.0)
        bar.update(tasks[what], completed=share)

    try:
        yield drawn
    finally:
        if tasks:
            bar.stop()
