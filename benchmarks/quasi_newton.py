"""Does L-BFGS belong among the optimizers? Beside Adam and momentum, at as many passes over the rows.

    python benchmarks/quasi_newton.py [--splits 6]

A pass is an epoch of mini-batches of 32 for these, and for L-BFGS (torch's, with its line search) one value and
gradient of all rows. Each has its rates, three seeds and the epoch (or the evaluation) with the least validation score;
the rate is chosen by these as a comparison chooses it, and its mean score on the test rows is shown. Nothing is
regularised but by stopping, as in a comparison. The figures go to ``benchmarks/results/quasi_newton.json``;
``write_table.py`` puts them into the docs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from torch import nn

from steepest.comparison.plan import POINTS_PER_DECADE, rate_grids
from steepest.comparison.tune import best_row
from steepest.comparison.versions import versions
from steepest.training.metrics import METRICS
from steepest.training.native import NativeEngine
from steepest.training.run import Architecture, Run, Stop, TrainingData

RESULTS = Path(__file__).parent / "results" / "quasi_newton.json"
TABLES = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "diabetes": load_diabetes,
    "digits": load_digits,
}
NETWORKS = ((), (64, 64))
OPTIMIZERS = ("momentum", "adam")
LBFGS_RATES = (0.1, 1.0)
SEEDS = range(3)
PASSES = 100


class Enough(Exception):
    """So many passes were asked for."""


def split(name: str, number: int) -> tuple[NativeEngine, Any, Any]:
    """An engine on training and validation rows (60% and 20%), and the test rows; scaled by the training rows."""
    x, y = TABLES[name](return_X_y=True)
    order = np.random.default_rng(number).permutation(len(y))
    train, validation, test = np.split(order, [int(0.6 * len(y)), int(0.8 * len(y))])
    spread = x[train].std(0)
    x = ((x - x[train].mean(0)) / np.where(spread > 0.0, spread, 1.0)).astype(np.float32)
    if name == "diabetes":
        y = ((y - y[train].mean()) / y[train].std()).astype(np.float32)
        data = TrainingData("regression", 1, x[train], y[train], x[validation], y[validation])
        return NativeEngine(data, "rmse"), x[test], y[test]
    data = TrainingData("multiclass", int(y.max()) + 1, x[train], y[train], x[validation], y[validation])
    return NativeEngine(data, "log_loss"), x[test], y[test]


def by_engine(engine: NativeEngine, x: Any, y: Any, optimizer: str, hidden: tuple[int, ...]) -> Any:
    """Validation and test scores, (2, rates, seeds); NaN where a run diverged."""
    rates = rate_grids((optimizer,), POINTS_PER_DECADE)[optimizer]
    loss = "mse" if engine.data.task == "regression" else "cross_entropy"
    net = Architecture(hidden)
    runs = [
        Run(loss, optimizer, lr, seed=seed, architecture=net, stop=Stop(PASSES))
        for lr in rates
        for seed in SEEDS
    ]
    found = np.full((2, len(runs)), np.nan)
    for place, record in enumerate(engine.run_all(runs)):
        if not record.diverged:
            given = np.asarray(engine.predict(record.run, record.parameters, x), np.float64)
            found[:, place] = record.validation_score, engine.metric.compute(y, given)
    return found.reshape(2, len(rates), len(SEEDS))


def by_lbfgs(data: TrainingData, x: Any, y: Any, hidden: tuple[int, ...]) -> Any:
    """The same of L-BFGS."""
    found = np.full((2, len(LBFGS_RATES), len(SEEDS)), np.nan)
    for place, lr in enumerate(LBFGS_RATES):
        for seed in SEEDS:
            found[:, place, seed] = _one_run(data, x, y, hidden, lr, seed)
    return found


def _one_run(
    data: TrainingData, x: Any, y: Any, hidden: tuple[int, ...], lr: float, seed: int
) -> tuple[float, float]:
    torch.manual_seed(seed)
    sizes = [data.x_train.shape[1], *hidden, data.num_classes]
    layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    net = nn.Sequential(*layers[:-1]).double()
    loss_of, score = _loss_and_score(net, data.task)
    parts = [
        (torch.tensor(np.asarray(a), dtype=torch.float64), torch.tensor(np.asarray(b)))
        for a, b in ((data.x_train, data.y_train), (data.x_validation, data.y_validation), (x, y))
    ]
    optimizer = torch.optim.LBFGS(
        net.parameters(), lr, max_iter=PASSES, history_size=10, line_search_fn="strong_wolfe"
    )
    best, passes = (np.inf, np.nan), 0

    def closure() -> torch.Tensor:
        nonlocal best, passes
        if passes == PASSES:
            raise Enough
        passes += 1
        with torch.no_grad():
            now = float(score(*parts[1]))
            best = (now, float(score(*parts[2]))) if now < best[0] else best
        optimizer.zero_grad()
        loss = loss_of(*parts[0])
        loss.backward()
        return loss

    with suppress(Enough):
        optimizer.step(closure)
    return best


def _loss_and_score(net: nn.Module, task: str) -> tuple[Callable[..., torch.Tensor], Callable[..., float]]:
    """What is trained on, and what the engine's runs are judged by."""
    if task == "regression":
        return (
            lambda x, y: (net(x).squeeze(1) - y).square().mean(),
            lambda x, y: METRICS["rmse"].compute(y.numpy(), net(x).squeeze(1).numpy()),
        )
    return (
        lambda x, y: nn.functional.cross_entropy(net(x), y),
        lambda x, y: METRICS["log_loss"].compute(y.numpy(), net(x).softmax(1).numpy()),
    )


def of_best_rate(found: Any, least: float) -> float:
    """The mean test score of the rate chosen; validation scores below ``least`` count as equal."""
    validation, test = found
    return float(test[best_row(np.maximum(validation, least))].mean())


def measured(num_splits: int) -> Iterator[dict[str, Any]]:
    """For each table and network the mean test score of each, and on how many splits L-BFGS's is the best."""
    for name in TABLES:
        for hidden in NETWORKS:
            scores: dict[str, list[float]] = {word: [] for word in (*OPTIMIZERS, "lbfgs")}
            for number in range(num_splits):
                engine, x, y = split(name, number)
                held_out = engine.data.y_validation
                least = engine.metric.least_told_apart(lambda targets=held_out: targets)
                for optimizer in OPTIMIZERS:
                    scores[optimizer].append(of_best_rate(by_engine(engine, x, y, optimizer, hidden), least))
                scores["lbfgs"].append(of_best_rate(by_lbfgs(engine.data, x, y, hidden), least))
            yield {
                "table": name,
                "network": "linear" if not hidden else ", ".join(map(str, hidden)),
                "metric": METRICS[engine.metric.name].title,
                **{word: float(np.mean(of)) for word, of in scores.items()},
                "splits_lbfgs_is_first": sum(
                    own < min(others)
                    for own, *others in zip(
                        scores["lbfgs"], *(scores[word] for word in OPTIMIZERS), strict=True
                    )
                ),
            }


def main() -> None:
    """Train all of them, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--splits", type=int, default=6)
    num_splits = parser.parse_args().splits
    rows = []
    for row in measured(num_splits):
        rows.append(
            {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        )
        print(" ".join(f"{value:>13}" for value in rows[-1].values()), flush=True)
    about = {"splits": num_splits, "passes": PASSES, "versions": versions(), "rows": rows}
    RESULTS.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
