"""The population engine: the torch engine's records to rounding, for any mixture of runs."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.training import population
from steepest.training.population import PopulationEngine
from steepest.training.population_graphs import capture
from steepest.training.progress import Progress
from steepest.training.run import Record, Run, Stop
from steepest.training.torch_data import Tensors, as_rows
from steepest.training.torch_engine import TorchEngine

from .problems import problem

RATES = {"sgd": 0.03, "momentum": 0.005, "nesterov": 0.005, "momentum_ema": 0.03}
BARS = {torch.float64: 1e-11, torch.float32: 5e-6}  # of weights around 1, after 30 steps


class Small(nn.Module):
    """Two layers, in the type asked for whatever comes; rows reach an engine in float32."""

    def __init__(
        self, outputs: int = 1, dtype: torch.dtype = torch.float32, ends: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, outputs), ends or nn.Identity())
        self.layers.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.to(self.dtype))  # type: ignore[no-any-return]


def engines(
    factory: Callable[[], nn.Module],
    task: str = "regression",
    rows: Any = None,
    validation: bool = True,
    **own: Any,
) -> tuple[TorchEngine, PopulationEngine]:
    data = problem(task, validation=40)
    y = data.y_train + 8 if task == "regression" else data.y_train  # amounts, counts: above 0
    train = as_rows((data.x_train, y) if rows is None else rows, "train")
    held_out = as_rows((data.x_validation, data.y_validation), "validation") if validation else None
    metric = "rmse" if task == "regression" else "log_loss"
    made = (factory, train, held_out, task, metric)
    return TorchEngine(*made), PopulationEngine(*made, **own)  # type: ignore[arg-type]


@pytest.mark.parametrize("room", [True, False])
def test_training_rows_and_their_order_lie_where_a_gpu_trains(
    room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that is sent when its turn comes waits until the step before it is done. Of rows too many, each is."""
    monkeypatch.setattr(population, "DEVICES", {"meta"})
    indexed: list[torch.device] = []
    plain = Tensor.__getitem__
    monkeypatch.setattr(Tensor, "__getitem__", lambda x, at: (indexed.append(at.device), plain(x, at))[1])
    data = problem("regression")
    rows = as_rows((data.x_train, data.y_train), "train")
    bound = 2**30 if room else 4 * data.x_train.size
    engine = PopulationEngine(Small, rows, None, "regression", "rmse", "meta", memory_bytes=bound)
    inputs, targets = next(engine.batches(Run("mse", "sgd", 0.1, 8), 0, nn.Linear(1, 1)))
    wanted = {torch.device("meta" if room else "cpu")}
    assert {inputs.device, targets.device, *indexed} == wanted
    assert len(inputs) == len(targets) == 8
    assert isinstance(rows.source, Tensors)
    assert engine.train.targets.is_cpu  # which scores are worked out from


def test_steps_are_noted_for_all_runs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run by run, noting them takes as long as a GPU's step of hundreds of small runs; a limit of steps asks for it."""
    asked = []
    monkeypatch.setattr(Progress, "count_step", lambda one: asked.append(one.run))
    _, together = engines(Small, validation=False)
    run = Run("mse", "sgd", 1e-3, 32, stop=Stop(2))
    runs = [replace(run, seed=seed) for seed in range(3)]
    steps = {record.num_steps for record in trained(together, runs)}
    assert steps == {2 * -(-len(together.train) // 32)}
    assert not asked
    trained(together, [replace(run, stop=Stop(2, max_steps=1000)) for run in runs])
    assert asked


@pytest.mark.parametrize("fails", [False, True])
def test_a_capture_is_of_its_device_and_leaves_the_stream_of_before(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch does is noted here in its place: it leaves the capture's stream only where all went well."""
    here, streams = ["cuda:0"], {"cuda:0": ["first"], "cuda:1": ["second"]}

    @contextmanager
    def device(there: str) -> Iterator[None]:
        here.append(there)
        yield
        here.pop()

    @contextmanager
    def graph(_: object, stream: str) -> Iterator[None]:
        streams[here[-1]].append(stream)
        yield
        if fails:
            raise RuntimeError("operation failed due to a previous error during capture")
        streams[here[-1]].pop()

    seen = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=None))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: f"of {here[-1]}")
    for name, stand_in in (("device", device), ("graph", graph)):
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: streams[here[-1]][-1])
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: streams[here[-1]].append(stream))
    with pytest.raises(RuntimeError, match="previous error") if fails else nullcontext():
        capture(lambda: seen.append(streams["cuda:1"][-1]), "cuda:1")  # type: ignore[arg-type]
    assert seen == ["of cuda:1"]
    assert streams["cuda:1"][-1] == "second"
    assert streams["cuda:0"] == ["first"]


def test_a_trial_is_made_without_tf32() -> None:
    """Which a user may have allowed: products rounded so would be other ones than those of the kernels."""
    products: Any = torch.backends.cuda.matmul
    seen = []

    class Telling(Small):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(products.fp32_precision)
            return super().forward(x)

    before, products.fp32_precision = products.fp32_precision, "tf32"
    try:
        _, together = engines(Telling)
        assert together.reasons([Run("mse", "sgd", 1e-3, 32)]) == []
        assert set(seen) == {"ieee"}
        assert products.fp32_precision == "tf32"
    finally:
        products.fp32_precision = before


def trained(engine: TorchEngine, runs: Sequence[Run]) -> list[Record]:
    records = engine.run_all(runs)
    assert None not in records
    return records  # type: ignore[return-value]


def flat(record: Record) -> np.ndarray[Any, Any]:
    return np.concatenate([tensor.double().numpy().ravel() for tensor in record.parameters.values()])


def check_alike(alone: Sequence[Record], together: Sequence[Record], bar: float) -> None:
    """Every entry of the records but the times; numbers to rounding."""
    for a, b in zip(alone, together, strict=True):
        about = f"{a.run.loss} + {a.run.optimizer} at {a.run.lr:g} on seed {a.run.seed}"
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
        assert list(a.parameters) == list(b.parameters)
        np.testing.assert_allclose(flat(b), flat(a), rtol=bar, atol=bar, err_msg=about)
        for name in ("epoch", "step", "examples"):
            np.testing.assert_array_equal(getattr(a.curve, name), getattr(b.curve, name))
        for name in ("train_loss", "validation_score"):
            np.testing.assert_allclose(
                getattr(b.curve, name), getattr(a.curve, name), rtol=20 * bar, atol=20 * bar, err_msg=about
            )
        assert b.validation_score == pytest.approx(a.validation_score, rel=20 * bar, nan_ok=True)


def both(runs: Sequence[Run], made: tuple[TorchEngine, PopulationEngine], bar: float) -> list[Record]:
    """The population's records, which must be the torch engine's; and no run was left to that one."""
    alone, together = made
    assert together.reasons(runs) == []
    found = trained(together, runs)
    assert together.broken == []
    check_alike(trained(alone, runs), found, bar)
    return found


def run_of(loss: str, optimizer: str, seed: int = 0, **named: Any) -> Run:
    has_eps = "eps" in inspect.signature(OPTIMIZERS[optimizer].cls).parameters
    options = {"eps": 1e-3} if has_eps else {}  # else a gradient of a rounding error is made a whole step of
    lr = named.pop("lr", RATES.get(optimizer, 0.002))
    return Run(
        loss, optimizer, lr, 32, seed, stop=named.pop("stop", Stop(8)), optimizer_options=options, **named
    )


# --- equal to a run alone ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_on_seeds_and_rates_of_their_own(optimizer: str, dtype: torch.dtype) -> None:
    usual = RATES.get(optimizer, 0.002)
    runs = [run_of("mse", optimizer, seed, lr=lr) for lr in (usual, usual / 3) for seed in (0, 1, 5)]
    both(runs, engines(lambda: Small(dtype=dtype)), BARS[dtype])


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_every_loss_in_one_population_with_others(task: str, dtype: torch.dtype) -> None:
    """As many losses as take the same outputs, each with two optimizers, side by side."""
    fitting = [name for name, cls in LOSSES.items() if task in cls.formula.tasks]
    for family in {(LOSSES[n].formula.family == "softmax", LOSSES[n].formula.prediction) for n in fitting}:
        names = [
            n
            for n in fitting
            if (LOSSES[n].formula.family == "softmax", LOSSES[n].formula.prediction) == family
        ]
        outputs = (2 if task == "binary" else 3) if family[0] else 1
        ends = nn.Sigmoid() if family[1] == "probability" else None
        runs = [run_of(name, optimizer, 3) for name in names for optimizer in ("adam", "momentum")]
        both(runs, engines(lambda outputs=outputs, ends=ends: Small(outputs, dtype, ends), task), BARS[dtype])


def test_options_of_losses_and_optimizers_are_each_runs_own() -> None:
    runs = [
        replace(
            run_of("huber", "momentum", seed),
            loss_options={"delta": delta},
            optimizer_options={"momentum": beta},
        )
        for seed, delta, beta in ((0, 0.5, 0.9), (1, 2.0, 0.5), (1, 0.5, 0.0))
    ]
    found = both(runs, engines(Small), BARS[torch.float32])
    assert [one.hyperparameters.get("momentum", 0.0) for one in found] == [0.9, 0.5, 0.0]


def test_rules_that_are_made_anew_for_each_run_are_one_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = OPTIMIZERS["adam"]

    class Fresh(entry.cls):  # type: ignore[misc, name-defined]
        @staticmethod
        def rule_of(group: Any) -> Any:
            return replace(entry.cls.rule_of(group))

    monkeypatch.setitem(OPTIMIZERS, "fresh", replace(entry, name="fresh", cls=Fresh))  # type: ignore[arg-type]
    both([run_of("mse", name, seed) for seed in (0, 1) for name in ("fresh", "sgd")], engines(Small), 5e-6)


def test_a_convolutional_module_with_tied_and_frozen_weights_and_a_buffer() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv1d(1, 4, 3, padding=1), nn.Linear(24, 24)
            self.third, self.head = nn.Linear(24, 24), nn.Linear(24, 1)
            self.third.weight = self.second.weight
            self.head.bias.requires_grad_(False)
            self.register_buffer("scale", torch.rand(()))
            self.register_buffer("passing", torch.rand(()), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.relu(self.first(x.unsqueeze(1))).flatten(1)
            hidden = torch.tanh(self.third(torch.relu(self.second(hidden))))
            return self.head(hidden) * self.scale + self.passing

    found = both([run_of("mse", "adam", seed) for seed in (0, 1)], engines(Module), BARS[torch.float32])
    assert set(found[0].parameters) == {
        "first.weight", "first.bias", "second.weight", "second.bias", "third.weight", "third.bias", "head.weight",
        "head.bias", "scale",
    }  # fmt: skip
    assert found[0].parameters["scale"] != found[1].parameters["scale"]


def test_data_sets_that_draw_and_inputs_in_dictionaries_are_each_seeds_own() -> None:
    data = problem("regression")

    class Noisy(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: int) -> Any:
            x = torch.tensor(data.x_train[index])
            return {"x": x + 0.1 * torch.randn(6), "name": "row"}, torch.tensor(data.y_train[index])

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Small()

        def forward(self, given: dict[str, Tensor]) -> Tensor:
            return self.inner(given["x"])  # type: ignore[no-any-return]

    runs = [run_of("mse", "adam", seed, lr=lr) for seed in (0, 1) for lr in (0.01, 0.001)]
    both(runs, engines(Module, rows=Noisy(), validation=False), BARS[torch.float32])


def test_a_loaders_short_last_batch_is_left_out_where_it_says_so() -> None:
    data = problem("regression")
    rows = TensorDataset(torch.tensor(data.x_train), torch.tensor(data.y_train))
    loader = DataLoader(rows, batch_size=32, drop_last=True)
    (one, _) = both([run_of("mse", "sgd", 0), run_of("mse", "sgd", 1)], engines(Small, rows=loader), 5e-6)
    assert one.num_examples == 8 * 96


# --- who ends, and when --------------------------------------------------------------------------------------------


def test_every_reason_to_stop_in_one_population() -> None:
    run = run_of("mse", "sgd")
    runs = [
        run,
        replace(run, stop=Stop(3)),
        replace(run, stop=Stop(None, 5)),
        replace(run, seed=1, stop=Stop(20, patience=1), lr=0.2),
        replace(run, stop=Stop(20, target_metric=6.0), seed=2),
        replace(run, stop=Stop(20, min_gradient_norm=0.5)),
        replace(run, lr=1e6),
        replace(run, lr=1e8, seed=1, optimizer="adam"),
    ]
    found = both(runs, engines(Small), BARS[torch.float32])
    assert [one.stop_reason for one in found[:3]] == ["epochs", "epochs", "steps"]
    assert {one.stop_reason for one in found} == {
        "epochs", "steps", "patience", "target_metric", "gradient_norm", "diverged",
    }  # fmt: skip


def test_a_run_out_of_time_stops_alone() -> None:
    runs = [run_of("mse", "sgd"), replace(run_of("mse", "sgd", 1), stop=Stop(8, max_sec=1e-9))]
    first, second = trained(engines(Small)[1], runs)
    assert (first.stop_reason, second.stop_reason, second.num_steps) == ("epochs", "seconds", 1)


def test_those_that_ended_are_taken_out_and_change_nothing_for_the_rest() -> None:
    """To rounding: which runs are beside a run decides its last bits."""
    _, engine = engines(Small)
    lasting = [run_of("mse", name, seed) for name in ("adam", "sgd") for seed in (0, 1)]
    dying = [replace(run, lr=1e8) for run in lasting]
    sizes: list[int] = []
    found = engine.run_all([*dying, *lasting], on_record=lambda place, record: sizes.append(place))
    assert sizes[:4] == [0, 1, 2, 3] or {*sizes[:4]} == {0, 1, 2, 3}
    check_alike(trained(engine, lasting), found[4:], BARS[torch.float32])  # type: ignore[arg-type]


def test_records_stream_as_runs_end_and_an_interruption_keeps_them() -> None:
    _, engine = engines(Small)
    stop, seen = threading.Event(), []

    def on_record(place: int, record: Record) -> None:
        seen.append((place, record.stop_reason))
        stop.set()

    runs = [
        replace(run_of("mse", "sgd", seed), stop=Stop(epochs)) for seed, epochs in ((0, 9), (1, 2), (2, 9))
    ]
    engine.run_all(runs, on_record=on_record, stop_event=stop)
    assert seen[0] == (1, "epochs")
    assert sorted(seen[1:]) == [(0, "interrupted"), (2, "interrupted")]
    assert engine.run_all(runs, stop_event=stop) == [None] * 3


def test_seconds_are_shares_of_the_time() -> None:
    import time

    started = time.perf_counter()
    found = trained(engines(Small)[1], [run_of("mse", "sgd", seed) for seed in range(6)])
    assert 0 < sum(one.seconds for one in found) <= time.perf_counter() - started


# --- what is beside a run ------------------------------------------------------------------------------------------


def test_runs_of_one_seed_are_paired_and_the_callers_random_numbers_stay() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    runs = [replace(run_of("mse", "sgd", seed), lr=1e-12, stop=Stop(None, 1)) for seed in (0, 0, 1)]
    a, b, c = trained(engines(Small, validation=False)[1], runs)
    np.testing.assert_array_equal(flat(a), flat(b))  # the same weights,
    assert a.curve.train_loss[0] == b.curve.train_loss[0]  # the same rows
    assert a.curve.train_loss[0] != c.curve.train_loss[0]
    assert torch.equal(before, torch.get_rng_state())


def test_a_part_of_a_list_is_trained_in_its_groups() -> None:
    _, engine = engines(Small, at_once=4)
    runs = [run_of("mse", "adam", seed, lr=lr) for seed in (0, 1, 2) for lr in (0.01, 0.003, 0.001)]
    whole = trained(engine, runs)
    again = engine.company(runs, [5])
    assert again == [4, 5, 6, 7]
    for place, record in zip(again, trained(engine, [runs[place] for place in again]), strict=True):
        np.testing.assert_array_equal(flat(record), flat(whole[place]))
    assert engine.company(runs, []) == []


def test_a_small_memory_means_fewer_at_once() -> None:
    _, engine = engines(Small)
    needed = engine._trial(32).memory_bytes()
    assert engine.num_together(32) == 64
    _, limited = engines(Small, memory_bytes=5 * needed)
    assert limited.num_together(32) == 5
    _, tiny = engines(Small, memory_bytes=needed)
    runs = [run_of("mse", "sgd", seed) for seed in (0, 1)]
    (sentence,) = tiny.reasons(runs)
    assert sentence.startswith("Runs were trained one after another: two of them would take more than")
    check_alike(trained(engines(Small)[0], runs), trained(tiny, runs), 0.0)


def test_data_that_have_to_be_drawn_beforehand_count_too() -> None:
    data = problem("regression")
    rows = TensorDataset(torch.tensor(data.x_train), torch.tensor(data.y_train))
    run = replace(run_of("mse", "sgd"), batch_size=1)
    _, engine = engines(Small, rows=rows)
    assert engine.reasons([run]) == []
    assert engine._trial(1).epoch_bytes == 100 * 6 * 4
    _, limited = engines(Small, rows=rows, validation=False, memory_bytes=20_000)
    (sentence,) = limited.reasons([run])
    assert "an epoch of the data for each seed would take more than" in sentence


# --- what is left to the torch engine --------------------------------------------------------------------------------


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        return out if out.sum() > 0 else 2 * out


class Signed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Custom(Branching):
    def forward(self, x: Tensor) -> Tensor:
        return Signed.apply(self.layer(x))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.reshape(-1, 3, 2))[0][:, -1])  # type: ignore[no-any-return]


class Unused(Branching):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


class MemberBlind(Branching):
    """Stands for whatever gives other numbers under vmap without an error."""

    def forward(self, x: Tensor) -> Tensor:
        inside = torch._C._functorch.maybe_current_level() is not None
        return self.layer(x) * (1.01 if inside else 1.0)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 1)), "draws random numbers"),
        (lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 1)), "writes in its buffers"),
        (Branching, "torch.vmap cannot take it"),
        (Custom, "torch.vmap cannot take it"),
        (Recurrent, "torch.vmap cannot take it"),
        (Unused, "a part of the module takes no part in its outputs"),
        (MemberBlind, "its outputs are other ones where runs are stacked"),
    ],
)
def test_a_module_that_cannot_be_stacked_is_trained_by_the_torch_engine(
    factory: Callable[[], nn.Module], reason: str
) -> None:
    alone, together = engines(factory)
    runs = [replace(run_of("mse", "adam", seed), stop=Stop(2)) for seed in (0, 1)]
    (sentence,) = together.reasons(runs)
    assert "were trained one after another: " in sentence
    assert reason in sentence
    check_alike(trained(alone, runs), trained(together, runs), 0.0)


def test_an_optimizer_or_a_loss_that_cannot_be_stacked_leaves_the_others_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rule with a branch, as a user may register one: Python's if on an element."""
    entry = OPTIMIZERS["sgd"]

    class Branches(entry.cls):  # type: ignore[misc, name-defined]
        @staticmethod
        def rule_of(group: Any) -> Any:
            rule = entry.cls.rule_of(group)

            def update(p: Any, g: Any, lr: Any, *rest: Any) -> Any:
                return (p - lr * g,) if bool(lr > 0) else (p,)

            return replace(rule, update=update)

    monkeypatch.setitem(OPTIMIZERS, "branches", replace(entry, name="branches", cls=Branches))  # type: ignore[arg-type]
    _, engine = engines(Small)
    runs = [run_of("mse", name, seed) for name in ("adam", "branches") for seed in (0, 1)]
    (sentence,) = engine.reasons(runs)
    assert sentence.startswith("Runs with branches were trained one after another: torch.vmap cannot take it")
    assert None not in engine.run_all(runs)


def test_a_group_that_fails_on_the_way_is_trained_one_after_another() -> None:
    class Picky(Branching):
        """Takes whole batches alone under vmap."""

        def forward(self, x: Tensor) -> Tensor:
            if torch._C._functorch.maybe_current_level() is not None and len(x) == 4 and self.training:
                raise RuntimeError("no short batches here")
            return self.layer(x)  # type: ignore[no-any-return]

    alone, together = engines(Picky)
    runs = [run_of("mse", "sgd", seed) for seed in (0, 1)]
    check_alike(trained(alone, runs), trained(together, runs), 0.0)
    assert together.broken == [
        "A group of runs was begun together and gone through one after another: no short batches here."
    ]
