"""Learning an encoding from rows that come in batches: one pass, and the figures of all rows at once.

Means, deviations and the counts of categories are exact but for rounding. The median, which stands in for missing
values, is that of a uniform sample of the training rows: its rank lies within 0.5% of the middle with 99% confidence,
and on fewer rows than the sample takes it is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from steepest.data.encoding import CategoricalColumn, NumericColumn, Part
from steepest.data.kinds import DATETIME, kind_of
from steepest.data.learn import Summary, categories, keep_useful, too_large, useless
from steepest.data.moments import Moments
from steepest.data.parts import DATE_PARTS, part_values
from steepest.data.table import Table
from steepest.errors import InputError
from steepest.training.random import SAMPLE, hashed

__all__ = ["MAX_COUNTED", "ColumnsLearner"]

MAX_COUNTED = 100_000  # different texts of a column; with more of them it is left out
_SAMPLE_ROWS, _SAMPLE_BYTES = 1 << 16, 1 << 25


class ColumnsLearner:
    """Takes training rows batch by batch, and then says how they are encoded.

    Args:
        names: the feature columns.
        source: what to call the table in a message.
        seed: decides the sample that medians are taken of.
    """

    def __init__(self, names: list[str], source: str, seed: int) -> None:
        self.source = source
        self.columns = [_Column(name) for name in names]
        self.sample = _Sample(min(_SAMPLE_ROWS, _SAMPLE_BYTES // (8 * max(len(names), 1))), seed)

    def add(self, table: Table, training: NDArray[np.bool_], numbers: NDArray[np.uint64]) -> None:
        """Learn from a batch.

        Args:
            table: the rows.
            training: which of them are for training.
            numbers: the training rows' numbers among all rows.
        """
        mask = pl.Series(training)
        frame = table.frame.select([column.name for column in self.columns]).filter(mask)
        for column in self.columns:
            text = table.text.get(column.name)
            column.add(frame[column.name], None if text is None else text.filter(mask), table.source)
        self.sample.add(frame, numbers)

    def learned(self) -> tuple[tuple[NumericColumn | CategoricalColumn, ...], list[str]]:
        """The encodings of the columns of use, and notes about the rest.

        Raises:
            InputError: no column is of use, or one holds numbers too large to be computed with.
        """
        notes: list[str] = []
        reasons = {column.name: column.useless() for column in self.columns}
        kept = set(keep_useful(reasons, self.source, notes))
        sample = self.sample.rows()
        found = [
            column.encoding(sample, self.source, notes) for column in self.columns if column.name in kept
        ]
        return tuple(found), notes


class _Column:
    """What the rows so far have shown of one column."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dtype: pl.DataType = pl.Null()
        self.num_rows = self.num_values = 0
        self.first: Any = None
        self.moments: dict[str, Moments] = {}
        self.counts: dict[str, int] = {}
        self.is_counted = True
        self.is_rising, self.last = True, -1

    def add(self, series: pl.Series, text: pl.Series | None, source: str) -> None:
        """``text``: the column as it stood, where it was read as something else."""
        self.num_rows += len(series)
        if series.null_count() == len(series):
            return
        series = self._as_before(series, text, source)
        values = series.drop_nulls()
        if self.num_values == 0:
            self.first = values[0]
        self.num_values += len(values)
        if series.dtype == pl.String:
            self._count(values)
            return
        if series.dtype == pl.Int64 and self.is_rising:
            whole = values.to_numpy()
            self.is_rising = bool(whole[0] > self.last) and bool((np.diff(whole) > 0).all())
            self.last = int(whole[-1])
        for part in DATE_PARTS if series.dtype == DATETIME else ("value",):
            more = Moments.of(part_values(values, part, source))
            self.moments[part] = self.moments.get(part, Moments()).with_more(more)

    def _as_before(self, series: pl.Series, text: pl.Series | None, source: str) -> pl.Series:
        """The batch's values in the type that the column had so far."""
        if self.num_values == 0:
            self.dtype = series.dtype
        if self.dtype == pl.String and series.dtype != pl.String and text is not None:
            return text
        if self.dtype == DATETIME and series.dtype == pl.String:
            raise InputError(
                f"Column {self.name!r} of {source} holds text that is no date ({series.drop_nulls()[0]!r}, say), where"
                " earlier rows hold dates; correct it, or write the column as dates in all files."
            )
        if self.dtype == pl.Int64 and series.dtype == pl.Float64:
            self.dtype, self.is_rising = series.dtype, False
        return series

    def _count(self, values: pl.Series) -> None:
        if not self.is_counted:
            return
        found = values.value_counts()
        for level, count in zip(found[self.name].to_list(), found["count"].to_list(), strict=True):
            self.counts[level] = self.counts.get(level, 0) + count
        if len(self.counts) > MAX_COUNTED:
            self.is_counted, self.counts = False, {}

    def useless(self) -> str | None:
        if not self.is_counted:
            return f"it has over {MAX_COUNTED} different texts"
        spread = None
        if self.dtype == pl.String:
            num_distinct = len(self.counts)
        else:
            moments = next(iter(self.moments.values()), Moments())
            num_distinct = 1 if moments.least == moments.greatest else 2
            spread = moments.greatest - moments.least if self.dtype == pl.Float64 and moments.count else None
            if self.dtype == pl.Int64 and self.is_rising and self.num_values == self.num_rows:
                num_distinct = self.num_rows
        return useless(
            Summary(self.name, self.dtype, self.num_rows, self.num_values, num_distinct, self.first, spread)
        )

    def encoding(
        self, sample: pl.DataFrame, source: str, notes: list[str]
    ) -> NumericColumn | CategoricalColumn:
        num_missing = self.num_rows - self.num_values
        if self.dtype == pl.String:
            levels = sorted(self.counts)
            counts = np.array([self.counts[level] for level in levels])
            return categories(self.name, levels, counts, notes, flags_missing=num_missing > 0)
        parts = []
        for name, moments in self.moments.items():
            if name not in ("value", "days") and moments.least == moments.greatest:
                continue
            fill = self._median(sample, name, source)
            filled = moments.with_copies(fill, num_missing)
            if not np.isfinite([filled.mean, filled.scale]).all():
                raise too_large(self.name, source, max(abs(moments.least), abs(moments.greatest)))
            parts.append(Part(name, fill, filled.mean, filled.scale))
        kind = kind_of(pl.Series(self.name, [self.first], dtype=self.dtype))
        assert kind in ("numeric", "boolean", "date")
        return NumericColumn(self.name, kind, tuple(parts), num_missing > 0)

    def _median(self, sample: pl.DataFrame, part: str, source: str) -> float:
        series = sample[self.name]
        if series.null_count() == len(series):  # rarer than the sample is large: any value it has will do
            return self.moments[part].mean
        return float(np.nanmedian(part_values(series, part, source)))


class _Sample:
    """A uniform sample of rows: those whose random numbers are the smallest, whatever the batches were."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = max(size, 1), seed
        self._frames: list[pl.DataFrame] = []
        self._ranks: list[NDArray[np.uint64]] = []
        self._limit = np.uint64(2**64 - 1)

    def add(self, frame: pl.DataFrame, numbers: NDArray[np.uint64]) -> None:
        ranks = hashed(self.seed, SAMPLE, numbers)
        chosen = ranks <= self._limit
        if not chosen.any():
            return
        numeric = [column.name for column in frame.get_columns() if column.dtype != pl.String]
        if not numeric:
            return
        self._frames.append(frame.select(numeric).filter(pl.Series(chosen)))
        self._ranks.append(ranks[chosen])
        if sum(map(len, self._ranks)) > 2 * self.size:
            self._prune()

    def _prune(self) -> None:
        ranks = np.concatenate(self._ranks)
        if len(ranks) > self.size:
            self._limit = np.partition(ranks, self.size - 1)[self.size - 1]
        kept = ranks <= self._limit
        frame = pl.concat(self._frames, how="diagonal_relaxed").filter(pl.Series(kept))
        self._frames, self._ranks = [frame], [ranks[kept]]

    def rows(self) -> pl.DataFrame:
        """The sample, columns of text apart."""
        if not self._frames:
            return pl.DataFrame()
        self._prune()
        return self._frames[0]
