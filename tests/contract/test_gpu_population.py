"""Runs trained together by the Triton kernels: each as it is alone, and as float64 says."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steepest.backends import cuda_devices
from steepest.optim import OPTIMIZERS
from steepest.training import population_graphs
from steepest.training.modules import build_module
from steepest.training.native import NativeEngine, optimizer_of
from steepest.training.population import PopulationEngine
from steepest.training.population_losses import LossGroup
from steepest.training.population_members import Population
from steepest.training.population_perceptrons import PerceptronStack, are_layers
from steepest.training.population_rules import KernelRuleGroup, RuleGroup
from steepest.training.population_stack import Batch
from steepest.training.population_tables import TablePopulation
from steepest.training.run import Architecture, Record, Run, Stop, TrainingData
from steepest.training.torch_data import as_rows
from steepest.training.torch_engine import TorchEngine

from .gpu_device import WITHOUT_A_CARD, gpu

pytest.importorskip("triton", reason="Triton comes with torch's CUDA and ROCm builds, and is not here")

SIZES = [1, 65, 5]


@pytest.fixture
def device() -> str:
    return gpu()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float32) for name in OPTIMIZERS), ("nadam", torch.float64), ("lamb", torch.float64)],
)
def test_rules_step_each_run_by_its_own_numbers(device: str, name: str, dtype: torch.dtype) -> None:
    """Against the rule in float64 tensor operations; one run leaves after the second step."""
    rates = [0.1, 0.01, 0.003]
    found = [optimizer_of(Run("mse", name, rate)) for rate in rates]
    rule, hyperparameters = found[0][0], [own for _, own in found]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, sum(SIZES), generator=generator, dtype=torch.float64).to(dtype)
    slopes = [torch.randn(start.shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(4)]
    ends = []
    for made, on, kind in ((KernelRuleGroup, device, dtype), (RuleGroup, "cpu", torch.float64)):
        group, left = made(rule, hyperparameters, SIZES, [None] * 3), [0, 1, 2]
        parameters = start.to(on, kind, copy=True)
        for step, slope in enumerate(slopes):
            if step == 2:
                group.keep([0, 2])
                parameters, left = parameters[[0, 2]], [0, 2]
            group.update(parameters, slope[left].to(on, kind))
        ends.append(parameters.cpu().double())
    bar = {torch.float32: 2e-6, torch.float64: 1e-14}[dtype]
    assert torch.allclose(*ends, rtol=bar, atol=bar)
    assert (ends[0] != start[[0, 2]].double()).any(1).all()


class Rows:
    """A table with odd sizes, and an engine on it."""

    def __init__(self, task: str, device: str, outputs: int = 1, last: list[nn.Module] | None = None) -> None:
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(47, 5, generator=generator)
        y = (x.sum(1) + 0.3 * torch.randn(47, generator=generator)) / 2
        if task != "regression":
            y = (
                (y > 0).to(torch.int64)
                if task == "binary"
                else (y * 1.5).round().clamp(-1, 1).to(torch.int64) + 1
            )
        elif last is None:
            y = y + 8.0  # above 0, for counts and amounts
        self.train, self.held_out = (
            as_rows((x[:40], y[:40]), "train"),
            as_rows((x[40:], y[40:]), "validation"),
        )
        self.task, self.device = task, device
        self.factory = lambda: nn.Sequential(
            nn.Linear(5, 65), nn.Tanh(), nn.Linear(65, outputs), *(last or [])
        )

    def engine(self, kind: type[TorchEngine], device: str, **named: Any) -> Any:
        metric = "rmse" if self.task == "regression" else "log_loss"
        made = (self.factory, self.train, self.held_out, self.task, metric, device)
        return kind(*made, **named)  # type: ignore[arg-type]

    def alone(self, runs: list[Run]) -> list[Record]:
        """Each run by itself on the CPU, in torch's operations and the CPU's kernels."""
        with on_cpu():
            return self.engine(TorchEngine, "cpu").run_all(runs)  # type: ignore[no-any-return]


@contextmanager
def on_cpu() -> Iterator[None]:
    """The CPU's tensors go to the CPU's own kernels."""
    cuda_devices.DEVICES.discard("cpu")
    try:
        yield
    finally:
        cuda_devices.DEVICES.update({"cpu"} if WITHOUT_A_CARD else set())


def flat(record: Record) -> Tensor:
    return torch.cat([tensor.double().reshape(-1).cpu() for tensor in record.parameters.values()])


def check_alike(found: list[Record], wanted: list[Record]) -> None:
    for a, b in zip(found, wanted, strict=True):
        about = f"{a.run.loss} + {a.run.optimizer} at {a.run.lr:g}"
        for name in (
            "run",
            "hyperparameters",
            "num_epochs",
            "num_steps",
            "num_examples",
            "stop_reason",
            "best_epoch",
        ):
            assert getattr(a, name) == getattr(b, name), (about, name)
        scale = flat(b).abs().max()  # of a run that diverged, large
        assert (flat(a) - flat(b)).abs().max() <= 1e-5 * scale, about
        for name in ("train_loss", "validation_score"):
            ours, theirs = (torch.tensor(getattr(one.curve, name)) for one in (a, b))
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True), (about, name)


FAMILIES = {
    "regression": ("regression", 1, None, ["mse", "mae", "huber", "quantile", "gamma"]),
    "logits": ("binary", 1, None, ["bce", "binary_focal"]),
    "probabilities": ("binary", 1, [nn.Sigmoid()], ["bce_probability"]),
    "classes": ("multiclass", 3, None, ["cross_entropy", "focal", "logit_adjusted"]),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixed_population_is_each_run_alone(device: str, family: str) -> None:
    """Losses, rules, rates and seeds of their own side by side, a batch of 33 and one of 7; one diverges."""
    task, outputs, last, losses = FAMILIES[family]
    rows = Rows(task, device, outputs, last)
    ways = [("sgd", 0.01, 0), ("lamb", 0.01, 1), ("momentum", 0.003, 1), ("adam", 0.01, 0), ("sgd", 0.003, 1)]
    runs = [
        Run(loss, optimizer, lr, 33, seed, stop=Stop(2))
        for loss, (optimizer, lr, seed) in zip(losses, ways, strict=False)
    ]
    runs = [
        *runs,
        replace(runs[0], seed=1, stop=Stop(1)),
        replace(runs[0], lr=1e9 if task == "regression" else 1e38),
    ]
    found = trained(rows.engine(TorchEngine, device), runs)
    check_alike(found, rows.alone(runs))
    # Saturated probabilities go on for ever.
    ends = ["epochs", "epochs" if family == "probabilities" else "diverged"]
    assert [one.stop_reason for one in found[-2:]] == ends


def trained(engine: TorchEngine, runs: list[Run]) -> list[Record]:
    records: dict[int, Record] = {}
    Population(engine, runs, records.__setitem__, kind=PerceptronStack).train()
    return [records[place] for place in range(len(runs))]


def test_the_engine_takes_kernels_for_perceptrons_and_vmap_for_others(device: str) -> None:
    rows = Rows("regression", device)
    runs = [Run("mse", "sgd", 0.01, 33, seed, stop=Stop(1)) for seed in (0, 1)]
    engine = rows.engine(PopulationEngine, device)
    assert engine.notes(runs)[1:] == []
    assert engine._trial(33).kind is PerceptronStack
    found = engine.run_all(runs)
    assert engine.broken == []
    check_alike(found, rows.alone(runs))
    # To the bit, whoever is beside it.
    (alone,) = trained(engine, runs[1:])
    assert torch.equal(flat(alone), flat(found[1]))


@pytest.mark.parametrize(
    "parts",
    [
        [nn.Linear(5, 4), nn.Softplus(), nn.Linear(4, 1)],
        [nn.Linear(5, 4), nn.Linear(4, 1)],
        [nn.Linear(5, 4), nn.GELU(approximate="tanh"), nn.Linear(4, 1)],
        [nn.LayerNorm(5), nn.Linear(5, 1)],
        [nn.Linear(5, 4, dtype=torch.bfloat16)],
    ],
    ids=str,
)
def test_what_is_no_plain_perceptron(device: str, parts: list[nn.Module]) -> None:
    assert not are_layers(nn.Sequential(*parts).to(device))


def test_nested_sequences_and_layers_without_bias_are_perceptrons(device: str) -> None:
    inner = nn.Sequential(nn.Linear(5, 4, bias=False), nn.SiLU())
    assert are_layers(nn.Sequential(inner, nn.Linear(4, 1)).to(device))
    assert are_layers(nn.Linear(5, 1).to(device))


def test_where_the_kernels_fail_vmap_does_it_and_a_note_says_so(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernels today")

    monkeypatch.setattr(PerceptronStack, "forward", fail)
    engine = Rows("regression", device).engine(PopulationEngine, device)
    _, note = engine.notes([Run("mse", "sgd", 0.01, 33)])
    assert note.startswith("Perceptrons were trained through torch.vmap and not in kernels of their own: ")
    assert "no kernels today" in note


class StandIn:
    """In place of CUDA graphs, where there is no card: captures without doing anything, and replays the same work in
    the same memory, as a graph does; counts both."""

    def __init__(self, fails: bool = False) -> None:
        self.captures = self.replays = 0
        self.fails = fails

    def capture(self, work: Callable[[], Any], device: torch.device) -> tuple[Callable[[], None], Any]:
        self.captures += 1
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        result: list[Tensor] = []  # made by the first replay, overwritten by the others

        def replay() -> None:
            self.replays += 1
            new = work()
            if new is not None and not result:
                result.extend(new)
            elif new is not None:
                for own, one in zip(result, new, strict=True):
                    own.copy_(one)

        return replay, result


@pytest.mark.parametrize("fails", [False, True])
def test_steps_are_replayed_and_captured_anew_where_a_run_has_left(
    device: str, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logic around a graph; whether a card captures it is for a card to say."""
    stand_in = StandIn(fails)
    monkeypatch.setattr(population_graphs, "can_capture", lambda _: True)
    monkeypatch.setattr(population_graphs, "capture", stand_in.capture)
    rows = Rows("regression", device)
    runs = [
        Run("mse", optimizer, 0.01, 10, seed, stop=Stop(None, steps))
        for optimizer, seed, steps in (("sgd", 0, 9), ("adam", 1, 9), ("adam", 0, 5))
    ]
    runs.append(replace(runs[0], lr=1e20))  # diverges in its second step
    population = rows.engine(PopulationEngine, device)
    found: dict[int, Record] = {}
    one = Population(population, runs, found.__setitem__, kind=PerceptronStack)
    one.train()
    assert one.failures == ["RuntimeError: operation not permitted when stream is capturing."] * fails
    check_alike([found[place] for place in range(4)], rows.alone(runs))
    # Gradients and updates are captured apart, the second time that they are made in one place: the gradients of all,
    # in the step in which one leaves; those and the updates of three, on steps 3 to 5, and of two, on steps 6 to 9.
    assert (stand_in.captures, stand_in.replays) == ((1, 0) if fails else (1 + 2 + 2, 1 + 2 * 2 + 2 * 3))


@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="CUDA graphs are captured and replayed by a GPU alone, and torch sees none here",
)
@pytest.mark.parametrize("number", range(max(1, min(2, torch.cuda.device_count()))))
def test_a_card_captures_and_replays_the_steps(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = []

    def capture(work: Callable[[], Any], device: torch.device) -> Any:
        captured.append(capture_on_card(work, device))
        return captured[-1]

    capture_on_card = population_graphs.capture
    monkeypatch.setattr(population_graphs, "capture", capture)
    rows, card = Rows("regression", "cuda"), f"cuda:{number}"
    runs = [Run("mse", way, 0.01, 10, seed, stop=Stop(4)) for seed, way in enumerate(("sgd", "adam", "lamb"))]
    found: dict[int, Record] = {}
    population = Population(
        rows.engine(PopulationEngine, card), runs, found.__setitem__, kind=PerceptronStack
    )
    population.train()
    assert population.failures == []
    assert len(captured) == 2
    check_alike([found[place] for place in range(3)], rows.alone(runs))


TRUTHS = [
    (1, [1, 1], "mse"),
    (7, [5, 65, 1], "huber"),
    (33, [65, 5, 1, 3], "cross_entropy"),
    (33, [1, 65], "cross_entropy"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("num_rows", "sizes", "loss"), TRUTHS, ids=str)
def test_losses_and_gradients_against_float64(
    device: str, num_rows: int, sizes: list[int], loss: str, dtype: torch.dtype
) -> None:
    """Off by no more than torch's own operations in the same type are; with 65 classes, all rows are of one."""
    generator = torch.Generator().manual_seed(num_rows)
    x = torch.randn(2, num_rows, sizes[0], generator=generator)
    y = torch.randn(2, num_rows, generator=generator)
    if loss == "cross_entropy":
        y = torch.zeros(2, num_rows, dtype=torch.int64) if sizes[-1] == 65 else (y > 0).long() + 1
    task: Any = "multiclass" if loss == "cross_entropy" else "regression"
    rows = as_rows((x[0], y[0]), "train")
    metric = "log_loss" if task == "multiclass" else "rmse"
    torch.manual_seed(1)
    modules = [build_module(sizes, Architecture(tuple(sizes[1:-1]), "silu")) for _ in range(2)]
    run = Run(loss, "sgd", 0.1)
    given = [(x[k].to(device, dtype), y[k].to(device)) for k in range(2)]
    which = torch.tensor([1, 0, 1])
    engine = TorchEngine(lambda: modules[0], rows, None, task, metric, device)
    stack = PerceptronStack([copy.deepcopy(one).to(device, dtype) for one in modules], which.tolist())
    group = LossGroup(engine, run, engine.loss(run), range(3), 3)
    found = stack.differentiate(Batch(given, which), [group])

    def by_autograd(kind: torch.dtype) -> tuple[Tensor, Tensor]:
        on_cpu_engine = TorchEngine(lambda: modules[0], rows, None, task, metric)
        values, gradients = [], []
        for k in which.tolist():
            module = copy.deepcopy(modules[k]).to(kind)
            value = on_cpu_engine.loss_of(
                run,
                on_cpu_engine.loss(run),
                module(x[k].to(kind)),
                y[k].to(kind) if task == "regression" else y[k],
            )
            gradients.append(
                torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(module.parameters()))])
            )
            values.append(value.detach())
        return torch.stack(values).double(), torch.stack(gradients).double()

    with on_cpu():
        truth, theirs = by_autograd(torch.float64), by_autograd(torch.float32)
    for ours, wanted, other in zip(found, truth, theirs, strict=True):
        scale = wanted.abs().amax(dim=-1, keepdim=wanted.dim() > 1)
        off = (ours.cpu().double() - wanted).abs() / scale
        bar = 1e-14 if dtype == torch.float64 else 2 * ((other - wanted).abs() / scale).max() + 2.0**-22
        assert off.max() <= bar, (off.max(), bar)


def test_a_tables_perceptrons_go_through_the_kernels(device: str) -> None:
    """With the initial weights, the units and the records of the native engine; probabilities end in a sigmoid."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(47, 5, generator=generator).numpy()
    y = (x.sum(axis=1) > 0).astype("float32")
    data = TrainingData("binary", 2, x[:40], y[:40], x[40:], y[40:])
    ways = [("bce_probability", "sgd", 0.1, 0), ("bce_probability", "adam", 0.01, 1)]
    runs = [Run(*way[:3], 33, way[3], Architecture((7,), "gelu"), Stop(2)) for way in ways]
    engine = TablePopulation(data, "log_loss", device)
    assert engine.notes(runs)[1:] == []
    found = engine.run_all(runs)
    assert engine.broken == []
    for a, b in zip(found, NativeEngine(data, "log_loss").run_all(runs), strict=True):
        assert a is not None
        assert b is not None
        np.testing.assert_allclose(a.parameters, b.parameters, rtol=1e-5, atol=1e-5)
        assert a.validation_score == pytest.approx(b.validation_score, rel=1e-5)
