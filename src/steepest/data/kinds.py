"""The six types a column can have, and how other types and plain text become one of them.

Every column of a :class:`~steepest.data.table.Table` is polars' ``Boolean``, ``Int64``, ``Float64``,
``String``, ``Datetime`` (microseconds, UTC, without a zone) or ``Null`` (no value at all). Fewer types mean
that the same table gives the same features and the same digest, whatever it was read from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

__all__ = [
    "DATETIME",
    "MISSING_MARKERS",
    "Kind",
    "Typed",
    "dates",
    "first_row",
    "kind_of",
    "typed",
    "typed_text",
]

Kind = Literal["numeric", "boolean", "categorical", "date", "empty"]

DATETIME = pl.Datetime("us")

# What stands for "no value" in a text file. "None" is left out: it is a level of many real tables.
MISSING_MARKERS = (
    "",
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "<NA>",
    "nan",
    "NaN",
    "NAN",
    "-nan",
    "NaT",
    "null",
    "NULL",
    "Null",
    "?",
)

_ISO = r"^\d{4}[-/]\d{1,2}[-/]\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?$"
# Day or month first: nothing but the writer knows which.
_OTHER_DATES = r"^\d{1,2}([./-])\d{1,2}[./-](\d{2}|\d{4})([T ].*)?$"
_ISO_FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M%#z",
)

_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # since 1970: the years 1 to 9999
_UNITS_A_DAY = {"ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}

_DECIMAL_COMMA = r"^[+-]?\d+(,\d+)?$"
_THOUSANDS_COMMA = r"^[+-]?\d{1,3}(,\d{3})*(\.\d+)?$"
_THOUSANDS_POINT = r"^[+-]?\d{1,3}(\.\d{3})*(,\d+)?$"
_ALL_POINTED = r"^[+-]?[1-9]\d{0,2}(\.\d{3})+$"  # every point may separate thousands
# A number with its sign of percent or currency, its thousands apart, in brackets, or with a typographer's minus.
_DRESSED = (
    r"^[(+\-\u2212]?\s?[$\u20ac\u00a3\u00a5]?\s?[+\-\u2212]?(\d+|\d{1,3}([.,'\u2019\s]\d{3})+)([.,]\d+)?"
    r"\s?[%$\u20ac\u00a3\u00a5]?\)?$"
)
_BELOW_A_THOUSAND = r"^[+-]?\d{1,3}$"
_COMMA_FORMS = (_DECIMAL_COMMA, _THOUSANDS_COMMA, _THOUSANDS_POINT)


@dataclass(frozen=True)
class Typed:
    """A column of one of the six types.

    Attributes:
        series: the column.
        note, problem: sentences, or None.
        if_decimal_commas: what the problem is if the file's numbers have decimal commas.
        has_decimal_commas: whether these have.
    """

    series: pl.Series
    note: str | None = None
    problem: str | None = None
    if_decimal_commas: str | None = None
    has_decimal_commas: bool = False


def kind_of(series: pl.Series) -> Kind:
    """What a typed column is to a model."""
    if series.null_count() == len(series):
        return "empty"
    if series.dtype == pl.Boolean:
        return "boolean"
    if series.dtype == pl.String:
        return "categorical"
    return "date" if series.dtype == DATETIME else "numeric"


def first_row(mask: pl.Series) -> int:
    """The first row (from 1, the header not counted) where ``mask`` is true."""
    return (mask.fill_null(False).arg_max() or 0) + 1


def typed(series: pl.Series) -> Typed:
    """A column of any polars type as one of the six types.

    Args:
        series: a column of a data frame. Text in a frame was made text on purpose: it is not searched for
            numbers, only for dates with the year first.
    """
    dtype = series.dtype
    if dtype in (pl.Categorical, pl.Enum):
        return typed(series.cast(pl.String))
    if dtype == pl.String:
        return _typed_words(series)
    if dtype in (pl.Boolean, pl.Null):
        return Typed(series)
    if dtype.is_integer():
        return Typed(_integers(series))
    if dtype.is_float() or dtype.is_decimal():
        return Typed(series.cast(pl.Float64).fill_nan(None))
    if dtype in (pl.Date, pl.Datetime):
        beyond = _beyond(series)
        return Typed(series, problem=_no_date(series, beyond)) if beyond.any() else Typed(_utc(series))
    if dtype == pl.Duration:
        return Typed(series.dt.total_microseconds().cast(pl.Float64) / 1e6)
    if dtype == pl.Time:
        return Typed(series.cast(pl.Int64).cast(pl.Float64) / 1e9)
    return Typed(series, problem=_unusable(series))


def typed_text(series: pl.Series, separator: str) -> Typed:
    """A column of a text file, stripped and with nulls for what is missing, as one of the six types.

    Args:
        series: the column's cells.
        separator: what separates the file's cells. Numbers with a decimal comma are taken as numbers only
            where it is not a comma.
    """
    if series.null_count() == len(series):
        return Typed(series.cast(pl.Null))
    numbers = series.cast(pl.Float64, strict=False)
    if numbers.null_count() == series.null_count():
        integers = series.cast(pl.Int64, strict=False)
        if integers.null_count() == series.null_count():
            return Typed(integers)
        return _typed_points(series, numbers.fill_nan(None), separator)
    words = series.str.to_lowercase()
    if _all(words.is_in(["true", "false"])):
        return Typed(words == "true")
    commas = _typed_commas(series, separator)
    if commas is not None:
        return commas
    note = _mostly(series, numbers, "numbers") or _dressed(series, numbers)
    return Typed(series, note=note) if note else _typed_words(series)


def _typed_words(series: pl.Series) -> Typed:
    """Text as dates where every value is a date with the year first, else as it is."""
    values = series.drop_nulls()
    if len(values) == 0:
        return Typed(series.cast(pl.Null))
    # A look at the first values spares nearly every text column the full search.
    if not values.head(20).str.contains(_ISO).any():
        return Typed(series, note=_other_dates(series, values.head(20)))
    found = dates(series)
    if found.null_count() == series.null_count():
        return Typed(found)
    return Typed(series, note=_mostly(series, found, "dates"))


def _other_dates(series: pl.Series, values: pl.Series) -> str | None:
    """Says so where a text column holds dates in a form that can mean two days."""
    if not values.str.contains(_OTHER_DATES).all():
        return None
    return (
        f"Column {series.name!r} is read as text: dates such as {values[0]!r} may have the day or the month first; "
        "write them as 2024-12-31 for their parts to be of use."
    )


def _integers(series: pl.Series) -> pl.Series:
    whole = series.cast(pl.Int64, strict=False)
    return whole if whole.null_count() == series.null_count() else series.cast(pl.Float64)


def _utc(series: pl.Series) -> pl.Series:
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is not None:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return series.cast(DATETIME)


def _beyond(series: pl.Series) -> pl.Series:
    """Which dates lie beyond the years 1 to 9999, where neither Python nor polars can say what they are."""
    dtype = series.dtype
    units = _UNITS_A_DAY[dtype.time_unit] if isinstance(dtype, pl.Datetime) else 1
    least, beyond = (max(min(day * units, 2**63 - 1), -(2**63)) for day in (_FIRST_DAY, _LAST_DAY + 1))
    whole = series.to_physical().cast(pl.Int64)
    return (whole < least) | (whole >= beyond)


def _no_date(series: pl.Series, beyond: pl.Series) -> str:
    return (
        f"column {series.name!r} holds a date beyond the years 1 to 9999 in row {first_row(beyond)}; correct it, or "
        "leave it empty (missing)"
    )


def dates(series: pl.Series) -> pl.Series:
    """The values that are dates with the year first, null for the others."""
    text = series.str.replace(" ", "T", literal=True).str.replace_all("/", "-", literal=True)
    # polars takes "12-1-2" for a date too.
    text = text.zip_with(text.str.contains(_ISO).fill_null(False), pl.Series([None], dtype=pl.String))
    found = text.str.to_datetime(_ISO_FORMATS[0], strict=False, time_unit="us")
    for form in _ISO_FORMATS[1:]:
        if found.null_count() > series.null_count():
            other = text.str.to_datetime(form, strict=False, time_unit="us").dt.replace_time_zone(None)
            found = found.zip_with(found.is_not_null(), other)
    return found.zip_with(~_beyond(found).fill_null(False), pl.Series([None], dtype=DATETIME))


def _typed_commas(series: pl.Series, separator: str) -> Typed | None:
    """Numbers with commas: taken where they can only be decimal commas, a problem where they cannot."""
    has_comma = series.str.contains(",", literal=True)
    if not has_comma.any():
        return None
    decimal, *others = (_all(series.str.contains(form)) for form in _COMMA_FORMS)
    if not decimal and not any(others):
        return None
    ambiguous = _all(series.filter(has_comma).str.contains(_THOUSANDS_COMMA))  # "1,234" can be both
    if decimal and separator != "," and not ambiguous:
        numbers = series.str.replace(",", ".", literal=True).cast(pl.Float64)
        note = f"Column {series.name!r}: the commas in its numbers were read as decimal commas."
        return Typed(numbers, note=note, has_decimal_commas=True)
    row = first_row(has_comma)
    return Typed(
        series,
        problem=(
            f"column {series.name!r} holds numbers with commas ({series[row - 1]!r} in row {row}); "
            "write them with a decimal point and without thousands separators"
        ),
    )


def _typed_points(series: pl.Series, numbers: pl.Series, separator: str) -> Typed:
    """Numbers with points: decimal points, but where each stands before three digits and a comma separates no cells.

    A problem where numbers below a thousand have none, as thousands' separators have it.
    """
    has_point = series.str.contains(".", literal=True)
    if separator == "," or not _all(series.filter(has_point).str.contains(_ALL_POINTED)):
        return Typed(numbers)
    row = first_row(has_point)
    problem = (
        f"column {series.name!r} holds numbers whose points may separate thousands ({series[row - 1]!r} in row {row}); "
        "write them with a decimal point and without thousands separators"
    )
    if not _all(has_point) and _all(series.filter(~has_point).str.contains(_BELOW_A_THOUSAND)):
        return Typed(series, problem=problem)
    return Typed(numbers, if_decimal_commas=problem if _all(has_point) else None)


def _mostly(series: pl.Series, read: pl.Series, what: str) -> str | None:
    """Says so where a text column would be numbers or dates but for a few of its values."""
    num_values = len(series) - series.null_count()
    num_read = len(read) - read.null_count()
    if num_read < 0.5 * num_values:
        return None
    row = first_row(series.is_not_null() & read.is_null())
    return (
        f"Column {series.name!r} is read as text: {num_values - num_read:,} of its {num_values:,} values are not "
        f"{what}, the first is {series[row - 1]!r} in row {row}."
    )


def _dressed(series: pl.Series, numbers: pl.Series) -> str | None:
    """Says so where all values of a text column are numbers to a person."""
    values = series.drop_nulls()
    if not values.head(20).str.contains(_DRESSED).all() or not values.str.contains(_DRESSED).all():
        return None
    row = first_row(series.is_not_null() & numbers.is_null())
    return (
        f"Column {series.name!r} is read as text: its numbers have signs or thousands' separators "
        f"({series[row - 1]!r} in row {row}); write them plainly for it to be taken as numbers."
    )


def _unusable(series: pl.Series) -> str:
    mend = "convert it to numbers, text or dates, or leave it out"
    if series.dtype.is_nested():
        found, mend = f"nested values ({series.dtype})", "spread them over several columns, or leave it out"
    elif series.dtype == pl.Object:
        types = sorted({type(value).__name__ for value in series if value is not None})
        found = f"values of several kinds ({', '.join(types)})" if len(types) > 1 else f"objects ({types[0]})"
    else:
        found = f"values of type {series.dtype}"
    return f"column {series.name!r} holds {found}; {mend}"


def _all(mask: pl.Series) -> bool:
    """Whether ``mask`` is true wherever it is not null."""
    return bool(mask.all(ignore_nulls=True))
