"""Tuning: equal, paired, extended at the edge, and honest about divergence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

import steepest
from steepest.comparison.plan import POINTS_PER_DECADE, Cell, Plan, Setting, rate_grids
from steepest.comparison.trials import Trials
from steepest.comparison.tune import Tuned, best_row, tune
from steepest.training.metrics import METRICS

from .conftest import trials_of


def tuned(plan: Plan, engine: Any) -> tuple[dict[Cell, Tuned], Trials]:
    trials = trials_of(plan, engine)
    return {found.cell: found for found in tune(plan, trials)}, trials


def test_every_cell_is_tried_at_every_rate_on_the_same_seeds(
    plan_of: Callable[..., Plan], engine: Callable[..., Any]
) -> None:
    plan, fake = plan_of(), engine()
    tuned(plan, fake)
    tried = Counter((run.loss, run.optimizer) for run in fake.runs)
    assert set(tried.values()) == {3 * len(plan.rates["adam"])}
    assert {run.seed for run in fake.runs} == set(plan.tuning_seeds)
    assert {run.stop.max_epochs for run in fake.runs} == {plan.epochs}


def test_the_planted_rate_is_found(plan_of: Callable[..., Plan], engine: Callable[..., Any]) -> None:
    found, trials = tuned(plan_of(), engine(best_rates={"sgd": 0.1, "adam": 0.001}))
    assert {(cell.optimizer, one.best) for cell, one in found.items()} == {("sgd", 0.1), ("adam", 0.001)}
    assert not any(one.at_edge for one in found.values())
    assert {entry.stage for entry in trials.entries.values()} == {"tune"}


@pytest.mark.parametrize(
    ("best", "at_edge"), [(0.3e-5, False), (1e-6, False), (1e-8, True), (20.0, False), (1e4, True)]
)
def test_a_grid_grows_at_its_edge_by_at_most_two_decades(
    plan_of: Callable[..., Plan], engine: Callable[..., Any], best: float, at_edge: bool
) -> None:
    plan = plan_of(optimizers=["adam"], losses=["mse"])
    found, trials = tuned(plan, engine(best_rates={"adam": best}))
    (one,) = found.values()
    assert one.at_edge is at_edge
    assert "extend" in {entry.stage for entry in trials.entries.values()}
    assert 3 <= len(one.rates) - len(plan.rates["adam"]) <= 6
    assert list(one.rates) == sorted(one.rates)
    if not at_edge:
        assert one.best == pytest.approx(best, rel=0.6)


def test_a_rate_that_diverged_on_any_seed_is_not_chosen(
    plan_of: Callable[..., Plan], engine: Callable[..., Any]
) -> None:
    plan = plan_of(optimizers=["sgd"], losses=["mse"])
    unlucky = plan.tuning_seeds[1]
    fake = engine(best_rates={"sgd": 0.1}, diverges=lambda run: run.lr >= 0.1 and run.seed == unlucky)
    found, trials = tuned(plan, fake)
    (one,) = found.values()
    assert one.best == 0.0464
    assert not one.at_edge
    assert trials.count_diverged() == sum(rate >= 0.1 for rate in plan.rates["sgd"])


def test_where_everything_diverged_there_is_still_a_rate(
    plan_of: Callable[..., Plan], engine: Callable[..., Any]
) -> None:
    plan = plan_of(optimizers=["sgd"], losses=["mse"])
    found, _ = tuned(plan, engine(diverges=lambda run: True))
    (one,) = found.values()
    assert one.best in plan.rates["sgd"]
    assert not one.at_edge


def test_the_middle_of_a_plateau_is_taken() -> None:
    plateau = np.array([[2.0], [1.0], [1.0], [1.0]])
    assert best_row(plateau) == 2
    assert best_row(np.array([[np.nan], [3.0]])) == 1
    assert best_row(np.array([[np.nan, 0.0], [np.nan, 1.0]])) == 0


def test_a_flat_curve_has_a_wide_rate_interval(
    plan_of: Callable[..., Plan], engine: Callable[..., Any]
) -> None:
    plan = plan_of(optimizers=["adam"], losses=["mse"])
    widths = []
    for curvature in (0.001, 0.1):
        found, _ = tuned(plan, engine(curvature=curvature, noise=0.01))
        low, high = next(iter(found.values())).rate_interval
        widths.append(high / low)
    assert widths[0] > widths[1]


def test_no_run_is_run_twice_and_tuning_keeps_no_weights(
    plan_of: Callable[..., Plan], engine: Callable[..., Any]
) -> None:
    plan, fake = plan_of(), engine()
    trials = trials_of(plan, fake)
    trial = Setting(plan.cells[0], 0.1).on(1)
    trials.run("tune", [trial, trial])
    trials.run("extend", [trial])
    assert len(fake.runs) == 1
    assert trials.entries[trial].stage == "tune"
    assert trials.entries[trial].record.parameters is None


def test_the_first_runs_span_the_grid() -> None:
    from steepest.comparison.rates import coarse_to_fine

    assert sorted(coarse_to_fine(16)) == list(range(16))
    assert sorted(coarse_to_fine(16)[:4]) == [0, 4, 8, 12]
    assert sorted(coarse_to_fine(13)) == list(range(13))


def test_of_rates_whose_rows_are_all_right_the_middle_one_is_taken() -> None:
    """Two clouds of points far apart: the boldest rate has the least log loss, and is not taken for it."""
    rng = np.random.default_rng(3)
    labels = np.repeat(["left", "right"], 60)
    x = rng.normal(size=(120, 3)) + 8.0 * (labels == "right")[:, None]
    options: dict[str, Any] = {"losses": ["bce"], "optimizers": ["sgd"], "hidden": (), "max_epochs": 30}
    found = steepest.compare((x, labels), splits=1, **options)
    runs = (
        found.runs.filter(pl.col("stage") == "tune")
        .group_by("lr")
        .agg(pl.col("validation_score").mean())
        .sort("lr")
    )
    scores, rates = runs["validation_score"].to_numpy(), runs["lr"].to_list()
    least = METRICS["log_loss"].least_told_apart(lambda: np.zeros(24))
    equal = [rate for rate, score in zip(rates, scores, strict=True) if score < least]
    assert len(equal) > 4
    assert scores.argmin() == len(rates) - 1
    (tuned_cell,) = (cell for cell in found.verdict["cells"] if cell["kind"] == "tuned")
    assert tuned_cell["lr"] in equal[len(equal) // 2 - 1 : len(equal) // 2 + 2]
    (note,) = (note for note in found.verdict["notes"] if note.startswith("A log loss counts"))
    assert "no better below 0.16 on the validation rows and 0.16 on the test rows: so few" in note
    assert not any("still improving" in note for note in found.verdict["notes"])


def test_a_rate_looked_for_by_fit_is_not_the_boldest_either() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(["left", "right"], 60)
    x = rng.normal(size=(120, 3)) + 8.0 * (labels == "right")[:, None]
    model = steepest.fit((x, labels), loss="bce", optimizer="sgd", hidden=(), max_epochs=5)
    rates = rate_grids(("sgd",), POINTS_PER_DECADE)["sgd"]
    assert 0.01 < model.record.run.lr < rates[-2]
