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

__all__ = ["Made", "together", "works"]

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
    made = Made(case, device)
    runs = made.runs(num_runs)
    field = {
        OURS: together(made.engine(PopulationEngine), runs),
        ALONE: _of_engine(made.engine(TorchEngine), runs[: max(1, num_runs // 16)]),
        EAGER: _eager(made.module, made.rows, device),
    }
    if device != "cpu":
        vmapped = made.engine(PopulationEngine, lambda: Wrapped(made.module()))
        field[VMAPPED] = together(vmapped, runs)
    return field


class Made:
    """A case's rows, modules, runs and engines."""

    def __init__(self, case: Case, device: str) -> None:
        torch.manual_seed(0)
        self.case, self.device = case, device
        self.x = torch.randn(_ROWS, case.sizes[0])
        self.y = torch.randn(_ROWS, 1) if case.sizes[-1] == 1 else torch.randint(case.sizes[-1], (_ROWS,))
        self.rows = as_rows((self.x, self.y), "train")
        self._task = ("regression", "rmse") if case.sizes[-1] == 1 else ("multiclass", "log_loss")

    def module(self) -> torch.nn.Module:
        """A perceptron with torch's initial weights."""
        return build_module(list(self.case.sizes), Architecture())

    def runs(self, number: int) -> list[Run]:
        """Of several seeds and rates, an epoch each."""
        loss = "mse" if self.case.sizes[-1] == 1 else "cross_entropy"
        first = Run(loss, "adam", _RATE, _BATCH_SIZE, stop=Stop(1))
        return [replace(first, lr=_RATE * 0.9 ** (i // _SEEDS), seed=i % _SEEDS) for i in range(number)]

    def engine(
        self, cls: type[TorchEngine], make: Callable[[], torch.nn.Module] | None = None
    ) -> TorchEngine:
        """What trains them, or other modules."""
        return cls(make or self.module, self.rows, None, *self._task, self.device)  # type: ignore[arg-type]


def together(engine: TorchEngine, runs: Sequence[Run]) -> Contestant:
    """The runs trained as one; on a GPU once beforehand, to note what was done another way there."""
    assert isinstance(engine, PopulationEngine)
    if engine.reasons(runs):
        raise AssertionError("the module is not trained together; its time would mean nothing")
    if engine.device.type == "cpu":
        return _of_engine(engine, runs)
    engine.run_all(runs)
    return _of_engine(engine, runs, " ".join(engine.broken))


def _of_engine(engine: TorchEngine, runs: Sequence[Run], note: str = "") -> Contestant:
    def call() -> None:
        for record in engine.run_all(runs):
            if record is None or record.num_steps != _ROWS // _BATCH_SIZE:
                raise AssertionError("a run ended early; its time would mean nothing")

    return Contestant(call, units=len(runs) * _ROWS // _BATCH_SIZE, note=note)


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
