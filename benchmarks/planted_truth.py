"""Does the comparison find what was planted, and call a tie a tie? Whole comparisons on data whose answer is known.

    python benchmarks/planted_truth.py [--repetitions 200]

Each repetition draws fresh rows and goes the way of ``steepest.compare``: split, plan, tuning, confirmation on
fresh seeds, ranking. The counts go to ``benchmarks/results/planted_truth.json``; exit code 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from steepest.comparison.conduct import conduct
from steepest.comparison.options import Options
from steepest.comparison.plan import make_plan
from steepest.comparison.progress import Silent
from steepest.comparison.splits import Split, Splits
from steepest.comparison.versions import versions
from steepest.data import Prepared, prepare
from steepest.optim import OPTIMIZERS
from steepest.training.native import NativeEngine
from steepest.training.run import Record, Run

RESULTS = Path(__file__).parent / "results" / "planted_truth.json"
REPETITIONS = 200
TWIN = "adam_twin"

Rows = tuple[np.ndarray, np.ndarray]
Name = tuple[str, str]  # loss, optimizer


class LuckApart(NativeEngine):
    """Gives the twin seeds of its own. On the same seeds twins would be the same runs, and their tie no test."""

    def run_all(self, runs: Sequence[Run], **options: Any) -> list[Record | None]:
        """Train every run, the twin's with other initial weights and another order of rows."""
        return super().run_all(
            [replace(run, seed=run.seed + 10**6) if run.optimizer == TWIN else run for run in runs], **options
        )


@dataclass(frozen=True)
class Problem:
    """Rows that are drawn anew each time, what is compared on them, and which pairs are known to be best."""

    claim: str
    draw: Callable[[np.random.Generator], Rows]
    options: Options
    best: frozenset[Name]
    losers: frozenset[Name]
    engine: type[NativeEngine] = NativeEngine


def noisy_line(rng: np.random.Generator) -> Rows:
    """A linear target with noise that a fit cannot remove."""
    x = rng.normal(size=(300, 5))
    return x, x @ rng.normal(size=5) + rng.normal(size=300)


def with_outliers(rng: np.random.Generator, num_rows: int = 300) -> Rows:
    """The same with less noise, and one target in twenty off by fifty standard deviations of it, upwards."""
    x = rng.normal(size=(num_rows, 5))
    y = x @ rng.normal(size=5) + 0.5 * rng.normal(size=num_rows)
    y[rng.random(num_rows) < 0.05] += 25.0
    return x, y


def ravine(rng: np.random.Generator) -> Rows:
    """Least squares whose curvatures lie a factor of about 1000 apart: two columns that are almost one."""
    along = rng.normal(size=300)
    across = 0.04 * rng.normal(size=300)
    x = np.stack([along + across, along - across], axis=1)
    return x, 2.0 * along + 50.0 * across + 0.3 * rng.normal(size=300)


ROBUST = Options(losses=["mse", "mae", "huber"], optimizers=["adam"], hidden=(), metric="mae", max_epochs=40)

PROBLEMS = {
    "twins": Problem(
        "Two names for one optimizer, each with its own luck: neither is put above the other.",
        noisy_line,
        Options(losses=["mse"], optimizers=["adam", TWIN], hidden=(4,), max_epochs=15, splits=1),
        best=frozenset({("mse", "adam"), ("mse", TWIN)}),
        losers=frozenset(),
        engine=LuckApart,
    ),
    "outliers": Problem(
        "5% gross outliers, judged by MAE: MAE and Huber are found, and MSE is not among the winners.",
        with_outliers,
        replace(ROBUST, splits=1),
        best=frozenset({("mae", "adam"), ("huber", "adam")}),
        losers=frozenset({("mse", "adam")}),
    ),
    "ravine": Problem(
        "An ill-conditioned least squares, full batch: momentum is found, and plain descent is not.",
        ravine,
        Options(
            losses=["mse"],
            optimizers=["sgd", "momentum"],
            batch_sizes=("full",),
            hidden=(),
            max_epochs=100,
            splits=1,
        ),
        best=frozenset({("mse", "momentum")}),
        losers=frozenset({("mse", "sgd")}),
    ),
    "twins_on_splits": Problem(
        "The same twins, each fresh seed on a split of its own: no false winner there either.",
        noisy_line,
        Options(losses=["mse"], optimizers=["adam", TWIN], hidden=(4,), max_epochs=15),
        best=frozenset({("mse", "adam"), ("mse", TWIN)}),
        losers=frozenset(),
        engine=LuckApart,
    ),
    "outliers_on_splits": Problem(
        "The outliers on 2,000 rows, each of 20 fresh seeds on a split of its own.",
        partial(with_outliers, num_rows=2_000),
        replace(ROBUST, splits=20),
        best=frozenset({("mae", "adam"), ("huber", "adam")}),
        losers=frozenset({("mse", "adam")}),
    ),
}


@contextmanager
def twin() -> Iterator[None]:
    """A second name for Adam, as long as it is needed."""
    OPTIMIZERS[TWIN] = replace(OPTIMIZERS["adam"], name=TWIN)
    try:
        yield
    finally:
        del OPTIMIZERS[TWIN]


def winners(problem: Problem, repetition: int) -> set[Name]:
    """The pairs in the winner set of one comparison, tuned or not."""
    x, y = problem.draw(np.random.default_rng([2026, repetition]))
    prepared = prepare((x, y), seed=repetition)
    plan = make_plan(prepared, replace(problem.options, seed=repetition))

    def split(one: Prepared) -> Split:
        return Split(one, problem.engine(one.training_data(), plan.metric))

    draws = range(1, plan.splits + 1) if plan.splits > 1 else ()
    fresh = [split(prepare((x, y), seed=repetition, redrawn=draw)) for draw in draws]
    splits = Splits(plan, split(prepared), fresh)
    outcome = conduct(plan, splits, None, Silent(), threading.Event())
    return {(one.finalist.cell.loss, one.finalist.cell.optimizer) for one in outcome.winners}


def judge(problem: Problem, repetitions: int) -> dict[str, Any]:
    """How often a best pair was among the winners, how often no loser was, and whether that will do."""
    found = [winners(problem, repetition) for repetition in range(repetitions)]
    if not problem.losers:
        false_winners = sum(len(problem.best & names) < len(problem.best) for names in found)
        counts, met = {"false_winners": false_winners}, false_winners <= 0.05 * repetitions
    else:
        hits = sum(bool(problem.best & names) for names in found)
        rid = sum(not problem.losers & names for names in found)
        counts = {"winner_found": hits, "loser_out": rid}
        met = hits >= 0.95 * repetitions and rid >= 0.90 * repetitions
    return {"claim": problem.claim, "repetitions": repetitions, **counts, "met": met}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, metavar="N")
    repetitions = parser.parse_args().repetitions
    results = {}
    with twin():
        for name, problem in PROBLEMS.items():
            results[name] = judge(problem, repetitions)
            print(name, results[name])
    if repetitions == REPETITIONS:  # fewer are a look, not a measurement
        text = json.dumps({"problems": results, "versions": versions()}, indent=2)
        RESULTS.write_text(text + "\n", encoding="utf-8")
    sys.exit(not all(result["met"] for result in results.values()))


if __name__ == "__main__":
    main()
