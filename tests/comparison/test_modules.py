"""Comparisons of the user's own modules, with the real torch engine on little data."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

import steepest
from steepest.comparison.modules import PreparedModules, prepare_modules
from steepest.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5])).astype(np.float32)
LABELS = (Y > 0).astype(np.int64)
PARTS = (slice(0, 30), slice(30, 45), slice(45, 60))


def linear(outputs: int = 1) -> nn.Module:
    return nn.Sequential(nn.Linear(3, outputs))


def parts(targets: np.ndarray) -> tuple:
    return tuple((X[part], targets[part]) for part in PARTS)


def test_a_comparison_of_modules_gives_a_verdict_and_the_trained_module(tmp_path: Path) -> None:
    found = steepest.compare(
        model=linear,
        data=parts(Y),
        losses=["mse"],
        optimizers=["sgd"],
        batch_sizes=[10],
        max_epochs=2,
        out=tmp_path / "out",
    )
    assert found.verdict["status"] == "complete"
    assert found.verdict["task"] == "regression"
    assert found.verdict["num_rows"] == {"train": 30, "validation": 15, "test": 15}
    # The module handed over is the one whose score stands in the record.
    predicted = found.model.predict(X[PARTS[1]])
    rmse = float(np.sqrt(np.mean((predicted - Y[PARTS[1]]) ** 2)))
    assert rmse == pytest.approx(found.model.record.validation_score, rel=1e-5)
    manifest = json.loads((tmp_path / "out" / "model" / "manifest.json").read_text())
    assert manifest["kind"] == "torch module"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "your own module, Sequential" in page
    assert "load_file" in page
    assert "steepest predict" not in page
    assert "Features after encoding" not in page  # nor are its parts cut by shares
    assert "Share of test rows" not in page


def test_what_a_comparison_hands_over_can_be_pickled() -> None:
    """Though a factory such as this one cannot; nor does the model keep the training rows."""
    found = steepest.compare(
        model=lambda: linear(3), data=parts(LABELS), **SHORT | {"losses": ["cross_entropy"]}
    )
    again = pickle.loads(pickle.dumps(found))  # noqa: S301  # our own
    assert again.verdict == found.verdict
    assert (again.model.predict_proba(X) == found.model.predict_proba(X)).all()
    assert (again.model.predict(X) == found.model.predict(X)).all()


def test_a_note_says_that_inputs_hold_nan() -> None:
    """Runs diverge by it, and nothing else would say why."""
    holed = X.copy()
    holed[[3, 40], 1] = np.nan, np.inf
    notes = prepare_modules(linear, [(holed[part], Y[part]) for part in PARTS]).notes
    for words in (
        "train inputs hold NaN or infinity in 1 of 30",
        "validation inputs hold NaN or infinity in 1 of 15",
    ):
        assert f"The {words} rows." in notes
    assert not any("NaN" in note for note in prepare_modules(linear, parts(Y)).notes)


def test_runs_of_one_seed_share_initial_weights_and_are_repeatable() -> None:
    prepared = prepare_modules(linear, parts(Y))
    engine = prepared.start_engine("rmse")
    first, second = (engine.make(7).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(engine.make(8).state_dict()["0.weight"], first["0.weight"])


@pytest.mark.parametrize(
    ("outputs", "targets", "task", "losses"),
    [
        (1, Y, "regression", ["mse", "mae", "huber"]),
        (1, LABELS, "binary", ["bce"]),
        (2, LABELS, "binary", ["cross_entropy"]),
        (3, LABELS, "multiclass", ["cross_entropy"]),
    ],
)
def test_the_task_and_the_losses_follow_from_targets_and_outputs(
    outputs: int, targets: np.ndarray, task: str, losses: list[str]
) -> None:
    from steepest.comparison.options import Options

    prepared = prepare_modules(lambda: linear(outputs), parts(targets))
    assert prepared.task == task
    assert list(prepared.options(Options()).losses) == losses


@pytest.mark.parametrize(("outputs", "task"), [(1, "binary"), (2, "binary"), (3, "multiclass")])
def test_classes_that_come_as_floats_may_be_asked_for(outputs: int, task: str) -> None:
    prepared = prepare_modules(lambda: linear(outputs), parts(LABELS.astype(np.float32)), "classification")
    assert prepared.task == task


@pytest.mark.parametrize("together", [True, False])
def test_an_axis_of_one_makes_no_difference(together: bool) -> None:
    """As a column of a data frame comes."""
    options = SHORT | {"losses": ["cross_entropy"], "together": together}
    flat = steepest.compare(model=lambda: linear(3), data=parts(LABELS), **options)
    column = steepest.compare(model=lambda: linear(3), data=parts(LABELS[:, np.newaxis]), **options)
    assert column.verdict["sentence"] == flat.verdict["sentence"]
    assert (column.model.predict_proba(X) == flat.model.predict_proba(X)).all()


def batch(prepared: PreparedModules, order: list[int]) -> tuple:
    return next(iter(prepared.x_train.batches(order, 3)))


def test_data_sets_and_loaders_are_the_same_rows() -> None:
    arrays = prepare_modules(linear, parts(Y))
    sets = [TensorDataset(torch.tensor(X[part]), torch.tensor(Y[part])) for part in PARTS]
    loaders = [DataLoader(part, batch_size=7) for part in sets]
    order = [3, 1, 2]
    for given in (sets, loaders):
        other = prepare_modules(linear, given)
        for mine, theirs in zip(batch(arrays, order), batch(other, order), strict=True):
            assert torch.equal(mine, theirs)


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))


SHORT = {"losses": ["mse"], "optimizers": ["sgd"], "max_epochs": 1}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("together", [True, False])
def test_it_trains_whatever_is_switched_off_around_it(mode: type, together: bool) -> None:
    with mode():
        data = tuple((torch.tensor(x), torch.tensor(y)) for x, y in parts(Y))
        found = steepest.compare(model=linear, data=data, together=together, **SHORT)
        assert not torch.is_grad_enabled()
    plain = steepest.compare(model=linear, data=parts(Y), together=together, **SHORT)
    assert found.verdict["winners"][0]["score"] == plain.verdict["winners"][0]["score"]


@pytest.mark.parametrize("given", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("own", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("together", [True, False])
def test_inputs_come_in_the_modules_own_type(given: torch.dtype, own: torch.dtype, together: bool) -> None:
    data = tuple((torch.tensor(x).to(given), torch.tensor(y).to(given)) for x, y in parts(Y))
    found = steepest.compare(model=lambda: linear().to(own), data=data, together=together, **SHORT)
    assert {parameter.dtype for parameter in found.model.module.parameters()} == {own}
    predicted = found.model.predict(data[1][0])
    assert predicted.dtype == (np.float64 if own == torch.float64 else np.float32)
    rmse = float(np.sqrt(np.mean((predicted - data[1][1].float().numpy()) ** 2)))
    # Outputs of bfloat16 have 8 bits, and those of runs trained together are rounded elsewhere.
    close = 1e-2 if own == torch.bfloat16 else 1e-5
    assert rmse == pytest.approx(found.model.record.validation_score, rel=close)


def test_a_module_of_float64_has_all_digits_of_its_inputs() -> None:
    fine = torch.full((4, 3), 1.0 + 2.0**-40, dtype=torch.float64)
    engine = prepare_modules(linear, [(fine, torch.zeros(4))] * 3).start_engine("rmse")
    (inputs, _), *_ = engine.train.batches([0, 1], 2)
    kept = nn.Identity()
    kept.register_parameter("weight", nn.Parameter(torch.zeros(1, dtype=torch.float64)))
    assert torch.equal(engine.forward(kept, inputs), fine[:2])
    kept.register_parameter("bias", nn.Parameter(torch.zeros(1)))
    assert engine.forward(kept, inputs.float()).dtype == torch.float32  # of two types: as they come


def test_a_lone_last_row_and_batch_norm_are_said() -> None:
    found = steepest.compare(model=normed, data=parts(Y), batch_sizes=[29], **SHORT)
    assert found.verdict["status"] == "complete"
    (note,) = (note for note in found.verdict["notes"] if "batch norm cannot learn" in note)
    assert note.startswith("In batches of 29, an epoch's last one is a single row")
    assert set(found.runs["num_examples"]) == {29}
    plain = prepare_modules(linear, parts(Y))
    assert plain.notes_on([29]) == []
    assert prepare_modules(normed, parts(Y)).notes_on([10, 30, "full", 1]) == []


def test_the_callers_random_numbers_stay_where_they_were() -> None:
    def drawn() -> list[float]:
        return [float(torch.rand(())), np.random.random(), random.random()]

    def seeded() -> None:
        torch.manual_seed(3)
        np.random.seed(3)
        random.seed(3)

    seeded()
    expected = drawn()
    seeded()
    found = steepest.compare(model=normed, data=parts(Y), **SHORT)
    found.model.predict(X)
    assert drawn() == expected


def test_a_loaders_batch_size_is_the_comparisons_unless_another_is_asked_for() -> None:
    train, *others = (TensorDataset(torch.tensor(X[part]), torch.tensor(Y[part])) for part in PARTS)
    data = (DataLoader(train, batch_size=6, shuffle=True), *others)
    assert steepest.compare(model=linear, data=data, **SHORT).plan.batch_sizes == (6,)
    larger = (DataLoader(train, batch_size=100, shuffle=True), *others)
    assert steepest.compare(model=linear, data=larger, **SHORT).plan.batch_sizes == (30,)
    asked = steepest.compare(model=linear, data=data, batch_sizes=[15], **SHORT)
    assert asked.plan.batch_sizes == (15,)
    own = DataLoader(train, batch_size=6, sampler=SubsetRandomSampler(range(20)))
    with pytest.raises(InputError, match="own sampler decides the batches"):
        steepest.compare(model=linear, data=(own, *others), batch_sizes=[15], **SHORT)
    found = steepest.compare(model=linear, data=(own, *others), **SHORT)
    assert found.plan.num_train_rows == 20
    assert any("loader's own sampler" in note for note in found.verdict["notes"])


def test_a_class_that_is_missing_from_the_test_rows_is_no_reason_to_warn() -> None:
    few = np.where(LABELS == 1, 2, LABELS)
    few[: len(few) // 2] = np.arange(30) % 3
    options = {**SHORT, "losses": ["cross_entropy"]}
    found = steepest.compare(model=lambda: linear(3), data=parts(few), **options)
    assert np.isfinite(found.verdict["cells"][0]["test"]["balanced_accuracy"])


def test_what_the_targets_look_like_to_a_loss_is_in_the_verdict() -> None:
    rare = np.where(np.arange(60) % 10 == 0, 1, 0)
    padded = np.where(np.arange(60) % 7 == 0, -100, rare)
    prepared = prepare_modules(lambda: linear(3), parts(padded))
    told = {finding["name"]: finding for finding in prepared.diagnosis}
    kept = padded[PARTS[0]][padded[PARTS[0]] >= 0]
    assert told["largest_class_share"]["value"] == pytest.approx((kept == 0).mean())
    assert "label_noise" not in told
    outliers = np.where(np.arange(60) % 10 == 0, 100 * Y, Y)
    found = steepest.compare(model=linear, data=parts(outliers), **SHORT)
    (finding,) = (one for one in found.verdict["diagnosis"] if one["name"] == "target_outliers")
    assert finding["value"] > 0
    assert finding["losses"]


def test_what_no_seed_repeats_is_said() -> None:
    class Restless(TensorDataset):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
            x, y = super().__getitem__(index)
            return x + torch.tensor(np.random.default_rng().normal(size=3), dtype=torch.float32), y

    train = Restless(torch.tensor(X[:30]), torch.tensor(Y[:30]))
    prepared = prepare_modules(linear, (train, *parts(Y)[1:]))
    assert any(note.startswith("The train inputs are other ones each time") for note in prepared.notes)


@pytest.mark.parametrize("classes_last", [True, False])
def test_a_comparison_on_sequences_hands_over_a_module_that_predicts_in_their_shape(
    classes_last: bool,
) -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = self.head(self.layer(x)[0])
            return logits if classes_last else logits.movedim(-1, 1)

    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 5, 3)).astype(np.float32)
    y = x.argmax(axis=2) + (x[:, :, 0] < -1)
    data = tuple((x[part], y[part]) for part in (slice(20), slice(20, 30), slice(30, 40)))
    found = steepest.compare(
        model=Tagger, data=data, losses=["cross_entropy"], optimizers=["adam"], max_epochs=1
    )
    assert found.verdict["task"] == "multiclass"
    assert found.verdict["num_rows"] == {"train": 20, "validation": 10, "test": 10}
    assert found.model.predict(x[:3]).shape == (3, 5)
    probabilities = found.model.predict_proba(x[:3])
    assert probabilities.shape == (3, 5, 4)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-6)
    known = found.model.record.validation_score
    at_true = np.take_along_axis(found.model.predict_proba(x[20:30]), y[20:30, :, None], -1)
    assert known == pytest.approx(-np.log(at_true).mean(), rel=1e-5)


class Pairs(Dataset):
    """Rows of two inputs, by name or in order."""

    def __init__(self, rows: slice, *, by_name: bool) -> None:
        self.a, self.b, self.y, self.by_name = X[rows, :2], X[rows], Y[rows], by_name

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> Any:
        return ({"a": self.a[i], "b": self.b[i]} if self.by_name else (self.a[i], self.b[i])), self.y[i]


class OfTwo(nn.Module):
    """Takes what a data loader makes of such rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 1), nn.Linear(3, 1)

    def forward(self, inputs: Any) -> Any:
        a, b = (inputs["a"], inputs["b"]) if isinstance(inputs, dict) else inputs
        return self.first(a) + self.second(b)


@pytest.mark.parametrize("by_name", [False, True])
def test_inputs_of_several_parts_are_predicted_as_they_are_trained_on(by_name: bool) -> None:
    data = tuple(Pairs(part, by_name=by_name) for part in PARTS)
    found = steepest.compare(model=OfTwo, data=data, **SHORT)
    expected = found.model.predict(data[2])
    rows = PARTS[2]
    of_arrays = {"a": X[rows, :2], "b": X[rows]} if by_name else (X[rows, :2], X[rows])
    np.testing.assert_array_equal(found.model.predict(of_arrays), expected)
    of_tensors = {"a": torch.tensor(X[rows, :2]), "b": torch.tensor(X[rows])} if by_name else None
    if of_tensors:
        np.testing.assert_array_equal(found.model.predict(of_tensors), expected)
    with pytest.raises(InputError, match="parts of the inputs have 3 and 4 rows"):
        found.model.predict({"a": X[:3, :2], "b": X[:4]} if by_name else (X[:3, :2], X[:4]))
    for wrong in (None, 3, ()):
        with pytest.raises(InputError, match=r"Inputs are a batch of rows|parts of the inputs have no rows"):
            found.model.predict(wrong)


def test_the_saved_weights_of_a_compiled_module_have_its_own_names(tmp_path: Path) -> None:
    found = steepest.compare(
        model=lambda: torch.compile(linear(), backend="eager"), data=parts(Y), out=tmp_path / "out", **SHORT
    )
    module = linear()
    module.load_state_dict(load_file(tmp_path / "out" / "model" / "model.safetensors"))
    with torch.no_grad():
        direct = module(torch.tensor(X)).squeeze(1).numpy()
    np.testing.assert_array_equal(found.model.predict(X), direct)
    assert found.verdict["architecture"] == {"module": "Sequential"}
    assert any("_orig_mod" in note for note in found.verdict["notes"])


def test_modules_are_compiled_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    compile_it = torch.compile

    def eagerly(module: nn.Module) -> object:
        compiled.append(module)
        return compile_it(module, backend="eager")

    monkeypatch.setattr(torch, "compile", eagerly)
    plain = steepest.compare(model=linear, data=parts(Y), **SHORT)
    assert not compiled
    found = steepest.compare(model=linear, data=parts(Y), compile=True, **SHORT)
    assert len(compiled) >= found.verdict["num_runs"]
    assert found.verdict["sentence"] == plain.verdict["sentence"]
    assert list(found.model.module.state_dict()) == ["0.weight", "0.bias"]


def test_a_budget_counts_on_one_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from steepest.comparison import compare as module

    counted = []
    trim = module.trim

    def watched(plan: object, speed: object, num_threads: int | None, seconds: float) -> object:
        counted.append(num_threads)
        return trim(plan, speed, num_threads, seconds)

    monkeypatch.setattr(module, "trim", watched)
    steepest.compare(model=linear, data=parts(Y), budget=0.1, num_threads=8, **SHORT)
    assert counted == [1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="it trains on a GPU, and torch sees none here")
def test_modules_train_on_a_cuda_device() -> None:
    found = steepest.compare(model=normed, data=parts(Y), device="cuda", **SHORT)
    assert found.verdict["status"] == "complete"
    assert all(tensor.device.type == "cpu" for tensor in found.model.record.parameters.values())
    assert np.isfinite(found.model.predict(X)).all()


class Unreadable(TensorDataset):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        raise OSError(f"row {index} is gone")


class Inner(NamedTuple):
    """Two inputs that belong together."""

    a: Any
    b: Any


class Nested(Pairs):
    """Rows with a named tuple within a tuple."""

    def __getitem__(self, i: int) -> Any:
        return (self.b[i], Inner(self.a[i], self.b[i])), self.y[i]


class OfNested(OfTwo):
    """Takes those."""

    def forward(self, inputs: Any) -> Any:
        return super().forward(list(inputs[1])) + inputs[1].b[:, :1] * inputs[0][:, :1]


@pytest.mark.parametrize("num_rows", [2, 10])
def test_inputs_within_inputs_are_predicted_as_they_are_trained_on(num_rows: int) -> None:
    """Of as many rows as there are parts too, where parts could be taken for rows."""
    found = steepest.compare(
        model=OfNested, data=tuple(Nested(part, by_name=False) for part in PARTS), **SHORT
    )
    rows = slice(50, 50 + num_rows)
    given = (X[rows], Inner(X[rows, :2], torch.tensor(X[rows])))
    expected = found.model.predict(Nested(rows, by_name=False))
    np.testing.assert_array_equal(found.model.predict(given), expected)
    with pytest.raises(InputError, match="A part of the inputs cannot be read as an array: ValueError"):
        found.model.predict((X[rows], ([[1.0], [1.0, 2.0]], X[rows])))


class Once(IterableDataset):
    """A stream that is not there a second time."""

    def __init__(self) -> None:
        self.left = iter(zip(X, Y, strict=True))

    def __iter__(self):
        return self.left


def failing() -> nn.Module:
    raise RuntimeError("no such layer")


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(5, 1, sparse=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embed(x.abs().long().clamp(max=4))


@pytest.mark.parametrize(
    ("factory", "data", "options", "message"),
    [
        (failing, parts(Y), {}, "The model factory failed: RuntimeError: no such layer"),
        (linear(), parts(Y), {}, "The model is a Sequential; give a function"),
        (lambda: 3, parts(Y), {}, "gave a int; it must give a torch.nn.Module"),
        (lambda: nn.ReLU(), parts(Y), {}, "no parameter that can be trained"),
        (lambda: nn.Linear(5, 1), parts(Y), {}, "The model failed on a batch"),
        (linear, None, {}, "with model=..., give (train, validation, test)"),
        (linear, parts(Y)[:2], {}, "data is (train, validation, test)"),
        (linear, ((X, Y[:5]), (X, Y), (X, Y)), {}, "60 inputs and 5 targets"),
        (lambda: linear(2), parts(Y), {}, "gives 2"),
        (lambda: linear(3), parts(LABELS + 2), {}, "Class indices run from 2 to 3"),
        (linear, parts(LABELS), {"losses": ["cross_entropy"]}, "the module gives 1"),
        (Sparse, parts(Y), SHORT | {"optimizers": ["adam"]}, "sparse gradients, and the module's embeddings"),
        (linear, parts(Y), {"device": "abacus"}, "torch knows none of this name; give cpu, or cuda"),
        (linear, parts(Y), {"device": "xla"}, "the torch that is installed was built without it"),
        (linear, parts(Y), {"device": 1.5}, "The device 1.5 cannot be used"),
        (linear, parts(Y), {"compile": "yes"}, "compile is 'yes'; it is True or False."),
        (linear, (Once(), *parts(Y)[1:]), {}, "The train data gives nothing in a second pass"),
        (
            linear,
            (DataLoader(TensorDataset(torch.tensor(X), torch.tensor(Y)), 64, drop_last=True), *parts(Y)[1:]),
            {},
            "The batch size 64 is larger than the 60 training rows",
        ),
        (lambda: linear().to("meta"), parts(Y), {}, "The model factory's module is on the meta device"),
        (linear, parts(LABELS * 7), {}, "0 to 1. For numbers to predict, the task is 'regression'."),
        (linear, parts(LABELS + 0.5), {"task": "binary"}, "Classes are whole numbers, 0, 1, ...; 1.5 among"),
        (lambda: linear(3), parts(LABELS + 0.5), {"task": "multiclass"}, "Classes are whole numbers"),
        (lambda: linear(3), parts(LABELS * 0 - 100), {}, "Every target of the train data is -100"),
        (
            lambda: linear(3),
            (*parts(LABELS)[:2], (X[50:], LABELS[50:] * 0 - 100)),
            {},
            "Every target of the test data is -100",
        ),
        (linear, (Unreadable(torch.zeros(9, 3)), *parts(Y)[1:]), {}, "item 0: OSError: row 0 is gone"),
    ],
)
def test_bad_input_is_one_sentence(factory: object, data: tuple, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=r"\S") as caught:
        steepest.compare(model=factory, data=data, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
