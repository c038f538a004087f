"""The documentation's folder, its hand-written pages, and the module that generates the others."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

__all__ = ["DOCS", "ROOT", "WRITTEN", "fences", "generator", "writer"]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WRITTEN = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def generator() -> Any:
    """``docs/pages.py`` as a module."""
    return _module("pages_of_the_docs", DOCS / "pages.py")


def writer() -> Any:
    """``benchmarks/write_table.py`` as a module."""
    return _module("write_table", ROOT / "benchmarks" / "write_table.py")


def _module(name: str, place: Path) -> Any:
    specification = importlib.util.spec_from_file_location(name, place)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def fences(text: str, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language: the line each begins at, and what it holds."""
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text[: match.start()].count("\n") + 1, match.group(1)) for match in found]
