"""The work under way: ``unfinished/`` in the output directory, from which a comparison goes on after any end.

It holds the question as it was asked, the plan, and the journal of the runs that have ended; where a finished
comparison is extended, its records too. It is there before the first run, and goes when the comparison is complete.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from steepest.comparison.canonical import canonical_json
from steepest.comparison.earlier import RUNS, VERDICT, Earlier
from steepest.comparison.imported import lasting_name
from steepest.comparison.journal import Journal
from steepest.comparison.output import written_beside
from steepest.comparison.plan import Plan, read_plan
from steepest.errors import MALFORMED, InputError, near_directories
from steepest.files import check_sums, encoded, parse_json, read_bytes, write_sums

__all__ = ["QUESTION", "UNFINISHED", "Question", "Unfinished", "begin", "go_on", "question_of", "under_way"]

UNFINISHED = "unfinished"
QUESTION = "question.json"
_PLAN, _JOURNAL, _EARLIER = "plan.json", "journal", "earlier"
_SUMMED = (QUESTION, _PLAN, f"{_EARLIER}/{VERDICT}", f"{_EARLIER}/{RUNS}")
FORMAT = 1


class Question(NamedTuple):
    """What a comparison was asked about, as far as it can be found again: None where it was an object in memory."""

    data: str | None  # where the table is; of a module the name of its data
    target: str | None
    model: str | None = None  # the name of a module's factory
    train: str | None = None  # the name of a training function

    @classmethod
    def of(cls, data: Any, target: str | None, model: Any, train: Any = None) -> Question:
        """Of what ``compare`` was given."""
        if train is not None:
            return cls(None, None, None, lasting_name(train) if isinstance(train, str) else None)
        if model is not None:
            named = isinstance(model, str) and isinstance(data, str)
            return cls(lasting_name(data), None, lasting_name(model)) if named else cls(None, None)
        path = str(Path(data).expanduser().resolve()) if isinstance(data, (str, os.PathLike)) else None
        return cls(path, target)


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
        shutil.copytree(self.directory, directory / UNFINISHED, symlinks=True)

    def copy_question_into(self, directory: Path) -> None:
        """Leave the question there: where the data are, for whoever asks for more later."""
        shutil.copy(self.directory / QUESTION, directory / QUESTION)

    def remove(self) -> None:
        """The comparison is complete."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def forget(self) -> None:
        """Nothing was done; of an output that was made for it nothing stays either."""
        self.remove()
        with contextlib.suppress(OSError):
            self.directory.parent.rmdir()  # where nothing else is in it


def begin(place: Path, plan: Plan, question: Question, *, extends: bool = False) -> Unfinished:
    """Write the question and the plan down; ``extends``: and the records of the finished comparison at ``place``.

    Raises:
        InputError: there is unfinished work already, or it cannot be written.
    """
    directory = _within(place)
    if (directory / _JOURNAL).exists():
        journal = Journal(directory / _JOURNAL)
        journal.close()
        if len(journal):
            raise InputError(
                f"The output {str(place)!r} holds an unfinished comparison, {len(journal)} runs of it done. Go on "
                f"with it by --resume {shlex.quote(str(place))}, or remove it, or name another output."
            )
    try:
        # Whole, beside the output, and then in its place at once: a kill leaves no half of it there.
        with written_beside(place) as beside:
            fresh = beside / UNFINISHED
            fresh.mkdir()
            if extends:
                (fresh / _EARLIER).mkdir()
                for name in (VERDICT, RUNS):
                    shutil.copy(place / name, fresh / _EARLIER / name)
            (fresh / QUESTION).write_bytes(encoded(canonical_json({"format": FORMAT, **question._asdict()})))
            (fresh / _PLAN).write_bytes(encoded(plan.to_json()))
            write_sums(fresh, _SUMMED)
            place.mkdir(exist_ok=True)
            if directory.exists():  # of one that had begun and not yet run anything
                directory.rename(beside / "stale")
            fresh.rename(directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            place.rmdir()  # where nothing else is in it
        raise InputError(f"The output {str(place)!r} cannot be written: {error.strerror}.") from None
    return Unfinished(directory, plan)


def go_on(place: Path) -> Unfinished:
    """The work under way in a directory.

    Raises:
        InputError: there is none, or its plan cannot be read.
    """
    directory = under_way(place)
    check_sums(directory, _SUMMED)
    return Unfinished(directory, read_plan(directory / _PLAN))


def under_way(place: Path) -> Path:
    """Where the work in a directory is.

    Raises:
        InputError: there is none.
    """
    directory = _within(place)
    if not (directory / _PLAN).exists():
        reason = "is complete" if (place / "verdict.json").exists() else "holds no comparison"
        raise InputError(f"There is nothing to resume: {str(place)!r} {reason}{near_directories(place)}")
    return directory


def question_of(place: Path) -> Question | None:
    """What was asked; None of a directory that holds no comparison.

    Raises:
        InputError: it cannot be read.
    """
    unfinished = place / UNFINISHED / QUESTION
    path = unfinished if unfinished.exists() else place / QUESTION
    if not (path.parent / _PLAN).exists():
        return None
    check_sums(path.parent, (QUESTION,))
    try:
        asked = parse_json(read_bytes(path))
        if asked["format"] != FORMAT:
            raise ValueError
        # Earlier ones name no module, and no training.
        question = Question(asked["data"], asked["target"], asked.get("model"), asked.get("train"))
        if not all(isinstance(one, str | None) for one in question):
            raise TypeError
        return question
    except (OSError, *MALFORMED):
        raise InputError(f"{str(path)!r} cannot be read; give the data and the target again.") from None


def _within(place: Path) -> Path:
    """The work's directory, which is none if it leads elsewhere: what is in it is written to, and removed.

    Raises:
        InputError: it is a link.
    """
    directory = place / UNFINISHED
    if directory.is_symlink():
        raise InputError(f"{str(directory)!r} is a symbolic link; put the directory itself in its place.")
    return directory
