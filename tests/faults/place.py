"""Where a fault happens: a table, a finished comparison and one that was interrupted, and commands run beside them."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.comparison.test_resume import StopsAfter, content

import steepest
from steepest.cli.main import main

OPTIONS: dict[str, Any] = {
    "hidden": (),
    "losses": ["mse"],
    "optimizers": ["sgd"],
    "max_epochs": 2,
    "splits": 1,
}
ASKED = ("--hidden", "none", "--losses", "mse", "--optimizers", "sgd", "--epochs", "2", "--splits", "1", "-q")
NOBODY = 65534
STOPPED = 130


class Place:
    """A directory of its own for one fault, with what a command said and how it ended.

    Attributes:
        table: a table with the target ``y``.
        out: a comparison that was interrupted after 20 runs.
        finished: one that was not.
    """

    def __init__(self, root: Path, made: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.patch = root, patch
        self.table, self.out, self.finished = root / "table.csv", root / "out", root / "finished"
        for name in ("table.csv", "out", "finished"):
            copy = shutil.copytree if (made / name).is_dir() else shutil.copy
            copy(made / name, root / name)
        self.code: int | None = None
        self.err = ""
        self.before: dict[str, bytes] = {}

    def steepest(
        self, *arguments: str | Path, within: contextlib.AbstractContextManager[Any] | None = None
    ) -> None:
        """Run a command in this process, ``within`` what is wrong about it."""
        self.before = self.files()
        err = io.StringIO()
        with (
            contextlib.redirect_stderr(err),
            contextlib.redirect_stdout(io.StringIO()),
            within or contextlib.nullcontext(),
        ):
            self.code = main([str(argument) for argument in arguments])
        self.err = err.getvalue()

    def compare(self, *more: str | Path, out: Path | None = None, table: Path | None = None) -> None:
        """Begin a comparison of the table."""
        self.steepest(
            "compare", table or self.table, "--target", "y", *ASKED, "--out", out or self.root / "new", *more
        )

    def resume(self) -> None:
        """Go on with the one that was interrupted."""
        self.steepest("compare", self.table, "--target", "y", "--resume", self.out, "-q")

    def process(self, arguments: Sequence[str | Path], **how: Any) -> None:
        """Run a command in a process of its own; ``shell`` is what the shell does to it."""
        self.before = self.files()
        shell = how.pop("shell", "")
        command = [sys.executable, "-m", "steepest", *map(str, arguments)]
        if shell:
            command = [
                "bash",
                "-c",
                f"{shell.replace('COMMAND', chr(34) + '$@' + chr(34))}",
                "bash",
                *command,
            ]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=120, check=False, **how
        )
        self.code, self.err = done.returncode, done.stderr

    def files(self) -> dict[str, bytes]:
        """Everything that lies here, links and pipes by their kind."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            if path.is_file() and not path.is_symlink()
            else b"-"
            for path in sorted(self.root.rglob("*"))
            if not path.is_dir() or path.is_symlink()
        }

    def tear(self, path: Path) -> None:
        """The second half of a file is lost."""
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])

    def turn(self, path: Path, at: float = 0.5) -> None:
        """One bit of a file is another."""
        whole = bytearray(path.read_bytes())
        whole[int(len(whole) * at)] ^= 1
        path.write_bytes(whole)

    def signals(self, number: int = signal.SIGTERM) -> Any:
        """A function that sends this process a signal, once."""
        left = [number]

        def send(*_: Any, **__: Any) -> None:
            if left:
                os.kill(os.getpid(), left.pop())

        return send


def make(directory: Path) -> None:
    """The table, the finished comparison and the interrupted one, as every place begins with."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2))
    pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": x @ [1.0, -2.0]}).write_csv(directory / "table.csv")
    steepest.compare(directory / "table.csv", "y", out=directory / "finished", **OPTIONS)
    stops = StopsAfter(20, signal.SIGINT)
    steepest.compare(directory / "table.csv", "y", out=directory / "out", progress=stops, **OPTIONS)


@contextlib.contextmanager
def open_to_all() -> Iterator[Path]:
    """A directory that another user can reach, which pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@contextlib.contextmanager
def as_another() -> Iterator[None]:
    """Be somebody whom permissions hold for, for a while: the superuser is not."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def same(one: Path, other: Path) -> bool:
    """Whether two comparisons left the same, times and their surroundings apart."""
    found = [content(path) for path in (one, other)]
    for each in found:
        del each["beside"]
    return found[0] == found[1]
