"""Results do not depend on how many threads torch may use: to the bit, forward, backward and step."""

from __future__ import annotations

import inspect
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.contract.backends import COMPILED
from tests.contract.samples import DTYPES, generator, pointwise_samples
from torch import Tensor, nn

from steepest.backends import threads as pool
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS

THREADS = (1, 2, 3)
LENGTH = 300_011  # three pieces of a loss, the last one short


@pytest.fixture(autouse=True)
def _the_threads_as_they_were() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def long_rows(name: str, dtype: str) -> tuple[Tensor, Tensor]:
    rng = generator(name, dtype, "threads")
    if LOSSES[name].formula.family == "softmax":
        return torch.tensor(rng.normal(size=(LENGTH // 3, 3)) * 5).to(DTYPES[dtype]), torch.tensor(
            rng.integers(0, 3, LENGTH // 3)
        )
    predictions, targets = pointwise_samples(LOSSES[name].formula, dtype, tails=False)
    picked = torch.tensor(rng.integers(0, len(predictions), LENGTH))
    return predictions[picked], targets[picked]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.filterwarnings("ignore:reduction:UserWarning")  # kl_div's mean, as torch's
@pytest.mark.parametrize("name", COMPILED)
def test_losses(name: str, dtype: str, reduction: str) -> None:
    predictions, targets = long_rows(name, dtype)
    results = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        leaf = predictions.clone().requires_grad_()
        loss = LOSSES[name](reduction=reduction)(leaf, targets)
        assert "Fused" in type(loss.grad_fn).__name__
        loss.backward(torch.ones_like(loss))
        results.append((loss.detach(), leaf.grad))
    for other in results[1:]:
        assert all(torch.equal(mine, its) for mine, its in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str, dtype: str) -> None:
    entry = OPTIMIZERS[name]
    rng = generator(name, dtype)
    sizes = (LENGTH, 5, 70_000, 1)  # some larger than a piece, some far smaller
    starts = [torch.tensor(rng.normal(size=size)).to(DTYPES[dtype]) for size in sizes]
    gradients = [torch.tensor(rng.normal(size=size)).to(DTYPES[dtype]) for size in sizes]
    results: list[Any] = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        parameters = [nn.Parameter(start.clone()) for start in starts]
        decay = {"weight_decay": 0.1} if "weight_decay" in inspect.signature(entry.cls).parameters else {}
        optimizer = entry.cls(parameters, lr=0.01, **decay, **entry.options)
        for step in range(3):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient / (step + 1)
            optimizer.step()
        slots = [value for state in optimizer.state.values() for value in state.values() if value is not None]
        results.append([parameter.detach() for parameter in parameters] + slots)
    for other in results[1:]:
        assert all(torch.equal(mine, its) for mine, its in zip(results[0], other, strict=True))


def in_place() -> list[Tensor]:
    """A loss and a step that are worth several threads."""
    torch.set_num_threads(2)
    given = torch.linspace(-3, 3, 2_000_000).requires_grad_()
    loss = LOSSES["bce"]()(given, torch.full_like(given.detach(), 0.3))
    loss.backward()
    parameter = nn.Parameter(given.detach().clone())
    parameter.grad = given.grad
    OPTIMIZERS["adam"].cls([parameter], lr=0.1).step()
    return [loss.detach(), parameter.detach()]


def test_a_pool_of_its_own_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch has another runtime than the one whose threads are borrowed."""
    by_torchs = in_place()
    monkeypatch.setattr(pool, "_torchs_team", lambda: None)
    assert all(map(torch.equal, by_torchs, in_place()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    """OpenMP's runtime would wait for threads that the fork has not taken along."""
    torch.set_num_threads(2)
    given = torch.linspace(-3, 3, 2_000_000).requires_grad_()
    target = torch.full_like(given.detach(), 0.3)
    loss = LOSSES["bce"](reduction="sum")

    def gradient() -> Any:
        return torch.autograd.grad(loss(given, target), given)[0].numpy()

    wanted = gradient()
    child = os.fork()
    if child == 0:
        os._exit(0 if pool._is_fork and (gradient() == wanted).all() else 1)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)
