"""`fit_module` in this process: the same step whatever the micro-batches, checkpoints, resuming, wrong input."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from steepest.comparison.fit_module import fit_module
from steepest.errors import InputError
from steepest.losses import CrossEntropyLoss
from steepest.optim import AdamW
from steepest.schedules import ScheduleLR
from steepest.training.distributed import train
from steepest.training.random import data_order

ROWS, BATCH = 22, 8


def module() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def parts() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(30, 4, generator=draw)
    y = torch.randint(3, (30,), generator=draw)
    y[::7] = -100
    return (x[:ROWS], y[:ROWS]), (x[ROWS:], y[ROWS:])


class Doubled(TensorDataset):
    """Rows of float64, as the module takes them."""

    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return x.double(), y


def data() -> list[Doubled]:
    return [Doubled(*part) for part in parts()]


def fitted(out: Path, **options: Any) -> dict[str, Tensor]:
    asked: dict[str, Any] = {
        "loss": "cross_entropy",
        "optimizer": "adamw",
        "lr": 0.02,
        "batch_size": BATCH,
        "max_epochs": 4,
        "seed": 5,
        **options,
    }
    fit_module(asked.pop("model", module), asked.pop("data", data), out=out, **asked)
    return load_file(out / "model" / "model.safetensors")


def by_hand(num_epochs: int = 4) -> dict[str, Tensor]:
    """The same in a plain loop."""
    (x, y), _ = parts()
    torch.manual_seed(5)
    model, loss = module(), CrossEntropyLoss()
    optimizer = AdamW(model.parameters(), lr=0.02)
    for epoch in range(num_epochs):
        for rows in torch.as_tensor(data_order(ROWS, 5, epoch)).split(BATCH):
            optimizer.zero_grad()
            loss(model(x[rows].double()), y[rows]).backward()
            optimizer.step()
    return model.state_dict()


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    "options", [{}, {"accumulate": 2}, {"accumulate": 8}, {"parallel": "fsdp", "accumulate": 4}]
)
def test_it_is_the_plain_loop_whatever_the_micro_batches(tmp_path: Path, options: dict[str, Any]) -> None:
    close(fitted(tmp_path / "out", **options), by_hand())


def test_the_record_says_what_was_done(tmp_path: Path) -> None:
    seen: list[int] = []
    fitted(tmp_path / "out", on_step=lambda standing, num_steps, loss: seen.append(standing.step))
    about = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    assert seen == list(range(1, 13))
    assert (about["status"], about["stop_reason"], about["step"]) == ("complete", "epochs", 12)
    assert about["hyperparameters"]["lr"] == 0.02
    assert [epoch["step"] for epoch in about["curve"]] == [3, 6, 9, 12]
    model = module()
    model.load_state_dict(load_file(tmp_path / "out" / "model" / "model.safetensors"))
    x, y = parts()[1]
    expected = CrossEntropyLoss()(model(x.double()), y).item()
    assert about["curve"][-1]["validation_loss"] == pytest.approx(expected, rel=1e-9)


class Stop(Exception):
    pass


def stop_at(step: int) -> Callable[..., None]:
    def on_step(standing: Any, num_steps: int, loss: float) -> None:
        if standing.step == step:
            raise Stop

    return on_step


@pytest.mark.parametrize("dropout", [False, True])
def test_resumed_it_goes_on_as_if_nothing_had_been(tmp_path: Path, dropout: bool) -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3 * dropout), nn.Linear(6, 3)).double()

    whole = fitted(tmp_path / "whole", model=model)
    with pytest.raises(Stop):
        fitted(tmp_path / "cut", model=model, checkpoint_every=2, on_step=stop_at(5))
    kept = sorted(path.name for path in (tmp_path / "cut" / "checkpoints").iterdir())
    assert kept == ["step-000000002", "step-000000004"]
    again = fitted(tmp_path / "cut", model=model, resume=True)
    for name, values in whole.items():
        assert torch.equal(values, again[name])  # to the bit: dropout draws by the step


class Tied(nn.Module):
    """The head's weights are the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, codes: Tensor) -> Any:
        return self.head(self.embed(codes))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_tied_weights_are_saved_once_and_read_back_tied(tmp_path: Path, parallel: str) -> None:
    codes = torch.randint(7, (24, 5), generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"model": Tied, "data": (codes, codes), "parallel": parallel}
    whole = fitted(tmp_path / "whole", **options)
    with pytest.raises(Stop):
        fitted(tmp_path / "cut", checkpoint_every=2, on_step=stop_at(5), **options)
    (last,) = (tmp_path / "cut" / "checkpoints" / "step-000000004").glob("*.safetensors")
    assert [name for name in load_file(last) if name.startswith("model.")] == ["model.embed.weight"]
    again = fitted(tmp_path / "cut", resume=True, **options)
    assert all(torch.equal(values, again[name]) for name, values in whole.items())
    assert torch.equal(again["embed.weight"], again["head.weight"])
    Tied().load_state_dict(again)  # all its names are there


def channels_last() -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(3, 3))
    return layers.to(memory_format=torch.channels_last)


def orthogonal() -> nn.Module:
    """Its parametrization's own weight lies transposed."""
    return nn.Sequential(nn.Flatten(), nn.utils.parametrizations.orthogonal(nn.Linear(8, 3)))


@pytest.mark.parametrize("model", [channels_last, orthogonal])
def test_weights_that_do_not_lie_row_by_row_are_saved_and_read_back(tmp_path: Path, model: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(24, 2, 2, 2, generator=draw), torch.randint(3, (24,), generator=draw)
    whole = fitted(tmp_path / "whole", model=model, data=rows)
    with pytest.raises(Stop):
        fitted(tmp_path / "cut", model=model, data=rows, checkpoint_every=2, on_step=stop_at(5))
    again = fitted(tmp_path / "cut", model=model, data=rows, resume=True)
    assert all(torch.equal(values, again[name]) for name, values in whole.items())
    model().load_state_dict(again)


@pytest.mark.parametrize(
    ("rows", "accumulate", "num_steps"), [(17, 1, 2), (19, 2, 2), (20, 2, 3), (18, 1, 3)]
)
def test_too_few_rows_for_batch_norm_are_left_out_at_an_epochs_end(
    tmp_path: Path, rows: int, accumulate: int, num_steps: int
) -> None:
    draw = torch.Generator().manual_seed(0)
    found = fit_module(
        lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)),
        (torch.randn(rows, 4, generator=draw), torch.randint(3, (rows,), generator=draw)),
        out=tmp_path / "out",
        batch_size=BATCH,
        max_epochs=2,
        accumulate=accumulate,
    )
    assert found.record.standing.step == 2 * num_steps
    assert any("from which batch norm cannot learn" in note for note in found.notes) == (num_steps == 2)


class Unused(nn.Module):
    """One layer that the outputs do not hang on, and one that they hang on now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = module()
        self.left_out = nn.Linear(2, 2)
        self.at_times = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.num_calls = 0

    def forward(self, x: Tensor) -> Any:
        self.num_calls += self.training
        return self.layers(x) + (self.at_times if self.num_calls % 2 else 0.0)


def test_parameters_may_be_left_out(tmp_path: Path) -> None:
    found = fitted(tmp_path / "out", model=Unused, accumulate=2)
    with pytest.raises(Stop):
        fitted(tmp_path / "cut", model=Unused, accumulate=2, checkpoint_every=2, on_step=stop_at(5))
    again = fitted(tmp_path / "cut", model=Unused, accumulate=2, resume=True)
    assert all(torch.equal(values, again[name]) for name, values in found.items())
    torch.manual_seed(5)
    assert torch.equal(found["left_out.weight"], Unused().left_out.weight)
    assert found["at_times"].abs().min() > 0.0


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(6), nn.Tanh(), nn.LazyLinear(3)).double()


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_lazy_layers_get_their_width_from_the_inputs(tmp_path: Path, parallel: str) -> None:
    whole = fitted(tmp_path / "whole", model=lazy, parallel=parallel)
    assert whole["0.weight"].shape == (6, 4)
    again = fitted(tmp_path / "again", model=lazy, parallel=parallel)
    assert all(torch.equal(values, again[name]) for name, values in whole.items())


def test_what_fails_in_a_step_is_told_with_the_step(tmp_path: Path) -> None:
    class Failing(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            if self.training:
                raise ValueError("no more")
            return super().forward(inputs)

    x = torch.rand(12, 3)
    with pytest.raises(InputError, match=r"^In step 1: The model failed on a batch: ValueError: no more\.$"):
        fit_module(lambda: Failing(3, 1), (x, x[:, 0]), out=tmp_path / "out", max_epochs=1)


def test_sparse_gradients_are_refused_by_who_takes_none(tmp_path: Path) -> None:
    codes = torch.arange(24).reshape(12, 2)
    options: dict[str, Any] = {"data": (codes, codes[:, 0].float()), "loss": "mse"}
    model = lambda: nn.EmbeddingBag(24, 1, sparse=True)  # noqa: E731
    fitted(tmp_path / "out", model=model, optimizer="sgd", **options)
    with pytest.raises(InputError, match=r"adam takes no sparse gradients.* make them with sparse=False"):
        fitted(tmp_path / "other", model=model, optimizer="adam", **options)
    assert not torch.distributed.is_initialized()  # nobody else waits in the middle of a step


def test_resumed_a_schedule_goes_on(tmp_path: Path) -> None:
    schedule = {"schedule": "cosine", "warmup": 0.2}
    whole = fitted(tmp_path / "whole", **schedule)
    with pytest.raises(Stop):
        fitted(tmp_path / "cut", checkpoint_every=2, on_step=stop_at(5), **schedule)
    with pytest.raises(InputError, match="is of a training with schedule 'cosine', this one has 'constant'"):
        fitted(tmp_path / "cut", resume=True)
    with pytest.raises(InputError, match="is of a training with num_steps 12, this one has 15"):
        fitted(tmp_path / "cut", resume=True, max_epochs=5, **schedule)
    again = fitted(tmp_path / "cut", resume=True, **schedule)
    assert all(torch.equal(values, again[name]) for name, values in whole.items())
    about = json.loads((tmp_path / "cut" / "record.json").read_text(encoding="utf-8"))
    assert about["hyperparameters"]["lr"] == 0.02
    assert not torch.equal(whole["0.weight"], by_hand()["0.weight"])


def test_a_schedule_is_that_of_the_scheduler(tmp_path: Path) -> None:
    (x, y), _ = parts()
    torch.manual_seed(5)
    model, loss = module(), CrossEntropyLoss()
    optimizer = AdamW(model.parameters(), lr=0.02)
    scheduler = ScheduleLR(optimizer, "wsd", num_steps=12, warmup=0.2)
    for epoch in range(4):
        for rows in torch.as_tensor(data_order(ROWS, 5, epoch)).split(BATCH):
            optimizer.zero_grad()
            loss(model(x[rows].double()), y[rows]).backward()
            optimizer.step()
            scheduler.step()
    close(fitted(tmp_path / "out", schedule="wsd", warmup=0.2), model.state_dict())


def test_a_torn_checkpoint_is_passed_over(tmp_path: Path) -> None:
    out = tmp_path / "cut"
    with pytest.raises(Stop):
        fitted(out, checkpoint_every=2, on_step=stop_at(5))
    (last,) = (out / "checkpoints" / "step-000000004").glob("*.safetensors")
    last.write_bytes(last.read_bytes()[:-8])
    (out / "checkpoints" / ".step-000000006").mkdir()
    close(fitted(out, resume=True), by_hand())
    about = json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert about["launches"][-1]["from_step"] == 2
    assert not (out / "checkpoints" / ".step-000000006").exists()


def test_a_finished_training_can_be_gone_on_with(tmp_path: Path) -> None:
    fitted(tmp_path / "out", max_epochs=2)
    close(fitted(tmp_path / "out", max_epochs=4, resume=True), by_hand())


def test_a_disk_that_refuses_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("steepest.training.distributed.checkpoint.save", full)
    with pytest.raises(InputError, match=r"cannot be written: No space left on device\."):
        fitted(tmp_path / "out", checkpoint_every=2)


def test_what_a_rank_fails_with_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.distributed.checkpoint wraps it in a CheckpointException, which is no Exception."""

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(HuggingFaceStorageWriter, "prepare_local_plan", full)
    with pytest.raises(InputError, match=r"cannot be written: No space left on device\."):
        fitted(tmp_path / "out", checkpoint_every=2)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_it_trains_whatever_is_switched_off_around_it(tmp_path: Path, mode: Any, parallel: str) -> None:
    with mode():
        found = fitted(tmp_path / "out", parallel=parallel)
        assert not torch.is_grad_enabled()
    close(found, by_hand())


def test_a_step_without_a_row_that_counts_is_skipped(tmp_path: Path) -> None:
    (x, y), _ = parts()
    y[:] = -100
    y[0] = 1
    done = fit_module(
        lambda: nn.Linear(4, 3),
        (x, y),
        out=tmp_path / "out",
        loss="cross_entropy",
        batch_size=2,
        max_epochs=1,
    )
    about = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    assert (about["step"], about["num_skipped"]) == (11, 10)
    (note,) = done.notes
    assert note.startswith("10 of 11 steps were skipped: ")


def test_a_training_without_a_single_step_is_an_error(tmp_path: Path) -> None:
    x, y = torch.ones(8, 4), torch.full((8,), float("nan"))
    with pytest.raises(
        InputError, match="No step was taken: each of the 8 had a gradient that is not finite"
    ):
        fit_module(lambda: nn.Linear(4, 1), (x, y), out=tmp_path / "out", batch_size=2, max_epochs=2)
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize(("lr", "loss"), [(100.0, "inf"), (1e20, "nan")])
def test_a_training_that_diverges_says_so(tmp_path: Path, lr: float, loss: str) -> None:
    (x, _), _ = parts()
    options: dict[str, Any] = {"optimizer": "sgd", "batch_size": BATCH, "max_epochs": 5}
    found = fit_module(one_output, (x, x.sum(dim=1)), out=tmp_path / "out", lr=lr, **options)
    (note,) = [note for note in found.notes if "it diverged" in note]
    assert note.startswith(f"The training loss of the last epoch is {loss}: ")
    assert note.endswith(f"Give a smaller learning rate than {lr:g}.")
    sound = fit_module(one_output, (x, x.sum(dim=1)), out=tmp_path / "sound", lr=0.01, **options)
    assert not sound.notes


def test_a_training_that_learns_nothing_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "MOST_SKIPPED", 4)
    x, y = torch.full((8, 4), float("nan")), torch.zeros(8)
    with pytest.raises(InputError, match="4 steps in a row"):
        fit_module(lambda: nn.Linear(4, 1), (x, y), out=tmp_path / "out", batch_size=2)


def test_losses_fitted_to_the_classes_and_loaders(tmp_path: Path) -> None:
    train_part, _ = parts()
    model = lambda: nn.Linear(4, 3)  # noqa: E731
    plain: dict[str, Any] = {"batch_size": 11, "max_epochs": 1, "loss": "class_balanced"}
    fit_module(model, train_part, out=tmp_path / "one", **plain)
    fit_module(model, train_part, out=tmp_path / "many", accumulate=11, **plain)
    one, many = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "many"))
    torch.testing.assert_close(one["weight"], many["weight"], rtol=1e-5, atol=1e-7)
    loader = DataLoader(TensorDataset(*train_part), batch_size=5, shuffle=True, drop_last=True)
    fit_module(model, loader, out=tmp_path / "loader", loss="cross_entropy", max_epochs=1)
    about = json.loads((tmp_path / "loader" / "record.json").read_text(encoding="utf-8"))
    assert about["step"] == 4  # 22 rows, 5 a step, the rest dropped
    with pytest.raises(InputError, match="as tensors"):
        fit_module(model, TensorDataset(*train_part), out=tmp_path / "set", **plain)


def test_a_column_of_classes_is_as_good_as_a_row_of_them(tmp_path: Path) -> None:
    (x, labels), _ = parts()
    flat, column = (
        fitted(tmp_path / str(y.dim()), model=lambda: nn.Linear(4, 3), data=(x, y))
        for y in (labels, labels[:, None])
    )
    assert torch.equal(flat["weight"], column["weight"])


@pytest.mark.parametrize("accumulate", [1, 4])
def test_targets_may_be_shares_of_the_classes(tmp_path: Path, accumulate: int) -> None:
    (x, labels), _ = parts()
    shares = nn.functional.one_hot(labels.clamp(min=0), 3) * 0.7 + 0.1
    found = fitted(
        tmp_path / "out",
        model=lambda: nn.Linear(4, 3),
        data=(x, shares),
        task="multiclass",
        optimizer="sgd",
        max_epochs=1,
        accumulate=accumulate,
    )
    torch.manual_seed(5)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for rows in torch.as_tensor(data_order(ROWS, 5, 0)).split(BATCH):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), shares[rows]).backward()
        optimizer.step()
    torch.testing.assert_close(found["weight"], model.weight.detach(), rtol=1e-5, atol=1e-6)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(TensorDataset(*parts()[0]))


def one_output() -> nn.Module:
    return nn.Linear(4, 1)


def three_outputs() -> nn.Module:
    return nn.Linear(4, 3)


X, COUNTS = torch.zeros(ROWS, 4), torch.arange(ROWS)
OF_TWO, WHOLE = "the two classes are 0 and 1;", "Classes are whole numbers, 0, 1, ...;"


@pytest.mark.parametrize(
    ("outputs", "task", "loss"),
    [(1, "auto", "bce"), (2, "auto", "cross_entropy"), (2, "classification", "cross_entropy")],
)
def test_two_classes_by_one_output_or_two(tmp_path: Path, outputs: int, task: str, loss: str) -> None:
    found = fit_module(
        lambda: nn.Linear(4, outputs), (X, COUNTS % 2), out=tmp_path / "out", task=task, max_steps=1
    )
    assert found.record.run.run.loss == loss


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": one_output, "data": (X, COUNTS), "loss": "bce"}, OF_TWO),
    ({"model": one_output, "data": TensorDataset(X, COUNTS), "loss": "bce"}, OF_TWO),
    ({"model": three_outputs, "data": (X, COUNTS % 3 + 0.5), "task": "multiclass"}, WHOLE),
    ({"model": three_outputs, "data": TensorDataset(X, COUNTS % 3 + 0.5), "task": "multiclass"}, WHOLE),
    ({"model": "no_such_module:factory"}, "'no_such_module:factory' cannot be imported: ModuleNotFoundError"),
    ({"model": "json:dumb"}, "'json' has no 'dumb'; did you mean 'dump'"),
    ({"model": "json:x"}, "'json' has no 'x'; choose from dump, dumps, detect_encoding, load, loads."),
    ({"model": "json"}, "give 'package.module:name'"),
    ({"model": nn.Linear(4, 3)}, "give a function without arguments"),
    ({"data": lambda: 1 / 0}, "The data function failed: ZeroDivisionError"),
    ({"data": "text"}, "The data is 'text'; give 'package.module:name'"),
    ({"data": 3}, "The data is a int"),
    ({"data": Stream()}, "The train data is an IterableDataset"),
    (
        {"data": DataLoader(data()[0], batch_size=50, drop_last=True), "batch_size": None},
        "The batch size 50 is larger than the 22 training rows",
    ),
    ({"accumulate": 3}, "The batch size 8 cannot be shared evenly by 1 processes with 3 micro-batches"),
    ({"accumulate": 0}, "accumulate is a positive whole number"),
    ({"batch_size": 100}, "larger than the 22 training rows"),
    ({"parallel": "zero"}, "parallel is 'zero'; choose ddp"),
    ({"device": "abacus"}, "The device is 'abacus'"),
    ({"loss": "mse"}, "does not fit a multiclass target"),
    ({"optimizer": "adams"}, "did you mean 'adam'"),
    ({"lr": -1.0}, "learning rate is a positive number"),
    ({"task": "guess"}, "There is no task 'guess'"),
    ({"max_epochs": None}, "Nothing limits the training"),
    ({"checkpoint_every": 0}, "checkpoint_every is a positive whole number"),
    ({"resume": True}, "There is nothing to resume"),
]


@pytest.mark.parametrize(("options", "words"), WRONG, ids=[words[:30] for _, words in WRONG])
def test_wrong_input_is_one_sentence(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=r".") as caught:
        fitted(tmp_path / "out", **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not torch.distributed.is_initialized()


def test_a_checkpoint_is_gone_on_with_for_the_same_question_alone(tmp_path: Path) -> None:
    fitted(tmp_path / "out")
    with pytest.raises(InputError, match="has a checkpoint of step 12; go on from it with resume"):
        fitted(tmp_path / "out")
    with pytest.raises(InputError, match=r"is of a training with lr 0\.02, this one has 0\.5"):
        fitted(tmp_path / "out", lr=0.5, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "diary.txt").write_text("dear diary")
    with pytest.raises(InputError, match="is not empty and not written by steepest"):
        fitted(tmp_path / "other")


def gloo_threads() -> set[str]:
    """Threads of gloo's in this process."""
    tasks = Path("/proc/self/task")
    return {task.name for task in tasks.iterdir() if "gloo" in (task / "comm").read_text()}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are looked up in /proc")
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("fails", [False, True])
def test_no_thread_of_gloos_outlives_its_group(tmp_path: Path, parallel: str, fails: bool) -> None:
    """Python, ending around one that needs it, would abort; DDP, freeing the group in C++, could wait for ever."""
    gc.collect()
    before = gloo_threads()
    if fails:
        with pytest.raises(Stop):
            fitted(tmp_path / "out", parallel=parallel, on_step=stop_at(3))
    else:
        fitted(tmp_path / "out", parallel=parallel)
    gc.collect()
    assert not gloo_threads() - before
