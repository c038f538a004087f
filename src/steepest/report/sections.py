"""The report's sections as the template takes them: records in, words, rows and charts out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from markupsafe import Markup

from steepest.errors import inert
from steepest.report import charts, summary, tables
from steepest.report.again import fit_command, fit_module_command, trial_code
from steepest.report.language import recorded, say
from steepest.report.plain_torch import arrays_code, training_code
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
from steepest.training.run import OWN

__all__ = [
    "calibration",
    "curves",
    "diagnosis",
    "headline",
    "rates",
    "reasons",
    "standing_and_matrices",
    "tried",
    "use",
]

MAX_CONFIGURATIONS = 1_500
_LONG_SENTENCE = 110  # characters from which the verdict is set a size smaller

Context = dict[str, Any]


def headline(verdict: Context) -> Context:
    """The page's top: quiet facts, the recommended settings, and whether the comparison was interrupted."""
    winners = verdict["winners"]
    written = score_format(cell["score"] for cell in [*winners, *verdict["cells"]])
    sentence = recorded(verdict["sentence"])
    return {
        "facts": [
            (say("Task"), _task_in_words(verdict)),
            (
                say("Judged by"),
                say("{metric}, {direction}", metric=metric_of(verdict), direction=_direction(verdict)),
            ),
            *([(say("Rows"), f"{sum(verdict['num_rows'].values()):,}")] if verdict["num_rows"] else []),
            (say("Runs"), f"{verdict['num_runs']:,}"),
            (say("Time"), duration(verdict["seconds"])),
        ],
        "sentence": sentence,
        "metric": metric_of(verdict),
        "direction": _direction(verdict),
        "choice": _choice(winners[0], verdict, written) if winners else [],
        "num_winners": len(winners),
        "num_winning_pairs": len({(one["loss"], one["optimizer"], one["batch_size"]) for one in winners}),
        "is_interrupted": verdict["status"] == "interrupted",
        "is_long": len(sentence) > _LONG_SENTENCE,
    }


def _task_in_words(verdict: Context) -> str:
    task = say(TASKS[verdict["task"]])
    if _is_a_training(verdict):
        return say("{task}, {name}", task=task, name=verdict["architecture"]["training"])
    return say("{task} of {target}", task=task, target=verdict["target"])


def _direction(verdict: Context) -> str:
    return say("higher is better") if verdict["greater_is_better"] else say("lower is better")


def metric_of(verdict: Context) -> str:
    """What the metric that decides is called."""
    return recorded(str(verdict["metric_title"]))


def _choice(winner: Cell, verdict: Context, written: tables.Written) -> list[tuple[str, str, str]]:
    """The first winner's settings as (name, value, detail)."""
    is_default = winner["kind"] == "default"
    size, _, schedule = str(winner["batch_size"]).partition(" ")
    batch = size if size not in ("full", "1") else tables.batch_words(size)
    rising = verdict.get("warmup") or 0.0
    course = [schedule or "constant"] * bool(schedule or rising)
    warmup = say("warm-up over {share}% of the steps", share=significant(100 * rising)) if rising else ""
    near = _as_good(winner)
    rate_detail = say("the default") if is_default else say("as good: {rates}", rates=near) if near else ""
    return [
        (say("Loss"), str(winner["loss"]), ""),
        (say("Optimizer"), str(winner["optimizer"]), ""),
        (say("Learning rate"), significant(winner["lr"]), rate_detail),
        *((say("Schedule"), name, warmup) for name in course),
        *([] if size == OWN else [(say("Batch"), batch, "")]),
        (metric_of(verdict), written(winner["score"]), between(winner["interval"], written)),
        *_baseline(verdict, written),
    ]


def _baseline(verdict: Context, written: tables.Written) -> list[tuple[str, str, str]]:
    """What needs no model, beside the winner's settings."""
    found = verdict.get("baseline")
    if not found:
        return []
    detail = say("always predicting {what}", what=recorded(found["says"]))
    return [(say("Without a model"), written(found["score"]), detail)]


def standing_and_matrices(verdict: Context) -> Context:
    """The winner set with its intervals, and the two heat maps."""
    cells, winners, greater = verdict["cells"], verdict["winners"], verdict["greater_is_better"]
    written = score_format(cell["score"] for cell in cells)
    span = tables.standing_range(cells, winners, greater)
    first = say("best so far") if verdict["status"] == "interrupted" else say("take this")
    metrics = None  # a training of the user's own has its one score
    if not _is_a_training(verdict):
        metrics = tables.metric_matrix(cells, verdict["metric"], greater, verdict.get("baseline"))
    return {
        "standing": tables.standing(cells, winners, span, written, first),
        "pairs": tables.pair_matrices(cells, greater, written),
        "metrics": metrics,
    }


def rates(verdict: Context, found: list[dict[str, Any]]) -> Context:
    """Score against learning rate: a panel an optimizer, all on the same axes."""
    rows = [row for row in summary.rate_rows(found) if finite(row["lr"])]
    cells = [cell for cell in verdict["cells"] if finite(cell["lr"])]
    losses, batches = sorted({row["loss"] for row in rows}), _batches(rows, "batch_size")
    span = score_range((row["mean"] for row in rows), verdict["greater_is_better"], stretch=4.0)
    domain = rate_range([row["lr"] for row in rows] + [cell["lr"] for cell in cells])
    first = _first_choice(verdict, losses, batches)
    chart = charts.rate_chart(metric=metric_of(verdict), span=span, rates=domain, **first)
    panels = []
    for index, optimizer in enumerate(_optimizers(verdict, rows)):
        own_rows = [row for row in rows if row["optimizer"] == optimizer]
        own_cells = [cell for cell in cells if cell["optimizer"] == optimizer]
        if not own_rows:
            continue
        marks = [_mark_row(cell, own_rows) for cell in own_cells]
        description = say(
            "{metric} against the learning rate of {optimizer}",
            metric=metric_of(verdict),
            optimizer=optimizer,
        )
        spec = charts.panel(
            chart, [*map(_tried_row, own_rows), *marks], description, tint=charts.colour(index)
        )
        notes = [_rate_note(loss, batch, own_cells) for loss in losses for batch in batches]
        panels.append(_panel(f"rate-{index}", optimizer, index, spec) | {"notes": notes})
    has_schedules = any(" " in batch for batch in batches)
    return {
        "panels": panels,
        "losses": losses,
        "batches": batches,
        "first": first,
        "has_schedules": has_schedules,
    }


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


def _mark_row(cell: Cell, tried_rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Where a cell's rate lies on its curve."""
    kind, batch = "default" if cell["kind"] == "default" else "chosen", str(cell["batch_size"])
    row = {"kind": kind, "loss": cell["loss"], "batch": batch, "lr": summary.rounded(cell["lr"])}
    if kind == "default":
        return row
    same = [
        other["mean"]
        for other in tried_rows
        if (other["loss"], other["batch_size"]) == (cell["loss"], batch)
        and summary.same_rate(other["lr"], cell["lr"])
    ]
    low, high = cell["rate_interval"] or (None, None)
    return row | {"score": summary.rounded(next(iter(same), None)), "low": finite(low), "high": finite(high)}


def _rate_note(loss: str, batch: str, cells: Sequence[Cell]) -> dict[str, str]:
    """The words under a panel, for one loss and batch size."""
    same = [cell for cell in cells if (cell["loss"], str(cell["batch_size"])) == (loss, batch)]
    words = []
    for cell in sorted(same, key=lambda cell: cell["kind"] == "default"):
        rate = significant(cell["lr"])
        if cell["kind"] == "default":
            words.append(say("default {rate}", rate=rate))
            continue
        words.append(
            say("best {rate}", rate=rate) if cell["tuned"] else say("best {rate} (not tuned)", rate=rate)
        )
        if near := _as_good(cell):
            words.append(say("as good from {rates}", rates=near))
    return {"loss": loss, "batch": batch, "text": " · ".join(words)}


def _as_good(cell: Cell) -> str:
    """The range of the rates that are as good as the best; nothing where there is no other."""
    rates = cell["rate_interval"] or ()
    return between(rates, significant) if len(set(rates)) > 1 else ""


def curves(verdict: Context, runs: pl.DataFrame) -> Context:
    """Validation score against training done: a panel a loss, a line an optimizer."""
    points, thinned = summary.learning_curves(runs, verdict["cells"])
    optimizers = _optimizers(verdict, points)
    losses, batches = sorted({point["loss"] for point in points}), _batches(points, "batch")
    span = _curve_range(points, verdict["greater_is_better"])
    first = _first_choice(verdict, losses, batches)
    # What a training of the user's own takes for an example is not known, nor its steps by an optimizer that it made.
    axes = [axis for axis in charts.X_AXES if any(point[axis] for point in points)] or charts.X_AXES
    chart = charts.curve_chart(
        metric=metric_of(verdict), span=span, optimizers=optimizers, batch=first["batch"], axes=axes
    )
    panels = []
    for index, loss in enumerate(losses):
        own = [point for point in points if point["loss"] == loss]
        rows = [{key: value for key, value in point.items() if key != "loss"} for point in own]
        description = say(
            "{metric} on validation rows in training with the {loss} loss",
            metric=metric_of(verdict),
            loss=loss,
        )
        panels.append(_panel(f"curve-{index}", loss, index, charts.panel(chart, rows, description)))
    drawn = {point["optimizer"] for point in points}
    legend = [(name, index) for index, name in enumerate(optimizers) if name in drawn]
    return {
        "panels": panels,
        "batches": batches,
        "first": first,
        "legend": legend,
        "axes": axes,
        "thinned": thinned,
    }


def _curve_range(points: Sequence[dict[str, Any]], greater_is_better: bool) -> ScoreRange:
    """From the best band to well beyond where most of training goes on."""
    ends = [point["high" if greater_is_better else "low"] for point in points]
    shown = [(max if greater_is_better else min)(ends)] if ends else []
    return score_range((point["score"] for point in points), greater_is_better, shown=shown, stretch=4.0)


def _panel(name: str, title: str, index: int, spec: dict[str, Any]) -> Context:
    return {
        "id": name,
        "title": title,
        "index": index,
        "spec": spec,
        "svg": Markup(inert(charts.static_svg(spec, name))),
    }


def _optimizers(verdict: Context, rows: Sequence[dict[str, Any]]) -> list[str]:
    """All optimizers in one order, so that each has one colour everywhere."""
    return sorted({row["optimizer"] for row in [*verdict["cells"], *rows]})


def _batches(rows: Sequence[dict[str, Any]], key: str) -> list[str]:
    return sorted({str(row[key]) for row in rows}, key=tables.batch_order)


def _first_choice(verdict: Context, losses: list[str], batches: list[str]) -> dict[str, str]:
    """What the selectors show at first: the winner's loss and batch size."""
    ranked = [*verdict["winners"], *verdict["cells"]]
    own_losses = [cell["loss"] for cell in ranked if cell["loss"] in losses]
    own_batches = [str(cell["batch_size"]) for cell in ranked if str(cell["batch_size"]) in batches]
    return {"loss": next(iter(own_losses + losses), ""), "batch": next(iter(own_batches + batches), "")}


def calibration(verdict: Context) -> Context:
    """How far the winner's probabilities can be believed; nothing where it has none."""
    found = verdict.get("calibration")
    if not found:
        return {}
    of = (
        say("of the class predicted")
        if found["positive"] is None
        else say("of {label}", label=found["positive"])
    )
    rows = [
        {key: summary.rounded(point[key]) for key in ("predicted", "observed", "low", "high")}
        | {"predictions": point["num_predictions"]}
        for point in found["curve"]
    ]
    chart = charts.reliability_chart(
        predicted=say("predicted probability {of}", of=of), observed=say("came true")
    )
    description = say("How often it came true against the predicted probability {of}", of=of)
    return {
        "panel": _panel("calibration-0", "", 0, charts.panel(chart, rows, description)),
        "of": of,
        "points": f"{100 * found['ece']:.1f}",
        "ece": significant(found["ece"]),
        "interval": between(found["interval"], significant),
        "num_bins": found["num_bins"],
        "num_seeds": found["num_seeds"],
    }


def diagnosis(verdict: Context) -> list[dict[str, str]]:
    """What the data looks like to a loss, and whether it mattered."""
    return [
        {
            "name": humanise(str(item["name"])),
            "value": fact(item.get("value")),
            "text": recorded(str(item.get("text") or "")),
            "outcome": recorded(str(item.get("outcome") or "")),
        }
        for item in verdict.get("diagnosis") or []
    ]


def reasons(verdict: Context, plan: Context) -> list[tuple[str, str]]:
    """Why each loss took part; empty where they were named."""
    known = plan.get("loss_reasons") or {}
    took_part = {cell["loss"] for cell in verdict["cells"]}
    return [(str(loss), recorded(str(reason))) for loss, reason in known.items() if loss in took_part]


def tried(verdict: Context, plan: Context, found: list[dict[str, Any]]) -> Context:
    """Every configuration, the plan and the record."""
    written = score_format([row["mean"] for row in found])
    rows = [
        row
        | {
            "score": written(row["mean"]),
            "mean": summary.rounded(row["mean"], 8),
            "rate": significant(row["lr"]),
        }
        for row in found[:MAX_CONFIGURATIONS]
    ]
    return {
        "rows": rows,
        "num_configurations": len(found),
        "plan": _plan_facts(plan, verdict),
        "record": _record_facts(verdict),
        "notes": [recorded(str(note)) for note in verdict.get("notes") or []],
    }


def _plan_facts(plan: Context, verdict: Context) -> list[tuple[str, str]]:
    """The plan's entries as words, those apart that the record or the notes tell already."""
    told_elsewhere = {"left_out", "loss_reasons", "module_sha256", "together"}
    if _is_of_a_module(verdict) or _is_a_training(verdict):
        told_elsewhere |= {"validation", "test"}  # shares that tables are cut by; a module's parts were given
    if _is_a_training(verdict):
        told_elsewhere |= {"asked_task", "num_train_rows", "architecture"}
    facts: list[tuple[str, str]] = []
    for key, value in plan.items():
        if key in verdict or key in told_elsewhere:
            continue
        if isinstance(value, dict):
            facts += [(f"{humanise(key)}: {humanise(str(name))}", fact(own)) for name, own in value.items()]
        else:
            facts.append((humanise(key), fact(value)))
    return facts


def _record_facts(verdict: Context) -> list[tuple[str, str]]:
    rows = [
        say("{number} {part}", number=f"{n:,}", part=say(name)) for name, n in verdict["num_rows"].items()
    ]
    runs, diverged = f"{verdict['num_runs']:,}", f"{verdict['num_diverged']:,}"
    versions = sorted(verdict["versions"].items())
    encoded = (say("Features after encoding"), f"{verdict['num_features']:,}")
    is_a_table = not _is_of_a_module(verdict) and not _is_a_training(verdict)
    return [
        *([(say("Rows"), ", ".join(rows))] if rows else []),
        *([encoded] if is_a_table else []),
        (say("Model"), _model_in_words(verdict["architecture"])),
        (say("Epochs a run, at most"), fact(verdict["epochs"])),
        (say("Runs"), say("{runs}, of which {diverged} diverged", runs=runs, diverged=diverged)),
        (say("Seed"), str(verdict["seed"])),
        (
            say("Text's SHA-256") if _is_a_training(verdict) else say("Data SHA-256"),
            str(verdict["data_sha256"]),
        ),
        *((say("Version of {name}", name=name), str(version)) for name, version in versions),
    ]


def _is_of_a_module(verdict: Context) -> bool:
    return "module" in verdict["architecture"]


def _is_a_training(verdict: Context) -> bool:
    return "training" in verdict["architecture"]


def _model_in_words(architecture: Context) -> str:
    if "training" in architecture:
        return say("your own training, {name}", name=architecture["training"])
    if "module" in architecture:
        return say("your own module, {name}", name=architecture["module"])
    hidden = ", ".join(str(width) for width in architecture["hidden"])
    if not hidden:
        return say("linear model")
    return say(
        "{activation} network, hidden layers of {widths}",
        activation=architecture["activation"],
        widths=hidden,
    )


def _about_model(verdict: Context) -> str | None:
    """What the model was trained on, and what it scores; None where it is one of the comparison's runs."""
    found = verdict.get("model")
    if not found:
        return None
    return say(
        "It was trained on {rows} rows, validation rows among them, for {epochs}{end}. Its {metric} on the test rows "
        "is {score}.",
        rows=f"{found['num_rows']:,}",
        epochs=plural(found["epochs"], "epoch"),
        end=say(", the rate falling to zero over the last fifth") if found.get("schedule") == "wsd" else "",
        metric=metric_of(verdict),
        score=significant(found["test"].get(verdict["metric"])),
    )


def use(verdict: Context, plan: Context, runs: pl.DataFrame) -> dict[str, str | None]:
    """Commands and code that use the model and train it again; nothing where there is no model.

    Args:
        verdict: as it was recorded.
        plan, runs: of the comparison.
    """
    if not verdict["winners"]:
        return {}
    winner = verdict["winners"][0]
    if _is_a_training(verdict):
        return {"trial": trial_code(verdict)}
    if _is_of_a_module(verdict):
        return {
            "python": (
                "from safetensors.torch import load_file\n\nmodel = factory()  # yours\n"
                'model.load_state_dict(load_file("model/model.safetensors"))\nmodel.eval()'
            ),
            "fit_module": fit_module_command(verdict, "MODULE:NAME", "MODULE:PARTS", "DIR"),
        }
    hyper = winner.get("hyperparameters") or summary.hyperparameters(runs, summary.with_regime(winner))
    return {
        "about": _about_model(verdict),
        "predict": "steepest predict model new_rows.csv --out predictions.csv",
        "python": (
            'import steepest\n\nmodel = steepest.load("model")\npredictions = model.predict("new_rows.csv")'
        ),
        "fit": fit_command(verdict, "DATA", "DIR"),
        "arrays": arrays_code(str(verdict["target"]), plan) if "asked_task" in plan else None,
        "torch": training_code(verdict, winner, hyper),
    }
