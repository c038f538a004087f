"""The intake of rows too many for memory agrees with the one in memory, and says clearly what it cannot use."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from steepest.backends import available
from steepest.data import batches as batches_module
from steepest.data import memory, prepare, read, source, streamed
from steepest.data.batches import Batches
from steepest.data.learn import learn_columns
from steepest.data.learn_streamed import ColumnsLearner
from steepest.data.moments import Moments
from steepest.data.source import check_fits, large_files, open_batches
from steepest.data.streamed import StreamedRows, prepare_streamed
from steepest.data.table import Table
from steepest.data.text_files import as_parquet
from steepest.errors import InputError
from steepest.files import parquet
from steepest.training.windows import Layout

NUM_ROWS = 1000


@pytest.fixture(autouse=True)
def _small_batches(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Batches of 64 rows, and temporary files in a place where nothing may be left."""
    place = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 64)
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield
    assert list(place.iterdir()) == []


def table(num_rows: int = NUM_ROWS) -> pl.DataFrame:
    """Columns of every kind, with gaps; ``y`` is a quantity, ``label`` a class."""
    rng = np.random.default_rng(5)
    gaps = rng.random(num_rows) < 0.1
    words = [f"w{int(place):02d}" for place in rng.exponential(12, num_rows).clip(0, 59)]
    start = dt.datetime(2020, 2, 3, 4, 5, 6)  # noqa: DTZ001 - columns hold no zone
    return pl.DataFrame(
        {
            "": np.arange(num_rows),
            "far": 1e9 + rng.normal(size=num_rows),
            "gaps": _with_gaps(gaps, rng.gamma(2, size=num_rows).tolist()),
            "whole": rng.integers(0, 5, num_rows),
            "flag": rng.random(num_rows) < 0.3,
            "few": _with_gaps(gaps[::-1], rng.choice(["a", "b", "ü"], num_rows).tolist()),
            "many": words,
            "own": [f"row {place}" for place in range(num_rows)],
            "same": np.full(num_rows, 3.5),
            "tiny": np.arange(num_rows) % 7 * 1e-200,
            "none": pl.Series([None] * num_rows, dtype=pl.Float64),
            "when": [start + dt.timedelta(hours=7 * place) for place in range(num_rows)],
            "day": [f"2021-03-{1 + place % 28:02d}" for place in range(num_rows)],
            "y": _with_gaps(np.arange(num_rows) % 97 == 5, rng.normal(40, 9, num_rows).tolist()),
            "label": rng.choice(["no", "perhaps", "yes"], num_rows),
        }
    )  # fmt: skip


def _with_gaps(gaps: np.ndarray, values: list[Any]) -> pl.Series:
    return pl.Series([None if gone else value for gone, value in zip(gaps, values, strict=True)])


def write(frame: pl.DataFrame, directory: Path, cuts: Sequence[int] = (300, 301, 700)) -> list[Path]:
    """The rows in several files, of small row groups."""
    directory.mkdir(exist_ok=True)
    paths = []
    for number, (at, end) in enumerate(zip([0, *cuts], [*cuts, frame.height], strict=True)):
        paths.append(directory / f"part-{number}.parquet")
        frame[at:end].write_parquet(paths[-1], row_group_size=50)
    return paths


def encoded(prepared: StreamedRows) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    parts = []
    for file in (prepared.rows.train, prepared.rows.validation):
        x, y = np.empty((file.num_rows, file.num_features), np.float32), np.empty(file.num_rows, np.float32)
        file.read(0, x, y)
        parts += [x, y]
    return tuple(parts)  # type: ignore[return-value]


# --- what is learned ----------------------------------------------------------------------------------------


def test_one_pass_learns_what_the_whole_table_teaches(tmp_path: Path) -> None:
    """Exactly, but for the rounding of sums: the sample that medians are taken of holds all of so few rows."""
    rows = table().drop("y", "label")
    whole = read(rows)
    expected, notes = learn_columns(whole.frame, "the table")
    learner = ColumnsLearner(rows.columns, "the table", seed=0)
    for first, batch in Batches(write(rows, tmp_path)):
        numbers = np.arange(first, first + batch.num_rows, dtype=np.uint64)
        learner.add(batch, np.ones(batch.num_rows, dtype=bool), numbers)
    found, found_notes = learner.learned()
    assert [column.name for column in found] == [column.name for column in expected]
    assert found_notes == notes
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other)
        assert one.flags_missing == other.flags_missing
        assert one.feature_names == other.feature_names
        if hasattr(one, "levels"):
            assert one == other
            continue
        assert one.kind == other.kind  # type: ignore[union-attr]
        for part, known in zip(one.parts, other.parts, strict=True):  # type: ignore[union-attr]
            assert part.fill == known.fill
            np.testing.assert_allclose([part.mean, part.scale], [known.mean, known.scale], rtol=1e-8)


def test_moments_hold_for_large_means_and_any_cut() -> None:
    rng = np.random.default_rng(0)
    values = 1e9 + rng.normal(size=10_001)
    together = Moments()
    for piece in np.array_split(values, [1, 2, 50, 3000, 3000, 9999]):
        together = together.with_more(Moments.of(piece))
    assert together.count == 10_001
    exact = values - 1e9
    assert together.mean - 1e9 == pytest.approx(exact.mean(), abs=2e-7)
    assert together.scale == pytest.approx(exact.std(), rel=1e-9)
    assert (together.least, together.greatest) == (values.min(), values.max())
    filled = Moments.of(np.array([1.0, 2.0])).with_copies(7.0, 3)
    assert (filled.mean, filled.scale) == pytest.approx((np.mean([1, 2, 7, 7, 7]), np.std([1, 2, 7, 7, 7])))
    assert (
        Moments.of(np.full(5, 0.1)).scale == 1.0
    )  # scikit-learn's rule: a constant is not rescaled by its rounding


def test_the_median_of_a_sample_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steepest.data.learn_streamed._SAMPLE_ROWS", 500)
    values = np.random.default_rng(1).gamma(2, size=20_000)
    found = []
    for size in (777, 5000):  # whatever the batches are, the sample is the same
        learner = ColumnsLearner(["x"], "the table", seed=3)
        for at in range(0, 20_000, size):
            piece = values[at : at + size]
            batch = Table(pl.DataFrame({"x": piece}), "the table")
            learner.add(batch, np.ones(len(piece), bool), np.arange(at, at + len(piece), dtype=np.uint64))
        assert learner.sample.rows().height <= 1000
        found.append(learner.learned()[0][0].parts[0].fill)  # type: ignore[union-attr]
    assert found[0] == found[1]
    assert abs((values < found[0]).mean() - 0.5) < 0.08  # three and a half standard errors of 500 draws


@pytest.mark.parametrize(
    ("target", "task"), [("y", "regression"), ("label", "multiclass"), ("flag", "binary")]
)
def test_rows_are_encoded_as_in_memory(tmp_path: Path, target: str, task: str) -> None:
    rows = table()
    with prepare_streamed(Batches(write(rows, tmp_path)), target, layout=Layout(16, 2)) as prepared:
        assert prepared.task == task
        x, y, xv, yv = encoded(prepared)
        known = rows.filter(pl.col(target).is_not_null())
        features, _ = prepared.encoding.apply(read(known))
        if target == "y":
            values = (known["y"].to_numpy() - prepared.encoding.target_mean) / prepared.encoding.target_scale
            counts = None
        else:
            values = known[target].cast(pl.String).rank("dense").to_numpy() - 1.0
            counts = np.bincount(y.astype(int))
        expected = {
            (tuple(row), np.float32(value)) for row, value in zip(features.tolist(), values, strict=True)
        }
        found = [
            (tuple(row), value) for row, value in zip([*x.tolist(), *xv.tolist()], [*y, *yv], strict=True)
        ]
        assert len(found) == known.height == sum(prepared.num_rows.values())
        assert set(found) == expected
        if counts is not None:
            assert prepared.rows.class_counts.tolist() == counts.tolist()
        else:
            assert y.mean() == pytest.approx(0, abs=1e-6)
            assert y.std() == pytest.approx(1, abs=1e-6)
            assert prepared.rows.least_target == known["y"].min()
            assert "11 of 1,000 rows have no target 'y' and are left out." in prepared.notes


def test_how_rows_are_cut_into_files_and_batches_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for number, cuts in enumerate([(300, 301, 700), (), (512,)]):
        monkeypatch.setattr(parquet, "_BATCH_ROWS", (64, 1000, 7)[number])
        memory_limit = (1, 1 << 40, 1)[number]
        paths = write(table(), tmp_path / str(number), cuts)
        with prepare_streamed(
            Batches(paths), "y", seed=4, memory=memory_limit, layout=Layout(16, 2)
        ) as prepared:
            found.append(encoded(prepared))
            shares = prepared.num_rows
    for other in found[1:]:  # the same rows in the same places; sums of another order are rounded otherwise
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)
    assert shares["validation"] == pytest.approx(0.2 * 989, abs=4 * (989 * 0.16) ** 0.5)
    with prepare_streamed(Batches(paths), "y", seed=5, layout=Layout(16, 2)) as prepared:
        assert prepared.num_rows != shares or not np.allclose(encoded(prepared)[0], found[0][0])


def test_columns_may_stand_in_another_order_and_numbers_be_whole_in_some_files(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1, 2, 3], "y": [1.5, 2.5, 3.5]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"y": [4.5, 5.5], "a": [0.5, None]}).write_parquet(tmp_path / "2.parquet")
    frames = [batch.frame for _, batch in Batches(sorted(tmp_path.iterdir()))]
    assert pl.concat(frames)["a"].to_list() == [1.0, 2.0, 3.0, 0.5, None]
    assert read(tmp_path).frame.equals(pl.concat(frames))


# --- text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece_bytes", [1500, 9000, 1 << 24])
def test_text_becomes_the_columns_that_reading_it_whole_gives(tmp_path: Path, piece_bytes: int) -> None:
    rows = table().with_columns(
        pl.when(pl.col("whole") == 4)
        .then(pl.lit("four"))
        .otherwise(pl.col("whole").cast(pl.String))
        .alias("mixed"),
        pl.Series("quoted", [f'say "{place}",\nthen go' if place % 3 else "x" for place in range(NUM_ROWS)]),
        pl.Series("halves", [str(place) if place < 700 else f"{place}.5" for place in range(NUM_ROWS)]),
        pl.Series("words", [str(place) if place < 900 else "no number" for place in range(NUM_ROWS)]),
        pl.Series("late", [None] * 900 + [0.5] * 100),
        pl.Series("code", [f"{place:03d}" for place in range(NUM_ROWS)]),
    )
    path = tmp_path / "rows.csv"
    rows.write_csv(path)
    (tmp_path / "parts").mkdir()
    parts, digest, notes = as_parquet([path], tmp_path / "parts", piece_bytes=piece_bytes)
    assert notes == []
    assert len(parts) == 1 or piece_bytes < 1 << 24
    assert pl.concat([pl.read_parquet(part) for part in parts]).equals(read(path).frame)
    assert digest == batches_module.files_sha256([path])


def test_text_files_are_streamed_too(tmp_path: Path) -> None:
    rows = table().drop("", "own", "none")
    for number in range(3):
        rows[number * 300 : number * 300 + 300].write_csv(tmp_path / f"{number}.csv")
    paths = sorted(tmp_path.iterdir())
    said: list[str] = []
    with (
        open_batches(paths, lambda what, share: said.append(what)) as batches,
        prepare_streamed(
            batches, "y", layout=Layout(16, 2), told=lambda what, share: said.append(what)
        ) as prepared,
    ):
        assert sum(prepared.num_rows.values()) == rows[:900]["y"].count()
        assert prepared.data_sha256 == batches_module.files_sha256(paths)
    assert list(dict.fromkeys(said)) == ["Reading text", "Reading", "Encoding"]


@pytest.mark.parametrize("empty", ["0.csv", "9.csv"])
def test_a_file_among_others_may_have_no_rows(tmp_path: Path, empty: str) -> None:
    """Read whole, it was refused, and streamed it was not."""
    (tmp_path / empty).write_text("a;b\n", encoding="utf-8")
    (tmp_path / "5.csv").write_text("b;a\n1,5;x\n2,5;y\n", encoding="utf-8")
    whole = read(tmp_path).frame
    assert sorted(whole.columns) == ["a", "b"]
    assert whole["b"].to_list() == [1.5, 2.5]
    with open_batches(sorted(tmp_path.iterdir())) as batches:
        ((_, batch),) = batches
        assert batch.frame["b"].to_list() == [1.5, 2.5]
    (tmp_path / "5.csv").write_text("a;b\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"^the 2 files from '\d.csv' on have a header but no rows"):
        read(tmp_path)


def test_decimal_commas_are_told_of_however_the_text_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a;b\n" + "".join(f"{row};{row},5\n" for row in range(NUM_ROWS)), encoding="utf-8")
    *_, notes = as_parquet([path], tmp_path, piece_bytes=500)
    assert notes == list(read(path).notes)
    with open_batches([path]) as batches, prepare_streamed(batches, "a", layout=Layout(16, 2)) as prepared:
        assert prepared.notes[0] == notes[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            # Read whole, it is refused too: in one piece the points stand, in another the commas.
            "a;b\n" + "2.064;7\n" * 200 + "2.064;1,5\n" * 200,
            r"In 'bad.csv', column 'a' holds numbers whose points may separate thousands",
        ),
        (
            "a,y\n" + "1,2\n" * 200 + "1,2,3\n",
            r"Row \d+ of 'bad.csv' \(counted from its line \d+\) has 3 cells",
        ),
        ("a,y\n" + "1,2\n" * 200 + '1,"2\n', "double quote"),
        ("a,y\n", "has a header but no rows"),
        ("", "is empty"),
        ("a,y\n" + '"1,234",2\n' * 200, "numbers with commas"),
    ],
)
def test_text_that_is_no_table_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(InputError, match=words):
        as_parquet([tmp_path / "bad.csv"], tmp_path, piece_bytes=100)


# --- whether it fits ----------------------------------------------------------------------------------------


def test_small_files_are_read_as_one_table_would_be(tmp_path: Path) -> None:
    rows = table()
    write(rows, tmp_path / "parts")
    rows.write_parquet(tmp_path / "one.parquet")
    for data in (tmp_path / "parts", str(tmp_path / "parts" / "*.parquet")):
        assert large_files(data, "1GB") is None
        one, many = prepare(tmp_path / "one.parquet", "y"), prepare(data, "y")
        assert many.data_sha256 == one.data_sha256
        assert np.array_equal(many.x_train, one.x_train)


def test_large_files_are_those_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write(table(), tmp_path)
    monkeypatch.setattr(source, "_ALWAYS_READ", 1000)
    monkeypatch.setattr(source, "_PROGRAM", 950 * 10**6)
    assert large_files(tmp_path, "950MB") == (paths, 950 * 10**6)
    assert large_files(tmp_path, "2GB") is None
    assert large_files(paths[0], "950MB") == (paths[:1], 950 * 10**6)
    assert large_files(tmp_path / "no.parquet", "950MB") is None  # reading it says so
    monkeypatch.setattr(source, "available_bytes", lambda: 1000)
    with pytest.raises(InputError, match=r"The data take about .* fit, which streams"):
        check_fits(tmp_path)


def test_what_a_table_takes_is_not_guessed_too_low(tmp_path: Path) -> None:
    rows = pl.DataFrame({f"x{place}": np.zeros(20_000) for place in range(10)})
    rows.write_parquet(tmp_path / "zeros.parquet")  # next to nothing on disk
    assert batches_module.bytes_in_memory([tmp_path / "zeros.parquet"], 0) > rows.estimated_size() * 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("1GB", 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("800mb", 800 * 10**6),
        (12345, 12345),
        ("77", 77),
        ("2 TB", 2 * 10**12),
    ],
)
def test_an_amount_of_memory_in_words(given: Any, expected: int) -> None:
    assert memory.limit_bytes(given) == expected


@pytest.mark.parametrize("given", ["", "much", "1XB", "-1GB", "0", 0, -5, True, 1.5])
def test_no_amount_of_memory(given: Any) -> None:
    with pytest.raises(InputError, match="is no amount of memory"):
        memory.limit_bytes(given)


@pytest.mark.parametrize("version", [1, 2])
def test_a_control_group_limits_what_is_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    group = tmp_path / "box" / "inner"
    group.mkdir(parents=True)
    for directory, limit in ((group, "max" if version == 2 else str(2**62)), (group.parent, "5000000")):
        (directory / names[0]).write_text(limit)
        (directory / names[1]).write_text("3000000")
        (directory / "memory.stat").write_text(f"other 7\n{names[2]} 500000\n")
    found = [(group, version), (group.parent, version), (tmp_path, version)]
    monkeypatch.setattr(available, "_groups", lambda: iter(found))
    assert available.available_bytes() == 2_500_000
    monkeypatch.setattr(available, "_groups", lambda: iter(()))
    assert available.available_bytes() > 2_500_000
    assert memory.limit_bytes(None) <= available.available_bytes()


def test_what_this_process_has() -> None:
    before = memory.resident_bytes()
    held = np.ones(20_000_000)
    assert memory.resident_bytes() - before > held.nbytes / 2


# --- what cannot be used ------------------------------------------------------------------------------------


def _schemas(one: dict[str, Any], other: dict[str, Any]) -> Callable[[Path], Any]:
    def make(directory: Path) -> Any:
        pl.DataFrame(one).write_parquet(directory / "a.parquet")
        pl.DataFrame(other).write_parquet(directory / "b.parquet")
        return directory

    return make


@pytest.mark.parametrize("way", ["in memory", "streamed"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            _schemas({"x": [1], "y": [1.0]}, {"x": ["a"], "y": [1.0]}),
            "Column 'x' holds text in 'b.parquet' and numbers in 'a.parquet'",
        ),
        (_schemas({"x": [1], "y": [1.0]}, {"y": [1.0]}), "'a.parquet' has a column 'x' and 'b.parquet' has none"),
        (_schemas({"y": [1.0]}, {"x": [1], "y": [1.0]}), "'b.parquet' has a column 'x' and 'a.parquet' has none"),
        (lambda directory: directory, "There is no CSV, TSV or Parquet file in the directory"),
        (lambda directory: directory / "*.parquet", "No file matches"),
    ],
)  # fmt: skip
def test_files_that_are_no_one_table(
    tmp_path: Path, make: Callable[[Path], Any], words: str, way: str
) -> None:
    data = make(tmp_path)
    reading = read if way == "in memory" else lambda data: Batches(source.files_of(data))
    with pytest.raises(InputError, match=words):
        reading(data)


def test_files_of_two_kinds(tmp_path: Path) -> None:
    pl.DataFrame({"y": [1.0]}).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("y\n1\n")
    (tmp_path / "_SUCCESS").write_text("")
    with pytest.raises(InputError, match=r"'a.parquet' is a Parquet file and 'b.csv' a text file"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (None, {}, "No target was given"),
        ("why", {}, "There is no column 'why'"),
        ("none", {}, "has no value in any row"),
        ("tiny", {"task": "regression"}, "within 6e-200 of one another, too little to be computed with"),
        ("own", {}, "has over 50 distinct values, too many for classes"),
        ("own", {"task": "regression"}, "holds 'row 0', which is not a number"),
        ("same", {}, "is 3.5 in every row"),
        ("when", {}, "holds dates"),
        ("y", {"validation": 1.5}, "validation"),
        ("y", {"task": "binary"}, "too many for"),
    ],
)
def test_targets_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str | None, options: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr("steepest.data.target_streamed._MAX_DISTINCT", 50)
    batches = Batches(write(table(), tmp_path))
    with pytest.raises(InputError, match=words), prepare_streamed(batches, target, **options):
        pass


def test_infinity_is_refused_with_its_file(tmp_path: Path) -> None:
    rows = table().with_columns(far=pl.when(pl.col("whole") == 3).then(np.inf).otherwise(pl.col("far")))
    with (
        pytest.raises(InputError, match=r"Column 'far' of 'part-0.parquet' from row 1 on holds infinity"),
        prepare_streamed(Batches(write(rows, tmp_path)), "y"),
    ):
        pass


def test_a_date_column_that_later_holds_words(tmp_path: Path) -> None:
    rows = table().with_columns(day=pl.when(pl.col("") > 900).then(pl.lit("soon")).otherwise(pl.col("day")))
    with (
        pytest.raises(InputError, match=r"Column 'day' of 'part-3.parquet' .* holds text that is no date"),
        prepare_streamed(Batches(write(rows, tmp_path)), "y"),
    ):
        pass


@pytest.mark.parametrize("how", ["rewritten", "removed"])
@pytest.mark.parametrize("when", ["Reading", "Encoding"])
def test_a_file_that_changes_or_vanishes_on_the_way(tmp_path: Path, how: str, when: str) -> None:
    paths = write(table(), tmp_path)

    def told(what: str, share: float) -> None:
        if what == when and paths[-1].exists():
            if how == "removed":
                paths[-1].unlink()
            elif share < 0.5:
                table(10).write_parquet(paths[-1])

    words = (
        "has vanished while the data were read"
        if how == "removed"
        else "has changed while the data were read"
    )
    with pytest.raises(InputError, match=words), prepare_streamed(Batches(paths), "y", told=told):
        pass


def test_a_disk_without_room_is_found_before_it_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(num_bytes: int, directory: Path) -> None:
        raise InputError(f"no room for {num_bytes}")

    monkeypatch.setattr(streamed, "check_room", full)
    monkeypatch.setattr(streamed, "_write", lambda *arguments: pytest.fail("written all the same"))
    with (
        pytest.raises(InputError, match="no room for"),
        prepare_streamed(Batches(write(table(), tmp_path)), "y"),
    ):
        pass


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    for data in ("~nobody-of-that-name/rows.parquet", "rows\0.parquet", str(tmp_path / "no" / "rows.csv")):
        assert large_files(data, None) is None
        with pytest.raises(InputError, match=r"cannot be read|There is no file"):
            read(data)


def test_damaged_files(tmp_path: Path) -> None:
    whole = write(table(), tmp_path)[0].read_bytes()
    (tmp_path / "part-1.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"'part-1.parquet' is no complete Parquet file"):
        Batches(sorted(tmp_path.iterdir()))
    (tmp_path / "part-1.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"'part-1.parquet' is empty"):
        Batches(sorted(tmp_path.iterdir()))
