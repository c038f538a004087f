"""A table's runs trained together: the native engine's records to rounding. Here by vmap; on a GPU by kernels."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from steepest.errors import InputError
from steepest.losses import LOSSES
from steepest.training.native import NativeEngine
from steepest.training.population_tables import TablePopulation
from steepest.training.run import Architecture, Record, Run, Stop

from .problems import problem

NET = Architecture((5,), "tanh")


def runs_of(losses: Sequence[str], **named: Any) -> list[Run]:
    ways = [("sgd", 0.03), ("adam", 0.01), ("lamb", 0.01)]
    return [
        Run(loss, *ways[(k + seed) % 3], 32, seed, NET, **{"stop": Stop(4), **named})
        for k, loss in enumerate(losses)
        for seed in (0, 1)
    ]


def both(task: str, runs: Sequence[Run], metric: str, **data: Any) -> tuple[list[Record], list[Record]]:
    given = problem(task, validation=40, **data)
    together = TablePopulation(given, metric, "cpu")
    found = together.run_all(runs)
    assert together.broken == []
    wanted = NativeEngine(given, metric).run_all(runs)
    assert None not in found
    return found, wanted  # type: ignore[return-value]


def check_alike(found: Sequence[Record], wanted: Sequence[Record]) -> None:
    for a, b in zip(found, wanted, strict=True):
        about = f"{a.run.loss} + {a.run.optimizer}"
        for name in ("run", "num_epochs", "num_steps", "num_examples", "stop_reason", "best_epoch"):
            assert getattr(a, name) == getattr(b, name), (about, name)
        assert a.hyperparameters == pytest.approx(b.hyperparameters)
        assert a.parameters.dtype == b.parameters.dtype
        assert a.parameters.shape == b.parameters.shape
        np.testing.assert_allclose(a.parameters, b.parameters, rtol=2e-5, atol=2e-5, err_msg=about)
        for name in ("epoch", "step"):
            np.testing.assert_array_equal(getattr(a.curve, name), getattr(b.curve, name))
        for name in ("train_loss", "validation_score"):
            np.testing.assert_allclose(
                getattr(a.curve, name), getattr(b.curve, name), rtol=2e-4, err_msg=about
            )
        assert a.validation_score == pytest.approx(b.validation_score, rel=2e-4)


@pytest.mark.parametrize(
    ("task", "metric"),
    [("regression", "rmse"), ("regression", "mae"), ("binary", "log_loss"), ("multiclass", "accuracy")],
)
def test_every_loss_of_a_task(task: str, metric: str) -> None:
    """Those with an output a class and those with one, probabilities and logarithms of means, side by side."""
    losses = [name for name, cls in LOSSES.items() if task in cls.formula.tasks]
    check_alike(*both(task, runs_of(losses), metric))


def test_stop_conditions_are_in_the_metrics_own_units() -> None:
    first = runs_of(["mse"])[0]
    runs = [
        replace(first, stop=Stop(20, target_metric=2.4)),
        replace(first, seed=1, stop=Stop(20, patience=2), lr=0.3),
        replace(first, stop=Stop(None, 7)),
        replace(first, stop=Stop(20, min_gradient_norm=0.9)),
        replace(first, lr=1e6),
    ]
    found, wanted = both("regression", runs, "rmse")
    assert {one.stop_reason for one in found} >= {"target_metric", "steps", "gradient_norm", "diverged"}
    check_alike(found[:4], wanted[:4])
    assert [one.stop_reason for one in found] == [one.stop_reason for one in wanted]
    assert np.isnan(found[4].validation_score)


def test_nets_of_several_shapes_and_a_run_with_none_to_go_with() -> None:
    runs = [
        *runs_of(["mse"]),
        *(replace(run, architecture=Architecture((), "relu")) for run in runs_of(["mae"])),
    ]
    lone = replace(runs[0], architecture=Architecture((3, 3), "gelu"))
    found, wanted = both("regression", [*runs, lone], "mae")
    check_alike(found, wanted)
    np.testing.assert_array_equal(found[-1].parameters, wanted[-1].parameters)  # the native engine's own


def test_rows_with_weights_and_probabilities_are_the_native_engines() -> None:
    plain = problem("regression", validation=40)
    weighted = replace(plain, weights=np.linspace(0.5, 2.0, len(plain.x_train)))
    for data, loss, metric in (
        (weighted, "mse", "rmse"),
        (problem("multiclass", validation=40, targets="probabilities"), "cross_entropy", "log_loss"),
    ):
        runs = runs_of([loss])
        found = TablePopulation(data, metric, "cpu").run_all(runs)
        for a, b in zip(found, NativeEngine(data, metric).run_all(runs), strict=True):
            assert a is not None
            assert b is not None
            np.testing.assert_array_equal(a.parameters, b.parameters)


def test_predictions_are_of_the_weights_in_a_row() -> None:
    data = problem("binary", validation=40)
    runs = runs_of(["bce_probability", "cross_entropy"])
    engine = TablePopulation(data, "log_loss", "cpu")
    for run, record in zip(runs, engine.run_all(runs), strict=True):
        assert record is not None
        given = engine.predict(run, record.parameters, data.x_validation)
        score = engine.metric.compute(data.y_validation, given)
        assert score == pytest.approx(record.validation_score, rel=1e-5)


def test_company_and_interruption() -> None:
    engine = TablePopulation(problem("regression", validation=40), "rmse", "cpu")
    runs = [*runs_of(["mse", "mae"]), *runs_of(["poisson_nll"])]
    assert engine.company(runs, [1]) == [0, 1, 2, 3]
    assert engine.company(runs, [5]) == [4, 5]
    assert engine.company(runs, []) == []
    stop = threading.Event()
    seen: list[int] = []

    def on_record(place: int, record: Record) -> None:
        seen.append(place)
        stop.set()

    found = engine.run_all(runs, on_record=on_record, stop_event=stop)
    assert seen
    assert {4, 5}.isdisjoint(seen)
    assert found[4] is None


def test_what_the_native_engine_refuses_is_refused() -> None:
    data = problem("regression", validation=40)
    engine = TablePopulation(data, "rmse", "cpu")
    for wrong in (
        replace(runs_of(["mse"])[0], loss="bce"),
        replace(runs_of(["mse"])[0], optimizer="nobody"),
        replace(runs_of(["mse"])[0], architecture=Architecture((5,), "step")),
        replace(runs_of(["mse"])[0], lr=0.0),
    ):
        with pytest.raises(InputError):
            engine.run_all([wrong, replace(wrong, seed=1)])
