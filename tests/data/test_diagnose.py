"""What the data look like to a loss: figures that are right, words that say them, losses that answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from steepest.data import prepare
from steepest.data.diagnose import diagnose
from steepest.data.neighbours import share_among_others
from steepest.losses import LOSSES

NUM_ROWS = 200
RANDOM = np.random.default_rng(1)
NORMAL = RANDOM.normal(size=NUM_ROWS)
GAMMA = RANDOM.gamma(1.5, size=NUM_ROWS)
COUNTS = RANDOM.poisson(GAMMA * 2)


def findings(y: Any, task: str = "auto") -> dict[str, dict[str, Any]]:
    table = pl.DataFrame({"a": NORMAL[: len(y)], "y": y}, strict=False)
    prepared = prepare(table, "y", task=task, validation=0, test=0)
    for finding in prepared.diagnosis:
        assert set(finding) == {"name", "value", "text", "losses", "because"}
        assert type(finding["value"]) is float
        assert np.isfinite(finding["value"])
        assert finding["text"].endswith(".")
        assert all(prepared.task in LOSSES[loss].formula.tasks for loss in finding["losses"])
        assert bool(finding["losses"]) == bool(finding["because"])
    return {finding["name"]: finding for finding in prepared.diagnosis}


def test_nothing_is_called_for_by_a_calm_target() -> None:
    found = findings(NORMAL)
    assert found["target_outliers"]["value"] == 0
    assert abs(found["target_skewness"]["value"]) < 0.5
    assert not any(finding["losses"] for finding in found.values())


def test_outliers_call_for_robust_losses() -> None:
    wild = findings(np.where(np.arange(NUM_ROWS) < 6, 100, NORMAL))
    assert wild["target_outliers"]["value"] == pytest.approx(0.03)
    assert "3.0% of the target values are outliers" in wild["target_outliers"]["text"]
    assert {"huber", "cauchy", "log_cosh"} <= set(wild["target_outliers"]["losses"])
    assert wild["target_skewness"]["losses"] == ["mae"]
    assert not wild["target_excess_kurtosis"]["losses"]  # answered by the outliers already


def test_heavy_tails_call_for_them_where_outliers_are_too_few() -> None:
    found = findings(np.where(np.arange(NUM_ROWS) == 0, 30, np.linspace(-1, 1, NUM_ROWS)), "regression")
    assert found["target_outliers"]["value"] == pytest.approx(0.005)
    one = findings(np.where(np.arange(NUM_ROWS) < 8, [-9.0, 9.0] * 100, np.linspace(-3, 3, NUM_ROWS)))
    assert not one["target_outliers"]["losses"]
    assert one["target_excess_kurtosis"]["value"] > 3
    assert "cauchy" in one["target_excess_kurtosis"]["losses"]


def test_skewness_and_kurtosis_agree_with_scipy() -> None:
    from scipy.stats import kurtosis, skew

    y = np.exp(NORMAL)
    found = findings(y)
    assert found["target_skewness"]["value"] == pytest.approx(skew(y))
    assert found["target_excess_kurtosis"]["value"] == pytest.approx(kurtosis(y))


def test_a_value_that_most_rows_have_is_named() -> None:
    found = findings([row if row < 10 else 0 for row in range(60)], "regression")
    assert found["target_outliers"]["value"] == pytest.approx(9 / 60)
    assert "More than half of the target values are 0" in found["target_outliers"]["text"]


@pytest.mark.parametrize(
    ("y", "name", "losses"),
    [
        (COUNTS, "target_counts", ["poisson_nll"]),
        (COUNTS * 1000, "target_amounts_and_zeros", ["tweedie"]),  # whole, but no counts
        (COUNTS + GAMMA, "target_amounts", ["gamma"]),
        (np.where(NORMAL > 0, GAMMA, 0), "target_amounts_and_zeros", ["tweedie"]),
        (np.where(np.arange(NUM_ROWS) == 0, 1e-9, GAMMA), "target_amounts_and_zeros", ["tweedie"]),
        (COUNTS - 1, None, None),
        (100 - COUNTS, None, None),
        (np.abs(NORMAL) * 0.1 + 100, "target_amounts", ["gamma"]),
        (NORMAL + 100, None, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_counts_and_amounts_call_for_their_losses(y: Any, name: str | None, losses: list[str] | None) -> None:
    found = findings(y, "regression")
    special = {
        key: finding["losses"]
        for key, finding in found.items()
        if key in ("target_counts", "target_amounts", "target_amounts_and_zeros")
    }
    assert special == ({} if name is None else {name: losses})


def test_a_negative_target_anywhere_forbids_the_losses_for_amounts() -> None:
    y = GAMMA.copy()
    for row in range(0, NUM_ROWS, 40):  # wherever the split puts them
        y[row] = -0.001
    table = pl.DataFrame({"a": NORMAL, "y": y})
    names = {finding["name"] for seed in range(3) for finding in prepare(table, "y", seed=seed).diagnosis}
    assert not names & {"target_amounts", "target_amounts_and_zeros"}


def test_imbalance_calls_for_losses_that_see_rare_classes() -> None:
    found = findings(["a"] * 48 + ["b"] * 12)
    assert found["largest_class_share"]["value"] == pytest.approx(0.8)
    assert found["smallest_class_share"]["value"] == pytest.approx(0.2)
    assert found["imbalance_ratio"]["value"] == pytest.approx(4.0)
    assert "'a' 80.0%, 'b' 20.0%" in found["largest_class_share"]["text"]
    assert "imbalanced" in found["imbalance_ratio"]["text"]
    assert found["imbalance_ratio"]["losses"] == ["class_balanced", "logit_adjusted", "focal"]
    even = findings(["a", "b"] * 30)["imbalance_ratio"]
    assert "balanced." in even["text"]
    assert not even["losses"]


def test_one_of_a_thing_and_a_large_ratio_are_said_as_one_says_them() -> None:
    def said(*counts: int) -> str:
        target = np.repeat(np.arange(len(counts)), counts)
        return " ".join(finding["text"] for finding in diagnose(target, range(len(counts)), None, 0.0))

    assert "with 1 training row (" in said(30, 1)
    assert "with 2 training rows (" in said(30, 2)
    assert "and 1 more class." in said(*[5] * 11)
    assert "and 2 more classes." in said(*[5] * 12)
    assert "has 278 times as many rows" in said(278, 1)
    assert "has 1.5 times as many rows" in said(3, 2)


def labels(flipped: float, threshold: float = 0.0, rows: int = 1000) -> tuple[Any, Any]:
    random = np.random.default_rng(3)
    x = random.normal(size=(rows, 3))
    return x, ((x[:, 0] > threshold) ^ (random.random(rows) < flipped)).astype(np.int64)


@pytest.mark.parametrize(("flipped", "hinted"), [(0.0, False), (0.1, True), (0.25, True)])
def test_wrong_labels_are_hinted_at(flipped: float, hinted: bool) -> None:
    x, y = labels(flipped)
    (found,) = (one for one in prepare((x, y)).diagnosis if one["name"] == "label_noise")
    assert (found["losses"] == ["generalized_cross_entropy"]) == hinted
    assert ("no hint" in found["text"]) != hinted


def test_a_rare_class_that_cannot_be_told_apart_is_no_wrong_label() -> None:
    x = np.random.default_rng(0).normal(size=(2000, 3))
    rare = (np.arange(2000) % 12 == 0).astype(np.int64)
    assert share_among_others(x, rare) == 0


def test_rows_that_are_just_alike_vote_as_others_do() -> None:
    x = np.repeat(np.eye(2), 100, axis=0)
    y = np.repeat([0, 1], 100)
    assert share_among_others(x, y) == 0
    y[[0, 100]] = [1, 0]  # one wrong label in each heap
    assert share_among_others(x, y) == pytest.approx(0.01)


def test_too_few_rows_say_nothing_about_labels() -> None:
    x, y = labels(0.2, rows=80)
    assert share_among_others(x, y) is None
    assert share_among_others(x, np.zeros(80, dtype=np.int64)) is None
