"""Records as Altair charts, one function a chart. Colours are the page's CSS variables: themes just work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import altair as alt
import vl_convert

from steepest.report.language import say
from steepest.report.scale import ScoreRange

NUM_COLOURS = 8
DASHES: tuple[list[int], ...] = ([1, 0], [6, 3], [2, 2])
X_AXES = ("updates", "examples", "epochs", "seconds")
FONT = (
    '"Inter", "Segoe UI", "Helvetica Neue", Roboto, "Noto Sans", Arial, '
    '"PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif'
)

CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "padding": 2,
    "view": {"stroke": None},
    "axis": {
        "aria": False,
        "domainColor": "var(--line-strong)",
        "gridColor": "var(--line)",
        "tickColor": "var(--line-strong)",
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelPadding": 5,
        "titlePadding": 8,
        "tickSize": 4,
    },
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
    "mark": {"aria": False},
}

_RATE_LABEL = "format(datum.value, datum.value >= 0.001 && datum.value < 10000 ? '~g' : '~e')"
_SCORE_LABEL = (
    "datum.value == 0 ? '0' : abs(datum.value) < 0.00001 || abs(datum.value) >= 10000000"
    " ? format(datum.value, '~e') : datum.label"
)
_AMOUNT_LABEL = "format(datum.value, datum.value >= 1000 ? '~s' : '~g')"


def colour(index: int) -> str:
    """The CSS variable of an optimizer's colour."""
    return f"var(--series-{index % NUM_COLOURS})"


def dash(index: int) -> list[int]:
    """The dash of an optimizer's line: plain until the colours are used up."""
    return DASHES[index // NUM_COLOURS % len(DASHES)]


def rate_chart(
    *, metric: str, span: ScoreRange, rates: tuple[float, float], loss: str, batch: str
) -> dict[str, Any]:
    """One optimizer's score against its learning rate, for one loss and batch size at a time.

    A row is one of three ``kind``s: ``tried`` (``score``, ``low``, ``high``, ``seeds``, ``diverged``),
    ``default`` (the library's rate) and ``chosen`` (the best rate, its ``score``, and ``low`` to ``high``,
    the rates that did as well).
    """
    x = (
        alt.X("lr:Q")
        .scale(type="log", domain=rates, nice=False, domainRaw=alt.ExprRef("shown_x"))
        .axis(
            title=say("learning rate (log scale)"),
            values=_decades(rates),
            labelExpr=_RATE_LABEL,
            labelOverlap=True,
        )
    )
    y = _score_axis("score", metric, span, ticks=4, clamp=True)
    tint, tooltip = alt.expr("tint"), _rate_tooltip()
    inwards = 7 if span.bad_edge == span.high else -7  # half a cross is none
    base = alt.Chart()
    tried = base.transform_filter("datum.kind === 'tried' && isValid(datum.score)")
    layers = [
        base.transform_filter("datum.kind === 'default'")
        .mark_rule(color="var(--muted)", strokeDash=[3, 3], clip=True)
        .encode(x=x),
        base.transform_filter("datum.kind === 'chosen' && isValid(datum.low)")
        .mark_rule(color="var(--ink)", strokeWidth=4, opacity=0.55, clip=True)
        .encode(x=alt.X("low:Q"), x2="high:Q", y=alt.YDatum(span.low)),
        tried.mark_area(color=tint, opacity=0.18, clip=True).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        tried.mark_line(color=tint, strokeWidth=2, clip=True).encode(x=x, y=y),
        tried.mark_point(color=tint, fill=tint, size=26, opacity=1, clip=True).encode(
            x=x, y=y, tooltip=tooltip
        ),
        base.transform_filter("datum.kind === 'tried' && datum.diverged > 0")
        .mark_text(text="×", dy=inwards, fontSize=17, fontWeight="bold", color="var(--warning)", clip=True)
        .encode(x=x, y=alt.YDatum(span.bad_edge), tooltip=tooltip),
        base.transform_filter("datum.kind === 'chosen' && isValid(datum.score)")
        .mark_point(color="var(--ink)", size=130, strokeWidth=2, filled=False, opacity=1, clip=True)
        .encode(x=x, y=y),
    ]
    chart = (
        alt.layer(*layers, data=alt.NamedData(name="rows"))
        .transform_filter("datum.loss === chosen_loss && datum.batch === chosen_batch")
        .add_params(
            alt.param(name="chosen_loss", value=loss),
            alt.param(name="chosen_batch", value=batch),
            alt.param(name="tint", value=colour(0)),
            *_zoom_params(),
        )
    )
    return _finished(chart, height=150)


def curve_chart(
    *, metric: str, span: ScoreRange, optimizers: Sequence[str], batch: str, axes: Sequence[str]
) -> dict[str, Any]:
    """Validation score against training done, a line an optimizer, with a band of one standard error.

    A row is a point: ``optimizer``, ``batch``, ``score``, ``low``, ``high``, ``seeds``, and how far training
    was in ``axes``, some of ``updates``, ``examples``, ``epochs`` and ``seconds``; drawn along the first.
    """
    indices = range(len(optimizers))
    scale = alt.Scale(domain=list(optimizers), range=[colour(index) for index in indices])
    dashes = alt.Scale(domain=list(optimizers), range=[dash(index) for index in indices])
    tint = alt.Color("optimizer:N").scale(scale).legend(None)
    line = alt.StrokeDash("optimizer:N").scale(dashes).legend(None)
    x = (
        alt.X("along:Q")
        .scale(zero=True, nice=False, domainRaw=alt.ExprRef("shown_x"))
        .axis(title=None, tickCount=5, labelExpr=_AMOUNT_LABEL, labelFlush=True, labelOverlap=True)
    )
    y = _score_axis("score", metric, span, ticks=4, clamp=False)
    base = alt.Chart().encode(x=x)
    band = max(0.05, min(0.14, 0.8 / max(1, len(optimizers))))
    layers = [
        base.mark_area(clip=True).encode(
            y=alt.Y("low:Q"),
            y2="high:Q",
            color=tint,
            opacity=_by_focus(0.3, 0, band),
        ),
        base.mark_line(strokeWidth=2, clip=True).encode(
            y=y,
            color=tint,
            strokeDash=line,
            opacity=_by_focus(1, 0.2, 1),
        ),
        base.mark_point(size=90, filled=True, opacity=0, clip=True).encode(y=y, tooltip=_curve_tooltip(axes)),
    ]
    chart = (
        alt.layer(*layers, data=alt.NamedData(name="rows"))
        .transform_filter("datum.batch === chosen_batch && indexof(hidden_optimizers, datum.optimizer) < 0")
        .transform_calculate(along="datum[chosen_axis]")
        .add_params(
            alt.param(name="chosen_batch", value=batch),
            alt.param(name="chosen_axis", value=axes[0]),
            alt.param(name="hidden_optimizers", value=[]),
            alt.param(name="focused_optimizer", value=""),
            *_zoom_params(),
        )
    )
    return _finished(chart, height=260)


def reliability_chart(*, predicted: str, observed: str) -> dict[str, Any]:
    """What came true against what was predicted, a point a bin; on the diagonal the two agree.

    A row is a bin: ``predicted``, ``observed``, ``predictions``, and its ends ``low`` and ``high``.
    """

    def axis(field: str, title: str, channel: Any) -> Any:
        raw = alt.ExprRef("shown_x" if channel is alt.X else "shown_y")
        # Room for whole dots at 0 and at 1, where the largest are.
        scale = {"domain": [-0.04, 1.04], "nice": False, "domainRaw": raw}
        return channel(f"{field}:Q").scale(**scale).axis(title=title, tickCount=5, format=".0%", grid=True)

    x = axis("predicted", predicted, alt.X)
    y = axis("observed", observed, alt.Y)
    base = alt.Chart()
    ideal = alt.Chart(alt.InlineData(values=[{"predicted": at, "observed": at} for at in (0, 1)]))
    size = alt.Size("predictions:Q").scale(type="sqrt", range=[20, 320], domainMin=0).legend(None)
    layers = [
        ideal.mark_line(color="var(--muted)", strokeDash=[4, 4], strokeWidth=1, clip=True).encode(x=x, y=y),
        base.mark_line(color=colour(0), strokeWidth=2, clip=True).encode(x=x, y=y),
        base.mark_point(color=colour(0), fill=colour(0), fillOpacity=0.35, opacity=1, clip=True).encode(
            x=x, y=y, size=size, tooltip=_reliability_tooltip()
        ),
    ]
    chart = alt.layer(*layers, data=alt.NamedData(name="rows")).add_params(*_zoom_params())
    return _finished(chart, height=300)


def panel(
    chart: dict[str, Any], rows: Sequence[dict[str, Any]], description: str, **params: str
) -> dict[str, Any]:
    """A chart with its rows, the words a screen reader says of it, and other values for its parameters."""
    changed = [{**own, "value": params.get(own["name"], own["value"])} for own in chart["params"]]
    return {**chart, "description": description, "params": changed, "data": {"values": list(rows)}}


def static_svg(spec: dict[str, Any], name: str, width: int = 420) -> str:
    """The chart as it first appears, as SVG, for readers without scripts; its ids begin with ``name``."""
    svg = str(vl_convert.vegalite_to_svg({**spec, "width": width}, config=CONFIG))
    # The converter counts ids through the whole process: the same chart would not be the same text.
    for index, identity in enumerate(dict.fromkeys(re.findall(r'id="(clip\d+)"', svg))):
        for use in ('id="{}"', "url(#{})"):
            svg = svg.replace(use.format(identity), use.format(f"{name}-clip-{index}"))
    return svg


def _zoom_params() -> list[alt.Parameter]:
    """The ranges that the axes show while zoomed in; null shows all."""
    return [alt.param(name=name, value=None) for name in ("shown_x", "shown_y")]


def _by_focus(focused: float, others: float, usual: float) -> Any:
    """An opacity that depends on whether this optimizer, another or none is pointed at in the legend."""
    return (
        alt.when("focused_optimizer === datum.optimizer")
        .then(alt.value(focused))
        .when("focused_optimizer !== ''")
        .then(alt.value(others))
        .otherwise(alt.value(usual))
    )


def _score_axis(field: str, metric: str, span: ScoreRange, *, ticks: int, clamp: bool) -> alt.Y:
    return (
        alt.Y(f"{field}:Q")
        .scale(
            domain=[span.low, span.high],
            clamp=clamp,
            zero=False,
            nice=False,
            domainRaw=alt.ExprRef("shown_y"),
        )
        .axis(
            title=metric,
            titleAngle=0,
            titleAlign="left",
            titleAnchor="end",
            titleBaseline="bottom",
            titleX=0,
            titleY=-8,
            tickCount=ticks,
            labelExpr=_SCORE_LABEL,
            grid=True,
        )
    )


# Vega-Lite writes tooltip titles into expressions: they are our own words, never a name from the records.
def _rate_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("lr:Q", title=say("learning rate"), format=".3~g"),
        alt.Tooltip("score:Q", title=say("mean score"), format=".4~g"),
        alt.Tooltip("low:Q", title=say("lowest seed"), format=".4~g"),
        alt.Tooltip("high:Q", title=say("highest seed"), format=".4~g"),
        alt.Tooltip("seeds:Q", title=say("seeds")),
        alt.Tooltip("diverged:Q", title=say("diverged")),
    ]


def _curve_tooltip(axes: Sequence[str]) -> list[alt.Tooltip]:
    along = {
        "updates": (say("updates"), ",.0f"),
        "examples": (say("examples seen"), ",.0f"),
        "epochs": (say("epochs"), ".3~g"),
        "seconds": (say("seconds"), ".3~g"),
    }
    return [
        alt.Tooltip("optimizer:N", title=say("optimizer")),
        alt.Tooltip("score:Q", title=say("mean score"), format=".4~g"),
        *(alt.Tooltip(f"{axis}:Q", title=along[axis][0], format=along[axis][1]) for axis in axes),
        alt.Tooltip("seeds:Q", title=say("seeds")),
    ]


def _reliability_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("predicted:Q", title=say("predicted"), format=".1%"),
        alt.Tooltip("observed:Q", title=say("came true"), format=".1%"),
        alt.Tooltip("predictions:Q", title=say("predictions"), format=",.0f"),
    ]


def _decades(rates: tuple[float, float]) -> list[float]:
    powers = (10.0**power for power in range(-12, 7))
    return [float(f"{power:.0e}") for power in powers if rates[0] <= power <= rates[1]]


def _finished(chart: alt.LayerChart | alt.FacetChart, *, height: int) -> dict[str, Any]:
    """The chart as plain Vega-Lite, as wide as its container."""
    autosize = alt.AutoSizeParams(type="fit-x", contains="padding")
    spec: dict[str, Any] = chart.properties(width="container", height=height, autosize=autosize).to_dict()
    for unused in ("config", "$schema"):
        spec.pop(unused, None)
    return spec
