"""Real tables, and what a person would take instead: scikit-learn's networks and linear models, on the same rows.

    python benchmarks/real_tables.py [NAME ...]

On each table a comparison runs as ``steepest.compare`` runs it, and hands over its model. Then scikit-learn's MLP and
SGD are fitted on the same training and validation rows: as they come, and searched for the processor time that
the comparison took. All are scored on the same test rows by the same metric. Every difference has an interval, a
bootstrap over the test rows. The figures go to ``benchmarks/results/real_tables.json``, and
from there ``write_table.py`` puts them into the docs. Names given: only these tables, and nothing is written.

The tables: ``make_tables.py`` and ``real_tables.py`` in ``examples`` take them out of packages.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.model_selection import ParameterSampler
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits

import steepest
from steepest.bench.measure import machine
from steepest.comparison.forward import outputs, probabilities
from steepest.comparison.versions import versions
from steepest.data import Prepared, prepare
from steepest.training.metrics import METRICS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "real_tables.json"
NUM_RESAMPLES = 10_000
LEAST_SHARE = np.finfo(np.float64).eps  # where scikit-learn's log_loss clips, or one row would decide all

sys.path.insert(0, str(ROOT / "examples"))
import make_tables  # noqa: E402
import real_tables as packaged  # noqa: E402


@dataclass(frozen=True)
class Table:
    """A table, what is to be predicted, and what decides."""

    make: Callable[[], pl.DataFrame]
    target: str
    metric: str


# The optimizers are two of the defaults, the losses all of them: minutes a table, not a quarter of an hour.
OPTIMIZERS = ["momentum", "adam"]
TABLES = {
    "diabetes": Table(make_tables.diabetes, "progression", "rmse"),
    "breast_cancer": Table(make_tables.breast_cancer, "diagnosis", "log_loss"),
    "digits": Table(make_tables.digits, "digit", "log_loss"),
    "flight_delays": Table(packaged.flight_delays, "arr_delay", "mae"),
    "diamonds": Table(packaged.diamonds, "cut", "log_loss"),
}

MLP = {
    "hidden_layer_sizes": [(32,), (100,), (64, 64), (128, 128)],
    "activation": ["relu", "tanh"],
    "solver": ["adam", "sgd"],
    "learning_rate_init": loguniform(1e-4, 1e-1),
    "alpha": loguniform(1e-6, 1.0),
    "batch_size": [32, 200],
    "early_stopping": [True, False],
}
SGD = {
    "penalty": ["l2", "l1", "elasticnet"],
    "alpha": loguniform(1e-7, 1e-1),
    "learning_rate": ["optimal", "invscaling", "adaptive"],
    "eta0": loguniform(1e-4, 1e-1),
    "average": [True, False],
}
REGRESSORS = {
    "MLP": (MLPRegressor(random_state=0), MLP),
    "SGD": (
        SGDRegressor(random_state=0),
        SGD | {"loss": ["squared_error", "huber", "epsilon_insensitive"], "epsilon": [0.0, 0.1, 1.0]},
    ),
}
CLASSIFIERS = {
    "MLP": (MLPClassifier(random_state=0), MLP),
    # Its own default, hinge, gives no probabilities.
    "SGD": (SGDClassifier(loss="log_loss", random_state=0), SGD | {"loss": ["log_loss", "modified_huber"]}),
}


@dataclass(frozen=True)
class Rows:
    """The rows that a peer may learn from, and those it is judged on: encoded as ours, targets standardised."""

    prepared: Prepared
    metric: str

    def predictions(self, model: Any, x: np.ndarray) -> np.ndarray:
        """In the target's own units, or probabilities."""
        if self.prepared.task != "regression":
            shares = np.asarray(model.predict_proba(x), dtype=np.float64)
            return shares / shares.sum(axis=1, keepdims=True)  # float32's rounding apart
        encoding = self.prepared.encoding
        return model.predict(x).astype(np.float64) * encoding.target_scale + encoding.target_mean

    def validation_cost(self, model: Any) -> float:
        """The metric on the validation rows; a fit gone wild is the worst there is."""
        given = self.predictions(model, self.prepared.x_validation)
        if not np.isfinite(given).all():
            return np.inf
        return METRICS[self.metric].compute(self.prepared.y_validation_original, given)


def row_costs(metric: str, truth: np.ndarray, given: np.ndarray) -> np.ndarray:
    """What each row adds to the metric."""
    if metric == "rmse":
        return (given - truth) ** 2
    if metric == "mae":
        return np.abs(given - truth)
    shares = np.clip(given, LEAST_SHARE, 1.0)
    return -np.log((shares / shares.sum(axis=1, keepdims=True))[np.arange(len(truth)), truth])


def from_mean(metric: str, mean: Any) -> Any:
    """The metric from the mean over rows."""
    return np.sqrt(mean) if metric == "rmse" else mean


def difference_interval(metric: str, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """The 95% interval of the peer's score less ours, the same test rows resampled for both."""
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(NUM_RESAMPLES):
        rows = rng.integers(0, len(ours), len(ours))
        differences.append(from_mean(metric, theirs[rows].mean()) - from_mean(metric, ours[rows].mean()))
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def searched(model: Any, space: dict[str, Any], rows: Rows, seconds: float) -> tuple[Any, int]:
    """The best of as many settings as the time allows, fitted on all rows; the first setting is the default."""
    part = rows.prepared
    deadline = time.process_time() + seconds
    best, best_cost, count = {}, np.inf, 0
    for settings in settings_of(space):
        candidate = clone(model).set_params(**settings)
        try:
            candidate.fit(part.x_train, part.y_train)
            cost = rows.validation_cost(candidate)
        except ValueError:  # it diverged, and scikit-learn says so
            cost = np.inf
        if cost < best_cost:
            best, best_cost = settings, cost
        count += 1
        if time.process_time() >= deadline:
            break
    return fitted(clone(model).set_params(**best), rows), count


def settings_of(space: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The defaults, then random ones."""
    yield {}
    yield from ParameterSampler(space, n_iter=10**6, random_state=0)


def fitted(model: Any, rows: Rows) -> Any:
    """The model, fitted on training and validation rows."""
    part = rows.prepared
    return model.fit(
        np.concatenate([part.x_train, part.x_validation]), np.concatenate([part.y_train, part.y_validation])
    )


def measure(name: str, table: Table) -> dict[str, Any]:
    """Ours and its peers on one table."""
    frame = table.make()
    rows = Rows(prepare(frame, table.target, seed=0), table.metric)
    part = rows.prepared
    started, began = time.process_time(), time.perf_counter()
    comparison = steepest.compare(frame, table.target, metric=table.metric, optimizers=OPTIMIZERS)
    seconds, wall_sec = time.process_time() - started, time.perf_counter() - began
    model = comparison.model
    last = outputs(model.layers, model.architecture.activation, part.x_test)
    if part.task == "regression":
        given = last[:, 0].astype(np.float64) * part.encoding.target_scale + part.encoding.target_mean
    else:
        given = probabilities(last)
    ours = row_costs(table.metric, part.y_test_original, given)

    peers = []
    for peer, (estimator, space) in (REGRESSORS if part.task == "regression" else CLASSIFIERS).items():
        by_default = time.process_time()
        default = fitted(clone(estimator), rows)
        took = time.process_time() - by_default
        best, count = searched(estimator, space, rows, seconds)
        for how, found, tried, spent in (("default", default, 1, took), ("searched", best, count, seconds)):
            theirs = row_costs(table.metric, part.y_test_original, rows.predictions(found, part.x_test))
            score = from_mean(table.metric, theirs.mean())
            low, high = difference_interval(table.metric, ours, theirs)
            outcome = "better" if low > 0 else "worse" if high < 0 else "no difference"
            peers.append({
                "peer": peer, "how": how, "settings_tried": tried, "processor_sec": spent, "score": float(score),
                "advantage": float(score - from_mean(table.metric, ours.mean())), "interval": [low, high],
                "ours_is": outcome,
            })  # fmt: skip
            print(f"  {name}: {peers[-1]}", flush=True)
    return {
        "task": part.task, "metric": table.metric, "num_rows": part.num_rows, "num_features": part.num_features,
        "sentence": comparison.verdict["sentence"], "num_runs": comparison.verdict["num_runs"],
        "epochs": comparison.plan.epochs, "processor_sec": seconds, "wall_sec": wall_sec,
        "score": float(from_mean(table.metric, ours.mean())), "peers": peers,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TABLES)}; default: all")
    names = parser.parse_args().names or list(TABLES)
    warnings.simplefilter("ignore", ConvergenceWarning)
    results = {}
    with threadpool_limits(1):  # BLAS with more threads takes more processor time on products this small
        for name in names:
            results[name] = measure(name, TABLES[name])
            print(name, results[name]["score"], results[name]["sentence"], flush=True)
    if names == list(TABLES):
        content = {
            "machine": machine(), "measured": time.strftime("%Y-%m-%d"), "versions": versions(), "tables": results,
        }  # fmt: skip
        RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
