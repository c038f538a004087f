"""Whether a finding mattered, from planted scores."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from steepest.comparison.conduct import conduct
from steepest.comparison.plan import Plan
from steepest.comparison.progress import Silent
from steepest.comparison.relevance import with_relevance
from steepest.comparison.splits import Split, Splits
from steepest.data import Prepared

OUTLIERS = {
    "name": "target_outliers",
    "value": 0.1,
    "text": "Many.",
    "losses": ["mae", "huber"],
    "because": "so",
}
CALM = {"name": "target_skewness", "value": 0.0, "text": "Even.", "losses": [], "because": ""}

Judged = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def judged(plan_of: Callable[..., Plan], prepared: Prepared, engine: Callable[..., Any]) -> Judged:
    """``judged(findings, losses=..., **planted)``: the findings with what became of them."""

    def judge(
        findings: list[dict[str, Any]], losses: tuple[str, ...] = ("mse", "mae"), **planted: Any
    ) -> Any:
        plan = plan_of(losses=losses)
        fake = engine(best_rates={"sgd": 0.1, "adam": 0.1}, **planted)
        outcome = conduct(plan, Splits(plan, Split(prepared, fake)), 1, Silent(), threading.Event())
        return with_relevance(plan, outcome.trials, outcome.contestants, findings)

    return judge


def test_a_loss_that_does_better_mattered(judged: Judged) -> None:
    (found,) = judged([OUTLIERS], base={("mae", "adam"): 0.9})
    assert found["mattered"] is True
    assert found["outcome"].startswith("It mattered: mae is 10.")
    # A model that is wrong by a constant has an RMSE and an MAE of it.
    assert found["outcome"].count("better than mse on RMSE (95% interval ") == 1
    assert found["outcome"].count("better than mse on MAE (95% interval ") == 1


def test_a_loss_that_does_worse_did_not_help(judged: Judged) -> None:
    (found,) = judged([OUTLIERS], base={("mse", "adam"): 0.9})
    assert found["mattered"] is False
    assert found["outcome"].startswith("It did not help: mae is 11.")
    assert "worse than mse on RMSE" in found["outcome"]


@pytest.mark.parametrize("noise", [0.0005, 0.05])
def test_a_difference_that_is_small_or_luck_did_not_matter(judged: Judged, noise: float) -> None:
    (found,) = judged([OUTLIERS], base={("mae", "adam"): 0.995}, noise=noise)
    assert found["mattered"] is False
    assert found["outcome"].startswith("It did not matter: mae is ")


def test_nothing_is_said_of_what_calls_for_nothing(judged: Judged) -> None:
    (found,) = judged([CALM])
    assert (found["mattered"], found["outcome"]) == (None, None)


def test_what_was_not_compared_was_not_measured(judged: Judged) -> None:
    (found,) = judged([OUTLIERS], losses=("mse", "log_cosh"))
    assert found["mattered"] is None
    assert found["outcome"] == "Whether it matters was not measured: mae or huber would have to take part."
    (found,) = judged([OUTLIERS], losses=("mae", "huber"))
    assert found["outcome"] == "Whether it matters was not measured: mse would have to take part."


def test_a_barred_loss_takes_no_part(judged: Judged) -> None:
    (found,) = judged([OUTLIERS], diverges=lambda run: run.loss == "mae" and run.seed >= 5000)
    assert found["mattered"] is None
