"""Every fault of the table happens, is told in one sentence, and leaves what the table says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="limits and signals are POSIX's")

from tests.faults import place as places
from tests.faults.cases import DONE, FAULTS, Fault
from tests.faults.modules import MODULE_FAULTS
from tests.faults.place import Place, same
from tests.faults.write_table import PAGE, rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made")
    places.make(directory)
    return directory


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, made, monkeypatch)


ALL = [*FAULTS, *MODULE_FAULTS]


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: fault.name)
def test_fault(fault: Fault, place: Place) -> None:
    fault.inject(place)
    assert "Traceback" not in place.err
    assert place.code == fault.code, place.err
    assert fault.says in place.err
    assert place.err.count("\n") <= 1 + (fault.code == places.STOPPED)
    if fault.then == "untouched":
        assert place.files() == place.before
    if fault.then != "resumes":
        return
    if fault.code != DONE:
        place.resume()
        assert place.code == DONE, place.err
    assert same(place.out, place.finished)
    assert not (place.out / "unfinished").exists()
    assert not list(place.root.glob(".*"))


def test_there_are_many_and_the_docs_have_them_all() -> None:
    assert len(ALL) >= 25
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("| ")][1:] == rows()


def test_no_clock_that_can_be_set_is_looked_at() -> None:
    own = ROOT / "src" / "steepest"
    for path in (
        path for path in own.rglob("*.py") if path.parent != own / "bench"
    ):  # its figures have a date
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in ("time.time", "datetime.now", "datetime.utcnow"), path
