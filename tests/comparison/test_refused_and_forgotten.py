"""What is refused leaves nothing behind; what is a person's own stays."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

import steepest
from steepest.comparison.fit import divergence
from steepest.comparison.progress import Silent
from steepest.errors import InputError
from steepest.training.run import Stop

SMALL: dict[str, Any] = {"optimizers": ["adam"], "hidden": (2,), "max_epochs": 2}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    path = tmp_path_factory.mktemp("refused") / "table.csv"
    pl.DataFrame({"x": x, "y": x + 0.1 * rng.normal(size=80)}).write_csv(path)
    return path


@pytest.fixture(scope="module")
def finished(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("refused") / "out"
    steepest.compare(table, "y", losses=["mse"], out=place, **SMALL)
    return place


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    copied = tmp_path / "out"
    shutil.copytree(finished, copied)
    return copied


def test_an_extension_that_is_refused_leaves_the_comparison_as_it_was(place: Path) -> None:
    before = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    with pytest.raises(InputError, match="gamma takes targets above 0"):
        steepest.compare(extend=place, add_losses=["gamma"])
    assert {path.name for path in place.iterdir()} == {*before, "model"}
    assert {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()} == before
    steepest.compare(extend=place, add_losses=["mae"])


def test_a_comparison_that_is_refused_leaves_no_directory(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="poisson_nll takes targets from 0 up"):
        steepest.compare(table, "y", losses=["mse", "poisson_nll"], out=tmp_path / "new", **SMALL)
    assert not (tmp_path / "new").exists()


def test_targets_that_a_loss_does_not_take_are_told_before_the_plan(table: Path) -> None:
    """As ``--dry-run`` prints it."""

    class Watch(Silent):
        def plan_made(self, plan: Any) -> None:
            raise AssertionError

    with pytest.raises(InputError, match="gamma takes targets above 0"):
        steepest.compare(table, "y", losses=["gamma"], progress=Watch(), **SMALL)


def test_one_that_fails_in_its_first_run_leaves_none_either(
    table: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*arguments: Any) -> Any:
        raise InputError("This is refused by an engine.")

    monkeypatch.setattr("steepest.comparison.compare.conduct", refusing)
    for out in (tmp_path / "new", place):
        with pytest.raises(InputError, match="refused by an engine"):
            steepest.compare(table, "y", losses=["mse"], out=out, **SMALL)
    assert not (tmp_path / "new").exists()
    assert (place / "verdict.json").exists()
    assert not (place / "unfinished").exists()


def test_a_file_beside_the_models_own_is_not_lost(table: Path, place: Path) -> None:
    (place / "model" / "prices.csv").write_text("mine")
    for again in ({"data": table, "target": "y", "out": place}, {"extend": place, "more_seeds": 1}):
        with pytest.raises(InputError, match=r"model' also holds 'prices\.csv'"):
            steepest.compare(**again)
    assert (place / "model" / "prices.csv").read_text() == "mine"


def test_the_notes_of_reading_are_the_models(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = [None if k % 3 == 0 else float(k) for k in range(60)]
    pl.DataFrame({"x": rng.normal(size=60), "y": y}).write_csv(tmp_path / "t.csv")
    model = steepest.fit(tmp_path / "t.csv", "y", lr=0.01, max_epochs=1, hidden=())
    assert any("20 of 60 rows have no target" in note for note in model.notes)
    model.save(tmp_path / "model")
    assert steepest.load(tmp_path / "model").notes == ()


# --- modules of one's own ------------------------------------------------------------------------------------------


def parts(changed: int | None = None, value: float = float("nan")) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for k, rows in enumerate((40, 20, 20)):
        x = torch.randn(rows, 3, generator=generator)
        y = x.sum(1, keepdim=True)
        if k == changed:
            y[3] = value
        made.append((x, y))
    return made


@pytest.mark.parametrize(("changed", "name"), [(0, "train"), (1, "validation"), (2, "test")])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_targets_that_are_no_numbers_are_refused_before_any_run(
    changed: int, name: str, value: float
) -> None:
    with pytest.raises(InputError, match=f"^The {name} data's targets hold 1 that are NaN or infinite"):
        steepest.compare(
            model=lambda: nn.Linear(3, 1), data=parts(changed, value), losses=["mse"], optimizers=["adam"]
        )


def test_a_factory_that_gives_one_module_twice_is_refused() -> None:
    module = nn.Linear(3, 1)
    with pytest.raises(InputError, match=r"^The model factory gave the same module twice"):
        steepest.compare(
            model=lambda: module, data=parts(), losses=["mse"], optimizers=["adam"], max_epochs=1
        )


@pytest.mark.parametrize(
    "given",
    [{"target": "price"}, {"hidden": (4,)}, {"activation": "tanh"}],
    ids=["target", "hidden", "activation"],
)
def test_what_a_module_leaves_no_choice_of_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^With model=.*leave {next(iter(given))} out"):
        steepest.compare(data=parts(), model=lambda: nn.Linear(3, 1), **given)


def test_loading_a_comparison_of_modules_says_what_its_model_is(tmp_path: Path) -> None:
    steepest.compare(
        model=lambda: nn.Linear(3, 1),
        data=parts(),
        losses=["mse"],
        optimizers=["adam"],
        max_epochs=1,
        out=tmp_path / "o",
    )
    with pytest.raises(
        InputError, match="is a module of your own; make one of its class and load its weights"
    ):
        steepest.load(tmp_path / "o")


def test_a_rate_that_runs_away_is_told_with_what_would_do() -> None:
    x = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.raises(InputError, match=r"1e\+06 \(mse with sgd\); give a smaller one, or lr='auto'\.$"):
        steepest.fit((x, x[:, 0]), optimizer="sgd", lr=1e6, max_epochs=3, hidden=())
    run = SimpleNamespace(lr=0.1, loss="mse", optimizer="sgd", stop=Stop(max_epochs=3))
    record: Any = SimpleNamespace(run=run, num_epochs=0)
    assert divergence(record, "auto", "auto").endswith(
        "of those looked at (mse with sgd); give a smaller one."
    )
