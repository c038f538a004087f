"""Every program of examples/ and benchmarks/ says what it is when it is asked, and does nothing then."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = [
    file
    for folder in ("examples", "benchmarks")
    for file in sorted((ROOT / folder).glob("*.py"))
    if "__main__" in file.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda file: file.name)
def test_a_program_says_what_it_is(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(program), "--help"])
    before = {file: file.stat().st_mtime_ns for file in ROOT.joinpath("docs").glob("*.md")}
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(program), run_name="__main__")
    assert ended.value.code == 0
    about = capsys.readouterr().out
    assert about.startswith("usage:")
    assert "\n\n" in about  # a line of what it does, and not its options alone
    assert not list(tmp_path.iterdir())
    assert before == {file: file.stat().st_mtime_ns for file in before}
