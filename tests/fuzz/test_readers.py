"""Readers on inputs that are nearly right, which random bytes seldom are: an entry of a JSON file is another, a table
holds anything, a byte is turned. The same examples each time; ``STEEPEST_TEST_EXAMPLES`` asks for more, new ones."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.seeds import made
from tests.fuzz.targets import TARGETS

ASKED = os.environ.get("STEEPEST_TEST_EXAMPLES")
SOME = settings(
    max_examples=int(ASKED or 50),
    derandomize=ASKED is None,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

NOT_NUMBERS = [
    None,
    True,
    "",
    "0",
    "full",
    "../../etc/passwd",
    "/",
    "\x00",
    "\u202e\x1b[2J",
    "=cmd()",
    "</script>",
]
ODD_NUMBERS = [-1, 0, 1.5, 10**9, 10**12, 2**63, 10**400, 1e308, -1e-320]
CONTAINERS = [[], {}, [None], ["a", "a"], [[[]]], {"": {}}, [1e999]]
# A copy each time, for what is drawn is written into.
ODD = st.sampled_from([*NOT_NUMBERS, *ODD_NUMBERS, *CONTAINERS]).map(copy.deepcopy)
NUMBERS = st.integers() | st.floats()
ANYTHING = st.recursive(
    ODD | NUMBERS | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every entry of a JSON value; of a long list, to its first."""
    if isinstance(value, dict):
        return [path, *(found for key, inner in value.items() for found in places(inner, (*path, key)))]
    if isinstance(value, list):
        return [
            path,
            *(found for place, inner in enumerate(value[:2]) for found in places(inner, (*path, place))),
        ]
    return [path]


@st.composite
def nearly(draw: Any, name: str) -> bytes:
    """A whole JSON file, one or two of its entries gone or another."""
    content = json.loads(made()[name])
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from([path for path in places(content) if path]))
        inner = content
        for step in way:
            inner = inner[step]
        if draw(st.booleans()) or isinstance(inner, list):
            inner[last] = draw(ANYTHING)
        else:
            del inner[last]
    return json.dumps(content).encode()


@pytest.mark.parametrize("name", ["model_manifest", "plan", "question", "verdict", "finished"])
def test_json_of_which_an_entry_is_another(name: str) -> None:
    @settings(
        SOME, max_examples=SOME.max_examples // (5 if name == "verdict" else 1)
    )  # a report takes its time
    @given(nearly(name))
    def holds(data: bytes) -> None:
        TARGETS[name](data)

    holds()


@SOME
@given(st.data())
def test_a_journals_frame_of_which_an_entry_is_another(data: st.DataObject) -> None:
    head, _, body = made()["journal"].partition(b"\n")
    content = json.loads(head)
    *way, last = data.draw(st.sampled_from([path for path in places(content) if path]))
    inner = content
    for step in way:
        inner = inner[step]
    inner[last] = data.draw(ANYTHING)
    TARGETS["journal"](json.dumps(content).encode() + b"\n" + body)


CELLS = st.one_of(
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(repr),
    st.dates().map(str),
    st.datetimes().map(str),
    st.sampled_from(
        ["", "NA", "1,5", "1.234,5", "true", "inf", "-0", "0x1f", "1e400", "2024-13-45", "\u0661", "'", '"']
    ),
)


@SOME
@given(st.data())
def test_tables_of_anything(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 4))
    header = data.draw(st.lists(st.text(max_size=6), min_size=width, max_size=width))
    kinds = [
        data.draw(st.sampled_from([CELLS, st.sampled_from(["a", "b"]), NUMBERS.map(str)])) for _ in header
    ]
    rows = [[data.draw(kind) for kind in kinds] for _ in range(data.draw(st.sampled_from([1, 3, 12])))]
    text = io.StringIO(newline="")
    separator = data.draw(st.sampled_from(",;\t|"))
    csv.writer(text, delimiter=separator).writerows([header, *rows * 4])
    TARGETS["csv"](text.getvalue().encode("utf-8", "replace"))


@pytest.mark.parametrize("name", ["csv", "gzipped", "parquet", "model_weights", "earlier", "sums", "journal"])
def test_files_with_bytes_turned_cut_and_doubled(name: str) -> None:
    whole = made()["weights" if name == "model_weights" else name]

    @SOME
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        torn = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(torn) - 1))
            torn[at] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(torn))] * 2)))
            torn[start:end] = data.draw(st.sampled_from([b"", bytes(torn[start:end]) * 2]))
        TARGETS[name](bytes(torn))

    holds()


WORDS = (
    st.text(max_size=40)
    | st.lists(NUMBERS.map(str), max_size=3).map(",".join)
    | st.text("0123456789=,.e-+", max_size=30)
)


@SOME
@given(WORDS)
def test_words_after_options(text: str) -> None:
    TARGETS["words"](text.encode("utf-8", "replace"))


@pytest.mark.parametrize("deep", [b"[" * 200_000, b'{"a":' * 200_000, b'{"format":1,"x":' + b"[" * 200_000])
@pytest.mark.parametrize("name", ["model_manifest", "plan", "question", "verdict", "finished", "journal"])
def test_json_nested_beyond_reason(name: str, deep: bytes) -> None:
    TARGETS[name](deep)


@pytest.mark.parametrize("digits", [400, 5_000, 100_000])
def test_numbers_of_many_digits(digits: int) -> None:
    TARGETS["words"](b"9" * digits)
    TARGETS["words"](b"momentum=" + b"9" * digits)
    TARGETS["plan"](made()["plan"].replace(b'"epochs": 1', b'"epochs": ' + b"9" * digits))
    TARGETS["csv"](b"a,y\n" + b"".join(b"%s,%d\n" % (b"9" * digits, row) for row in range(9)))
