"""``fit`` on files too large for memory, from the command to the model; here "too large" is anything."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from steepest.cli.main import main
from steepest.comparison.compare import compare
from steepest.comparison.fit import fit
from steepest.comparison.fitted import load
from steepest.data import source
from steepest.errors import InputError
from steepest.training.windows import Layout

NUM_ROWS = 3000


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything is streamed, through windows of 256 rows; nothing is left where temporary files go."""
    place = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(source, "_ALWAYS_READ", 0)
    monkeypatch.setattr(source, "_PROGRAM", 10**18)
    monkeypatch.setattr(Layout, "of", classmethod(lambda cls, *_: cls(32, 8)))
    yield place
    assert list(place.iterdir()) == []


def rows(seed: int, num_rows: int = NUM_ROWS) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_rows, 4))
    kind = rng.choice(["a", "b", "c"], num_rows)
    y = 10 + 3 * (x[:, 0] - np.tanh(2 * x[:, 1]) + (kind == "b") + 0.3 * rng.normal(size=num_rows))
    return pl.DataFrame({**{f"x{place}": x[:, place] for place in range(4)}, "kind": kind, "y": y})


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The rows in order of their target, the worst that a file can be in."""
    table = rows(0).sort("y")
    for number in range(3):
        table[number * 1000 : number * 1000 + 1000].write_parquet(tmp_path / f"{number}.parquet")
    return tmp_path


@pytest.mark.parametrize("hidden", [(), (16,)])
def test_a_streamed_model_is_as_good_as_one_in_memory(files: Path, hidden: tuple[int, ...]) -> None:
    """Seed by seed, on rows that neither has seen; the difference is within four standard errors, or a percent."""
    test = rows(1)
    scores = {"streamed": [], "in memory": []}
    for seed in range(4):
        options = {"hidden": hidden, "lr": 0.01, "max_epochs": 10, "seed": seed}
        models = {
            "streamed": fit(files, "y", memory="1GB", **options),
            "in memory": fit(pl.read_parquet(files / "*.parquet"), "y", **options),
        }
        for way, model in models.items():
            scores[way].append(float(np.sqrt(np.mean((model.predict(test) - test["y"].to_numpy()) ** 2))))
    difference = np.subtract(scores["streamed"], scores["in memory"])
    bar = max(4 * difference.std(ddof=1) / 2, 0.01 * np.mean(scores["in memory"]))
    assert abs(difference.mean()) < bar
    assert np.mean(scores["streamed"]) < 0.75 * test["y"].std()


def test_a_rate_is_found_and_the_model_is_one_like_any_other(
    files: Path, temporary: Path, tmp_path: Path
) -> None:
    said: dict[str, list[float]] = {}
    left: list[list[Path]] = []

    def progress(what: str, share: float) -> None:
        said.setdefault(what, []).append(share)
        left.append(list(temporary.iterdir()))

    model = fit(str(files / "*.parquet"), "y", memory="1GB", hidden=(), max_epochs=5, progress=progress)
    assert list(said) == ["Reading", "Encoding", "Training"]
    assert all(shares[-1] == 1.0 and min(shares) > 0 for shares in said.values())
    if os.name == "posix":  # the encoded rows have no name: not even a kill would leave them
        assert not any(left)
    assert model.record.num_epochs == 5
    assert model.record.validation_score < 2.5
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert np.array_equal(again.predict(files), model.predict(files))
    assert again.data_sha256 == model.data_sha256


def test_classes_from_text_files(tmp_path: Path) -> None:
    table = rows(0).with_columns(
        size=pl.when(pl.col("y") > 10).then(pl.lit("large")).otherwise(pl.lit("small"))
    )
    for number in range(2):
        table.drop("y")[number * 1500 : number * 1500 + 1500].write_csv(tmp_path / f"{number}.csv")
    model = fit(tmp_path, "size", memory="1GB", hidden=(8,), lr=0.01, max_epochs=8, metric="accuracy")
    assert model.task == "binary"
    assert model.classes == ["large", "small"]
    assert model.record.validation_score > 0.85


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group": "kind"}, "group='kind' needs all rows at once"),
        ({"time": "x0"}, "time='x0' needs all rows at once"),
        ({"memory": "100MB"}, "memory='100MB' is too little: Python, torch and the compiler take"),
        ({"memory": "lots"}, "no amount of memory"),
        ({"batch_size": 10**6}, r"larger than the \d+ training rows"),
        ({"optimizer": "adm"}, "did you mean 'adam'"),
        ({"loss": "bce"}, "does not fit a regression target"),
    ],
)
def test_what_cannot_be_streamed_is_said(files: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit(files, "y", **{"memory": "1GB", **options})


def test_rows_in_memory_are_not_limited(files: Path) -> None:
    with pytest.raises(InputError, match="is for files, which can be read in pieces"):
        fit(pl.read_parquet(files / "*.parquet"), "y", memory="1GB")


def test_a_comparison_wants_all_rows(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "available_bytes", lambda: 1)
    with pytest.raises(InputError, match="a comparison needs its rows at once"):
        compare(files, "y")


def test_ctrl_c_while_training_keeps_what_was_learned(files: Path) -> None:
    def progress(what: str, share: float) -> None:
        if what == "Training":
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("signal.raise_signal", _once(signal.raise_signal))
        model = fit(files, "y", memory="1GB", hidden=(), lr=0.01, progress=progress)
    assert model.record.stop_reason == "interrupted"
    assert np.isfinite(model.record.validation_score)


def _once(call):  # type: ignore[no-untyped-def]
    called = []
    return lambda *arguments: called.append(1) or call(*arguments) if not called else None


@pytest.mark.parametrize("when", ["Reading", "Encoding"])
def test_ctrl_c_while_reading_leaves_nothing(files: Path, when: str) -> None:
    def progress(what: str, share: float) -> None:
        if what == when:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(files, "y", memory="1GB", hidden=(), lr=0.01, progress=progress)


def test_the_command(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        f"fit {files}/*.parquet --target y --hidden none --lr 0.01 --epochs 2 --memory 1GB --out {tmp_path}/m"
    )
    assert main(words.split()) == 0
    said = capsys.readouterr()
    assert "Reading: " in said.err
    assert "Training: " in said.err
    assert "validation RMSE" in said.out
    assert main(["fit", str(files / "*.csv"), "--target", "y", "--out", str(tmp_path / "n")]) == 2
    assert capsys.readouterr().err.startswith("steepest: No file matches")


@pytest.mark.parametrize("memory", ["1GB", None])
def test_an_ignored_column_takes_no_part(
    files: Path, memory: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if memory is None:
        monkeypatch.setattr(source, "_ALWAYS_READ", 10**18)
    options = {"hidden": (), "lr": 0.01, "max_epochs": 1, "memory": memory}
    model = fit(files, "y", ignore=["kind", "x3"], **options)
    assert [column.name for column in model.encoding.columns] == ["x0", "x1", "x2"]
    assert model.predict(rows(1)).shape == (NUM_ROWS,)
    with pytest.raises(InputError, match=r"There is no column 'kin' to ignore .*; did you mean 'kind'"):
        fit(files, "y", ignore="kin", **options)
    with pytest.raises(InputError, match="The target 'y' cannot be ignored"):
        fit(files, "y", ignore="y", **options)
