"""What comes of a rate chosen by validation log loss where classes are far apart: as it is, and as far as rows tell.

    python benchmarks/separable.py [--splits 12]

A model of validation rows that are all predicted right has a smaller log loss the surer it is, so the boldest rate
looks best. For each table, optimizer and random split a rate is chosen on three seeds by the least validation log loss,
and by that as far as the rows tell losses apart (``Metric.least_told_apart``); what counts is the log loss on test
rows. The figures go to ``benchmarks/results/separable.json``; ``write_table.py`` puts them into the docs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_classification

from steepest.comparison.plan import POINTS_PER_DECADE, rate_grids
from steepest.comparison.tune import best_row
from steepest.comparison.versions import versions
from steepest.training.metrics import METRICS
from steepest.training.native import NativeEngine
from steepest.training.run import Run, Stop, TrainingData

RESULTS = Path(__file__).parent / "results" / "separable.json"
TABLES = {
    "iris": lambda: load_iris(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "breast_cancer": lambda: load_breast_cancer(return_X_y=True),
    "digits": lambda: load_digits(return_X_y=True),
    "overlapping": lambda: make_classification(400, 8, n_informative=4, n_classes=3, random_state=1),
}
OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam")
SEEDS = range(3)
EPOCHS = 60
METRIC = METRICS["log_loss"]


def split(x: Any, y: Any, number: int) -> tuple[NativeEngine, Any, Any]:
    """An engine on training and validation rows (60% and 20%), and the test rows."""
    order = np.random.default_rng(number).permutation(len(y))
    train, validation, test = np.split(order, [int(0.6 * len(y)), int(0.8 * len(y))])
    spread = x[train].std(0)
    x = ((x - x[train].mean(0)) / np.where(spread > 0.0, spread, 1.0)).astype(np.float32)
    num_classes = len(np.unique(y))
    task = "binary" if num_classes == 2 else "multiclass"
    targets = y.astype(np.float32 if task == "binary" else np.int64)
    data = TrainingData(task, num_classes, x[train], targets[train], x[validation], targets[validation])
    return NativeEngine(data, METRIC.name), x[test], y[test]


def scores(engine: NativeEngine, x_test: Any, y_test: Any, optimizer: str) -> tuple[Any, Any]:
    """Validation and test log losses, (rates, seeds); NaN where a run diverged."""
    rates = rate_grids((optimizer,), POINTS_PER_DECADE)[optimizer]
    loss = "bce" if engine.data.task == "binary" else "cross_entropy"
    runs = [Run(loss, optimizer, lr, seed=seed, stop=Stop(EPOCHS)) for lr in rates for seed in SEEDS]
    found = np.full((2, len(runs)), np.nan)
    for place, record in enumerate(engine.run_all(runs)):
        if not record.diverged:
            given = np.asarray(engine.predict(record.run, record.parameters, x_test), np.float64)
            found[:, place] = record.validation_score, METRIC.compute(y_test, given)
    return tuple(found.reshape(2, len(rates), len(SEEDS)))


def chosen(num_splits: int) -> Iterator[dict[str, Any]]:
    """For each table and optimizer: mean test log losses of the rates chosen, and of the best rate there was."""
    for name, load in TABLES.items():
        x, y = load()
        for optimizer in OPTIMIZERS:
            losses = []
            for number in range(num_splits):
                engine, x_test, y_test = split(x, y, number)
                validation, test = scores(engine, x_test, y_test, optimizer)
                least = METRIC.least_told_apart(lambda held_out=engine.data.y_validation: held_out)
                rows = best_row(validation), best_row(np.maximum(validation, least))
                losses.append([*test[list(rows)].mean(axis=1), np.nanmin(test.mean(axis=1))])
            by_least, as_told, best = np.mean(losses, axis=0)
            found = {"by_least": by_least, "as_far_as_told": as_told, "best_there_was": best}
            yield {"table": name, "optimizer": optimizer, "rows": len(y), **found}


def main() -> None:
    """Choose rates, and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--splits", type=int, default=12)
    num_splits = parser.parse_args().splits
    rows = []
    for row in chosen(num_splits):
        rows.append(
            {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        )
        print(" ".join(f"{value:>13}" for value in rows[-1].values()), flush=True)
    RESULTS.write_text(
        json.dumps({"splits": num_splits, "versions": versions(), "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
