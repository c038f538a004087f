"""A model goes to disk and comes back the same; what is torn or changed is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from steepest.comparison.canonical import canonical_json
from steepest.comparison.fitted import FittedModel, load
from steepest.comparison.forward import ACTIVATIONS, count_parameters, outputs, split
from steepest.comparison.model import fitted_model
from steepest.data import prepare, read
from steepest.data.pieces import pieces
from steepest.errors import InputError
from steepest.training.run import Architecture, Curve, Record, Run, Stop

ROWS = 60
LABELS = {"regression": None, "binary": ["no", "yes"], "multiclass": ["ant", "bee", "cat"]}
LOSSES = {"regression": "mse", "binary": "bce", "multiclass": "cross_entropy"}


def table(task: str) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    labels = LABELS[task]
    target = rng.normal(50, 10, ROWS) if labels is None else [labels[i % len(labels)] for i in range(ROWS)]
    return pl.DataFrame(
        {"size": rng.normal(size=ROWS), "colour": ["red", "blue"] * (ROWS // 2), "target": target}
    )


@pytest.fixture
def model_of() -> Callable[..., FittedModel]:
    """``model_of(task, ...)``: a model with random weights."""

    def made(task: str = "regression", loss: str | None = None, activation: str = "relu") -> FittedModel:
        prepared = prepare(table(task), "target")
        architecture = Architecture((5, 3), activation)
        num_classes = 1 if LABELS[task] is None else len(LABELS[task])
        loss = loss or LOSSES[task]
        num_outputs = num_classes if loss == "cross_entropy" else 1
        size = count_parameters(prepared.x_train.shape[1], architecture, num_outputs)
        parameters = np.random.default_rng(1).normal(size=size).astype(np.float32)
        run = Run(loss, "adam", 0.01, "full", 3, architecture, Stop(max_epochs=2))
        nothing = np.array([np.nan, 0.5])
        curve = Curve(np.array([1, 2]), np.array([1, 2]), np.array([2.0, 1.0]), nothing)
        record = Record(run, {"lr": 0.01}, 2, 2, 72, "epochs", 2, 0.5, curve, 0.123, parameters)
        return fitted_model(prepared, record, "rmse" if task == "regression" else "log_loss")

    return made


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_the_forward_pass_is_torchs(model_of: Callable[..., FittedModel], activation: str) -> None:
    model = model_of(activation=activation)
    features, _ = model.encoding.apply(read(table("regression")))
    with torch.no_grad():
        expected = model.module()(torch.tensor(features)).numpy()
    np.testing.assert_allclose(outputs(model.layers, activation, features), expected, rtol=1e-5, atol=1e-6)


def test_the_activations_are_the_engines() -> None:
    from steepest.training.activations import ACTIVATIONS as ENGINES

    assert set(ACTIVATIONS) == set(ENGINES)


def test_parameters_lie_as_torch_lays_them_out(model_of: Callable[..., FittedModel]) -> None:
    model = model_of()
    flat = torch.nn.utils.parameters_to_vector(model.module().parameters()).detach().numpy()
    layers = split(flat, model.layers[0].weight.shape[1], model.architecture, 1)
    for found, expected in zip(layers, model.layers, strict=True):
        np.testing.assert_array_equal(found.weight, expected.weight)
        np.testing.assert_array_equal(found.bias, expected.bias)


def test_a_regression_is_in_the_targets_units(model_of: Callable[..., FittedModel]) -> None:
    model = model_of()
    features, _ = model.encoding.apply(read(table("regression")))
    raw = outputs(model.layers, "relu", features)[:, 0].astype(np.float64)
    expected = raw * model.encoding.target_scale + model.encoding.target_mean
    np.testing.assert_array_equal(model.predict(table("regression")), expected)
    with pytest.raises(InputError, match="no probabilities"):
        model.predict_proba(table("regression"))


@pytest.mark.parametrize(
    ("task", "loss"),
    [
        ("binary", "bce"),
        ("binary", "bce_probability"),
        ("binary", "cross_entropy"),
        ("multiclass", "cross_entropy"),
    ],
)
def test_classes_come_back_as_labels(model_of: Callable[..., FittedModel], task: str, loss: str) -> None:
    model = model_of(task, loss)
    probabilities = model.predict_proba(table(task))
    assert probabilities.shape == (ROWS, len(LABELS[task]))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert model.classes == LABELS[task]
    predicted = model.predict(table(task).drop("target"))
    assert predicted.tolist() == [LABELS[task][best] for best in probabilities.argmax(axis=1)]


def test_what_a_model_meets_for_the_first_time_is_warned_of(model_of: Callable[..., FittedModel]) -> None:
    strange = table("regression").with_columns(pl.lit("green").alias("colour"))
    with pytest.warns(UserWarning, match="green"):
        model_of().predict(strange)
    with pytest.raises(InputError, match="size"):
        model_of().predict(table("regression").drop("size"))


def test_no_rows_give_no_predictions(model_of: Callable[..., FittedModel]) -> None:
    model = model_of()
    assert outputs(model.layers, "relu", np.zeros((0, 3), np.float32)).shape == (0, 1)


@pytest.mark.parametrize("task", sorted(LABELS))
def test_a_model_comes_back_the_same(model_of: Callable[..., FittedModel], task: str, tmp_path: Path) -> None:
    model = model_of(task)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(table(task)), model.predict(table(task)))
    assert again.encoding == model.encoding
    assert (again.task, again.target, again.metric, again.classes) == (
        task,
        "target",
        model.metric,
        model.classes,
    )
    assert again.data_sha256 == model.data_sha256
    assert again.record.run == model.record.run
    assert again.record.hyperparameters == {"lr": 0.01}
    assert again.record.validation_score == 0.5
    np.testing.assert_array_equal(again.record.curve.validation_score, [np.nan, 0.5])


def test_a_model_gives_the_same_bytes_whatever_the_time(
    model_of: Callable[..., FittedModel], tmp_path: Path
) -> None:
    for name, seconds in (("a", 1.0), ("b", 2.0)):
        model = model_of()
        model.record.seconds = seconds
        model.save(tmp_path / name)
    load(tmp_path / "a").save(tmp_path / "c")
    for file in ("model.safetensors", "manifest.json"):
        texts = {(tmp_path / name / file).read_bytes() for name in "abc"}
        assert len(texts) == 1


def test_saving_over_something_else_is_refused(model_of: Callable[..., FittedModel], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="not written by steepest"):
        model_of().save(tmp_path)
    model_of().save(tmp_path / "model")
    model_of("binary").save(tmp_path / "model")
    assert load(tmp_path / "model").task == "binary"


@pytest.fixture
def saved(model_of: Callable[..., FittedModel], tmp_path: Path) -> Path:
    model_of("binary").save(tmp_path / "model")
    return tmp_path / "model"


def test_a_missing_model_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no model in .*nowhere' \(.*\)\.$"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"There is no model in .*modle' \(.*\); did you mean 'model'\?$"):
        load(tmp_path / "modle")
    (saved / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"There is no model in .*model.safetensors"):
        load(saved)


@pytest.mark.parametrize("file", ["model.safetensors", "manifest.json"])
def test_a_model_cut_short_anywhere_is_refused(saved: Path, file: str) -> None:
    whole = (saved / file).read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        (saved / file).write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError):
            load(saved)


def test_a_changed_weight_is_noticed(saved: Path) -> None:
    changed = bytearray((saved / "model.safetensors").read_bytes())
    changed[-1] ^= 1
    (saved / "model.safetensors").write_bytes(changed)
    with pytest.raises(InputError, match="is not what was saved"):
        load(saved)


def change_manifest(place: Path, change: dict[str, Any], *, with_digest: bool) -> None:
    manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8")) | change
    manifest = {name: value for name, value in manifest.items() if value != "gone"}
    if with_digest:
        del manifest["manifest_sha256"]
        manifest["manifest_sha256"] = hashlib.sha256(canonical_json(manifest).encode()).hexdigest()
    (place / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "cross_entropy"},
        {"lr": 0.02},
        {"classes": ["yes", "no"]},
        {"extra": 1},
        {"manifest_sha256": "gone"},
    ],
    ids=str,
)
def test_a_changed_manifest_is_noticed(saved: Path, change: dict[str, Any]) -> None:
    change_manifest(saved, change, with_digest=False)
    with pytest.raises(InputError, match=r"manifest\.json is not what was saved"):
        load(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"architecture": None},
        {"architecture": {"hidden": [5], "activation": "relu", "num_features": 3, "num_outputs": 1}},
        {"architecture": {"hidden": [5, 3], "activation": "exec", "num_features": 3, "num_outputs": 1}},
        {"architecture": {"hidden": [5, 3], "activation": "relu", "num_features": 4, "num_outputs": 1}},
        {"encoding": {}},
        {"encoding": None},
        {"stop": {"unknown": 1}},
        {"record": {}},
        {"weights_sha256": "0"},
        {"task": None},
        {"task": "regression"},
        {"lr": "gone"},
        {"metric": "gone"},
    ],
    ids=str,
)
def test_a_manifest_that_describes_another_model_is_refused(saved: Path, change: dict[str, Any]) -> None:
    change_manifest(saved, change, with_digest=True)
    with pytest.raises(InputError):
        load(saved)


def test_a_comparisons_directory_is_taken_for_the_model_in_it(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    shutil.copytree(saved, tmp_path / "out" / "model")
    assert load(tmp_path / "out").task == "binary"


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_files_larger_than_memory_are_predicted_a_piece_at_a_time(
    model_of: Callable[..., FittedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """The same predictions, and what no training row had is counted over all pieces and told once."""
    model = model_of("multiclass")
    many = pl.concat([table("multiclass")] * 40)
    odd = pl.Series(["green", "mauve", None, "red"] * 600)
    many = many.with_columns(
        pl.when(pl.int_range(2400) % 7 == 0).then(odd).otherwise(pl.col("colour")).alias("colour")
    )
    for part in range(3):
        rows = many[part * 800 : (part + 1) * 800]
        path = tmp_path / f"{part}.{suffix}"
        rows.write_parquet(path) if suffix == "parquet" else rows.write_csv(path)
    data = str(tmp_path / f"*.{suffix}")
    with pytest.warns(UserWarning, match="rows have no value|hold a category") as whole:
        expected = model.predict_proba(data)
    monkeypatch.setattr("steepest.data.source.bytes_in_memory", lambda *_: 1e18)
    monkeypatch.setattr("steepest.data.pieces._PIECE_BYTES", 5000)
    monkeypatch.setattr("steepest.files.parquet._BATCH_ROWS", 111)
    sizes = [rows.num_rows for rows in pieces(data)]
    assert sum(sizes) == 2400
    assert len(sizes) > 8
    with pytest.warns(UserWarning, match="rows have no value|hold a category") as piecewise:
        found = model.predict_proba(data)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    told = sorted(str(warning.message) for warning in whole)
    assert sorted(str(warning.message) for warning in piecewise) == told
    assert any(
        "of 2,400 rows hold a category that no training row had ('green', 'mauve')" in note for note in told
    )


def test_compressed_files_larger_than_memory_are_refused(
    model_of: Callable[..., FittedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"size,colour\n1,red\n"))
    monkeypatch.setattr("steepest.data.source.bytes_in_memory", lambda *_: 1e18)
    with pytest.raises(
        InputError, match=r"'a\.csv\.gz' is compressed, and too large for memory: unpack it first"
    ):
        model_of().predict(tmp_path / "a.csv.gz")


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", None, 3])
def test_what_can_be_no_directory_is_told(path: Any) -> None:
    with pytest.raises(InputError, match="is no directory of a model"):
        load(path)
