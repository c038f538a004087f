"""fit, predict, explain, list, report, bench: what they hand to the library, print and write."""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from steepest.errors import InputError

from .conftest import Fake, Ran

Run = Callable[..., Ran]


class FakeModel:
    """A model that knows what it predicts."""

    metric = "rmse"
    classes = ("no", "sí")
    notes = ("5 of 60 rows have no target.",)
    record = SimpleNamespace(
        run=SimpleNamespace(
            loss="mae", optimizer="adam", lr=0.01, batch_size=32, schedule="constant", warmup=0.0
        ),
        validation_score=12.5,
        best_epoch=7,
        num_epochs=9,
        num_steps=1234,
        stop_reason="patience",
        seconds=0.25,
    )

    def __init__(self, note: str = "") -> None:
        self.saved: list[Path] = []
        self.note = note

    def predict(self, data: Any) -> Any:
        if self.note:
            warnings.warn(self.note, stacklevel=1)
        return np.array(["no", "sí", "no"])

    def predict_proba(self, data: Any) -> Any:
        self.predict(data)
        return np.array([[0.75, 0.25], [0.5, 0.5], [1.0, 0.0]])

    def save(self, path: Path) -> None:
        self.saved.append(path)


def checking(path: Path, marker: str, ours: frozenset[str]) -> Path:
    if path.name == "taken":
        raise InputError("The output 'taken' was not written by steepest; name another one.")
    return path


@pytest.fixture
def fitted(fake: Fake) -> SimpleNamespace:
    """A library whose fit and load give a fake model."""
    world = SimpleNamespace(model=FakeModel(), calls=[])

    def fit(data: Any, target: Any = None, *, progress: Any, **options: Any) -> FakeModel:
        world.calls.append({"data": data, "target": target} | options)
        return world.model

    fake("steepest.comparison.fit", fit=fit)
    fake(
        "steepest.comparison.fitted",
        load=lambda path: world.model,
        MANIFEST="manifest.json",
        WEIGHTS="model.safetensors",
    )
    fake("steepest.comparison.output", check_directory=checking)
    return world


def test_fit_hands_on_only_what_was_given(run: Run, fitted: SimpleNamespace) -> None:
    ran = run("fit", "cars.csv", "--target", "price", "--loss", "mae", "--optimizer", "adam", "--out", "m")
    assert ran.exit_code == 0, ran.err
    assert fitted.calls == [{"data": "cars.csv", "target": "price", "loss": "mae", "optimizer": "adam"}]
    assert fitted.model.saved == [Path("m")]
    assert "mae with adam, rate 0.01, batch 32: validation RMSE 12.50 at epoch 7 of 9" in ran.out
    assert "Model: m" in ran.out
    assert ran.out.startswith("Note: 5 of 60 rows have no target.")  # before the score


def test_an_interrupted_fit_keeps_the_model_and_is_no_success(run: Run, fitted: SimpleNamespace) -> None:
    """``steepest fit ... && deploy`` went on after Ctrl-C."""
    fitted.model.record = SimpleNamespace(**{**vars(FakeModel.record), "stop_reason": "interrupted"})
    ran = run("fit", "cars.csv", "--target", "price", "--out", "m")
    assert (ran.exit_code, fitted.model.saved) == (130, [Path("m")])
    assert "at epoch 7 of 9, interrupted after 1,234 steps" in ran.out


@pytest.mark.parametrize(("num_epochs", "told"), [(3, "3 epochs"), (1, "1 epoch")])
def test_a_training_without_validation_rows_tells_of_no_score(
    run: Run, fitted: SimpleNamespace, num_epochs: int, told: str
) -> None:
    """It said "validation RMSE - at epoch 0 of 3"."""
    record = {
        **vars(FakeModel.record),
        "validation_score": math.nan,
        "best_epoch": 0,
        "num_epochs": num_epochs,
    }
    fitted.model.record = SimpleNamespace(**record)
    ran = run("fit", "cars.csv", "--target", "price", "--validation", "0", "--out", "m")
    assert f"batch 32: {told} without validation rows, stopped by" in ran.out


def test_every_option_of_fit_reaches_the_library(run: Run, fitted: SimpleNamespace) -> None:
    options = (
        "--task binary --loss bce --optimizer sgd --lr 0.1 --batch-size full --hidden none --activation tanh "
        "--metric accuracy --validation 0.3 --epochs 9 --max-steps 100 --max-sec 2.5 --patience 4 "
        "--min-gradient-norm 1e-6 --target-metric 0.9 --seed 5 --threads 2 --group driver --time when "
        "--memory 1GB --schedule wsd --warmup 0.05 "
        "--loss-options pos_weight=2 --optimizer-options momentum=0.9,weight_decay=1e-4 --out m"
    )
    ran = run("fit", "cars.csv", "--target", "price", *options.split())
    assert ran.exit_code == 0, ran.err
    assert fitted.calls == [
        {
            "data": "cars.csv",
            "target": "price",
            "task": "binary",
            "loss": "bce",
            "optimizer": "sgd",
            "lr": 0.1,
            "batch_size": "full",
            "hidden": (),
            "activation": "tanh",
            "metric": "accuracy",
            "validation": 0.3,
            "max_epochs": 9,
            "max_steps": 100,
            "max_sec": 2.5,
            "patience": 4,
            "min_gradient_norm": 1e-6,
            "target_metric": 0.9,
            "seed": 5,
            "num_threads": 2,
            "group": "driver",
            "time": "when",
            "memory": "1GB",
            "schedule": "wsd",
            "warmup": 0.05,
            "loss_options": {"pos_weight": 2.0},
            "optimizer_options": {"momentum": 0.9, "weight_decay": 1e-4},
        }
    ]


def test_fit_refuses_its_folder_before_it_trains(run: Run, fitted: SimpleNamespace) -> None:
    ran = run("fit", "cars.csv", "--target", "price", "--out", "taken")
    assert ran.exit_code == 2
    assert fitted.calls == []


@pytest.fixture
def module_fitted(fake: Fake) -> SimpleNamespace:
    """A library whose fit_module gives a fake training."""
    launch = {"from_step": 0, "world_size": 2, "parallel": "fsdp"}
    epoch = SimpleNamespace(epoch=3, train_loss=0.5, validation_loss=0.75, step=30)
    standing = SimpleNamespace(step=30, num_skipped=1, seconds=2.0, launches=[launch], curve=[epoch])
    run = SimpleNamespace(
        loss="focal", optimizer="adam", lr=0.01, batch_size=32, schedule="constant", warmup=0.0
    )
    world = SimpleNamespace(calls=[], standing=standing, is_first=True, stop_reason="epochs")

    def fit_module(model: Any, data: Any, *, on_step: Any, **options: Any) -> SimpleNamespace:
        world.calls.append({"model": model, "data": data} | options)
        on_step(standing, 30, 0.5)
        record = SimpleNamespace(
            run=SimpleNamespace(run=run), standing=standing, stop_reason=world.stop_reason
        )
        return SimpleNamespace(record=record, out=Path("m"), notes=["Note this."], is_first=world.is_first)

    fake("steepest.comparison.fit_module", fit_module=fit_module)
    return world


MODULE = ("fit", "--model", "a.b:c", "--data", "a.b:d", "--out", "m")


def test_a_module_is_fitted_with_what_was_given(run: Run, module_fitted: SimpleNamespace) -> None:
    options = (
        "--loss focal --optimizer adam --lr 0.1 --batch-size 64 --accumulate 2 --parallel fsdp --epochs 3 "
        "--max-steps 9 --checkpoint-every 7 --resume --device cpu --task binary --seed 5 --loss-options gamma=1"
    )
    ran = run(*MODULE, *options.split())
    assert ran.exit_code == 0, ran.err
    assert module_fitted.calls == [
        {
            "model": "a.b:c",
            "data": "a.b:d",
            "out": Path("m"),
            "loss": "focal",
            "optimizer": "adam",
            "lr": 0.1,
            "batch_size": 64,
            "accumulate": 2,
            "parallel": "fsdp",
            "max_epochs": 3,
            "max_steps": 9,
            "checkpoint_every": 7,
            "resume": True,
            "device": "cpu",
            "task": "binary",
            "seed": 5,
            "loss_options": {"gamma": 1.0},
        }
    ]
    assert (
        "focal with adam, rate 0.01, batch 32, on 2 processes (fsdp): 30 steps, 1 of them skipped, in"
        in ran.out
    )
    assert "Loss in epoch 3: 0.5000, on validation rows 0.7500." in ran.out
    assert "Note this." in ran.out
    assert "step 30 of 30, epoch 3 done: loss 0.5, on validation rows 0.75" in ran.err


def test_the_first_process_alone_speaks(
    run: Run, module_fitted: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    module_fitted.is_first = False
    assert run(*MODULE).out == ""
    monkeypatch.setattr("steepest.cli.main._HEAD_START_SEC", 0.0)
    for variable in ("WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.setenv(variable, "2")
    for rank, says in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        ran = run("fit", "--model", "a.b:c", "--out", "m")
        assert ran.exit_code == 2
        assert ("--model needs --data" in ran.err) is says


def test_an_interrupted_training_says_how_to_go_on(run: Run, module_fitted: SimpleNamespace) -> None:
    module_fitted.stop_reason = "interrupted"
    ran = run(*MODULE)
    assert ran.exit_code == 130
    assert "Go on with --resume." in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*MODULE, "--hidden", "3"), "--hidden is for tables, and not for --model."),
        ((*MODULE, "--threads", "3"), "--threads is for tables, and not for --model."),
        (("fit", "cars.csv", *MODULE[1:]), "DATA is for tables, and not for --model."),
        (("fit", "--model", "a.b:c", "--out", "m"), "--model needs --data"),
        (
            ("fit", "cars.csv", "--target", "y", "--out", "m", "--resume"),
            "--resume is for a module of your own",
        ),
        (("fit", "cars.csv", "--out", "m"), "missing option '--target'; see 'steepest fit --help'."),
        (("fit", "--out", "m"), "missing argument 'DATA'; see 'steepest fit --help'."),
    ],
)
def test_options_of_tables_and_of_modules_are_kept_apart(
    run: Run, module_fitted: SimpleNamespace, arguments: tuple[str, ...], words: str
) -> None:
    ran = run(*arguments)
    assert ran.exit_code == 2
    assert words in ran.err
    assert module_fitted.calls == []


def test_predictions_are_csv_on_standard_output(run: Run, fitted: SimpleNamespace) -> None:
    ran = run("predict", "m", "cars.csv")
    assert (ran.exit_code, ran.out) == (0, "prediction\nno\nsí\nno\n")


def test_probabilities_have_a_column_for_each_class(
    run: Run, fitted: SimpleNamespace, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    ran = run("predict", "m", "cars.csv", "--proba", "--out", out)
    assert (ran.exit_code, ran.out) == (0, "")
    assert out.read_text(encoding="utf-8").splitlines()[:2] == [
        "prediction,probability_no,probability_sí",
        "no,0.75,0.25",
    ]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("p.tsv", lambda path: pl.read_csv(path, separator="\t")),
        ("p.TXT", pl.read_csv),
        ("p", pl.read_csv),
        ("p.parquet", pl.read_parquet),
    ],
)
def test_predictions_are_written_as_their_file_is_named(
    run: Run, fitted: SimpleNamespace, tmp_path: Path, name: str, read: Callable[[Path], pl.DataFrame]
) -> None:
    """CSV in a file called ``.parquet`` was found out by whoever read it next."""
    assert run("predict", "m", "cars.csv", "--proba", "--out", tmp_path / name).exit_code == 0
    assert read(tmp_path / name).to_dict(as_series=False) == {
        "prediction": ["no", "sí", "no"],
        "probability_no": [0.75, 0.5, 1.0],
        "probability_sí": [0.25, 0.5, 0.0],
    }


@pytest.mark.parametrize("name", ["p.json", "p.csv.gz", "p.xlsx"])
def test_predictions_are_not_written_as_what_they_are_not(
    run: Run, fitted: SimpleNamespace, tmp_path: Path, name: str
) -> None:
    ran = run("predict", "m", "cars.csv", "--out", tmp_path / name)
    assert ran.exit_code == 2
    assert ran.err.endswith("a name that ends in .csv, .tsv or .parquet would do.\n")
    assert not list(tmp_path.iterdir())


def test_a_model_of_numbers_is_not_asked_for_probabilities(
    run: Run, fitted: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeModel, "classes", ())
    ran = run("predict", "m", "cars.csv", "--proba")
    assert (ran.exit_code, ran.out) == (2, "")
    assert ran.err == "steepest: --proba goes with a model of classes; this one predicts numbers.\n"


def test_what_the_model_notes_is_said_once_and_not_as_a_warning(run: Run, fitted: SimpleNamespace) -> None:
    fitted.model = FakeModel("The column 'colour' has a category never seen: 'teal'.")
    ran = run("predict", "m", "cars.csv", "--proba")
    assert ran.exit_code == 0
    assert ran.err == "steepest: The column 'colour' has a category never seen: 'teal'.\n"


@pytest.mark.parametrize(
    ("place", "words"), [("nowhere/p.csv", "there is no folder"), (".", "is a folder; name a file")]
)
@pytest.mark.parametrize(
    "command", [("predict", "m", "cars.csv", "--out"), ("explain", "mae", "--out"), ("bench", "--json")]
)
def test_a_file_that_cannot_be_written_is_refused_first(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: tuple[str, ...],
    place: str,
    words: str,
) -> None:
    for module in ("steepest.comparison.fitted", "steepest.explain", "steepest.bench"):
        monkeypatch.setitem(sys.modules, module, None)
    ran = run(*command, tmp_path / place)
    assert ran.exit_code == 2
    assert words in ran.err


def explanation(name: str) -> SimpleNamespace:
    return SimpleNamespace(
        text=f"{name}: mean of abs(y - p) [sic]",
        terminal=lambda: ["\\  /", " \\/"],
        save=lambda path: path.write_text("<svg/>"),
    )


def test_explain_prints_and_draws(run: Run, fake: Fake, tmp_path: Path) -> None:
    fake("steepest.explain", explain=explanation)
    ran = run("explain", "mae")
    assert ran.exit_code == 0
    assert ran.out == "mae: mean of abs(y - p) [sic]\n\\  /\n \\/\n"
    ran = run("explain", "mae", "--out", tmp_path / "mae.svg")
    assert ran.exit_code == 0
    assert (tmp_path / "mae.svg").exists()


def test_report_names_the_file(run: Run, fake: Fake, tmp_path: Path) -> None:
    fake("steepest.report", write=lambda directory, language: directory / f"{language}.html")
    assert run("report", tmp_path).out == f"Report: {tmp_path / 'en.html'}\n"
    assert run("report", tmp_path, "--lang", "zh").out == f"Report: {tmp_path / 'zh.html'}\n"
    ran = run("report", tmp_path, tmp_path, "--lang", "zh")
    assert (ran.exit_code, "the page about two is in English" in ran.err) == (2, True)


def test_bench_prints_its_rows_and_writes_them(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    row = {
        "work": "10-5-1", "peer": "torch", "version": "2.0", "quantity": "time", "note": "one thread [sic]",
        "ours": 5e-7, "ours_quartiles": [4e-7, 6e-7], "theirs": 2.5e-4, "theirs_quartiles": [2e-4, 3e-4],
        "ratio": 500.0, "bar": 100.0, "bar_kind": "ratio", "reached": True,
        "limit": None, "limit_rate": None, "share_of_limit": None,
    }  # fmt: skip
    result = {"machine": {"cores": 2}, "rows": [row]}
    asked = []

    def measure(
        name: str, *, quick: bool, device: str, only: str,
        on_work: Callable[[int, int, str], None], on_rows: Callable[[dict[str, Any]], None],
    ) -> dict[str, Any]:  # fmt: skip
        asked.append((name, quick, device, only))
        on_work(0, 1, "10-5-1")
        on_rows(result)
        return result

    monkeypatch.setattr("steepest.bench.run", measure)
    monkeypatch.setenv("COLUMNS", "160")
    ran = run("bench", "training", "--json", tmp_path / "b.json")
    assert ran.exit_code == 0, ran.err
    assert asked == [("training", False, "cpu", "")]
    for words in ("10-5-1", "torch 2.0", "500 ns", "250 µs", " 500 ", "reached", "cores 2"):
        assert words in ran.out
    assert "torch: one thread [sic]\n" in ran.out
    assert ran.err == "1 of 1  10-5-1\n"
    assert "mean nothing" not in ran.out
    assert json.loads((tmp_path / "b.json").read_text()) == result

    ran = run("bench", "losses", "--quick", "--only", "mse")
    assert asked[1:] == [("losses", True, "cpu", "mse")]
    assert "A quick run: the times mean nothing." in ran.out


def test_an_unknown_benchmark_is_refused(run: Run) -> None:
    ran = run("bench", "trainig")
    assert ran.exit_code == 2
    assert ran.err.count("\n") == 1
    assert "'training'" in ran.err


def test_list_shows_every_name(run: Run, fake: Fake) -> None:
    formula = SimpleNamespace(title="mean absolute error", tasks=("regression",))
    fake("steepest.losses", LOSSES={"mae": SimpleNamespace(formula=formula)})
    fake("steepest.optim", OPTIMIZERS={"adam": SimpleNamespace(title="Adam", default_lr=0.001)})
    fake("steepest.schedules", SCHEDULES={"cosine": SimpleNamespace(title="half a wave", formula="cos")})
    metric = SimpleNamespace(title="RMSE", tasks=("regression",))
    fake("steepest.training.metrics", METRICS={"rmse": metric})
    said = run("list").out
    for words in (
        "mae",
        "mean absolute error",
        "adam",
        "0.001",
        "rmse",
        "regression",
        "cosine",
        "half a wave",
    ):
        assert words in said
    assert run("list", "--names").out == "mae\nadam\ncosine\n"


def test_a_score_reads_as_a_person_writes_it() -> None:
    from steepest.screen.console import number

    given = [None, math.nan, 0.0, 0.123456, 12.3456, 1234.56, 12345.6, -54321.0, 1e12, 1e-7]
    assert [number(value) for value in given] == [
        "-",
        "-",
        "0.000",
        "0.1235",
        "12.35",
        "1235",
        "12,346",
        "-54,321",
        "1.000e+12",
        "1.000e-07",
    ]


def test_predictions_are_written_some_rows_at_a_time(
    run: Run, fitted: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("predict", "m", "cars.csv", "--proba").out
    monkeypatch.setattr("steepest.cli.predict._ROWS_AT_ONCE", 2)
    assert run("predict", "m", "cars.csv", "--proba").out == whole
    run("predict", "m", "cars.csv", "--proba", "--out", tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text(encoding="utf-8") == whole
