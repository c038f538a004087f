"""The plan: equal budgets, a function of data and options alone, and back from its JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steepest.comparison.options import Options
from steepest.comparison.plan import Plan, default_epochs, make_plan, read_plan
from steepest.comparison.statistics import seeds_to_tell
from steepest.data import Prepared
from steepest.errors import InputError
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS


def test_every_cell_has_the_same_budget(prepared: Prepared) -> None:
    plan = make_plan(prepared, Options(batch_sizes=("full", 32)))
    assert len({len(rates) for rates in plan.rates.values()}) == 1
    assert len(plan.cells) == len(plan.losses) * len(plan.optimizers) * 2
    assert len(plan.tuning_seeds) == 3


def test_a_plan_of_one_pair_does_not_count_it(prepared: Prepared) -> None:
    one, *_ = make_plan(prepared, Options(losses=["mse"], optimizers=["sgd"])).in_words()
    assert one.startswith("Plan: 1 loss x 1 optimizer x 1 batch size; 16 learning rates on 3 seeds, then ")
    two, *_ = make_plan(prepared, Options(losses=["mse", "mae"], optimizers=["sgd"])).in_words()
    assert "; for each of the 2, 16 learning rates on 3 seeds, then " in two


def test_more_contestants_have_the_seeds_it_takes_to_tell_them_apart(prepared: Prepared) -> None:
    few = make_plan(prepared, Options(losses=["mse"], optimizers=["sgd"]))
    many = make_plan(prepared, Options(batch_sizes=("full", 32)))
    assert len(few.confirmation_seeds) == 10
    assert len(many.confirmation_seeds) == seeds_to_tell(2 * len(many.cells)) > 10


def test_the_defaults_are_what_the_registries_compare(prepared: Prepared) -> None:
    plan = make_plan(prepared, Options())
    usual = [name for name, loss in LOSSES.items() if loss.formula.compared_by_default]
    assert plan.losses == tuple(name for name in usual if "regression" in LOSSES[name].formula.tasks)
    assert plan.optimizers == tuple(name for name, entry in OPTIMIZERS.items() if entry.compared_by_default)
    assert plan.metric == "rmse"


def test_confirmation_seeds_are_fresh_and_seeds_differ_between_comparisons(prepared: Prepared) -> None:
    seen: set[int] = set()
    for seed in (0, 1, 2):
        plan = make_plan(prepared, Options(seed=seed, seeds=20))
        used = {*plan.tuning_seeds, *plan.confirmation_seeds}
        assert len(used) == len(plan.tuning_seeds) + len(plan.confirmation_seeds) == 40
        assert not used & seen
        seen |= used


def test_the_plan_is_a_function_of_data_and_options(prepared: Prepared) -> None:
    assert make_plan(prepared, Options(seed=3)).to_json() == make_plan(prepared, Options(seed=3)).to_json()


@pytest.mark.parametrize(("rows", "epochs"), [(10, 100), (2_000, 100), (3_000, 67), (50_000, 5), (10**7, 5)])
def test_epochs_follow_from_the_rows(rows: int, epochs: int) -> None:
    assert default_epochs(rows) == epochs


def test_a_plan_comes_back_from_its_json(plan_of: Callable[..., Plan], tmp_path: Path) -> None:
    plan = plan_of(tune="all", batch_sizes=("full", 16), seeds=4, seed=9, max_epochs=7, hidden=(8, 4))
    text = plan.to_json()
    (tmp_path / "plan.json").write_text(text, encoding="utf-8")
    assert Plan.from_json(text) == plan
    assert Plan.from_json(text).to_json() == text
    assert read_plan(tmp_path / "plan.json") == read_plan(json.loads(text)) == read_plan(plan) == plan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "not one of ours"),
        ({"losses": ["mse", "nonsense"]}, "loss 'nonsense' is not known here"),
        ({"loss_reasons": ["mse"]}, "wrong kind"),
        ({"losses": ["cross_entropy"]}, "does not fit"),
        ({"optimizers": "adam"}, "wrong kind|rates"),
        ({"epochs": "many"}, "epochs"),
        ({"epochs": None}, "epochs"),
        ({"tuning_seeds": [1]}, "seeds"),
        ({"tuning_seeds": [0, 0, 1]}, "seeds"),
        ({"confirmation_seeds": list(range(10))}, "fresh"),
        ({"rates": {"sgd": [0.1], "adam": [0.1, 0.01]}}, "ascending"),
        ({"rates": {"sgd": [0.1], "adam": [-0.1]}}, "positive"),
        ({"rates": {}}, "wrong kind"),
        ({"confirm_neighbours": "yes"}, "confirm_neighbours"),
        ({"architecture": {"hidden": [0], "activation": "relu"}}, "positive"),
        ({"schedules": ["cosin"]}, "no schedule 'cosin'"),
        ({"schedules": []}, "at least one schedule"),
        ({"warmup": 1.5}, "warmup is a share"),
        ({"rungs": [0.3, 0.1]}, "rungs are an ascending list"),
        ({"rungs": [0.5, 1.0]}, "between 0 and 1"),
        ({"num_configurations": -1}, "num_configurations"),
        ({"loss_ranges": {"huber": {"delta": [2.0, 1.0, "log"]}}}, "range of delta"),
        ({"loss_ranges": {"huber": {"delta": [0.0, 1.0, "log"]}}}, "range of delta"),
        ({"loss_ranges": {"huber": {"delta": 1.0}}}, "wrong kind"),
        ({"extra": 1}, "extra"),
        ({"task": "ranking"}, "ranking"),
        ({"batch_sizes": [10**6]}, "larger than"),
    ],
)
def test_a_plan_that_was_tampered_with_is_refused(
    plan_of: Callable[..., Plan], change: dict[str, Any], words: str
) -> None:
    content = json.loads(plan_of().to_json()) | change
    with pytest.raises(InputError, match=words):
        Plan.from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}'])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Plan.from_json(text)


def test_a_plan_without_the_entries_that_came_later_is_read(plan_of: Callable[..., Plan]) -> None:
    content = json.loads(plan_of().to_json())
    del content["group"], content["time"]
    assert read_plan(content) == plan_of()


def test_the_split_is_in_the_plan_and_its_words(prepared: Prepared) -> None:
    for name in ("group", "time"):
        plan = make_plan(prepared, Options(**{name: "patient"}))
        assert read_plan(json.loads(plan.to_json())) == plan
        assert [
            f"Split by 'patient', which is no feature: {words}" in " ".join(plan.in_words())
            for words in ("none of its groups is in two parts", "training rows come first")
        ] == [name == "group", name == "time"]


def test_a_plan_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_plan(tmp_path / "plan.json")
