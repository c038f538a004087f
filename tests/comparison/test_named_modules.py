"""A module of one's own is compared on by its name, as a command names it."""

from __future__ import annotations

import html
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import steepest
from steepest.cli.main import main
from steepest.comparison.imported import imported, lasting_name
from steepest.comparison.progress import Silent
from steepest.errors import InputError
from steepest.training.metrics import METRICS

SOURCE = """
import numpy as np
import torch
from torch import nn

import steepest

X = torch.linspace(-1, 1, 60).reshape(30, 2)
parts = [(X[part], X[part].sum(1)) for part in (slice(14), slice(14, 22), slice(22, 30))]
worst_of_all = steepest.metric(lambda y, p: float(np.abs(y - p).max()), greater_is_better=False, name="worst_of_all")


def net():
    return nn.Linear(2, 1)


def given():
    return parts


def fails():
    raise OSError("no such disk")
"""
OPTIONS: dict[str, Any] = {
    "losses": ["mse"],
    "optimizers": ["sgd"],
    "max_epochs": 2,
    "metric": "worst_of_all",
}
WORDS = ("--losses", "mse", "--optimizers", "sgd", "--epochs", "2", "--metric", "worst_of_all")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A program of the user's, in the current folder."""
    path = tmp_path / "a_persons_own.py"
    path.write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield path
    sys.modules.pop(path.stem, None)
    METRICS.pop("worst_of_all", None)


class StopsAfter(Silent):
    """Ctrl-C after so many runs."""

    def __init__(self, num_runs: int) -> None:
        self.left = num_runs

    def run_finished(self, record: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def without_seconds(verdict: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in verdict.items() if name != "seconds"}


@pytest.mark.parametrize("data", ["parts", "given"])
@pytest.mark.parametrize("place", ["a_persons_own", "a_persons_own.py", "./a_persons_own.py"])
def test_by_its_name_it_is_what_it_is_as_an_object(file: Path, place: str, data: str) -> None:
    by_name = steepest.compare(model=f"{place}:net", data=f"{place}:{data}", **OPTIONS)
    own = sys.modules["a_persons_own"]
    as_object = steepest.compare(model=own.net, data=own.parts, **OPTIONS)
    assert without_seconds(by_name.verdict) == without_seconds(as_object.verdict)


def test_it_is_gone_on_with_by_name_in_another_process(file: Path, tmp_path: Path) -> None:
    """Where nobody has made its metric, which the plan names, before its file is imported."""
    names = {"model": "a_persons_own.py:net", "data": "a_persons_own.py:given"}
    whole = steepest.compare(**names, **OPTIONS)
    cut = steepest.compare(**names, **OPTIONS, out=tmp_path / "out", progress=StopsAfter(9))
    assert cut.interrupted
    goes_on = [sys.executable, "-m", "steepest", "compare", "--resume", "out"]
    refused = subprocess.run(goes_on, capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr == (
        f"steepest: The comparison in {str(tmp_path / 'out')!r} is of a module of your own; name it again: --resume "
        f"{tmp_path / 'out'} --model {file}:net --data {file}:given.\n"
    )
    arguments = ["--model", "a_persons_own:net", "--data", f"{file}:given", "--json"]
    done = subprocess.run([*goes_on, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert without_seconds(json.loads(done.stdout)) == without_seconds(json.loads(json.dumps(whole.verdict)))


def test_a_directory_names_no_code_to_run(file: Path, tmp_path: Path) -> None:
    """It may come from a stranger: what it says is shown, as one word each, and never imported."""
    assert (
        main(["compare", "--model", "a_persons_own:net", "--data", "a_persons_own:parts", *WORDS, "-q"]) == 0
    )
    out = tmp_path / "steepest-net"
    question = json.loads((out / "question.json").read_text())
    assert (question["model"], question["data"]) == ("a_persons_own:net", "a_persons_own:parts")
    (out / "SHA256SUMS").unlink()
    (out / "question.json").write_text(json.dumps(question | {"model": "evil; touch gone:f"}))
    with pytest.raises(
        InputError, match=re.escape("--model 'evil; touch gone:f' --data a_persons_own:parts")
    ):
        steepest.compare(extend=out, add_losses=["mae"])


def test_the_reports_command_trains_the_module_again(file: Path, tmp_path: Path) -> None:
    options = {"schedules": ["cosine"], "warmup": 0.1, "tune": "all", "seeds": 3}
    steepest.compare(
        model="a_persons_own:net", data="a_persons_own:parts", out=tmp_path / "out", **OPTIONS, **options
    )
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    (command,) = re.findall(r"<code>(steepest fit .*?)</code>", page)
    command = html.unescape(re.sub("<[^>]*>", "", command))
    words = [
        {"MODULE:NAME": "a_persons_own:net", "MODULE:PARTS": "a_persons_own:parts", "DIR": "again"}.get(
            word, word
        )
        for word in shlex.split(command)
    ]
    assert main(words[1:]) == 0
    record = json.loads((tmp_path / "again" / "record.json").read_text())
    assert record["status"] == "complete"
    winner = json.loads((tmp_path / "out" / "verdict.json").read_text())["winners"][0]
    asked = record["question"]
    assert (asked["loss"], asked["optimizer"], asked["lr"]) == ("mse", "sgd", winner["lr"])
    assert (asked["schedule"], asked["batch_size"]) == ("cosine", winner["batch_size"])


def test_what_to_type_is_quoted(file: Path, tmp_path: Path) -> None:
    """A folder with a space in its name is one word of a command."""
    out = tmp_path / "an output"
    names = {"model": "a_persons_own:net", "data": "a_persons_own:parts"}
    assert steepest.compare(**names, **OPTIONS, out=out, progress=StopsAfter(9)).interrupted
    for asked in (
        {"resume": out},
        {**names, **OPTIONS, "out": out},
        {**names, "extend": out, "more_seeds": 1},
    ):
        with pytest.raises(InputError, match=re.escape(f"--resume {shlex.quote(str(out))}")):
            steepest.compare(**asked)


def test_a_plan_with_names_of_ones_own_asks_for_their_code(file: Path, tmp_path: Path) -> None:
    steepest.compare(model="a_persons_own:net", data="a_persons_own:parts", **OPTIONS, out=tmp_path / "out")
    own = METRICS.pop("worst_of_all")
    with pytest.raises(
        InputError, match=r"The plan's metric 'worst_of_all' is not known here; if it is your own"
    ):
        steepest.compare(
            model=sys.modules["a_persons_own"].net,
            data=sys.modules["a_persons_own"].parts,
            plan=tmp_path / "out" / "plan.json",
        )
    METRICS["worst_of_all"] = own


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "import sys; sys.exit()",
            "for it ends the program: SystemExit. What it does as a script goes under",
        ),
        ("import argparse; argparse.ArgumentParser().parse_args(['-x'])", "the program: SystemExit: 2. What"),
        (
            "from . import other",
            "As a part of its package it has a name with points, such as 'my_package.odd'",
        ),
        ("", "'odd.py' has no 'net'."),
    ],
)
def test_a_file_that_is_no_module_is_told(file: Path, source: str, words: str) -> None:
    (file.parent / "odd.py").write_text(source, encoding="utf-8")
    try:
        with pytest.raises(InputError, match=re.escape(words)):
            imported("odd.py:net", "The model")
    finally:
        sys.modules.pop("odd", None)


def test_a_files_name_with_a_point_is_told(file: Path) -> None:
    file.rename(file.with_name("version.2.py"))
    with pytest.raises(
        InputError, match="cannot be imported: no module's name has a point in it; give the file"
    ):
        imported("version.2.py:net", "The model")


@pytest.mark.parametrize("data", ["ends", "EndsLater"])
def test_code_that_ends_the_program_ends_it_with_a_sentence(
    file: Path, capsys: pytest.CaptureFixture[str], data: str
) -> None:
    with file.open("a", encoding="utf-8") as source:
        source.write(
            "def ends():\n    raise SystemExit('no data today')\n"
            "class Ending(torch.utils.data.Dataset):\n    __len__ = lambda self: 4\n"
            "    def __getitem__(self, i):\n        raise SystemExit(0)\n"
            "EndsLater = [Ending(), *parts[1:]]\n"
        )
    told = {
        "ends": "The data function failed: SystemExit: no data today.",
        "EndsLater": "code of your own ended the program: SystemExit: 0.",
    }
    assert main(["compare", "--model", "a_persons_own:net", "--data", f"a_persons_own:{data}", *WORDS]) == 2
    assert capsys.readouterr().err.endswith(f"steepest: {told[data]}\n")


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        ("net", "a_persons_own:parts", "The model is 'net'; give 'package.module:name'"),
        ("a_persons_own.py", "a_persons_own:parts", "or 'file.py:name'."),
        ("a_persons_own:nett", "a_persons_own:parts", "'a_persons_own' has no 'nett'; did you mean 'net'?"),
        ("a_persons_own:net", "a_persons_own.py:part", "did you mean 'parts'?"),
        ("nowhere.py:net", "a_persons_own:parts", "cannot be imported: there is no file 'nowhere.py'."),
        ("nowhere:net", "a_persons_own:parts", "No module named 'nowhere'."),
        ("a_persons_own:X", "a_persons_own:parts", "The model is a Tensor; give a function"),
        ("a_persons_own:net", "a_persons_own:fails", "The data function failed: OSError: no such disk"),
        ("a_persons_own:net", "a_persons_own:X", "data is (train, validation, test)"),
        ("a_persons_own:net", None, "with model=..., give (train, validation, test)"),
    ],
)
def test_a_name_that_is_none_is_told(file: Path, model: str, data: str | None, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        steepest.compare(data, model=model, **OPTIONS)


def test_a_file_does_not_pass_for_a_module_of_its_name(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / file.name
    other.parent.mkdir()
    other.write_text(SOURCE, encoding="utf-8")
    assert imported(f"{file}:net", "The model").__module__ == "a_persons_own"
    with pytest.raises(InputError, match="a module of the name 'a_persons_own' is there already"):
        imported(f"{other}:net", "The model")


def test_a_files_name_lasts_in_another_folder(file: Path, tmp_path: Path) -> None:
    assert lasting_name("a_persons_own.py:net") == f"{file}:net"
    assert lasting_name("a_persons_own:net") == "a_persons_own:net"
