"""The constant prediction beside the scores: what it is for each metric, and when a model has beaten it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import steepest
from steepest.cli.show import print_verdict
from steepest.comparison.baseline import _constant, _gain
from steepest.data import prepare
from steepest.training.metrics import METRICS

QUICK: dict[str, Any] = {"optimizers": ["adam"], "hidden": (), "max_epochs": 5}
ROWS = np.random.default_rng(3).normal(size=(400, 4))
NOISE = np.random.default_rng(4).normal(size=400)


def compared(target: Any, **options: Any) -> dict[str, Any]:
    return steepest.compare((ROWS, target), **QUICK | options).verdict


def test_a_model_that_learned_nothing_is_said_so_first() -> None:
    verdict = compared(NOISE, losses=["mse"])
    baseline = verdict["baseline"]
    assert baseline["beaten"] is False
    assert baseline["gain"][0] < 0
    assert verdict["sentence"].startswith(
        "No sign that anything useful was learned: on 80 test rows the model does not beat always predicting the mean "
        f"(test RMSE {baseline['score']:.4g}) by more than luck. "
    )
    dear = compared(1e5 * NOISE, losses=["mse"])
    assert f"(test RMSE {dear['baseline']['score']:,.0f}) by more than luck. " in dear["sentence"]


def test_a_model_that_learned_something_is_told_beside_what_it_beat(capsys: Any, tmp_path: Any) -> None:
    options = QUICK | {"losses": ["mse"], "max_epochs": 40}
    comparison = steepest.compare((ROWS, ROWS[:, 0] + 0.1 * NOISE), **options)
    verdict = comparison.verdict
    assert repr(comparison).startswith(
        f"Comparison of 1 pair on 'y', {comparison.runs.height} runs. Use MSE with Adam"
    )
    assert "<td>mse</td><td>adam</td>" in comparison._repr_html_()
    assert repr(comparison.model) == (
        "FittedModel(task='regression', target='y', hidden=(), loss='mse', optimizer='adam', "
        f"lr={verdict['winners'][0]['lr']})"
    )
    assert verdict["baseline"]["beaten"] is True
    assert 0 < verdict["baseline"]["gain"][0] < verdict["baseline"]["score"] - verdict["winners"][0]["score"]
    assert "No sign" not in verdict["sentence"]
    print_verdict(verdict, tmp_path)
    told = f"without a model, always the mean: {verdict['baseline']['score']:.4g}"
    assert told in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("metric", "says"), [("rmse", "the mean"), ("mae", "the median"), ("accuracy", "the largest class")]
)
def test_the_constant_is_the_metrics_own_and_comes_from_the_training_rows(metric: str, says: str) -> None:
    target = np.exp(NOISE) if metric != "accuracy" else np.where(NOISE > 0.8, "rare", "usual")
    verdict = compared(target, metric=metric, losses=["mse"] if metric != "accuracy" else ["bce"], splits=1)
    assert verdict["baseline"]["says"] == says
    prepared = prepare((ROWS, target))
    trained_on, truth = prepared.y_train_original, prepared.y_test_original
    expected = {
        "rmse": lambda: np.sqrt(np.mean((truth - trained_on.mean()) ** 2)),
        "mae": lambda: np.abs(truth - np.median(trained_on)).mean(),
        "accuracy": lambda: (truth == 1).mean(),
    }[metric]()
    assert verdict["baseline"]["test"][metric] == pytest.approx(expected, rel=1e-6)


def test_the_model_is_asked_in_the_encoding_of_its_own_split() -> None:
    """A column whose scale hangs on the draw of the training rows: another split's encoding would be nonsense."""
    lone = np.where(np.arange(400) == 7, 1e6, 0.0) + ROWS[:, 0]
    columns = pl.DataFrame({"lone": lone, "x": ROWS[:, 0], "rare": ["a"] * 388 + list("bcdefghijklm")})
    verdict = steepest.compare(
        columns.with_columns(y=ROWS[:, 0] + 0.1 * NOISE), "y", losses=["mse"], **QUICK | {"max_epochs": 40}
    ).verdict
    assert verdict["splits"] > 1
    middle = sum(verdict["baseline"]["gain"]) / 2
    assert middle == pytest.approx(verdict["baseline"]["score"] - verdict["model"]["test"]["rmse"])


@pytest.mark.parametrize("metric", [name for name, one in METRICS.items() if not one.is_users_own])
def test_no_other_constant_is_better_on_the_rows_it_comes_from(metric: str) -> None:
    random = np.random.default_rng(0)
    compute, sign = METRICS[metric].compute, -1 if METRICS[metric].greater_is_better else 1
    if "regression" in METRICS[metric].tasks:
        targets: Any = random.gamma(2.0, size=200)
        others = [np.full(200, value) for value in np.quantile(targets, np.linspace(0.01, 0.99, 50))]
        own = _constant(metric, targets, 1, 200)
    else:
        targets = random.choice(3, size=200, p=[0.6, 0.3, 0.1])
        others = [np.tile(shares, (200, 1)) for shares in random.dirichlet(np.ones(3), size=50)]
        own = _constant(metric, targets, 3, 200)
    assert all(sign * compute(targets, own) <= sign * compute(targets, other) + 1e-12 for other in others)


def test_of_models_that_know_nothing_few_are_taken_to_have_beaten_it() -> None:
    """Predictions that stray from the mean at random: worse in truth, better on some test rows by luck."""
    plain = replace(
        METRICS["rmse"], compute=lambda y, p: float(np.sqrt(np.mean((y - p) ** 2)))
    )  # much faster
    beaten = 0
    for draw in range(100):
        random = np.random.default_rng(draw)
        truth, predictions = random.normal(size=60), 0.2 * random.normal(size=60)
        beaten += _gain(plain, truth, np.zeros(60), predictions, random)[0] > 0
    assert beaten <= 5


def test_a_users_own_module_and_metric_have_one_too() -> None:
    def correlation(targets: Any, predictions: Any) -> float:
        return float(np.corrcoef(targets, predictions)[0, 1])  # not a number where one of them is constant

    parts = [
        (ROWS[part].astype(np.float32), ROWS[part, 0].astype(np.float32))
        for part in np.split(np.arange(399), 3)
    ]
    options: dict[str, Any] = {"model": lambda: torch.nn.Linear(4, 1), "data": parts, "losses": ["mse"]}
    options |= {"optimizers": ["adam"], "max_epochs": 20, "batch_sizes": 32}
    verdict = steepest.compare(**options).verdict
    assert verdict["baseline"]["says"] == "the mean"
    assert verdict["baseline"]["beaten"] is True
    metric = steepest.metric(correlation, greater_is_better=True)
    with np.errstate(invalid="ignore"):
        own = steepest.compare(**options | {"metric": metric}).verdict
    assert own["baseline"] is None
