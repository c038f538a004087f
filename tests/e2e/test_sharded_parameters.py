"""Our optimizers in a program's own FSDP2 loop: as on one process, as torch's own, and with torch's checkpoints."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import multiprocessing as processes

from steepest import losses, optim
from steepest.errors import InputError
from steepest.optim import OPTIMIZERS

CLOSE = {"rtol": 1e-12, "atol": 1e-14}
SHAPES = {"matrix": (5, 3), "vector": (7,), "one": (1,), "wide": (2, 8)}  # some parts are empty


def classes() -> dict[str, Any]:
    """Every optimizer in the registry, and those that are not."""
    made = {
        name: lambda params, entry=entry: entry.cls(params, lr=entry.default_lr, **entry.options)
        for name, entry in OPTIMIZERS.items()
    }
    made["schedule_free_sgd"] = lambda params: optim.ScheduleFreeSGD(params, lr=0.1)
    made["schedule_free_adamw"] = lambda params: optim.ScheduleFreeAdamW(params, lr=0.1)
    made["adafactor"] = lambda params: optim.Adafactor(params, weight_decay=0.1)
    made["kahan"] = lambda params: optim.AdamW(params, rounding="kahan", state_dtype=torch.float32)
    return made


def gradients(step: int, dtype: torch.dtype) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(step)
    return {name: torch.randn(shape, generator=draw).to(dtype) for name, shape in SHAPES.items()}


def values(dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: value + 0.5 for name, value in gradients(99, dtype).items()}


def stepped(name: str, make: Any, spread: Any) -> tuple[Any, dict[str, nn.Parameter]]:
    """Four steps of an optimizer on parameters that ``spread`` has laid out."""
    dtype = torch.float32 if name == "kahan" else torch.float64
    matrices = ("matrix", "wide")
    start = {key: value for key, value in values(dtype).items() if name != "muon" or key in matrices}
    parameters = {key: nn.Parameter(spread(value)) for key, value in start.items()}
    optimizer = make(list(parameters.values()))
    for step in range(4):
        for key, gradient in gradients(step, dtype).items():
            if key in parameters:
                parameters[key].grad = spread(gradient)
        optimizer.step()
    if hasattr(optimizer, "eval"):
        optimizer.eval()
    return optimizer, parameters


def in_two(rank: int, work: Any, meeting: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    work(rank)
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads, torn down on a busy machine, end the process now and then by an abort


def together(work: Any, tmp_path: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    processes.spawn(in_two, (work, str(tmp_path / "meeting")), nprocs=2)


def all_optimizers(rank: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    made = classes()
    made["muon"] = lambda params: optim.Muon(params, orthogonalize_dtype=torch.float64)
    for placement, (name, make) in product((Shard(0), Replicate()), made.items()):

        def spread(value: Tensor, placement: Any = placement) -> Tensor:
            return distribute_tensor(value.clone(), mesh, [placement])

        _, alone = stepped(name, make, torch.clone)
        _, shared = stepped(name, make, spread)
        for key, parameter in alone.items():
            gap = float((shared[key].full_tensor() - parameter).abs().max())
            assert gap <= (1e-6 if name == "kahan" else 1e-13), (name, key, gap)


def test_every_optimizer_steps_sharded_parameters_as_whole_ones(tmp_path: Path) -> None:
    together(all_optimizers, tmp_path)


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def trained(of_losses: Any, make: Any, rank: int, steps: int = 6) -> tuple[nn.Module, Any]:
    from torch.distributed.fsdp import fully_shard

    model = network()
    fully_shard(model[0])
    fully_shard(model)
    optimizer = make(model.parameters())
    torch.manual_seed(6)
    for _ in range(steps):
        x, y = torch.randn(8, 5, dtype=torch.float64), torch.randint(3, (8,))
        half = slice(rank, None, 2)
        optimizer.zero_grad()
        of_losses.CrossEntropyLoss()(model(x[half]), y[half]).backward()
        optimizer.step()
    return model, optimizer


def end(model: nn.Module) -> Tensor:
    return torch.cat([parameter.full_tensor().detach().flatten() for parameter in model.parameters()])


def own_loop(rank: int) -> None:
    """Training, skipping, checkpoints and refusals under FSDP2."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    ours, our_adam = trained(losses, lambda p: optim.Adam(p, lr=0.01), rank)
    theirs, _ = trained(nn, lambda p: torch.optim.Adam(p, lr=0.01), rank)
    torch.testing.assert_close(end(ours), end(theirs), **CLOSE)
    in_backward, _ = trained(losses, lambda p: optim.Adam(p, lr=0.01, in_backward=True), rank)
    torch.testing.assert_close(end(in_backward), end(theirs), **CLOSE)

    # torch's state goes on with ours, as if it had been ours all along
    halfway, their_adam = trained(nn, lambda p: torch.optim.Adam(p, lr=0.01), rank, steps=3)
    state = get_optimizer_state_dict(halfway, their_adam)
    fresh = optim.Adam(halfway.parameters(), lr=0.01)
    set_optimizer_state_dict(halfway, fresh, state)
    torch.manual_seed(6)
    for step in range(6):
        x, y = torch.randn(8, 5, dtype=torch.float64), torch.randint(3, (8,))
        if step < 3:
            continue
        half = slice(rank, None, 2)
        fresh.zero_grad()
        losses.CrossEntropyLoss()(halfway(x[half]), y[half]).backward()
        fresh.step()
    torch.testing.assert_close(end(halfway), end(ours), **CLOSE)
    assert get_optimizer_state_dict(ours, our_adam)["state"]["0.weight"]["step"] == 6

    # a NaN in one process's part is skipped by both
    careful = optim.Adam(ours.parameters(), lr=0.01, skip_nonfinite=True)
    before = end(ours)
    for parameter in ours.parameters():
        parameter.grad = torch.ones_like(parameter)
    if rank == 1:
        next(ours.parameters()).grad.to_local()[0] = float("nan")
    careful.step()
    assert careful.num_skipped_steps == 1
    torch.testing.assert_close(end(ours), before, rtol=0, atol=0)

    parameter = next(ours.parameters())
    with pytest.raises(InputError, match="8bit"):
        optim.Adam([nn.Parameter(parameter.detach().float())], state_dtype="8bit")
    with pytest.raises(InputError, match="lies in parts"):
        optim.SparseAdam([parameter]).step()
    wide = optim.Adafactor([nn.Parameter(parameter.detach().float())], state_dtype=torch.float32)
    wide.param_groups[0]["params"][0].grad = torch.ones_like(wide.param_groups[0]["params"][0])
    with pytest.raises(
        InputError, match="for whole, contiguous parameters and gradients in the CPU's memory"
    ):
        wide.step()
    careful.state[parameter] = {
        "step": torch.tensor(1.0),
        "exp_avg": torch.zeros(7, 5),
        "exp_avg_sq": torch.zeros(7, 5),
    }
    with pytest.raises(InputError, match="set_optimizer_state_dict"):
        optim.Adam.step(_finite(careful, parameter))


def _finite(optimizer: Any, parameter: Any) -> Any:
    parameter.grad = torch.ones_like(parameter)
    return optimizer


def test_a_loop_of_ones_own_under_fsdp2(tmp_path: Path) -> None:
    together(own_loop, tmp_path)
