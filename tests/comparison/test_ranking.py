"""The winner set's order: what is as good is told apart by how easy it is, and by nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from steepest.comparison.confirm import Finalist
from steepest.comparison.plan import Cell, Plan, Setting
from steepest.comparison.ranking import (
    Contestant,
    _with_differences,
    _with_intervals,
    still_improving,
    winner_set,
)

CELLS = {name: Cell(name, "adam", 32) for name in "abcd"}


def contestant(
    name: str,
    *,
    score: float = 1.0,
    kind: Any = "tuned",
    rates: tuple[float, float] = (0.01, 0.01),
    epochs: float = 10.0,
    difference: tuple[float, float] = (-0.1, 0.1),
    p_value: float | None = 1.0,
    barred: str | None = None,
    least: float = -math.inf,
) -> Contestant:
    """One that cannot be told from the best, unless something is said of it."""
    finalist = Finalist(kind, kind == "tuned", Setting(CELLS[name], 0.01), rates, barred)
    return Contestant(
        finalist,
        np.full(10, score),
        score,
        barred,
        difference=None if barred else difference,
        p_value=p_value,
        epochs_to_best=epochs,
        least_told_apart=least,
        least_on_validation=least,
    )


def names(plan: Plan, contestants: Sequence[Contestant]) -> str:
    return "".join(one.finalist.cell.loss for one in winner_set(plan, contestants))


@pytest.fixture
def plan(plan_of: Callable[..., Plan]) -> Plan:
    return plan_of()


def test_the_wider_rate_interval_comes_first(plan: Plan) -> None:
    narrow, wide, wider = (
        contestant(name, rates=(0.001, high)) for name, high in (("a", 0.001), ("b", 0.01), ("c", 0.1))
    )
    assert names(plan, [narrow, wide, wider]) == names(plan, [wider, narrow, wide]) == "cba"


def test_the_width_is_a_ratio_not_a_difference(plan: Plan) -> None:
    low = contestant("a", rates=(1e-5, 1e-3))  # two decades, far down
    high = contestant("b", rates=(0.1, 1.0))  # one decade, a thousand times as wide in numbers
    assert names(plan, [high, low]) == "ab"


def test_then_the_fewer_examples_until_the_best_weights_then_the_name(plan: Plan) -> None:
    slow, fast, also_slow = (
        contestant(name, epochs=epochs) for name, epochs in zip("acb", (9, 3, 9), strict=True)
    )
    assert names(plan, [slow, also_slow, fast]) == "cab"
    # The width decides before them.
    assert names(plan, [fast, replace(slow, finalist=contestant("a", rates=(0.01, 0.1)).finalist)]) == "ac"


def test_an_untuned_default_comes_before_what_had_to_be_tuned(plan: Plan) -> None:
    default = contestant("d", kind="default", rates=(0.01, 0.01), epochs=90)
    assert names(plan, [contestant("a", rates=(0.001, 1.0), epochs=1), default]) == "da"


def test_ease_counts_among_equals_alone(plan: Plan) -> None:
    best = contestant("a", score=1.0)
    equal = contestant("b", score=1.0099, rates=(0.001, 0.1))
    worse = contestant("c", score=1.02, rates=(0.0001, 1.0), kind="default")  # not told apart, but beyond 1%
    assert names(plan, [best, equal, worse]) == "bac"


def test_out_is_who_both_the_interval_and_the_test_put_out(plan: Plan) -> None:
    best = contestant("a", score=1.0, difference=(0.0, 0.0), p_value=None)
    beyond = {"score": 1.2, "difference": (0.1, 0.3)}
    assert names(plan, [best, contestant("b", **beyond, p_value=0.01)]) == "a"
    assert names(plan, [best, contestant("b", **beyond, p_value=0.2)]) == "ab"
    assert names(plan, [best, contestant("b", score=1.2, difference=(0.009, 0.4), p_value=0.01)]) == "ab"
    assert names(plan, [best, contestant("b", barred="diverged")]) == "a"


@pytest.mark.parametrize("curvature", [0.0005, 0.2])
def test_the_rate_interval_is_what_lies_within_one_standard_error(
    plan_of: Callable[..., Plan], engine: Callable[..., Any], curvature: float
) -> None:
    from steepest.comparison.tune import tune

    from .conftest import trials_of

    plan = plan_of(optimizers=["adam"], losses=["mse"])
    trials = trials_of(plan, engine(curvature=curvature, noise=0.01))
    (found,) = tune(plan, trials)
    best = trials.scores(Setting(found.cell, found.best), plan.tuning_seeds)
    limit = best.mean() + best.std(ddof=1) / np.sqrt(len(best))
    within = {
        lr for lr in found.rates if trials.mean_score(Setting(found.cell, lr), plan.tuning_seeds) <= limit
    }
    low, high = found.rate_interval
    assert within == {lr for lr in found.rates if low <= lr <= high}
    assert (low < found.best < high) is (curvature < 0.01)


def test_what_the_rows_do_not_tell_apart_is_equal(plan: Plan) -> None:
    """A score is shown as it is; differences are of what the rows vouch for."""
    scores = {"a": 1e-9, "b": 1e-3, "c": 0.05, "d": 0.2}
    told = _with_differences(
        plan, [contestant(name, score=score, least=0.07) for name, score in scores.items()]
    )
    assert [one.score for one in told] == pytest.approx(list(scores.values()))
    assert [one.difference for one in told[:3]] == [(0.0, 0.0)] * 3
    assert told[3].difference == (pytest.approx(0.13), pytest.approx(0.13))
    assert [one.p_value for one in told[1:3]] == [1.0, 1.0]
    easiest_last = [replace(one, epochs_to_best=-place) for place, one in enumerate(told[:3])]
    assert names(plan, easiest_last) == "cba"
    raw = _with_differences(plan, [contestant(name, score=score) for name, score in scores.items()])
    assert all(first.difference < second.difference for first, second in pairwise(raw))  # type: ignore[operator]


def test_a_model_of_rows_that_are_all_right_is_not_still_improving(plan: Plan) -> None:
    assert still_improving(plan, contestant("a", score=0.06, epochs=plan.epochs))
    assert not still_improving(plan, contestant("a", score=0.06, epochs=plan.epochs, least=0.07))


def test_an_interval_holds_no_score_that_cannot_be(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()
    scores = np.array([0.01, 0.02, 0.01, 3.0, 0.02, 0.01, 0.02, 0.01, 0.02, 0.01])
    (found,) = _with_intervals(plan, [replace(contestant("a"), scores=scores)], factor=3.0)
    assert found.interval is not None
    assert found.interval[0] == 0
    assert found.interval[1] > scores.mean()
    shares = replace(plan, metric="accuracy")
    (found,) = _with_intervals(shares, [replace(contestant("a"), scores=1 - scores / 3)], factor=3.0)
    assert found.interval is not None
    assert found.interval[0] < 0.9
    assert found.interval[1] == 1
