"""What torch does around a step, for hooks and profilers, is done where somebody asks for it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.profiler import ProfilerActivity, profile

from steepest import optim

CLASSES = [
    "SGD",
    "Adam",
    "Lion",
    "Adafactor",
    "Muon",
    "ScheduleFreeSGD",
]  # torch's step, none, and steps of their own


def optimizer_of(name: str) -> Any:
    parameter = nn.Parameter(torch.ones(3, 2))
    parameter.grad = torch.ones(3, 2)
    return getattr(optim, name)([parameter], lr=0.1)


@pytest.mark.parametrize("name", CLASSES)
def test_hooks_of_one_optimizer_and_of_all(name: str) -> None:
    optimizer, other = optimizer_of(name), optimizer_of(name)
    calls: list[str] = []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: calls.append("before all")),
        register_optimizer_step_post_hook(lambda *_: calls.append("after all")),
        optimizer.register_step_pre_hook(lambda *_: calls.append("before")),
        optimizer.register_step_post_hook(lambda *_: calls.append("after")),
    ]
    try:
        optimizer.step()
        other.step()
    finally:
        for handle in handles:
            handle.remove()
    optimizer.step()
    assert calls == ["before all", "before", "after", "after all", "before all", "after all"]


@pytest.mark.parametrize(
    "register", [register_optimizer_step_pre_hook, register_optimizer_step_post_hook], ids=["pre", "post"]
)
def test_one_hook_of_all_alone(register: Any) -> None:
    optimizer, calls = optimizer_of("SGD"), []
    handle = register(lambda *_: calls.append("called"))
    try:
        optimizer.step()
    finally:
        handle.remove()
    assert calls == ["called"]


@pytest.mark.parametrize("name", CLASSES)
def test_a_hook_may_give_another_closure(name: str) -> None:
    optimizer = optimizer_of(name)
    optimizer.register_step_pre_hook(lambda its, arguments, words: ((its, lambda: 5.0), {}))
    assert optimizer.step(lambda: 3.0) == 5.0


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_derived_from_ours_has_its_hooks_called_as_torchs(name: str) -> None:
    def calls_of(base: Any) -> list[str]:
        class Derived(base):  # type: ignore[misc]
            def step(self, closure: Any = None) -> Any:
                return super().step(closure)

        parameter = nn.Parameter(torch.ones(3, 2))
        parameter.grad = torch.ones(3, 2)
        base([parameter], lr=0.1)  # torch hooks a class when it first makes an object of it
        optimizer, calls = Derived([parameter], lr=0.1), []
        optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
        optimizer.step()
        return calls

    assert calls_of(getattr(optim, name)) == calls_of(getattr(torch.optim, name, torch.optim.SGD))


@pytest.mark.parametrize("name", CLASSES)
def test_profilers_see_torchs_marks(name: str) -> None:
    optimizer = optimizer_of(name)
    optimizer.step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        optimizer.step()
        optimizer.zero_grad()
    seen = {event.key for event in profiler.key_averages()}
    assert {f"Optimizer.step#{name}.step", f"Optimizer.zero_grad#{name}.zero_grad"} <= seen


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_are_let_go_or_set_to_0(name: str, set_to_none: bool) -> None:
    optimizer = optimizer_of(name)
    (parameter,) = optimizer.param_groups[0]["params"]
    there = parameter.grad
    optimizer.zero_grad(set_to_none)
    assert parameter.grad is None if set_to_none else parameter.grad is there
    assert there.any() == set_to_none


def test_a_hook_is_given_what_torchs_is() -> None:
    for step in ([], [lambda: 3.0]):
        seen: list[Any] = []

        def note(its: Any, arguments: Any, words: Any, seen: list[Any] = seen) -> None:
            seen.append((len(arguments), words))

        for cls in (optim.SGD, torch.optim.SGD):
            optimizer: Any = cls([nn.Parameter(torch.ones(2))], lr=0.1)
            optimizer.register_step_pre_hook(note)
            optimizer.step(*step)
        assert seen[0] == seen[1]
    optimizer = optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    optimizer.register_step_pre_hook(lambda its, arguments, words: (arguments, {"closure": lambda: 7.0}))
    assert optimizer.step() == 7.0


def test_gradients_are_let_go_where_the_step_is_torchs() -> None:
    dense, layer = nn.Parameter(torch.ones(3)), nn.Embedding(4, 2, sparse=True)
    optimizer = optim.SGD([{"params": [dense]}, {"params": layer.parameters()}], lr=0.1)
    for k in range(3):
        optimizer.zero_grad()
        embedded = layer(torch.tensor([1])).sum() if k == 2 else (layer.weight**2).sum()
        (dense.sum() + embedded).backward()
        optimizer.step()
    assert dense.grad is not None
    gone = weakref.ref(dense.grad)
    optimizer.zero_grad()
    gc.collect()
    assert gone() is None


def test_a_step_takes_no_part_in_a_graph() -> None:
    """Whoever calls it may be recording one."""
    optimizer = optimizer_of("Adam")
    optimizer.param_groups[0]["params"][0].grad.requires_grad_()
    for _ in range(3):
        optimizer.step()
    assert not any(value.requires_grad for value in next(iter(optimizer.state.values())).values())
