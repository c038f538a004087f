"""Training on data larger than memory: how much memory it takes, how fast it is, and what it costs in quality.

    python benchmarks/out_of_core.py [--memory 1GB] [--times 4] [--directory DIR] [--only PART,...]

A Parquet set of random float32 numbers is made, `--times` the limit as raw numbers (4 bytes a number; not as files,
which may be compressed). Then, each in a process of its own:

* memory: `steepest.fit` on the whole set, a linear model and an MLP, in a control group that has no more memory than
  the limit (where this process may make one), with its peak measured;
* streamed, in_memory: rows a second in training, streamed (in such a group) and by the engine on the same rows in
  memory; the first pass, reading and encoding, is reported apart;
* quality: a set that does fit, in memory and streamed through windows of a twentieth of it, several seeds, judged on
  rows that neither has seen;
* shuffle: on a sorted file, how the order of an epoch goes with the order in the file.

The figures go to ``benchmarks/results/out_of_core.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "out_of_core.json"
NUM_FEATURES = 20
ROWS_A_FILE = 1_000_000
MODELS: dict[str, dict[str, Any]] = {
    "linear": {"hidden": (), "lr": 1e-3, "max_epochs": 3},
    "mlp": {"hidden": (64, 64), "lr": 1e-3, "max_epochs": 1},
}
SEEDS = range(6)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--times", type=float, default=4.0)
    parser.add_argument(
        "--directory", type=Path, help="where the set is made, and kept (default: a temporary one)"
    )
    parser.add_argument("--only", default=",".join(CHILDREN))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child](options.directory, options.memory)))
        return
    parts = options.only.split(",")
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    from steepest.comparison.versions import versions

    found["date"], found["versions"] = time.strftime("%Y-%m-%d"), versions()
    found["machine"] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    from steepest.data.memory import limit_bytes

    limit = limit_bytes(options.memory)
    with _set(options.directory, limit * options.times, needed=bool(ON_THE_SET & set(parts))) as directory:
        if directory is not None:
            found["set"] = _about(directory, limit)
        for part in parts:
            under = limit if part in ("memory", "streamed") else None
            found[part] = _run(part, directory if part in ON_THE_SET else None, options.memory, under)
        if {"streamed", "in_memory"} <= found.keys():
            found["ratio"] = {
                model: found["streamed"][model]["rows_a_sec"] / found["in_memory"][model]["rows_a_sec"]
                for model in MODELS
            }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


# --- the set -------------------------------------------------------------------------------------------------------


@contextmanager
def _set(directory: Path | None, num_bytes: float, *, needed: bool) -> Iterator[Path | None]:
    """The Parquet set, made where it is not there yet."""
    if not needed:
        yield None
        return
    kept = directory is not None
    place = directory or Path(
        tempfile.mkdtemp(
            prefix="steepest-out-of-core-", dir="/var/tmp" if Path("/var/tmp").is_dir() else None
        )
    )
    place.mkdir(parents=True, exist_ok=True)
    try:
        rows = int(num_bytes / (4 * (NUM_FEATURES + 1))) + 1
        for number, first in enumerate(range(0, rows, ROWS_A_FILE)):
            path = place / f"part-{number:04d}.parquet"
            if not path.exists():
                _rows(
                    np.random.default_rng(number), min(ROWS_A_FILE, rows - first), NUM_FEATURES
                ).write_parquet(path, compression="lz4")
        yield place
    finally:
        if not kept:
            shutil.rmtree(place)


def _rows(rng: np.random.Generator, num_rows: int, num_features: int) -> Any:
    import polars as pl

    x = rng.standard_normal((num_rows, num_features), dtype=np.float32)
    y = (
        x[:, :10].sum(axis=1)
        + 2 * np.sin(x[:, 10] * 2)
        + x[:, 11] * x[:, 12]
        + rng.standard_normal(num_rows, dtype=np.float32)
    )
    return pl.DataFrame({**{f"x{i}": x[:, i] for i in range(num_features)}, "y": y})


def _about(directory: Path, limit: int) -> dict[str, Any]:
    import polars as pl

    rows = pl.scan_parquet(directory / "*.parquet").select(pl.len()).collect().item()
    raw = rows * (NUM_FEATURES + 1) * 4
    files = sum(path.stat().st_size for path in directory.iterdir())
    return {
        "rows": rows, "columns": NUM_FEATURES + 1, "raw_bytes": raw, "times_the_limit": raw / limit,
        "parquet_bytes": files, "files": len(list(directory.iterdir())), "limit_bytes": limit,
    }  # fmt: skip


# --- processes and their memory ---------------------------------------------------------------------------------------


def _run(name: str, directory: Path | None, memory: str, limit: int | None) -> dict[str, Any]:
    """A child's figures, and the peak of its memory; ``limit``: of its control group."""
    arguments = [sys.executable, __file__, "--child", name, "--memory", memory]
    if directory is not None:
        arguments += ["--directory", str(directory)]
    group = None if limit is None else _group(limit)
    try:
        enter = None if group is None else lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
        done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=enter)
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if group is not None:
            figures["group"] = _group_figures(group)
    finally:
        if group is not None:
            group.rmdir()
    return figures


def _group(limit: int) -> Path | None:
    """A control group with a limit of memory (version 1 or 2), or None where none can be made."""
    root = Path("/sys/fs/cgroup")
    first = (root / "memory").is_dir()
    group = (root / "memory" if first else root) / f"steepest-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(limit))
    except OSError as error:
        print(f"no control group ({error}): the limit is not enforced, only measured", file=sys.stderr)
        if group.is_dir():
            group.rmdir()
        return None
    return group


def _group_figures(group: Path) -> dict[str, int]:
    """What the group saw; its peak counts what only caches files, which gives way at the limit."""
    names = {
        "limit": ("memory.limit_in_bytes", "memory.max"),
        "peak_with_cached_files": ("memory.max_usage_in_bytes", "memory.peak"),
    }
    found = {}
    for name, files in names.items():
        for file in files:
            if (group / file).exists():
                found[name] = int((group / file).read_text())
    return found


def _peak() -> int:
    """The most this process had in memory, files that are mapped (libraries) included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


# --- what is measured ------------------------------------------------------------------------------------------------


def memory(directory: Path, limit: str) -> dict[str, Any]:
    """`steepest.fit` from the files to the model."""
    import steepest

    figures: dict[str, Any] = {}
    for name, options in MODELS.items():
        said: dict[str, list[float]] = {}
        started = time.perf_counter()

        def told(what: str, share: float, said: dict[str, list[float]] = said) -> None:
            said.setdefault(what, [time.perf_counter(), 0.0])[1] = time.perf_counter()

        model = steepest.fit(directory, "y", memory=limit, progress=told, **{**options, "max_epochs": 1})
        figures[name] = {
            "rmse": model.record.validation_score, "seconds": time.perf_counter() - started,
            "training_seconds": model.record.seconds, "peak_bytes": _peak(),
            "phases": {what: last - first for what, (first, last) in said.items()},
        }  # fmt: skip
    return figures


def _train(engine: Any) -> dict[str, Any]:
    from steepest.training.run import Architecture, Run, Stop

    figures: dict[str, Any] = {}
    for name, options in MODELS.items():
        run = Run(
            "mse", "adam", options["lr"], 32, 0, Architecture(options["hidden"]), Stop(options["max_epochs"])
        )
        warm = Run("mse", "adam", options["lr"], 32, 0, run.architecture, Stop(max_steps=100, max_epochs=1))
        engine.run_all([warm])
        record = engine.run_all([run])[0]
        figures[name] = {
            "rows_a_sec": record.num_examples / record.seconds, "seconds": record.seconds,
            "rmse": record.validation_score, "epochs": record.num_epochs,
        }  # fmt: skip
    figures["peak_bytes"] = _peak()
    return figures


@contextmanager
def _streamed(directory: Path, limit: str) -> Iterator[Any]:
    from steepest.data.source import large_files, open_batches
    from steepest.data.streamed import prepare_streamed

    found = large_files(directory, limit)
    assert found is not None, "the set fits under the limit"
    paths, num_bytes = found
    with open_batches(paths) as batches, prepare_streamed(batches, "y", memory=num_bytes) as streamed:
        yield streamed


def drawn(directory: Path, limit: str) -> dict[str, Any]:
    """200,000 rows at random, as a comparison of data of any size takes them."""
    from steepest.data.draw import draw

    started = time.perf_counter()
    table = draw(directory, "y", 200_000, 0)
    return {"rows": table.num_rows, "seconds": time.perf_counter() - started, "peak_bytes": _peak()}


def predicted(directory: Path, limit: str) -> dict[str, Any]:
    """Predictions for all rows, which are gone through a piece at a time as under a limit of memory."""
    import steepest
    from steepest.data import source

    few = _rows(np.random.default_rng(10**6), 10_000, NUM_FEATURES)
    model = steepest.fit(few, "y", lr=1e-3, max_epochs=1, hidden=(16,))
    source.bytes_in_memory = lambda *_: float("inf")
    started = time.perf_counter()
    predictions = model.predict(directory)
    return {"rows": len(predictions), "seconds": time.perf_counter() - started, "peak_bytes": _peak()}


def streamed(directory: Path, limit: str) -> dict[str, Any]:
    """Training from disk."""
    from steepest.training.streamed import StreamedEngine

    started = time.perf_counter()
    with _streamed(directory, limit) as rows:
        first_pass = time.perf_counter() - started
        return {
            "first_pass_seconds": first_pass,
            "first_pass_rows_a_sec": sum(rows.num_rows.values()) / first_pass,
            **_train(StreamedEngine(rows.rows, "rmse")),
        }


def in_memory(directory: Path, limit: str) -> dict[str, Any]:
    """Training by the engine in memory, on the same rows, every fifth of them for validation."""
    import polars as pl

    from steepest.training.native import NativeEngine
    from steepest.training.run import TrainingData

    paths = sorted(directory.iterdir())
    heights = [pl.scan_parquet(path).select(pl.len()).collect().item() for path in paths]
    features, targets = np.empty((sum(heights), NUM_FEATURES), np.float32), np.empty(sum(heights), np.float32)
    at = 0
    for path, height in zip(paths, heights, strict=True):
        table = pl.read_parquet(path)
        targets[at : at + height] = table["y"].to_numpy()
        for place in range(NUM_FEATURES):
            features[at : at + height, place] = table[f"x{place}"].to_numpy()
        at += height
    mean, scale = float(targets.mean(dtype=np.float64)), float(targets.std(dtype=np.float64))
    targets -= np.float32(mean)
    targets /= np.float32(scale)
    cut = len(targets) * 4 // 5
    data = TrainingData(
        "regression", 1, features[:cut], targets[:cut], features[cut:], targets[cut:], scale, mean
    )
    return _train(NativeEngine(data, "rmse"))


def quality(directory: Path | None, limit: str) -> dict[str, Any]:
    """In memory and streamed, seed by seed, on rows held out from both."""
    from steepest.comparison.model import fitted_model
    from steepest.data import prepare
    from steepest.data.batches import Batches
    from steepest.data.streamed import prepare_streamed
    from steepest.training.native import NativeEngine
    from steepest.training.run import Architecture, Run, Stop
    from steepest.training.streamed import StreamedEngine
    from steepest.training.windows import Layout

    test = _rows(np.random.default_rng(10**6), 50_000, 20)
    figures: dict[str, Any] = {"rows": 200_000, "seeds": len(SEEDS), "windows": 20}
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "rows.parquet"
        table = _rows(np.random.default_rng(10**6 + 1), 200_000, 20).sort(
            "y"
        )  # the worst order a file can have
        table.write_parquet(path)
        for name, hidden in (("linear", ()), ("mlp", (64, 64))):
            scores: dict[str, list[float]] = {"in_memory": [], "streamed": []}
            for seed in SEEDS:
                run = Run("mse", "adam", 1e-3, 32, seed, Architecture(hidden), Stop(8))
                held = prepare(table, "y", seed=seed, test=0.0)
                ways: dict[str, tuple[Any, Any]] = {
                    "in_memory": (held, NativeEngine(held.training_data(), "rmse"))
                }
                layout = Layout.of(160_000, 20, window_bytes=8000 * 21 * 4)
                with prepare_streamed(Batches([path]), "y", seed=seed, layout=layout) as on_disk:
                    ways["streamed"] = (on_disk, StreamedEngine(on_disk.rows, "rmse"))
                    for way, (prepared, engine) in ways.items():
                        model = fitted_model(prepared, engine.run_all([run])[0], "rmse")
                        errors = model.predict(test) - test["y"].to_numpy()
                        scores[way].append(float(np.sqrt(np.mean(errors**2))))
            difference = np.subtract(scores["streamed"], scores["in_memory"])
            figures[name] = {
                way: {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "scores": values}
                for way, values in scores.items()
            } | {
                "difference": {
                    "mean": float(difference.mean()),
                    "standard_error": float(difference.std(ddof=1) / np.sqrt(len(difference))),
                }
            }
    return figures


def shuffle(directory: Path | None, limit: str) -> dict[str, Any]:
    """The order of epochs on a sorted file: correlations, and how far rows travel."""
    from steepest.training.mixing import epoch_order, measure_order
    from steepest.training.windows import Layout

    rows = 1_000_000
    layout = Layout.of(rows, 20, window_bytes=rows // 20 * 21 * 4)
    first, second = (epoch_order(rows, layout, seed=0, epoch=epoch) for epoch in (0, 1))
    return {
        "rows": rows,
        "windows": 20,
        "first": measure_order(first),
        "second_after_first": measure_order(np.argsort(first)[second]),
    }


CHILDREN: dict[str, Callable[..., dict[str, Any]]] = {
    "memory": memory, "drawn": drawn, "predicted": predicted, "streamed": streamed, "in_memory": in_memory,
    "quality": quality, "shuffle": shuffle,
}  # fmt: skip

ON_THE_SET = frozenset({"memory", "drawn", "predicted", "streamed", "in_memory"})

if __name__ == "__main__":
    main()
