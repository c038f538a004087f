"""``steepest compare``: what it hands to the library, and what it prints."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import FakeCompare, Ran, cell, verdict_of

Run = Callable[..., Ran]
COMMAND = ("compare", "cars.csv", "--target", "price")


def test_only_what_was_given_is_handed_on(run: Run, compare: FakeCompare) -> None:
    assert run(*COMMAND, "--quiet").exit_code == 0
    assert compare.calls == [
        {"data": "cars.csv", "target": "price", "out": Path("steepest-cars"), "progress": None}
    ]


def test_a_plan_has_decided_the_target(run: Run, compare: FakeCompare) -> None:
    """A target beside it was to be left out, and without one it was missing."""
    ran = run("compare", "cars.csv", "--plan", "plan.json", "--quiet")
    assert ran.exit_code == 0, ran.err
    assert compare.calls == [
        {
            "data": "cars.csv",
            "target": None,
            "plan": Path("plan.json"),
            "out": Path("steepest-cars"),
            "progress": None,
        }
    ]
    assert "missing argument 'DATA'" in run("compare", "--plan", "plan.json").err


def test_every_option_reaches_the_library(run: Run, compare: FakeCompare) -> None:
    options = (
        "--task regression --losses mse,mae --optimizers adam --batch-sizes full,1,32 --hidden 8,4 "
        "--schedules constant,wsd --warmup 0.1 "
        "--activation tanh --metric mae --seeds 5 --epochs 7 --budget 5m --out there --seed 3 --threads 2 "
        "--plan plan.json --group driver --time when --tune all --splits 12 --rows 900 --tensorboard logs --quiet"
    )
    assert run(*COMMAND, *options.split()).exit_code == 0
    assert compare.calls == [
        {
            "data": "cars.csv",
            "target": "price",
            "task": "regression",
            "losses": ("mse", "mae"),
            "optimizers": ("adam",),
            "batch_sizes": ("full", 1, 32),
            "schedules": ("constant", "wsd"),
            "warmup": 0.1,
            "hidden": (8, 4),
            "activation": "tanh",
            "metric": "mae",
            "seeds": 5,
            "max_epochs": 7,
            "budget": "5m",
            "out": Path("there"),
            "seed": 3,
            "num_threads": 2,
            "plan": Path("plan.json"),
            "group": "driver",
            "time": "when",
            "tensorboard": Path("logs"),
            "tune": "all",
            "splits": 12,
            "rows": 900,
            "progress": None,
        }
    ]


def test_the_verdict_stands_out_and_the_report_is_named(run: Run, compare: FakeCompare) -> None:
    compare.verdict = verdict_of(
        cell(loss="mae"),
        cell(score=54.0, kind="default"),
        cell(optimizer="sgd", score=61234.5, tuned=False, barred="best rate at the grid's edge"),
        notes=["The column 'id' has one value [sic]; it is left out."],
    )
    said = run(*COMMAND, "--out", "there").out
    assert "Use mae with adam." in said
    assert f"Report: {Path('there') / 'report.html'}" in said
    assert "the column 'id' has one value [sic]" in said.lower()
    rows = [line.split() for line in said.splitlines() if "adam" in line or "sgd" in line]
    assert rows[1][:4] == [
        "mae",
        "adam",
        "0.001",
        "53.50",
    ]  # all have one batch size, which the sentence tells
    assert [row[-1] for row in rows[1:]] == ["winner", "default", "tuned"]
    assert "61,234" in said
    assert "lower is better" in said


def test_a_narrow_terminal_keeps_what_decides(
    run: Run, compare: FakeCompare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    said = run(*COMMAND).out
    assert "winner" in said
    assert "95%" not in said
    assert max(len(line) for line in said.splitlines() if "Report" not in line) <= 40


@pytest.mark.parametrize(
    ("columns", "has_interval", "has_rate"), [(80, True, True), (66, False, True), (56, False, False)]
)
def test_a_table_leaves_to_the_report_what_a_line_cannot_hold(
    run: Run,
    compare: FakeCompare,
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
    has_interval: bool,
    has_rate: bool,
) -> None:
    default = cell(loss="cross_entropy", optimizer="momentum", kind="default")
    baseline = {"says": "the mean", "score": 61.5, "interval": [1.0, 2.0], "beaten": True}
    compare.verdict = verdict_of(default, cell(lr=0.00464), winners=[default], baseline=baseline)
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run(*COMMAND).out.splitlines()
    (row,) = [line.split() for line in lines if "momentum" in line and "│" not in line]
    assert ("to" in row, "0.001" in row) == (has_interval, has_rate)
    assert (row[0], row[-2:]) == ("cross_entropy", ["winner,", "default"])
    assert "without a model, always the mean" in " ".join(" ".join(lines).split())


def test_what_the_scores_are_is_one_line_below_a_narrow_table_too(run: Run, compare: FakeCompare) -> None:
    baseline = {"says": "the classes' shares", "score": 61.5, "interval": [1.0, 2.0], "beaten": True}
    compare.verdict = verdict_of(cell(), baseline=baseline)
    lines = [line.strip() for line in run(*COMMAND).out.splitlines()]
    assert "RMSE: lower is better; without a model, always the classes' shares: 61.50" in lines


def test_the_batch_has_a_column_where_there_are_several(run: Run, compare: FakeCompare) -> None:
    compare.verdict = verdict_of(cell(), cell(batch_size="full"))
    rows = [line.split() for line in run(*COMMAND).out.splitlines() if line.startswith(" mse")]
    assert [row[2] for row in rows] == ["32", "full"]


def test_a_long_table_is_cut_and_says_so(run: Run, compare: FakeCompare) -> None:
    cells = [cell(lr=0.001 * place) for place in range(1, 41)]
    compare.verdict = verdict_of(*cells, winners=[cells[0], cells[30]])
    assert "20 more in the report, 1 of them a winner too." in run(*COMMAND).out
    compare.verdict = verdict_of(*cells, winners=cells)
    assert "20 more in the report, all of them winners too." in run(*COMMAND).out
    compare.verdict = verdict_of(*cells)
    assert "20 more in the report." in run(*COMMAND).out


def test_a_verdict_is_not_asked_of_a_dry_run(run: Run, compare: FakeCompare) -> None:
    ran = run("compare", "cars.csv", "--target", "price", "--json", "--dry-run")
    assert (ran.exit_code, ran.out) == (2, "")
    assert "with --dry-run there is none" in ran.err


def test_where_nothing_was_scored_there_is_no_table(run: Run, compare: FakeCompare) -> None:
    compare.verdict = verdict_of(cell()) | {"cells": [], "winners": [], "notes": ["Interrupted."]}
    out = run(*COMMAND).out
    assert "optimizer" not in out
    assert "is better" not in out
    assert "Note: Interrupted." in out


def test_a_score_that_is_not_there_is_a_dash(run: Run, compare: FakeCompare) -> None:
    compare.verdict = verdict_of(cell(), cell(lr=9.0, score=None, interval=None, barred="diverged"))
    ran = run(*COMMAND)
    assert ran.exit_code == 0
    assert ran.out.count(" - ") == 2


def test_json_is_the_file_and_nothing_else(run: Run, compare: FakeCompare, tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text('{"sentence": "Use mae."}\n', encoding="utf-8")
    ran = run(*COMMAND, "--json", "--out", tmp_path)
    assert json.loads(ran.out) == {"sentence": "Use mae."}


def test_quiet_is_the_verdict_and_the_paths(run: Run, compare: FakeCompare) -> None:
    ran = run(*COMMAND, "--quiet")
    assert "Use mae with adam." in ran.out
    assert "interval" not in ran.out
    assert ran.err == ""


def test_interrupted_says_so_and_keeps_what_there_is(run: Run, compare: FakeCompare) -> None:
    compare.interrupted = True
    compare.verdict = verdict_of(cell(), status="interrupted")
    compare.model = None
    ran = run(*COMMAND)
    assert ran.exit_code == 130
    assert "interrupted" in ran.out
    assert "Use mae with adam." in ran.out
    assert "report.html" in ran.out
    assert "Model:" not in ran.out
    assert re.search(r" adam .*best so far", ran.out)
    assert "winner" not in ran.out


def test_an_extension_names_its_folder_and_what_to_add(run: Run, compare: FakeCompare) -> None:
    ran = run(
        "compare",
        "--extend",
        "done",
        "--more-seeds",
        "10",
        "--add-optimizers",
        "lion,adan",
        "--add-losses",
        "mae",
    )
    assert ran.exit_code == 0
    (call,) = compare.calls
    assert call.pop("progress") is not None
    assert call == {
        "data": None,
        "target": None,
        "out": None,
        "extend": Path("done"),
        "more_seeds": 10,
        "add_optimizers": ("lion", "adan"),
        "add_losses": ("mae",),
    }
    assert f"Report: {Path('done') / 'report.html'}" in ran.out
    for twice in (("--out", "there"), ("--resume", "done")):
        ran = run("compare", "--extend", "done", *twice)
        assert (ran.exit_code, len(compare.calls)) == (2, 1)


MODULE = ("compare", "--model", "mine:net", "--data", "mine:parts")


def test_a_module_is_named_with_its_data(run: Run, compare: FakeCompare) -> None:
    ran = run(*MODULE, "--one-by-one", "--compile", "--metric", "f1", "--device", "cuda", "--quiet")
    assert ran.exit_code == 0
    assert compare.calls == [
        {
            "model": "mine:net",
            "data": "mine:parts",
            "together": False,
            "compile": True,
            "metric": "f1",
            "device": "cuda",
            "out": Path("steepest-net"),
            "progress": None,
        }
    ]


@pytest.mark.parametrize("word", ["--resume", "--extend"])
def test_a_module_is_named_again_where_its_comparison_goes_on(
    run: Run, compare: FakeCompare, word: str
) -> None:
    compare.interrupted = True
    ran = run(*MODULE, word, "there", "--import", "json", "--compile", "--device", "cuda", "--quiet")
    assert (
        "Go on with it: steepest compare --resume there --model mine:net --data mine:parts --compile --device cuda "
        "--import json\n" in ran.err
    )
    (call,) = compare.calls
    assert (call["model"], call["data"], call[word[2:]], call["out"]) == (
        "mine:net",
        "mine:parts",
        Path("there"),
        None,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        *(
            ((*MODULE, *given.split()), f"{given.split()[0]} is for tables, and not for --model.")
            for given in (
                "--hidden 3", "--activation tanh", "--ignore a", "--group a", "--time a", "--splits 12", "--rows 9",
                "--threads 2", "--ray local", "--target y",
            )
        ),
        (("compare", "cars.csv", *MODULE[1:]), "DATA is for tables, and not for --model."),
        (("compare", "--model", "mine:net"), "--model needs --data, such as --data my_models:parts."),
        ((*COMMAND, "--data", "mine:parts"), "--data is for a module of your own, and --model is missing."),
        ((*COMMAND, "--compile"), "--compile is for a module of your own, and --model is missing."),
        (("compare", "--resume", "d", "--together"), "--together is for a module of your own"),
        ((*COMMAND, "--more-seeds", "3"), "--more-seeds goes with --extend and a finished comparison."),
    ],
)  # fmt: skip
def test_options_of_tables_and_of_modules_are_kept_apart(
    run: Run, compare: FakeCompare, arguments: tuple[str, ...], words: str
) -> None:
    ran = run(*arguments)
    assert ran.exit_code == 2
    assert words in ran.err
    assert compare.calls == []


def test_a_wrong_option_costs_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before the library is even imported."""
    monkeypatch.setitem(sys.modules, "steepest.comparison.compare", None)
    ran = run(*COMMAND, "--batch-sizes", "32,all")
    assert ran.exit_code == 2
    assert ran.err.startswith("steepest: --batch-sizes has 'all': give 'full'")


def test_where_rows_were_drawn_the_command_for_all_of_them_is_printed(run: Run, compare: FakeCompare) -> None:
    network = {"hidden": [8, 4], "activation": "tanh"}
    winner = cell(loss="huber", loss_options={"delta": 2.5}, optimizer_options={})
    compare.verdict = verdict_of(
        winner, winners=[winner], rows=900, target="the price", epochs=7, architecture=network
    )
    said = " ".join(run(*COMMAND).out.split())
    assert (
        "On all rows: steepest fit cars.csv --target 'the price' --task regression --loss huber --optimizer adam "
        "--lr 0.001 --loss-options delta=2.5 --batch-size 32 --epochs 7 --hidden 8,4 --activation tanh --metric rmse "
        "--out model" in said
    )
    compare.verdict = compare.verdict | {"rows": None}
    assert "On all rows" not in run(*COMMAND).out
