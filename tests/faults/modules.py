"""Faults in a user's own module and data set, and in the processes that load its batches."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from tests.faults.cases import DONE, Fault
from tests.faults.place import STOPPED, Place
from torch import nn
from torch.utils.data import DataLoader, Dataset

import steepest
from steepest.comparison.progress import Silent
from steepest.errors import InputError

X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
Y = X.sum(1)
OPTIONS: dict[str, Any] = {"losses": ["mse"], "optimizers": ["sgd"], "max_epochs": 1, "together": False}


class Fragile(Dataset[Any]):
    """Items like any others, until a file says that it is time for the fault."""

    def __init__(self, sign: Path, kind: str) -> None:
        self.sign, self.kind = sign, kind
        self.read_after = 0

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        if self.sign.exists():
            self.read_after += 1
            if self.kind == "raises":
                raise OSError("the disk with the pictures is gone")
            if self.kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "stopped" and self.read_after == 1:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
        return X[index], Y[index]


class Gives(Silent):
    """The sign, once so many runs have ended."""

    def __init__(self, sign: Path, after: int) -> None:
        self.sign, self.left = sign, after

    def run_finished(self, record: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.sign.touch()


def net() -> nn.Module:
    return nn.Linear(2, 1)


def break_and_go_on(place: Place, kind: str, workers: int = 0) -> steepest.Comparison | None:
    """A comparison that meets the fault after 10 runs; then one that goes on without it, and one that never met it."""
    sign, out = place.root / "sign", place.root / "modules"
    fragile = Fragile(sign, kind)

    def parts(workers: int) -> Any:
        return DataLoader(fragile, 4, num_workers=workers), (X[24:32], Y[24:32]), (X[32:], Y[32:])

    found, place.code = None, DONE
    try:
        found = steepest.compare(model=net, data=parts(workers), out=out, progress=Gives(sign, 10), **OPTIONS)
        place.code = STOPPED if found.interrupted else DONE
    except InputError as error:
        place.code, place.err = 2, f"{error}\n"
    sign.unlink()
    again = steepest.compare(model=net, data=parts(0), resume=out)
    whole = steepest.compare(model=net, data=parts(0), **OPTIONS)
    assert again.runs.drop("seconds", "curve_seconds").equals(whole.runs.drop("seconds", "curve_seconds"))
    return found


def data_set_that_fails(place: Place) -> None:
    break_and_go_on(place, "raises")


def worker_that_fails(place: Place) -> None:
    break_and_go_on(place, "raises", workers=1)


def worker_killed(place: Place) -> None:
    break_and_go_on(place, "killed", workers=1)


def stopped_in_an_epoch(place: Place) -> None:
    found = break_and_go_on(place, "stopped")
    assert found is not None
    (begun,) = found.runs.filter(found.runs["stop_reason"] == "interrupted")["num_examples"]
    assert begun == 4, "the epoch was not left at the next batch"


def module_that_gives_nan(place: Place) -> None:
    def sometimes() -> nn.Module:
        module = net()
        if module.weight[0, 0] > 0:  # type: ignore[index,operator]  # by the run's seed
            nn.init.constant_(module.bias, float("nan"))  # type: ignore[arg-type]
        return module

    parts = (X[:24], Y[:24]), (X[24:32], Y[24:32]), (X[32:], Y[32:])
    found = steepest.compare(model=sometimes, data=parts, **OPTIONS)
    place.code = DONE
    assert found.verdict["status"] == "complete"
    assert 0 < found.verdict["num_diverged"] < found.verdict["num_runs"]


GOES_ON = "It is named with its item; every run that ended is kept, and `resume` goes on to the same bytes."

MODULE_FAULTS = [
    Fault(
        "a user's data set fails on an item",
        data_set_that_fails,
        "OSError: the disk with the pictures is gone",
        "seen to",
        GOES_ON,
    ),
    Fault(
        "it fails in a worker process of a DataLoader",
        worker_that_fails,
        "The train data set failed on item",
        "seen to",
        GOES_ON,
    ),
    Fault(
        "a worker process is killed, as for memory",
        worker_killed,
        "The train data's loader failed: RuntimeError: DataLoader worker",
        "seen to",
        "Every run that ended is kept; `resume` goes on to the same bytes.",
    ),
    Fault(
        "SIGTERM in the middle of an epoch of a module",
        stopped_in_an_epoch,
        "",
        "seen to",
        "The epoch is left at its next batch; `resume` goes on to the same bytes.",
        STOPPED,
    ),
    Fault(
        "a user's module gives NaN",
        module_that_gives_nan,
        "",
        "seen to",
        "The run has diverged, and its pair may not win; the others are compared.",
        DONE,
    ),
]
