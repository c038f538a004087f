"""Figures as pictures: SVG and PNG through Altair, drawn offline; and the page that holds one."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steepest.errors import InputError
from steepest.explain.figure import BESIDE, CONTOUR, Figure, Line, Panel, Window
from steepest.files import write_file

__all__ = ["save", "svg"]

_WIDTH, _HEIGHT = 380, 260
_SCALE = 2  # pixels of a PNG a point
_COLOURS = ("#1f5fbf", "#d1495b", "#2a8c6b")
_GREY, _GROUND, _INK = "#7b8591", "#d5dae0", "#1f2933"
_FONT = '"Inter", "Segoe UI", "Helvetica Neue", Roboto, "Noto Sans", Arial, sans-serif'
_BESIDE_DASH = [5, 4]
_MANY = 1000  # points from which a line is drawn thin


def save(path: str | os.PathLike[str], figure: Callable[[], Figure], page: Callable[[], str]) -> None:
    """Write what ``figure`` gives as ``.png`` or ``.svg``, or what ``page`` gives as ``.html``.

    Raises:
        InputError: another suffix, or a place where no file can be written.
    """
    place = Path(path)
    makers: dict[str, Callable[[], bytes]] = {
        ".png": lambda: png(figure()),
        ".svg": lambda: svg(figure()).encode(),
        ".html": lambda: page().encode(),
    }
    suffix = place.suffix.lower()
    if suffix not in makers:
        found = f"ends in {place.suffix!r}" if place.suffix else "has no suffix"
        raise InputError(f"The drawing {str(place)!r} {found}; it is saved as .png, .svg or .html.")
    if not place.absolute().parent.is_dir():
        raise InputError(
            f"The drawing {str(place)!r} cannot be written: there is no folder {str(place.parent)!r}."
        )
    write_file(place, makers[suffix](), "The drawing {path}")


def svg(figure: Figure) -> str:
    """The figure as SVG, complete in itself."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(specification(figure)))


def png(figure: Figure) -> bytes:
    """The figure as PNG."""
    import vl_convert

    return bytes(vl_convert.vegalite_to_png(specification(figure), scale=_SCALE))


def specification(figure: Figure) -> dict[str, Any]:
    """The figure as Vega-Lite."""
    import altair as alt

    names = [line.name for line in figure.legend]
    colours = [_GREY if line.series == BESIDE else _COLOURS[line.series] for line in figure.legend]
    dashes = [_BESIDE_DASH if line.series == BESIDE else [1, 0] for line in figure.legend]
    colour = alt.Color("name:N").scale(domain=names, range=colours).legend(alt.Legend(title=None))
    dash = alt.StrokeDash("name:N").scale(domain=names, range=dashes).legend(alt.Legend(title=None))
    height = max((_map_height(panel.window) for panel in figure.panels if panel.is_map), default=_HEIGHT)
    data: dict[str, list[dict[str, Any]]] = {}
    panels = [_panel(panel, height, colour, dash, data) for panel in figure.panels]
    chart = alt.hconcat(*panels, spacing=84, bounds="flush").properties(
        title=alt.TitleParams(
            figure.title, subtitle=[*figure.subtitle, *figure.caption], anchor="start", offset=14
        )
    )
    spec: dict[str, Any] = chart.configure(**_config()).to_dict()
    spec["datasets"] = data  # joined last, so that nothing copies or checks the rows
    return spec


def _config() -> dict[str, Any]:
    text = {"labelColor": _INK, "titleColor": _INK, "labelFontSize": 11, "titleFontSize": 12}
    return {
        "background": "white",
        "font": _FONT,
        "padding": 16,
        "view": {"stroke": None},
        "title": {
            "color": _INK,
            "fontSize": 15,
            "subtitleColor": _GREY,
            "subtitleFontSize": 12,
            "subtitlePadding": 6,
            "subtitleLineHeight": 17,
        },
        "axis": {
            **text,
            "titleFontWeight": "normal",
            "domainColor": _GREY,
            "tickColor": _GREY,
            "gridColor": "#edf0f3",
        },
        "legend": {
            "orient": "bottom",
            "labelFontSize": 12,
            "labelColor": _INK,
            "labelLimit": 300,
            "symbolType": "stroke",
            "symbolStrokeWidth": 2.5,
            "symbolSize": 300,
            "columnPadding": 24,
            "offset": 10,
        },
    }


def _panel(panel: Panel, height: int, colour: Any, dash: Any, data: dict[str, list[dict[str, Any]]]) -> Any:
    import altair as alt

    def holding(rows: list[dict[str, Any]]) -> Any:
        name = f"rows_{len(data)}"
        data[name] = rows
        return alt.Chart(alt.NamedData(name=name))

    window = _roomy(panel)
    x = alt.X("x:Q", title=panel.x_title).scale(domain=[window.left, window.right], nice=False, zero=False)
    y = alt.Y("y:Q", title=panel.y_title).scale(
        domain=[window.bottom, window.top], nice=False, zero=False, type="log" if panel.log_y else "linear"
    )
    if panel.log_y:
        y = y.axis(values=_decades(window.bottom, window.top), format="~g")
    if panel.is_map:
        x, y = x.axis(grid=False), y.axis(grid=False)
    layers = []
    ground = [line for line in panel.lines if line.series == CONTOUR]
    if ground:
        drawn = holding(_rows(ground)).mark_line(color=_GROUND, strokeWidth=1, clip=True)
        layers.append(drawn.encode(x=x, y=y, order="i:Q", detail="line:N"))
    for line in panel.lines:
        if line.series != CONTOUR:
            thin = panel.is_map or line.series == BESIDE or len(line.x) > _MANY
            mark = holding(_rows([line])).mark_line(
                strokeWidth=1.3 if thin else 2, strokeJoin="round", clip=True
            )
            layers.append(mark.encode(x=x, y=y, order="i:Q", color=colour, strokeDash=dash))
    if panel.marks:
        layers += _marks(holding([asdict(mark) for mark in panel.marks]), x, y)
    # A title as text, since a title proper moves with what the panel holds.
    title = holding([{"title": panel.title}]).mark_text(
        align="left", fontSize=13, fontWeight="bold", color=_INK
    )
    layers.append(title.encode(x=alt.value(0), y=alt.value(-16), text="title:N"))
    return alt.layer(*layers).properties(width=_WIDTH, height=height)


def _map_height(window: Window) -> int:
    """The height that gives both axes the same scale."""
    return round(_WIDTH * (window.top - window.bottom) / (window.right - window.left))


def _roomy(panel: Panel) -> Window:
    """The window with room for the width of a line at its edges."""
    window = panel.window
    if panel.is_map:
        return window
    if panel.log_y:
        return Window(window.left, window.right, window.bottom, window.top * 1.05)
    x, y = 0.01 * (window.right - window.left), 0.02 * (window.top - window.bottom)
    return Window(window.left - x, window.right + x, window.bottom - y, window.top + y)


def _marks(base: Any, x: Any, y: Any) -> list[Any]:
    import altair as alt

    layers = [base.mark_point(color=_INK, fill=_INK, size=32, opacity=1).encode(x=x, y=y)]
    for below, offset in ((False, -13), (True, 15)):
        words = base.transform_filter(alt.datum.below == below).encode(x=x, y=y, text="label:N")
        style: dict[str, Any] = {"dy": offset, "fontSize": 12, "fontWeight": "bold", "clip": True}
        layers.append(words.mark_text(stroke="white", strokeWidth=4, strokeJoin="round", **style))  # a halo
        layers.append(words.mark_text(color=_INK, **style))
    return layers


def _rows(lines: list[Line]) -> list[dict[str, Any]]:
    return [
        {
            "name": line.name,
            "line": number,
            "i": i,
            "x": x if math.isfinite(x) else None,
            "y": y if math.isfinite(y) else None,
        }
        for number, line in enumerate(lines)
        for i, (x, y) in enumerate(zip(line.x, line.y, strict=True))
    ]


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    return [10.0**power for power in powers]
