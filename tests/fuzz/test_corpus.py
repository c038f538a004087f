"""Everything that fuzzing began with, and everything it ever found: replayed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fuzz.seeds import CORPUS
from tests.fuzz.targets import TARGETS

KEPT = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.name[:8]}")
def test_what_was_found_is_told_in_a_sentence(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_something_to_begin_with() -> None:
    assert {path.parent.name for path in KEPT} == set(TARGETS)
