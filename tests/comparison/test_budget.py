"""A budget trims the plan rung by rung, and says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from steepest.comparison.budget import RUNGS, estimate_sec, measure, seconds_of, trim
from steepest.comparison.plan import Plan
from steepest.errors import InputError

SPEED = {"full": 1e-4, 32: 1e-5}


@pytest.fixture
def plan(plan_of: Callable[..., Plan]) -> Plan:
    return plan_of(batch_sizes=(32, "full"))


def whole(plan: Plan) -> float:
    return estimate_sec(plan, SPEED, 1)


def test_what_fits_is_left_alone(plan: Plan) -> None:
    assert trim(plan, SPEED, 1, 2 * whole(plan)) == (plan, [])


def test_rates_are_pruned_first_then_neighbours_go_then_epochs(plan: Plan) -> None:
    trimmed, sentences = trim(plan, SPEED, 1, 1.1 * whole(plan))
    assert trimmed.rung_epochs == (10, 30)
    assert trimmed.confirm_neighbours
    (sentence,) = sentences
    assert sentence.startswith(
        "To keep to the budget, the rates of each pair are pruned: all 16 run 10 of 100 epochs"
    )
    assert sentence.endswith(
        ", the better 6 run 30, the better 2 run all; 2 of those cut are finished all the same."
    )
    assert "up to 100 epochs" in trimmed.in_words()[1]
    trimmed, sentences = trim(plan, SPEED, 1, 0.8 * whole(plan))
    assert not trimmed.confirm_neighbours
    assert trimmed.epochs == plan.epochs
    assert "neighbours" in sentences[1]
    trimmed, sentences = trim(plan, SPEED, 1, 0.3 * whole(plan))
    assert 5 < trimmed.epochs < plan.epochs
    assert trimmed.cells == plan.cells
    assert f"{trimmed.epochs} epochs" in sentences[2]


@pytest.mark.parametrize("share", [0.1, 0.05, 0.02, 0.01, 0.005, 1e-6])
def test_what_is_fair_stays_however_small_the_budget(plan: Plan, share: float) -> None:
    trimmed, sentences = trim(plan, SPEED, 1, share * whole(plan))
    assert trimmed.tuning_seeds == plan.tuning_seeds
    assert trimmed.confirmation_seeds == plan.confirmation_seeds
    assert trimmed.epochs >= 5
    for name, rates in trimmed.rates.items():
        assert (rates[0], rates[-1]) == (plan.rates[name][0], plan.rates[name][-1])
    assert trimmed.left_out == tuple(sentences)
    assert sentences
    estimate = estimate_sec(trimmed, SPEED, 1)
    assert estimate <= share * whole(plan) or "smallest fair comparison" in sentences[-1]


def test_fewer_settings_of_the_other_options_are_tried(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of(tune="all", batch_sizes=(32, "full"))
    assert "and 16 settings of the other options around the best of them" in plan.in_words()[0]
    pruned = replace(plan, rungs=RUNGS)
    trimmed, sentences = trim(plan, SPEED, 1, 1.2 * whole(pruned))
    assert (trimmed.num_configurations, trimmed.confirm_neighbours) == (4, True)
    assert "4 in place of 16 settings" in sentences[1]


def test_the_last_named_go_first(plan: Plan) -> None:
    floor = replace(plan, epochs=5, confirm_neighbours=False, batch_sizes=(32,), rungs=RUNGS)
    trimmed, sentences = trim(plan, SPEED, 1, 1.3 * whole(floor))
    assert (trimmed.batch_sizes, trimmed.optimizers, trimmed.losses) == (
        (32,),
        ("sgd", "adam"),
        ("mse", "mae"),
    )
    assert "these batch sizes were not tried: full" in " ".join(sentences)
    trimmed, sentences = trim(plan, SPEED, 1, 0.7 * whole(floor))
    assert (trimmed.optimizers, trimmed.losses) == (("sgd",), ("mse", "mae"))
    assert set(trimmed.rates) == set(trimmed.default_rates) == {"sgd"}
    assert "optimizers were not tried: adam" in " ".join(sentences)
    trimmed, _ = trim(plan, SPEED, 1, 0.35 * whole(floor))
    assert (trimmed.optimizers, trimmed.losses, trimmed.points_per_decade) == (("sgd",), ("mse",), 3)
    trimmed, _ = trim(plan, SPEED, 1, 1e-9)
    assert (trimmed.optimizers, trimmed.losses, trimmed.points_per_decade) == (("sgd",), ("mse",), 2)


def test_threads_share_the_work(plan: Plan) -> None:
    assert estimate_sec(plan, SPEED, 4) == pytest.approx(whole(plan) / 4)


def test_a_trimmed_plan_comes_back_from_its_json(plan: Plan) -> None:
    trimmed, _ = trim(plan, SPEED, 1, 1e-9)
    assert Plan.from_json(trimmed.to_json()) == trimmed


def test_the_speed_is_measured_in_each_regime(plan: Plan, engine: Callable[..., Any]) -> None:
    fake = engine(seconds_a_step=3e-4)
    assert measure(plan, fake, 2) == pytest.approx({32: 3e-4, "full": 3e-4})
    assert all(run.stop.max_steps is not None for run in fake.runs)


@pytest.mark.parametrize(
    ("given", "seconds"), [(60, 60), ("60s", 60), ("5m", 300), ("1.5h", 5400), (0.5, 0.5)]
)
def test_the_ways_to_write_a_budget(given: Any, seconds: float) -> None:
    assert seconds_of(given) == seconds


@pytest.mark.parametrize("given", [0, -1, "0s", "soon", "5 parsecs", "nan", "inf", "", True, None])
def test_what_is_no_budget_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="budget"):
        seconds_of(given)
