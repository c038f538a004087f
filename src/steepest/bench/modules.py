"""Many runs of a user's own module: trained together, against one after another, by us and by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from steepest.bench.work import OURS, Contestant, Field, Ratio, Work
from steepest.training.modules import build_module
from steepest.training.population import PopulationEngine
from steepest.training.run import Architecture, Run, Stop
from steepest.training.torch_data import Rows, as_rows
from steepest.training.torch_engine import TorchEngine

__all__ = ["works"]

ALONE, EAGER, VMAPPED = "steepest, one run after another", "torch eager loop", "steepest, through torch.vmap"
_ROWS, _RUNS, _SEEDS = 1024, 64, 3
_BATCH_SIZE, _RATE = 32, 1e-3


class Case(NamedTuple):
    """A net and how many times as fast a step of one of its runs has to be as each peer's."""

    sizes: tuple[int, ...]
    at_least: float | None


CASES = (Case((10, 5, 1), 5.0), Case((64, 128, 128, 10), None))


class Wrapped(torch.nn.Module):
    """A module of another class, so that on a GPU it is stacked through vmap and not by the perceptrons' kernels."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.inner(x)
        return y


def works(quick: bool, device: str = "cpu") -> list[Work]:
    """The cases, on one thread; on a GPU with more runs, shown and not judged."""
    if device == "cpu":
        return [_work(case, 4 if quick else _RUNS, device) for case in CASES]
    cases = [case._replace(at_least=None) for case in CASES]
    return [_work(case, num, device) for case in cases for num in ((4,) if quick else (_RUNS, 512))]


def _work(case: Case, num_runs: int, device: str) -> Work:
    net = "-".join(map(str, case.sizes))
    name = f"{num_runs} runs of a user's module, {net}, adam, batch {_BATCH_SIZE}, a step of a run"
    peers = (ALONE, EAGER) if device == "cpu" else (ALONE, EAGER, VMAPPED)
    bars = tuple(Ratio((peer,), case.at_least) for peer in peers)
    return Work(name, partial(_field, case, num_runs, device), bars, num_threads=1)


def _field(case: Case, num_runs: int, device: str) -> Field:
    torch.manual_seed(0)
    x = torch.randn(_ROWS, case.sizes[0])
    y = torch.randn(_ROWS, 1) if case.sizes[-1] == 1 else torch.randint(case.sizes[-1], (_ROWS,))
    rows = as_rows((x, y), "train")
    loss, task, metric = (
        ("mse", "regression", "rmse") if case.sizes[-1] == 1 else ("cross_entropy", "multiclass", "log_loss")
    )

    def factory() -> torch.nn.Module:
        return build_module(list(case.sizes), Architecture())

    first = Run(loss, "adam", _RATE, _BATCH_SIZE, stop=Stop(1))
    runs = [replace(first, lr=_RATE * 0.9 ** (i // _SEEDS), seed=i % _SEEDS) for i in range(num_runs)]

    def engine(cls: type[TorchEngine], make: Callable[[], torch.nn.Module] = factory) -> TorchEngine:
        return cls(make, rows, None, task, metric, device)  # type: ignore[arg-type]

    field = {
        OURS: _of_engine(_together(engine(PopulationEngine), runs), runs),
        ALONE: _of_engine(engine(TorchEngine), runs[: max(1, num_runs // 16)]),
        EAGER: _eager(factory, rows, device),
    }
    if device != "cpu":
        vmapped = engine(PopulationEngine, lambda: Wrapped(factory()))
        field[VMAPPED] = _of_engine(_together(vmapped, runs), runs)
    return field


def _together(engine: TorchEngine, runs: Sequence[Run]) -> TorchEngine:
    assert isinstance(engine, PopulationEngine)
    if engine.reasons(runs):
        raise AssertionError("the module is not trained together; its time would mean nothing")
    return engine


def _of_engine(engine: TorchEngine, runs: Sequence[Run]) -> Contestant:
    def call() -> None:
        for record in engine.run_all(runs):
            if record is None or record.num_steps != _ROWS // _BATCH_SIZE:
                raise AssertionError("a run ended early; its time would mean nothing")

    return Contestant(call, units=len(runs) * _ROWS // _BATCH_SIZE)


def _eager(factory: Callable[[], torch.nn.Module], rows: Rows, device: str) -> Contestant:
    """What a person writes: batches of shuffled rows, torch's own loss and Adam."""
    module = factory().to(device)
    optimizer = torch.optim.Adam(module.parameters(), lr=_RATE)
    loss_function = torch.nn.MSELoss() if rows.targets.is_floating_point() else torch.nn.CrossEntropyLoss()

    def call() -> None:
        for inputs, targets in rows.batches(torch.randperm(len(rows)).tolist(), _BATCH_SIZE):
            optimizer.zero_grad()
            loss_function(module(inputs.to(device)), targets.to(device)).backward()
            optimizer.step()
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    return Contestant(call, torch.__version__, units=_ROWS // _BATCH_SIZE)
