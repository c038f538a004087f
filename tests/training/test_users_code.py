"""The user's own code around the torch engine: what fails is named as theirs, what is random is seeded and put back."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

from steepest.errors import InputError
from steepest.losses import LOSSES, MSELoss
from steepest.training.run import Record, Run, Stop
from steepest.training.torch_data import Rows, as_rows
from steepest.training.torch_engine import TorchEngine

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # on a single processor
    pytest.mark.filterwarnings(
        "ignore:This process .* is multi-threaded"
    ),  # what Python 3.12 says of workers
]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(33, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5])).astype(np.float32)


class Table(Dataset[Any]):
    """The rows as a data set; ``broken`` is an item that cannot be read."""

    def __init__(self, count: int = 33, broken: int | None = None, noise: float = 0.0) -> None:
        self.count, self.broken, self.noise = count, broken, noise

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        if index == self.broken:
            raise OSError(f"image {index}\nis truncated")
        draws = np.random.normal() + random.random() + float(torch.rand(()))
        return torch.tensor(X[index]) + self.noise * draws, float(Y[index])


class Passing(IterableDataset[Any]):
    """The rows one after the other, shared among the workers."""

    def __init__(self, count: int = 33, broken: int | None = None) -> None:
        self.count, self.broken = count, broken

    def __iter__(self) -> Iterator[tuple[Tensor, float]]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index in range(first, self.count, step):
            if index == self.broken:
                raise OSError("the connection was lost")
            yield torch.tensor(X[index]), float(Y[index])


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 1))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 1))


def one(
    train: Rows, run: Run, factory: Callable[[], nn.Module] = linear, validation: Rows | None = None
) -> Record:
    (record,) = TorchEngine(factory, train, validation, "regression", "rmse").run_all([run])
    assert record is not None
    return record


def run(batch_size: Any = 8, epochs: int = 2, loss: str = "mse", seed: int = 1) -> Run:
    return Run(loss, "sgd", 0.05, batch_size, seed=seed, stop=Stop(epochs))


def same(first: Record, second: Record) -> bool:
    return all(torch.equal(value, second.parameters[name]) for name, value in first.parameters.items())


# --- a lone last row and batch norm -------------------------------------------------------------------------------


def test_a_lone_last_row_is_left_out_under_batch_norm() -> None:
    """33 rows in batches of 8: the fifth batch is one row."""
    record = one(as_rows((X, Y), "train"), run(8), normed)
    assert (record.num_steps, record.num_examples) == (8, 64)
    assert one(as_rows((X, Y), "train"), run(8)).num_examples == 66


def test_batch_norm_at_rest_takes_the_lone_row() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer = nn.BatchNorm1d(3), nn.Linear(3, 1)

        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self.norm.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.norm(x))

    assert one(as_rows((X, Y), "train"), run(8), Frozen).num_examples == 66


def test_batch_norm_over_pixels_learns_from_single_rows() -> None:
    images = X.reshape(33, 1, 1, 3)
    record = one(
        as_rows((images, Y), "train"),
        run(1, 1),
        lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(3, 1)),
    )
    assert record.num_examples == 33


def test_a_loader_that_drops_its_last_batch_does_so_here() -> None:
    loader = DataLoader(Table(), batch_size=10, drop_last=True)
    rows = as_rows(loader, "train")
    assert (rows.batch_size, rows.drops_last, len(rows)) == (10, True, 33)
    record = one(rows, run(10))
    assert (record.num_steps, record.num_examples) == (6, 60)


# --- the curve ------------------------------------------------------------------------------------------------------


def test_the_curve_counts_examples_and_seconds() -> None:
    curve = one(as_rows((X, Y), "train"), run(8, 3)).curve
    np.testing.assert_array_equal(curve.examples, [33, 66, 99])
    assert len(curve.seconds) == 3
    assert (np.diff(curve.seconds) > 0).all()


# --- random numbers -------------------------------------------------------------------------------------------------


def drawn() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.random()), random.random()


def seed_the_caller() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)


def test_the_callers_random_numbers_go_on_as_if_nothing_had_been() -> None:
    seed_the_caller()
    expected = drawn()
    seed_the_caller()
    rows = as_rows(Table(noise=0.1), "train")
    engine = TorchEngine(normed, rows, None, "regression", "rmse")
    (record,) = engine.run_all([run(8, 1)])
    assert record is not None
    engine.predict(record.run, record.parameters, as_rows((X, Y), "test"))
    engine.make(3)
    assert drawn() == expected


@pytest.mark.parametrize("num_workers", [0, 2])
def test_augmentation_depends_on_the_seed_and_not_on_what_was_before(num_workers: int) -> None:
    def train() -> Rows:
        return as_rows(DataLoader(Table(noise=0.5), batch_size=8, num_workers=num_workers), "train")

    engine = TorchEngine(normed, train(), None, "regression", "rmse")
    first, other, again = engine.run_all([run(), run(seed=2), run()])
    assert first is not None
    assert other is not None
    assert again is not None
    assert same(first, again)
    assert not same(first, other)
    random.seed(99)
    np.random.seed(99)
    assert same(first, one(train(), run(), normed))


def test_each_epoch_draws_anew_from_a_seed_of_its_own() -> None:
    """The second epoch is not the first again; and it is the same, whatever the first one drew."""
    drawn_at: list[list[float]] = []

    class Watched(Table):
        def __getitem__(self, index: int) -> tuple[Tensor, float]:
            drawn_at.append([float(torch.rand(())), np.random.random(), random.random()])
            return torch.tensor(X[index]), float(Y[index])

    rows = as_rows(Watched(16), "train")
    firsts = []
    for factory in (linear, normed):  # dropout draws from torch in between
        drawn_at.clear()
        one(rows, run(16, 2), factory)
        firsts.append([drawn_at[0], drawn_at[16]])
    assert firsts[0] == firsts[1]
    assert all(a != b for a, b in zip(*firsts[0], strict=True))


# --- whose fault it is ----------------------------------------------------------------------------------------------


def bad_collate(examples: Any) -> Any:
    raise KeyError("labels")


def triples(examples: Any) -> Any:
    return torch.zeros(2), torch.zeros(2), torch.zeros(2)


class Ragged(Table):
    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        return torch.zeros(index + 1), 0.0


class Together(Table):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        raise OSError("no such shard")


class WithoutLength(Table):
    def __len__(self) -> int:
        raise TypeError("unknown")


class NoTargets(Table):
    def __getitem__(self, index: int) -> Any:
        return torch.zeros(3)


class Texts(Table):
    def __getitem__(self, index: int) -> Any:
        return torch.zeros(3), "a word"


@pytest.mark.parametrize(
    ("data", "message", "cause"),
    [
        (Table(broken=4), "The train data set failed on item 4: OSError: image 4 is truncated.", OSError),
        (Passing(broken=5), "The train data set failed on item 5: OSError: the connection was lost.", OSError),
        (Together(), "failed on one of the items [0, 1]: OSError: no such shard.", OSError),
        (Ragged(), "The train data's collate function failed: RuntimeError: stack expects", RuntimeError),
        (DataLoader(Table(), collate_fn=bad_collate), "collate function failed: KeyError: 'labels'.", KeyError),
        (DataLoader(Table(), collate_fn=triples), "batches that are a tuple of 3; each must be a pair", None),
        (NoTargets(), "batches that are a Tensor; each must be a pair", None),
        (Texts(), "targets cannot be read as numbers", Exception),
        (WithoutLength(), "The train data set's length cannot be told: TypeError: unknown.", TypeError),
        (Table(0), "The train data has no rows.", None),
        (Passing(0), "The train data has no rows.", None),
        ((X, Y[:5]), "The train data has 33 inputs and 5 targets; there must be as many.", None),
        (((X, X), Y), "several inputs a row are a Dataset's, whose items are ((a, b), target).", None),
        (({"x": X}, Y), "inputs cannot be read as numbers: TypeError: can't convert", TypeError),
        ((X, ["a"] * 33), "Classes are numbers too: 0, 1, ...", TypeError),
        ((X, Y * 1j), "The train data's targets are complex numbers; give real ones", None),
        ((torch.as_tensor(X).to_sparse(), Y), "inputs are a sparse tensor; give a dense one (to_dense()).", None),
        (DataLoader(Table(broken=4), num_workers=1), "failed on item 4: OSError: image 4 is truncated.", RuntimeError),
        (DataLoader(Passing(broken=4), num_workers=1), "failed on item 4: OSError", RuntimeError),
    ],
)  # fmt: skip
def test_what_fails_in_the_users_data_is_named(data: Any, message: str, cause: type | None) -> None:
    with pytest.raises(InputError) as caught:
        as_rows(data, "train")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None if cause is None else isinstance(caught.value.__cause__, cause)


def test_rows_of_a_graph_and_rows_that_may_not_be_written_to() -> None:
    """A gradient that is asked for of the data is not: it would be added up in the user's tensors, run after run."""
    leaf = torch.tensor(X, requires_grad=True)
    locked = np.array(X)
    locked.flags.writeable = False  # as pandas gives its columns
    plain = one(as_rows((X, Y), "train"), run())
    for data in ((leaf * 1.0, torch.tensor(Y, requires_grad=True)), (locked, Y)):
        assert same(plain, one(as_rows(data, "train"), run()))
    assert leaf.grad is None


def test_a_data_set_that_fails_later_is_named_too() -> None:
    table = Table()
    rows = as_rows(table, "train")
    table.broken = 7
    with pytest.raises(InputError, match="The train data set failed on item 7: OSError"):
        one(rows, run())


def test_a_loss_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(MSELoss):
        def forward(self, input: Tensor, target: Tensor) -> Tensor:
            raise ArithmeticError("no such number")

    monkeypatch.setitem(LOSSES, "mse", Broken)
    with pytest.raises(InputError) as caught:
        one(as_rows((X, Y), "train"), run(8, 1))
    said = "The loss mse failed on outputs (8,) and targets (8,): ArithmeticError: no such number."
    assert str(caught.value) == said
    assert isinstance(caught.value.__cause__, ArithmeticError)


def test_a_gradient_that_fails_is_named() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            raise ZeroDivisionError("1 / 0")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return Broken.apply(self.layer(x))  # type: ignore[no-any-return]

    with pytest.raises(InputError, match="The gradient through the model failed: ZeroDivisionError: 1 / 0"):
        one(as_rows((X, Y), "train"), run(), Net)


def test_a_tuple_for_an_output_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"gave a tuple; it must give one tensor\. A recurrent layer's"):
        one(as_rows((X, Y), "train"), run(), lambda: nn.LSTM(3, 1))


def test_workers_that_ctrl_c_has_ended_end_the_run_and_nothing_else() -> None:
    """The terminal's Ctrl-C goes to a loader's workers as well; what they leave behind is no fault of the data."""
    table, stop = Table(), threading.Event()
    rows = as_rows(table, "train")
    engine = TorchEngine(linear, rows, None, "regression", "rmse")
    table.broken = 3
    stop.set()
    record = engine._train(run(), stop)
    assert record.stop_reason == "interrupted"


# --- loaders and streams --------------------------------------------------------------------------------------------


def test_a_stream_is_the_same_rows_in_its_own_order() -> None:
    rows = as_rows(Passing(), "train")
    assert len(rows) == 33
    np.testing.assert_array_equal(rows.targets, Y)
    batches = list(rows.batches(None, 10))
    assert [len(targets) for _, targets in batches] == [10, 10, 10, 3]
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), torch.tensor(X))
    record = one(rows, run(10, 2), linear, as_rows(Passing(), "validation"))
    assert (record.num_steps, record.num_examples) == (8, 66)
    assert np.isfinite(record.validation_score)


def test_workers_share_a_stream() -> None:
    rows = as_rows(DataLoader(Passing(), batch_size=4, num_workers=2), "train")
    assert (len(rows), rows.batch_size) == (33, 4)
    assert sorted(rows.targets.tolist()) == sorted(Y.tolist())


def set_count(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    info.dataset.count = 6 if worker == 0 else 0


def test_a_worker_init_fn_reaches_the_users_data_set() -> None:
    loader = DataLoader(Passing(), batch_size=4, num_workers=2, worker_init_fn=set_count)
    assert len(as_rows(loader, "train")) == 3  # every second one of six


def test_a_sampler_of_the_users_own_decides() -> None:
    some = SubsetRandomSampler([3, 5, 8, 13, 21])
    rows = as_rows(DataLoader(Table(), batch_size=2, sampler=some), "train")
    assert (len(rows), rows.batch_size, rows.batches_are_own) == (5, 2, True)
    assert sorted(rows.targets.tolist()) == sorted(Y[[3, 5, 8, 13, 21]].tolist())


def test_a_samplers_own_generator_is_seeded_by_the_run_and_put_back() -> None:
    generator = torch.Generator().manual_seed(7)
    expected = torch.rand(3, generator=generator)
    generator.manual_seed(7)
    sampler = WeightedRandomSampler([1.0] * 16 + [9.0] * 17, 20, generator=generator)
    rows = as_rows(DataLoader(Table(), batch_size=5, sampler=sampler), "train")
    assert len(rows) == 20
    first, again = (one(rows, run(5)) for _ in range(2))
    assert same(first, again)
    assert not same(first, one(rows, run(5, seed=2)))
    assert torch.equal(torch.rand(3, generator=generator), expected)


def test_batches_of_a_batch_sampler_stay_what_they_are() -> None:
    loader = DataLoader(Table(9), batch_sampler=[[0, 1, 2, 3], [4, 5], [6, 7, 8]])
    rows = as_rows(loader, "train")
    assert (len(rows), rows.batch_size) == (9, 3)
    assert one(rows, run(3, 1)).num_steps == 3


def test_rows_that_are_scored_must_be_the_same_in_every_pass() -> None:
    class Shrinking(Passing):
        def __iter__(self) -> Iterator[Any]:
            self.count -= 1
            return super().__iter__()

    validation = as_rows(Shrinking(), "validation")
    with pytest.raises(InputError, match="The validation data gives other targets in a second pass"):
        one(as_rows((X, Y), "train"), run(), linear, validation)


def test_a_stream_that_shuffles_is_scored_in_the_order_it_was_read() -> None:
    class Shuffled(Passing):
        def __iter__(self) -> Iterator[Any]:
            order = list(range(33))
            random.shuffle(order)
            return iter([(torch.tensor(X[i]), float(Y[i])) for i in order])

    record = one(as_rows((X, Y), "train"), run(), linear, as_rows(Shuffled(), "validation"))
    ordered = one(as_rows((X, Y), "train"), run(), linear, as_rows((X, Y), "validation"))
    assert record.validation_score == pytest.approx(ordered.validation_score, rel=1e-6)


# --- the digest -----------------------------------------------------------------------------------------------------


def test_inputs_of_a_data_set_are_in_its_digest() -> None:
    class Shifted(Table):
        def __getitem__(self, index: int) -> tuple[Tensor, float]:
            x, y = super().__getitem__(index)
            return x + (index == 32), y

    plain = as_rows(Table(), "train").sha256
    assert as_rows(Table(), "train").sha256 == plain
    assert as_rows(Shifted(), "train").sha256 != plain
    noisy = {as_rows(Table(noise=0.1), "train").sha256 for _ in range(2)}  # global numbers: seeded
    assert len(noisy) == 1


def test_inputs_that_no_seed_repeats_are_left_out_of_the_digest() -> None:
    class Restless(Table):
        def __getitem__(self, index: int) -> tuple[Tensor, float]:
            return torch.tensor(np.random.default_rng().normal(size=3)), float(Y[index])

    first, second = (as_rows(Restless(), "train") for _ in range(2))
    assert not first.is_repeatable
    assert first.sha256 == second.sha256
    assert as_rows(Table(), "train").is_repeatable


def test_objects_in_inputs_are_digested_by_content() -> None:
    def rows(word: str, number: float) -> Rows:
        def collate(examples: Any) -> Any:
            words = [word for _ in examples]
            return {"words": words, "numbers": [np.full(2, number)]}, torch.zeros(len(examples))

        return as_rows(DataLoader(TensorDataset(torch.zeros(4)), collate_fn=collate), "train")

    assert len({rows(word, number).sha256 for word in ("a", "b") for number in (0.0, 1.0)}) == 4


# --- torch.compile --------------------------------------------------------------------------------------------------


def test_weights_of_a_compiled_module_have_their_own_names() -> None:
    rows = as_rows((X, Y), "train")
    compiled = one(rows, run(), lambda: torch.compile(linear(), backend="eager"))
    plain = one(rows, run())
    assert list(compiled.parameters) == ["0.weight", "0.bias"]
    assert same(compiled, plain)
    engine = TorchEngine(lambda: torch.compile(linear(), backend="eager"), rows, None, "regression", "rmse")
    assert np.isfinite(engine.predict(compiled.run, compiled.parameters, rows)).all()
