"""torch's default dtype and device, which a program may have set to anything: a step is the same under all of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steepest import optim
from steepest.optim.table import GroupTable

NAMES = [
    name for name in optim.__all__ if isinstance(getattr(optim, name), type) and name not in ("OptimizerEntry", "Rule",
    "OptimizerSwitches", "SparseAdam")  # which counts its steps by a plain number
]  # fmt: skip
AVERAGING = ["Adam", "LAMB", "Lion", "AdEMAMix"]


@contextmanager
def defaults(dtype: torch.dtype = torch.float32, device: str = "cpu") -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)


UNDER = [
    {"dtype": torch.bfloat16},
    {"dtype": torch.float16},
    {"dtype": torch.float64},
    {"device": "meta"},
]
under = pytest.mark.parametrize("usual", UNDER, ids=lambda usual: str(*usual.values()))


def walked(name: str, usual: dict[str, Any], num_steps: int, **options: Any) -> tuple[Tensor, Any]:
    """A parameter of the CPU's after some steps, and its optimizer."""
    start, gradient = torch.linspace(-1, 1, 24).reshape(4, 6), torch.linspace(2, -1, 24).reshape(4, 6)
    parameter = nn.Parameter(start)
    with defaults(**usual):
        optimizer = getattr(optim, name)([parameter], **options)
        for _ in range(num_steps):
            parameter.grad = gradient.clone()
            optimizer.step()
    return parameter.detach(), optimizer


@under
@pytest.mark.parametrize("name", NAMES)
def test_steps_and_their_count_are_the_same(name: str, usual: dict[str, Any]) -> None:
    if name == "Adagrad" and usual.get("device") == "meta":
        pytest.skip(
            "torch's own constructor makes Adagrad's state on the default device, 'meta': no step can be taken"
        )
    num_steps = 4 if name == "Muon" else 260  # bfloat16 counts to 256
    there, optimizer = walked(name, usual, num_steps)
    expected, plain = walked(name, {}, num_steps)
    assert torch.equal(there, expected)
    for state in optimizer.state.values():
        if "step" in state:
            assert state["step"].dtype == torch.float32
            assert state["step"].device.type == "cpu"
            assert state["step"] == num_steps
    assert list(map(type, optimizer._tables.values())) == list(map(type, plain._tables.values()))


@under
@pytest.mark.parametrize("name", AVERAGING)
def test_state_of_8_bits_is_the_same(name: str, usual: dict[str, Any]) -> None:
    assert torch.equal(
        walked(name, usual, 3, state_dtype="8bit")[0], walked(name, {}, 3, state_dtype="8bit")[0]
    )


@under
def test_state_of_8_bits_goes_into_a_plain_optimizer(usual: dict[str, Any]) -> None:
    kept = walked("Adam", {}, 3, state_dtype="8bit")[1].state_dict()
    ends = []
    for defaults_there in ({}, usual):
        parameter = nn.Parameter(torch.ones(4, 6))
        with defaults(**defaults_there):
            optimizer = optim.Adam([parameter])
            optimizer.load_state_dict(copy.deepcopy(kept))
            optimizer.param_groups[0]["state_dtype"] = None
            parameter.grad = torch.full_like(parameter, 0.5)
            optimizer.step()
        ends.append(parameter.detach())
        assert optimizer.state[parameter]["exp_avg"].dtype == torch.float32
    assert torch.equal(*ends)


def test_counts_of_float64_are_stepped_on_and_in_the_kernel() -> None:
    start = torch.linspace(-1, 1, 7, dtype=torch.float64)
    theirs, ours = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    with defaults(torch.float64):
        peer, mine = torch.optim.AdamW([theirs]), optim.AdamW([ours])
        for step in range(6):
            if step == 3:
                mine.load_state_dict(copy.deepcopy(peer.state_dict()))
                with torch.no_grad():
                    ours.copy_(theirs)
                assert peer.state[theirs]["step"].dtype == torch.float64
            for optimizer, parameter in ((peer, theirs), (mine, ours)):
                parameter.grad = torch.full_like(parameter, 1.0 + step)
                optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert mine.state[ours]["step"] == 6
    assert list(map(type, mine._tables.values())) == [GroupTable]


@under
def test_a_rule_of_ones_own_is_read(usual: dict[str, Any]) -> None:
    def heavy(p: Any, g: Any, b: Any, lr: Any) -> Any:
        b = 0.5 * b + g
        return p - lr * b, b

    parameter = nn.Parameter(torch.ones(3))
    with defaults(**usual):
        optimizer: Any = optim.from_rule(heavy, ["b"], {"lr": 0.25})([parameter])
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert parameter.tolist() == [0.75] * 3
