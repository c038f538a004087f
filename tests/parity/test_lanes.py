"""Rows to lanes and back: every number to its place, and nothing beside it touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from steepest.backends.cpu_lanes import LANES, load, store

CLASSES = (1, 2, 3, 4, 5, 7, 8, 9, 10, 63, 64)
WIDTHS = (1, 4, 15, 16, 17, 31, 33, 127, 128)


@njit
def _load(lanes: Any, x: Any, base: Any, stride: int, width: int) -> None:
    load(lanes, x, base, stride, width)


@njit
def _store(out: Any, lanes: Any, base: Any, stride: int, width: int) -> None:
    store(out, lanes, base, stride, width)


@pytest.mark.parametrize("types", [("float32", "float32"), ("float64", "float64"), ("float32", "float64")])
@pytest.mark.parametrize("layout", ["classes together", "classes apart", "rows here and there"])
def test_there_and_back(layout: str, types: tuple[str, str]) -> None:
    of_rows, of_lanes = types
    for num_classes in CLASSES:
        for width in WIDTHS:
            rows = np.arange(width, dtype=np.int64)
            base, stride = 1 + rows * num_classes, 1
            if layout == "classes apart":
                base, stride = 1 + rows, width
            elif layout == "rows here and there":
                base = base[::-1].copy()
            places = base[:, None] + stride * np.arange(num_classes)
            x = (
                np.random.default_rng(num_classes * width)
                .normal(size=width * num_classes + 2)
                .astype(of_rows)
            )
            lanes = np.full((num_classes, LANES), 7.0, of_lanes)
            _load(lanes, x, base, stride, width)
            assert np.array_equal(lanes[:, :width], x[places].T)
            assert (lanes[:, width:] == 7.0).all()
            out = np.full_like(x, 7.0)
            _store(out, lanes, base, stride, width)
            assert np.array_equal(out[1:-1], x[1:-1])
            assert out[0] == out[-1] == 7.0
