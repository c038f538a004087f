"""What makes scores look better than they are is said: columns that tell the target, rows that stand there twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_iris

from steepest.data import prepare

RANDOM = np.random.default_rng(5)
ROWS = 600
X = RANDOM.normal(size=(ROWS, 2))
PRICE = np.exp(X @ [1.0, 0.5] + 0.5 * RANDOM.normal(size=ROWS))
CHURNED = X[:, 0] + RANDOM.normal(size=ROWS) > 1.5
PLAIN = {"a": X[:, 0], "b": X[:, 1]}


def notes(y: Any, **more: Any) -> list[str]:
    found = prepare(pl.DataFrame({**PLAIN, **more, "y": y}), "y").notes
    return [note for note in found if "gives away" in note or "give away" in note or "repeat" in note]


@pytest.mark.parametrize(
    ("y", "leak"),
    [
        pytest.param(PRICE, 1.19 * PRICE + 3, id="with tax"),
        pytest.param(PRICE, np.log(PRICE), id="another scale"),
        pytest.param(np.where(PRICE < 0.5, "low", "high"), PRICE, id="what the class was made of"),
        pytest.param(CHURNED, ["too dear" if gone else None for gone in CHURNED], id="filled in afterwards"),
        pytest.param(np.digitize(PRICE, [0.5, 1, 2]), np.digitize(PRICE, [0.5, 1, 2]) * 7, id="classes"),
    ],
)
def test_a_column_that_gives_the_target_away_is_named(y: Any, leak: Any) -> None:
    (note,) = notes(y, leak=pl.Series(leak, strict=False))
    assert note.startswith("Column 'leak' alone all but gives away the target")
    (both,) = notes(y, leak=pl.Series(leak, strict=False), again=pl.Series(leak, strict=False))
    assert both.startswith("Each of the columns 'leak', 'again' alone all but gives away the target")


@pytest.mark.parametrize("y", [PRICE, CHURNED, np.where(PRICE < 0.5, "low", "high"), np.arange(ROWS) < 4])
def test_good_columns_of_an_honest_table_are_not(y: Any) -> None:
    assert notes(y, good=PRICE + 0.8 * RANDOM.normal(size=ROWS)) == []


def test_a_table_that_is_sorted_is_looked_at_all_over() -> None:
    many = 20_000
    y = np.sort(np.random.default_rng(0).integers(0, 3, many))
    found = prepare(
        pl.DataFrame({"a": np.random.default_rng(1).normal(size=many), "leak": y + 0.5, "y": y}), "y"
    )
    assert any("Column 'leak' alone" in note for note in found.notes)


def test_rows_that_stand_there_twice_are_counted() -> None:
    table = pl.DataFrame({**PLAIN, "y": PRICE})
    found = prepare(pl.concat([table, table.head(60)]), "y").notes
    assert any(note.startswith("60 of 660 rows repeat another one in every column") for note in found)
    few = pl.DataFrame({"a": np.arange(ROWS) % 3, "b": np.arange(ROWS) % 5, "y": CHURNED})
    assert not any("repeat" in note for note in prepare(few, "y").notes)


@pytest.mark.parametrize("seed", range(5))
def test_a_good_feature_is_no_leak(seed: int) -> None:
    """A petal's width tells 19 of 20 irises, and some of two kinds have the same; a code of the kind tells all."""
    frame = load_iris(as_frame=True).frame
    kinds = frame["target"].map({0: "setosa", 1: "versicolor", 2: "virginica"})
    notes = prepare(frame.assign(target=kinds), "target", seed=seed).notes
    assert not any("gives away" in note for note in notes)
    leaking = prepare(frame.assign(target=kinds, code=frame["target"] * 7 % 5), "target", seed=seed).notes
    assert [note[:13] for note in leaking if "gives away" in note] == ["Column 'code'"]
