"""An explanation: words in sections and a drawing, for the terminal, a notebook or a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from textwrap import wrap

from rich.text import Text

from steepest.errors import InputError
from steepest.explain.braille import draw
from steepest.explain.figure import Figure
from steepest.explain.picture import save, svg
from steepest.explain.web import drawn, web_fragment

__all__ = ["Explanation"]

_WIDEST = 100  # columns; longer lines are hard to read


@dataclass(frozen=True)
class Explanation:
    """What there is to know of a loss, an optimizer or a schedule.

    ``sections`` are a label and its paragraphs, in order; more than one paragraph makes a list. The drawing
    is computed when it is first looked at; ``make_figure`` is ``None`` where there is nothing to draw.
    ``make_page`` gives the page that computes in a browser.
    """

    name: str
    title: str
    sections: tuple[tuple[str, tuple[str, ...]], ...]
    make_figure: Callable[[], Figure] | None
    make_page: Callable[[Explanation], str]

    @cached_property
    def figure(self) -> Figure | None:
        """The drawing, before it is drawn."""
        return None if self.make_figure is None else self.make_figure()

    @property
    def text(self) -> str:
        """The words, broken for the terminal's width."""
        width = _columns()
        margin = 2 + max(len(label) for label, _ in self.sections) + 2
        lines = [self.title, ""]
        for label, paragraphs in self.sections:
            heading = f"  {label}".ljust(margin)
            for paragraph in paragraphs:
                bullet = "• " if len(paragraphs) > 1 else ""
                lines += wrap(
                    bullet + paragraph,
                    max(width, margin + 20),
                    initial_indent=heading,
                    subsequent_indent=" " * (margin + len(bullet)),
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                heading = " " * margin
        return "\n".join([*lines, ""])

    def terminal(self, width: int | None = None) -> list[Text]:
        """The drawing as lines of Unicode braille, coloured where the terminal has colours.

        Args:
            width: columns to draw in; the terminal's own by default.

        ``print(*page.terminal(), sep="\\n")`` prints it plain.
        """
        return [] if self.figure is None else draw(self.figure, width or _columns())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the drawing to a file: ``.png`` or ``.svg``; or the whole page, ``.html``, with what moves in it.

        Raises:
            InputError: another suffix, a place where no file can be written, or nothing to draw. Nothing is then
                written.
        """
        if self.make_figure is None:
            raise InputError(
                f"{self.name} has no drawing to save: its value depends on whole tensors, not on one number, "
                "so its page is words alone."
            )
        save(path, self.make_figure, lambda: self.make_page(self))

    def _repr_html_(self) -> str:
        drawing = "" if self.figure is None else drawn(svg(self.figure), self.figure)
        return web_fragment(self.title, self.sections, drawing)

    def __str__(self) -> str:
        return self.text


def _columns() -> int:
    return min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
