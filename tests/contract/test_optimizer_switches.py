"""Switches that every optimizer has, and state that keeps its type."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steepest.optim import SGD, Adam, AdamW, RMSprop

USED: list[tuple[Any, dict[str, Any]]] = [
    (SGD, {}),
    (SGD, {"momentum": 0.9, "convention": "keras"}),
    (RMSprop, {"momentum": 0.9, "centered": True}),
    (Adam, {"amsgrad": True}),
    (AdamW, {}),
]
use = pytest.mark.parametrize(("cls", "options"), USED, ids=lambda v: getattr(v, "__name__", ""))


def snapshot(parameters: list[nn.Parameter], optimizer: Any) -> list[Tensor]:
    state = [
        value
        for parameter in parameters
        for value in optimizer.state.get(parameter, {}).values()
        if value is not None
    ]
    return [tensor.detach().clone() for tensor in (*parameters, *state)]


def unchanged(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@use
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_step_with_a_gradient_that_is_not_finite_is_left_out(
    cls: Any, options: dict[str, Any], bad: float, dtype: torch.dtype
) -> None:
    given = [nn.Parameter(torch.ones(size, dtype=dtype)) for size in (1, 65, 4097)]
    optimizer = cls(given, lr=0.1, skip_nonfinite=True, **options)
    for group_step in range(2):
        for parameter in given:
            parameter.grad = torch.full_like(parameter, torch.finfo(dtype).max if group_step else 0.5)
        if not group_step:
            optimizer.step()
    before = snapshot(given, optimizer)
    assert given[2].grad is not None
    given[2].grad[4096] = bad  # the last element of the last tensor; the others hold finite numbers
    optimizer.step()
    assert unchanged(before, snapshot(given, optimizer))
    assert optimizer.num_skipped_steps == 1
    given[2].grad[4096] = torch.finfo(dtype).max  # large, and their sum infinite, but finite
    optimizer.step()
    assert optimizer.num_skipped_steps == 1
    assert not unchanged(before, snapshot(given, optimizer))


@use
def test_without_the_switch_nothing_is_left_out(cls: Any, options: dict[str, Any]) -> None:
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.tensor([math.nan, 1.0, 1.0])
    optimizer = cls([parameter], lr=0.1, **options)
    optimizer.step()
    assert optimizer.num_skipped_steps == 0
    assert bool(parameter[0].isnan())


@use
def test_a_first_step_left_out_leaves_no_state(cls: Any, options: dict[str, Any]) -> None:
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.full((3,), math.nan)
    optimizer = cls([parameter], lr=0.1, skip_nonfinite=True, **options)
    optimizer.step()
    assert not optimizer.state.get(parameter)


def test_one_group_is_enough_to_leave_out_all() -> None:
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Adam([{"params": [a]}, {"params": [b], "lr": 0.2}], skip_nonfinite=True)
    a.grad, b.grad = torch.ones(2), torch.tensor([1.0, math.inf])
    optimizer.step()
    assert torch.equal(a.detach(), torch.ones(2))


def test_with_a_closure() -> None:
    """The closure's gradients are those that count, and its loss is returned."""
    parameter = nn.Parameter(torch.ones(2))
    optimizer = Adam([parameter], skip_nonfinite=True)
    factor = [math.inf]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (parameter * factor[0]).sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == math.inf
    assert torch.equal(parameter.detach(), torch.ones(2))
    factor[0] = 1.0
    assert float(optimizer.step(closure).detach()) == 2.0
    assert not torch.equal(parameter.detach(), torch.ones(2))
    assert optimizer.num_skipped_steps == 1


@pytest.mark.parametrize("kind", ["sparse", "complex", "empty", "not contiguous"])
def test_gradients_of_every_kind(kind: str) -> None:
    dtype = torch.complex64 if kind == "complex" else torch.float32
    parameter = nn.Parameter(torch.ones(4, 0 if kind == "empty" else 3, dtype=dtype))
    other = nn.Parameter(torch.ones(1))
    optimizer = SGD([parameter, other], lr=0.5, skip_nonfinite=True)
    for bad in (False, True):
        gradient = torch.ones_like(parameter)
        if bad and gradient.numel():
            gradient[2, 1] = complex(0.0, math.nan) if kind == "complex" else math.nan
        if kind == "sparse":
            gradient = gradient.to_sparse()
        if kind == "not contiguous":
            gradient = gradient.t().contiguous().t()
        parameter.grad, other.grad = gradient, torch.tensor([math.nan if bad else 1.0])
        optimizer.step()
    assert optimizer.num_skipped_steps == 1
    assert torch.equal(parameter.detach(), torch.full_like(parameter, 0.5))


def test_switch_and_count_go_with_copies_and_stay_out_of_the_state_dict() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = Adam([parameter], skip_nonfinite=True)
    parameter.grad = torch.ones(2)
    optimizer.step()
    parameter.grad = torch.full((2,), math.nan)
    optimizer.step()
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):  # noqa: S301
        assert copied.skip_nonfinite
        assert copied.num_skipped_steps == 1
    state = optimizer.state_dict()
    assert not [key for group in state["param_groups"] for key in group if "skip" in key]
    torch.optim.Adam([parameter]).load_state_dict(copy.deepcopy(state))
    optimizer.load_state_dict(state)
    assert optimizer.num_skipped_steps == 1
    optimizer.step()
    assert optimizer.num_skipped_steps == 2


# --- state keeps its type ------------------------------------------------------------------------------------


def widened(optimizer: Any) -> dict[str, Any]:
    """A state dictionary whose slots are float32."""
    state: dict[str, Any] = copy.deepcopy(optimizer.state_dict())
    for slots in state["state"].values():
        for key, value in slots.items():
            if isinstance(value, Tensor) and key != "step":
                slots[key] = value.float()
    return state


@pytest.mark.parametrize(("cls", "options"), USED[1:], ids=lambda v: getattr(v, "__name__", ""))
def test_float32_state_survives_beside_bfloat16_parameters(cls: Any, options: dict[str, Any]) -> None:
    given = [nn.Parameter(torch.linspace(-1, 1, 65).bfloat16())]
    first = cls(given, lr=0.01, **options)
    given[0].grad = torch.linspace(1, 2, 65).bfloat16()
    first.step()
    assert {v.dtype for k, v in first.state[given[0]].items() if k != "step" and v is not None} == {
        torch.bfloat16
    }
    second = cls(given, lr=0.5, **options)
    second.load_state_dict(widened(first))

    # The same run with the parameter in float32, rounded after every step: what the state must be.
    wide = [nn.Parameter(given[0].detach().float())]
    third = cls(wide, lr=0.5, **options)
    third.load_state_dict(widened(first))
    for _ in range(3):
        wide[0].grad = given[0].grad.float()
        second.step()
        third.step()
        wide[0].data = wide[0].data.bfloat16().float()
        assert torch.equal(given[0].detach().float(), wide[0].detach())
        for name, value in third.state[wide[0]].items():
            if value is not None and name != "step":
                mine = second.state[given[0]][name]
                assert mine.dtype == torch.float32
                torch.testing.assert_close(mine, value, rtol=1e-6, atol=0.0)
    again = cls(given, **options)
    again.load_state_dict(copy.deepcopy(second.state_dict()))
    assert all(v.dtype == torch.float32 for v in again.state[given[0]].values() if v is not None)


def test_a_state_is_widened_as_torch_does() -> None:
    """float32 state loaded beside float64 parameters: torch's cast loses nothing there, and is kept."""
    narrow, wide = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, dtype=torch.float64))
    first = Adam([narrow])
    narrow.grad = torch.ones(3)
    first.step()
    second = Adam([wide])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.state[wide]["exp_avg"].dtype == torch.float64
    assert second.state[wide]["step"].dtype == torch.float32


def test_hooks_see_a_loading_state_as_in_torch() -> None:
    """A hook that changes the dictionary is heard, and one that runs afterwards finds the types in place."""
    parameter = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    parameter.grad = torch.ones_like(parameter)
    first = SGD([parameter], lr=0.1, momentum=0.9)
    first.step()
    second = SGD([parameter], lr=0.1, momentum=0.9)

    def doubled(_: Any, given: dict[str, Any]) -> dict[str, Any]:
        state = {key: {k: 2 * v for k, v in slots.items()} for key, slots in given["state"].items()}
        return {**given, "state": state}

    found = []
    second.register_load_state_dict_pre_hook(doubled)
    second.register_load_state_dict_post_hook(
        lambda o: found.append(o.state[parameter]["momentum_buffer"].clone())
    )
    second.load_state_dict(widened(first))
    assert torch.equal(found[0], torch.full((3,), 2.0))  # float32
    assert len(second._optimizer_load_state_dict_post_hooks) == 1  # the user's; ours are gone
