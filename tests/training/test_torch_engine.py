"""The torch engine: any module and any map-style data, in the same records as the native engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.training.metrics import METRICS
from steepest.training.run import Architecture, Record, Run, Stop, TrainingData
from steepest.training.torch_data import Rows, as_rows
from steepest.training.torch_engine import TorchEngine

from .problems import problem
from .torch_loop import network, sizes_of, targets_of, trained

RATES = {"sgd": 0.03, "momentum": 0.005, "nesterov": 0.005, "momentum_ema": 0.03}
EPOCHS = Stop(8)


def rows_of(data: TrainingData) -> tuple[Rows, Rows | None]:
    validation = (
        as_rows((data.x_validation, data.y_validation), "validation") if len(data.x_validation) else None
    )
    return as_rows((data.x_train, data.y_train), "train"), validation


def one(engine: TorchEngine, run: Run) -> Record:
    (record,) = engine.run_all([run])
    assert record is not None
    return record


def flat(state: dict[str, Tensor]) -> np.ndarray[Any, Any]:
    return np.concatenate([tensor.numpy().ravel() for tensor in state.values()])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("loss", "task"), [(name, task) for name, cls in LOSSES.items() for task in cls.formula.tasks]
)
def test_every_loss_with_every_optimizer_against_a_loop_of_torchs_own(
    loss: str, task: str, optimizer: str
) -> None:
    """float32 in both: a few dozen steps of rounding at 6e-8."""
    data = problem(task)
    has_eps = "eps" in inspect.signature(OPTIMIZERS[optimizer].cls).parameters
    eps = {"eps": 1e-3} if has_eps else {}
    run = Run(
        loss, optimizer, RATES.get(optimizer, 0.002), 32, seed=3, architecture=Architecture((5,), "tanh"),
        stop=Stop(None, 30), optimizer_options=eps,
    )  # fmt: skip
    sizes = sizes_of(run, data)

    def factory() -> nn.Module:
        from steepest.training.random import initial_parameters

        model = network(sizes, "tanh", initial_parameters(sizes, 3), torch.float32)
        return nn.Sequential(model, nn.Sigmoid()) if loss == "bce_probability" else model

    record = one(
        TorchEngine(
            factory,
            as_rows((data.x_train, targets_of(run, data).astype(data.y_train.dtype)), "train"),
            None,
            task,
            "rmse" if task == "regression" else "log_loss",
        ),
        run,
    )  # type: ignore[arg-type]
    np.testing.assert_allclose(
        flat(record.parameters), trained(run, data, 30, torch.float32), rtol=0, atol=3e-6
    )


def noisy_net(outputs: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, outputs)
    )


def test_batch_norm_and_dropout() -> None:
    """Random while it trains, and then not: scores and predictions come from the module at rest."""
    data = problem("regression", rows=200, validation=60)
    engine = TorchEngine(noisy_net(1), *rows_of(data), "regression", "rmse")
    run = Run("mse", "adam", 0.01, 32, seed=7, stop=Stop(30))
    record = one(engine, run)
    assert record.validation_score < 0.6 * record.curve.validation_score[0]
    assert "1.running_mean" in record.parameters  # what is no parameter is kept too
    assert record.parameters["1.num_batches_tracked"] == 7 * record.best_epoch
    _, validation = rows_of(data)
    assert validation is not None
    predictions = engine.predict(run, record.parameters, validation)
    score = METRICS["rmse"].compute(data.y_validation.astype(float), predictions.astype(float))
    assert record.validation_score == pytest.approx(score, rel=1e-12)
    np.testing.assert_array_equal(predictions, engine.predict(run, record.parameters, validation))


def test_a_run_depends_on_its_seed_alone() -> None:
    """Not on the runs before it, and not on torch's random numbers outside; nor does it move those."""
    data = problem("regression", rows=100, validation=30)
    engine = TorchEngine(noisy_net(1), *rows_of(data), "regression", "rmse")
    runs = [Run("mse", "sgd", 0.01, 32, seed=seed, stop=Stop(3)) for seed in (1, 2)]
    torch.manual_seed(0)
    before = torch.get_rng_state()
    together = engine.run_all(runs)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    alone = one(engine, runs[1])
    assert together[1] is not None
    assert together[0] is not None
    np.testing.assert_array_equal(flat(alone.parameters), flat(together[1].parameters))
    assert not np.array_equal(flat(together[0].parameters), flat(together[1].parameters))


def test_classification_with_cross_entropy() -> None:
    data = problem("multiclass", rows=300, validation=90)
    for metric in ("log_loss", "accuracy", "balanced_accuracy"):
        engine = TorchEngine(noisy_net(3), *rows_of(data), "multiclass", metric)
        run = Run("cross_entropy", "adamw", 0.01, 32, seed=1, stop=EPOCHS)
        record = one(engine, run)
        validation = rows_of(data)[1]
        assert validation is not None
        predictions = engine.predict(run, record.parameters, validation)
        assert predictions.shape == (90, 3)
        np.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-12)
        assert METRICS[metric].compute(data.y_validation, predictions) == pytest.approx(
            record.validation_score
        )
        assert (predictions.argmax(axis=1) == data.y_validation).mean() > 0.6


@pytest.mark.parametrize("loss", ["bce", "bce_probability", "cross_entropy"])
@pytest.mark.parametrize("labels", [np.float32, np.int64, np.float64])
def test_two_classes_by_every_loss_and_kind_of_label(loss: str, labels: type) -> None:
    """What the module puts out is a logit, a probability or one logit a class, as the loss says."""
    data = problem("binary", rows=300, validation=90)

    def factory() -> nn.Module:
        if loss == "bce_probability":
            return nn.Sequential(nn.Linear(6, 1), nn.Sigmoid())
        return nn.Linear(6, 2 if loss == "cross_entropy" else 1)

    train = as_rows((data.x_train, data.y_train.astype(labels)), "train")
    validation = as_rows((data.x_validation, data.y_validation.astype(labels)), "validation")
    engine = TorchEngine(factory, train, validation, "binary", "log_loss")
    run = Run(loss, "adam", 0.05, 32, seed=1, stop=Stop(12))
    record = one(engine, run)
    assert record.validation_score < 0.35
    predictions = engine.predict(run, record.parameters, validation)
    assert ((predictions[:, 1] > 0.5) == (data.y_validation > 0.5)).mean() > 0.85
    assert METRICS["log_loss"].compute(data.y_validation, predictions) == pytest.approx(
        record.validation_score
    )


def test_options_of_a_loss_reach_it() -> None:
    data = problem("binary", rows=200)
    results = []
    for weight in (1.0, 8.0):
        engine = TorchEngine(lambda: nn.Linear(6, 1), rows_of(data)[0], None, "binary", "log_loss")
        run = Run("bce", "sgd", 0.1, "full", stop=Stop(50), loss_options={"pos_weight": weight})
        record = one(engine, run)
        assert record.hyperparameters["pos_weight"] == weight
        results.append(engine.predict(run, record.parameters, rows_of(data)[0])[:, 1].mean())
    assert results[1] > results[0] + 0.1


# --- data ----------------------------------------------------------------------------------------------------


class Squares(Dataset[Any]):
    """Plain Python objects, fetched by number; inputs of two parts."""

    def __init__(self, count: int, shift: int = 0) -> None:
        self.numbers = np.random.default_rng(count + shift).normal(size=(count, 2)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], float]:
        a, b = self.numbers[index]
        return {"first": np.array([a]), "second": np.array([b])}, float(a - 2 * b)


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.layer(torch.cat([inputs["first"], inputs["second"]], dim=1)).squeeze(1)


def test_a_dataset_of_any_objects() -> None:
    engine = TorchEngine(
        TwoParts, as_rows(Squares(64), "train"), as_rows(Squares(20, 1), "validation"), "regression", "mae"
    )
    record = one(engine, Run("mse", "momentum", 0.02, 8, stop=Stop(30)))
    assert record.validation_score < 1e-3
    np.testing.assert_allclose(record.parameters["layer.weight"], [[1.0, -2.0]], atol=1e-3)


def test_arrays_datasets_and_loaders_are_the_same_rows() -> None:
    """A loader lends its data set and its way to collate; the order and the batches are the run's own."""
    data = problem("regression", rows=50, validation=20)
    x, y = torch.as_tensor(data.x_train), torch.as_tensor(data.y_train)
    wide = data.x_train.astype(np.float64), data.y_train.astype(np.float64)
    listed = data.x_train.tolist(), data.y_train.tolist()
    both = TensorDataset(x, y)
    forms = [(data.x_train, data.y_train), (x, y), [x, y], wide, listed, both]
    forms.append(DataLoader(both, batch_size=7, shuffle=True))
    run = Run("mse", "sgd", 0.01, 16, seed=3, stop=Stop(3))
    weights = [
        flat(
            one(
                TorchEngine(lambda: nn.Linear(6, 1), as_rows(form, "train"), None, "regression", "rmse"), run
            ).parameters
        )
        for form in forms
    ]
    for other in weights[1:]:
        np.testing.assert_array_equal(other, weights[0])


def test_a_loaders_own_way_to_collate_is_used() -> None:
    def doubled(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return torch.stack([x for x, _ in pairs]) * 2, torch.stack([y for _, y in pairs])

    data = TensorDataset(torch.ones(4, 2), torch.zeros(4))
    rows = as_rows(DataLoader(data, collate_fn=doubled), "train")
    inputs, targets = next(iter(rows.batches([2, 0], 2)))
    assert torch.equal(inputs, torch.full((2, 2), 2.0))
    assert targets.shape == (2,)


def test_rows_of_images() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(60, 1, 6, 6)).astype(np.float32)
    labels = (images.mean(axis=(1, 2, 3)) > 0).astype(np.int64)
    engine = TorchEngine(
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)),
        as_rows((images, labels), "train"), as_rows((images[:20], labels[:20]), "validation"), "binary", "accuracy",
    )  # fmt: skip
    record = one(engine, Run("cross_entropy", "adam", 0.01, 16, stop=Stop(15)))
    assert record.validation_score >= 0.9


def test_digests_tell_data_apart() -> None:
    from steepest.training.torch_data import digest_of

    x = torch.arange(6.0).reshape(3, 2)
    digests = {
        digest_of([as_rows((x, x[:, 0]), "train")]),
        digest_of([as_rows((x + 1, x[:, 0]), "train")]),
        digest_of([as_rows((x, x[:, 1]), "train")]),
        digest_of([as_rows((x.reshape(3, 1, 2), x[:, 0]), "train")]),
    }
    assert len(digests) == 4
    assert digest_of([as_rows((x, x[:, 0]), "train")]) in digests
