"""Data frames of any library, and plain arrays, as polars columns."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from steepest.data.table import check_names
from steepest.errors import InputError

if TYPE_CHECKING:
    import narwhals as nw

__all__ = ["from_arrays", "from_frame", "from_matrix", "from_objects"]

TARGET_OF_ARRAYS = "y"


def from_frame(data: Any, source: str) -> pl.DataFrame | None:
    """The columns of a data frame, or None where ``data`` is none.

    Args:
        data: a polars, pandas, pyarrow or any other frame that narwhals knows, lazy ones included.
        source: what to call it in a message.

    Raises:
        InputError: two columns share a name.
    """
    import narwhals as nw

    try:
        frame = nw.from_native(data)
    except TypeError:
        return None
    except nw.exceptions.DuplicateError:
        frame = None
    if frame is None:
        check_names([str(name) for name in data.columns], source)
        raise InputError(f"Two columns of {source} have the same name; give every column a name of its own.")
    eager = frame.collect(backend="polars") if isinstance(frame, nw.LazyFrame) else frame
    check_names([str(name) for name in eager.columns], source)
    if not eager.implementation.is_pandas_like():
        return eager.to_polars()
    return pl.DataFrame([_from_series(str(name), eager.get_column(name)) for name in eager.columns])


def from_matrix(values: Any, name: str) -> pl.DataFrame:
    """The columns of a 2-D array, named ``x0``, ``x1``, ...

    Raises:
        InputError: the array is not 2-D, or not of one plain kind.
    """
    array = _array(values, name)
    if array.ndim != 2:
        raise InputError(
            f"{name} must be 2-D, one row a sample; it has shape {array.shape}"
            + ("; x.reshape(-1, 1) makes a column of it." if array.ndim == 1 else ".")
        )
    if array.dtype == object:
        raise InputError(
            f"{name} is an array of Python objects; give numbers, or a data frame for mixed columns."
        )
    columns = np.ascontiguousarray(array.T)
    return pl.DataFrame([_from_numpy(f"x{place}", column) for place, column in enumerate(columns)])


def from_arrays(features: Any, target: Any) -> tuple[pl.DataFrame, bool]:
    """Features and target as one table, whose last column is the target, ``y``; and whether the features are a matrix.

    Raises:
        InputError: lengths differ, the target is not 1-D, or the features hold a ``y`` of their own.
    """
    named = from_frame(features, "X")
    frame = from_matrix(features, "X") if named is None else named
    if not frame.width:
        raise InputError("X has no columns; there must be at least one feature to predict from.")
    column = _target(target)
    if len(column) != frame.height:
        raise InputError(
            f"X has {frame.height} rows and y has {len(column)} values; they must be of one length."
        )
    if TARGET_OF_ARRAYS in frame.columns:
        raise InputError("X has a column 'y', the name the target gets; rename that column, or leave it out.")
    return frame.with_columns(column), named is None


def _target(target: Any) -> pl.Series:
    import narwhals as nw

    try:
        return _from_series(TARGET_OF_ARRAYS, nw.from_native(target, series_only=True))
    except TypeError:
        array = _array(target, "y")
    if array.ndim != 1:
        shape = f"y must be 1-D, one value a row; it has shape {array.shape}"
        if array.ndim == 2 and array.shape[1] == 1:
            raise InputError(f"{shape}: y.ravel() would do.")
        if array.ndim == 2 and _are_shares(array):
            raise InputError(f"{shape}, one-hot or probabilities: y.argmax(axis=1) gives classes.")
        raise InputError(
            f"{shape}. One target is predicted at a time, such as y[:, 0]; a module of your own may have several "
            "(compare(model=...))."
        )
    return _from_numpy(TARGET_OF_ARRAYS, array)


def _are_shares(array: NDArray[Any]) -> bool:
    """Whether each row adds up to 1, as the probabilities of classes do."""
    if array.dtype.kind not in "biuf" or not array.size or not (array >= 0).all():
        return False
    return bool(np.allclose(array.sum(axis=1), 1.0, atol=1e-3))


def from_objects(name: str, values: Sequence[Any]) -> pl.Series:
    """Python objects as a column of one type; a column of dtype ``Object`` where they are of several kinds.

    Args:
        name: the column's name.
        values: the values; None, NaN and NaT are missing.
    """
    plain = [
        None if _is_missing(value) else value.item() if isinstance(value, np.generic) else value
        for value in values
    ]
    types = {type(value) for value in plain if value is not None}
    if types == {float, int}:
        return pl.Series(name, plain, dtype=pl.Float64, strict=False)
    if all(issubclass(kind, dt.datetime) for kind in types) or len(types) == 1:
        try:
            return pl.Series(name, plain)
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            pass
    return pl.Series(name, plain, dtype=pl.Object if types else pl.Null)


def _array(values: Any, name: str) -> NDArray[Any]:
    if hasattr(values, "toarray"):
        raise InputError(f"{name} is a sparse matrix, which is not taken yet; {name}.toarray() would do.")
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(f"{name} is a masked array, which is not taken; {name}.filled(numpy.nan) would do.")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} cannot be made an array ({str(error).splitlines()[0]}).") from None
    if array.dtype.kind in "cVS":
        raise InputError(f"{name} is an array of type {array.dtype}; give numbers, booleans, dates or text.")
    return array


def _from_numpy(name: str, array: NDArray[Any]) -> pl.Series:
    if array.dtype.kind == "M":
        return pl.Series(name, array.astype("datetime64[us]"))
    if array.dtype.kind == "m":
        return pl.Series(name, array.astype("timedelta64[us]"))
    if array.dtype.kind == "f":
        return pl.Series(name, array.astype(np.float64))
    if array.dtype.kind in "biu":
        return pl.Series(name, np.ascontiguousarray(array))
    return from_objects(name, array.tolist())


def _from_series(name: str, series: nw.Series[Any]) -> pl.Series:
    import narwhals as nw

    if not series.implementation.is_pandas_like():
        return series.to_polars().alias(name)
    # polars' own way from pandas needs pyarrow, and gives up at a column of mixed objects.
    if isinstance(series.dtype, nw.Datetime) and series.dtype.time_zone is not None:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if isinstance(series.dtype, nw.Categorical | nw.Enum):
        series = series.cast(nw.String)
    dtype = series.to_native().dtype
    # numpy's own floats and dates have a value for "missing"; others come as objects where one is missing.
    if getattr(dtype, "kind", "O") in "biufMm" and (
        isinstance(dtype, np.dtype) or not series.is_null().any()
    ):
        return _from_numpy(name, series.to_numpy())
    missing = series.is_null().to_list()
    return from_objects(
        name, [None if gone else value for value, gone in zip(series.to_list(), missing, strict=True)]
    )


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating | np.datetime64) and bool(value != value))
