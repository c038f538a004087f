"""A console on which names out of a table are text, and how numbers are written there."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, TextIO

from steepest.errors import inert

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from steepest.training.run import Run

__all__ = ["can_be_drawn_on", "console", "in_course", "is_terminal", "number"]


def console(stream: TextIO | None = None) -> Console:
    """A console on ``stream`` (standard output). A file or a pipe gets lines wide enough not to be broken.

    Names out of a table are text to it: no markup, no emoji codes, and nothing that the terminal would obey.
    """
    from rich.console import Console

    class Inert(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(inert(text), **options)

        def on_broken_pipe(self) -> None:
            if self.file is not sys.stderr:
                super().on_broken_pipe()
            # Nobody reads the progress any more (``2>&1 | head``); what it tells of goes on, and is written.
            self.quiet = True
            with suppress(OSError, ValueError):  # a stream in its place may have no number
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())

    target = stream or sys.stdout
    width = None if is_terminal(target) or "COLUMNS" in os.environ else 120
    # In a notebook rich would leave the stream and display a box of HTML for every line.
    return Inert(file=target, width=width, highlight=False, markup=False, emoji=False, force_jupyter=False)


def can_be_drawn_on(screen: Console) -> bool:
    """Whether lines there can be drawn over; rich itself takes a log for a terminal where FORCE_COLOR is set."""
    return is_terminal(screen.file) and not screen.is_dumb_terminal


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether somebody looks at it; what a program puts in a stream's place need not say."""
    return stream is not None and hasattr(stream, "isatty") and stream.isatty()


def number(value: float | None) -> str:
    """A score as a person reads it: four figures, so that columns line up, and seldom an exponent."""
    if value is None or value != value:
        return "-"
    if 1e4 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:#.4g}".rstrip(".")


def in_course(run: Run) -> str:
    """How a run's rate goes, where it does not stay; to stand behind the rate."""
    named = [run.schedule] * (run.schedule != "constant")
    named += [f"warm-up {run.warmup:g}"] * (run.warmup > 0.0)
    return f" ({', '.join(named)})" if named else ""
