"""The work under way: ``unfinished/`` in the output directory, from which a comparison goes on after any end.

It holds the question as it was asked, the plan, and the journal of the runs that have ended; where a finished
comparison is extended, its records too. It is there before the first run, and goes when the comparison is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steepest.comparison.canonical import canonical_json
from steepest.comparison.earlier import RUNS, VERDICT, Earlier
from steepest.comparison.journal import Journal
from steepest.comparison.plan import Plan, read_plan
from steepest.errors import InputError

__all__ = ["QUESTION", "UNFINISHED", "Unfinished", "begin", "go_on", "question_of"]

UNFINISHED = "unfinished"
QUESTION = "question.json"
_PLAN, _JOURNAL, _EARLIER = "plan.json", "journal", "earlier"
FORMAT = 1


@dataclass(frozen=True)
class Unfinished:
    """The work under way in an output directory."""

    directory: Path
    plan: Plan

    def open_journal(self) -> Journal:
        """The journal, to be closed by the caller.

        Raises:
            InputError: it cannot be read or written, or another process is at work on it.
        """
        earlier = Earlier(self.directory / _EARLIER, self.plan) if self.is_extension else None
        return Journal(self.directory / _JOURNAL, earlier)

    @property
    def is_extension(self) -> bool:
        """Whether it extends a finished comparison, whose files stay until there are better ones."""
        return (self.directory / _EARLIER).exists()

    def copy_into(self, directory: Path) -> None:
        """Take it along to the directory that will stand in the output's place."""
        shutil.copytree(self.directory, directory / UNFINISHED)

    def copy_question_into(self, directory: Path) -> None:
        """Leave the question there: where the data are, for whoever asks for more later."""
        shutil.copy(self.directory / QUESTION, directory / QUESTION)

    def remove(self) -> None:
        """The comparison is complete."""
        shutil.rmtree(self.directory, ignore_errors=True)


def begin(place: Path, plan: Plan, data: Any, target: str | None, *, extends: bool = False) -> Unfinished:
    """Write the question and the plan down; ``extends``: and the records of the finished comparison at ``place``.

    Raises:
        InputError: there is unfinished work already, or it cannot be written.
    """
    directory = place / UNFINISHED
    if (directory / _JOURNAL).exists():
        journal = Journal(directory / _JOURNAL)
        journal.close()
        if len(journal):
            raise InputError(
                f"The output {str(place)!r} holds an unfinished comparison, {len(journal)} runs of it done. Go on "
                f"with it by --resume {place}, or remove it, or name another output."
            )
    path = str(Path(data).expanduser().resolve()) if isinstance(data, (str, os.PathLike)) else None
    question = {"format": FORMAT, "data": path, "target": target}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if extends:
            (directory / _EARLIER).mkdir(exist_ok=True)
            for name in (VERDICT, RUNS):
                shutil.copy(place / name, directory / _EARLIER / name)
        (directory / QUESTION).write_text(canonical_json(question), encoding="utf-8")
        fresh = directory / f"{_PLAN}.new"
        fresh.write_text(plan.to_json(), encoding="utf-8")
        fresh.replace(directory / _PLAN)  # last: without a plan nothing has begun
    except OSError as error:
        raise InputError(f"The output {str(place)!r} cannot be written: {error.strerror}.") from None
    return Unfinished(directory, plan)


def go_on(place: Path) -> Unfinished:
    """The work under way in a directory.

    Raises:
        InputError: there is none, or its plan cannot be read.
    """
    directory = _directory(place)
    return Unfinished(directory, read_plan(directory / _PLAN))


def question_of(place: Path) -> tuple[str | None, str | None]:
    """The data's path (None: they were not in a file) and the target, as they were asked.

    Raises:
        InputError: it cannot be read.
    """
    unfinished = place / UNFINISHED / QUESTION
    path = unfinished if unfinished.exists() else place / QUESTION
    try:
        question = json.loads(path.read_text(encoding="utf-8"))
        if question["format"] != FORMAT:
            raise ValueError
        return question["data"], question["target"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{str(path)!r} cannot be read; give the data and the target again.") from None


def _directory(place: Path) -> Path:
    directory = place / UNFINISHED
    if not (directory / _PLAN).exists():
        reason = "is complete" if (place / "verdict.json").exists() else "holds no comparison"
        raise InputError(f"There is nothing to resume: {str(place)!r} {reason}.")
    return directory
