"""The split by groups and by time: nothing of a group, and nothing later, is trained on beside what judges it."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.model_selection import GroupShuffleSplit

from steepest.data import Prepared, prepare
from steepest.errors import InputError

NUM_ROWS = 120
RNG = np.random.default_rng(5)
NUMBER = np.arange(NUM_ROWS, dtype=float)  # tells each row from the others


def table(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"number": NUMBER, "y": RNG.normal(size=NUM_ROWS)} | columns, strict=False)


def rows_of(prepared: Prepared) -> list[np.ndarray]:
    """Which rows of the table each part has."""
    (column,) = (column for column in prepared.encoding.columns if column.name == "number")
    part = column.parts[0]
    place = prepared.encoding.feature_names.index("number")
    encoded = (prepared.x_train, prepared.x_validation, prepared.x_test)
    return [np.round(x[:, place] * part.scale + part.mean).astype(int) for x in encoded]


GROUPS = RNG.integers(0, 12, NUM_ROWS)
SPELLED = {
    "integers": GROUPS,
    "text": [f"patient {group}" for group in GROUPS],
    "floats": GROUPS / 3,
    "dates": pl.Series(GROUPS).cast(pl.Date),
}


@pytest.mark.parametrize("groups", SPELLED.values(), ids=SPELLED)
@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_in_two_parts(groups: Any, seed: int) -> None:
    prepared = prepare(table(g=groups), "y", group="g", seed=seed)
    parts = rows_of(prepared)
    assert sorted(np.concatenate(parts)) == list(range(NUM_ROWS))
    held = [set(GROUPS[part]) for part in parts]
    assert [len(groups) for groups in held] == [8, 2, 2]
    assert not held[0] & held[1] | held[0] & held[2] | held[1] & held[2]


def test_the_groups_are_those_of_scikit_learns_splitter() -> None:
    splitter = GroupShuffleSplit(n_splits=1, test_size=2, random_state=4)
    _, expected = next(splitter.split(NUMBER, groups=GROUPS))
    assert sorted(rows_of(prepare(table(g=GROUPS), "y", group="g", seed=4))[2]) == sorted(expected)


def test_a_group_is_no_feature_and_the_split_is_said() -> None:
    prepared = prepare(table(g=GROUPS), "y", group="g")
    assert prepared.encoding.feature_names == ["number"]
    (note,) = (note for note in prepared.notes if "groups" in note)
    assert note.startswith(
        "The 12 groups in 'g' are split 8 in training, 2 in validation, 2 in test rows; none is in two parts"
    )
    assert prepare(table(g=GROUPS), "y").encoding.feature_names == ["number", "g"]


WHEN = RNG.permutation(NUM_ROWS)
TIMES = {
    "integers": WHEN,
    "floats": WHEN * 0.5 - 7.0,
    "dates": pl.Series(WHEN).cast(pl.Date),
    "text dates": [str(date) for date in pl.Series(WHEN).cast(pl.Date)],
}


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
def test_training_is_before_validation_is_before_test(times: Any) -> None:
    prepared = prepare(table(t=times), "y", time="t")
    parts = [WHEN[part] for part in rows_of(prepared)]
    assert [list(part) for part in parts] == [list(range(72)), list(range(72, 96)), list(range(96, 120))]
    assert prepared.encoding.feature_names == ["number"]
    (note,) = [
        note for note in prepared.notes if note.startswith("The rows are in the order of 't': training")
    ]
    assert "00:00:00" not in note


def test_large_whole_numbers_keep_their_order() -> None:
    prepared = prepare(table(t=2**60 + WHEN), "y", time="t")  # as floats they would be one number
    assert list(WHEN[rows_of(prepared)[2]]) == list(range(96, 120))


def test_rows_of_one_moment_are_in_one_part() -> None:
    prepared = prepare(table(t=WHEN // 10), "y", time="t")  # twelve days of ten rows: no share is whole days
    days = [set(WHEN[part] // 10) for part in rows_of(prepared)]
    assert days == [set(range(7)), {7, 8}, {9, 10, 11}]


def test_rows_without_a_target_need_no_group() -> None:
    y = [None, *RNG.normal(size=NUM_ROWS - 1)]
    assert sum(prepare(table(y=y, g=[None, *GROUPS[1:]]), "y", group="g").num_rows.values()) == NUM_ROWS - 1


def test_fit_needs_two_groups_and_no_split_needs_none() -> None:
    two = table(g=[row % 2 for row in range(NUM_ROWS)])
    assert prepare(two, "y", group="g", test=0.0).num_rows == {"train": 60, "validation": 60, "test": 0}
    one = table(g=["a"] * NUM_ROWS)
    assert prepare(one, "y", group="g", validation=0.0, test=0.0).num_rows["train"] == NUM_ROWS


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {},
        {"group": "numbr"},
        "There is no column 'numbr' in the data frame to split by; did you mean 'number'?",
    ),
    ({}, {"time": "y"}, "time='y' is the target"),
    ({}, {"time": "number", "group": "number"}, "not by both"),
    ({"g": [None, 3, *GROUPS[2:]]}, {"group": "g"}, r"no value in 1 of 120 rows \(the first is row 1\)"),
    (
        {"t": [1.0, float("nan"), *NUMBER[2:]]},
        {"time": "t"},
        r"no value in 1 of 120 rows \(the first is row 2\)",
    ),
    (
        {"g": ["a"] * NUM_ROWS},
        {"group": "g"},
        "'g' has 1 group; to hold whole groups out, at least 3 are needed",
    ),
    ({"g": [0, 1] * 60}, {"group": "g"}, "'g' has 2 groups; "),
    ({"g": [0, 1] + [2] * 118}, {"group": "g"}, "part would have 1 row, and at least 2 are needed"),
    (
        {"t": ["Monday", "Tuesday"] * 60},
        {"time": "t"},
        "holds text such as 'Monday', which has no order in time",
    ),
    ({"t": [True, False] * 60}, {"time": "t"}, "holds booleans such as True"),
    ({"t": [1] * NUM_ROWS}, {"time": "t"}, "the training part would have 0 rows"),
    ({"t": [1] * 60 + [2] * 60}, {"time": "t"}, "the validation part would have 0 rows"),
    ({"y": ["a"] * 90 + ["b"] * 30}, {"time": "number"}, "no training row has the class 'b'"),
]


@pytest.mark.parametrize(("columns", "options", "words"), WRONG, ids=[words for *_, words in WRONG])
def test_what_cannot_be_split_is_one_sentence(columns: Any, options: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        prepare(table(**columns), "y", **options)
    assert "\n" not in str(caught.value)
