"""A finished comparison that is asked for more: the bytes of one that was asked for all at once, and no run twice."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import steepest
from steepest.comparison.budget import without_names
from steepest.comparison.extend import extended
from steepest.comparison.options import Options
from steepest.comparison.plan import make_plan, read_plan
from steepest.comparison.unfinished import UNFINISHED
from steepest.errors import InputError
from steepest.training.native import NativeEngine

from .test_resume import StopsAfter, content

FEW: dict[str, Any] = {
    "hidden": (),
    "losses": ["mse"],
    "optimizers": ["sgd"],
    "max_epochs": 3,
    "num_threads": 2,
}
MORE: dict[str, Any] = {"more_seeds": 9, "add_losses": ["mae"], "add_optimizers": ["adadelta"]}
ALL: dict[str, Any] = FEW | {"losses": ["mse", "mae"], "optimizers": ["sgd", "adadelta"], "seeds": 12}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2))
    path = tmp_path_factory.mktemp("data") / "table.csv"
    y = x @ [1.0, -2.0] + 0.3 * rng.normal(size=120)
    pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y}).write_csv(path)
    return path


@pytest.fixture(scope="module")
def finished(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison to add to; to be copied, not changed."""
    out = tmp_path_factory.mktemp("few") / "out"
    steepest.compare(table, "y", out=out, **FEW)
    return out


@pytest.fixture(scope="module")
def at_once(table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("all") / "out"
    steepest.compare(table, "y", out=out, **ALL)
    return content(out)


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def test_it_is_as_if_all_had_been_asked_for_at_once(
    out: Path, at_once: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pl.read_parquet(out / "runs.parquet")
    asked: list[Any] = []
    run_all = NativeEngine.run_all

    def watched(self: NativeEngine, runs: Any, **options: Any) -> Any:
        if len(self.data.y_validation) and runs[0].stop.patience is None:
            asked.extend((run.loss, run.optimizer, run.lr, run.seed) for run in runs)
        return run_all(self, runs, **options)

    monkeypatch.setattr(NativeEngine, "run_all", watched)
    whole = steepest.compare(extend=out, **MORE)
    assert content(out) == at_once
    key = ["loss", "optimizer", "lr", "seed"]
    known, now = (set(frame.select(key).rows()) for frame in (before, whole.runs))
    assert known & now
    # What ran once runs again only for weights: of the winner, and of rates that were no finalists before.
    again = [trial for trial in asked if trial in known]
    finalists = {(cell["loss"], cell["optimizer"], cell["lr"]) for cell in whole.verdict["cells"]}
    assert set(again) <= {trial for trial in known if trial[:3] in finalists}
    scored = before.filter(pl.col("test_rmse").is_not_null())
    winner = whole.verdict["winners"][0]
    assert {trial for trial in again if trial in set(scored.select(key).rows())} <= {
        (winner["loss"], winner["optimizer"], winner["lr"], whole.verdict["model"]["seed"])
    }
    assert len(set(asked) - known) == len(now - known)


def test_interrupted_it_goes_on_and_the_finished_one_stays_until_then(
    out: Path, at_once: dict[str, Any]
) -> None:
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    known = pl.read_parquet(out / "runs.parquet").height
    first = steepest.compare(extend=out, progress=StopsAfter(known + 40, signal.SIGINT), **MORE)
    assert first.interrupted
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    with pytest.raises(InputError, match="holds an unfinished comparison"):
        steepest.compare(extend=out, **MORE)
    steepest.compare(resume=out)
    assert content(out) == at_once
    assert not (out / UNFINISHED).exists()


def test_one_thing_after_the_other(table: Path, out: Path, tmp_path: Path) -> None:
    steepest.compare(extend=out, add_losses="mae")
    steepest.compare(table, "y", extend=out, more_seeds=1)
    steepest.compare(
        table, "y", out=tmp_path / "once" / "out", **FEW | {"losses": ["mse", "mae"], "seeds": 4}
    )
    found, wanted = content(out), content(tmp_path / "once" / "out")
    del found["beside"], wanted["beside"]
    assert found == wanted


def test_modules_can_be_added_to(tmp_path: Path) -> None:
    import torch

    x = torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
    parts = ((x[:60], x[:60].sum(1)), (x[60:90], x[60:90].sum(1)), (x[90:], x[90:].sum(1)))

    def net() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))

    few = {"model": net, "data": parts, "losses": ["mse"], "max_epochs": 1}

    def other() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))

    out = tmp_path / "out"
    steepest.compare(optimizers=["sgd"], out=out, **few)
    with pytest.raises(InputError, match="The plan was made for another module"):
        steepest.compare(model=other, data=parts, extend=out, add_optimizers=["adam"])
    more = steepest.compare(model=net, data=parts, extend=out, add_optimizers=["adam"])
    whole = steepest.compare(optimizers=["sgd", "adam"], **few)
    without = [name for name in whole.runs.columns if "seconds" not in name]
    assert more.runs.select(without).equals(whole.runs.select(without))
    assert more.verdict | {"seconds": 0} == whole.verdict | {"seconds": 0}


def test_refusals(table: Path, out: Path, tmp_path: Path) -> None:
    for options, sentence in (
        ({}, "Nothing is to be added"),
        ({"add_losses": ["mse"]}, "has the loss 'mse' already"),
        ({"add_optimizers": "sgd"}, "has the optimizer 'sgd' already"),
        ({"add_losses": ["bce"]}, "does not fit a regression target"),
        ({"more_seeds": 0}, "positive whole number"),
        ({"more_seeds": 1, "hidden": (4,)}, "decided hidden already"),
        ({"more_seeds": 1, "out": out}, "leave resume, plan and out away"),
    ):
        with pytest.raises(InputError, match=sentence):
            steepest.compare(extend=out, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="go with extend"):
        steepest.compare(table, "y", more_seeds=3)
    with pytest.raises(InputError, match="holds no comparison"):
        steepest.compare(extend=tmp_path / "none", more_seeds=1)
    other = pl.read_csv(table).with_columns(pl.col("a") + 1)
    with pytest.raises(InputError, match="other data"):
        steepest.compare(other, "y", extend=out, more_seeds=1)
    (out / "question.json").unlink()
    with pytest.raises(InputError, match="give the data and the target again"):
        steepest.compare(extend=out, more_seeds=1)
    assert not (out / UNFINISHED).exists()
    (out / "runs.parquet").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"runs\.parquet' is not what steepest wrote"):
        steepest.compare(table, "y", extend=out, more_seeds=1)
    assert not (out / UNFINISHED).exists()
    (out / "SHA256SUMS").unlink()  # as of an older version
    with pytest.raises(InputError, match="cannot be read"):
        steepest.compare(table, "y", extend=out, more_seeds=1)


def test_what_is_added_is_tuned_and_split_as_the_rest(finished: Path) -> None:
    plan = read_plan(finished / "plan.json")
    assert plan.splits == len(plan.confirmation_seeds)
    longer = extended(plan, losses=["huber"], optimizers=["adam"], more_seeds=20)
    assert longer.splits == len(longer.confirmation_seeds) > plan.splits
    assert (longer.loss_ranges, longer.optimizer_ranges) == ({}, {})
    assert extended(replace(plan, splits=1), losses=None, optimizers=None, more_seeds=20).splits == 1
    beyond = replace(plan, num_configurations=16, loss_ranges={"mse": {}})
    longer = extended(beyond, losses=["huber"], optimizers=["adam"], more_seeds=None)
    assert {name: set(own) for name, own in longer.loss_ranges.items()} == {"mse": set(), "huber": {"delta"}}
    assert "beta1" in longer.optimizer_ranges["adam"]
    assert read_plan(json.loads(longer.to_json())) == longer


def test_other_versions_are_said(table: Path, out: Path) -> None:
    verdict = json.loads((out / "verdict.json").read_text())
    verdict["versions"]["numba"] = "0.1"
    (out / "verdict.json").write_text(json.dumps(verdict))
    (out / "SHA256SUMS").unlink()
    assert "were made with numba 0.1." in steepest.compare(extend=out, more_seeds=1).verdict["notes"][-1]


@pytest.mark.parametrize("tune", ["rates", "all"])
def test_the_plan_is_the_one_of_asking_at_once(prepared: Any, tune: str) -> None:
    few = Options(losses=["mse"], optimizers=["sgd"], tune=tune)
    many = Options(losses=["mse", "huber"], optimizers=["sgd", "adadelta", "adam"], seeds=15, tune=tune)
    more = {"losses": ["huber"], "optimizers": ["adadelta", "adam"], "more_seeds": 12}
    assert extended(make_plan(prepared, few), **more) == make_plan(prepared, many)


def test_what_a_budget_left_out_and_is_added_is_no_longer_left_out(finished: Path) -> None:
    sentences = ("Fewer epochs.", "To keep to the budget, these losses were not tried: mae, huber.")
    assert without_names(sentences, ["huber"]) == (
        "Fewer epochs.",
        "To keep to the budget, these losses were not tried: mae.",
    )
    assert without_names(sentences, ["mae", "huber"]) == ("Fewer epochs.",)
    plan = read_plan(finished / "plan.json")
    own = plan.from_json(plan.to_json().replace("0.00215", "0.003"))
    with pytest.raises(InputError, match="rates of its own"):
        extended(own, losses=None, optimizers=["adam"], more_seeds=None)
    assert extended(own, losses=["mae"], optimizers=None, more_seeds=None).rates == own.rates
