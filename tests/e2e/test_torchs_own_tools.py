"""What people put around a loss and an optimizer: averaging, schedules, compilation, several processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as processes
from torch import Tensor, nn

from steepest import losses, optim

CLOSE = {"rtol": 1e-12, "atol": 1e-13}
OPTIMIZERS = ["SGD", "RMSprop", "Adam", "AdamW"]


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()


def batches(count: int = 12) -> list[tuple[Tensor, Tensor]]:
    rng = torch.Generator().manual_seed(4)
    return [
        (torch.randn(16, 5, generator=rng, dtype=torch.float64), torch.randint(3, (16,), generator=rng))
        for _ in range(count)
    ]


def weights(model: nn.Module) -> Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in model.state_dict().values()])


def both(train: Callable[[Any, Any], Tensor]) -> None:
    """The same training with torch's classes and with ours."""
    torch.testing.assert_close(train(losses, optim), train(torch.nn, torch.optim), **CLOSE)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stochastic_weight_averaging(name: str) -> None:
    def train(of_losses: Any, of_optimizers: Any) -> Tensor:
        model = network()
        loss, optimizer = (
            of_losses.CrossEntropyLoss(),
            getattr(of_optimizers, name)(model.parameters(), lr=0.01),
        )
        average = torch.optim.swa_utils.AveragedModel(model)
        schedule = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=3)
        for step, (x, y) in enumerate(batches()):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
            if step > 4:
                average.update_parameters(model)
                schedule.step()
        torch.optim.swa_utils.update_bn([x for x, _ in batches(3)], average)
        return weights(average.module)

    both(train)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own tracer
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_compiled_model_and_loss(name: str) -> None:
    def train(of_losses: Any, of_optimizers: Any) -> Tensor:
        model = network()
        optimizer = getattr(of_optimizers, name)(model.parameters(), lr=0.01)
        loss = of_losses.CrossEntropyLoss(label_smoothing=0.1)
        together = torch.compile(lambda x, y: loss(model(x), y), backend="aot_eager", fullgraph=True)
        for x, y in batches():
            optimizer.zero_grad()
            together(x, y).backward()
            optimizer.step()
        return weights(model)

    both(train)


def test_schedules_one_after_another_and_clipped_gradients() -> None:
    def train(of_losses: Any, of_optimizers: Any) -> Tensor:
        model = network()
        optimizer = of_optimizers.AdamW(model.parameters(), lr=0.02)
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=4)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [4])
        for x, y in batches():
            optimizer.zero_grad(set_to_none=False)
            of_losses.CrossEntropyLoss()(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            schedule.step()
        return weights(model)

    both(train)


def _one_of_two(rank: int, ours: bool, meeting: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(5)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    of_losses, of_optimizers = (losses, optim) if ours else (torch.nn, torch.optim)
    model = nn.parallel.DistributedDataParallel(
        nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    )
    optimizer = of_optimizers.Adam(model.parameters(), lr=0.01)
    for x, y in batches():
        half = slice(rank, None, 2)
        optimizer.zero_grad()
        of_losses.CrossEntropyLoss()(model(x[half]), y[half]).backward()
        optimizer.step()
    torch.save(weights(model.module), f"{out}-{rank}")
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads, torn down on a busy machine, end the process now and then by an abort


def test_distributed_data_parallel(tmp_path: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    ends = []
    for ours in (True, False):
        out = str(tmp_path / f"end-{ours}")
        processes.spawn(_one_of_two, (ours, str(tmp_path / f"meeting-{ours}"), out), nprocs=2)
        ends += [torch.load(f"{out}-{rank}", weights_only=True) for rank in range(2)]
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], **CLOSE)
