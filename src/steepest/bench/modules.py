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

ALONE, EAGER = "steepest, one run after another", "torch eager loop"
_ROWS, _RUNS, _SEEDS = 1024, 64, 3
_BATCH_SIZE, _RATE = 32, 1e-3


class Case(NamedTuple):
    """A net and how many times as fast a step of one of its runs has to be as each peer's."""

    sizes: tuple[int, ...]
    at_least: float | None


CASES = (Case((10, 5, 1), 5.0), Case((64, 128, 128, 10), None))


def works(quick: bool) -> list[Work]:
    """The cases, on one thread."""
    return [_work(case, 4 if quick else _RUNS) for case in CASES]


def _work(case: Case, num_runs: int) -> Work:
    net = "-".join(map(str, case.sizes))
    name = f"{num_runs} runs of a user's module, {net}, adam, batch {_BATCH_SIZE}, a step of a run"
    bars = tuple(Ratio((peer,), case.at_least) for peer in (ALONE, EAGER))
    return Work(name, partial(_field, case, num_runs), bars, num_threads=1)


def _field(case: Case, num_runs: int) -> Field:
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

    def engine(cls: type[TorchEngine]) -> TorchEngine:
        return cls(factory, rows, None, task, metric)  # type: ignore[arg-type]

    together = engine(PopulationEngine)
    assert isinstance(together, PopulationEngine)
    if together.reasons(runs):
        raise AssertionError("the module is not trained together; its time would mean nothing")
    return {
        OURS: _of_engine(together, runs),
        ALONE: _of_engine(engine(TorchEngine), runs[: max(1, num_runs // 16)]),
        EAGER: _eager(factory, rows),
    }


def _of_engine(engine: TorchEngine, runs: Sequence[Run]) -> Contestant:
    def call() -> None:
        for record in engine.run_all(runs):
            if record is None or record.num_steps != _ROWS // _BATCH_SIZE:
                raise AssertionError("a run ended early; its time would mean nothing")

    return Contestant(call, units=len(runs) * _ROWS // _BATCH_SIZE)


def _eager(factory: Callable[[], torch.nn.Module], rows: Rows) -> Contestant:
    """What a person writes: batches of shuffled rows, torch's own loss and Adam."""
    module = factory()
    optimizer = torch.optim.Adam(module.parameters(), lr=_RATE)
    loss_function = torch.nn.MSELoss() if rows.targets.is_floating_point() else torch.nn.CrossEntropyLoss()

    def call() -> None:
        for inputs, targets in rows.batches(torch.randperm(len(rows)).tolist(), _BATCH_SIZE):
            optimizer.zero_grad()
            loss_function(module(inputs), targets).backward()
            optimizer.step()

    return Contestant(call, torch.__version__, units=_ROWS // _BATCH_SIZE)
