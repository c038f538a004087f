"""The factors of each schedule: their ends, torch's own schedulers where they coincide, and the scheduler's ways."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from steepest import InputError
from steepest.schedules import SCHEDULES, ScheduleLR
from steepest.schedules.course import Course, check_warmup

STEPS = (1, 2, 3, 10, 1000)
# The factor of the last of n steps; the first one's is 1.
LAST: dict[str, Callable[[int], float]] = {
    "constant": lambda n: 1.0,
    "linear": lambda n: 1 / n,
    "cosine": lambda n: math.sin(math.pi / (2 * n)) ** 2,
    "wsd": lambda n: min(1.0, 5 / n),
}


def optimizer(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(make: Callable[[torch.optim.Optimizer], Any], num_steps: int, lr: float = 1.0) -> list[float]:
    """What a scheduler makes of the rate, step by step."""
    stepped = optimizer(lr)
    scheduler = make(stepped)
    found = []
    for _ in range(num_steps):
        found.append(float(stepped.param_groups[0]["lr"]))
        stepped.step()
        scheduler.step()
    return found


def test_every_schedule_has_its_ends_here() -> None:
    assert set(LAST) == set(SCHEDULES)


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_first_and_the_last_factor(name: str, num_steps: int) -> None:
    course = Course(name, num_steps)
    assert course.factor(0) == 1.0
    assert course.factor(num_steps - 1) == pytest.approx(LAST[name](num_steps), rel=1e-12)
    factors = [course.factor(step) for step in range(num_steps)]
    assert all(0.0 < factor <= 1.0 for factor in factors)
    assert factors == sorted(factors, reverse=True)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "constant"])
def test_a_decay_ends_where_its_steps_do(name: str) -> None:
    assert Course(name, 10).factor(10) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warm_up_rises_evenly_to_the_schedules_first_factor(name: str) -> None:
    course = Course(name, 20, warmup=0.2)
    assert course.warmup_steps == 4
    assert [course.factor(step) for step in range(5)] == [0.2, 0.4, 0.6, 0.8, 1.0]
    after = Course(name, 16)
    assert [course.factor(step) for step in range(4, 20)] == [after.factor(step) for step in range(16)]


def test_a_warm_up_has_a_step_and_leaves_one() -> None:
    assert [Course("linear", n, 0.01).warmup_steps for n in (1, 2, 3, 50, 100, 200)] == [0, 1, 1, 1, 1, 2]
    assert Course("linear", 2, 0.99).warmup_steps == 1


@pytest.mark.parametrize("num_steps", [1, 7, 40])
@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("constant", lambda stepped, n: lr_scheduler.ConstantLR(stepped, factor=1.0)),
        ("linear", lambda stepped, n: lr_scheduler.LinearLR(stepped, 1.0, 0.0, total_iters=n)),
        ("cosine", lambda stepped, n: lr_scheduler.CosineAnnealingLR(stepped, T_max=n)),
    ],
)
def test_torchs_own_scheduler_gives_the_same(name: str, peer: Any, num_steps: int) -> None:
    ours = rates(lambda stepped: ScheduleLR(stepped, name, num_steps=num_steps), num_steps, 0.3)
    theirs = rates(lambda stepped: peer(stepped, num_steps), num_steps, 0.3)
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-15)


def test_a_warm_up_and_a_cosine_are_torchs_two_in_sequence() -> None:
    def peer(stepped: torch.optim.Optimizer) -> Any:
        up = lr_scheduler.LinearLR(stepped, 1 / 6, 1.0, total_iters=5)
        down = lr_scheduler.CosineAnnealingLR(stepped, T_max=45)
        return lr_scheduler.SequentialLR(stepped, [up, down], milestones=[5])

    ours = rates(lambda stepped: ScheduleLR(stepped, "cosine", num_steps=50, warmup=0.1), 50)
    assert ours == pytest.approx(rates(peer, 50), rel=1e-9)


def test_wsd_is_flat_and_then_torchs_linear() -> None:
    def peer(stepped: torch.optim.Optimizer) -> Any:
        flat = lr_scheduler.ConstantLR(stepped, 1.0, total_iters=40)
        down = lr_scheduler.LinearLR(stepped, 1.0, 0.0, total_iters=10)
        return lr_scheduler.SequentialLR(stepped, [flat, down], milestones=[40])

    ours = rates(lambda stepped: ScheduleLR(stepped, "wsd", num_steps=50), 50)
    assert ours == pytest.approx(rates(peer, 50), rel=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_state_gone_on_with_gives_the_same_rates(name: str) -> None:
    whole = rates(lambda stepped: ScheduleLR(stepped, name, num_steps=12, warmup=0.25), 12)
    first = optimizer()
    scheduler = ScheduleLR(first, name, num_steps=12, warmup=0.25)
    for _ in range(5):
        first.step()
        scheduler.step()
    states = copy.deepcopy((first.state_dict(), scheduler.state_dict()))
    assert all(isinstance(value, (str, int, float, bool, list, type(None))) for value in states[1].values())
    second = optimizer()
    again = ScheduleLR(second, "constant", num_steps=99)
    second.load_state_dict(states[0])
    again.load_state_dict(states[1])
    found = []
    for _ in range(7):
        found.append(second.param_groups[0]["lr"])
        second.step()
        again.step()
    assert found == whole[5:]


def test_each_group_keeps_its_base_rate() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    stepped = torch.optim.SGD(groups)
    scheduler = ScheduleLR(stepped, "linear", num_steps=2)
    stepped.step()
    scheduler.step()
    assert [group["lr"] for group in stepped.param_groups] == [0.5, 0.05]


def test_a_step_beyond_the_last_is_refused() -> None:
    stepped = optimizer()
    scheduler = ScheduleLR(stepped, "linear", num_steps=1)
    stepped.step()
    scheduler.step()  # after the last step, as a loop is written
    with pytest.raises(InputError, match=r"ends with step 1, and the rate of step 3 was asked for"):
        scheduler.step()


@pytest.mark.parametrize("given", [-0.1, 1.0, 2, math.nan, "0.1", True, None])
def test_a_warm_up_out_of_range_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match=r"warmup is a share of the steps, from 0 to below 1"):
        check_warmup(given)


@pytest.mark.parametrize("given", [0, -3, 2.5, True, None])
def test_a_number_of_steps_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match=r"num_steps is .*; give the number of steps"):
        ScheduleLR(optimizer(), num_steps=given)


def test_a_number_of_steps_of_numpys_will_do() -> None:
    scheduler = ScheduleLR(optimizer(), num_steps=np.int64(3))  # type: ignore[arg-type]
    assert type(scheduler.state_dict()["num_steps"]) is int


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(InputError, match=r"There is no schedule 'cosin'; did you mean 'cosine'\?"):
        ScheduleLR(optimizer(), "cosin", num_steps=3)
