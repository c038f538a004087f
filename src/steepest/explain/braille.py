"""Figures in the terminal: lines of Unicode braille, two by four dots a character."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from textwrap import shorten, wrap

from rich.text import Text

from steepest.explain.figure import BESIDE, CONTOUR, Figure, Panel

__all__ = ["draw"]

_HEIGHT = 13  # rows of characters a panel
_LABELS = 8  # columns left of an axis
_GAP = 3
_NARROWEST = 30  # columns a panel; two that would be narrower stand one above the other
_STYLES = {BESIDE: "bright_black", CONTOUR: "bright_black", 0: "bold blue", 1: "red", 2: "green"}
# Which dots of a line are drawn, so that lines differ without colours too: (period, drawn).
_DASHES = {BESIDE: (3, 1), CONTOUR: (7, 1), 0: (1, 1), 1: (6, 4), 2: (3, 2)}
_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # row, column within a character


def draw(figure: Figure, width: int) -> list[Text]:
    """The figure in ``width`` columns: title, legend, panels, caption."""
    if not _can_show():
        return [Text("(This terminal has no braille to draw with; --out FILE.svg saves the drawing.)")]
    count = len(figure.panels)
    each = (width - _GAP * (count - 1)) // count
    if each < _LABELS + _NARROWEST:
        blocks = [[panel] for panel in figure.panels]
        each = max(width, _LABELS + 10)
    else:
        blocks = [list(figure.panels)]
    lines = [*_wrapped(figure.title, width, "bold"), *_legend(figure, width), Text()]
    for block in blocks:
        height = max((_map_height(panel, each) for panel in block if panel.is_map), default=_HEIGHT)
        drawn = [_panel(panel, each, height) for panel in block]
        lines += [Text(" " * _GAP).join(row) for row in zip(*drawn, strict=True)]
    for sentence in figure.caption:
        lines += _wrapped(sentence, width, "italic")
    for line in lines:
        line.rstrip()
    return lines


def _can_show() -> bool:
    try:
        "⣿│".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _wrapped(sentence: str, width: int, style: str) -> list[Text]:
    return [Text(part, style) for part in wrap(sentence, width)]


def _legend(figure: Figure, width: int) -> list[Text]:
    rows = [Text()]
    for line in figure.legend:
        canvas = _Canvas(4, 1)
        canvas.walk([(0, 1), (7, 1)], line.series)
        entry = Text.assemble(canvas.rows()[0], f" {line.name}   ")
        if rows[-1] and len(rows[-1]) + len(entry.plain.rstrip()) > width:
            rows.append(Text())
        entry.truncate(width, overflow="ellipsis")
        rows[-1].append_text(entry)
    return rows


class _Canvas:
    """Dots in characters; a character takes the colour of the last line that crosses it."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.num_rows = columns, rows
        self.bits = [[0] * columns for _ in range(rows)]
        self.signs = [[""] * columns for _ in range(rows)]
        self.styles = [[""] * columns for _ in range(rows)]

    def dot(self, x: int, y: int, series: int) -> None:
        if 0 <= x < 2 * self.columns and 0 <= y < 4 * self.num_rows:
            self.bits[y // 4][x // 2] |= _BITS[y % 4][x % 2]
            self.styles[y // 4][x // 2] = _STYLES[series]

    def walk(self, points: Iterable[tuple[float, float]], series: int) -> None:
        """A line through points in dots; NaN lifts the pen."""
        period, drawn = _DASHES[series]
        count = 0
        before: tuple[float, float] | None = None
        for point in points:
            if not (math.isfinite(point[0]) and math.isfinite(point[1])):
                before = None
                continue
            start = before or point
            length = max(abs(round(point[0]) - round(start[0])), abs(round(point[1]) - round(start[1])), 0)
            for i in range(0 if before is None else 1, length + 1):
                share = i / length if length else 0.0
                if count % period < drawn:
                    self.dot(
                        round(start[0] + share * (point[0] - start[0])),
                        round(start[1] + share * (point[1] - start[1])),
                        series,
                    )
                count += 1
            before = point

    def sign(self, x: int, y: int, sign: str) -> None:
        if 0 <= x < 2 * self.columns and 0 <= y < 4 * self.num_rows:
            self.signs[y // 4][x // 2] = sign

    def rows(self) -> list[Text]:
        lines = []
        for bits, signs, styles in zip(self.bits, self.signs, self.styles, strict=True):
            line = Text()
            for bit, sign, style in zip(bits, signs, styles, strict=True):
                line.append(sign or (chr(0x2800 + bit) if bit else " "), "bold" if sign else style)
            lines.append(line)
        return lines


def _map_height(panel: Panel, width: int) -> int:
    """Rows that give both axes the same scale; a character is about twice as high as wide."""
    window = panel.window
    ratio = (window.top - window.bottom) / (window.right - window.left)
    return max(_HEIGHT - 3, round((width - _LABELS - 1) / 2 * ratio))


def _panel(panel: Panel, width: int, rows: int) -> list[Text]:
    window = panel.window
    columns = width - _LABELS - 1
    canvas = _Canvas(columns, rows)
    bottom, top = _height(panel, window.bottom), _height(panel, window.top)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - window.left) / (window.right - window.left) * (2 * columns - 1)
        down = (top - _height(panel, y)) / (top - bottom) * (4 * rows - 1)
        inside = -1 <= across <= 2 * columns and -1 <= down <= 4 * rows
        return (across, down) if inside else (math.nan, math.nan)

    for line in panel.lines:
        canvas.walk([place(x, y) for x, y in zip(line.x, line.y, strict=True)], line.series)
    for mark in panel.marks:
        x, y = place(mark.x, mark.y)
        canvas.sign(round(x), round(y), "×" if mark.label == "optimum" else "●" if not mark.label else "○")
    rows_drawn = [
        Text(panel.title.center(width), "bold"),
        Text(f"{'':{_LABELS}} {panel.y_title}".ljust(width), "bright_black"),
        *_with_y_axis(panel, canvas.rows()),
        *_x_axis(panel, columns, width),
        Text(" " * width),
    ]
    for row in rows_drawn:
        row.truncate(width, overflow="ellipsis")
    return rows_drawn


def _height(panel: Panel, y: float) -> float:
    if not panel.log_y:
        return y
    return math.log10(y) if y > 0 else -math.inf


def _with_y_axis(panel: Panel, drawn: list[Text]) -> list[Text]:
    window, last = panel.window, len(drawn) - 1
    labels = {0: window.top, last: window.bottom}
    rows = []
    for row, line in enumerate(drawn):
        label = f"{labels[row]:.2g}" if row in labels else ""
        rows.append(Text.assemble((f"{label:>{_LABELS - 1}} {'┤' if label else '│'}", "bright_black"), line))
    return rows


def _x_axis(panel: Panel, columns: int, width: int) -> list[Text]:
    window = panel.window
    left, right = f"{window.left:.4g}", f"{window.right:.4g}"
    room = columns - len(left) - len(right)
    between = shorten(panel.x_title, max(room - 2, 1), placeholder="…").center(room)
    margin = " " * _LABELS
    return [
        Text((margin + "└" + "─" * columns).ljust(width), "bright_black"),
        Text((margin + " " + left + between + right).ljust(width), "bright_black"),
    ]
