"""Is the verdict right where the truth is known? Planted ties and planted winners, many times over.

    python benchmarks/planted_truth.py --repetitions 200 --json benchmarks/results/planted_truth.json

Every repetition is a whole comparison (tuning, confirmation on fresh seeds, the test rows once) on a table of its own:

* twins: one loss under two names; and one cell against itself on other seeds, where no pairing makes the scores equal.
  They should be told apart at most 5% of the time.
* outliers: 5% of the targets are off by 20 standard deviations, judged by MAE. MAE or Huber belong in the winner
  set (at least 95%), MSE does not (out at least 90%).
* ravine: two columns nearly equal, their difference what counts; full batches. Momentum belongs in the winner set
  (95%), plain descent at the same number of steps does not (out 90%).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import steepest
from steepest.comparison.ranking import EQUIVALENCE
from steepest.comparison.statistics import difference_intervals
from steepest.losses import LOSSES, from_formula

ROWS = 300
SEEDS = 10  # of a confirmation


def table(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({**{f"x{i}": column for i, column in enumerate(x.T)}, "y": y})


def plain(rng: np.random.Generator) -> pl.DataFrame:
    x = rng.normal(size=(ROWS, 4))
    return table(rng, x, x @ rng.normal(size=4) + rng.normal(size=ROWS))


def outliers(rng: np.random.Generator) -> pl.DataFrame:
    x = rng.normal(size=(ROWS, 4))
    y = x @ rng.normal(size=4) + rng.normal(size=ROWS)
    hit = rng.choice(ROWS, ROWS // 20, replace=False)
    y[hit] += 20.0 * y.std()
    return table(rng, x, y)


def ravine(rng: np.random.Generator) -> pl.DataFrame:
    first = rng.normal(size=ROWS)
    second = first + 0.05 * rng.normal(size=ROWS)
    y = 20.0 * (second - first) + 0.1 * rng.normal(size=ROWS)
    return table(rng, np.stack([first, second], axis=1), y)


def winners(data: pl.DataFrame, **options: Any) -> list[dict[str, Any]]:
    found = steepest.compare(data, "y", task="regression", hidden=(), **options)
    return found.verdict["winners"]


def twins(rng: np.random.Generator) -> dict[str, bool]:
    losses = {
        one["loss"]
        for one in winners(plain(rng), losses=["mse", "mse_twin"], optimizers=["adam"], max_epochs=15)
    }
    return {"one loss under two names is told apart": len(losses) < 2}


def itself(rng: np.random.Generator) -> dict[str, bool]:
    """Twice as many fresh seeds, and one half against the other as two contestants."""
    found = steepest.compare(
        plain(rng),
        "y",
        task="regression",
        hidden=(8,),
        losses=["mse"],
        optimizers=["adam"],
        max_epochs=15,
        seeds=2 * SEEDS,
    )
    cell = next(cell for cell in found.verdict["cells"] if cell["kind"] == "tuned")
    fresh = found.plan.confirmation_seeds
    scores = (
        found.runs.filter((pl.col("lr") == cell["lr"]) & pl.col("seed").is_in(list(fresh)))
        .unique("seed")
        .sort("seed")["test_rmse"]
        .to_numpy()
    )
    halves = sorted((scores[:SEEDS], scores[SEEDS : 2 * SEEDS]), key=lambda half: float(half.mean()))
    differences = np.stack([half - halves[0] for half in halves])
    low = difference_intervals(differences, np.random.default_rng(0))[1, 0]
    return {"one cell on other seeds is told apart": bool(low > EQUIVALENCE * halves[0].mean())}


def robust(rng: np.random.Generator) -> dict[str, bool]:
    found = {
        one["loss"]
        for one in winners(
            outliers(rng), losses=["mse", "mae", "huber"], optimizers=["adam"], metric="mae", max_epochs=30
        )
    }
    return {
        "MAE or Huber is in the winner set": bool(found & {"mae", "huber"}),
        "MSE is out of it": "mse" not in found,
    }


def momentum(rng: np.random.Generator) -> dict[str, bool]:
    found = {
        one["optimizer"]
        for one in winners(
            ravine(rng), losses=["mse"], optimizers=["sgd", "momentum"], batch_sizes=["full"], max_epochs=60
        )
    }
    return {
        "momentum is in the winner set": "momentum" in found,
        "plain descent is out of it": "sgd" not in found,
    }


# What is counted, and how often it may or must come true.
BARS = {
    "one loss under two names is told apart": ("at most", 0.05),
    "one cell on other seeds is told apart": ("at most", 0.05),
    "MAE or Huber is in the winner set": ("at least", 0.95),
    "MSE is out of it": ("at least", 0.90),
    "momentum is in the winner set": ("at least", 0.95),
    "plain descent is out of it": ("at least", 0.90),
}
SCENES: dict[str, Callable[[np.random.Generator], dict[str, bool]]] = {
    "twins": twins, "itself": itself, "outliers": robust, "ravine": momentum,
}  # fmt: skip


def interval(count: int, total: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share."""
    z, share = 1.959964, count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def rows(repetitions: int) -> Iterator[dict[str, Any]]:
    for name, scene in SCENES.items():
        found = []
        for repetition in range(repetitions):
            found.append(scene(np.random.default_rng([repetition, len(name)])))
            print(f"\r{name}: {repetition + 1} of {repetitions}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        for what in found[0]:
            count = sum(one[what] for one in found)
            kind, bar = BARS[what]
            share = count / repetitions
            yield {
                "scene": name, "what": what, "count": count, "repetitions": repetitions, "share": share,
                "interval": interval(count, repetitions), "bar": f"{kind} {bar:.0%}",
                "reached": share <= bar if kind == "at most" else share >= bar,
            }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if "mse_twin" not in LOSSES:
        formula = LOSSES["mse"].formula
        from_formula(formula.value, formula.gradient, name="mse_twin")
    found = list(rows(given.repetitions))
    for row in found:
        low, high = row["interval"]
        print(
            f"{row['scene']:9} {row['what']:40} {row['share']:6.1%} (95% interval {low:.1%} to {high:.1%}), "
            f"{row['bar']}: {'reached' if row['reached'] else 'MISSED'}"
        )
    if given.json:
        given.json.write_text(
            json.dumps({"version": steepest.__version__, "rows": found}, indent=2) + "\n", encoding="utf-8"
        )
    sys.exit(0 if all(row["reached"] for row in found) else 1)


if __name__ == "__main__":
    main()
