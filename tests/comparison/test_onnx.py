"""A fitted model as ONNX: a table in its own words goes in, the same predictions come out."""

from __future__ import annotations

import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import pytest

import steepest
from steepest.data.encoding import CategoricalColumn
from steepest.data.parts import part_values
from steepest.data.read import read
from steepest.errors import InputError

NUM = 160


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    """Numbers, booleans, dates and categories, with gaps; one column has more categories than get a feature."""
    rng = np.random.default_rng(0)
    size, rooms = rng.normal(100.0, 20.0, NUM), rng.integers(1, 6, NUM)
    gaps = np.arange(NUM) % 7 == 0
    return pl.DataFrame(
        {
            "size": [None if gap else value for gap, value in zip(gaps, size, strict=True)],
            "rooms": rooms,
            "new": rng.integers(0, 2, NUM).astype(bool),
            "town": [None if gap else "abc"[value % 3] for gap, value in zip(gaps[::-1], rooms, strict=True)],
            "street": [f"street {value}" for value in rng.integers(0, 60, NUM)],
            "sold": [date(2020, 1, 1) + timedelta(days=int(day)) for day in rng.integers(0, 900, NUM)],
            "price": 3.0 * size + 10.0 * rooms,
        }
    )


def feed(model: steepest.FittedModel, frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """The table as the file takes it."""
    columns = read(frame)
    given: dict[str, Any] = {}
    for column in model.encoding.columns:
        series = columns.frame[column.name]
        if isinstance(column, CategoricalColumn):
            given[column.name] = series.cast(pl.String).fill_null("").to_numpy().astype(object)
            continue
        for part in column.parts:
            name = column.name if part.name == "value" else f"{column.name} ({part.name})"
            given[name] = part_values(series, part.name, "")
    return {name: values[:, None] for name, values in given.items()}


def run(path: Path, given: dict[str, np.ndarray], *wanted: str) -> list[Any]:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(list(wanted), given)


@pytest.mark.filterwarnings("ignore:Column")
@pytest.mark.parametrize("loss", ["mse", "gamma"])
def test_the_encoding_goes_with_the_network(table: pl.DataFrame, tmp_path: Path, loss: str) -> None:
    model = steepest.fit(table, "price", loss=loss, hidden=(8,), lr=0.01, max_epochs=5)
    model.to_onnx(tmp_path / "model.onnx")
    model.to_onnx(tmp_path / "again.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    unseen = table.head(20).with_columns(
        pl.lit("elsewhere").alias("town"), pl.lit("a new street").alias("street"), pl.lit(None).alias("rooms")
    )
    for rows in (table, unseen):
        (given,) = run(tmp_path / "model.onnx", feed(model, rows), "prediction")
        np.testing.assert_allclose(given[:, 0], model.predict(rows.drop("price")), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Column")
@pytest.mark.parametrize("target", ["town", "new", "rooms"])
def test_classes(table: pl.DataFrame, tmp_path: Path, target: str) -> None:
    rows = table.filter(pl.col("town").is_not_null())
    model = steepest.fit(rows, target, task="classification", hidden=(8,), lr=0.01, max_epochs=5)
    model.to_onnx(tmp_path / "model.onnx")
    label, shares = run(tmp_path / "model.onnx", feed(model, rows), "label", "probabilities")
    np.testing.assert_allclose(shares, model.predict_proba(rows), atol=1e-5)
    assert label.tolist() == model.predict(rows).tolist()


def test_without_the_package_it_says_what_to_install(
    table: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = steepest.fit(table.select("rooms", "price"), "price", hidden=(), max_epochs=1)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"pip install 'steepest\[onnx\]'"):
        model.to_onnx(tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
