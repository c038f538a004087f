"""Repeated splits: small tables draw training and validation rows anew for each fresh seed; the test rows stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from steepest.comparison.compare import compare
from steepest.comparison.fitted import FittedModel
from steepest.comparison.options import Options
from steepest.comparison.plan import Plan, make_plan, read_plan
from steepest.comparison.statistics import (
    corrected_p_values,
    difference_intervals,
    mean_interval,
    overlap_factor,
)
from steepest.data import Prepared, prepare
from steepest.errors import InputError

from .conftest import FakeEngine

SMALL: dict[str, Any] = {"losses": ["mse", "mae"], "optimizers": ["sgd", "adam"], "hidden": ()}


@pytest.fixture
def fakes(engine: Callable[..., FakeEngine], monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    started: list[FakeEngine] = []

    def start(data: Any, metric: str) -> FakeEngine:
        started.append(engine(data, best_rates={"sgd": 0.1, "adam": 0.1}, base={("mse", "adam"): 0.5}))
        return started[-1]

    monkeypatch.setattr("steepest.comparison.compare.start_engine", start)
    return started


def rows_of(prepared: Prepared) -> list[list[float]]:
    """The targets of each part, which tell the rows apart."""
    scale, mean = prepared.encoding.target_scale, prepared.encoding.target_mean
    parts = (prepared.y_train, prepared.y_validation, prepared.y_test)
    return [np.round(part * scale + mean, 4).tolist() for part in parts]


@pytest.mark.parametrize("group", [None, "g"])
def test_a_draw_moves_rows_between_training_and_validation_alone(pair: Any, group: str | None) -> None:
    table = pl.DataFrame({"a": pair[0][:, 0], "g": np.arange(200) // 5, "y": pair[1]})
    first, *drawn = (prepare(table, "y", group=group, redrawn=draw) for draw in range(4))
    train, validation, test = rows_of(first)
    assert rows_of(prepare(table, "y", group=group)) == [train, validation, test]
    for other in drawn:
        assert rows_of(other)[2] == test
        assert sorted(rows_of(other)[0] + rows_of(other)[1]) == sorted(train + validation)
        assert set(rows_of(other)[1]) != set(validation)
    assert len({tuple(sorted(rows_of(other)[1])) for other in drawn}) == 3


def test_each_fresh_seed_has_its_split_and_tuning_one(fakes: list[FakeEngine], pair: Any) -> None:
    comparison = compare(pair, **SMALL)
    plan = comparison.plan
    assert plan.splits == len(plan.confirmation_seeds) == 10
    first, *fresh = fakes
    assert len(fresh) == 10
    assert {run.seed for run in first.runs} == set(plan.tuning_seeds)
    assert [{run.seed for run in engine.runs} for engine in fresh] == [
        {seed} for seed in plan.confirmation_seeds
    ]
    assert len({engine.data.y_validation.tobytes() for engine in fakes}) == 11
    assert "10 fresh seeds, each with its own draw of training and validation rows" in plan.in_words()[0]
    assert "over 10 seeds, a split each)" in comparison.verdict["sentence"]
    assert comparison.verdict["splits"] == 10
    assert [one for engine in fakes for one in engine.predicted if one[1] != 40] == []  # the test rows alone


def test_every_seed_is_scored_by_its_own_encoding(fakes: list[FakeEngine], pair: Any) -> None:
    """The fake's error is its validation score in the target's units; on test rows it comes to the same."""
    runs = compare(pair, **SMALL).runs.filter(pl.col("test_rmse").is_not_null())
    assert runs.height == 8 * 10
    difference = (runs["test_rmse"] - runs["validation_score"]).abs()
    assert difference.max() < 1e-5  # a wrong split's mean or scale would be off by far more


def test_the_model_is_the_first_fresh_seeds(fakes: list[FakeEngine], pair: Any) -> None:
    comparison = compare(pair, **SMALL)
    assert isinstance(comparison.model, FittedModel)
    first = comparison.plan.confirmation_seeds[0]
    assert comparison.model.record.run.seed == comparison.verdict["model"]["seed"] == first
    assert comparison.model.encoding == prepare(pair, redrawn=1).encoding  # its own split's, not the tuning's
    assert comparison.model.encoding != prepare(pair).encoding
    assert comparison.verdict["model"]["num_rows"] == 160
    assert comparison.verdict["model"]["test"]["rmse"] < 1e-3  # the real engine's linear model of a line


def test_more_splits_are_more_seeds_and_the_plan_repeats_them(fakes: list[FakeEngine], pair: Any) -> None:
    first = compare(pair, splits=13, num_threads=4, **SMALL)
    assert first.plan.splits == len(first.plan.confirmation_seeds) == 13
    again = compare(pair, plan=json.loads(first.plan.to_json()), num_threads=1)
    assert again.verdict | {"seconds": 0} == first.verdict | {"seconds": 0}
    assert again.runs.equals(first.runs)


def test_one_split_is_what_a_large_table_has(pair: Any) -> None:
    large = prepare((np.tile(pair[0], (5, 1)), np.tile(pair[1], 5)))
    assert make_plan(large, Options()).splits == 1
    small = prepare((pair[0], pair[1]))
    plan = make_plan(small, Options())
    assert plan.splits == len(plan.confirmation_seeds)  # as many as there would be anyway: no run more
    assert plan.confirmation_seeds == make_plan(small, Options(splits=1)).confirmation_seeds
    assert make_plan(small, Options(splits=1)).overlap == 1.0
    assert make_plan(large, Options(splits=20)).splits == 20


def test_where_rows_cannot_be_drawn_again_there_is_one(pair: Any) -> None:
    prepared = prepare(pair)
    assert make_plan(prepared, Options(time="t")).splits == 1
    with pytest.raises(InputError, match="time has one"):
        make_plan(prepared, Options(time="t", splits=10))
    classes = prepare((pair[0], (pair[1] > 0).astype(int)))
    assert make_plan(classes, Options(group="g")).splits == 1
    assert make_plan(prepared, Options(group="g")).splits > 1


@pytest.mark.parametrize("splits", [0, 2, 9, 1.5, "many", 10**6])
def test_too_few_splits_are_refused(pair: Any, splits: Any) -> None:
    with pytest.raises(InputError, match="splits"):
        compare(pair, splits=splits, **SMALL)


@pytest.mark.parametrize("change", [{"splits": 9}, {"splits": 0}, {"splits": 10, "time": "t"}])
def test_a_plan_with_other_splits_is_refused(plan_of: Callable[..., Plan], change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="splits"):
        read_plan(json.loads(plan_of().to_json()) | change)


def test_the_factor_is_nadeaus_and_bengios() -> None:
    assert overlap_factor(1, 1 / 3) == 1.0
    assert overlap_factor(10, 1 / 3) ** 2 / 10 == pytest.approx(1 / 10 + 1 / 3)
    assert replace(PLAN, splits=10).overlap == pytest.approx(overlap_factor(10, 0.2 / 0.6))


PLAN = make_plan(prepare((np.eye(30), np.arange(30.0))), Options())


def test_intervals_and_tests_grow_by_it() -> None:
    draw = np.random.default_rng(2)
    differences = np.stack([np.zeros(10), draw.normal(1.0, 1.0, 10), draw.normal(0.0, 1.0, 10)])
    narrow, wide = (
        difference_intervals(differences, np.random.default_rng(0), factor) for factor in (1.0, 2.5)
    )
    np.testing.assert_allclose(np.ptp(wide, axis=1), 2.5 * np.ptp(narrow, axis=1))
    np.testing.assert_allclose(wide.mean(axis=1), narrow.mean(axis=1), atol=1e-12)
    scores = differences[1]
    (low, high), (lower, higher) = (
        mean_interval(scores, np.random.default_rng(0), factor) for factor in (1.0, 2.5)
    )
    assert (higher - lower) == pytest.approx(2.5 * (high - low))
    # Without overlap it is Student's paired t, and no difference is no evidence.
    ours = corrected_p_values(differences, 1.0)
    assert ours[1:] == pytest.approx([stats.ttest_1samp(row, 0.0).pvalue for row in differences[1:]])
    assert ours[0] == 1.0
    assert (corrected_p_values(differences[1:], 2.5) > ours[1:]).all()
    assert corrected_p_values(np.full((1, 10), 0.3), 2.5)[0] < 1e-99


def test_ties_on_overlapping_splits_are_called_ties_and_the_plain_test_would_not() -> None:
    """Two learners that are equal on all tables, scored on splits of one: what they share is no evidence."""
    draw = np.random.default_rng(4)
    factor, repetitions = overlap_factor(10, 1 / 3), 5_000
    # Nadeau and Bengio's model: scores of one table correlate by n2 / (n1 + n2).
    shared = draw.normal(size=(repetitions, 1)) * np.sqrt(1 / 4)
    differences = shared + draw.normal(size=(repetitions, 10)) * np.sqrt(3 / 4)
    corrected, plain = (np.mean(corrected_p_values(differences, one) <= 0.05) for one in (factor, 1.0))
    assert 0.04 <= corrected <= 0.06
    assert plain > 0.2
