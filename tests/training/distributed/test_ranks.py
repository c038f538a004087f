"""On several ranks as on one: torchrun, gloo, a small GPT; killed, resumed at another world size.

STEEPEST_TEST_RANKS=full runs the whole matrix: 2 and 4 ranks, DDP and FSDP2, four optimizers, three losses, each also
stopped without a farewell and resumed at the other world size.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed

from steepest.comparison.fit_module import fit_module

HERE = Path(__file__).parent
STEPS = 100
OPTIMIZERS = {"momentum": 0.05, "adamw": 0.01, "rmsprop": 0.003, "lamb": 0.02}
LOSSES = ("cross_entropy", "focal", "generalized_cross_entropy")
SCHEDULE = {"schedule": "cosine", "warmup": 0.1, "checkpoint_every": 30}
FULL = os.environ.get("STEEPEST_TEST_RANKS") == "full"
# float64; sums in another order, and 100 steps that amplify it
CLOSE = 1e-9


def _beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


launch, toys = _beside("launch"), _beside("toys")


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def job(optimizer: str, loss: str, out: Path, **options: Any) -> dict[str, Any]:
    return {
        "model": "toys:gpt",
        "data": "toys:text",
        "out": str(out),
        "loss": loss,
        "optimizer": optimizer,
        "lr": OPTIMIZERS[optimizer],
        "batch_size": 16,
        "max_epochs": None,
        "max_steps": STEPS,
        "checkpoint_every": 20,
        **options,
    }


def alone(optimizer: str, loss: str, out: Path, **options: Any) -> Path:
    """The same training in this process."""
    fit_module(**{**job(optimizer, loss, out), "model": toys.gpt, "data": toys.text, **options})
    return out


def stopped_at(out: Path, step: int) -> None:
    """As if it had been killed after this step, which is a checkpoint."""
    for path in (out / "checkpoints").iterdir():
        if path.name > f"step-{step:09d}":
            shutil.rmtree(path)


def with_nan(out: Path, **options: Any) -> dict[str, Any]:
    return {
        "model": "toys:linear",
        "data": "toys:numbers_with_nan",
        "loss": "mse",
        "batch_size": 8,
        "lr": 0.05,
        "optimizer": "adam",
        "max_epochs": 3,
        "out": str(out),
        **options,
    }


def tied(out: Path, **options: Any) -> dict[str, Any]:
    return job("adamw", "cross_entropy", out, model="toys:tied", **options)


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings on two ranks, by one torchrun: it takes longer to start than they do."""
    place = tmp_path_factory.mktemp("two")
    jobs = [
        job("adamw", "cross_entropy", place / "ddp", accumulate=2),
        job("lamb", "focal", place / "fsdp", parallel="fsdp", accumulate=4),
        job("adamw", "cross_entropy", place / "again", parallel="fsdp", max_steps=57),
        job("adamw", "cross_entropy", place / "scheduled", parallel="fsdp", **SCHEDULE),
        *(tied(place / f"tied-{how}", parallel=how, max_steps=47) for how in ("ddp", "fsdp")),
        *({**tied(place / f"unused-{how}", parallel=how), "model": "toys:unused"} for how in ("ddp", "fsdp")),
        with_nan(place / "nan-ddp", parallel="ddp"),
        with_nan(place / "nan-fsdp", parallel="fsdp"),
    ]
    launch.run_jobs(2, jobs, place)
    return place


@pytest.mark.parametrize(
    ("how", "optimizer", "loss"), [("ddp", "adamw", "cross_entropy"), ("fsdp", "lamb", "focal")]
)
def test_two_ranks_train_as_one(on_two: Path, tmp_path: Path, how: str, optimizer: str, loss: str) -> None:
    reference = alone(optimizer, loss, tmp_path / "one")
    assert launch.gap(reference, on_two / how) < CLOSE
    expected, found = launch.record(reference)["curve"], launch.record(on_two / how)["curve"]
    assert len(expected) == 20
    for before, after in zip(expected, found, strict=True):
        assert before["train_loss"] == pytest.approx(after["train_loss"], rel=CLOSE)
        assert before["validation_loss"] == pytest.approx(after["validation_loss"], rel=CLOSE)


def test_sharded_by_two_and_gone_on_with_by_one(on_two: Path, tmp_path: Path) -> None:
    stopped_at(on_two / "again", 40)
    alone("adamw", "cross_entropy", on_two / "again", resume=True)
    reference = alone("adamw", "cross_entropy", tmp_path / "one")
    assert launch.gap(reference, on_two / "again") < CLOSE
    launches = [
        (each["from_step"], each["world_size"]) for each in launch.record(on_two / "again")["launches"]
    ]
    assert launches == [(0, 2), (40, 1)]


def test_a_schedule_goes_on_at_another_world_size(on_two: Path, tmp_path: Path) -> None:
    reference = alone("adamw", "cross_entropy", tmp_path / "one", **SCHEDULE)
    stopped_at(on_two / "scheduled", 60)
    shutil.rmtree(on_two / "scheduled" / "model")
    alone("adamw", "cross_entropy", on_two / "scheduled", resume=True, **SCHEDULE)
    assert launch.gap(reference, on_two / "scheduled") < CLOSE


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_tied_weights_go_on_at_another_world_size(on_two: Path, tmp_path: Path, how: str) -> None:
    stopped_at(on_two / f"tied-{how}", 40)
    own = {"model": toys.tied, "data": toys.text}
    fit_module(**{**tied(on_two / f"tied-{how}", resume=True), **own})
    fit_module(**{**tied(tmp_path / "one"), **own})
    assert launch.gap(tmp_path / "one", on_two / f"tied-{how}") < CLOSE


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_parameters_that_are_left_out_stay_as_they_were(on_two: Path, tmp_path: Path, how: str) -> None:
    fit_module(**{**tied(tmp_path / "one"), "model": toys.unused, "data": toys.text})
    assert launch.gap(tmp_path / "one", on_two / f"unused-{how}") < CLOSE


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_nan_on_one_rank_is_skipped_by_both(on_two: Path, tmp_path: Path, how: str) -> None:
    own = {"model": toys.linear, "data": toys.numbers_with_nan}
    fit_module(**with_nan(tmp_path / "one", **own))
    assert launch.record(on_two / f"nan-{how}")["num_skipped"] == 3  # once an epoch
    assert launch.gap(on_two / f"nan-{how}", tmp_path / "one") < 1e-6  # float32


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 240.0) -> None:
    ends = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < ends, f"{path} is not there"
        time.sleep(0.02)


def begun(out: Path, ranks: int = 2, **options: Any) -> subprocess.Popen[str]:
    """A slow training on several ranks by the command."""
    asked = job("adamw", "cross_entropy", out, model="toys:slow_gpt", **options)
    asked.pop("max_epochs")
    process: subprocess.Popen[str] = launch.start(ranks, *launch.fit_arguments(**asked))
    return process


def test_killed_and_resumed_at_another_world_size(tmp_path: Path) -> None:
    out = tmp_path / "killed"
    process = begun(out, parallel="fsdp")
    wait_for(out / "checkpoints" / "step-000000040", process)
    launch.kill(process)
    assert not (out / "model").exists()
    alone("adamw", "cross_entropy", out, resume=True)
    reference = alone("adamw", "cross_entropy", tmp_path / "one")
    assert launch.gap(reference, out) < CLOSE


def test_sigterm_leaves_a_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    process = begun(out, checkpoint_every=1_000_000, max_steps=100_000)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step "):  # the first progress
            break
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=240)  # torchrun itself gives its processes 30 seconds
    assert "Go on with --resume" in output, errors
    (left,) = (out / "checkpoints").iterdir()
    step = int(left.name.removeprefix("step-"))
    assert step > 0
    assert launch.record(out)["status"] == "interrupted"
    # and it is a whole one: 3 steps more are those of a training that was never stopped
    alone("adamw", "cross_entropy", out, resume=True, max_steps=step + 3, checkpoint_every=1_000_000)
    reference = alone("adamw", "cross_entropy", tmp_path / "one", max_steps=step + 3)
    assert launch.gap(reference, out) < CLOSE


def test_what_fails_is_said_once(tmp_path: Path) -> None:
    asked = {"model": "toys:linear", "data": "toys:breaking", "loss": "mse", "out": tmp_path / "out"}
    process = launch.start(2, *launch.fit_arguments(**asked, batch_size=8))
    _, errors = process.communicate(timeout=240)
    assert process.returncode != 0
    said = [line for line in errors.splitlines() if line.startswith("steepest: ")]
    assert len(said) == 1, errors
    assert "The train data set failed on item 30: OSError: the disk is gone." in said[0]
    assert "steepest/" not in errors  # no traceback but torchrun's own


@pytest.mark.skipif(not FULL, reason="the whole matrix takes many minutes: STEEPEST_TEST_RANKS=full")
@pytest.mark.slow
def test_the_whole_matrix(tmp_path: Path) -> None:
    pairs = list(product(OPTIMIZERS, LOSSES))
    for optimizer, loss in pairs:
        alone(optimizer, loss, tmp_path / f"one-{optimizer}-{loss}")

    def out(optimizer: str, loss: str, how: str, *ranks: int) -> Path:
        return tmp_path / "-".join([how, *map(str, ranks), optimizer, loss])

    gaps: list[float] = []

    def compare(kind: str, how: str, *ranks: int) -> None:
        for optimizer in OPTIMIZERS:
            found = [
                launch.gap(tmp_path / f"one-{optimizer}-{loss}", out(optimizer, loss, how, *ranks))
                for loss in LOSSES
            ]
            gaps.extend(found)
            way = "->".join(map(str, ranks))
            sys.stdout.write(f"{kind:8} {how:5} {way:5} {optimizer:9} {max(found):.2e}\n")
            sys.stdout.flush()

    for how, (first, second) in product(("fsdp", "ddp"), ((2, 4), (4, 2))):
        whole = [
            job(optimizer, loss, out(optimizer, loss, how, first), parallel=how, accumulate=2)
            for optimizer, loss in pairs
        ]
        cut = [
            job(optimizer, loss, out(optimizer, loss, how, first, second), parallel=how)
            for optimizer, loss in pairs
        ]
        launch.run_jobs(first, [*whole, *({**each, "max_steps": 57} for each in cut)], tmp_path)
        compare("whole", how, first)
        for each in cut:
            stopped_at(Path(each["out"]), 40)
        launch.run_jobs(second, [{**each, "resume": True} for each in cut], tmp_path)
        compare("resumed", how, first, second)
    assert len(gaps) == 2 * 2 * 2 * len(pairs)
    assert max(gaps) < CLOSE
