"""Tasks, splits, targets and notes, from end to end."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import polars as pl
import pytest

from steepest.data import prepare
from steepest.errors import InputError

NUM_ROWS = 60
NUMBERS = pl.Series("a", np.random.default_rng(1).normal(size=NUM_ROWS))


def table(y: list[Any], **more: list[Any]) -> pl.DataFrame:
    return pl.DataFrame({"a": NUMBERS[: len(y)], **more, "y": y}, strict=False)


def cycle(*values: Any) -> list[Any]:
    return [values[row % len(values)] for row in range(NUM_ROWS)]


TASKS: list[tuple[list[Any], str, str, list[Any] | None]] = [
    (cycle("no", "yes"), "auto", "binary", ["no", "yes"]),
    (cycle("c", "a", "b"), "auto", "multiclass", ["a", "b", "c"]),
    (cycle(True, False), "auto", "binary", [False, True]),
    (cycle(0.0, 1.0), "auto", "binary", [0.0, 1.0]),
    (cycle(0.0, 2.0), "auto", "regression", None),
    (cycle(0.0, 1.0, 2.0), "auto", "regression", None),
    (cycle(1, 2), "auto", "binary", [1, 2]),
    (cycle(*range(10)), "auto", "multiclass", list(range(10))),
    (cycle(*range(11)), "auto", "regression", None),
    (cycle(10, 9, 2), "auto", "multiclass", [2, 9, 10]),
    (cycle("c", "a", "b"), "classification", "multiclass", ["a", "b", "c"]),
    (cycle(3, 4), "classification", "binary", [3, 4]),
    (cycle(3, 4), "binary", "binary", [3, 4]),
    (cycle(3, 4), "multiclass", "multiclass", [3, 4]),
    (cycle(*range(12)), "multiclass", "multiclass", list(range(12))),
    (cycle(3, 4), "regression", "regression", None),
    (cycle(True, False), "regression", "regression", None),
    (cycle("1.5", "2", "7"), "regression", "regression", None),
    (cycle("1.5", "2", "nan"), "regression", "regression", None),
]


@pytest.mark.parametrize(("y", "task", "settled", "classes"), TASKS, ids=lambda value: str(value)[:30])
def test_task(y: list[Any], task: str, settled: str, classes: list[Any] | None) -> None:
    prepared = prepare(table(y), "y", task=task)
    assert prepared.task == prepared.encoding.task == settled
    assert prepared.encoding.classes == classes
    said = any("task" in note for note in prepared.notes)
    assert said == (task == "auto"), "what is inferred is said, what was asked for is not"


def test_few_rows_of_distinct_integers_are_a_quantity() -> None:
    assert prepare(table(list(range(10))), "y").task == "regression"


def test_regression_targets() -> None:
    y = NUMBERS * 7 + 100
    prepared = prepare(pl.DataFrame({"a": NUMBERS, "y": y}), "y")
    encoding = prepared.encoding
    assert prepared.y_train.dtype == prepared.y_test.dtype == np.float32
    assert prepared.y_test_original.dtype == np.float64
    assert np.isclose(prepared.y_train.mean(), 0, atol=1e-6)
    assert np.isclose(prepared.y_train.std(), 1, atol=1e-6)
    for ours, original in (
        (prepared.y_test, prepared.y_test_original),
        (prepared.y_validation, prepared.y_validation_original),
    ):
        assert np.allclose(ours * encoding.target_scale + encoding.target_mean, original, rtol=1e-6)
    feature = encoding.columns[0].parts[0]
    assert np.allclose(
        (prepared.x_test[:, 0] * feature.scale + feature.mean) * 7 + 100, prepared.y_test_original
    )


def test_binary_targets() -> None:
    prepared = prepare(table(cycle("yes", "no", "no")), "y")
    assert prepared.y_train.dtype == np.float32
    assert np.isclose(prepared.y_train.mean(), 1 / 3, atol=0.01), "the second class, 'yes', is 1"
    assert prepared.y_test_original.dtype == np.int64
    assert np.array_equal(prepared.y_test, prepared.y_test_original)
    assert (prepared.encoding.target_mean, prepared.encoding.target_scale) == (0.0, 1.0)


def test_multiclass_targets() -> None:
    prepared = prepare(table(cycle("c", "a", "b")), "y")
    assert prepared.y_train.dtype == np.int64
    assert np.bincount(prepared.y_train).tolist() == [12, 12, 12]
    assert np.bincount(prepared.y_test).tolist() == [4, 4, 4]
    assert np.array_equal(prepared.y_validation, prepared.y_validation_original)


@pytest.mark.parametrize(
    ("y", "num_classes"), [(cycle(0.5, 1, 2), 1), (cycle("a", "b"), 2), (cycle(1, 2, 3), 3)]
)
def test_training_data(y: list[Any], num_classes: int) -> None:
    prepared = prepare(table(y), "y")
    data = prepared.training_data()
    assert data.num_classes == num_classes
    assert data.task == prepared.task
    assert data.target_scale == prepared.encoding.target_scale
    assert data.x_train is prepared.x_train
    assert data.y_validation is prepared.y_validation


@pytest.mark.parametrize("y", [cycle(0.5, 1, 2), cycle("a", "b", "b")], ids=["numbers", "classes"])
@pytest.mark.parametrize(
    ("shares", "sizes"),
    [
        ({}, (36, 12, 12)),
        ({"test": 0}, (48, 12, 0)),
        ({"validation": 0}, (48, 0, 12)),
        ({"validation": 0, "test": 0}, (60, 0, 0)),
        ({"validation": 0.1, "test": 0.3}, (36, 6, 18)),
        ({"validation": 0.5, "test": 0.4}, (6, 30, 24)),
    ],
    ids=str,
)
def test_split_sizes(y: list[Any], shares: dict[str, float], sizes: tuple[int, int, int]) -> None:
    prepared = prepare(table(y), "y", **shares)
    assert tuple(prepared.num_rows.values()) == sizes
    assert tuple(map(len, (prepared.x_train, prepared.x_validation, prepared.x_test))) == sizes
    assert tuple(map(len, (prepared.y_train, prepared.y_validation, prepared.y_test))) == sizes
    values = np.concatenate([prepared.x_train, prepared.x_validation, prepared.x_test])
    assert len(np.unique(values)) == NUM_ROWS, "each row is in one part"


def test_split_depends_on_the_seed_alone() -> None:
    first, again, other = (prepare(table(cycle("a", "b")), "y", seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.x_train, again.x_train)
    assert first.notes == again.notes
    assert not np.array_equal(first.x_train, other.x_train)
    assert first.data_sha256 == other.data_sha256


def test_encoding_sees_training_rows_alone() -> None:
    """Other values in validation and test rows change nothing that is learned."""
    frame = table(list(NUMBERS), b=cycle("u", "v"))
    plain = prepare(frame, "y")
    train = set(np.round(plain.x_train[:, 0], 5))
    encoded, _ = plain.encoding.apply(read_frame(frame))
    outside = pl.Series([float(np.round(value, 5)) not in train for value in encoded[:, 0]])
    changed = frame.with_columns(
        a=pl.when(outside).then(999.0).otherwise("a"), b=pl.when(outside).then(pl.lit("w")).otherwise("b")
    )
    again = prepare(changed, "y")
    assert again.encoding == plain.encoding
    assert any("24 of 60 rows hold a category that no training row had ('w')" in note for note in again.notes)


def read_frame(frame: pl.DataFrame) -> Any:
    from steepest.data import read

    return read(frame)


DROPPED: list[tuple[list[Any], str]] = [
    (cycle(5), "Column 'b' is left out: all training rows have the same value (5)."),
    (cycle("z"), "Column 'b' is left out: all training rows have the same value ('z')."),
    (cycle(None), "Column 'b' is left out: it has no value in the training rows."),
    (
        [f"id-{row}" for row in range(NUM_ROWS)],
        "Column 'b' is left out: nearly every row has a text of its own",
    ),
    (
        [row % 7 * 1e-200 for row in range(NUM_ROWS)],
        "Column 'b' is left out: its values lie within 6e-200 of one another, which is too little to be computed with",
    ),
]


@pytest.mark.parametrize(("values", "note"), DROPPED, ids=lambda value: str(value)[:40])
def test_useless_columns_are_dropped_and_said(values: list[Any], note: str) -> None:
    prepared = prepare(table(list(NUMBERS), b=values), "y")
    assert prepared.encoding.feature_names == ["a"]
    assert any(said.startswith(note) for said in prepared.notes)


def test_columns_that_are_useless_alike_are_told_of_together() -> None:
    empty, same = (
        {f"{word}{place}": cycle(value) for place in range(count)}
        for word, value, count in (("n", None, 2), ("s", 0, 12))
    )
    notes = prepare(table(list(NUMBERS), **same, **empty, t=cycle(1)), "y").notes
    named = ", ".join(f"'s{place}'" for place in range(10))
    assert (
        f"Each of the columns {named} and 2 more is left out: all training rows have the same value (0)."
        in notes
    )
    assert "Each of the columns 'n0', 'n1' is left out: it has no value in the training rows." in notes
    assert "Column 't' is left out: all training rows have the same value (1)." in notes


def test_a_frames_index_is_dropped_and_said() -> None:
    frame = table(list(NUMBERS)).to_pandas()
    prepared = prepare(frame.reset_index(names="Unnamed: 0"), "y")
    assert prepared.encoding.feature_names == ["a"]
    assert "Column 'Unnamed: 0' is left out: it only numbers the rows." in prepared.notes


def test_rows_without_a_target_are_dropped_and_said() -> None:
    prepared = prepare(table([None, None, *NUMBERS[2:]]), "y")
    assert sum(prepared.num_rows.values()) == NUM_ROWS - 2
    assert "2 of 60 rows have no target 'y' and are left out." in prepared.notes


def test_a_rare_class_is_in_the_training_rows_whatever_the_seed() -> None:
    y = ["rare"] * 3 + ["b", "c"] * 28
    for seed in range(30):
        assert np.bincount(prepare(table(y), "y", seed=seed).y_train)[2] > 0


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize(
    "shares", [{}, {"test": 0}, {"validation": 0.45, "test": 0.45}, {"test": 0.7}], ids=str
)
def test_too_rare_a_class_is_an_error_and_nothing_else(count: int, shares: dict[str, float]) -> None:
    """Whether a class can be split is known beforehand: scikit-learn never has to say so."""
    y = ["rare"] * count + ["b"] * (NUM_ROWS - count)
    try:
        prepared = [prepare(table(y), "y", seed=seed, **shares) for seed in range(5)]
    except InputError as refused:
        error = refused
    else:
        assert all((split.y_train == 1).any() for split in prepared)
        return
    assert "class 'rare'" in str(error)


def test_validation_target_beyond_all_reason() -> None:
    prepared = prepare(table(list(NUMBERS)), "y")
    held_out = float(prepared.y_test_original[0])
    wild = [1e60 if value == held_out else value for value in NUMBERS]
    with pytest.raises(InputError, match="too far from the training rows'"):
        prepare(table(wild), "y")


def test_fifty_thousand_rows_take_about_a_second() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(50_000, 30)), random.normal(size=50_000)
    prepare((x[:100], y[:100]))  # imports
    start = time.perf_counter()
    prepare((x, y))
    assert time.perf_counter() - start < 10, "measured: 0.7 s; ten times that is a fault, not a slow machine"
