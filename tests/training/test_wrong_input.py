"""What the engines refuse, each with one sentence that names what was given and what would do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from steepest.errors import InputError
from steepest.training.native import NativeEngine
from steepest.training.run import Architecture, Run, Stop
from steepest.training.torch_data import as_rows
from steepest.training.torch_engine import TorchEngine

from .problems import problem

REGRESSION = problem("regression", rows=40, validation=10)
BINARY = problem("binary", rows=40, validation=10)
MULTICLASS = problem("multiclass", rows=40, validation=10)
SHORT: dict[str, Any] = {"architecture": Architecture((4,)), "stop": Stop(1)}


def rows(data: Any, labels: bool = False) -> Any:
    return as_rows((data.x_train, data.y_train.astype(np.int64) if labels else data.y_train), "train")


def native(data: Any, run: Run, metric: str) -> Any:
    return NativeEngine(data, metric).run_all([run])


def torch_(data: Any, run: Run, metric: str) -> Any:
    width = 3 if data.task == "multiclass" else 1
    engine = TorchEngine(
        lambda: nn.Linear(6, width), rows(data, data.task == "multiclass"), None, data.task, metric
    )
    return engine.run_all([run])


def run(loss: str, optimizer: str, lr: float = 0.1, batch_size: Any = 32, **options: Any) -> Run:
    return Run(loss, optimizer, lr, batch_size, **SHORT, **options)


def with_loss(loss: str, **options: float) -> Run:
    return run(loss, "sgd", loss_options=options)


def with_optimizer(optimizer: str, **options: Any) -> Run:
    return run("mse", optimizer, optimizer_options=options)


# the data, the run, the metric, and what the sentence must hold
RUNS: list[tuple[Any, Run, str, list[str]]] = [
    (REGRESSION, run("mze", "sgd"), "rmse", ["no loss 'mze'", "'mse'"]),
    (REGRESSION, run("perplexity", "sgd"), "rmse", ["no loss 'perplexity'", "choose from mse, mae"]),
    (REGRESSION, run("mse", "adm"), "rmse", ["no optimizer 'adm'", "'adam'"]),
    (REGRESSION, run("mse", "lbfgs"), "rmse", ["no optimizer 'lbfgs'", "choose from sgd"]),
    (REGRESSION, run("mse", "sgd"), "rsme", ["metric", "'rsme'", "'rmse'"]),
    (REGRESSION, run("mse", "sgd", 0.0), "rmse", ["sgd", "learning rate is 0.0", "positive"]),
    (REGRESSION, run("mse", "adam", -0.5), "rmse", ["adam", "learning rate is -0.5", "positive"]),
    (REGRESSION, run("mse", "sgd", math.nan), "rmse", ["learning rate is nan"]),
    (REGRESSION, run("mse", "sgd", math.inf), "rmse", ["learning rate is inf"]),
    (REGRESSION, run("mse", "sgd", 0.1, 0), "rmse", ["batch_size is 0", "'full'"]),
    (REGRESSION, run("mse", "sgd", 0.1, -8), "rmse", ["batch_size is -8"]),
    (REGRESSION, run("bce", "sgd"), "rmse", ["bce", "binary", "regression"]),
    (BINARY, run("mse", "sgd"), "accuracy", ["mse", "regression", "binary"]),
    (MULTICLASS, run("bce", "sgd"), "accuracy", ["bce", "binary", "multiclass"]),
    (REGRESSION, with_loss("huber", detla=1.0), "rmse", ["'detla'", "'delta'"]),
    (REGRESSION, with_loss("mse", delta=1.0), "rmse", ["mse", "'delta'"]),
    (REGRESSION, with_loss("huber", delta=0.0), "rmse", ["delta is 0.0", "in (0, inf)"]),
    (REGRESSION, with_loss("quantile", quantile=1.0), "rmse", ["quantile is 1.0"]),
    (REGRESSION, with_optimizer("adam", beta=0.9), "rmse", ["adam", "'beta'"]),
    (REGRESSION, with_optimizer("adam", betas=(1.5, 0.9)), "rmse", ["adam", "beta", "1.5"]),
    (REGRESSION, with_optimizer("momentum", momentum=-1.0), "rmse", ["momentum", "-1.0"]),
    (REGRESSION, with_optimizer("nesterov", convention="ema"), "rmse", ["nesterov", "ema"]),
]


@pytest.mark.parametrize("engine", [native, torch_])
@pytest.mark.parametrize("case", range(len(RUNS)))
def test_runs_are_refused_before_anything_is_trained(engine: Callable[..., Any], case: int) -> None:
    data, wrong, metric, words = RUNS[case]
    with pytest.raises(InputError) as caught:
        engine(data, wrong, metric)
    sentence = str(caught.value)
    assert all(word in sentence for word in words), sentence
    assert sentence.endswith((".", "?"))


def test_an_unknown_activation() -> None:
    wrong = Run("mse", "sgd", 0.1, architecture=Architecture((4,), "leaky"), stop=Stop(1))
    with pytest.raises(InputError, match=r"no activation 'leaky'; choose from relu, tanh"):
        native(REGRESSION, wrong, "rmse")


def test_one_wrong_run_among_good_ones_stops_all_before_the_first() -> None:
    """Nothing half-done: the mistake is told before minutes are spent."""
    good, wrong = run("mse", "sgd"), run("mse", "sgd", -1.0)
    seen: list[int] = []
    with pytest.raises(InputError):
        NativeEngine(REGRESSION, "rmse").run_all([good, wrong], on_record=lambda index, _: seen.append(index))
    assert not seen


# --- modules and data of the user's own ----------------------------------------------------------------------


class Returns(nn.Module):
    """A module that gives whatever it was made with."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.result = result

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.result(inputs) if callable(self.result) else self.result


def no_parameters() -> nn.Module:
    return nn.ReLU()


def frozen() -> nn.Module:
    return nn.Linear(6, 1).requires_grad_(False)


def failing() -> nn.Module:
    raise ZeroDivisionError("no such luck")


MODULES: list[tuple[Callable[[], Any], Any, str, list[str]]] = [
    (failing, REGRESSION, "mse", ["factory failed", "ZeroDivisionError", "no such luck"]),
    (lambda: "net", REGRESSION, "mse", ["gave a str", "torch.nn.Module"]),
    (no_parameters, REGRESSION, "mse", ["no parameter"]),
    (frozen, REGRESSION, "mse", ["no parameter"]),
    (lambda: nn.Linear(5, 1), REGRESSION, "mse", ["failed on a batch", "RuntimeError"]),
    (lambda: Returns((1, 2)), REGRESSION, "mse", ["gave a tuple", "one tensor"]),
    (lambda: nn.Linear(6, 2), REGRESSION, "mse", ["(40, 2)", "(40,)"]),
    (lambda: nn.Linear(6, 1), BINARY, "cross_entropy", ["one output a class", "(40, 1)"]),
    (lambda: nn.Linear(6, 3), BINARY, "bce", ["(40, 3)", "(40,)"]),
    (
        lambda: nn.Linear(6, 1),
        BINARY,
        "bce_probability",
        ["probabilities lie in [0, 1]", "BCEWithLogitsLoss"],
    ),
]


@pytest.mark.parametrize("case", range(len(MODULES)))
def test_modules_that_cannot_be_trained(case: int) -> None:
    factory, data, loss, words = MODULES[case]
    metric = "rmse" if data.task == "regression" else "log_loss"
    engine = TorchEngine(factory, rows(data, loss == "cross_entropy"), None, data.task, metric)
    with pytest.raises(InputError) as caught:
        engine.run_all([Run(loss, "sgd", 0.1, "full", stop=Stop(2))])
    assert all(word in str(caught.value) for word in words), str(caught.value)


class WithoutLength(torch.utils.data.Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return SOME[index], 0.0


SOME = np.zeros((4, 2), np.float32)
DATA: list[tuple[Any, list[str]]] = [
    ((SOME, np.zeros(3)), ["train", "4 inputs and 3 targets"]),
    ((SOME[:0], np.zeros(0)), ["train", "no rows"]),
    ((np.array([["a"]]), np.zeros(1)), ["train", "as numbers"]),
    (42, ["train", "int", "Dataset"]),
    (WithoutLength(), ["train", "no __len__"]),
    ([SOME, SOME, SOME], ["train", "list"]),
    (torch.utils.data.TensorDataset(torch.zeros(3, 2)), ["train", "(inputs, targets)"]),
]


@pytest.mark.parametrize("case", range(len(DATA)))
def test_data_that_cannot_be_read(case: int) -> None:
    data, words = DATA[case]
    with pytest.raises(InputError) as caught:
        as_rows(data, "train")
    assert all(word in str(caught.value) for word in words), str(caught.value)
