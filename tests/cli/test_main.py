"""Exit codes, and the one sentence that goes with each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

import steepest
from steepest.cli.main import main
from steepest.errors import InputError

from .conftest import FakeCompare, Ran

Run = Callable[..., Ran]
COMMAND = ("compare", "cars.csv", "--target", "price", "--quiet")


def test_version(run: Run) -> None:
    ran = run("--version")
    assert (ran.exit_code, ran.out) == (0, f"steepest {steepest.__version__}\n")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_every_command(run: Run, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert ran.exit_code == 0
    for command in ("compare", "fit", "predict", "explain", "list", "report", "bench"):
        assert f" {command} " in ran.out


@pytest.mark.parametrize("command", ["compare", "fit", "predict", "explain", "list", "report", "bench"])
def test_each_command_has_help(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert ran.exit_code == 0
    assert f"Usage: steepest {command}" in ran.out


def test_wrong_input_is_one_sentence_and_2(run: Run, compare: FakeCompare) -> None:
    compare.error = InputError("There is no file 'cars.csv' here; did you mean 'car.csv'?")
    ran = run(*COMMAND)
    assert ran.exit_code == 2
    assert ran.err == "steepest: There is no file 'cars.csv' here; did you mean 'car.csv'?\n"
    assert ran.out == ""


@pytest.mark.parametrize(
    ("again", "said"),
    [
        (("--target", "weight"), "--target is given twice; give it once."),
        (("--losses", "mse", "--losses=mae"), "--losses is given twice; give it once, with commas between its values."),
        (("--seed", "1", "--seed", "2", "--seed", "3"), "--seed is given 3 times; give it once."),
    ],
)  # fmt: skip
def test_an_option_given_again_is_refused_and_not_dropped(
    run: Run, compare: FakeCompare, again: tuple[str, ...], said: str
) -> None:
    ran = run(*COMMAND, *again)
    assert (ran.exit_code, ran.err) == (2, f"steepest: {said}\n")
    assert not compare.calls


def test_what_may_be_given_again_still_may(run: Run, compare: FakeCompare, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.py", "b.py")]
    for file in files:
        file.write_text("", encoding="utf-8")
    ran = run(*COMMAND, "--quiet", "--import", str(files[0]), "--import", str(files[1]))
    assert ran.exit_code == 0
    assert len(compare.calls) == 1


def test_a_fault_of_ours_is_1_and_keeps_its_traceback(run: Run, compare: FakeCompare) -> None:
    compare.error = RuntimeError("a bolt came loose")
    ran = run(*COMMAND)
    assert ran.exit_code == 1
    assert "Traceback" in ran.err
    assert ran.err.endswith(
        "steepest: this is a fault of ours, not of your input: RuntimeError: a bolt came loose.\n"
    )


def test_ctrl_c_is_130(run: Run, compare: FakeCompare) -> None:
    compare.error = KeyboardInterrupt()
    ran = run(*COMMAND)
    assert (ran.exit_code, ran.err) == (130, "steepest: interrupted.\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("compar",), "no such command 'compar'; did you mean 'compare'?"),
        (("levitate",), "no such command 'levitate'; see 'steepest --help'."),
        (("--verson",), "steepest has no option --verson; did you mean '--version'?"),
        (("compare",), "missing argument 'DATA'; see 'steepest compare --help'."),
        (("explain",), "missing argument 'NAME'; see 'steepest explain --help'."),
        (("compare", "x.csv"), "missing option '--target'; see 'steepest compare --help'."),
        (("fit", "x.csv", "--target", "y"), "missing option '--out'; see 'steepest fit --help'."),
        (("compare", "x.csv", "--taget", "y"), "did you mean '--target'"),
        (("compare", "x.csv", "--target", "y", "--seed", "many"), "invalid value for '--seed'"),
        (("compare", "x.csv", "--target", "y", "--threads", "0"), "invalid value for '--threads'"),
        (("compare", "x.csv", "--target", "y", "z.csv"), "unexpected extra argument"),
        (("fit", "x", "--target", "y", "--out", "o", "--lr", "-1"), "--lr is -1: give a number above 0"),
        (("fit", "x", "--target", "y", "--out", "o", "--batch-size", "0"), "--batch-size has '0'"),
    ],
)
def test_wrong_usage_is_one_sentence_and_2(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    ran = run(*arguments)
    assert ran.exit_code == 2
    assert sentence in ran.err
    assert ran.err.startswith("steepest: ")
    assert ran.err.count("\n") == 1
    assert ran.out == ""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["compare", "--help"], ["--version"], ["compare", "x", "--nope"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """So that it answers at once."""
    heavy = {"torch", "numba", "sklearn", "scipy", "polars", "numpy", "altair", "narwhals", "pandas"}
    code = (
        "import sys\nfrom steepest.cli.main import main\n"
        f"main({arguments!r})\n"
        f"print('heavy:', sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: []\n")


def test_import_steepest_imports_nothing_heavy() -> None:
    code = (
        "import sys, steepest; print(sorted({'torch', 'numba', 'numpy', 'rich', 'typer'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "steepest", "levitate"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "steepest: no such command 'levitate'; see 'steepest --help'.\n"


def test_ctrl_c_while_the_command_is_being_loaded(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n", encoding="utf-8"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "steepest", "list"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert (done.returncode, done.stderr) == (130, "steepest: interrupted.\n")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "steepest", "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_of_the_progress_that_leaves_early_ends_no_comparison(tmp_path: Path) -> None:
    table = "a,y\n" + "".join(f"{row % 7}.5,{row % 5}.25\n" for row in range(40))
    (tmp_path / "t.csv").write_text(table, encoding="utf-8")
    read, write = os.pipe()
    os.close(read)
    command = (
        "compare t.csv --target y --losses mse --optimizers sgd --hidden none --epochs 1 --task regression"
    )
    done = subprocess.run(
        [sys.executable, "-m", "steepest", *command.split(), "--json"],
        stdout=subprocess.PIPE,
        stderr=write,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    os.close(write)
    assert done.returncode == 0
    assert json.loads(done.stdout)["status"] == "complete"
    assert (tmp_path / "steepest-t" / "report.html").is_file()


def test_a_terminal_without_unicode_still_gets_its_answer() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "steepest", "--help"], capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0
    assert b"compare" in done.stdout


def test_an_interruption_that_an_import_swallowed_is_one_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Command:
        def make_context(self, *_: Any) -> Any:
            return nullcontext()

        def invoke(self, _: Any) -> None:
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            raise ImportError("cannot load module more than once per process")

    monkeypatch.setattr("typer.main.get_command", lambda _: Command())
    before = signal.getsignal(signal.SIGINT)
    assert main([]) == 130
    assert capsys.readouterr().err == "steepest: interrupted.\n"
    assert signal.getsignal(signal.SIGINT) is before
