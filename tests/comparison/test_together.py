"""Whole comparisons of modules whose runs are trained together: the same verdict, and the same bytes on resuming."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

import steepest
from steepest.comparison.progress import Silent
from steepest.errors import InputError
from steepest.training.population_tables import TablePopulation

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5]) + 0.1 * RNG.normal(size=90)).astype(np.float32)
PARTS = tuple((X[part], Y[part]) for part in (slice(0, 50), slice(50, 70), slice(70, 90)))
ASKED: dict[str, Any] = {
    "data": PARTS, "losses": ["mse", "mae"], "optimizers": ["sgd", "adam"], "batch_sizes": [10], "max_epochs": 2,
}  # fmt: skip


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


class Sensitive(nn.Module):
    """Stands for a machine on which a run's last bits depend, and plainly, on how many are beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = net()

    def forward(self, x: Tensor) -> Tensor:
        weight, beside = next(self.layers.parameters()), 1
        if torch._C._functorch.is_batchedtensor(weight):
            beside = len(torch._C._functorch.get_unwrapped(weight))
        return self.layers(x) * (1 + 1e-6 * beside)  # type: ignore[no-any-return]


def without_times(directory: Path) -> tuple[Any, pl.DataFrame, dict[str, bytes]]:
    verdict = json.loads((directory / "verdict.json").read_text())
    runs = pl.read_parquet(directory / "runs.parquet").drop("seconds", "curve_seconds")
    model = {path.name: path.read_bytes() for path in (directory / "model").iterdir()}
    return {key: value for key, value in verdict.items() if key != "seconds"}, runs, model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("together") / "out"
    found = steepest.compare(model=Sensitive, out=out, **ASKED)
    assert found.plan.together  # so small a module is
    return out


def test_the_verdict_is_that_of_runs_one_after_another_to_rounding(tmp_path: Path) -> None:
    steepest.compare(model=net, out=tmp_path / "out", **ASKED)
    alone = steepest.compare(model=net, together=False, **ASKED)
    assert not alone.plan.together
    verdict, runs, _ = without_times(tmp_path / "out")
    for a, b in zip(verdict["cells"], alone.verdict["cells"], strict=True):
        assert (a["loss"], a["optimizer"], a["lr"], a["kind"]) == (
            b["loss"],
            b["optimizer"],
            b["lr"],
            b["kind"],
        )
        assert a["score"] == pytest.approx(b["score"], rel=1e-4)
    assert verdict["sentence"] == alone.verdict["sentence"]
    assert runs.height == alone.runs.height
    assert (
        "Runs were trained together, up to 64 at once: their scores are those of runs alone to rounding."
        in (verdict["notes"])
    )
    assert not any("together" in note for note in alone.verdict["notes"])


class StopsAfter(Silent):
    """Presses Ctrl-C once so many runs have ended: in the midst of a group, the rest of which is then lost."""

    def __init__(self, number: int) -> None:
        self.left = number

    def run_finished(self, record: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("number", [30, 170])
def test_an_interrupted_comparison_goes_on_to_the_same_bytes(
    whole: Path, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "out"
    first = steepest.compare(model=Sensitive, out=out, progress=StopsAfter(number), **ASKED)
    assert first.interrupted
    again = steepest.compare(model=Sensitive, data=PARTS, resume=out)
    assert not again.interrupted
    mine, whole_one = without_times(out), without_times(whole)
    assert mine[0] == whole_one[0]
    assert mine[1].equals(whole_one[1])
    assert mine[2] == whole_one[2]


def test_an_extension_repeats_no_run_and_goes_on_to_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("one", "two")]
    seen: list[Any] = []

    class Counts(Silent):
        def run_finished(self, record: Any) -> None:
            seen.append(record)

    for out in outs:
        shutil.copytree(whole, out)
    asked: dict[str, Any] = {"model": Sensitive, "data": PARTS}
    steepest.compare(**asked, extend=outs[0], add_optimizers="momentum", progress=Counts())
    first = steepest.compare(
        **asked, extend=outs[1], add_optimizers="momentum", progress=StopsAfter(len(seen) - 10)
    )
    assert first.interrupted
    steepest.compare(**asked, resume=outs[1])
    mine, at_once = without_times(outs[1]), without_times(outs[0])
    assert mine[0] == at_once[0]
    assert mine[1].equals(at_once[1])
    assert mine[2] == at_once[2]
    # What was known is as it was, to the bit.
    known = ["loss", "optimizer", "lr", "seed", "stage", "validation_score"]
    before, after = without_times(whole)[1].select(known), mine[1].select(known)
    assert before.join(after, on=known, nulls_equal=True).height == before.height


def test_a_module_that_cannot_be_is_trained_as_ever_and_the_notes_say_why() -> None:
    found = steepest.compare(
        model=lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 1)), together=True, **ASKED
    )
    why = "the module draws random numbers while it is trained, as dropout does"
    assert f"Runs were trained one after another: {why}." in found.verdict["notes"]


def test_together_is_for_modules_and_for_a_plan_to_decide(whole: Path) -> None:
    with pytest.raises(InputError, match="together is for modules of your own"):
        steepest.compare((X, Y), together=True)
    with pytest.raises(InputError, match="together is 'yes'; it is True, False or None"):
        steepest.compare(model=net, together="yes", **ASKED)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has decided together already"):
        steepest.compare(model=Sensitive, data=PARTS, together=False, plan=whole / "plan.json")


# --- a table on a device -------------------------------------------------------------------------------------------

TABLE: dict[str, Any] = {
    "data": (X, Y), "losses": ["mse", "huber"], "optimizers": ["sgd", "adam"], "hidden": (4,), "max_epochs": 2,
    "splits": 1,
}  # fmt: skip


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """A device that torch has everywhere; where the engine's perceptrons would lie on it, they lie on the CPU."""
    monkeypatch.setattr(
        "steepest.comparison.compare.start_engine_on",
        lambda _, data, metric: TablePopulation(data, metric, "cpu"),
    )
    return "meta"


def test_a_table_on_a_device_has_the_verdict_of_the_native_engine(elsewhere: str, tmp_path: Path) -> None:
    there = steepest.compare(device=elsewhere, out=tmp_path / "out", **TABLE)
    here = steepest.compare(**TABLE)
    assert (there.plan.together, here.plan.together) == (True, False)
    assert there.verdict["sentence"] == here.verdict["sentence"]
    for a, b in zip(there.verdict["cells"], here.verdict["cells"], strict=True):
        assert (a["loss"], a["optimizer"], a["lr"], a["kind"]) == (
            b["loss"],
            b["optimizer"],
            b["lr"],
            b["kind"],
        )
        assert a["score"] == pytest.approx(b["score"], rel=1e-3)
    assert any(
        note.startswith("Runs were trained together, up to 64 at once") for note in there.verdict["notes"]
    )
    assert there.model is not None
    np.testing.assert_allclose(there.model.predict(X), here.model.predict(X), rtol=1e-3, atol=1e-3)  # type: ignore[union-attr]


def test_a_table_on_a_device_resumes_to_the_same_bytes(elsewhere: str, tmp_path: Path) -> None:
    data = tmp_path / "table.csv"
    pl.DataFrame({**{f"x{k}": X[:, k] for k in range(3)}, "y": Y}).write_csv(data)
    asked = {**TABLE, "data": data, "target": "y", "device": elsewhere}
    steepest.compare(out=tmp_path / "whole", **asked)
    steepest.compare(out=tmp_path / "broken", progress=StopsAfter(30), **asked)
    with pytest.raises(InputError, match="trained together on a GPU; say which with device"):
        steepest.compare(resume=tmp_path / "broken")
    steepest.compare(resume=tmp_path / "broken", device=elsewhere)
    for a, b in zip(without_times(tmp_path / "broken"), without_times(tmp_path / "whole"), strict=True):
        assert a.equals(b) if isinstance(a, pl.DataFrame) else a == b


def test_a_place_that_cannot_be_had_is_refused(elsewhere: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="The device 'nowhere' cannot be used"):
        steepest.compare(device="nowhere", **TABLE)
    with pytest.raises(
        InputError, match="A cluster trains on its machines' processors; leave out cluster or device"
    ):
        steepest.compare(device=elsewhere, cluster="local", **TABLE)
    out = tmp_path / "out"
    steepest.compare(out=out, **TABLE)
    with pytest.raises(
        InputError, match="The plan's runs are trained on a CPU; leave out device='meta' or the plan"
    ):
        steepest.compare((X, Y), plan=out / "plan.json", device=elsewhere)
