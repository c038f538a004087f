"""Small steps are taken on one of torch's threads, others on as many as there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import steepest
from steepest.training.step_sizes import StepSizes, sizes_of, threads_for

ROWS = 90
X = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)
Y = X @ np.arange(6, dtype=np.float32)
SHORT: dict[str, Any] = {"losses": ["mse"], "optimizers": ["sgd"], "max_epochs": 1, "together": False}


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Watched(nn.Module):
    """Notes how many threads there are when it is called in training."""

    seen: set[int]

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.add(torch.get_num_threads())
        return self.layers(x)  # type: ignore[no-any-return]


def watched(width: int) -> type[Watched]:
    class Module(Watched):
        def __init__(self) -> None:
            super().__init__(width)

    Module.seen = set()
    return Module


# A weight of 6 x 6,000 elements is large; so is what 32 rows make of 1,200 units, whose weights are small.
@pytest.mark.parametrize(("width", "threads"), [(16, 1), (1000, 1), (1200, 3), (6000, 3)])
def test_a_comparison_takes_small_steps_on_one_thread(width: int, threads: int) -> None:
    made = watched(width)
    data = [(X[part], Y[part]) for part in (slice(60), slice(60, 75), slice(75, 90))]
    steepest.compare(model=made, data=data, **SHORT)
    assert made.seen == {threads}
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("width", "threads"), [(16, 1), (6000, 3)])
def test_a_training_does_too(width: int, threads: int, tmp_path: Path) -> None:
    made = watched(width)
    steepest.fit_module(made, (X, Y), out=tmp_path, loss="mse", optimizer="sgd", lr=1e-6, max_epochs=1)
    assert made.seen == {threads}
    assert torch.get_num_threads() == 3


def test_the_largest_tensor_of_a_row_is_seen_wherever_it_is() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.last = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 1)

        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            return self.last(self.recurrent(inputs["x"])[0][:, -1])  # type: ignore[no-any-return]

    module = Several()
    output, sizes = sizes_of(module, 2, lambda: module({"x": torch.zeros(2, 7, 3)}))
    assert output.shape == (2, 1)
    assert sizes == StepSizes(a_row=35, weights=75)  # 7 places of 5 units; 3 gates of 5 by 5
    assert not any(part._forward_hooks for part in module.modules())
    alone = nn.Linear(4, 2)
    assert sizes_of(alone, 1, lambda: alone(torch.zeros(1, 4)))[1] == StepSizes(4, 8)


@pytest.mark.filterwarnings(
    "ignore:.torch.jit:DeprecationWarning"
)  # people have such modules for a while yet
def test_what_torchscript_does_is_not_seen_and_trained_all_the_same() -> None:
    def scripted() -> nn.Module:
        return torch.jit.trace(nn.Linear(6, 1), torch.zeros(2, 6))  # type: ignore[no-any-return]

    module = scripted()
    output, sizes = sizes_of(module, 2, lambda: module(torch.zeros(2, 6)))
    assert (output.shape, sizes) == ((2, 1), None)
    parts = [(X[part], Y[part]) for part in (slice(50), slice(50, 70), slice(70, ROWS))]
    assert steepest.compare(model=scripted, data=parts, **SHORT).verdict["status"] == "complete"


@pytest.mark.parametrize(
    ("sizes", "rows", "device", "threads"),
    [
        (StepSizes(1024, 10), 32, "cpu", 1),
        (StepSizes(1025, 10), 32, "cpu", 3),
        (StepSizes(1, 32_769), 1, "cpu", 3),
        (StepSizes(1, 1), 1, "meta", 3),
        (None, 1, "cpu", 3),
    ],
)
def test_threads_come_back(sizes: StepSizes | None, rows: int, device: str, threads: int) -> None:
    def failing() -> None:
        with threads_for(sizes, rows, torch.device(device)):
            assert torch.get_num_threads() == threads
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        failing()
    assert torch.get_num_threads() == 3
