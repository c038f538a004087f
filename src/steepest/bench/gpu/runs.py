"""Many runs at once on a GPU: those of a user's module, and a mixed lot beside uniform ones by JAX and torch.func."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from steepest.bench import modules, training
from steepest.bench.gpu.peers import jax_on
from steepest.bench.peers import if_there, load
from steepest.bench.training import JAX_RUNS
from steepest.bench.work import OURS, Contestant, Field, Ratio, Work
from steepest.training.population import PopulationEngine

__all__ = ["BY_HAND", "works"]

BY_HAND = "torch.func.vmap by hand"
SIZES = (64, 128, 128, 10)
_NUM_RUNS, _QUICK_RUNS = 512, 12
_BATCH_SIZE, _RATE = 32, 1e-3
# Three losses by four optimizers, a run after the other; the peers' runs all have cross-entropy and Adam.
_LOSSES = ("cross_entropy", "focal", "generalized_cross_entropy")
_OPTIMIZERS = ("momentum", "rmsprop", "adam", "adamw")


def works(quick: bool, device: str) -> list[Work]:
    """The mixed runs, then those of :mod:`~steepest.bench.modules`."""
    num_runs = _QUICK_RUNS if quick else _NUM_RUNS
    net = "-".join(map(str, SIZES))
    name = f"{num_runs} runs, {net}, mixed losses and optimizers, batch {_BATCH_SIZE}, a step of a run"
    bars = (Ratio((JAX_RUNS,), 1.0), Ratio((BY_HAND,), 5.0))
    mixed = Work(name, partial(_field, num_runs, device), bars)
    return [mixed, *modules.works(quick, device)]


def _field(num_runs: int, device: str) -> Field:
    made = modules.Made(modules.Case(SIZES, None), device)
    runs = [
        replace(run, loss=_LOSSES[i % len(_LOSSES)], optimizer=_OPTIMIZERS[i % len(_OPTIMIZERS)])
        for i, run in enumerate(made.runs(num_runs))
    ]
    return {
        OURS: modules.together(made.engine(PopulationEngine), runs),
        JAX_RUNS: if_there(partial(_by_jax, num_runs, device)),
        BY_HAND: _by_hand(made, num_runs),
    }


def _by_jax(num_runs: int, device: str) -> Contestant:
    """With products in float32, as ours and torch's are; left alone, JAX rounds their factors to tf32 on a GPU."""
    jax_on(device)
    inputs, *hidden, classes = SIZES
    case = training.Case(inputs, tuple(hidden), classes, _BATCH_SIZE, 1, {}, num_runs)
    plain = training.by_jax(case, training.rows_of(inputs, classes))

    def call() -> None:
        with load("jax").default_matmul_precision("float32"):
            plain.call()

    return replace(plain, call=call, note="all runs alike, products in float32")


def _by_hand(made: modules.Made, num_runs: int) -> Contestant:
    """What a person writes: gradients of all runs by ``vmap``, the same batches, one Adam over stacked weights."""
    base = made.module().to(made.device)
    stacked, _ = torch.func.stack_module_state([made.module().to(made.device) for _ in range(num_runs)])
    optimizer = torch.optim.Adam(list(stacked.values()), lr=_RATE, fused=True)
    x, y = made.x.to(made.device), made.y.to(made.device)

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(torch.func.functional_call(base, parameters, (x,)), y)

    gradients: Callable[..., Mapping[str, Tensor]] = torch.vmap(torch.func.grad(loss), (0, None, None))

    def call() -> None:
        for batch in torch.randperm(len(x), device=x.device).split(_BATCH_SIZE):
            found = gradients({name: weight.detach() for name, weight in stacked.items()}, x[batch], y[batch])
            for name, weight in stacked.items():
                weight.grad = found[name]
            optimizer.step()
        if x.is_cuda:
            torch.cuda.synchronize()

    units = num_runs * (len(x) // _BATCH_SIZE)
    return Contestant(call, torch.__version__, units=units, note="all runs alike")
