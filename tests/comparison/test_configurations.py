"""Tuning beyond the rate: equal counts, inside the ranges, and carried from the tuning to the model handed over."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import steepest
from steepest.comparison.compare import compare
from steepest.comparison.configurations import configurations
from steepest.comparison.plan import Plan
from steepest.data import prepare
from steepest.training.native import NativeEngine
from steepest.training.run import Architecture, Record, Run, Stop

from .conftest import FakeEngine

SMALL: Mapping[str, Any] = {
    "losses": ["mse", "huber"],
    "optimizers": ["sgd", "momentum", "adam"],
    "hidden": (),
    "tune": "all",
    "splits": 1,
}


class WithOptions(FakeEngine):
    """Momentum's best is 0.7, a half better than as it comes; huber's delta matters as much, around 3."""

    def error(self, run: Run) -> float:
        error = super().error(run)
        if run.optimizer == "momentum":
            error *= 0.5 + abs(run.optimizer_options.get("momentum", 0.99) - 0.7)
        if run.loss == "huber":
            error *= 0.5 + abs(math.log10(run.loss_options.get("delta", 0.1) / 3))
        return error

    def record(self, run: Run) -> Record:
        record = super().record(run)
        own = {name: value for name, value in run.optimizer_options.items() if name != "betas"}
        return replace(record, hyperparameters={"lr": run.lr, **own, **run.loss_options})


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[WithOptions]:
    started: list[WithOptions] = []

    def start(data: Any, metric: str) -> WithOptions:
        started.append(WithOptions(data, best_rates={"sgd": 0.1, "momentum": 0.01, "adam": 0.01}))
        return started[-1]

    monkeypatch.setattr("steepest.comparison.compare.start_engine", start)
    return started


@pytest.fixture
def plan(plan_of: Callable[..., Plan]) -> Plan:
    return plan_of(**SMALL)


def test_each_cell_has_as_many_in_range_and_around_its_rate(plan: Plan) -> None:
    for cell in plan.cells:
        tried = configurations(plan, cell, 0.0464)
        assert len(tried) == len(set(tried)) == 16
        assert tried == configurations(plan, cell, 0.0464)
        ranges = {**plan.loss_ranges[cell.loss], **plan.optimizer_ranges[cell.optimizer]}
        for setting in tried:
            assert list(dict(setting.options)) == list(ranges)
            assert all(ranges[name].low <= value <= ranges[name].high for name, value in setting.options)
            assert 0.0146 <= setting.lr <= 0.147
        # Quasi-random: each quarter of every range has its share.
        for name, found in ranges.items():
            values = sorted(dict(setting.options)[name] for setting in tried)
            quarters = [sum(value <= found.at(share) for value in values) for share in (0.25, 0.5, 0.75)]
            assert all(abs(count - wanted) <= 1 for count, wanted in zip(quarters, (4, 8, 12), strict=True))


def test_another_seed_tries_others(plan: Plan) -> None:
    other = replace(plan, seed=plan.seed + 1)
    assert configurations(plan, plan.cells[0], 0.1) != configurations(other, plan.cells[0], 0.1)


def test_the_budget_is_equal_and_the_default_track_as_it_was(pair: Any, fakes: list[WithOptions]) -> None:
    whole = compare(pair, **SMALL)
    plain = compare(pair, **{**SMALL, "tune": "rates"})
    options = whole.runs.filter(pl.col("stage") == "options")
    assert set(Counter(options.select("loss", "optimizer").iter_rows()).values()) == {16 * 3}
    for stage in ("tune", "default"):
        of_stage = [one.runs.filter(pl.col("stage") == stage).drop("run_id") for one in (whole, plain)]
        shared = of_stage[1].columns
        assert of_stage[0].select(shared).equals(of_stage[1])
    assert "options" not in set(plain.runs["stage"])
    assert (plain.plan.num_configurations, plain.plan.loss_ranges, plain.plan.optimizer_ranges) == (0, {}, {})
    assert set(plain.runs["options"]) == {""}


def test_what_was_tuned_wins_and_is_in_the_records_and_the_model(
    pair: Any, fakes: list[WithOptions], tmp_path: Path
) -> None:
    comparison = compare(pair, out=tmp_path / "out", **SMALL)
    winner, model = comparison.verdict["winners"][0], comparison.model
    assert (winner["loss"], winner["optimizer"]) == ("huber", "momentum")
    momentum, delta = winner["optimizer_options"]["momentum"], winner["loss_options"]["delta"]
    assert abs(momentum - 0.7) < 0.25
    assert 1.0 < delta < 9.0
    assert winner["hyperparameters"]["momentum"] == momentum
    assert winner["hyperparameters"]["delta"] == delta
    assert f"delta {delta:g}, momentum {momentum:g}" in comparison.verdict["sentence"]
    assert model is not None
    assert model.record.run.optimizer_options == winner["optimizer_options"]
    assert model.record.run.loss_options == {"delta": delta}
    assert steepest.load(tmp_path / "out").record.run.loss_options == {"delta": delta}
    confirmed = comparison.runs.filter(pl.col("stage") == "confirm", pl.col("options") != "")
    assert set(Counter(confirmed.select("loss", "optimizer").iter_rows()).values()) == {
        len(comparison.plan.confirmation_seeds)
    }
    own = confirmed.filter(pl.col("loss") == "huber", pl.col("optimizer") == "momentum")
    assert set(own["hyper_momentum"]) == {momentum}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"--loss-options delta={delta}" in re.sub("</?span[^>]*>", "", page)
    assert f"delta {delta:g}" in page
    assert f"momentum={momentum:.12g}" in page  # the program in plain PyTorch
    assert f"delta={delta:.12g})" in page


def test_a_plan_of_it_is_followed(pair: Any, fakes: list[WithOptions]) -> None:
    first = compare(pair, **SMALL)
    again = compare(pair, plan=json.loads(first.plan.to_json()))
    assert again.runs.equals(first.runs)


def test_where_no_setting_helps_the_options_stay_as_they_come(pair: Any, fakes: list[WithOptions]) -> None:
    verdict = compare(pair, **{**SMALL, "losses": ["mse"], "optimizers": ["sgd"]}).verdict
    tuned = next(cell for cell in verdict["cells"] if cell["kind"] == "tuned")
    assert tuned["optimizer_options"] == {}
    assert tuned["lr"] == 0.1


def test_options_of_one_name_are_told_apart(pair: Any) -> None:
    engine = NativeEngine(prepare(pair).training_data(), "rmse")
    run = Run("barron", "rmsprop", 0.01, architecture=Architecture(()), stop=Stop(max_epochs=1))
    (record,) = engine.run_all([replace(run, loss_options={"alpha": -1.0}, optimizer_options={"alpha": 0.8})])
    assert record is not None
    assert (record.hyperparameters["alpha"], record.hyperparameters["loss_alpha"]) == (0.8, -1.0)


def test_live_runs_have_what_was_asked_for(pair: Any) -> None:
    table = pl.DataFrame({"a": pair[0][:, 0], "b": pair[0][:, 1], "y": pair[1]})
    comparison = compare(
        table, "y", losses=["huber"], optimizers=["adam"], hidden=(3,), max_epochs=3, tune="all"
    )
    asked = comparison.runs.filter(pl.col("options") != "")
    assert asked.height == 16 * 3 + 10
    for row in asked.iter_rows(named=True):
        for name, value in (part.split("=") for part in row["options"].split(", ")):
            assert row[f"hyper_{name}"] == pytest.approx(float(value), rel=1e-5)
    cell = next(cell for cell in comparison.verdict["cells"] if cell["kind"] == "tuned")
    model = steepest.fit(
        table,
        "y",
        loss="huber",
        optimizer="adam",
        lr=cell["lr"],
        hidden=(3,),
        max_epochs=3,
        loss_options=cell["loss_options"],
        optimizer_options=cell["optimizer_options"],
    )
    read_back = model.record.hyperparameters
    assert {name: read_back[name] for name in cell["hyperparameters"]} == cell["hyperparameters"]
