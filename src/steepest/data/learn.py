"""Learning an encoding from the training rows, and from them alone, with scikit-learn's estimators."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from steepest.data.encoding import CategoricalColumn, NumericColumn, Part
from steepest.data.kinds import kind_of
from steepest.data.parts import DATE_PARTS, part_values
from steepest.errors import InputError

__all__ = ["MAX_LEVELS", "learn_columns"]

MAX_LEVELS = 32  # categories of a column that get a feature each

# A text column in which more than this share of the values are distinct says nothing about other rows.
_MAX_DISTINCT_SHARE = 0.9

# What a frame's index is called in a file it was written to.
_INDEX_NAMES = ("", "Unnamed: 0", "__index_level_0__")


def learn_columns(
    rows: pl.DataFrame, source: str
) -> tuple[tuple[NumericColumn | CategoricalColumn, ...], list[str]]:
    """What there is to learn about the feature columns.

    Args:
        rows: the training rows, features alone.
        source: what to call the table in a message.

    Returns:
        The encodings of the columns that can teach a model something, in order, and notes about the rest.

    Raises:
        InputError: no column is left, or one holds numbers that cannot be computed with.
    """
    notes: list[str] = []
    kept = []
    for series in rows.get_columns():
        reason = _useless(series)
        if reason is None:
            kept.append(series)
        else:
            notes.append(f"Column {series.name!r} is left out: {reason}.")
    if not kept:
        reasons = " ".join(notes) or "The target is its only column."
        raise InputError(f"No column of {source} is of use as a feature. {reasons}")
    return tuple(_learn(series, source, notes) for series in kept), notes


def _useless(series: pl.Series) -> str | None:
    """Why a column can teach a model nothing, or None."""
    num_values = len(series) - series.null_count()
    num_distinct = series.drop_nulls().n_unique()
    if series.name in _INDEX_NAMES and series.dtype == pl.Int64 and num_distinct == len(series):
        return "it only numbers the rows"
    if num_values == 0:
        return "it has no value in the training rows"
    if num_distinct == 1 and num_values == len(series):
        return f"all training rows have the same value ({series[0]!r})"
    if series.dtype == pl.String and num_distinct > max(1, _MAX_DISTINCT_SHARE * num_values):
        return f"nearly every row has a text of its own ({num_distinct} in {num_values} training rows)"
    return None


def _learn(series: pl.Series, source: str, notes: list[str]) -> NumericColumn | CategoricalColumn:
    if series.dtype == pl.String:
        return _learn_categories(series, notes)
    return _learn_numbers(series, source)


def _learn_categories(series: pl.Series, notes: list[str]) -> CategoricalColumn:
    from sklearn.preprocessing import OneHotEncoder

    values = series.drop_nulls()
    known = values.unique().sort()
    # The encoder sees the levels' places instead of their texts: it sorts integers far faster.
    codes = values.cast(pl.Enum(known)).to_physical().to_numpy()
    encoder = OneHotEncoder(max_categories=MAX_LEVELS + 1, handle_unknown="infrequent_if_exist")
    encoder.fit(codes[:, None])
    infrequent = encoder.infrequent_categories_[0]
    rare = set() if infrequent is None else {int(code) for code in infrequent}
    if rare:
        notes.append(
            f"Column {series.name!r} has {len(known)} categories in the training rows: the"
            f" {len(known) - len(rare)} most frequent are kept, the rest count as one, 'infrequent'."
        )
    return CategoricalColumn(
        name=series.name,
        levels=tuple(level for code, level in enumerate(known) if code not in rare),
        infrequent=tuple(level for code, level in enumerate(known) if code in rare),
        flags_missing=series.null_count() > 0,
    )


def _learn_numbers(series: pl.Series, source: str) -> NumericColumn:
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import StandardScaler

    parts = _parts(series, source)
    values = np.stack(list(parts.values()), axis=1)
    imputer = SimpleImputer(strategy="median").fit(values)
    with np.errstate(over="ignore", invalid="ignore"):
        scaler = StandardScaler().fit(imputer.transform(values))
    if not np.isfinite(scaler.scale_).all():
        raise InputError(
            f"Column {series.name!r} of {source} holds numbers as large as {np.nanmax(np.abs(values)):g}, too"
            " large to be computed with; rescale it, or leave it out."
        )
    kind = kind_of(series)
    assert kind in ("numeric", "boolean", "date")  # the others are text or without a value
    figures = (imputer.statistics_.tolist(), scaler.mean_.tolist(), scaler.scale_.tolist())
    learned = zip(parts, *figures, strict=True)
    return NumericColumn(series.name, kind, tuple(Part(*part) for part in learned), series.null_count() > 0)


def _parts(series: pl.Series, source: str) -> dict[str, NDArray[np.float64]]:
    if kind_of(series) != "date":
        return {"value": part_values(series, "value", source)}
    parts = {part: part_values(series, part, source) for part in DATE_PARTS}
    # "days" tells all; another part is worth a feature only where it varies.
    return {part: values for part, values in parts.items() if part == "days" or _varies(values)}


def _varies(values: NDArray[np.float64]) -> bool:
    return bool(np.nanmin(values) < np.nanmax(values))
