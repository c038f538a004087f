"""The commands with the real library, on a table small enough to be quick: the two sides fit together."""

from __future__ import annotations

import html
import json
import random
import re
import shlex
import sys
from collections.abc import Callable, Iterator
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


OWN = """
from steepest.backends.reference import expm1
from steepest.losses import from_formula
from steepest.optim import from_rule


def bounded(p, y, width=1.0):
    e = (p - y) / width
    return -expm1(-0.5 * e * e)


def rolling(p, g, m, lr, beta):
    m = beta * m + g
    return p - lr * m, m


Bounded = from_formula(bounded, name="bounded")
Rolling = from_rule(rolling, ["m"], {"lr": 0.01, "beta": 0.9}, name="rolling")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that makes a loss and an optimizer."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "formulas of ones own.py"
    path.write_text(OWN, encoding="utf-8")
    yield path
    sys.modules.pop(path.stem, None)


def test_code_of_ones_own_is_compared_explained_and_trained(
    run: Run, table: Path, own: Path, tmp_path: Path
) -> None:
    out, asked = tmp_path / "out", ("compare", table, "--target", "price", "--losses", "bounded")
    assert "There is no loss 'bounded'" in run(*asked).err
    ran = run(*asked, "--optimizers", "rolling", "--out", out, "--import", own, *SMALL)
    assert ran.exit_code == 0, ran.err
    assert json.loads((out / "verdict.json").read_text(encoding="utf-8"))["users_own"] == [
        "bounded",
        "rolling",
    ]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "FILE.py</code> is the file that makes your own loss or optimizer" in page
    (command,) = re.findall(r"<code>(steepest fit .*?)</code>", page)
    command = html.unescape(re.sub("<[^>]*>", "", command))
    names = {"DATA": table, "DIR": tmp_path / "again", "FILE.py": own}
    words = [names.get(word, word) for word in shlex.split(command)]
    assert run(*words[1:]).exit_code == 0

    said = " ".join(run("explain", "bounded", "--import", own).out.split())
    assert f"in Python {own.stem}.Bounded" in said
    assert f"command --loss bounded --import {shlex.quote(own.stem)};" in said
    said = " ".join(run("explain", "rolling").out.split())
    assert f"in Python {own.stem}.Rolling(parameters, lr=0.01)" in said
    assert {"bounded", "rolling"} < set(run("list", "--names", "--import", own).out.split())


TRAINING = """
import torch


def line(trial):
    print("trained")
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = trial.optimizer([weight])
    for _ in range(trial.epochs):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    return weight.detach().abs()
"""


def test_a_training_of_ones_own_is_compared_and_added_to(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path, out = tmp_path / "training_of_ones_own.py", tmp_path / "out"
    path.write_text(TRAINING, encoding="utf-8")
    asked = ("compare", "--train", f"{path}:line", "--optimizers", "sgd", "--epochs", "2")
    ran = run(*asked, "--dry-run")
    assert ran.exit_code == 0, ran.err
    assert ran.out.startswith("Plan: 1 optimizer; 16 learning rates on 3 seeds, then ")
    ran = run(*asked, "--out", out, "--json")
    assert ran.exit_code == 0, ran.err
    assert ran.out == (out / "verdict.json").read_text(encoding="utf-8")
    assert "trained" in ran.err
    ran = run("compare", "--extend", out, "--train", f"{path}:line", "--add-optimizers", "lion", "--json")
    assert {cell["optimizer"] for cell in json.loads(ran.out)["cells"]} == {"sgd", "lion"}
    sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("command", ["compare", "fit", "explain", "list"])
def test_code_that_cannot_be_imported_is_told_before_anything_else(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    broken = tmp_path / "broken_code_of_ones_own.py"
    broken.write_text("1 / 0", encoding="utf-8")
    for place, words in (
        (broken, "cannot be imported: ZeroDivisionError: division by zero."),
        ("nowhere.py", "steepest: The code 'nowhere.py' cannot be imported: there is no file 'nowhere.py'."),
    ):
        ran = run(command, "--import", place)
        assert (ran.exit_code, ran.out) == (2, "")
        assert words in ran.err
