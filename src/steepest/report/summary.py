"""Runs gathered over their seeds: configurations, rate curves, learning curves. No metric is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from steepest.errors import InputError
from steepest.report.words import Cell, finite
from steepest.training.run import regime

COLUMNS = (
    *("stage", "loss", "optimizer", "batch_size", "lr", "seed", "num_steps", "num_examples", "diverged"),
    *("validation_score", "seconds", "curve_epoch", "curve_step", "curve_validation"),
)
CELL_KEYS = ["loss", "optimizer", "batch_size"]
TUNING_STAGES = ("tune", "finish", "extend")
MAX_CURVE_POINTS = 5_000
RATE_TOLERANCE = 1e-9
# What some engines count on the way; where they do not, the whole run's figure is spread over its steps.
_COUNTED = {"curve_examples": pl.List(pl.Int64), "curve_seconds": pl.List(pl.Float64)}


def check_runs(runs: pl.DataFrame) -> pl.DataFrame:
    """The runs with scores that are finite or null, or an InputError that names what is missing."""
    missing = [name for name in COLUMNS if name not in runs.columns]
    if missing:
        raise InputError(
            f"The table of runs lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            "give the runs.parquet that steepest compare wrote."
        )
    score = pl.col("validation_score").cast(pl.Float64)
    usable = score.is_finite() & ~pl.col("diverged")
    absent = [pl.lit(None, dtype).alias(name) for name, dtype in _COUNTED.items() if name not in runs.columns]
    told = runs.with_columns(
        *absent,
        regimes(runs).alias("batch_size"),
        pl.when(usable).then(score).otherwise(None).alias("validation_score"),
    )
    # In one order, so that sums over them are the same bits in whatever order they came.
    return told.sort(*CELL_KEYS, "lr", "stage", "seed", maintain_order=True)


def regimes(runs: pl.DataFrame) -> pl.Expr:
    """Each run's batch size, and its schedule where its rate does not stay; older records name none."""
    size = pl.col("batch_size").cast(pl.String)
    if "schedule" not in runs.columns:
        return size
    schedule = pl.col("schedule")
    return pl.when(schedule == "constant").then(size).otherwise(size + " " + schedule)


def with_regimes(verdict: dict[str, Any]) -> dict[str, Any]:
    """The verdict, each cell's batch size as :func:`regimes` has it: the report treats the two as one."""

    return {**verdict, **{name: list(map(with_regime, verdict[name])) for name in ("cells", "winners")}}


def with_regime(cell: Cell) -> dict[str, Any]:
    """A cell so."""
    return {**cell, "batch_size": regime(cell["batch_size"], cell.get("schedule", "constant"))}


def configurations(runs: pl.DataFrame, greater_is_better: bool) -> list[dict[str, Any]]:
    """One row a configuration and stage, best mean score first; those with diverged runs follow."""
    keys = [*CELL_KEYS, "lr", "stage"]
    score = pl.col("validation_score")
    gathered = runs.group_by(keys).agg(
        pl.col("seed").n_unique().alias("num_seeds"),
        score.mean().alias("mean"),
        score.min().alias("low"),
        score.max().alias("high"),
        pl.col("diverged").sum().alias("num_diverged"),
    )
    order = [pl.col("num_diverged") > 0, pl.col("mean"), *keys]
    descending = [False, greater_is_better, *[False] * len(keys)]
    return gathered.sort(order, descending=descending, nulls_last=True).to_dicts()


def rate_rows(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The configurations a rate curve goes through: the tuning stages', or all where nothing was tuned."""
    tuning = [row for row in found if row["stage"] in TUNING_STAGES] or list(found)
    order = sorted(tuning, key=lambda row: (*(row[key] for key in CELL_KEYS), row["lr"], row["stage"]))
    by_rate = {tuple(row[key] for key in [*CELL_KEYS, "lr"]): row for row in reversed(order)}
    return [by_rate[key] for key in sorted(by_rate)]


def learning_curves(
    runs: pl.DataFrame, cells: Sequence[Cell]
) -> tuple[list[dict[str, Any]], tuple[int, int] | None]:
    """Points of the mean validation score over seeds at each cell's rate, thinned to a bounded number.

    Returns:
        The points; and, where a curve was thinned, how many points a curve has at most, and had before.
    """
    shown = _cells_with_curves(cells)
    wanted = max(12, min(60, MAX_CURVE_POINTS // max(1, len(shown))))
    longest = 0
    points: list[dict[str, Any]] = []
    for cell in shown:
        curve = _mean_curve(_runs_of(runs, cell))
        names = {"loss": cell["loss"], "optimizer": cell["optimizer"], "batch": str(cell["batch_size"])}
        longest = max(longest, len(curve))
        points += [names | point for point in _thinned(curve, wanted)]
    return points, (wanted, longest) if longest > wanted else None


def _cells_with_curves(cells: Sequence[Cell]) -> list[Cell]:
    """One cell a loss, optimizer and batch size: the tuned one where there is one."""
    chosen: dict[tuple[Any, ...], Cell] = {}
    for cell in sorted(cells, key=lambda cell: cell["kind"] == "default"):
        chosen.setdefault(tuple(str(cell[key]) for key in CELL_KEYS), cell)
    return [chosen[key] for key in sorted(chosen)]


def _runs_of(runs: pl.DataFrame, cell: Cell) -> pl.DataFrame:
    """The runs at a cell's rate, of its last stage (fresh seeds where it was confirmed)."""
    lr = finite(cell["lr"])
    if lr is None:
        return runs.clear()
    same = runs.filter(
        *(pl.col(key) == str(cell[key]) for key in CELL_KEYS),
        (pl.col("lr") - lr).abs() <= RATE_TOLERANCE * lr,
        ~pl.col("diverged"),
    )
    if "options" in runs.columns:  # tuned beyond the rate: the same rate may have been tried with others
        same = same.filter(pl.col("options").fill_null("") == _options_in_words(cell))
    for stage in ("confirm", "default") if cell["kind"] == "tuned" else ("default", "confirm"):
        of_stage = same.filter(pl.col("stage") == stage)
        if of_stage.height:
            return of_stage
    return same


def _options_in_words(cell: Cell) -> str:
    """A cell's options as the runs have them."""
    given = {**(cell.get("loss_options") or {}), **(cell.get("optimizer_options") or {})}
    return ", ".join(f"{name}={value:g}" for name, value in given.items())


def hyperparameters(runs: pl.DataFrame, cell: Cell) -> dict[str, float]:
    """What was read back from the runs at a cell's rate, by name."""
    own = _runs_of(runs, cell).head(1).to_dicts()
    values = {
        name.removeprefix("hyper_"): value for row in own for name, value in row.items() if "hyper_" in name
    }
    return {name: value for name, value in values.items() if value is not None}


def _mean_curve(runs: pl.DataFrame) -> list[dict[str, Any]]:
    """Mean score, and one standard error about it, at each evaluation that half of the seeds reached."""
    if not runs.height:
        return []
    score = pl.col("curve_validation")
    steps = pl.col("curve_step")
    a_step = pl.col("num_steps").clip(lower_bound=1)
    exploded = (
        runs.with_columns(pl.int_ranges(pl.col("curve_step").list.len()).alias("evaluation"))
        .explode(["evaluation", "curve_epoch", "curve_step", "curve_validation"])
        .filter(score.is_finite())
    )
    gathered = exploded.group_by("evaluation").agg(
        pl.col("curve_epoch").mean().alias("epochs"),
        steps.mean().alias("updates"),
        _counted("curve_examples", steps * pl.col("num_examples") / a_step).mean().alias("examples"),
        _counted("curve_seconds", steps * pl.col("seconds") / a_step).mean().alias("seconds"),
        score.mean().alias("score"),
        (score.mean() - _standard_error(score)).alias("low"),
        (score.mean() + _standard_error(score)).alias("high"),
        pl.len().alias("seeds"),
    )
    enough = gathered.filter(pl.col("seeds") * 2 >= runs.height).sort("evaluation").drop("evaluation")
    return [{key: rounded(value) for key, value in row.items()} for row in enough.to_dicts()]


def _counted(name: str, spread: pl.Expr) -> pl.Expr:
    return pl.coalesce(pl.col(name).list.get(pl.col("evaluation"), null_on_oob=True), spread)


def _standard_error(score: pl.Expr) -> pl.Expr:
    """Of the mean; 0 where there is one seed."""
    return score.std().fill_null(0.0) / pl.len().sqrt()


def _thinned(points: list[dict[str, Any]], wanted: int) -> list[dict[str, Any]]:
    """At most ``wanted`` points: half of them evenly spaced, half closer to the start, where curves bend."""
    if len(points) <= wanted:
        return points
    last = len(points) - 1
    even = np.linspace(0, last, wanted // 2)
    early = np.geomspace(1, last + 1, wanted - wanted // 2) - 1
    return [points[index] for index in sorted({round(float(place)) for place in (*even, *early)})]


def same_rate(one: float, other: float) -> bool:
    """Whether two learning rates are one, rounding apart."""
    return abs(one - other) <= RATE_TOLERANCE * other


def rounded(value: Any, digits: int = 5) -> Any:
    """A float to so many significant digits, so that it takes few characters in the file."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
