"""What makes scores look better than they are: a column that gives the target away, rows that stand there twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from steepest.data.encoding import Encoding
from steepest.data.table import which

__all__ = ["repeated_rows", "telling_columns"]

_MOST_ROWS = 500  # that are looked at, for training and for judging each
_MOST_LEAVES = 64
_ALL_BUT_TOLD = 0.99  # of a quantity's variance
_ALL_BUT_RIGHT = 0.98  # of the errors of always saying the largest class
_FEWEST_ERRORS = 5  # of it, to say anything

_MANY_REPEATED = 0.01
_FEW_REPEATED = 0.5  # beyond it there are few different rows to be had, and no two are the same by mistake


def telling_columns(
    encoding: Encoding,
    train: tuple[NDArray[np.float32], NDArray[Any]],
    judged: tuple[NDArray[np.float32], NDArray[Any]],
) -> list[str]:
    """A note on the columns each of which alone tells nearly all of the target.

    A small tree (for quantities a straight line too) learns each column by itself on the first pair of encoded features
    and targets and is judged on the second, which has other rows.
    """
    (x, y), (others, truth) = _some(*train), _some(*judged)
    if len(truth) < 2:
        return []
    told, first = [], 0
    for column in encoding.columns:
        places = slice(first, first := first + len(column.feature_names))
        if _tells(x[:, places], y, others[:, places], truth, is_quantity=encoding.classes is None):
            told.append(column.name)
    if not told:
        return []
    note = (
        f"{which(told)} alone all but gives away the target: where it is not known yet when you predict, it leaks the "
        "answer and the scores mean nothing; leave it out then, by --ignore (ignore=)."
    )
    return [note]


def _some(x: NDArray[np.float32], y: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Rows from all over the table, which may be sorted."""
    places = np.linspace(0, len(y) - 1, min(len(y), _MOST_ROWS)).round().astype(np.int64)
    return x[places], y[places]


def _tells(
    x: NDArray[np.float32],
    y: NDArray[Any],
    others: NDArray[np.float32],
    truth: NDArray[Any],
    *,
    is_quantity: bool,
) -> bool:
    from sklearn.linear_model import LinearRegression
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    if is_quantity:
        tree = DecisionTreeRegressor(max_leaf_nodes=_MOST_LEAVES, random_state=0)
        return any(
            model.fit(x, y).score(others, truth) >= _ALL_BUT_TOLD for model in (LinearRegression(), tree)
        )
    usual = np.bincount(y.astype(np.int64)).argmax()
    classes = DecisionTreeClassifier(max_leaf_nodes=_MOST_LEAVES, random_state=0).fit(x, y)
    # On the rows it has learned from too: a column that is only a good feature has the same value in two classes.
    for rows, own in ((others, truth), (x, y)):
        num_usual = int((own != usual).sum())
        num_wrong = int((classes.predict(rows) != own).sum())
        if num_usual < _FEWEST_ERRORS or num_wrong > (1 - _ALL_BUT_RIGHT) * num_usual:
            return False
    return True


def repeated_rows(frame: pl.DataFrame) -> list[str]:
    """A note on rows that are the same as another one in every column, the target included."""
    repeated = len(frame) - frame.hash_rows().n_unique()
    if not _MANY_REPEATED * len(frame) <= repeated <= _FEW_REPEATED * len(frame):
        return []
    note = (
        f"{repeated:,} of {len(frame):,} rows repeat another one in every column: a model may meet in the test rows "
        "what it was trained on, and score too well; unless they are cases of their own, drop them."
    )
    return [note]
