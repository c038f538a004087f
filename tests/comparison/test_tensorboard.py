"""TensorBoard's logs, read back with TensorBoard's own reader."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import steepest
from steepest.comparison.tensorboard import TensorBoardLog
from steepest.errors import InputError
from steepest.training.run import Curve, Record, Run, Stop

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = X @ [1.0, -2.0, 0.5]
SHORT: dict[str, Any] = {"losses": ["mse"], "optimizers": ["sgd"], "max_epochs": 2, "hidden": ()}


def test_each_run_has_its_curves_its_settings_and_its_score(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what importing the peer's package says
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = steepest.compare((X, Y), **SHORT, tensorboard=tmp_path / "logs", num_threads=1)
    folders = {path.parent for path in (tmp_path / "logs").rglob("events.out.tfevents.*")}
    assert len(folders) == found.verdict["num_runs"]
    by_name = {str(folder.relative_to(tmp_path / "logs")): folder for folder in folders}
    run = found.runs.filter(stage="tune").row(0, named=True)
    log = EventAccumulator(str(by_name[f"mse-sgd-32/tune-{run['lr']:g}-{run['seed']}"])).Reload()
    assert [event.step for event in log.Scalars("rmse")] == run["curve_step"]
    assert [event.value for event in log.Scalars("rmse")] == pytest.approx(run["curve_validation"], rel=1e-6)
    assert [event.value for event in log.Scalars("train_loss")] == pytest.approx(
        run["curve_train_loss"], rel=1e-6
    )
    assert log.Scalars("best_rmse")[0].value == pytest.approx(run["validation_score"], rel=1e-6)
    content = log.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    assert all(word in content for word in (b"optimizer", b"sgd", b"lr", b"mse"))


def test_runs_that_differ_in_more_than_rate_and_seed_lie_apart(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    log.stage_started("rung", 3, "rmse")
    nothing = np.zeros(0)
    for options, epochs in (({}, 2), ({}, 4), ({"momentum": 0.5}, 4)):
        run = Run("mse", "momentum", 0.1, stop=Stop(epochs), optimizer_options=options)
        curve = Curve(nothing.astype(int), nothing.astype(int), nothing, nothing)
        log.run_finished(Record(run, {"lr": 0.1}, 0, 0, 0, "epochs", 0, 1.0, curve, 0.0, None))
    assert {path.name for path in (tmp_path / "mse-momentum-32").iterdir()} == {
        "rung-0.1-0-2-epochs",
        "rung-0.1-0-4-epochs",
        "rung-0.1-0-momentum=0.5-4-epochs",
    }


def test_without_the_package_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'steepest\[tensorboard\]' brings it\."):
        steepest.compare((X, Y), **SHORT, tensorboard=tmp_path / "logs", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"The log directory .* cannot be made"):
        steepest.compare((X, Y), **SHORT, tensorboard=tmp_path / "file" / "logs")
