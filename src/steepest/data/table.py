"""A table as it came in: typed columns, and what there is to say about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from steepest.errors import InputError, near_names

__all__ = [
    "Table",
    "check_names",
    "check_not_target",
    "check_there",
    "no_such_target",
    "told_of",
    "which",
    "without",
]

_MOST_NAMED = 10


@dataclass(frozen=True)
class Table:
    """Rows and columns, each column of one of six types: see ``kinds.py``.

    Attributes:
        frame: the columns, in order. A missing value is a null, never a NaN.
        source: what to call the table in a message, such as ``"'cars.csv'"``.
        target: the name of the target column, where one was given.
        notes: what reading had to decide, a sentence each.
        text: columns that were read as numbers, booleans or dates, as the text they stood in. A model that
            knows such a column as categories takes this text: "007" stays "007".
        problems: columns that cannot be used, each with the sentence that says why. It is an error to need
            such a column, not to have one.
        by_place: whether the columns have places and no names of their own, as a matrix's have.
    """

    frame: pl.DataFrame
    source: str
    target: str | None = None
    notes: tuple[str, ...] = ()
    text: Mapping[str, pl.Series] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    by_place: bool = False

    @property
    def num_rows(self) -> int:
        """How many rows the table has."""
        return self.frame.height

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return self.frame.columns


def no_such_target(target: str, columns: Sequence[str], source: str) -> InputError:
    """That there is no such column to predict; several with commas between are told that it is one at a time."""
    several = [name.strip() for name in target.split(",")]
    if len(several) > 1 and set(several) <= set(columns):
        return InputError(
            f"One column is predicted at a time, and {target!r} names {len(several)}; give one of them."
        )
    return InputError(f"There is no column {target!r} in {source}{near_names(target, columns)}")


def which(names: Sequence[str]) -> str:
    """What a note on columns begins with: ``Column 'a'``, or ``Each of the columns 'a', 'b'``; of many the first ten.

    >>> which(["a"]), which(["a", "b"])
    ("Column 'a'", "Each of the columns 'a', 'b'")
    """
    if len(names) == 1:
        return f"Column {names[0]!r}"
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"Each of the columns {', '.join(map(repr, names[:_MOST_NAMED]))}{more}"


def told_of(notes: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The notes that are about one of these columns."""
    begins = tuple(f"Column {name!r}{end}" for name in columns for end in (" ", ":"))
    return [note for note in notes if note.startswith(begins)]


def without(table: Table, ignored: Sequence[str]) -> Table:
    """The table less some columns, and less what there was to say about them.

    Raises:
        InputError: it has no such column, or it is the target.
    """
    if not ignored:
        return table
    check_there(ignored, table.columns, table.source)
    check_not_target(ignored, table.target)
    return replace(
        table,
        frame=table.frame.drop(ignored),
        notes=tuple(note for note in table.notes if note not in told_of(table.notes, ignored)),
        text={name: column for name, column in table.text.items() if name not in ignored},
        problems={name: problem for name, problem in table.problems.items() if name not in ignored},
        by_place=False,
    )


def check_there(ignored: Sequence[str], columns: Sequence[str], source: str) -> None:
    """Columns to leave out are there to begin with.

    Raises:
        InputError: one is not.
    """
    for name in ignored:
        if name not in columns:
            raise InputError(f"There is no column {name!r} to ignore in {source}{near_names(name, columns)}")


def check_not_target(ignored: Sequence[str], target: str | None) -> None:
    """What is to be predicted is not left out.

    Raises:
        InputError: it is.
    """
    if target in ignored:
        raise InputError(f"The target {target!r} cannot be ignored; it is what is to be predicted.")


def check_names(names: Sequence[str], source: str) -> None:
    """Every column has a name of its own.

    Raises:
        InputError: two columns share a name.
    """
    seen: set[str] = set()
    for place, name in enumerate(names, start=1):
        if name in seen:
            first = list(names).index(name) + 1
            raise InputError(
                f"Columns {first} and {place} of {source} have the same name {name!r}; "
                "give every column a name of its own."
            )
        seen.add(name)
