"""benchmarks/write_table.py: what was measured on a GPU stands in the page, once it was."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from steepest.bench.measure import measure
from steepest.bench.work import OURS, Contestant, Ratio, Within, Work

PLACE = Path(__file__).parents[2] / "benchmarks" / "write_table.py"
PAGE = "Before.\n<!-- begin: make bench -->\n\nold\n<!-- end: make bench -->After.\n"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    specification = importlib.util.spec_from_file_location("write_table", PLACE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "performance.md").write_text(PAGE)
    (tmp_path / "docs" / "how-to-choose.md").write_text("Nothing of this.\n")
    return module


@cache
def rows() -> list[dict[str, Any]]:
    """Of one work, measured: each contestant in a process of its own."""
    field = {
        OURS: Contestant(lambda: {"time": 0.5, "peak memory": 2e9}),
        "Liger": Contestant(lambda: {"time": 1.0}, "0.8"),
    }
    bars = (Ratio(("Liger",), 1.5), Within(1e9, "peak memory"))
    return measure(Work("made up", lambda: field, bars), quick=True)


def made_up(*, quick: bool) -> dict[str, Any]:
    return {
        "machine": {"card": "no card", "driver": "0"},
        "measured": "a day",
        "quick": quick,
        "rows": rows(),
    }


def test_every_gpu_file_has_its_section(script: Any, tmp_path: Path) -> None:
    results = tmp_path / "benchmarks" / "results"
    for name in ("losses", "gpu_losses", "gpu_optimizers"):
        (results / f"{name}.json").write_text(json.dumps(made_up(quick=False)))
    script.main()
    page = (tmp_path / "docs" / "performance.md").read_text()
    heads = [line for line in page.splitlines() if line.startswith("### ")]
    assert heads == ["### losses", "### gpu losses", "### gpu optimizers"]
    assert "Measured a day: card no card, driver 0." in page
    assert "| made up | Liger 0.8 | 500 ms | 1 s | 2 | 1.5 | reached | - |  |" in page
    assert "| made up: peak memory | a size of its own | 2 GB | - | - | 1 GB | missed | - |  |" in page
    assert (page.startswith("Before."), page.endswith("After.\n"), "old" in page) == (True, True, False)


def test_a_quick_run_is_no_measurement(script: Any, tmp_path: Path) -> None:
    (tmp_path / "benchmarks" / "results" / "gpu_losses.json").write_text(json.dumps(made_up(quick=True)))
    with pytest.raises(SystemExit, match=r"gpu_losses\.json is of a quick run"):
        script.main()
    assert (tmp_path / "docs" / "performance.md").read_text() == PAGE
