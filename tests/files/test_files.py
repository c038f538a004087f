"""Files are written whole or not at all, read within bounds, held to their digests, and by one process at a time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from steepest.errors import InputError
from steepest.files import (
    SUMS,
    check_sums,
    encoded,
    held,
    parse_json,
    read_bytes,
    write,
    write_file,
    write_sums,
)


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_file(path, b"one")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(write.os, "fsync", full)
    with pytest.raises(InputError, match=r"^--out '.*file' cannot be written: No space left on device\.$"):
        write_file(path, b"another", "--out {path}")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_device_is_written_to_and_not_replaced() -> None:
    write_file("/dev/null", b"gone")
    with pytest.raises(InputError, match="No space left"):
        write_file("/dev/full", b"x" * 100_000)
    assert Path("/dev/null").is_char_device()
    assert Path("/dev/full").is_char_device()


def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with open(path, "wb") as file:
        file.truncate(10**12)  # a hole: it takes no place
    with pytest.raises(OSError, match="1,000,000,000,000 bytes"):
        read_bytes(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"NaN", b"[Infinity]", b"[" * 100_000, b"9" * 5_000])
def test_what_is_no_json_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - by its kind alone: the words are json's
        parse_json(content)


def test_a_path_that_is_no_unicode_survives_json() -> None:
    name = os.fsdecode(b"/data/\xff.csv")
    assert parse_json(encoded(f'{{"data": "{name}"}}')) == {"data": name}


def test_digests_name_what_changed(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).write_text(name)
    write_sums(tmp_path, ["one", "other", "absent"])
    check_sums(tmp_path, ["one", "other", "absent"])
    if sys.platform == "linux":
        subprocess.run(["sha256sum", "--quiet", "-c", SUMS], cwd=tmp_path, check=True)
    (tmp_path / "other").write_text("else")
    check_sums(tmp_path, ["one"])
    with pytest.raises(InputError, match=r"other' is not what steepest wrote"):
        check_sums(tmp_path, ["one", "other"])


def test_digests_lead_nowhere(tmp_path: Path) -> None:
    """A name in them is compared, and never opened."""
    (tmp_path / SUMS).write_text(f"{'0' * 64}  ../../etc/passwd\n{'0' * 64}  /dev/zero\n")
    check_sums(tmp_path, ["one"])


def test_one_at_a_time_and_nothing_left(tmp_path: Path) -> None:
    place = tmp_path / "new" / "out"
    with held(place):
        with pytest.raises(InputError, match="Another process is at work on"), held(place):
            pass
        with held(place.parent / "other"):
            pass
    with held(place):
        pass
    assert not list(place.parent.iterdir())


def test_a_lock_that_a_kill_left_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / ".out.lock").touch()
    with held(tmp_path / "out"):
        pass
    assert not list(tmp_path.iterdir())
