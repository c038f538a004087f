"""Made-up records of comparisons, in the shape the comparison writes: verdict, plan and runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache, wraps
from typing import Any

import numpy as np
import polars as pl

DEFAULT_RATES = {"sgd": 0.01, "momentum": 0.01, "rmsprop": 0.01}
BEST_RATES = {"sgd": 0.1, "momentum": 0.01, "nesterov": 0.01}
REASONS = {"mse": "aims at the mean", "mae": "aims at the median", "huber": "lies between the two"}
QUALITIES = {"adam": 0.0, "adamw": 0.01, "nesterov": 0.05, "momentum": 0.06, "rmsprop": 0.16, "sgd": 0.42}


@dataclass(frozen=True)
class Sample:
    """A comparison to make up."""

    task: str = "regression"
    metric: str = "rmse"
    target: str = "rings"
    losses: Sequence[str] = ("huber", "mae", "mse")
    optimizers: Sequence[str] = ("adam", "adamw", "momentum", "nesterov", "rmsprop", "sgd")
    batches: Sequence[str] = ("32",)
    rates_a_decade: int = 3
    num_tuning_seeds: int = 3
    num_confirmation_seeds: int = 10
    num_epochs: int = 40
    base_score: float = 2.1
    classes: Sequence[str] = ()
    notes: Sequence[str] = ()
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    @property
    def greater_is_better(self) -> bool:
        return self.metric in ("accuracy", "balanced_accuracy")


Records = tuple[dict[str, Any], dict[str, Any], pl.DataFrame]


def remembered(make: Callable[[], Records]) -> Callable[[], Records]:
    """Makes up once; what a test changes in its copy stays there."""
    made = cache(make)

    @wraps(make)
    def copied() -> Records:
        verdict, plan, runs = made()
        return deepcopy(verdict), plan, runs

    return copied


@remembered
def regression() -> Records:
    """Three losses, six optimizers; one cell barred, some runs diverged."""
    notes = (
        "7 rows had an empty target and were set aside.",
        "The column 'id' has a different value in every row; it was left out.",
    )
    return records(Sample(notes=notes))


@remembered
def multiclass() -> Records:
    """One loss, two batch sizes, judged by accuracy."""
    return records(
        Sample(
            task="multiclass",
            metric="accuracy",
            target="species",
            losses=("cross_entropy",),
            batches=("32", "full"),
            base_score=0.93,
            classes=("setosa", "versicolor", "virginica"),
            num_epochs=25,
        )
    )


@remembered
def interrupted() -> Records:
    """Stopped while tuning: few runs, validation scores, the best so far in the winner's place."""
    sample = Sample(losses=("mse",), optimizers=("adam", "sgd"), num_epochs=8)
    verdict, plan, runs = records(sample)
    runs = runs.filter(pl.col("stage") == "tune").head(9)
    cells = [_cell_of(sample, runs, "mse", "adam", "32", "tuned")]
    cells[0].update(test={}, difference=None)
    verdict.update(
        status="interrupted",
        sentence="No verdict after 9 of 180 runs. So far MSE with Adam is the best of 1 pair tried.",
        winners=cells,
        cells=cells,
        num_runs=runs.height,
        num_diverged=int(runs["diverged"].sum()),
        baseline=None,
        notes=["Interrupted with Ctrl-C. Run the same command again to go on from here."],
        seconds=3.2,
    )
    return verdict, plan, runs


@remembered
def minimal() -> Records:
    """One cell, one run."""
    sample = Sample(losses=("mse",), optimizers=("adam",), num_epochs=5)
    run = _run(sample, "confirm", "mse", "adam", "32", 0.001, 0)
    runs = _frame([run])
    cell = _cell_of(sample, runs, "mse", "adam", "32", "tuned")
    cell.update(interval=[None, None], difference=None)
    verdict = _verdict(sample, [cell], [cell], runs)
    verdict.update(notes=[], diagnosis=[], sentence="MSE with Adam reaches an RMSE of 2.1.")
    return verdict, {"format": 1}, runs


def large(num_runs: int = 5_000) -> Records:
    """As many runs as a long comparison has."""
    sample = Sample(
        losses=("huber", "log_cosh", "mae", "mse", "quantile"),
        optimizers=(*QUALITIES, "adagrad", "adadelta", "adamax", "nadam", "radam", "lion"),
        num_epochs=100,
        num_confirmation_seeds=12,
    )
    verdict, plan, runs = records(sample)
    assert runs.height >= num_runs, runs.height
    return verdict, plan, runs


def hostile(text: str) -> Records:
    """Every name a user or a plug-in can choose is ``text``."""
    sample = Sample(losses=(text, "mse"), optimizers=(text, "adam"), num_epochs=6, target=text, notes=(text,))
    verdict, plan, runs = records(sample)
    verdict["sentence"] = verdict["metric_title"] = text
    verdict["diagnosis"] = [{"name": text, "value": text, "text": text}]
    verdict["versions"] = {text: text}
    verdict["cells"][-1]["barred"] = verdict["baseline"]["says"] = text
    verdict["cells"][0]["test"][text] = 1.0
    return verdict, plan | {text: text, "inner": {text: [text]}}, runs


def records(sample: Sample) -> Records:
    """Verdict, plan and runs of one made-up comparison."""
    runs = _frame(list(_all_runs(sample)))
    cells = _cells(sample, runs)
    racing = [cell for cell in cells if not cell["barred"]]
    winners = [cell for cell in racing if cell["difference"][0] <= 0 <= cell["difference"][1]]
    return _verdict(sample, cells, winners, runs), _plan(sample, runs), runs


def _all_runs(sample: Sample) -> Iterable[dict[str, Any]]:
    for loss in sample.losses:
        for optimizer in sample.optimizers:
            for batch in sample.batches:
                rates = _rates(sample, optimizer)
                for rate in rates:
                    for seed in range(sample.num_tuning_seeds):
                        yield _run(sample, "tune", loss, optimizer, batch, rate, seed)
                best = _best_rate(rates, optimizer)
                near = {rates[max(0, best - 1)], rates[best], rates[min(len(rates) - 1, best + 1)]}
                fresh = range(100, 100 + sample.num_confirmation_seeds)
                for rate in sorted(near):
                    yield from (_run(sample, "confirm", loss, optimizer, batch, rate, seed) for seed in fresh)
                default = DEFAULT_RATES.get(optimizer, 0.001)
                yield from (_run(sample, "default", loss, optimizer, batch, default, seed) for seed in fresh)


def _rates(sample: Sample, optimizer: str) -> list[float]:
    low, high = {"sgd": (-4, 1), "momentum": (-5, 0), "nesterov": (-5, 0)}.get(optimizer, (-5, -1))
    number = (high - low) * sample.rates_a_decade + 1
    return [float(rate) for rate in np.logspace(low, high, number)]


def _best_rate(rates: list[float], optimizer: str) -> int:
    wanted = math.log10(BEST_RATES.get(optimizer, 0.00316))
    return min(range(len(rates)), key=lambda index: abs(math.log10(rates[index]) - wanted))


def _run(
    sample: Sample, stage: str, loss: str, optimizer: str, batch: str, lr: float, seed: int
) -> dict[str, Any]:
    random = sample.random
    offset = math.log10(lr / BEST_RATES.get(optimizer, 0.00316))
    diverged = offset > 1.2 and random.random() < 0.35 + 0.5 * (offset - 1.2)
    epochs = sample.num_epochs if not diverged else max(1, sample.num_epochs // 8)
    penalty = QUALITIES.get(optimizer, 0.1) + 0.05 * sample.losses.index(loss) + 0.08 * (batch == "full")
    cost = 1 + 0.15 * penalty + 0.035 * offset**2 * (3.0 if offset > 0 else 2.0) + abs(random.normal(0, 0.02))
    progress = np.arange(1, epochs + 1)
    costs = cost + 1.4 * np.exp(-progress / (2 + 3 * penalty)) + random.normal(0, 0.006, epochs)
    curve = sample.base_score / costs if sample.greater_is_better else sample.base_score * costs
    steps_an_epoch = 1 if batch == "full" else 79
    score = float("nan") if diverged else float((max if sample.greater_is_better else min)(curve))
    tests = {"rmse": score, "mae": 0.72 * score * (1 + 0.04 * (loss != "mae"))}
    if sample.task != "regression":
        tests = {"accuracy": score, "balanced_accuracy": score * 0.98, "log_loss": 1.2 - score, "ece": 0.03}
    return {
        "run_id": f"{stage}-{loss}-{optimizer}-{batch}-{lr:.4g}-{seed}",
        "stage": stage,
        "loss": loss,
        "optimizer": optimizer,
        "batch_size": batch,
        "lr": lr,
        "seed": seed,
        "hidden": "64,64",
        "activation": "relu",
        "hyper_lr": lr,
        "num_epochs": epochs,
        "num_steps": epochs * steps_an_epoch,
        "num_examples": epochs * 2_505,
        "stop_reason": "diverged" if diverged else "epochs",
        "diverged": diverged,
        "best_epoch": epochs,
        "validation_score": score,
        **{f"test_{name}": value if stage == "confirm" else None for name, value in tests.items()},
        "seconds": 0.004 * epochs * (1 + 0.2 * random.random()),
        "curve_epoch": progress.tolist(),
        "curve_step": (progress * steps_an_epoch).tolist(),
        "curve_train_loss": (costs / 2).tolist(),
        "curve_validation": curve.tolist(),
    }


def _frame(runs: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(runs, infer_schema_length=None)


def _cells(sample: Sample, runs: pl.DataFrame) -> list[dict[str, Any]]:
    cells = [
        _cell_of(sample, runs, loss, optimizer, batch, kind)
        for loss in sample.losses
        for optimizer in sample.optimizers
        for batch in sample.batches
        for kind in ("tuned", "default")
    ]
    sign = -1 if sample.greater_is_better else 1
    cells.sort(key=lambda cell: (bool(cell["barred"]), sign * cell["score"]))
    best = cells[0]
    for cell in cells:
        gap = sign * (cell["score"] - best["score"])
        width = 0.8 * (cell["interval"][1] - cell["interval"][0])
        cell["difference"] = [0.0, 0.0] if cell is best else [gap - width, gap + width]
    return cells


def _cell_of(
    sample: Sample, runs: pl.DataFrame, loss: str, optimizer: str, batch: str, kind: str
) -> dict[str, Any]:
    own = runs.filter(loss=loss, optimizer=optimizer, batch_size=batch)
    rates = sorted(own["lr"].unique().to_list())
    lr = DEFAULT_RATES.get(optimizer, 0.001) if kind == "default" else rates[_best_rate(rates, optimizer)]
    stages = ["default"] if kind == "default" else ["confirm"]
    done = own.filter(pl.col("lr") == lr)
    final = done.filter(pl.col("stage").is_in(stages))
    final = final if final.height else done
    scores = final.filter(~pl.col("diverged"))["validation_score"].to_numpy()
    score = float(scores.mean())
    half = 2 * float(scores.std()) / math.sqrt(len(scores))
    barred = kind == "tuned" and (loss, optimizer) == ("mae", "sgd")
    columns = [name for name in runs.columns if name.startswith("test_")]
    tests = {name.removeprefix("test_"): final[name].drop_nans().mean() for name in columns}
    return {
        "loss": loss,
        "optimizer": optimizer,
        "batch_size": "full" if batch == "full" else int(batch),
        "lr": lr,
        "score": score,
        "interval": [score - half, score + half],
        "num_seeds": len(scores),
        "tuned": kind == "tuned" and not barred,
        "kind": kind,
        "barred": "not tuned: its best rate, 10, is the largest that was tried" if barred else None,
        "rate_interval": [lr / 10 ** (1 / 3), lr * 10 ** (1 / 3)],
        "validation_score": score,
        "num_diverged": int(final["diverged"].sum()),
        "test": tests if kind == "tuned" else {},
        "difference": None,
    }


def _verdict(
    sample: Sample, cells: list[dict[str, Any]], winners: list[dict[str, Any]], runs: pl.DataFrame
) -> dict[str, Any]:
    first = winners[0]
    others = f" {len(winners) - 1} other pairs do as well." if len(winners) > 1 else ""
    title = {"rmse": "RMSE", "accuracy": "Accuracy"}[sample.metric]
    return {
        "format": 1,
        "status": "complete",
        "sentence": f"Use the {first['loss']} loss with {first['optimizer']} at a learning rate of "
        f"{first['lr']:.3g}: {title} {first['score']:.3f} on unseen seeds.{others}",
        "task": sample.task,
        "target": sample.target,
        "metric": sample.metric,
        "metric_title": title,
        "greater_is_better": sample.greater_is_better,
        "winners": winners,
        "cells": cells,
        "num_runs": runs.height,
        "num_diverged": int(runs["diverged"].sum()),
        "num_rows": {"train": 2_505, "validation": 836, "test": 836},
        "num_features": 10,
        "architecture": {"hidden": [64, 64], "activation": "relu"},
        "epochs": sample.num_epochs,
        "notes": list(sample.notes),
        "diagnosis": _diagnosis(sample),
        "calibration": _calibration() if sample.classes else None,
        "baseline": _baseline(sample),
        "seconds": 131.7,
        "versions": {"steepest": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6", "python": "3.11.9"},
        "data_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "seed": 0,
    }


def _baseline(sample: Sample) -> dict[str, Any]:
    """Of a model that is far better."""
    if sample.task == "regression":
        test, says = {"rmse": 2 * sample.base_score, "mae": 1.5 * sample.base_score}, "the mean"
    else:
        test, says = {"accuracy": 0.34, "balanced_accuracy": 1 / 3, "log_loss": 1.099}, "the largest class"
    score = test[sample.metric]
    return {"says": says, "score": score, "test": test, "gain": [0.4 * score, 0.5 * score], "beaten": True}


def _diagnosis(sample: Sample) -> list[dict[str, Any]]:
    if sample.classes:
        text = "The rarest class has a third of the rows: plain accuracy is a fair judge here."
        return [
            {"name": "classes", "value": list(sample.classes), "text": "Three classes in all."},
            {"name": "rarest_class", "value": 0.328, "text": text},
        ]
    return [
        {
            "name": "outliers",
            "value": 0.0312,
            "text": "3.1% of the target values are outliers (over 3 interquartile ranges outside the middle half); a "
            "normal distribution has next to none. Squared error (mse) gives them great weight, robust losses (mae, "
            "huber, log_cosh, cauchy) do not.",
            "losses": ["mae", "huber"],
            "because": "3.1% of the target values are outliers",
            "mattered": True,
            "outcome": "It mattered: huber is 4.0% better than mse on RMSE (95% interval 2.9% to 5.1%), and mae is "
            "7.5% better than mse on MAE (95% interval 6.1% to 8.9%).",
        },
        {"name": "skew", "value": 1.11, "text": "A longer tail on the right: the mean is above the median."},
        {"name": "distinct_values", "value": 28, "text": "The target takes whole numbers only."},
    ]


def _calibration() -> dict[str, Any]:
    """Of predictions that are a little too sure."""
    curve = [
        {
            "low": place / 15,
            "high": (place + 1) / 15,
            "num_predictions": 40 * (place - 4) ** 2,
            "predicted": (place + 0.5) / 15,
            "observed": (place + 0.5) / 15 - 0.004 * (place - 4),
        }
        for place in range(5, 15)
    ]
    return {
        "ece": 0.031,
        "interval": [0.027, 0.035],
        "num_bins": 15,
        "num_seeds": 10,
        "positive": None,
        "curve": curve,
    }


def _plan(sample: Sample, runs: pl.DataFrame) -> dict[str, Any]:
    return {
        "format": 1,
        "metric": sample.metric,
        "losses": list(sample.losses),
        "loss_reasons": {loss: REASONS.get(loss, "was named") for loss in sample.losses},
        "optimizers": list(sample.optimizers),
        "batch_sizes": list(sample.batches),
        "rates": {name: _rates(sample, name) for name in sample.optimizers},
        "tuning_seeds": sample.num_tuning_seeds,
        "confirmation_seeds": sample.num_confirmation_seeds,
        "margin": 0.01,
        "epochs": sample.num_epochs,
        "budget_sec": None,
        "seed": 0,
        "runs": runs["run_id"].to_list(),
    }


ALL = {"regression": regression, "multiclass": multiclass, "interrupted": interrupted, "minimal": minimal}
