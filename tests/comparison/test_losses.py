"""Losses chosen by the task and by what the data look like, few and with a reason each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from steepest.comparison.losses import choose_losses
from steepest.comparison.options import Options
from steepest.comparison.plan import Plan, make_plan
from steepest.data import prepare
from steepest.losses import LOSSES

RANDOM = np.random.default_rng(5)
X = RANDOM.normal(size=(400, 3))
OUTLIERS = X[:, 0] + np.where(np.arange(400) % 40 == 0, 50, 0)
COUNTS = RANDOM.poisson(np.exp(X[:, 0])).astype(float)


def finding(*losses: str, because: str = "so") -> dict[str, Any]:
    return {"losses": list(losses), "because": because}


def test_the_usual_losses_take_part_whatever_is_found() -> None:
    assert list(choose_losses("regression", [])) == ["mse", "mae", "huber"]
    assert list(choose_losses("binary", [])) == ["bce", "cross_entropy"]
    assert list(choose_losses("multiclass", [])) == ["cross_entropy", "focal"]


def test_findings_take_turns_and_five_losses_are_enough() -> None:
    found = [finding("mae", "cauchy", "log_cosh", because="one"), finding(), finding("gamma", because="two")]
    chosen = choose_losses("regression", found)
    assert list(chosen) == ["mse", "mae", "huber", "cauchy", "gamma"]
    assert [chosen[loss] for loss in ("cauchy", "gamma")] == ["one", "two"]
    assert chosen["mae"] == "aims at the median"


@pytest.mark.parametrize(
    ("y", "joined"),
    [
        (X[:, 0], set()),
        (OUTLIERS, {"cauchy", "log_cosh"}),
        (COUNTS, {"cauchy", "poisson_nll"}),
        (np.exp(X[:, 0] / 2), {"cauchy", "gamma"}),
        (X[:, 0] > 1.2, {"class_balanced", "logit_adjusted", "focal"}),
    ],
    ids=["calm", "outliers", "counts", "amounts", "imbalanced"],
)
def test_the_data_decide_which_join(y: Any, joined: set[str]) -> None:
    prepared = prepare((X, y))
    plan = make_plan(prepared, Options())
    usual = set(choose_losses(prepared.task, []))
    assert set(plan.losses) == usual | joined
    assert set(plan.loss_reasons) == set(plan.losses)
    assert all(prepared.task in LOSSES[loss].formula.tasks for loss in plan.losses)
    (said,) = (line for line in plan.in_words() if line.startswith("Losses: "))
    assert all(loss in said for loss in plan.losses)
    assert Plan.from_json(plan.to_json()) == plan


def test_losses_that_are_named_are_taken_as_they_are() -> None:
    plan = make_plan(prepare((X, OUTLIERS)), Options(losses=["mse", "tukey"]))
    assert plan.losses == ("mse", "tukey")
    assert plan.loss_reasons == {}
    assert not any(line.startswith("Losses") for line in plan.in_words())
