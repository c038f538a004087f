"""A comparison goes on after any end, to the same bytes as one that was left alone."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import steepest
from steepest.comparison.journal import Journal
from steepest.comparison.output import check_directory, recover
from steepest.comparison.progress import Silent
from steepest.comparison.unfinished import UNFINISHED, Question, begin, go_on
from steepest.errors import InputError
from steepest.training.native import NativeEngine

OPTIONS: dict[str, Any] = {
    "hidden": (4,),
    "losses": ["mse", "mae"],
    "optimizers": ["sgd"],
    "max_epochs": 5,
    "splits": 1,
}
KILLS = int(os.environ.get("STEEPEST_TEST_KILLS", "3"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    path = tmp_path_factory.mktemp("data") / "table.csv"
    pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": x @ [1.0, -2.0, 0.5]}).write_csv(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("whole") / "out"
    steepest.compare(table, "y", out=out, **OPTIONS)
    return content(out)


def content(out: Path) -> dict[str, Any]:
    """Everything a comparison left, times and the report's drawing of them apart."""
    import json

    verdict = json.loads((out / "verdict.json").read_text())
    del verdict["seconds"]
    manifest = json.loads((out / "model" / "manifest.json").read_text())
    weights = sorted(path for path in (out / "model").iterdir() if path.name != "manifest.json")
    return {
        "names": sorted(path.name for path in out.iterdir()),
        "beside": sorted(path.name for path in out.parent.iterdir()),
        "verdict": verdict,
        "plan": (out / "plan.json").read_bytes(),
        "runs": pl.read_parquet(out / "runs.parquet").drop("seconds", "curve_seconds").to_dicts(),
        "manifest": {name: value for name, value in manifest.items() if "seconds" not in json.dumps(value)},
        "weights": [path.read_bytes() for path in weights if path.suffix == ".safetensors"],
    }


class StopsAfter(Silent):
    """Sends this process a signal once so many runs have ended."""

    def __init__(self, count: int, number: int) -> None:
        self.left, self.number = count, number

    def run_finished(self, record: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("count", [1, 40, 90])
def test_after_a_signal_it_goes_on(
    table: Path, undisturbed: dict[str, Any], tmp_path: Path, count: int, number: int
) -> None:
    out = tmp_path / "out"
    first = steepest.compare(table, "y", out=out, progress=StopsAfter(count, number), **OPTIONS)
    assert first.interrupted
    assert (out / UNFINISHED / "journal").exists()
    assert (out / "verdict.json").exists()
    again = steepest.compare(resume=out)
    assert not again.interrupted
    assert content(out) == undisturbed


def test_what_has_ended_is_not_run_again(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = steepest.compare(table, "y", out=out, progress=StopsAfter(50, signal.SIGINT), **OPTIONS)
    ended = first.runs.filter(pl.col("stop_reason") != "interrupted")
    done = set(map(tuple, ended.select("loss", "optimizer", "lr", "seed").rows()))
    asked = []
    run_all = NativeEngine.run_all

    def watched(self: NativeEngine, runs: Any, **options: Any) -> Any:
        # The model's own training apart: that goes on for longer, and then on more rows.
        own = [run for run in runs if len(self.data.y_validation) and run.stop.patience is None]
        asked.extend((run.loss, run.optimizer, run.lr, run.seed) for run in own)
        return run_all(self, runs, **options)

    monkeypatch.setattr(NativeEngine, "run_all", watched)
    whole = steepest.compare(resume=out)
    assert len(done) >= 50
    assert not done & set(asked)
    assert len(asked) == len(set(asked)) == len(whole.runs) - len(done)


def test_killed_at_any_moment_it_goes_on(table: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    program = (
        f"import steepest, sys; out = sys.argv[2]; again = sys.argv[1] == 'resume'\n"
        f"options = dict(resume=out) if again else dict(data={str(table)!r}, target='y', out=out, **{OPTIONS!r})\n"
        f"print('begun', flush=True); steepest.compare(**options)\n"
    )
    draw = random.Random(1)
    out = tmp_path / "out"
    killed = 0
    for _ in range(KILLS):
        shutil.rmtree(out, ignore_errors=True)
        for attempt in ("start", "resume", "resume"):
            if attempt == "resume" and not (out / UNFINISHED / "plan.json").exists():
                attempt = "start" if not (out / "verdict.json").exists() else "done"
            if attempt == "done":
                break
            with subprocess.Popen(
                [sys.executable, "-c", program, attempt, str(out)], stdout=subprocess.PIPE
            ) as child:
                assert child.stdout is not None
                child.stdout.readline()
                time.sleep(draw.uniform(0.0, 3.0))
                killed += child.poll() is None
                child.kill()
        if (out / UNFINISHED / "plan.json").exists() or not (out / "verdict.json").exists():
            resumed = (out / UNFINISHED / "plan.json").exists()
            subprocess.run(
                [sys.executable, "-c", program, "resume" if resumed else "start", str(out)], check=True
            )
        assert content(out) == undisturbed
    assert killed >= KILLS


class Killed(BaseException):
    """The process is gone, and nothing is tidied up."""


def _kill_after(monkeypatch: pytest.MonkeyPatch, num_changes: int) -> None:
    """Let so many changes to the file system happen, and none after them."""
    left = num_changes

    def counted(change: Any) -> Any:
        def changed(*given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return change(*given, **named)

        return changed

    for name in ("mkdir", "write_bytes", "write_text", "rename", "rmdir"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    for name in ("copy", "rmtree"):
        monkeypatch.setattr(shutil, name, counted(getattr(shutil, name)))


@pytest.mark.parametrize("stale", [False, True])
def test_killed_while_it_begins_it_can_begin_again(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stale: bool
) -> None:
    """A directory without a plan would be nobody's: neither gone on with nor written to."""
    plan, question = steepest.compare(table, "y", **OPTIONS).plan, Question.of(table, "y", None)
    for num_changes in range(40):
        place = tmp_path / f"out{num_changes}"
        if stale:
            begin(place, plan, question)
        with monkeypatch.context() as patch:
            _kill_after(patch, num_changes)
            try:
                begin(place, plan, question)
                break
            except Killed:
                pass
        checked = check_directory(place, ("verdict.json", f"{UNFINISHED}/plan.json"), frozenset({UNFINISHED}))
        recover(place)
        begin(checked, plan, question)
        assert go_on(place).plan == plan
        assert not list(tmp_path.glob(f".{place.name}-*"))
    assert 6 < num_changes < 39


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_end_costs_the_last_run_alone(
    table: Path, undisturbed: dict[str, Any], tmp_path: Path, cut: int
) -> None:
    out = tmp_path / "out"
    steepest.compare(table, "y", out=out, progress=StopsAfter(30, signal.SIGINT), **OPTIONS)
    path = out / UNFINISHED / "journal"
    known = open_and_close(path)
    path.write_bytes(path.read_bytes()[:-cut])
    assert open_and_close(path) == known - 1
    steepest.compare(resume=out)
    assert content(out) == undisturbed


def open_and_close(path: Path) -> int:
    journal = Journal(path)
    journal.close()
    return len(journal)


def test_a_full_disk_is_told_and_nothing_is_lost(
    table: Path, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write = Journal._write

    def full(self: Journal, data: bytes) -> None:
        if self._size_bytes > 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_write", full)
        with pytest.raises(InputError, match=r"No space left on device.*--resume"):
            steepest.compare(table, "y", out=out, **OPTIONS)
    assert open_and_close(out / UNFINISHED / "journal") > 5
    steepest.compare(resume=out)
    assert content(out) == undisturbed


def test_refusals(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="holds no comparison"):
        steepest.compare(resume=out)
    steepest.compare(table, "y", out=out, progress=StopsAfter(20, signal.SIGINT), **OPTIONS)
    with pytest.raises(
        InputError, match=r"holds an unfinished comparison, \d+ runs of it done\. Go on with it by --resume"
    ):
        steepest.compare(table, "y", out=out, **OPTIONS)
    with pytest.raises(InputError, match="own plan has decided losses already; leave losses out"):
        steepest.compare(resume=out, losses=["mse"])
    with pytest.raises(InputError, match="leave plan and out away"):
        steepest.compare(resume=out, out=out)
    other = pl.read_csv(table).with_columns(pl.col("a") + 1)
    with pytest.raises(InputError, match="other data"):
        steepest.compare(other, "y", resume=out)
    working = Journal(out / UNFINISHED / "journal")
    if sys.platform != "win32":
        with pytest.raises(InputError, match="Another process is at work"):
            steepest.compare(resume=out)
    working.close()
    (out / UNFINISHED / "journal").write_bytes(b"something else entirely\n" * 3)
    with pytest.raises(InputError, match="is not a journal"):
        steepest.compare(resume=out)
    shutil.rmtree(out / UNFINISHED)
    with pytest.raises(InputError, match="is complete"):
        steepest.compare(resume=out)


@pytest.fixture(scope="module")
def pruned(table: Path) -> steepest.Comparison:
    """On several splits, with short runs and runs with options of their own: a trial's key has to tell them apart."""
    from steepest.comparison.options import Options
    from steepest.comparison.plan import make_plan
    from steepest.data import prepare

    plan = make_plan(prepare(table, "y"), Options(**OPTIONS | {"tune": "all", "splits": None}))
    return steepest.compare(table, "y", plan=replace(plan, rungs=(0.2, 0.4)))


@pytest.mark.parametrize("count", [30, 200])
def test_a_pruned_comparison_goes_on_too(
    table: Path, pruned: steepest.Comparison, tmp_path: Path, count: int
) -> None:
    out = tmp_path / "out"
    steepest.compare(table, "y", plan=pruned.plan, out=out, progress=StopsAfter(count, signal.SIGINT))
    again = steepest.compare(resume=out)
    assert again.runs.drop("seconds").equals(pruned.runs.drop("seconds"))
    assert again.verdict | {"seconds": 0} == pruned.verdict | {"seconds": 0}


def test_modules_go_on_too(tmp_path: Path) -> None:
    import torch

    x = torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
    y = x.sum(1)
    parts = ((x[:60], y[:60]), (x[60:90], y[60:90]), (x[90:], y[90:]))
    options = {"losses": ["mse"], "optimizers": ["sgd"], "max_epochs": 2}

    def net() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))

    whole = steepest.compare(model=net, data=parts, **options)
    out = tmp_path / "out"
    steepest.compare(model=net, data=parts, out=out, progress=StopsAfter(30, signal.SIGINT), **options)
    with pytest.raises(InputError, match="The plan was made for another module"):
        steepest.compare(model=lambda: net().append(torch.nn.Tanh()), data=parts, resume=out)
    again = steepest.compare(model=net, data=parts, resume=out)
    assert again.runs.drop("seconds", "curve_seconds").equals(whole.runs.drop("seconds", "curve_seconds"))
