"""Schedules as an axis of a comparison: tuned alike, pruned on their own beginning, named wherever a pair is."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import steepest
from steepest.comparison.compare import Comparison
from steepest.comparison.extend import extended
from steepest.comparison.model import _epochs
from steepest.comparison.plan import Cell, Plan, Setting, read_plan
from steepest.comparison.ranking import still_improving
from steepest.report import build

SMALL: dict[str, Any] = {
    "losses": "mse", "optimizers": "sgd,adam", "hidden": (), "max_epochs": 4, "batch_sizes": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def table() -> tuple[Any, Any]:
    random = np.random.default_rng(5)
    x = random.normal(size=(1200, 3))
    return x, x @ [1.0, -2.0, 0.5] + random.normal(size=1200)


@pytest.fixture(scope="module")
def compared(table: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("schedules") / "out"
    return steepest.compare(table, schedules="constant,cosine", warmup=0.1, out=out, **SMALL), out


def test_every_cell_is_tuned_alike(compared: Any) -> None:
    comparison, _ = compared
    cells = {(cell["optimizer"], cell["schedule"], cell["kind"]) for cell in comparison.verdict["cells"]}
    assert len(cells) == 8
    counts = comparison.runs.filter(pl.col("stage") == "tune").group_by("optimizer", "schedule").len()
    assert set(counts["len"]) == {comparison.plan.num_rates * 3}
    assert comparison.verdict["warmup"] == 0.1
    assert "1 loss x 2 optimizers x 1 batch size x 2 schedules" in comparison.plan.in_words()[0]
    assert "It rises at first, over 0.1 of the steps of every run." in comparison.plan.in_words()


def test_the_schedules_differ_in_what_they_come_to(compared: Any) -> None:
    comparison, _ = compared
    runs = comparison.runs.filter(pl.col("stage") == "tune", ~pl.col("diverged"))
    keys = ["optimizer", "lr", "seed"]
    beside = runs.filter(pl.col("schedule") == "constant").join(
        runs.filter(pl.col("schedule") == "cosine"), on=keys
    )
    assert len(beside) > 50
    assert (beside["validation_score"] != beside["validation_score_right"]).all()


def test_the_report_tells_the_schedules_apart(compared: Any) -> None:
    comparison, out = compared
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "batch 32, cosine" in page
    assert "Batch size and schedule" in page
    assert "warm-up over 10% of the steps" in page
    schedule = comparison.verdict["winners"][0]["schedule"]
    command = re.sub("</?span[^>]*>", "", page)
    assert ("--schedule cosine" in command) == (schedule == "cosine")
    assert "--warmup 0.1" in command
    assert "scheduler.step()" in page
    plan = json.loads(comparison.plan.to_json())
    assert "批大小 32，cosine" in build(comparison.verdict, plan, comparison.runs, "zh")


def test_a_winner_under_a_schedule_is_called_so(table: Any) -> None:
    options = SMALL | {"optimizers": "adam"}
    comparison = steepest.compare(table, schedules="linear", **options)
    assert "(batch 32, linear)" in comparison.verdict["sentence"]
    assert "The rate of every run goes by the schedule linear." in comparison.plan.in_words()
    assert comparison.model is not None
    run = comparison.model.record.run
    assert (run.schedule, run.schedule_epochs) == ("linear", None)  # over all that it was trained


def test_more_seeds_repeat_no_run(table: Any, compared: Any, tmp_path: Path) -> None:
    comparison, out = compared
    longer = extended(comparison.plan, losses=None, optimizers=None, more_seeds=1)
    at_once = steepest.compare(table, plan=longer)
    shutil.copytree(out, tmp_path / "more")
    fewer = steepest.compare(table, extend=tmp_path / "more", more_seeds=1)
    assert fewer.verdict["cells"] == at_once.verdict["cells"]


def test_resumed_it_gives_the_same(table: Any, tmp_path: Path) -> None:
    options = SMALL | {"optimizers": "adam", "schedules": "constant,wsd"}
    whole = steepest.compare(table, **options, out=tmp_path / "whole")

    class StopAfter:
        """As Ctrl-C would, in the middle."""

        left = 30

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *given: None

        def run_finished(self, record: Any) -> None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    cut = steepest.compare(table, **options, out=tmp_path / "cut", progress=StopAfter())  # type: ignore[arg-type]
    assert cut.interrupted
    again = steepest.compare(table, resume=tmp_path / "cut")
    verdicts = [{**each.verdict, "seconds": 0} for each in (whole, again)]
    assert verdicts[0] == verdicts[1]


def test_by_default_there_is_a_constant_rate_alone(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()
    assert plan.schedules == ("constant",)
    assert all(cell.schedule == "constant" for cell in plan.cells)
    assert not any("schedule" in sentence for sentence in plan.in_words())


def test_a_plan_of_before_there_were_schedules_is_read(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()
    older = json.loads(plan.to_json())
    del older["schedules"], older["warmup"]
    assert read_plan(older) == plan


def test_a_run_up_to_a_rung_has_the_whole_lengths_schedule(plan_of: Callable[..., Plan]) -> None:
    plan = replace(plan_of(schedules="cosine"), rungs=(0.1, 0.3))
    (first, *_) = plan.cells
    short, whole = (plan.run(Setting(first, 0.1, epochs).on(0)) for epochs in (plan.rung_epochs[0], None))
    assert (short.stop.max_epochs, short.schedule_epochs) == (plan.rung_epochs[0], plan.epochs)
    assert (whole.stop.max_epochs, whole.schedule_epochs) == (plan.epochs, None)


def test_a_cell_is_known_by_its_schedule() -> None:
    assert Cell("mse", "adam", 32).regime == "32"
    assert Cell("mse", "adam", "full", "wsd").regime == "full wsd"


@pytest.mark.parametrize(
    ("scores", "epochs"), [((0.9, 0.8, 0.85), 400), ((1.1,), 97), ((0.9, 0.8, 0.7), 800)]
)
def test_a_schedule_still_improving_is_tried_over_twice_its_length(
    plan_of: Callable[..., Plan], scores: tuple[float, ...], epochs: int
) -> None:
    plan = plan_of(schedules="cosine", max_epochs=100)
    run = plan.run(Setting(plan.cells[0], 0.1).on(0))
    lengths: list[int | None] = []

    class Outcome:
        diverged = False

        def __init__(self, score: float) -> None:
            self.validation_score, self.run = score, run

    class Engine:
        def run_all(self, runs: Any, **options: Any) -> list[Outcome]:
            lengths.append(runs[0].stop.max_epochs)
            assert runs[0].schedule_epochs is None
            return [Outcome(scores[len(lengths) - 1])]

    class Winner:
        epochs_to_best = 97.0
        validation_score, least_on_validation = 1.0, -math.inf

    winner: Any = Winner()
    assert still_improving(plan, winner)
    assert _epochs(plan, Engine(), Outcome(1.0), winner, None) == epochs  # type: ignore[arg-type]
    assert lengths == [200, 400, 800][: len(scores)]
