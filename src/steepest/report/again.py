"""The command that trains a comparison's winner again, on its rows or on others."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from steepest.training.run import OWN

__all__ = ["fit_command", "fit_module_command", "trial_code"]

_USERS_FILE = "FILE.py"  # stands for the one that makes a loss or an optimizer of the user's own


def fit_command(verdict: Mapping[str, Any], data: str, out: str) -> str:
    """``steepest fit`` with the first winner's settings, the network, and the length and schedule of the model."""
    network, model = verdict["architecture"], verdict.get("model") or {}
    words = ["steepest", "fit", data, "--target", str(verdict["target"]), *_settings(verdict)]
    words += ["--hidden", ",".join(map(str, network["hidden"])) or "none"]
    words += ["--activation", str(network["activation"])]
    # What was handed over was trained on validation rows too; else they choose the epoch, by the metric asked for.
    words += ["--validation", "0"] if model else ["--metric", str(verdict["metric"])]
    if verdict.get("ignore"):
        words += ["--ignore", _as_cells(verdict["ignore"])]
    for option in ("group", "time"):
        words += [f"--{option}", str(verdict[option])] if verdict.get(option) else []
    return shlex.join([*words, "--out", out])


def fit_module_command(verdict: Mapping[str, Any], model: str, data: str, out: str) -> str:
    """The same of a module of the user's own, by the names of its factory and its data."""
    words = ["steepest", "fit", "--model", model, "--data", data, *_settings(verdict)]
    return shlex.join([*words, "--out", out])


def trial_code(verdict: Mapping[str, Any]) -> str:
    """Lines that call a training function of the user's own with the first winner's settings."""
    from steepest.optim import OPTIMIZERS  # a report of a table needs no torch

    winner, training = verdict["winners"][0], verdict["architecture"]["training"]
    training = "train" if training == "<lambda>" else training
    named = {"lr": winner["lr"]}
    if winner["batch_size"] != OWN:
        named["batch_size"] = winner["batch_size"]
    named["epochs"] = verdict["epochs"]
    options = {
        "loss_options": winner.get("loss_options"),
        "optimizer_options": OPTIMIZERS[winner["optimizer"]].arguments(winner.get("optimizer_options") or {}),
        "schedule": None if winner["schedule"] == "constant" else winner["schedule"],
        "warmup": verdict.get("warmup"),
    }
    named |= {name: value for name, value in options.items() if value}
    loss = None if winner["loss"] == OWN else winner["loss"]
    given = ", ".join(
        [repr(loss), repr(winner["optimizer"]), *(f"{name}={value!r}" for name, value in named.items())]
    )
    return f"import steepest\n\n{training}(steepest.TrainingTrial({given}))"


def _settings(verdict: Mapping[str, Any]) -> list[str]:
    """What a table's training and a module's are told alike."""
    winner = verdict["winners"][0]
    model = verdict.get("model") or {}  # without one, what was handed over is one of the comparison's runs
    words = ["--task", str(verdict["task"]), "--loss", str(winner["loss"])]
    words += ["--optimizer", str(winner["optimizer"]), "--lr", repr(winner["lr"])]
    if {winner["loss"], winner["optimizer"]} & set(verdict.get("users_own") or ()):
        words += ["--import", _USERS_FILE]
    for option in ("loss_options", "optimizer_options"):
        if given := winner.get(option):
            words += [
                f"--{option.replace('_', '-')}",
                ",".join(f"{name}={value}" for name, value in given.items()),
            ]
    words += ["--batch-size", str(winner["batch_size"])]
    words += ["--epochs", str(model.get("epochs", verdict["epochs"]))]
    schedule = model.get("schedule") or winner.get("schedule", "constant")
    if schedule != "constant":
        words += ["--schedule", str(schedule)]
    if verdict.get("warmup"):
        words += ["--warmup", repr(verdict["warmup"])]
    return words


def _as_cells(names: Sequence[str]) -> str:
    """Names with commas between them, as the option takes them: those with a comma or a quote in quotes."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()
