"""Schedules in every engine: the native one against torch's own loop and scheduler, the others against it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from steepest import InputError
from steepest.schedules import SCHEDULES, ScheduleLR
from steepest.schedules.course import Course
from steepest.training.modules import build_module
from steepest.training.native import NativeEngine
from steepest.training.population import PopulationEngine
from steepest.training.population_tables import TablePopulation
from steepest.training.random import data_order, initial_parameters
from steepest.training.rates import check_course, rate_kernel
from steepest.training.run import Architecture, Record, Run, Stop
from steepest.training.torch_data import as_rows
from steepest.training.torch_engine import TorchEngine

from .problems import problem
from .test_bit_identity import bits

ROWS, BATCH = 100, 16
STEPS_AN_EPOCH = 7
NET = Architecture((5,), "tanh")
RULES = {"sgd": 0.1, "momentum": 0.02, "adam": 0.01, "nadam": 0.01, "lars": 0.5}
COURSES = [
    (name, warmup) for name in SCHEDULES for warmup in (0.0, 0.2) if (name, warmup) != ("constant", 0.0)
]


def run_of(schedule: str, warmup: float = 0.0, optimizer: str = "adam", epochs: int = 4, **more: Any) -> Run:
    stop = more.pop("stop", Stop(epochs))
    return Run(
        "mse", optimizer, RULES[optimizer], more.pop("batch_size", BATCH), 3, NET, stop,
        schedule=schedule, warmup=warmup, **more,
    )  # fmt: skip


def native(runs: list[Run], dtype: str = "float64") -> list[Record]:
    records = NativeEngine(problem("regression", ROWS, 30), "rmse", dtype=dtype).run_all(runs, num_threads=2)
    return [record for record in records if record is not None]


def flat(record: Record) -> Any:
    return np.concatenate([part.numpy().ravel() for part in record.parameters.values()])


def torch_loop(run: Run, num_steps: int, epochs: int) -> Any:
    """The weights after every epoch, by torch's own optimizer and the library's scheduler."""
    data = problem("regression", ROWS, 30)
    sizes = [data.x_train.shape[1], 5, 1]
    module = build_module(sizes, NET, initial_parameters(sizes, run.seed)).double()
    peers = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    optimizer = peers[run.optimizer](module.parameters(), lr=run.lr)
    scheduler = ScheduleLR(optimizer, run.schedule, num_steps=num_steps, warmup=run.warmup)
    x, y = torch.as_tensor(data.x_train).double(), torch.as_tensor(data.y_train).double()
    for epoch in range(epochs):
        order = torch.as_tensor(data_order(ROWS, run.seed, epoch))
        for rows in order.split(int(run.batch_size)):
            optimizer.zero_grad()
            nn.functional.mse_loss(module(x[rows])[:, 0], y[rows]).backward()
            optimizer.step()
            scheduler.step()
    return nn.utils.parameters_to_vector(module.parameters()).detach().numpy()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(("schedule", "warmup"), COURSES)
def test_the_native_engine_against_torchs_loop_and_a_scheduler(
    schedule: str, warmup: float, optimizer: str
) -> None:
    run = run_of(schedule, warmup, optimizer)
    data = replace(
        problem("regression", ROWS, 30),
        x_validation=np.empty((0, 6), np.float32),
        y_validation=np.empty(0, np.float32),
    )
    (record,) = NativeEngine(data, "rmse", dtype="float64").run_all([run])
    assert record is not None
    assert record.num_steps == 4 * STEPS_AN_EPOCH
    expected = torch_loop(run, 4 * STEPS_AN_EPOCH, 4)
    np.testing.assert_allclose(record.parameters, expected, rtol=0, atol=1e-12)
    (constant,) = native([replace(run, schedule="constant", warmup=0.0)])
    assert np.abs(constant.parameters - expected).max() > 1e-4


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_compiled_formula_is_the_same(schedule: str) -> None:
    kernel, course = rate_kernel(schedule), Course(schedule, 1000, 0.05)
    for step in range(1000):
        found = kernel.function(float(step), 1000.0, 50.0)
        assert found == pytest.approx(course.factor(step), rel=1e-15, abs=1e-18)


@pytest.mark.parametrize("optimizer", RULES)
@pytest.mark.parametrize(("schedule", "warmup"), COURSES)
def test_the_torch_and_the_population_engine_give_the_native_ones_run(
    schedule: str, warmup: float, optimizer: str
) -> None:
    data = problem("regression", ROWS, 30)
    run = run_of(schedule, warmup, optimizer)
    runs = [run, replace(run, seed=4), run_of("constant", 0.0, optimizer), run_of(schedule, warmup, "sgd", 2)]
    (expected, _, _, shorter) = native(runs, "float32")

    def module() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))

    rows = [
        as_rows((torch.as_tensor(x), torch.as_tensor(y)), name)
        for name, x, y in (
            ("train", data.x_train, data.y_train),
            ("validation", data.x_validation, data.y_validation),
        )
    ]
    for kind in (TorchEngine, PopulationEngine):
        engine = kind(module, *rows, "regression", "rmse")
        start = initial_parameters([6, 5, 1], run.seed)
        engine.factory = lambda start=start: build_module([6, 5, 1], NET, start)  # type: ignore[misc]
        records = engine.run_all([replace(one, seed=3) for one in runs])
        for record, native_record in ((records[0], expected), (records[3], shorter)):
            assert record is not None
            assert record.hyperparameters["lr"] == record.run.lr
            np.testing.assert_allclose(flat(record), native_record.parameters, rtol=0, atol=2e-6)


def test_a_population_of_a_table() -> None:
    data = problem("regression", ROWS, 30)
    runs = [run_of(name, warmup, optimizer) for name, warmup in COURSES for optimizer in ("sgd", "adam")]
    together = TablePopulation(data, "rmse", "cpu").run_all(runs)
    for record, alone in zip(together, native(runs, "float32"), strict=True):
        assert record is not None
        np.testing.assert_allclose(record.parameters, alone.parameters, rtol=0, atol=2e-6)


def test_the_record_has_the_rate_that_was_asked_for() -> None:
    (record,) = native([run_of("cosine", 0.1)])
    assert record.hyperparameters["lr"] == RULES["adam"]


def test_the_number_of_threads_and_the_company_do_not_matter() -> None:
    runs = [run_of(name, warmup, optimizer) for name, warmup in COURSES for optimizer in RULES]
    engine = NativeEngine(problem("regression", ROWS, 30), "rmse")
    one, two = (engine.run_all(runs, num_threads=count) for count in (1, 2))
    assert list(map(bits, one)) == list(map(bits, two))
    assert bits(engine.run_all([runs[7]])[0]) == bits(one[7])


@pytest.mark.parametrize(("schedule", "warmup"), COURSES)
def test_a_run_that_stops_early_is_the_beginning_of_the_long_one(schedule: str, warmup: float) -> None:
    long = run_of(schedule, warmup, epochs=6)
    short = replace(long, stop=Stop(2), schedule_epochs=6)
    whole, begun = native([long, short])
    assert begun.curve.train_loss.tobytes() == whole.curve.train_loss[:2].tobytes()
    assert begun.curve.validation_score.tobytes() == whole.curve.validation_score[:2].tobytes()
    (compressed,) = native([replace(short, schedule_epochs=None)])
    assert compressed.curve.train_loss.tobytes() != begun.curve.train_loss.tobytes()


def test_the_steps_count_where_they_end_a_run_first() -> None:
    stop = Stop(max_epochs=100, max_steps=10)
    by_steps, by_both = native([run_of("linear", stop=Stop(None, 10)), run_of("linear", stop=stop)])
    assert bits(by_steps) == bits(by_both)


def test_a_schedule_without_a_length_is_refused() -> None:
    for schedule, warmup, what in (("cosine", 0.0, "The schedule 'cosine'"), ("constant", 0.1, "A warm-up")):
        run = run_of(schedule, warmup, stop=Stop(max_epochs=None, max_sec=1.0))
        with pytest.raises(InputError, match=f"{what} needs a length .* give max_epochs or max_steps"):
            native([run])


def test_a_schedule_over_a_single_step_is_refused() -> None:
    with pytest.raises(InputError, match=r"a single step, over which a schedule cannot change the rate"):
        check_course(run_of("linear", stop=Stop(1)), 1)
    with pytest.raises(InputError, match=r"a single step, over which a warm-up cannot change the rate"):
        check_course(run_of("constant", 0.5, stop=Stop(1)), 1)
    check_course(run_of("linear", stop=Stop(2)), 1)


def test_a_loader_whose_batches_are_its_own_has_no_length() -> None:
    data = problem("regression", ROWS, 0)
    tensors = torch.utils.data.TensorDataset(torch.as_tensor(data.x_train), torch.as_tensor(data.y_train))
    sampler = torch.utils.data.WeightedRandomSampler([1.0] * ROWS, ROWS)
    rows = as_rows(torch.utils.data.DataLoader(tensors, batch_size=16, sampler=sampler), "train")
    engine = TorchEngine(lambda: nn.Linear(6, 1), rows, None, "regression", "rmse")
    with pytest.raises(InputError, match=r"own sampler decides the batches, so the number of steps"):
        engine.run_all([run_of("cosine")])


@pytest.mark.parametrize(
    ("rows", "drops_last", "norm", "steps"),
    [
        (33, False, False, 3),
        (33, True, False, 2),
        (33, False, True, 2),
        (34, False, True, 3),
        (5, True, False, 1),
    ],
)
def test_the_torch_engine_counts_the_steps_it_takes(
    rows: int, drops_last: bool, norm: bool, steps: int
) -> None:
    data = problem("regression", rows, 0)
    tensors = torch.utils.data.TensorDataset(torch.as_tensor(data.x_train), torch.as_tensor(data.y_train))
    loader = torch.utils.data.DataLoader(tensors, batch_size=16, shuffle=True, drop_last=drops_last)
    train = as_rows(loader if rows > 16 else (data.x_train, data.y_train), "train")

    def module() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 4), *[nn.BatchNorm1d(4)] * norm, nn.Linear(4, 1))

    engine = TorchEngine(module, train, None, "regression", "rmse")
    run = run_of("linear", optimizer="sgd")
    course = engine.course(run, module())
    assert course is not None
    assert course.num_steps == 4 * steps
    record = engine.run_all([run])[0]
    assert record is not None
    assert record.num_steps == 4 * steps
