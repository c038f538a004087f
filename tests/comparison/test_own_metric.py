"""A metric of the user's own: the same records, verdict and report as with ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import f1_score
from torch import nn

import steepest
from steepest.errors import InputError
from steepest.training.metrics import METRICS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 3)).astype(np.float32)
LABELS = (X.argmax(axis=1)).astype(np.int64)
PARTS = (slice(0, 40), slice(40, 65), slice(65, 90))
DATA = tuple((X[part], LABELS[part]) for part in PARTS)
SHORT: dict[str, Any] = {"losses": ["cross_entropy"], "optimizers": ["sgd"], "max_epochs": 1}


def macro_f1(targets: Any, probabilities: Any) -> float:
    assert probabilities.shape == (*targets.shape, 3)
    return float(f1_score(targets, probabilities.argmax(axis=1), average="macro", zero_division=0.0))


def compared(**options: Any) -> steepest.Comparison:
    return steepest.compare(model=lambda: nn.Linear(3, 3), data=DATA, **{**SHORT, **options})


def test_it_decides_and_stands_in_every_record(tmp_path: Path) -> None:
    own = steepest.metric(macro_f1, greater_is_better=True, title="macro F1")
    found = compared(metric=own, out=tmp_path / "out")
    verdict = found.verdict
    assert (verdict["metric"], verdict["metric_title"]) == ("macro_f1", "macro F1")
    assert verdict["greater_is_better"]
    assert "macro F1" in verdict["sentence"]
    scores = [cell["validation_score"] for cell in verdict["cells"]]
    assert scores == sorted(scores, reverse=True) or len(verdict["winners"]) > 1
    # The score in the record is the function's own of the module handed over.
    of_module = macro_f1(LABELS[PARTS[1]], found.model.predict_proba(X[PARTS[1]]))
    assert found.model.record.validation_score == pytest.approx(of_module)
    assert {"macro_f1", "log_loss", "accuracy"} <= set(verdict["cells"][0]["test"])
    runs = pl.read_parquet(tmp_path / "out" / "runs.parquet")
    assert runs["test_macro_f1"].drop_nulls().len() > 0
    assert "macro F1" in (tmp_path / "out" / "report.html").read_text()


def test_one_that_does_not_decide_is_in_no_record() -> None:
    steepest.metric(macro_f1, greater_is_better=True)
    found = compared()
    assert "macro_f1" not in found.verdict["cells"][0]["test"]
    assert "test_macro_f1" not in found.runs.columns


def test_a_plan_names_it_and_finds_it_again() -> None:
    own = steepest.metric(macro_f1, greater_is_better=True)
    first = compared(metric=own)
    again = steepest.compare(model=lambda: nn.Linear(3, 3), data=DATA, plan=first.plan)
    assert again.verdict["sentence"] == first.verdict["sentence"]
    del METRICS["macro_f1"]
    with pytest.raises(InputError, match="plan's metric 'macro_f1' is not known here"):
        steepest.compare(model=lambda: nn.Linear(3, 3), data=DATA, plan=json.loads(first.plan.to_json()))


def test_the_one_given_is_meant_though_another_of_its_name_was_made_since() -> None:
    own = steepest.metric(macro_f1, greater_is_better=True)
    steepest.metric(lambda y, p: 1.0, name="macro_f1", greater_is_better=False)
    assert compared(metric=own).verdict["greater_is_better"]


def fails(targets: Any, predictions: Any) -> float:
    raise TypeError("labels, please")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (macro_f1, "does not say whether more of it is better"),
        ("macro_f2", "There is no metric 'macro_f2'"),
        (lambda: steepest.metric(fails, greater_is_better=True), "The metric fails failed on targets (25,) and"),
        (lambda: steepest.metric(lambda y, p: np.nan, name="n", greater_is_better=True), "The metric n gave nan"),
        (lambda: steepest.metric(lambda y, p: 0.0, greater_is_better=True), "not '<lambda>'; give it by name"),
        (lambda: steepest.metric(fails, name="rmse", greater_is_better=True), "a metric 'rmse' already"),
        (lambda: steepest.metric(fails, name=3, greater_is_better=True), "'f1', not 3; give it by name"),  # type: ignore[arg-type]
        (lambda: steepest.metric(fails, greater_is_better="no"), "is 'no'; it is True or False"),  # type: ignore[arg-type]
        (lambda: steepest.metric(3, name="m", greater_is_better=True), "this is a int"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_bad_ones_are_told(metric: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        compared(metric=metric() if getattr(metric, "__name__", "") == "<lambda>" else metric)
    assert message in str(caught.value)


def test_it_may_write_in_what_it_is_given() -> None:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    y = x.sum(dim=1)
    before = y.clone()

    def clipped(targets: Any, predictions: Any) -> float:
        np.clip(targets, -1.0, 1.0, out=targets)
        np.clip(predictions, -1.0, 1.0, out=predictions)
        return float(np.abs(targets - predictions).mean())

    steepest.compare(
        model=lambda: nn.Linear(3, 1),
        data=[(x[part], y[part]) for part in (slice(30), slice(30, 45), slice(45, 60))],
        losses=["mse"],
        optimizers=["sgd"],
        max_epochs=1,
        metric=steepest.metric(clipped, greater_is_better=False),
    )
    assert torch.equal(y, before)


def test_tables_are_judged_by_ours() -> None:
    own = steepest.metric(macro_f1, greater_is_better=True)
    with pytest.raises(InputError, match="'macro_f1' is your own, and judges your own modules"):
        steepest.compare((X, LABELS), metric=own, task="multiclass")
    with pytest.raises(InputError, match="'macro_f1' is your own"):
        steepest.fit((X, LABELS), metric="macro_f1", loss="cross_entropy", task="multiclass")
