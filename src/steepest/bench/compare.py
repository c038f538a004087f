"""A whole comparison against the same runs by Optuna and by Ray Tune over torch, and its start."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from steepest.bench import first_run
from steepest.bench.peers import Absent, if_there, load, torch_loss, torch_optimizer, version
from steepest.bench.work import OURS, Contestant, Field, Missing, Ratio, Work
from steepest.comparison.compare import compare
from steepest.comparison.engine import count_threads
from steepest.data import prepare
from steepest.optim import OPTIMIZERS
from steepest.training.modules import build_module
from steepest.training.run import Architecture, TrainingData

__all__ = ["works"]

OPTUNA, RAY = "Optuna over torch", "Ray Tune over torch"
_BATCH_SIZE = 32
_FEW, _MORE = 2, 8  # runs of a peer that are measured; all of them would take minutes a round


class Size(NamedTuple):
    """A table, the net, and the options of a comparison of about 200 runs on it."""

    rows: int
    features: int
    hidden: tuple[int, ...]
    epochs: int
    options: Mapping[str, Any]


_FULL = Size(10_000, 20, (64, 64), 10, {"optimizers": ["adam", "momentum"], "seeds": 4})
_QUICK = Size(200, 4, (4,), 1, {"optimizers": ["sgd"], "seeds": 3})


def works(quick: bool) -> list[Work]:
    """The comparison, and how long a person waits for its first run."""
    size = _QUICK if quick else _FULL
    hidden = ",".join(map(str, size.hidden))
    name = (
        f"comparison of about 200 runs, table of {size.rows:,} x {size.features}, hidden {hidden}, "
        f"batch {_BATCH_SIZE}, {size.epochs} epochs"
    )
    bars = (Ratio((OPTUNA,), 30.0), Ratio((RAY,), 15.0))
    work = Work(name, partial(_field, size), bars, rounds=3)  # a round takes minutes
    return [work, first_run.cold(quick), first_run.warm(quick)]


class _Trial(NamedTuple):
    """A run of the comparison, as a peer makes it."""

    loss: str
    optimizer: str
    lr: float
    seed: int
    epochs: int
    hidden: tuple[int, ...]


_RunTrials = Callable[[Sequence[_Trial]], int]  # trains, and gives the number of steps


def _field(size: Size) -> Field:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size.rows, size.features))
    y = np.tanh(x @ rng.normal(size=size.features)) + rng.normal(size=size.rows)

    def whole() -> Any:
        return compare(
            (x, y), losses=["mse"], hidden=size.hidden, batch_sizes=_BATCH_SIZE, max_epochs=size.epochs, splits=1,
            **size.options,
        )  # fmt: skip

    runs = whole().runs
    ended = runs.filter(~runs["diverged"]).sort("run_id")
    trials = [
        _Trial(row["loss"], row["optimizer"], row["lr"], row["seed"], size.epochs, size.hidden)
        for row in ended.gather_every(max(1, ended.height // (_FEW + _MORE))).iter_rows(named=True)
    ][: _FEW + _MORE]
    data = prepare((x, y), None, task="auto", seed=0, validation=0.2, test=0.2).training_data()
    all_steps = int(runs["num_steps"].sum())

    def whole_of(run_trials: _RunTrials, of: str) -> Contestant:
        note = (
            f"{len(trials)} of its {runs.height} runs measured, the rest reckoned from them by steps, "
            "its start counted once"
        )
        return Contestant(lambda: {"time": _whole_sec(run_trials, trials, all_steps)}, of, note=note)

    field: dict[str, Contestant | Missing] = {
        OURS: Contestant(lambda: _nothing(whole()), note=f"{runs.height} runs")
    }
    field[OPTUNA] = if_there(lambda: whole_of(_optuna(data), version("optuna")))
    field[RAY] = if_there(lambda: whole_of(_ray(data), version("ray")))
    return field


def _nothing(_: object) -> None:
    """Let a value go."""


def _whole_sec(run_trials: _RunTrials, trials: Sequence[_Trial], all_steps: int) -> float:
    """What all runs take, from some: what a few take is the start, what more take beyond it is the pace."""
    few_sec, few_steps = _timed(run_trials, trials[:_FEW])
    seconds, steps = _timed(run_trials, trials)
    return seconds + (seconds - few_sec) / (steps - few_steps) * (all_steps - steps)


def _timed(run_trials: _RunTrials, trials: Sequence[_Trial]) -> tuple[float, int]:
    start = time.perf_counter()
    steps = run_trials(trials)
    return time.perf_counter() - start, steps


def _optuna(data: TrainingData) -> _RunTrials:
    optuna = load("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def run_trials(trials: Sequence[_Trial]) -> int:
        steps = 0

        def objective(asked: Any) -> float:
            nonlocal steps
            score, made = _train(data, trials[asked.suggest_categorical("trial", search["trial"])])
            steps += made
            return score

        search = {"trial": list(range(len(trials)))}
        study = optuna.create_study(sampler=optuna.samplers.GridSampler(search, seed=0))
        study.optimize(objective, n_trials=len(trials))
        return steps

    return run_trials


def _ray(data: TrainingData) -> _RunTrials:
    """Actors are kept from trial to trial, one a processor; starting Ray itself is not counted."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0"}
    ray, tune = load("ray"), load("ray.tune")
    folder = tempfile.TemporaryDirectory()
    if not ray.is_initialized():
        ray.init(
            num_cpus=count_threads(None), include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )

    class Trainable(tune.Trainable):  # type: ignore[misc, name-defined]
        """A trial in one of Tune's steps."""

        def setup(self, config: Any, rows: Any) -> None:
            torch.set_num_threads(1)
            self.rows = rows
            self.reset_config(config)

        def step(self) -> dict[str, Any]:
            score, steps = _train(self.rows, self.trial)
            return {"score": score, "steps": steps, "done": True}

        def reset_config(self, new_config: Any) -> bool:
            self.trial = _Trial(**new_config["trial"])
            return True

    def run_trials(trials: Sequence[_Trial]) -> int:
        tuner = tune.Tuner(
            tune.with_parameters(Trainable, rows=data),
            param_space={"trial": tune.grid_search([trial._asdict() for trial in trials])},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=folder.name,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        found = tuner.fit()
        if found.errors:
            raise RuntimeError(str(found.errors[0]).splitlines()[-1])
        return sum(int(result.metrics["steps"]) for result in found)

    return run_trials


def _train(data: TrainingData, trial: _Trial) -> tuple[float, int]:
    """What a person writes in torch: epochs over shuffled rows, a score after each; the last, and the steps."""
    torch.manual_seed(trial.seed)
    sizes = [data.x_train.shape[1], *trial.hidden, 1]
    module = build_module(sizes, Architecture(trial.hidden))
    found = torch_optimizer(trial.optimizer)
    if found is None:
        raise Absent(f"torch has no {trial.optimizer}")
    cls, options = found
    optimizer = cls(module.parameters(), lr=trial.lr, **{**OPTIMIZERS[trial.optimizer].options, **options})
    loss_function = torch_loss(trial.loss)
    x, y = _tensor(data.x_train), _tensor(data.y_train).unsqueeze(1)
    x_validation, y_validation = _tensor(data.x_validation), _tensor(data.y_validation).unsqueeze(1)
    score, steps = math.nan, 0
    for _ in range(trial.epochs):
        for batch in torch.randperm(len(x)).split(_BATCH_SIZE):
            optimizer.zero_grad()
            loss_function(module(x[batch]), y[batch]).backward()
            optimizer.step()
            steps += 1
        with torch.no_grad():
            score = float(torch.nn.functional.mse_loss(module(x_validation), y_validation)) ** 0.5
    return score, steps


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.tensor(array)
