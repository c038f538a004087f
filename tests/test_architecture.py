"""Imports point one way, lazy ones inside functions too; and no file that is handed over is a pickle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "steepest"

# docs/architecture.md: cli -> report, comparison, screen -> training, data -> losses, optim -> backends -> files.
# A layer may import what stands below it; parts on one line do not know each other.
LAYERS = [
    {"errors", "naming", "tuning_range"},
    {"files"},
    {"backends"},
    {"losses", "optim", "schedules"},
    {"training", "data", "testing"},
    {"report", "comparison", "screen"},
    {"explain", "bench", "estimators"},
    {"cli"},
    {"__init__", "__main__"},
]
# The layers' own exceptions, each with its reason.
ALLOWED = {
    ("data", "training"),  # what data prepares is training's TrainingData
    ("comparison", "report"),  # a comparison ends with its report
    ("comparison", "screen"),  # and is watched, from Python too
}
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
# Compiled code in the user's own cache directory, in the only form Numba has for it: as private as Numba's
# own cache, which unpickles too. Nothing that one person hands to another is ever read so.
MAY_PICKLE = {"backends/cpu.py"}

FILES = sorted(PACKAGE.rglob("*.py"))


def rank(part: str) -> int:
    return next((place for place, layer in enumerate(LAYERS) if part in layer), -1)


def part_of(path: Path) -> str:
    """The part of the package a file belongs to: its first folder, or its own name."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def parts_imported(tree: ast.AST, path: Path) -> set[str]:
    """Parts of steepest that a file imports, wherever in it; what only the type checker sees is left out."""
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; the project writes them in full"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in modules if name.startswith("steepest.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    assert rank(part) >= 0, f"{part} stands in no layer: give it one, here and in docs/architecture.md"
    for imported in parts_imported(ast.parse(path.read_text(encoding="utf-8")), path) - {part}:
        below = rank(imported) < rank(part)
        assert below or (part, imported) in ALLOWED, (
            f"{part} imports {imported}, which does not stand below it"
        )


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.relative_to(PACKAGE).as_posix() not in MAY_PICKLE],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_nothing_is_pickled(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported = {(node.module or "").split(".")[0]}
        elif isinstance(node, ast.Attribute):
            call = ast.unparse(node)
            assert call not in {"torch.load", "torch.save"}, f"line {node.lineno}: {call} pickles"
            continue
        elif isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle" or ast.unparse(node.value) == "False", "allow_pickle"
            continue
        else:
            continue
        assert not imported & PICKLES, f"line {node.lineno}: imports {imported & PICKLES}"


def test_the_rule_sees_a_wrong_import() -> None:
    """The walk itself: nested and aliased imports count, the type checker's do not."""
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from steepest.cli import app
def lazily():
    import steepest.comparison.plan as plan
    from steepest import report
"""
    assert parts_imported(ast.parse(source), PACKAGE / "x.py") == {"comparison", "report"}
