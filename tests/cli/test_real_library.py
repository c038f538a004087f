"""The commands with the real library, on a table small enough to be quick: the two sides fit together."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Ran

Run = Callable[..., Ran]
SMALL = ("--hidden", "4", "--epochs", "5")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """120 rows: a number that follows from a number and a category."""
    source = random.Random(1)
    rows = []
    for _ in range(120):
        size, colour = source.random(), source.choice("xyz")
        rows.append(f"{size:.3f},{colour},{3 * size + 'xyz'.index(colour) + source.gauss(0, 0.1):.3f}")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["size,colour,price", *rows]) + "\n", encoding="utf-8")
    return path


def test_a_dry_run_says_what_would_be_run_and_writes_nothing(run: Run, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("compare", table, "--target", "price", "--losses", "mse,mae", "--optimizers", "adam")
    ran = run(*command, "--out", out, "--dry-run", *SMALL)
    assert ran.exit_code == 0, ran.err
    assert ran.out.startswith("Note: Target 'price' holds numbers (")
    assert "\nPlan: 2 losses x 1 optimizer x 1 batch size; for each of the 2, " in ran.out
    assert "runs of 5 epochs" in ran.out
    assert ran.err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_compare_then_report_then_predict(run: Run, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    choice = ("--losses", "mse,mae", "--optimizers", "adam", "--out", out)
    ran = run("compare", table, "--target", "price", *choice, *SMALL)
    assert ran.exit_code == 0, ran.err
    verdict = json.loads((out / "verdict.json").read_text(encoding="utf-8"))
    assert " ".join(verdict["sentence"].split()[:3]) in ran.out
    assert "winner" in ran.out
    assert "confirming on fresh seeds" in ran.err

    (out / "report.html").unlink()
    assert run("report", out).exit_code == 0
    assert (out / "report.html").stat().st_size > 10_000

    ran = run("predict", out, table)
    assert ran.exit_code == 0, ran.err
    assert len(ran.out.splitlines()) == 121

    ran = run(
        "compare",
        table,
        "--target",
        "price",
        "--plan",
        out / "plan.json",
        "--json",
        "--out",
        tmp_path / "again",
    )
    assert ran.exit_code == 0, ran.err
    assert json.loads(ran.out)["cells"] == verdict["cells"]


def test_fit_then_predict(run: Run, table: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    ran = run(
        "fit", table, "--target", "price", "--loss", "huber", "--optimizer", "adam", "--out", model, *SMALL
    )
    assert ran.exit_code == 0, ran.err
    assert "\nhuber with adam" in f"\n{ran.out}"
    out = tmp_path / "prices.csv"
    assert run("predict", model, table, "--out", out).exit_code == 0
    assert len(out.read_text(encoding="utf-8").splitlines()) == 121


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--target", "prise"), "did you mean 'price'?"),
        (("--target", "price", "--losses", "hubber"), "did you mean 'huber'?"),
        (("--target", "price", "--optimizers", "adm"), "did you mean 'adam'"),
        (("--target", "price", "--metric", "mea"), "did you mean 'mae'?"),
        (("--target", "price", "--losses", "cross_entropy"), "does not fit"),
        (("--target", "price", "--budget", "soon"), "budget"),
    ],
)
def test_wrong_input_is_one_sentence_and_nothing_is_written(
    run: Run, table: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    out = tmp_path / "out"
    ran = run("compare", table, *arguments, "--out", out)
    assert ran.exit_code == 2
    assert words in ran.err
    assert ran.err.startswith("steepest: ")
    assert ran.err.count("\n") == 1
    assert not out.exists()


def test_list_knows_the_missions_names(run: Run) -> None:
    names = set(run("list", "--names").out.split())
    assert {"mse", "mae", "bce", "cross_entropy", "sgd", "momentum", "rmsprop", "adam"} <= names
    assert run("list").exit_code == 0


def test_explain_prints_a_page_and_saves_its_drawing(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "focal.svg"
    ran = run("explain", "focal", "--out", place)
    assert ran.exit_code == 0, ran.err
    assert ran.out.startswith("focal: ")
    assert ran.out.endswith(f"Drawing: {place}\n")
    assert place.read_text(encoding="utf-8").startswith("<svg")


def test_explain_of_a_loss_without_a_drawing_is_words_alone(run: Run, tmp_path: Path) -> None:
    ran = run("explain", "nll")
    assert ran.exit_code == 0, ran.err
    assert ran.out.startswith("nll: ")
    assert "⣀" not in ran.out

    ran = run("explain", "nll", "--out", tmp_path / "nll.svg")
    assert ran.exit_code == 2
    assert ran.out == ""
    assert ran.err == (
        "steepest: nll has no drawing to save: its value depends on whole tensors, not on one number, so its page "
        "is words alone.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_list_knows_every_loss_optimizer_and_schedule(run: Run) -> None:
    from steepest.losses import LOSSES
    from steepest.optim import OPTIMIZERS
    from steepest.schedules import SCHEDULES

    assert run("list", "--names").out.split() == [*LOSSES, *OPTIMIZERS, *SCHEDULES]


def test_predictions_take_the_place_of_neither_table_nor_model(run: Run, table: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    asked = ("--target", "price", "--hidden", "none", "--lr", "0.1", "--epochs", "1")
    assert run("fit", table, *asked, "--out", model).exit_code == 0
    before = {path: path.read_bytes() for path in (table, *model.iterdir())}
    for out, what in ((table, "the table itself"), (model / "manifest.json", "a file of the model's")):
        ran = run("predict", model, table, "--out", out)
        assert (ran.exit_code, ran.err) == (2, f"steepest: --out {out} is {what}; {_mend(what)}.\n")
    for several in (table.parent, table.parent / "*.csv"):  # and among many files
        assert run("predict", model, several, "--out", table).exit_code == 2
    assert {path: path.read_bytes() for path in before} == before


def _mend(what: str) -> str:
    return "name another file" if what == "the table itself" else "name another"


def test_a_report_of_nothing_is_refused_in_one_sentence(run: Run, tmp_path: Path) -> None:
    ran = run("report", tmp_path / "nowhere")
    assert ran.exit_code == 2
    assert ran.err.endswith(
        "verdict.json' cannot be read: No such file or directory. Give the folder that steepest compare wrote.\n"
    )
    assert "is not JSON" not in ran.err
    (tmp_path / "steepest-cars").mkdir()
    ran = run("report", tmp_path / "steepest-car")
    assert ran.err.endswith("cannot be read: No such file or directory; did you mean 'steepest-cars'?\n")
    for asked in (["--resume"], ["--more-seeds", 1, "--extend"]):
        ran = run("compare", *asked, tmp_path / "steepest-car")
        assert ran.err.endswith("steepest-car' holds no comparison; did you mean 'steepest-cars'?\n")
