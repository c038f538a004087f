"""Two comparisons side by side: what both found of each pair, and what differed in the question."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from steepest.comparison.records import options_in_words
from steepest.comparison.statistics import difference_intervals
from steepest.files import write_file
from steepest.report import beside as page
from steepest.report.build import read_records, telling_of_records
from steepest.report.summary import regimes
from steepest.training.run import regime

__all__ = ["set_beside", "write"]

Records = tuple[dict[str, Any], dict[str, Any], pl.DataFrame]  # verdict, plan, runs
Key = tuple[str, str, str, str]  # loss, optimizer, batch size and schedule, kind

# With all of these alike, both were judged by one metric on the same test rows.
_SAME_TEST_ROWS = ("data_sha256", "task", "target", "metric", "seed", "validation", "test", "group", "time")
# Of the plan, what is said in other words or follows from the rest.
_NOT_SAID = {"format", "rates", "default_rates", "num_train_rows", "asked_task"}


def write(one: Path, other: Path, path: Path) -> Path:
    """Write a page that opens offline, whole or not at all.

    Args:
        one: a directory that a comparison wrote.
        other: another.
        path: the page's.

    Raises:
        InputError: a record is missing or unreadable, or the page cannot be written.
    """
    records = read_records(one), read_records(other)
    with telling_of_records(one, other):
        text = page.build((str(one), str(other)), set_beside(*records))
    write_file(path, text.encode("utf-8", "replace"), "The page {path}")
    return path


def set_beside(one: Records, other: Records) -> dict[str, Any]:
    """What a page about both needs: the verdicts, the pairs of both or of one, and what differed.

    A difference is the other's score less the first's, seed by seed, over the seeds that both confirmed all shared
    pairs on; its interval holds with 95% for all pairs together. There is none where the test rows or the metric
    were not the same.
    """
    verdicts, plans = (one[0], other[0]), (one[1], other[1])
    cells = [{_key(cell): cell for cell in verdict["cells"]} for verdict in verdicts]
    winners = [{_key(cell) for cell in verdict["winners"]} for verdict in verdicts]
    both = [key for key in cells[0] if key in cells[1]]
    unlike = [name for name in _SAME_TEST_ROWS if plans[0].get(name) != plans[1].get(name)]
    known, seeds = ({}, []) if unlike else _differences(both, (one, other))
    return {
        "verdicts": verdicts,
        "pairs": [
            {
                "key": key,
                "cells": tuple(side[key] for side in cells),
                "wins": tuple(key in side for side in winners),
                "difference": known.get(key),
            }
            for key in both
        ],
        "alone": [
            [{"key": key, "cell": cell, "wins": key in won} for key, cell in side.items() if key not in both]
            for side, won in zip(cells, winners, strict=True)
        ],
        "unlike_test": unlike,
        "num_seeds": len(seeds),
        "question": _question(verdicts, plans),
    }


def _key(cell: Mapping[str, Any]) -> Key:
    schedule = cell.get("schedule", "constant")
    return (cell["loss"], cell["optimizer"], regime(cell["batch_size"], schedule), cell["kind"])


def _differences(
    both: list[Key], sides: tuple[Records, Records]
) -> tuple[dict[Key, tuple[float, float, float]], list[int]]:
    """Mean and interval of each pair's difference, and the seeds they are over."""
    scores = {key: tuple(_scores(side, key) for side in sides) for key in both}
    racing = {key: found for key, found in scores.items() if all(found)}
    runs_of = [set(side) for found in racing.values() for side in found]
    seeds = sorted(set.intersection(*runs_of)) if runs_of else []
    if len(seeds) < 2:
        return {}, []
    differences: NDArray[np.float64] = np.array(
        [[other[seed] - one[seed] for seed in seeds] for one, other in racing.values()]
    )
    intervals = difference_intervals(differences, np.random.default_rng(0))
    return {
        key: (float(row.mean()), float(low), float(high))
        for key, row, (low, high) in zip(racing, differences, intervals, strict=True)
    }, seeds


def _scores(side: Records, key: Key) -> dict[int, float]:
    """A pair's score on the test rows by seed; none where it is barred, for then a run of it failed."""
    verdict, plan, runs = side
    cell = next(cell for cell in verdict["cells"] if _key(cell) == key)
    if cell["barred"] is not None and "diverged" in cell["barred"]:
        return {}
    score = f"test_{verdict['metric']}"
    options = options_in_words(
        [*cell.get("loss_options", {}).items(), *cell.get("optimizer_options", {}).items()]
    )
    if "options" in runs.columns:
        runs = runs.filter(pl.col("options") == options)
    rows = runs.filter(
        pl.col("loss") == key[0],
        pl.col("optimizer") == key[1],
        regimes(runs) == key[2],
        pl.col("lr") == cell["lr"],
        pl.col("seed").is_in(plan["confirmation_seeds"]),
        pl.col(score).is_not_null(),
    )
    return dict(rows.select("seed", score).rows())


def _question(
    verdicts: tuple[dict[str, Any], dict[str, Any]], plans: tuple[dict[str, Any], dict[str, Any]]
) -> list[tuple[str, Any, Any]]:
    """What was asked, entry by entry, of the one and of the other; the alike among it."""
    asked = [_asked(verdict, plan) for verdict, plan in zip(verdicts, plans, strict=True)]
    return [(name, asked[0].get(name), asked[1].get(name)) for name in dict.fromkeys([*asked[0], *asked[1]])]


def _asked(verdict: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in plan.items() if name not in _NOT_SAID | {"architecture"}}
    rates = {f"rates of {name}": values for name, values in plan["rates"].items()}
    rows = {f"{name} rows": count for name, count in verdict["num_rows"].items()}
    version = {f"version of {name}": value for name, value in verdict["versions"].items()}
    return said | dict(verdict["architecture"]) | rows | rates | version | {"status": verdict["status"]}
