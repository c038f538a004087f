"""``fit``: one run, its options checked, its rate found on validation rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from steepest.comparison import manifest
from steepest.comparison.fit import fit
from steepest.comparison.fitted import load
from steepest.errors import InputError
from steepest.optim import OPTIMIZERS


@pytest.fixture
def fakes(engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every engine that is started is a fake one with its best rate at 0.1; the list of them."""
    started: list[Any] = []

    def start(data: Any, metric: str) -> Any:
        started.append(engine(data, best_rates={"sgd": 0.1, "adam": 0.1}))
        return started[-1]

    monkeypatch.setattr("steepest.comparison.intake.start_engine", start)
    return started


def test_a_rate_is_found_on_the_validation_rows(fakes: list[Any], pair: Any) -> None:
    model = fit(pair, hidden=())
    assert model.record.run.lr == 0.1
    assert (model.record.run.loss, model.record.run.optimizer) == ("mse", "adam")
    *looks, last = fakes[0].runs
    assert len(looks) > 10
    assert {run.stop.max_epochs for run in looks} == {10}
    assert last.stop.max_epochs == 100
    assert model.predict(pair[0]).shape == pair[1].shape


def test_without_validation_rows_the_optimizers_own_rate_is_taken(fakes: list[Any], pair: Any) -> None:
    model = fit(pair, hidden=(), validation=0, optimizer="sgd")
    assert model.record.run.lr == OPTIMIZERS["sgd"].default_lr
    assert len(fakes[0].runs) == 1


def test_a_step_takes_32_rows_or_all_where_there_are_fewer(fakes: list[Any], pair: Any) -> None:
    assert fit(pair, hidden=(), lr=0.1).record.run.batch_size == 32
    few = tuple(part[:20] for part in pair)
    assert fit(few, hidden=(), lr=0.1).record.run.batch_size == 16  # a fifth validates


def test_what_is_given_is_what_runs(fakes: list[Any], pair: Any) -> None:
    model = fit(
        pair,
        hidden=(),
        loss="huber",
        optimizer="adam",
        lr=0.5,
        batch_size="full",
        max_epochs=None,
        max_steps=7,
        patience=2,
        target_metric=0.1,
        seed=4,
        loss_options={"delta": 2.0},
        optimizer_options={"eps": 1e-6},
    )
    run = model.record.run
    assert (run.loss, run.optimizer, run.lr, run.batch_size, run.seed) == ("huber", "adam", 0.5, "full", 4)
    assert (run.stop.max_epochs, run.stop.max_steps, run.stop.patience) == (None, 7, 2)
    assert (run.loss_options, run.optimizer_options) == ({"delta": 2.0}, {"eps": 1e-6})
    assert fakes[0].runs == [run]


def test_options_go_by_the_rules_names_too(fakes: list[Any], pair: Any) -> None:
    given = {"optimizer": "momentum", "optimizer_options": {"momentum": 0.8}}
    assert fit(pair, hidden=(), lr=0.1, **given).record.run.optimizer_options == {"momentum": 0.8}
    model = fit(pair, hidden=(), lr=0.1, optimizer="adam", optimizer_options={"beta1": 0.8})
    assert model.record.run.optimizer_options == {"betas": (0.8, 0.999)}
    with pytest.raises(InputError, match="has no option 'nesterov'"):
        fit(pair, optimizer="nesterov", optimizer_options={"nesterov": False})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"eps": None}, "The option eps of 'adam' is None; give a number."),
        ({"eps": "1e-8"}, "The option eps of 'adam' is '1e-8'; give a number."),
        ({"beta1": None}, "The option beta1 of 'adam' is None; give a number."),
        ({"betas": 0.9}, "The option betas of 'adam' is 0.9; give 2 numbers."),
        ({"betas": (0.9,)}, "The option betas of 'adam' is (0.9,); give 2 numbers."),
        ({"amsgrad": "no"}, "The option amsgrad of 'adam' is 'no'; give True or False."),
        (
            {"convention": "jax"},
            "optimizer adam: Adam: convention is 'jax'; choose from torch, keras, optax.",
        ),
        ({"eps": -1.0}, "optimizer adam: Invalid epsilon value: -1.0."),
    ],
)
def test_an_optimizers_option_of_the_wrong_kind(pair: Any, given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as told:
        fit(pair, hidden=(), lr=0.1, optimizer="adam", optimizer_options=given)
    assert str(told.value) == words


@pytest.mark.parametrize("word", ["switches", "params", "q", 3])
def test_an_unknown_option_is_told_those_that_can_be_given(pair: Any, word: Any) -> None:
    with pytest.raises(
        InputError, match=rf"^The optimizer 'sgd' has no option {word!r}; choose from "
    ) as told:
        fit(pair, hidden=(), lr=0.1, optimizer="sgd", optimizer_options={word: 1.0})
    offered = str(told.value).partition("choose from ")[2].removesuffix(".").split(", ")
    assert "weight_decay" in offered
    assert not {"switches", "params", "lr", ""} & set(offered)


@pytest.mark.parametrize("option", ["group", "time"])
def test_a_column_can_decide_the_split(fakes: list[Any], pair: Any, option: str) -> None:
    table = pl.DataFrame({"a": pair[0][:, 0], "g": np.arange(200) // 10, "y": pair[1]})
    model = fit(table, "y", hidden=(), lr=0.1, **{option: "g"})
    assert model.encoding.feature_names == ["a"]
    assert len(fakes[0].data.y_validation) == 40


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "mes"}, "did you mean 'mse'"),
        ({"loss": "cross_entropy"}, "does not fit a regression target"),
        ({"optimizer": "adm"}, "did you mean 'adam'"),
        ({"lr": 0}, "learning rate is a positive number, not 0"),
        ({"lr": -0.1}, "positive number, not -0.1"),
        ({"lr": math.nan}, "positive number"),
        ({"lr": math.inf}, "positive number"),
        ({"lr": "fast"}, "positive number, not 'fast'"),
        ({"batch_size": 0}, "batch size"),
        ({"batch_size": 10**6}, "larger than the 160 training rows"),
        ({"hidden": (0,)}, "positive whole numbers"),
        ({"metric": "accuracy"}, "does not fit"),
        ({"validation": 1.5}, "validation"),
        ({"max_epochs": 0}, "max_epochs is a positive whole number"),
        ({"max_epochs": None}, "Nothing limits the training"),
        ({"max_sec": -1}, "max_sec is a positive number"),
        ({"patience": 0}, "patience is a positive whole number"),
        ({"patience": 3, "validation": 0}, "patience needs validation rows"),
        ({"target_metric": 1.0, "validation": 0}, "target_metric needs validation rows"),
        ({"target_metric": "low"}, "target_metric is a number"),
        ({"min_gradient_norm": 0}, "min_gradient_norm is a positive number"),
        ({"seed": -1}, "seed"),
        ({"num_threads": 0}, "num_threads"),
        ({"loss_options": {"delta": 1.0}}, "no option 'delta'; it has none"),
        ({"loss": "huber", "loss_options": {"delta": 0.0}}, "delta lies in (0, inf); 0.0 does not"),
        ({"loss": "huber", "loss_options": {"delta": "x"}}, "delta is a number"),
        ({"loss": "huber", "loss_options": {"dleta": 1}}, "did you mean 'delta'"),
        ({"loss_options": [1.5]}, "loss_options is a dictionary such as {'delta': 1.5}, not [1.5]"),
        ({"optimizer_options": "nesterov"}, "optimizer_options is a dictionary such as"),
        ({"optimizer_options": {"lr": 1}}, "Give the learning rate as lr"),
        ({"optimizer_options": {"epsilon": 1}}, "no option 'epsilon'"),
        ({"schedule": "cosin"}, "There is no schedule 'cosin'; did you mean 'cosine'?"),
        ({"schedule": None}, "There is no schedule None"),
        ({"warmup": 1.0}, "warmup is a share of the steps, from 0 to below 1"),
        ({"schedule": "wsd", "max_epochs": None, "max_sec": 1}, "needs a length that is known beforehand"),
        ({"warmup": 0.1, "max_epochs": None, "max_sec": 1}, "A warm-up needs a length"),
        ({"schedule": "wsd", "max_epochs": 1, "batch_size": "full"}, "a single step, over which a schedule"),
        ({"warmup": 0.1, "max_steps": 1}, "a single step, over which a warm-up"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_before_anything_runs(
    fakes: list[Any], pair: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        fit(pair, **({"lr": 0.1} | options))
    assert words in str(caught.value)
    assert not any(fake.runs for fake in fakes)


def test_divergence_is_said_plainly(
    pair: Any, engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = engine(diverges=lambda run: True)
    monkeypatch.setattr("steepest.comparison.intake.start_engine", lambda data, metric: fake)
    with pytest.raises(
        InputError, match=r"diverged .* at learning rate 50 \(mse with sgd\); give a smaller one"
    ):
        fit(pair, hidden=(), lr=50, optimizer="sgd")


@pytest.mark.usefixtures("fakes")
def test_the_model_predicts_what_was_planted(pair: Any) -> None:
    model = fit(pair, hidden=(), lr=0.1)
    np.testing.assert_allclose(model.predict(pair[0]) - pair[1], model.record.validation_score, atol=1e-5)


def test_a_loss_for_counts_predicts_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    rate = np.exp(0.5 + x @ [0.6, -0.4])
    y = rng.poisson(rate).astype(float)
    model = fit((x, y), task="regression", loss="poisson_nll", hidden=(), lr=0.03, max_epochs=60)
    predicted = model.predict(x)
    assert abs(predicted.mean() - y.mean()) < 0.15
    assert np.corrcoef(np.log(predicted), np.log(rate))[0, 1] > 0.9
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(x), predicted)


def test_a_schedule_is_trained_by_and_kept(pair: Any, tmp_path: Path) -> None:
    asked = {"lr": 0.05, "max_epochs": 5, "hidden": (), "optimizer": "sgd"}
    constant, cosine = fit(pair, **asked), fit(pair, **asked, schedule="cosine", warmup=0.1)
    assert constant.record.curve.train_loss[-1] != cosine.record.curve.train_loss[-1]
    cosine.save(tmp_path / "model")
    run = load(tmp_path / "model").record.run
    assert (run.schedule, run.warmup) == ("cosine", 0.1)


def test_a_model_of_before_there_were_schedules_has_none(pair: Any, tmp_path: Path) -> None:
    fit(pair, lr=0.05, max_epochs=2, hidden=()).save(tmp_path / "model")
    content, tensors = manifest.read(tmp_path / "model")
    older = {name: value for name, value in content.items() if name not in ("schedule", "warmup")}
    (tmp_path / "older").mkdir()
    manifest.write(tmp_path / "older", older, tensors)
    assert load(tmp_path / "older").record.run.schedule == "constant"


def test_an_automatic_rate_is_looked_for_under_the_schedule(fakes: list[Any], pair: Any) -> None:
    fit(pair, schedule="linear", hidden=())
    assert all(run.schedule == "linear" for fake in fakes for run in fake.runs)
