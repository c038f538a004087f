"""Advice has its reason: every statement of docs/how-to-choose.md a source, or a test that shows it."""

from __future__ import annotations

import ast
import json
import re

import pytest

from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS

from .place import DOCS, ROOT, writer

TEXT = (DOCS / "how-to-choose.md").read_text(encoding="utf-8")
STATEMENTS = [match.group(0) for match in re.finditer(r"^- .*(?:\n  .*)*", TEXT, re.MULTILINE)]
TESTS = {
    node.name
    for path in (ROOT / "tests" / "claims").glob("test_*.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef)
}


def test_the_statements_are_found() -> None:
    assert len(STATEMENTS) > 30


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement[2:40])
def test_a_statement_has_a_source_or_a_test(statement: str) -> None:
    assert re.search(r"\((?:[^()]*[^\d()])?(?:18|19|20)\d\d\b", statement) or re.search(
        r"`test_\w+`", statement
    )


def test_the_tests_named_are_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert named
    assert named <= TESTS


@pytest.mark.parametrize("part", ["The loss", "The optimizer"])
def test_what_it_recommends_is_there(part: str) -> None:
    """A word in code is a loss, an optimizer, an argument or a test; nothing that is no more, or misspelt."""
    section = TEXT.split(f"## {part}\n")[1].split("\n## ")[0]
    words = set(re.findall(r"`([a-z_0-9]+)`", section))
    others = {"alpha", "beta", "label_smoothing", "pos_weight", "weight"}
    assert {word for word in words if not word.startswith("test_")} - others <= {*LOSSES, *OPTIMIZERS}


def test_the_two_wrong_claims_are_said_to_be_wrong() -> None:
    section = TEXT.split("## Two things often said that are not so\n")[1].split("\n## ")[0]
    mae, descent = (part for part in section.split("\n\n") if part.strip().startswith("**"))
    assert "MAE is asymmetric" in mae
    assert "It is not." in mae
    assert "test_mae_is_symmetric_in_the_sign_of_the_error" in mae
    assert "reaches the global optimum" in descent
    assert "Only on convex problems" in descent
    assert "suitable rate" in descent


@pytest.mark.parametrize("name", ["planted truth", "real tables"])
def test_its_figures_are_those_that_were_measured(name: str) -> None:
    """`python benchmarks/write_table.py` puts them there."""
    module = writer()
    stem = name.replace(" ", "_")
    file = ROOT / "benchmarks" / "results" / f"{stem}.json"
    content = getattr(module, stem)(json.loads(file.read_text(encoding="utf-8")))
    assert module.between(TEXT, f"<!-- begin: {name} -->", f"<!-- end: {name} -->", content) == TEXT


def test_it_ends_with_the_evidence() -> None:
    assert re.findall(r"^## (.*)$", TEXT, re.MULTILINE)[-1] == "Let your table decide"
    assert "steepest compare " in TEXT.split("## Let your table decide")[1]
