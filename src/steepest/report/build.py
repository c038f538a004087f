"""Put the report together: records in, one HTML file out that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
import vl_convert
from markupsafe import Markup

from steepest.errors import InputError
from steepest.report import charts, summary, tables
from steepest.report.scale import ScoreRange, rate_range, score_range
from steepest.report.words import (
    TASKS,
    Cell,
    between,
    duration,
    fact,
    finite,
    humanise,
    plural,
    score_format,
    significant,
)

MAX_CONFIGURATIONS = 1_500
VERDICT_FORMAT = 1
_FILES = files("steepest.report")


def write(directory: Path) -> Path:
    """Write ``report.html`` into a comparison's directory from the records that lie there.

    Args:
        directory: holds ``verdict.json``, ``plan.json`` and ``runs.parquet``.

    Returns:
        The report's path. The file appears whole or not at all.

    Raises:
        InputError: a record is missing or unreadable.
    """
    directory = Path(directory)
    page = build(_read_json(directory / "verdict.json"), _read_json(directory / "plan.json"), _read_runs(directory))
    path = directory / "report.html"
    handle, name = tempfile.mkstemp(prefix=".report-", suffix=".html", dir=directory)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(page)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def build(verdict: dict[str, Any], plan: dict[str, Any], runs: pl.DataFrame) -> str:
    """The report as HTML text: the same records give the same text.

    Args:
        verdict: what ``verdict.json`` holds.
        plan: what ``plan.json`` holds; its plain facts are listed.
        runs: what ``runs.parquet`` holds, a row a run.

    Raises:
        InputError: the verdict is of an unknown format, or a column of the runs is missing.
    """
    if verdict.get("format") != VERDICT_FORMAT:
        raise InputError(
            f"the verdict has format {verdict.get('format')!r}, but this version of steepest reads format "
            f"{VERDICT_FORMAT}; make the report with the version that made the comparison"
        )
    runs = summary.check_runs(runs)
    found = summary.configurations(runs, verdict["greater_is_better"])
    rates = _rate_section(verdict, found)
    curves = _curve_section(verdict, runs)
    data = {"config": charts.CONFIG, "specs": {panel["id"]: panel["spec"] for panel in rates["panels"] + curves["panels"]}}
    engine, script = _chart_engine(), _resource("script.js")
    return _environment().get_template("template.html.j2").render(
        policy=_policy(engine, script),
        style=Markup(_resource("style.css")),
        engine=Markup(engine),
        script=Markup(script),
        chart_data=Markup(_embedded_json(data)),
        verdict=verdict,
        **_headline(verdict),
        **_matrix_sections(verdict),
        rates=rates,
        curves=curves,
        diagnosis=[_diagnosis(item) for item in verdict.get("diagnosis") or []],
        tried=_tried_section(verdict, plan, found),
        use=_use_section(verdict),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; give the directory that steepest compare wrote with --out") from None
    except ValueError as error:
        raise InputError(f"{path} is not readable as JSON ({error}); it may have been cut short") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a JSON {type(content).__name__}, but a JSON object was expected")
    return content


def _read_runs(directory: Path) -> pl.DataFrame:
    path = directory / "runs.parquet"
    if not path.is_file():
        raise InputError(f"{path} is missing; give the directory that steepest compare wrote with --out")
    try:
        return pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path} is not readable as Parquet ({error}); it may have been cut short") from None


def _headline(verdict: dict[str, Any]) -> dict[str, Any]:
    """The page's top: quiet facts, the recommended settings, and what an interruption left."""
    cells = verdict["cells"]
    written = score_format(cell["score"] for cell in [*verdict["winners"], *cells])
    rows = verdict["num_rows"]
    winners = verdict["winners"]
    return {
        "facts": [
            ("Task", f"{TASKS.get(verdict['task'], verdict['task'])} of {verdict['target']}"),
            ("Judged by", f"{verdict['metric_title']}, {_direction(verdict)}"),
            ("Rows", f"{sum(rows.values()):,}"),
            ("Runs", f"{verdict['num_runs']:,}"),
            ("Time", duration(verdict["seconds"])),
        ],
        "direction": _direction(verdict),
        "choice": _choice(winners[0], verdict, written) if winners else [],
        "num_winners": len(winners),
        "is_interrupted": verdict["status"] == "interrupted",
    }


def _choice(winner: Cell, verdict: dict[str, Any], written: tables.Written) -> list[tuple[str, str, str]]:
    interval = between(*winner["interval"], written)
    near = between(*winner["rate_interval"], significant) if winner.get("rate_interval") else ""
    return [
        ("Loss", str(winner["loss"]), ""),
        ("Optimizer", str(winner["optimizer"]), ""),
        ("Learning rate", significant(winner["lr"]), f"as good: {near}" if near else ""),
        ("Batch", tables.batch_words(winner["batch_size"]).removeprefix("batch "), ""),
        (verdict["metric_title"], written(winner["score"]), interval),
    ]


def _direction(verdict: dict[str, Any]) -> str:
    return "higher is better" if verdict["greater_is_better"] else "lower is better"


def _matrix_sections(verdict: dict[str, Any]) -> dict[str, Any]:
    cells, winners = verdict["cells"], verdict["winners"]
    written = score_format(cell["score"] for cell in cells)
    span = tables.scores_range(cells, winners, verdict["greater_is_better"])
    return {
        "standing": tables.standing(cells, winners, span, written),
        "pairs": tables.pair_matrices(cells, span, written),
        "metrics": tables.metric_matrix(cells, verdict["metric"]),
    }


def _rate_section(verdict: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, Any]:
    """A panel an optimizer, all on the same axes."""
    rows = [row for row in summary.rate_rows(found) if finite(row["lr"])]
    optimizers = _optimizers(verdict, rows)
    cells = [cell for cell in verdict["cells"] if finite(cell["lr"])]
    losses = sorted({row["loss"] for row in rows})
    batches = _batches(rows)
    span = score_range((row["mean"] for row in rows), verdict["greater_is_better"])
    rates = rate_range([row["lr"] for row in rows] + [cell["lr"] for cell in cells])
    first = _first_choice(verdict, losses, batches)
    panels = []
    for index, optimizer in enumerate(optimizers):
        own = [row for row in rows if row["optimizer"] == optimizer]
        own_cells = [cell for cell in cells if cell["optimizer"] == optimizer]
        if not own:
            continue
        spec = charts.rate_panel(
            [*map(_tried_row, own), *(_mark_row(cell, own) for cell in own_cells)],
            description=f"{verdict['metric_title']} against the learning rate of {optimizer}",
            metric=verdict["metric_title"],
            span=span,
            rates=rates,
            colour_index=index,
            **first,
        )
        notes = [_rate_note(loss, batch, own_cells) for loss in losses for batch in batches]
        panels.append(_panel(f"rate-{index}", optimizer, index, spec) | {"notes": notes})
    return {"panels": panels, "losses": losses, "batches": batches, "first": first}


def _tried_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "tried",
        "loss": row["loss"],
        "batch": row["batch_size"],
        "lr": summary.rounded(row["lr"]),
        "score": summary.rounded(row["mean"]),
        "low": summary.rounded(row["low"]),
        "high": summary.rounded(row["high"]),
        "seeds": row["num_seeds"],
        "diverged": row["num_diverged"],
    }


def _mark_row(cell: Cell, tried: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Where a cell's rate lies on its curve."""
    row = {
        "kind": "default" if cell["kind"] == "default" else "chosen",
        "loss": cell["loss"],
        "batch": str(cell["batch_size"]),
        "lr": summary.rounded(cell["lr"]),
    }
    if row["kind"] == "default":
        return row
    same = (
        other["mean"]
        for other in tried
        if other["loss"] == cell["loss"]
        and other["batch_size"] == row["batch"]
        and abs(other["lr"] - cell["lr"]) <= 1e-9 * cell["lr"]
    )
    low, high = cell.get("rate_interval") or (None, None)
    return row | {"score": summary.rounded(next(same, None)), "low": finite(low), "high": finite(high)}


def _rate_note(loss: str, batch: str, cells: Sequence[Cell]) -> dict[str, str]:
    """The words under a panel, for one loss and batch size."""
    same = [cell for cell in cells if cell["loss"] == loss and str(cell["batch_size"]) == batch]
    words = []
    for cell in sorted(same, key=lambda cell: cell["kind"] == "default"):
        rate = significant(cell["lr"])
        if cell["kind"] == "default":
            words.append(f"default {rate}")
            continue
        words.append(f"best {rate}" + ("" if cell["tuned"] else " (not tuned)"))
        low, high = cell.get("rate_interval") or (None, None)
        if finite(low) is not None and low != high:
            words.append(f"as good from {between(low, high, significant)}")
    return {"loss": loss, "batch": batch, "text": " · ".join(words)}


def _curve_section(verdict: dict[str, Any], runs: pl.DataFrame) -> dict[str, Any]:
    """A panel a loss, a line an optimizer."""
    points = summary.learning_curves(runs, verdict["cells"])
    for point in points:
        point["batch"] = str(point.pop("batch_size"))
    optimizers = _optimizers(verdict, summary_rows=points)
    batches = _batches(points, key="batch")
    losses = sorted({point["loss"] for point in points})
    span = _curve_range(points, verdict["greater_is_better"])
    first = _first_choice(verdict, losses, batches)
    panels = []
    for index, loss in enumerate(losses):
        own = [{key: point[key] for key in point if key != "loss"} for point in points if point["loss"] == loss]
        spec = charts.curve_panel(
            own,
            description=f"{verdict['metric_title']} on validation rows during training with the {loss} loss",
            metric=verdict["metric_title"],
            span=span,
            optimizers=optimizers,
            batch=first["batch"],
        )
        panels.append(_panel(f"curve-{index}", loss, index, spec))
    drawn = {point["optimizer"] for point in points}
    legend = [(name, index) for index, name in enumerate(optimizers) if name in drawn]
    return {"panels": panels, "batches": batches, "first": first, "legend": legend, "axes": charts.X_AXES}


def _curve_range(points: Sequence[dict[str, Any]], greater_is_better: bool) -> ScoreRange:
    """From the best seed to well above where most of training goes on."""
    best_seeds = [point["high" if greater_is_better else "low"] for point in points]
    shown = [(max if greater_is_better else min)(best_seeds)] if best_seeds else []
    return score_range((point["score"] for point in points), greater_is_better, shown=shown, stretch=4.0)


def _panel(name: str, title: str, index: int, spec: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "title": title, "index": index, "spec": spec, "svg": Markup(charts.static_svg(spec))}


def _optimizers(verdict: dict[str, Any], summary_rows: Sequence[dict[str, Any]]) -> list[str]:
    """All optimizers in one order, so that each has one colour everywhere."""
    return sorted({row["optimizer"] for row in [*verdict["cells"], *summary_rows]})


def _batches(rows: Sequence[dict[str, Any]], key: str = "batch_size") -> list[str]:
    return sorted({str(row[key]) for row in rows}, key=lambda name: (not name.isdigit(), name.zfill(12)))


def _first_choice(verdict: dict[str, Any], losses: list[str], batches: list[str]) -> dict[str, str]:
    """What the selectors show at first: the winner's loss and batch size."""
    ranked = [*verdict["winners"], *verdict["cells"]]
    loss = next((cell["loss"] for cell in ranked if cell["loss"] in losses), "")
    batch = next((str(cell["batch_size"]) for cell in ranked if str(cell["batch_size"]) in batches), "")
    return {"loss": loss or (losses[0] if losses else ""), "batch": batch or (batches[0] if batches else "")}


def _diagnosis(item: dict[str, Any]) -> dict[str, str]:
    return {"name": humanise(str(item["name"])), "value": fact(item.get("value")), "text": str(item.get("text") or "")}


def _tried_section(verdict: dict[str, Any], plan: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, Any]:
    written = score_format([row["mean"] for row in found])
    shown = [{**row, "score": written(row["mean"]), "rate": significant(row["lr"])} for row in found[:MAX_CONFIGURATIONS]]
    return {
        "rows": shown,
        "num_configurations": len(found),
        "plan": _plan_facts(plan),
        "record": _record_facts(verdict),
        "notes": [str(note) for note in verdict.get("notes") or []],
    }


def _plan_facts(plan: dict[str, Any]) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    for key, value in plan.items():
        if key == "format":
            continue
        if isinstance(value, dict):
            facts += [(f"{humanise(key)}: {humanise(str(name))}", fact(inner)) for name, inner in value.items()]
        else:
            facts.append((humanise(key), fact(value)))
    return facts


def _record_facts(verdict: dict[str, Any]) -> list[tuple[str, str]]:
    rows, shape = verdict["num_rows"], verdict["architecture"]
    hidden = " and ".join(str(width) for width in shape["hidden"])
    facts = [
        ("Rows", ", ".join(f"{number:,} {name}" for name, number in rows.items())),
        ("Features after encoding", f"{verdict['num_features']:,}"),
        ("Model", f"{shape['activation']} network, hidden layers of {hidden}" if hidden else "linear model"),
        ("Epochs a run, at most", fact(verdict["epochs"])),
        ("Runs", f"{verdict['num_runs']:,}, of which {verdict['num_diverged']:,} diverged"),
        ("Seed", str(verdict["seed"])),
        ("Data SHA-256", str(verdict["data_sha256"])),
    ]
    return facts + [(f"Version of {name}", str(version)) for name, version in sorted(verdict["versions"].items())]


def _use_section(verdict: dict[str, Any]) -> dict[str, str]:
    if not verdict["winners"]:
        return {}
    winner = verdict["winners"][0]
    words = ["steepest", "fit", "DATA", "--target", str(verdict["target"]), "--loss", str(winner["loss"])]
    words += ["--optimizer", str(winner["optimizer"]), "--lr", repr(winner["lr"])]
    words += ["--batch-size", str(winner["batch_size"]), "--out", "DIR"]
    return {
        "predict": "steepest predict model new_rows.csv --out predictions.csv",
        "python": 'import steepest\n\nmodel = steepest.load("model")\npredictions = model.predict("new_rows.csv")',
        "fit": shlex.join(words),
    }


def _embedded_json(data: Any) -> str:
    """JSON that can stand inside a script element whatever its strings hold."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(*scripts: str) -> str:
    """A content security policy: no request at all, and no script but these."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _chart_engine() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    return str(vl_convert.javascript_bundle())


def _resource(name: str) -> str:
    return _FILES.joinpath(name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["batch"] = tables.batch_words
    environment.filters["plural"] = plural
    return environment


