"""The command that trains a comparison's winner again, on its rows or on others."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["fit_command"]


def fit_command(verdict: Mapping[str, Any], data: str, out: str) -> str:
    """``steepest fit`` with the first winner's settings, the network, and the length and schedule of the model."""
    winner, network = verdict["winners"][0], verdict["architecture"]
    model = verdict.get("model") or {}  # without one, what was handed over is one of the comparison's runs
    epochs = model.get("epochs", verdict["epochs"])
    schedule = model.get("schedule") or winner.get("schedule", "constant")
    words = ["steepest", "fit", data, "--target", str(verdict["target"]), "--task", str(verdict["task"])]
    words += ["--loss", str(winner["loss"])]
    words += ["--optimizer", str(winner["optimizer"]), "--lr", repr(winner["lr"])]
    for option in ("loss_options", "optimizer_options"):
        if given := winner.get(option):
            words += [
                f"--{option.replace('_', '-')}",
                ",".join(f"{name}={value}" for name, value in given.items()),
            ]
    words += ["--batch-size", str(winner["batch_size"]), "--epochs", str(epochs)]
    if schedule != "constant":
        words += ["--schedule", str(schedule)]
    if verdict.get("warmup"):
        words += ["--warmup", repr(verdict["warmup"])]
    words += ["--hidden", ",".join(map(str, network["hidden"])) or "none"]
    words += ["--activation", str(network["activation"])]
    # What was handed over was trained on validation rows too; else they choose the epoch, by the metric asked for.
    words += ["--validation", "0"] if model else ["--metric", str(verdict["metric"])]
    if verdict.get("ignore"):
        words += ["--ignore", _as_cells(verdict["ignore"])]
    for option in ("group", "time"):
        words += [f"--{option}", str(verdict[option])] if verdict.get(option) else []
    return shlex.join([*words, "--out", out])


def _as_cells(names: Sequence[str]) -> str:
    """Names with commas between them, as the option takes them: those with a comma or a quote in quotes."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()
