"""What decodes Parquet is another process: it hands over what is in a file, and what ends it is told in a sentence."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.fuzz.seeds import CORPUS

from steepest.data import read
from steepest.errors import InputError
from steepest.files import parquet
from steepest.files.parquet import decoded, headers, whole

ENOUGH = 4e9
# Pages that claim a run of 2^61 values: polars' decoder asks for so much memory, and its allocator ends the process.
DEADLY = [CORPUS / "parquet" / name for name in ("3c19fd0063fa22e5", "e61d519767182d71")]

FRAMES = {
    "every type": pl.DataFrame(
        {
            "whole": [1, None, -3],
            "small": pl.Series([1, 2, 3], dtype=pl.Int8),
            "single": pl.Series([0.5, float("nan"), None], dtype=pl.Float32),
            "text": ["a", None, "a longer text than twelve bytes, ü"],
            "level": pl.Series(["x", "y", "x"], dtype=pl.Categorical),
            "flag": [True, False, None],
            "date": [dt.date(2020, 1, 2), None, dt.date(1, 1, 1)],
            "moment": pl.Series([0, 1, 2], dtype=pl.Datetime("ns", "Europe/Vienna")),
            "list": [[1], [], None],
            "nothing": [None, None, None],
            "": [1.0, 2.0, 3.0],
        }
    ),
    "many rows": pl.DataFrame({"a": range(300_000), "b": [f"row {row}" for row in range(300_000)]}),
    "no rows": pl.DataFrame({"a": [], "b": []}, schema={"a": pl.Int64, "b": pl.String}),
}


@pytest.mark.parametrize("name", FRAMES)
def test_what_is_decoded_there_is_what_is_in_the_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    FRAMES[name].write_parquet(path, row_group_size=1000)
    found = whole(path, ENOUGH)
    assert found.schema == FRAMES[name].schema
    assert found.equals(FRAMES[name])
    assert headers([path, path], ENOUGH) == [(dict(found.schema), found.height)] * 2


def test_batches_come_in_order_and_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 64)
    paths = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    for path in paths:
        pl.DataFrame({"a": range(150)}).write_parquet(path)
    heights = [[batch.height for batch in file.batches] for file in decoded(paths, ENOUGH)]
    assert heights == [[64, 64, 22]] * 2
    heads = [file.rows()["a"].to_list() for file in decoded(paths, ENOUGH, most_rows=70)]
    assert heads == [list(range(70))] * 2


@pytest.mark.parametrize("path", DEADLY, ids=lambda path: path.name)
def test_a_file_that_ends_what_decodes_it_is_told_of(path: Path, tmp_path: Path) -> None:
    deadly = tmp_path / "deadly.parquet"
    deadly.write_bytes(path.read_bytes())
    with pytest.raises(
        InputError, match=r"'deadly.parquet' cannot be decoded: .* (was ended by SIGABRT|ended with code)"
    ):
        whole(deadly, ENOUGH)
    with pytest.raises(InputError, match="cannot be decoded"):
        read(deadly)


def test_a_page_that_unpacks_beyond_the_memory_is_told_of(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="limits are POSIX's")
    path = tmp_path / "bomb.parquet"
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 10, pa.int32()), ["x" * 400_000_000])
    pq.write_table(
        pa.table({"a": words}), path, compression="zstd", store_schema=False, write_statistics=False
    )
    assert path.stat().st_size < 200_000
    with pytest.raises(InputError, match="takes more memory than there is"):
        whole(path, 0)


def test_decoding_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resource", reason="limits are POSIX's")
    monkeypatch.setattr(parquet, "_MOST_SEC", 0)
    path = tmp_path / "t.parquet"
    FRAMES["many rows"].write_parquet(path)
    with pytest.raises(InputError, match=r"was ended by SIGXCPU"):
        headers([path] * 1000, ENOUGH)


@pytest.mark.parametrize("is_text", [True, False])
def test_text_that_is_more_than_memory_once_unpacked_is_refused(tmp_path: Path, is_text: bool) -> None:
    path = tmp_path / "t.parquet"
    text = pa.DictionaryArray.from_arrays(pa.nulls(200_000, pa.int32()).fill_null(0), ["x" * 1_000_000])
    pq.write_table(pa.table({"a": text, "y": pa.array(range(200_000))}), path, store_schema=not is_text)
    assert path.stat().st_size < 3_000_000
    with pytest.raises(InputError, match=r"'t.parquet' holds 65.5 GB in 65,536 rows once unpacked"):
        read(path)


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were begun."""
    processes: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def begin(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        processes.append(popen(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr(parquet.subprocess, "Popen", begin)
    return processes


def test_no_process_is_left(begun: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    FRAMES["many rows"].write_parquet(path)
    whole(path, ENOUGH)
    for error in (KeyboardInterrupt, InputError):
        with pytest.raises(error):
            _stopped_by(error, path)
    assert len(begun) == 3
    assert all(process.returncode is not None for process in begun)


def _stopped_by(error: type[BaseException], path: Path) -> None:
    for file in decoded([path], ENOUGH):
        next(file.batches)
        raise error


def test_ctrl_c_is_not_for_the_process_that_decodes(
    begun: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "t.parquet"
    FRAMES["many rows"].write_parquet(path)
    for file in decoded([path], ENOUGH):
        begun[0].send_signal(signal.SIGINT)
        assert file.rows().equals(FRAMES["many rows"])


def test_no_module_is_taken_from_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FRAMES["every type"].write_parquet(tmp_path / "t.parquet")
    for name in ("polars", "json", "steepest"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('evil')")
    monkeypatch.chdir(tmp_path)
    assert whole(Path("t.parquet"), ENOUGH).height == 3


def test_where_no_process_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FRAMES["every type"].write_parquet(tmp_path / "t.parquet")
    for executable in (str(tmp_path / "no-python"), "", None):
        monkeypatch.setattr(parquet.sys, "executable", executable)
        with pytest.raises(InputError, match=r"'t.parquet' cannot be decoded: .* none can be started"):
            whole(tmp_path / "t.parquet", ENOUGH)


def test_a_process_that_ends_before_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(parquet.sys, "executable", str(tmp_path / "python"))
    many = [Path("t.parquet")] * 100_000  # more than a pipe takes
    with pytest.raises(InputError, match="ended with code 3"):
        headers(many, ENOUGH)


def test_a_path_that_is_not_unicode(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xff.parquet"))
    try:
        path.write_bytes(b"")
    except OSError:
        pytest.skip("this file system has Unicode names alone")
    with path.open("wb") as file:
        FRAMES["every type"].write_parquet(file)
    assert whole(path, ENOUGH).equals(FRAMES["every type"])
