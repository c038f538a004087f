"""The winner's calibration in the verdict and in the runs, from real training."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

import steepest
from steepest.comparison.engine import start_engine
from steepest.comparison.plan import Setting
from steepest.data import prepare
from steepest.training.calibration import expected_calibration_error, reliability

SMALL: dict[str, Any] = {"optimizers": ["sgd"], "hidden": (), "max_epochs": 2}


def test_classes_have_a_calibration_in_the_verdict_and_the_runs() -> None:
    random = np.random.default_rng(4)
    x = random.normal(size=(300, 2))
    y = np.where(x[:, 0] + random.normal(size=300) > 0, "yes", "no")
    comparison = steepest.compare((x, y), losses=["bce"], splits=1, **SMALL)
    winner, found = comparison.verdict["winners"][0], comparison.verdict["calibration"]
    assert (found["positive"], found["num_bins"], found["num_seeds"]) == ("yes", 15, winner["num_seeds"])
    num_test_rows = comparison.verdict["num_rows"]["test"]
    assert sum(point["num_predictions"] for point in found["curve"]) == num_test_rows * winner["num_seeds"]
    for point in found["curve"]:
        assert point["low"] < point["predicted"] <= point["high"]
    assert found["interval"][0] < found["ece"] == winner["test"]["ece"] < found["interval"][1]

    # One of its runs, trained again.
    seed, plan, prepared = comparison.plan.confirmation_seeds[0], comparison.plan, prepare((x, y))
    engine = start_engine(prepared.training_data(), plan.metric)
    (record,) = engine.run_all([plan.run(Setting(plan.cells[0], winner["lr"]).on(seed))])
    assert record is not None
    probabilities = engine.predict(record.run, record.parameters, prepared.x_test)
    bins = reliability(prepared.y_test.astype(np.int64), probabilities)
    own = comparison.runs.filter(pl.col("lr") == winner["lr"], pl.col("seed") == seed)
    assert own["test_ece"].to_list() == [expected_calibration_error(bins)]


def test_a_quantity_has_none() -> None:
    x = np.random.default_rng(4).normal(size=(100, 2))
    comparison = steepest.compare((x, x[:, 0]), losses=["mse"], **SMALL)
    assert comparison.verdict["calibration"] is None
    assert "test_ece" not in comparison.runs.columns
