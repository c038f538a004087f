"""What a comparison may tune over: inside what the formula takes, and read back from the live optimizer as asked."""

from __future__ import annotations

import pytest
import torch

from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.tuning_range import TuningRange

SHARES = (0.0, 0.3, 1.0)


@pytest.mark.parametrize(
    ("found", "numbers"),
    [
        (TuningRange(-2.0, 2.0), [-2.0, 0.0, 2.0]),
        (TuningRange(1e-4, 1.0, "log"), [1e-4, 1e-2, 1.0]),
        (TuningRange(0.9, 0.999, "log_complement"), [0.9, 0.99, 0.999]),
    ],
)
def test_a_range_is_spread_evenly_on_its_scale(found: TuningRange, numbers: list[float]) -> None:
    assert [found.at(share) for share in (0.0, 0.5, 1.0)] == pytest.approx(numbers, rel=1e-12, abs=1e-12)
    assert float(f"{TuningRange(1.0, 2.0).at(1 / 3)}") == 1.33


@pytest.mark.parametrize("word", [word for word, loss in LOSSES.items() if loss.formula.tunable])
def test_a_losss_ranges_are_of_its_parameters_and_valid(word: str) -> None:
    formula = LOSSES[word].formula
    for name, found in formula.tunable.items():
        assert name in formula.parameters
        assert found.low < formula.parameters[name] < found.high or word == "asymmetric"
        assert all(formula.valid[name].holds(found.at(share)) for share in SHARES)


@pytest.mark.parametrize("word", [word for word, entry in OPTIMIZERS.items() if entry.tunable])
def test_an_optimizers_ranges_arrive_in_it(word: str) -> None:
    entry = OPTIMIZERS[word]
    for share in SHARES:
        asked = {name: found.at(share) for name, found in entry.tunable.items()}
        live = entry.cls(
            [torch.nn.Parameter(torch.ones(2))], lr=0.1, **{**entry.options, **entry.arguments(asked)}
        )
        found = entry.cls.hyperparameters_of(live.param_groups[0])
        assert {name: found[name] for name in asked} == asked


def test_the_named_of_the_mission_have_ranges() -> None:
    assert {"momentum", "weight_decay"} <= set(OPTIMIZERS["momentum"].tunable)
    assert {"beta1", "beta2", "eps", "weight_decay"} <= set(OPTIMIZERS["adam"].tunable)
    assert {"alpha", "eps"} <= set(OPTIMIZERS["rmsprop"].tunable)
    assert set(LOSSES["huber"].formula.tunable) == {"delta"}


def test_one_beta_leaves_the_others_as_they_are() -> None:
    assert OPTIMIZERS["adam"].arguments({"beta2": 0.5, "eps": 1e-3}) == {"betas": (0.9, 0.5), "eps": 1e-3}
    assert OPTIMIZERS["adam"].arguments({"betas": (0.1, 0.2), "beta1": 0.3}) == {"betas": (0.3, 0.2)}
    assert OPTIMIZERS["adan"].arguments({"beta3": 0.5}) == {"betas": (0.98, 0.92, 0.5)}
