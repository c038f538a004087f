"""A digest of a table's content: the same for the same table, whatever it was read from."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import polars as pl

from steepest.data.kinds import DATETIME

__all__ = ["content_sha256"]


def content_sha256(frame: pl.DataFrame) -> str:
    """SHA-256, in hex, of the column names, types and values, in order.

    Args:
        frame: typed columns, as a :class:`~steepest.data.table.Table` holds them.
    """
    digest = hashlib.sha256()
    header = [[column.name, str(column.dtype)] for column in frame.get_columns()]
    digest.update(json.dumps([frame.height, header]).encode())
    for column in frame.get_columns():
        digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
        _update(digest, column)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, column: pl.Series) -> None:
    """Every value in a fixed width; text as its lengths, then all of it."""
    if column.dtype == pl.Null:
        return
    if column.dtype == pl.String:
        text = column.fill_null("")
        digest.update(text.str.len_bytes().cast(pl.Int64).to_numpy().astype("<i8").tobytes())
        digest.update(text.str.join("")[0].encode())
    elif column.dtype == pl.Float64:
        digest.update(column.fill_null(0.0).to_numpy().astype("<f8").tobytes())
    else:
        whole = column.dt.epoch("us") if column.dtype == DATETIME else column.cast(pl.Int64)
        digest.update(whole.fill_null(0).to_numpy().astype("<i8").tobytes())
