"""What rows held that no training row had: counted while they are encoded, told once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Met"]

_NUM_EXAMPLES = 3  # unseen categories that are named


@dataclass
class Met:
    """Counts over all tables that are encoded with it, pieces of one table perhaps.

    Attributes:
        num_rows: rows of them all.
    """

    num_rows: int = 0
    _missing: dict[tuple[str, str], int] = field(default_factory=dict)  # column, what stands in -> rows
    _unseen: dict[tuple[str, str], int] = field(
        default_factory=dict
    )  # column, what they are taken as -> rows
    _levels: dict[str, list[str]] = field(default_factory=dict)  # column -> the first of them
    _order: list[str] = field(default_factory=list)

    def missing(self, column: str, count: int, instead: str) -> None:
        """So many rows have no value, though every training row had one."""
        self._note(self._missing, column, count, instead)

    def unseen(self, column: str, count: int, levels: Sequence[str], taken: str) -> None:
        """So many rows hold a category, one of ``levels``, that no training row had."""
        self._note(self._unseen, column, count, taken)
        known = self._levels.setdefault(column, [])
        known += [level for level in levels if level not in known][: _NUM_EXAMPLES + 1 - len(known)]

    def _note(self, counts: dict[tuple[str, str], int], column: str, count: int, what: str) -> None:
        counts[column, what] = counts.get((column, what), 0) + count
        if column not in self._order:
            self._order.append(column)

    def sentences(self) -> list[str]:
        """What there is to say, column by column."""
        return [sentence for column in self._order for sentence in self._of(column)]

    def _of(self, column: str) -> list[str]:
        said = []
        for (name, taken), count in self._unseen.items():
            if name == column:
                levels = self._levels[column]
                named = ", ".join(map(repr, levels[:_NUM_EXAMPLES])) + ", ..." * (len(levels) > _NUM_EXAMPLES)
                said.append(
                    f"Column {column!r}: {count} of {self.num_rows} rows hold a category that no training row"
                    f" had ({named}); they are taken {taken}."
                )
        for (name, instead), count in self._missing.items():
            if name == column:
                said.append(
                    f"Column {column!r}: {count} of {self.num_rows} rows have no value, though every training row"
                    f" had one; {instead}."
                )
        return said
