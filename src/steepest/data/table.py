"""A table as it came in: typed columns, and what there is to say about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from steepest.errors import InputError

__all__ = ["Table", "check_names"]


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
    """

    frame: pl.DataFrame
    source: str
    target: str | None = None
    notes: tuple[str, ...] = ()
    text: Mapping[str, pl.Series] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """How many rows the table has."""
        return self.frame.height

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return self.frame.columns


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
