"""torchrun, as a person starts it, and what a training has left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

import steepest

HERE = Path(__file__).parent
SOURCE = Path(steepest.__file__).parents[1]


def environment() -> dict[str, str]:
    paths = [str(SOURCE), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": "1",
    }


def start(ranks: int, *arguments: str) -> subprocess.Popen[str]:
    """torchrun with so many ranks."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return subprocess.Popen(
        [*torchrun, *arguments],
        cwd=HERE,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fit_arguments(**options: Any) -> list[str]:
    """`-m steepest fit` with these options."""
    words = ["-m", "steepest", "fit"]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return words


def kill(process: subprocess.Popen[str]) -> None:
    """All of it at once: the ranks, which are in groups of their own, and what started them."""
    ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    for pid in (process.pid, *map(int, ranks.stdout.split())):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def run_jobs(ranks: int, jobs: Sequence[dict[str, Any]], place: Path) -> None:
    """Trainings one after another on so many ranks."""
    file = place / f"jobs-{ranks}.json"
    file.write_text(json.dumps(list(jobs)), encoding="utf-8")
    process = start(ranks, str(HERE / "worker.py"), str(file))
    _, errors = process.communicate(timeout=1500)
    assert process.returncode == 0, errors


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model" / "model.safetensors")


def record(out: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((out / "record.json").read_text(encoding="utf-8"))
    return read


def gap(a: Path, b: Path) -> float:
    """The largest difference between two trained models' weights."""
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)
