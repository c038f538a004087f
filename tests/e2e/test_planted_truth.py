"""The benchmark of planted answers, one comparison of each kind: real training, from rows to the winner set."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "planted_truth.py"


@pytest.fixture(scope="module")
def planted() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("planted_truth", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    with module.twin():
        yield module
    del sys.modules[spec.name]


def test_twins_with_luck_of_their_own_both_win(planted: ModuleType) -> None:
    assert planted.winners(planted.PROBLEMS["twins"], 0) == {("mse", "adam"), ("mse", planted.TWIN)}


@pytest.mark.parametrize("name", ["outliers", "ravine", "outliers_on_splits"])
def test_what_was_planted_is_found(planted: ModuleType, name: str) -> None:
    problem = planted.PROBLEMS[name]
    names = planted.winners(problem, 0)
    assert names
    assert names <= problem.best


@pytest.mark.parametrize(
    ("name", "found", "counts", "met"),
    [
        ("twins", {("mse", "adam")}, {"false_winners": 20}, False),
        ("outliers", {("mae", "adam")}, {"winner_found": 20, "loser_out": 20}, True),
        ("ravine", {("mse", "sgd"), ("mse", "momentum")}, {"winner_found": 20, "loser_out": 0}, False),
    ],
)
def test_the_bars_can_be_missed(
    planted: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    found: set[tuple[str, str]],
    counts: dict[str, int],
    met: bool,
) -> None:
    monkeypatch.setattr(planted, "winners", lambda problem, repetition: found)
    result = planted.judge(planted.PROBLEMS[name], 20)
    assert {key: result[key] for key in counts} == counts
    assert result["met"] is met
