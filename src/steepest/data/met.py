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
    _counts: dict[tuple[str, str], int] = field(default_factory=dict)  # column, what is said of it -> rows
    _levels: dict[str, list[str]] = field(default_factory=dict)  # column -> the first unseen ones

    def missing(self, column: str, count: int, instead: str) -> None:
        """So many rows have no value, though every training row had one."""
        self._count(column, f"have no value, though every training row had one; {instead}", count)

    def unseen(self, column: str, count: int, levels: Sequence[str], taken: str) -> None:
        """So many rows hold a category, one of ``levels``, that no training row had."""
        self._count(
            column, f"hold a category that no training row had ({{levels}}); they are taken {taken}", count
        )
        known = self._levels.setdefault(column, [])
        known += [level for level in levels if level not in known][: _NUM_EXAMPLES + 1 - len(known)]

    def _count(self, column: str, what: str, count: int) -> None:
        self._counts[column, what] = self._counts.get((column, what), 0) + count

    def sentences(self) -> list[str]:
        """What there is to say, column by column."""
        columns = list(dict.fromkeys(column for column, _ in self._counts))
        return [
            f"Column {column!r}: {count:,} of {self.num_rows:,} rows {what.format(levels=self._named(column))}."
            for (column, what), count in sorted(
                self._counts.items(), key=lambda found: columns.index(found[0][0])
            )
        ]

    def _named(self, column: str) -> str:
        levels = self._levels.get(column, [])
        return ", ".join(map(repr, levels[:_NUM_EXAMPLES])) + ", ..." * (len(levels) > _NUM_EXAMPLES)
