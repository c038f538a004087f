"""Directories appear whole or not at all, and only where nothing of anyone else's is."""

from __future__ import annotations

from pathlib import Path

import pytest

from steepest.comparison.output import check_directory, write_directory
from steepest.errors import InputError

OURS = frozenset({"marker.json", "data"})


def check(place: Path) -> Path:
    return check_directory(place, ("marker.json",), OURS)


def fill(directory: Path) -> None:
    (directory / "marker.json").write_text('{"format": 1}')


def test_a_new_directory_appears_with_its_parents(tmp_path: Path) -> None:
    place = check(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    write_directory(place, fill)
    assert [path.name for path in place.iterdir()] == ["marker.json"]
    assert [path.name for path in place.parent.iterdir()] == ["b"]


def test_an_empty_directory_and_one_of_ours_are_replaced(tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    write_directory(check(place), fill)
    (place / "data").write_text("old")
    write_directory(check(place), fill)
    assert [path.name for path in place.iterdir()] == ["marker.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_directory_of_someone_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="not empty and not written by steepest"):
        check(tmp_path)
    fill(tmp_path)
    with pytest.raises(InputError, match=r"also holds 'thesis.tex'"):
        check(tmp_path)


def test_a_file_of_someone_else_further_in_is_refused_too(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("")
    within = {"data": frozenset({"ours"})}
    with pytest.raises(InputError, match=r"data' also holds 'thesis.tex'"):
        check_directory(tmp_path, ["marker.json"], frozenset({"marker.json", "data"}), within)
    (tmp_path / "data" / "thesis.tex").rename(tmp_path / "data" / "ours")
    check_directory(tmp_path, ["marker.json"], frozenset({"marker.json", "data"}), within)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "\x00"])
def test_a_marker_that_is_not_ours_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "marker.json").write_text(content)
    with pytest.raises(InputError, match="not written by steepest"):
        check(tmp_path)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; name a directory"):
        check(tmp_path / "file")
    with pytest.raises(InputError, match="is a file"):
        check(tmp_path / "file" / "out")


def test_a_place_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="may not be written to"):
        check(tmp_path / "out")


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_everything_as_it_was(tmp_path: Path, fault: BaseException) -> None:
    place = tmp_path / "out"
    write_directory(place, fill)

    def fail(directory: Path) -> None:
        (directory / "half").write_text("")
        raise fault

    with pytest.raises((InputError, KeyboardInterrupt)):
        write_directory(place, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in place.iterdir()] == ["marker.json"]


def test_what_stood_there_comes_back_if_the_last_step_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    write_directory(place, fill)
    (place / "data").write_text("old")
    rename = Path.rename

    def renamed(self: Path, target: Path) -> Path:
        if target == place and (self / "marker.json").exists() and not (self / "data").exists():
            raise OSError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    with pytest.raises(InputError, match="Permission denied"):
        write_directory(place, fill)
    assert (place / "data").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
