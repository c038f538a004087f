"""Learning an encoding from the training rows, and from them alone, with scikit-learn's estimators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from steepest.data.encoding import CategoricalColumn, NumericColumn, Part
from steepest.data.kinds import kind_of
from steepest.data.moments import LEAST_SPREAD
from steepest.data.parts import DATE_PARTS, part_values
from steepest.data.table import told_of, which
from steepest.errors import InputError

__all__ = ["MAX_LEVELS", "Summary", "categories", "keep_useful", "learn_columns", "too_large", "useless"]

MAX_LEVELS = 32  # categories of a column that get a feature each

# A text column in which more than this share of the values are distinct says nothing about other rows.
_MAX_DISTINCT_SHARE = 0.9

# What a frame's index is called in a file it was written to.
_INDEX_NAMES = ("", "Unnamed: 0", "__index_level_0__")


def learn_columns(
    rows: pl.DataFrame, source: str, read: Sequence[str] = ()
) -> tuple[tuple[NumericColumn | CategoricalColumn, ...], list[str]]:
    """What there is to learn about the feature columns.

    Args:
        rows: the training rows, features alone.
        source: what to call the table in a message.
        read: what reading it had to decide, a sentence each.

    Returns:
        The encodings of the columns that can teach a model something, in order, and notes about the rest.

    Raises:
        InputError: no column is left, or one holds numbers that cannot be computed with.
    """
    notes: list[str] = []
    kept = keep_useful(
        {series.name: useless(_summary(series)) for series in rows.get_columns()}, source, notes, read
    )
    return tuple(_learn(rows[name], source, notes) for name in kept), notes


@dataclass(frozen=True)
class Summary:
    """What decides whether a column is of use; ``first`` is one of its values.

    ``spread`` is from the least to the greatest of numbers.
    """

    name: str
    dtype: pl.DataType
    num_rows: int
    num_values: int
    num_distinct: int
    first: Any
    spread: float | None = None


def _summary(series: pl.Series) -> Summary:
    values = series.drop_nulls()
    first = values[0] if len(values) else None
    numbers = values.to_numpy() if series.dtype == pl.Float64 else np.empty(0)
    # Python's own subtraction: of the largest numbers it is infinite, where numpy's warns too.
    spread = float(numbers.max()) - float(numbers.min()) if len(numbers) else None
    return Summary(series.name, series.dtype, len(series), len(values), values.n_unique(), first, spread)


def keep_useful(
    reasons: Mapping[str, str | None], source: str, notes: list[str], read: Sequence[str] = ()
) -> list[str]:
    """The columns that nothing speaks against; what is left out is noted. What reading said of it may be why.

    Raises:
        InputError: no column is left.
    """
    useless_for: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        if reason is not None:
            useless_for.setdefault(reason, []).append(name)
    found = [f"{which(names)} is left out: {reason}." for reason, names in useless_for.items()]
    notes += found
    if None not in reasons.values():
        told = " ".join([*told_of(read, list(reasons)), *found]) or "The target is its only column."
        raise InputError(f"No column of {source} is of use as a feature. {told}")
    return [name for name, reason in reasons.items() if reason is None]


def useless(column: Summary) -> str | None:
    """Why a column can teach a model nothing, or None."""
    if column.name in _INDEX_NAMES and column.dtype == pl.Int64 and column.num_distinct == column.num_rows:
        return "it only numbers the rows"
    if column.num_values == 0:
        return "it has no value in the training rows"
    if column.num_distinct == 1 and column.num_values == column.num_rows:
        return f"all training rows have the same value ({column.first!r})"
    if column.spread is not None and 0.0 < column.spread < LEAST_SPREAD:
        return (
            f"its values lie within {column.spread:.3g} of one another, which is too little to be computed with; "
            "rescale it to use it"
        )
    if column.dtype == pl.String and column.num_distinct > max(1, _MAX_DISTINCT_SHARE * column.num_values):
        return f"nearly every row has a text of its own ({column.num_distinct} in {column.num_values} training rows)"
    return None


def _learn(series: pl.Series, source: str, notes: list[str]) -> NumericColumn | CategoricalColumn:
    if series.dtype == pl.String:
        return _learn_categories(series, notes)
    return _learn_numbers(series, source)


def _learn_categories(series: pl.Series, notes: list[str]) -> CategoricalColumn:
    counts = series.drop_nulls().value_counts().sort(series.name)
    levels, number = counts[series.name].to_list(), counts["count"].to_numpy()
    return categories(series.name, levels, number, notes, flags_missing=series.null_count() > 0)


def categories(
    name: str, levels: Sequence[str], counts: NDArray[Any], notes: list[str], *, flags_missing: bool
) -> CategoricalColumn:
    """The encoding of categories, given how often each is met in the training rows (levels sorted).

    The most frequent are kept, of equally frequent ones those that sort later: scikit-learn's ``OneHotEncoder``
    (max_categories) chooses so.
    """
    rare: set[int] = set()
    if len(levels) > MAX_LEVELS + 1:
        rare = {int(place) for place in np.argsort(counts, kind="stable")[:-MAX_LEVELS]}
        notes.append(
            f"Column {name!r} has {len(levels)} categories in the training rows: the"
            f" {len(levels) - len(rare)} most frequent are kept, the rest count as one, 'infrequent'."
        )
    return CategoricalColumn(
        name=name,
        levels=tuple(level for code, level in enumerate(levels) if code not in rare),
        infrequent=tuple(level for code, level in enumerate(levels) if code in rare),
        flags_missing=flags_missing,
    )


def _learn_numbers(series: pl.Series, source: str) -> NumericColumn:
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import StandardScaler

    parts = _parts(series, source)
    values = np.stack(list(parts.values()), axis=1)
    with np.errstate(over="ignore", invalid="ignore"):  # told of below
        imputer = SimpleImputer(strategy="median").fit(values)
        scaler = StandardScaler().fit(imputer.transform(values))
    if not np.isfinite(scaler.scale_).all():
        raise too_large(series.name, source, float(np.nanmax(np.abs(values))))
    kind = kind_of(series)
    assert kind in ("numeric", "boolean", "date")  # the others are text or without a value
    figures = (imputer.statistics_.tolist(), scaler.mean_.tolist(), scaler.scale_.tolist())
    learned = zip(parts, *figures, strict=True)
    return NumericColumn(series.name, kind, tuple(Part(*part) for part in learned), series.null_count() > 0)


def too_large(name: str, source: str, greatest: float) -> InputError:
    """What to say of numbers whose variance cannot be represented."""
    return InputError(
        f"Column {name!r} of {source} holds numbers as large as {greatest:g}, too large to be computed with; rescale"
        " it, or leave it out."
    )


def _parts(series: pl.Series, source: str) -> dict[str, NDArray[np.float64]]:
    if kind_of(series) != "date":
        return {"value": part_values(series, "value", source)}
    parts = {part: part_values(series, part, source) for part in DATE_PARTS}
    # "days" tells all; another part is worth a feature only where it varies.
    return {part: values for part, values in parts.items() if part == "days" or _varies(values)}


def _varies(values: NDArray[np.float64]) -> bool:
    return bool(np.nanmin(values) < np.nanmax(values))
