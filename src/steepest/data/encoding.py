"""What was learned from the training rows, and the one way a table becomes features.

Everything here is plain data: it goes to JSON and back without loss. Learning it is ``learn.py``'s work.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from steepest.data.kinds import dates, first_row, kind_of
from steepest.data.met import Met
from steepest.data.parts import DATE_PARTS, part_values
from steepest.data.table import Table
from steepest.errors import MALFORMED, InputError, near_names

__all__ = ["CategoricalColumn", "Encoding", "Label", "NumericColumn", "Part"]

Label = str | int | bool | float

_FORMAT = 1

_Features = Iterator[NDArray[Any]]
_Any = TypeVar("_Any")


@dataclass(frozen=True)
class Part:
    """One number of a column: a missing one becomes ``fill``, then (number - mean) / scale."""

    name: str
    fill: float
    mean: float
    scale: float


@dataclass(frozen=True)
class NumericColumn:
    """A column of numbers, booleans or dates: its parts, then 1 where it is missing."""

    name: str
    kind: Literal["numeric", "boolean", "date"]
    parts: tuple[Part, ...]
    flags_missing: bool  # whether any training row lacked a value

    @property
    def feature_names(self) -> list[str]:
        """A name for each feature of the column."""
        names = [self.name if part.name == "value" else f"{self.name} ({part.name})" for part in self.parts]
        return names + [f"{self.name} (missing)"] * self.flags_missing

    def features(self, table: Table, met: Met) -> _Features:
        """The column's features, one array each; what no training row had is counted in ``met``.

        Raises:
            InputError: the column is of another kind, or its numbers are infinite or too large.
        """
        series = table.frame[self.name]
        self._check_kind(series, table)
        for part in self.parts:
            values = part_values(series, part.name, table.source)
            values = np.where(np.isnan(values), part.fill, values)
            yield self._standardised(values, part, table)
        missing = series.is_null().to_numpy()
        if self.flags_missing:
            yield missing
        elif missing.any():
            met.missing(self.name, int(missing.sum()), "the training rows' median stands in")

    def _check_kind(self, series: pl.Series, table: Table) -> None:
        found = kind_of(series)
        if found in (self.kind, "empty") or (self.kind, found) == ("numeric", "boolean"):
            return
        if (self.kind, found) == ("boolean", "numeric") and not _offends("boolean", series).any():
            return
        raise _kind_changed(self.name, self.kind, series, table)

    def _standardised(self, values: NDArray[np.float64], part: Part, table: Table) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            features: NDArray[np.float32] = ((values - part.mean) / part.scale).astype(np.float32)
        too_large = ~np.isfinite(features)
        if too_large.any():
            row = int(too_large.argmax())
            raise InputError(
                f"Column {self.name!r} of {table.source} holds {values[row]:g} in row {row + 1}, which is too"
                f" far from the training rows' mean {part.mean:g} to be computed with; correct it, or leave"
                " it empty (missing)."
            )
        return features


@dataclass(frozen=True)
class CategoricalColumn:
    """A column of categories: 1 for its level, then 1 for an infrequent level, then 1 where it is missing."""

    name: str
    levels: tuple[str, ...]
    infrequent: tuple[str, ...]  # seen in training, but too rare for a feature each
    flags_missing: bool

    @property
    def feature_names(self) -> list[str]:
        """A name for each feature of the column."""
        names = [f"{self.name}={level}" for level in self.levels]
        names += [f"{self.name} (infrequent)"] * bool(self.infrequent)
        return names + [f"{self.name} (missing)"] * self.flags_missing

    def features(self, table: Table, met: Met) -> _Features:
        """The column's features, one array each; what no training row had is counted in ``met``.

        Raises:
            InputError: the column does not hold text.
        """
        series = table.text.get(self.name, table.frame[self.name])
        if kind_of(series) not in ("categorical", "empty"):
            raise _kind_changed(self.name, "categorical", series, table)
        text = series.cast(pl.String)
        known = text.cast(pl.Enum(self.levels), strict=False).to_physical()
        codes = known.fill_null(len(self.levels)).to_numpy()
        missing = text.is_null().to_numpy()
        for code in range(len(self.levels)):
            yield codes == code
        other = (codes == len(self.levels)) & ~missing
        if self.infrequent:
            yield other
        if self.flags_missing:
            yield missing
        self._count_unseen(text, other, met)
        if missing.any() and not self.flags_missing:
            met.missing(self.name, int(missing.sum()), "they are taken as none of the known categories")

    def _count_unseen(self, text: pl.Series, other: NDArray[np.bool_], met: Met) -> None:
        if not other.any():
            return
        unseen = text.filter(pl.Series(other)).rename("level")
        unseen = unseen.filter(~unseen.is_in(list(self.infrequent)))
        if len(unseen) == 0:
            return
        levels = unseen.unique(maintain_order=True).to_list()
        taken = "as infrequent" if self.infrequent else "as none of the known categories"
        met.unseen(self.name, len(unseen), levels, taken)


@dataclass(frozen=True)
class Encoding:
    """How a table becomes features and a prediction becomes a value of the target.

    Attributes:
        target: the target column's name.
        task: ``"regression"``, ``"binary"`` or ``"multiclass"``.
        columns: the feature columns, in order.
        classes: the labels, sorted; a class is known by its place here. None for regression.
        target_mean: a standardised target times ``target_scale`` plus this is in the target's own units.
        target_scale: see ``target_mean``; 1 for classes.
        num_places: how many columns the matrix had that all this was learned from; None where columns have names.
    """

    target: str
    task: Literal["regression", "binary", "multiclass"]
    columns: tuple[NumericColumn | CategoricalColumn, ...]
    classes: list[Label] | None = None
    target_mean: float = 0.0
    target_scale: float = 1.0
    num_places: int | None = None

    @property
    def feature_names(self) -> list[str]:
        """A name for each feature, in order."""
        return [name for column in self.columns for name in column.feature_names]

    def apply(self, table: Table, met: Met | None = None) -> tuple[NDArray[np.float32], list[str]]:
        """The features of a table's rows; for training and for predicting, this is the one way.

        Args:
            table: the table. Columns that the encoding does not know are ignored, and so is the target; a matrix has
                as many columns as that in training.
            met: what was met in earlier pieces of the table, to be added to.

        Returns:
            float32 features of shape (rows, features), and notes: sentences about what was met for the first
            time, such as a category that no training row had.

        Raises:
            InputError: a column is absent, of another kind than in training, or holds infinities.
        """
        self._check_columns(table)
        features = np.empty((table.num_rows, len(self.feature_names)), dtype=np.float32)
        met = Met() if met is None else met
        met.num_rows += table.num_rows
        place = 0
        for column in self.columns:
            for values in column.features(table, met):
                features[:, place] = values
                place += 1
        return features, met.sentences()

    def _check_columns(self, table: Table) -> None:
        width = table.frame.width
        if table.by_place and table.target is None and self.num_places not in (None, width):
            raise InputError(
                f"The array has {width} column{'s' * (width != 1)}, and the model was trained on {self.num_places}, "
                "which it knows by their places."
            )
        for column in self.columns:
            if column.name not in table.columns:
                raise InputError(
                    f"There is no column {column.name!r} in {table.source}, which the model needs"
                    f"{near_names(column.name, table.columns)}"
                )
            if column.name in table.problems:
                raise InputError(f"In {table.source}, {table.problems[column.name]}.")

    def to_json(self) -> dict[str, Any]:
        """The encoding as plain lists, dicts, strings and numbers, fit for JSON."""
        return {
            "format": _FORMAT,
            "target": self.target,
            "task": self.task,
            "columns": [_column_to_json(column) for column in self.columns],
            "classes": self.classes,
            "target_mean": self.target_mean,
            "target_scale": self.target_scale,
            "num_places": self.num_places,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Encoding:
        """The encoding that ``to_json`` wrote.

        Raises:
            InputError: the fields are not such an encoding's.
        """
        if fields.get("format") != _FORMAT:
            raise InputError(f"The encoding is of no known format; format {_FORMAT} was expected.")
        try:
            return cls(
                target=_of_type(fields["target"], str),
                task=fields["task"],
                columns=tuple(_column_from_json(column) for column in fields["columns"]),
                classes=fields["classes"],
                target_mean=_number(fields["target_mean"]),
                target_scale=_number(fields["target_scale"]),
                num_places=_count_or_none(fields.get("num_places")),  # earlier models do not say
            )
        except MALFORMED as error:
            raise InputError(f"The encoding is incomplete or damaged ({error}).") from None


def _count_or_none(value: Any) -> int | None:
    return None if value is None else _of_type(value, int)


def _column_to_json(column: NumericColumn | CategoricalColumn) -> dict[str, Any]:
    # A categorical column has no kind of its own to tell it by.
    fields = {"kind": "categorical"} | dataclasses.asdict(column)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _column_from_json(fields: dict[str, Any]) -> NumericColumn | CategoricalColumn:
    name, flags_missing = _of_type(fields["name"], str), _of_type(fields["flags_missing"], bool)
    if fields["kind"] == "categorical":
        return CategoricalColumn(name, _texts(fields["levels"]), _texts(fields["infrequent"]), flags_missing)
    known = {"numeric": ("value",), "boolean": ("value",), "date": DATE_PARTS}[fields["kind"]]
    parts = tuple(Part(**part) for part in fields["parts"])
    for part in parts:
        _number(part.fill)
        _number(part.mean)
        if part.name not in known or _number(part.scale) == 0:
            raise ValueError(f"column {name!r} has a part that is none of its kind")
    return NumericColumn(name, fields["kind"], parts, flags_missing)


def _of_type(value: Any, kind: type[_Any]) -> _Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    texts = tuple(_of_type(value, str) for value in _of_type(values, list))
    if len(set(texts)) < len(texts):
        raise ValueError("a category stands in it twice")
    return texts


def _number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


_HELD = {
    "numeric": "numbers",
    "boolean": "booleans (true, false)",
    "categorical": "text",
    "date": "dates",
}


def _kind_changed(name: str, expected: str, series: pl.Series, table: Table) -> InputError:
    offends = _offends(expected, series)
    # A data frame's text is text, whatever stands in it.
    row = first_row(offends if offends.any() else series.is_not_null())
    return InputError(
        f"Column {name!r} of {table.source} held {_HELD[expected]} in training and now holds"
        f" {_HELD[kind_of(series)]} ({series[row - 1]!r} in row {row}); give it as in training."
    )


def _offends(expected: str, series: pl.Series) -> pl.Series:
    """Where the values are not of the expected kind: one cell makes text of a whole column, and is the one to name."""
    offends = series.is_not_null()
    if expected == "numeric" and series.dtype == pl.String:
        offends &= series.cast(pl.Float64, strict=False).is_null()
    elif expected == "date" and series.dtype == pl.String:
        offends &= dates(series).is_null()
    elif expected == "boolean" and series.dtype == pl.String:
        offends &= ~series.str.to_lowercase().is_in(["true", "false"])
    elif expected == "boolean" and kind_of(series) == "numeric":
        offends &= ~series.cast(pl.Float64).is_in([0.0, 1.0])
    return offends
