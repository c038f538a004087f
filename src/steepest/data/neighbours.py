"""Labels against those of the nearest rows: a hint of wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["share_among_others"]

_NEIGHBOURS = 10
_AGREEING = 8  # so many of them of one other class
_MOST_ROWS = 2_000
_MOST_NUMBERS = 200_000  # rows times features looked at: bounds the time of a wide table
_FEWEST_ROWS = 50  # of the second largest class


def share_among_others(features: NDArray[Any], labels: NDArray[np.int64]) -> float | None:
    """The share of rows that lie among rows of one other class; None where there are too few rows to say.

    Counted in each of the two largest classes, and the smaller share taken: labels that are wrong at random make
    such rows in both, while a rare class that cannot be told apart makes them in itself alone.

    Args:
        features: encoded, (rows, features), on like scales.
        labels: class indices, (rows,).
    """
    # Exact and without BLAS: the same neighbours on any number of threads.
    from scipy.spatial import KDTree

    num_rows = min(len(labels), _MOST_ROWS, max(1, _MOST_NUMBERS // features.shape[1]))
    places = np.linspace(0, len(labels) - 1, num_rows).round().astype(np.int64)
    points, own = features[places].astype(np.float64), labels[places]
    sizes = np.bincount(own)
    largest = np.argsort(-sizes, kind="stable")[:2]
    if len(largest) < 2 or sizes[largest[1]] < _FEWEST_ROWS:
        return None
    near = np.asarray(KDTree(points).query(points, k=_NEIGHBOURS + 1)[1])
    votes = np.zeros((num_rows, len(sizes)), dtype=np.int64)
    # A row is its own nearest, unless as many others as are asked for are just like it.
    is_other = near != np.arange(num_rows)[:, None]
    is_other[is_other.all(axis=1), -1] = False
    rows, columns = np.nonzero(is_other)
    np.add.at(votes, (rows, own[near[rows, columns]]), 1)
    votes[np.arange(num_rows), own] = 0
    is_among_others = votes.max(axis=1) >= _AGREEING
    return float(min(is_among_others[own == label].mean() for label in largest))
