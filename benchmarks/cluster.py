"""What a Ray cluster costs: a whole comparison on one node of it, beside the same without one, at equal cores.

    python benchmarks/cluster.py [--rounds 3]

The two go in turns, each in a process of its own, timed from start to end: reading, planning, starting workers and
writing included. The cluster is there before, as it would be. The figures go to ``benchmarks/results/cluster.json``;
exit code 1 if the verdicts differ or the bar is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from steepest.comparison.engine import count_threads
from steepest.comparison.versions import versions

RESULTS = Path(__file__).parent / "results" / "cluster.json"
BAR = 0.15
ROUNDS = 3


def table(path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 8))
    y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * rng.normal(size=4000)
    pl.DataFrame({f"x{i}": x[:, i] for i in range(8)} | {"y": y}).write_csv(path)


def compared(rows: Path, out: Path, epochs: int, *more: str) -> tuple[float, dict[str, Any]]:
    """Seconds, and the verdict."""
    options = [
        "--losses",
        "mse,mae,huber",
        "--optimizers",
        "sgd,momentum,adam",
        "--hidden",
        "32,32",
        "--quiet",
    ]
    command = [sys.executable, "-m", "steepest", "compare", str(rows), "--target", "y", "--out", str(out)]
    started = time.perf_counter()
    subprocess.run(
        [*command, *options, "--epochs", str(epochs), *more], check=True, stdout=subprocess.DEVNULL
    )
    seconds = time.perf_counter() - started
    verdict: dict[str, Any] = json.loads((out / "verdict.json").read_text())
    del verdict["seconds"]
    return seconds, verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N")
    parser.add_argument("--epochs", type=int, default=500, metavar="N")
    given = parser.parse_args()
    from ray.cluster_utils import Cluster

    cores = count_threads(None)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores, "include_dashboard": False})
    times: dict[str, list[float]] = {"here": [], "cluster": []}
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        table(place / "rows.csv")
        for number in range(given.rounds):
            for name, more in (("here", []), ("cluster", ["--ray", cluster.address])):
                seconds, verdict = compared(
                    place / "rows.csv", place / f"{name}{number}", given.epochs, *more
                )
                times[name].append(round(seconds, 2))
                verdicts.append(verdict)
                print(f"{name}: {seconds:.1f} s", flush=True)
    cluster.shutdown()
    here, there = (statistics.median(times[name]) for name in ("here", "cluster"))
    result = {
        "claim": "A comparison on a cluster takes at most 15% longer than without one, at equal cores.",
        "cores": cores,
        "num_runs": verdicts[0]["num_runs"],
        "rounds": given.rounds,
        "seconds": times,
        "medians": {"here": here, "cluster": there},
        "overhead": round(there / here - 1, 3),
        "same_verdicts": all(verdict == verdicts[0] for verdict in verdicts),
        "met": there <= (1 + BAR) * here,
        "versions": versions(),
    }
    print(json.dumps(result, indent=2))
    if given.rounds >= ROUNDS:  # fewer are a look, not a measurement
        RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(not (result["met"] and result["same_verdicts"]))


if __name__ == "__main__":
    main()
