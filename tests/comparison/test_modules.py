"""Comparisons of the user's own modules, with the real torch engine on little data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import steepest
from steepest.comparison.modules import prepare_modules
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


def test_data_sets_and_loaders_are_the_same_rows() -> None:
    arrays = prepare_modules(linear, parts(Y))
    sets = [TensorDataset(torch.tensor(X[part]), torch.tensor(Y[part])) for part in PARTS]
    loaders = [DataLoader(part, batch_size=7) for part in sets]
    order = np.array([3, 1, 2])
    for given in (sets, loaders):
        other = prepare_modules(linear, given)
        for mine, theirs in zip(arrays.x_train.batch(order), other.x_train.batch(order), strict=True):
            assert torch.equal(mine, theirs)


def failing() -> nn.Module:
    raise RuntimeError("no such layer")


@pytest.mark.parametrize(
    ("factory", "data", "options", "message"),
    [
        (failing, parts(Y), {}, "The model factory failed: RuntimeError: no such layer"),
        (linear(), parts(Y), {}, "model is to be a factory"),
        (lambda: 3, parts(Y), {}, "gave a int; it must give a torch.nn.Module"),
        (lambda: nn.ReLU(), parts(Y), {}, "no parameter that can be trained"),
        (lambda: nn.Linear(5, 1), parts(Y), {}, "The model failed on a batch"),
        (linear, parts(Y)[:2], {}, "data is (train, validation, test)"),
        (linear, ((X, Y[:5]), (X, Y), (X, Y)), {}, "60 inputs and 5 targets"),
        (lambda: linear(2), parts(Y), {}, "gives 2"),
        (lambda: linear(3), parts(LABELS + 2), {}, "Class indices run from 2 to 3"),
        (linear, parts(LABELS), {"losses": ["cross_entropy"]}, "the module gives 1"),
    ],
)
def test_bad_input_is_one_sentence(factory: object, data: tuple, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=r"\S") as caught:
        steepest.compare(model=factory, data=data, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
