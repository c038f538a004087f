"""The encoding equals scikit-learn's own, meets the unseen, and survives JSON."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from steepest.data import Encoding, Table, prepare, read
from steepest.data.learn import MAX_LEVELS, learn_columns
from steepest.data.table import without
from steepest.errors import InputError


def mixed(num_rows: int, seed: int = 0) -> pl.DataFrame:
    """Numbers, whole numbers, gaps, categories with gaps, and more categories than are kept."""
    random = np.random.default_rng(seed)
    gap = random.normal(5, 3, num_rows)
    gap[random.random(num_rows) < 0.2] = np.nan
    return pl.DataFrame(
        {
            "size": random.lognormal(3, 2, num_rows),
            "rooms": random.integers(0, 9, num_rows),
            "gap": pl.Series(gap).fill_nan(None),
            "color": random.choice(np.array(["red", "blue", "green", None]), num_rows).tolist(),
            "town": [f"town {number}" for number in random.geometric(0.03, num_rows)],
        }
    )


def learned(rows: pl.DataFrame) -> Encoding:
    columns, _ = learn_columns(rows, "the rows")
    return Encoding("y", "regression", columns)


def apply(encoding: Encoding, frame: pl.DataFrame) -> tuple[np.ndarray, list[str]]:
    return encoding.apply(read(frame))


NUMBERS = ["size", "rooms", "gap"]


@pytest.mark.parametrize("seed", range(5))
def test_equals_column_transformer(seed: int) -> None:
    train, other = mixed(2000, seed), mixed(500, seed + 100)
    encoding = learned(train)
    one_hot = OneHotEncoder(
        max_categories=MAX_LEVELS + 1, handle_unknown="infrequent_if_exist", sparse_output=False
    )
    transformer = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMBERS),
            ("missing", MissingIndicator(), NUMBERS),
            ("categories", one_hot, ["color", "town"]),
        ]
    ).fit(to_pandas(train))
    for rows in (train, other):
        features, _ = apply(encoding, rows)
        expected = transformer.transform(to_pandas(rows)).astype(np.float32)
        # ours stand column by column: the indicator follows its number
        ours = [encoding.feature_names.index(name) for name in (*NUMBERS, "gap (missing)")]
        ours += [place for place in range(features.shape[1]) if place not in ours]
        assert np.array_equal(features[:, ours], expected)


def to_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({column.name: column.to_list() for column in frame.get_columns()}).astype(
        {"color": object, "town": object}
    )


def test_feature_names_and_shape() -> None:
    encoding = learned(mixed(2000))
    names = encoding.feature_names
    assert names[:7] == ["size", "rooms", "gap", "gap (missing)", "color=blue", "color=green", "color=red"]
    assert names[7] == "color (missing)"
    assert names[-1] == "town (infrequent)"
    assert sum(name.startswith("town=") for name in names) == MAX_LEVELS
    assert len(set(names)) == len(names) == apply(encoding, mixed(3))[0].shape[1]


def test_json_round_trip_is_exact() -> None:
    encoding = prepare(dated(), "y").encoding
    text = json.dumps(encoding.to_json(), allow_nan=False)
    again = Encoding.from_json(json.loads(text))
    assert again == encoding
    assert json.dumps(again.to_json()) == text


@pytest.mark.parametrize("classes", [["a", "b"], [False, True], [1, 2, 3], [0.0, 1.0]])
def test_classes_survive_json(classes: list[Any]) -> None:
    again = Encoding.from_json(json.loads(json.dumps(Encoding("y", "multiclass", (), classes).to_json())))
    assert again.classes == classes
    assert [type(label) for label in again.classes] == [type(label) for label in classes]


@pytest.mark.parametrize("damage", [{"format": 2}, {"columns": [{"kind": "numeric"}]}, {"columns": None}])
def test_damaged_json(damage: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"The encoding is"):
        Encoding.from_json(learned(mixed(99)).to_json() | damage)


def dated() -> pl.DataFrame:
    start = dt.datetime(2019, 12, 30)  # noqa: DTZ001
    return pl.DataFrame(
        {
            "day": [None if row == 7 else start + dt.timedelta(days=row) for row in range(60)],
            "time": [start + dt.timedelta(hours=5 * row) for row in range(60)],
            "sunny": [row % 3 > 0 for row in range(60)],
            "kind": ["xyz"[row % 3] for row in range(60)],
            "y": [row**1.5 for row in range(60)],
        }
    )


def test_dates_become_parts() -> None:
    prepared = prepare(dated(), "y", validation=0, test=0)
    names = prepared.encoding.feature_names
    parts = ["days", "year", "month", "weekday"]
    expected = [f"day ({part})" for part in [*parts, "missing"]] + [
        f"time ({part})" for part in [*parts, "hour"]
    ]
    assert names == [*expected, "sunny", "kind=x", "kind=y", "kind=z"]
    hours = prepared.x_train[:, names.index("time (hour)")]
    raw = np.array([moment.hour for moment in dated()["time"]])
    assert np.allclose(hours, (raw - raw.mean()) / raw.std())
    days = prepared.x_train[:, names.index("time (days)")]
    assert np.allclose(np.diff(days), np.diff(days)[0], atol=1e-6), "the time of day counts as part of a day"


def test_all_standardised() -> None:
    features = prepare(mixed(500).with_columns(y=pl.col("size")), "y", validation=0, test=0).x_train
    assert np.allclose(features[:, :3].mean(axis=0), 0, atol=1e-5)
    assert np.allclose(features[:, :2].std(axis=0), 1, atol=1e-5)
    assert features.dtype == np.float32


def test_constant_but_for_gaps_is_safe() -> None:
    encoding = learned(pl.DataFrame({"a": [7.0, None, 7.0, 7.0]}))
    features, _ = apply(encoding, pl.DataFrame({"a": [7.0, None, 8.0]}))
    assert features.tolist() == [[0, 0], [0, 1], [1, 0]]


def test_unseen_category_without_an_infrequent_level() -> None:
    encoding = learned(pl.DataFrame({"color": ["red", "blue", "red"] * 9}))
    features, notes = apply(encoding, pl.DataFrame({"color": ["red", "pink", None, "pink", "gray"]}))
    assert features.tolist() == [[0, 1], [0, 0], [0, 0], [0, 0], [0, 0]]
    assert notes == [
        (
            "Column 'color': 3 of 5 rows hold a category that no training row had ('pink', 'gray'); they are"
            " taken as none of the known categories."
        ),
        (
            "Column 'color': 1 of 5 rows have no value, though every training row had one; they are taken as"
            " none of the known categories."
        ),
    ]


def test_unseen_category_with_an_infrequent_level() -> None:
    encoding = learned(mixed(2000).select("town"))
    assert encoding.columns[0].infrequent
    features, notes = apply(encoding, pl.DataFrame({"town": ["Atlantis", encoding.columns[0].infrequent[0]]}))
    assert (features[:, -1] == 1).all()
    assert features.sum() == 2
    assert len(notes) == 1
    assert "1 of 2 rows" in notes[0]
    assert "('Atlantis'); they are taken as infrequent" in notes[0]


def test_more_categories_than_kept_is_said() -> None:
    _, notes = learn_columns(mixed(2000).select("town"), "the rows")
    assert "32 most frequent are kept" in notes[0]


def test_number_missing_for_the_first_time() -> None:
    encoding = learned(pl.DataFrame({"a": [1.0, 2.0, 9.0]}))
    features, notes = apply(encoding, pl.DataFrame({"a": [None, 2.0]}))
    assert features[0] == features[1], "the median, 2"
    assert "1 of 2 rows have no value" in notes[0]


def table_of(**columns: list[Any]) -> Table:
    return read(pl.DataFrame(columns, strict=False))


GOOD_ROW: dict[str, list[Any]] = {
    "day": [dt.date(2020, 1, 1)],
    "time": [dt.datetime(2020, 1, 1, 5)],  # noqa: DTZ001
    "sunny": [True],
    "kind": ["x"],
}

BAD_TABLES: list[tuple[dict[str, list[Any]], list[str]]] = [
    ({"kid": ["x"]}, ["no column 'kind'", "did you mean 'kid'"]),
    ({"kind": [7]}, ["Column 'kind'", "held text", "now holds numbers", "7 in row 1"]),
    ({"sunny": ["yes"]}, ["Column 'sunny'", "held booleans", "'yes'"]),
    ({"sunny": [3]}, ["held booleans", "3 in row 1"]),
    ({"day": ["soon"]}, ["held dates", "now holds text"]),
    ({"time": [3.5]}, ["held dates", "now holds numbers"]),
    ({"kind": [["x"]]}, ["column 'kind'", "nested"]),
]


@pytest.mark.parametrize(("change", "says"), BAD_TABLES, ids=lambda value: str(value)[:30])
def test_table_that_does_not_fit(change: dict[str, list[Any]], says: list[str]) -> None:
    encoding = prepare(dated(), "y").encoding
    row = GOOD_ROW | change
    if "kid" in change:
        del row["kind"]
    with pytest.raises(InputError) as error:
        encoding.apply(table_of(**row))
    for fragment in says:
        assert fragment in str(error.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["1", "two"], "held numbers in training and now holds text ('two' in row 2)"),
        ([1.0, float("inf")], "infinity in 1 of 2 rows"),
        ([1.0, 1e300], "holds 1e+300 in row 2, which is too far from"),
    ],
)
def test_numbers_that_do_not_fit(values: list[Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        learned(pl.DataFrame({"a": [1.0, 2.0]})).apply(table_of(a=values))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("column", "cells", "says"),
    [
        ("day", ["2020-01-01", "2020-02-30"], "held dates in training and now holds text ('2020-02-30' in row 2)"),
        ("sunny", ["true", "maybe"], "now holds text ('maybe' in row 2)"),
    ],
)  # fmt: skip
def test_the_cell_that_made_text_of_a_column_is_the_one_named(
    column: str, cells: list[str], says: str
) -> None:
    rows = {name: values * 2 for name, values in GOOD_ROW.items()} | {column: cells}
    with pytest.raises(InputError, match=re.escape(says)):
        prepare(dated(), "y").encoding.apply(table_of(**rows))


@pytest.mark.parametrize("sunny", [[1], [0.0], [None], [True]])
def test_booleans_may_come_as_zeros_and_ones(sunny: list[Any]) -> None:
    encoding = prepare(dated(), "y").encoding
    expected, _ = encoding.apply(table_of(**GOOD_ROW | {"sunny": [sunny[0] in (None, 1, True)]}))
    assert np.array_equal(encoding.apply(table_of(**GOOD_ROW | {"sunny": sunny}))[0], expected)


def test_extra_columns_and_order_do_not_matter() -> None:
    encoding = prepare(dated(), "y").encoding
    expected, notes = encoding.apply(table_of(**GOOD_ROW))
    more = {"extra": ["?"]} | dict(reversed(GOOD_ROW.items())) | {"y": ["not even a number"]}
    assert np.array_equal(encoding.apply(table_of(**more))[0], expected)
    assert notes == []


def test_categories_that_look_like_numbers_stay_text(tmp_path: Any) -> None:
    """A file to predict may hold fewer kinds of cells than the training file did."""
    encoding = learned(pl.DataFrame({"code": ["007", "7", "A", "2020-01-01", "true"] * 5}))
    for cell in ("007", "7", "2020-01-01", "true"):
        (tmp_path / "t.csv").write_text(f"code\n{cell}\n", encoding="utf-8")
        features, notes = encoding.apply(read(tmp_path / "t.csv"))
        assert notes == []
        assert encoding.feature_names[int(features[0].argmax())] == f"code={cell}"


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("kind", " numeric"),
        ("kind", "categorical"),
        ("name", 7),
        ("flags_missing", "yes"),
        ("parts", [{"name": "to_string"}]),
        ("parts", [{"mean": "0"}]),
        ("parts", [{"scale": 0.0}]),
        ("parts", [{"fill": [[]]}]),
    ],
)
def test_a_column_that_is_none_of_ours(entry: str, value: Any) -> None:
    fields = prepare((np.arange(40.0)[:, None], np.arange(40.0))).encoding.to_json()
    if entry == "parts":
        value = [fields["columns"][0]["parts"][0] | value[0]]
    fields["columns"][0][entry] = value
    with pytest.raises(InputError, match="incomplete or damaged"):
        Encoding.from_json(fields)


@pytest.mark.parametrize("levels", [[[]], ["a", "a"], [1], "ab", None])
def test_levels_that_are_none_of_ours(levels: Any) -> None:
    frame = pl.DataFrame({"a": ["u", "v"] * 20, "y": np.arange(40.0)})
    fields = prepare(frame, "y").encoding.to_json()
    fields["columns"][0]["levels"] = levels
    with pytest.raises(InputError, match="incomplete or damaged"):
        Encoding.from_json(fields)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_matrix_has_as_many_columns_as_that_in_training(width: int) -> None:
    """Whose first column is a constant, and no feature: its place counts all the same."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    x[:, 0] = 1.0
    encoding = prepare((x, y)).encoding
    encoding = Encoding.from_json(json.loads(json.dumps(encoding.to_json())))
    assert encoding.apply(read(x))[0].shape == (40, 2)
    with pytest.raises(
        InputError, match=f"^The array has {width} columns?, and the model was trained on 3, which"
    ):
        encoding.apply(read(np.ones((5, width))))
    # A frame's columns have names, and those of a model of before are not counted.
    named = read(pl.DataFrame(np.ones((5, 4)), schema=["x0", "x1", "x2", "x3"]))
    assert encoding.apply(named)[0].shape == (5, 2)
    before = Encoding.from_json({**encoding.to_json(), "num_places": None})
    assert before.apply(read(np.ones((5, 4))))[0].shape == (5, 2)


def test_columns_that_take_no_part_are_not_counted() -> None:
    """The matrix that is predicted for may have them or not."""
    rng = np.random.default_rng(0)
    table = read((rng.normal(size=(40, 3)), rng.normal(size=40)))
    for encoding in (prepare(without(table, ["x2"])).encoding, prepare(table, group="x2").encoding):
        for width in (2, 3):
            assert encoding.apply(read(np.ones((5, width))))[0].shape == (5, 2)
