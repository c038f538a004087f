"""What a comparison of 20,000 runs takes: memory while it goes, the report's size, and a query over its runs.

    python benchmarks/many_runs.py

Two comparisons on one small table, of about 2,000 and 20,000 runs (the same pairs, more seeds), each in a process of
its own whose resident memory is looked at ten times a second. Figures go to ``benchmarks/results/many_runs.json``; exit
code 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from steepest.comparison.versions import versions

RESULTS = Path(__file__).parent / "results" / "many_runs.json"
SEEDS = {"2,000 runs": 3, "20,000 runs": 51}
MOST_REPORT_MB = 5.0
MOST_KB_A_RUN = 4.0
_PROGRAM = """
import sys, steepest
from pathlib import Path
here, seeds = Path(sys.argv[1]), int(sys.argv[2])
comparison = steepest.compare(
    here / "rows.csv", "y", out=here / "out", seeds=seeds, hidden=(16,), max_epochs=20, splits=1,
    losses=["mse", "mae", "huber", "log_cosh", "cauchy"], optimizers=["sgd", "momentum", "rmsprop", "adam"],
)
"""


def resident_mb(pid: int) -> float:
    """Of a process, in pages that are its own or a file's."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next(
        (int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0.0
    )


def watched(place: Path, seeds: int) -> dict[str, Any]:
    """A comparison in a process of its own, and what it took."""
    started = time.perf_counter()
    samples: list[float] = []
    with subprocess.Popen([sys.executable, "-c", _PROGRAM, str(place), str(seeds)]) as child:
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.1):
                samples.append(resident_mb(child.pid))

        watcher = threading.Thread(target=look)
        watcher.start()
        code = child.wait()
        over.set()
        watcher.join()
    assert code == 0
    out = place / "out"
    asked = time.perf_counter()
    best = (
        pl.scan_parquet(out / "runs.parquet")
        .filter(~pl.col("diverged"))
        .group_by("loss", "optimizer", "lr")
        .agg(pl.col("validation_score").mean(), pl.len().alias("runs"))
        .sort("validation_score")
        .head(3)
        .collect()
    )
    query_sec = time.perf_counter() - asked
    print(best)
    every = max(1, len(samples) // 20)
    return {
        "num_runs": pl.scan_parquet(out / "runs.parquet").select(pl.len()).collect().item(),
        "seconds": round(asked - started, 1),
        "peak_mb": round(max(samples), 1),
        "resident_mb": [round(sample) for sample in samples[::every]],
        "report_mb": round((out / "report.html").stat().st_size / 1e6, 2),
        "runs_parquet_mb": round((out / "runs.parquet").stat().st_size / 1e6, 2),
        "query_sec": round(query_sec, 3),
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4))
    y = x @ [1.0, -2.0, 0.5, 0.0] + 0.1 * rng.normal(size=400)
    found = {}
    for name, seeds in SEEDS.items():
        with tempfile.TemporaryDirectory() as folder:
            pl.DataFrame({f"x{i}": x[:, i] for i in range(4)} | {"y": y}).write_csv(f"{folder}/rows.csv")
            found[name] = watched(Path(folder), seeds)
        print(name, found[name], flush=True)
    few, many = found.values()
    kb_a_run = 1024 * (many["peak_mb"] - few["peak_mb"]) / (many["num_runs"] - few["num_runs"])
    result = {
        "claim": f"Ten times the runs take at most {MOST_KB_A_RUN:g} KB more memory each, and the report stays below "
        f"{MOST_REPORT_MB:g} MB.",
        **found,
        "kb_a_run": round(kb_a_run, 2),
        "met": kb_a_run <= MOST_KB_A_RUN and many["report_mb"] < MOST_REPORT_MB,
        "versions": versions(),
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["kb_a_run"]), result["met"])
    sys.exit(not result["met"])


if __name__ == "__main__":
    main()
