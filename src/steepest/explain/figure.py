"""A drawing before it is drawn: panels of lines, for the terminal and for pictures alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["BESIDE", "CONTOUR", "Figure", "Line", "Mark", "Panel", "Window", "broken_at_jumps"]

_JUMP = 4.0  # times as far as the curve moves nearby

BESIDE = -1  # what is there for comparison alone
CONTOUR = -2  # ground, not data


@dataclass(frozen=True)
class Line:
    """Points joined in their order; NaN lifts the pen.

    ``series`` counts a figure's lines from 0, or is :data:`BESIDE` or :data:`CONTOUR`.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    series: int = 0


@dataclass(frozen=True)
class Mark:
    """A point of its own, with a word above or below it if it needs one."""

    x: float
    y: float
    label: str = ""
    below: bool = False


@dataclass(frozen=True)
class Window:
    """What part of the plane a panel shows."""

    left: float
    right: float
    bottom: float
    top: float


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    ``window`` defaults to the extent of the series themselves, with 0 for the y axis and with ``x_limits`` in
    the place of theirs if given; whatever lies outside is cut off. ``is_map``: both axes are parameters and
    have the same scale.
    """

    title: str
    x_title: str
    y_title: str
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...] = ()
    log_y: bool = False
    is_map: bool = False
    x_limits: tuple[float, float] | None = None
    given_window: Window | None = None

    @property
    def window(self) -> Window:
        """The part of the plane that is shown."""
        if self.given_window is not None:
            return self.given_window
        own = [line for line in self.lines if line.series >= 0]
        x = self.x_limits or [value for line in own for value in line.x]
        y = [value for line in own for value in line.y if math.isfinite(value)]
        return Window(min(x), max(x), min(0.0, *y), max(0.0, *y))


@dataclass(frozen=True)
class Figure:
    """Panels side by side, and what there is to see in them.

    ``subtitle`` says what a picture needs where it stands without the words of its page.
    """

    title: str
    panels: tuple[Panel, ...]
    subtitle: tuple[str, ...] = ()
    caption: tuple[str, ...] = ()

    @property
    def legend(self) -> tuple[Line, ...]:
        """The first line of every name, in the order of the series, what stands beside them last."""
        firsts: dict[str, Line] = {}
        for panel in self.panels:
            for line in panel.lines:
                if line.series != CONTOUR:
                    firsts.setdefault(line.name, line)
        return tuple(sorted(firsts.values(), key=lambda line: line.series if line.series >= 0 else math.inf))


def broken_at_jumps(x: Sequence[float], y: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The same points with NaN where the curve jumps: by far more than it moves two points before and after.

    A derivative that jumps is then drawn as a jump and not as a steep slope.
    """
    moves = [abs(after - before) for before, after in pairwise(y)]
    xs, ys = [x[0]], [y[0]]
    for i in range(1, len(x)):
        around = max(moves[max(0, i - 3)], moves[min(i + 1, len(moves) - 1)])
        if moves[i - 1] > _JUMP * around + 1e-9:
            xs.append(x[i])
            ys.append(math.nan)
        xs.append(x[i])
        ys.append(y[i])
    return tuple(xs), tuple(ys)
