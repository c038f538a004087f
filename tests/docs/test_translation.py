"""The Chinese README gives the same code, commands and links as the English one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from .place import ROOT, writer

ENGLISH, CHINESE = (
    ROOT.joinpath(name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")
)


def code_of(text: str) -> list[str]:
    """Lines of code and commands, without their comments."""
    fenced = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in fenced for line in block.splitlines()] + re.findall(
        r"^    (\S.*)$", text, re.M
    )
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def test_its_code_is_the_english_readmes() -> None:
    assert len(code_of(CHINESE)) > 20
    assert code_of(CHINESE) == code_of(ENGLISH)


def test_its_links_lead_somewhere_and_both_lead_to_each_other() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", CHINESE)
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert links[0] == "README.md"
    english = re.findall(r"\]\(([^)#]+)\)", ENGLISH)
    assert links[1:] == english[1:]
    assert "(README.zh-CN.md)" in ENGLISH


@pytest.mark.parametrize(("text", "language"), [(ENGLISH, 0), (CHINESE, 1)], ids=["english", "chinese"])
def test_the_figures_are_those_that_were_measured(text: str, language: int) -> None:
    """`python benchmarks/write_table.py` puts them there."""
    module = writer()
    content = module.headlines(language, ROOT / "benchmarks" / "results")
    assert module.between(text, "<!-- begin: headlines -->", "<!-- end: headlines -->", content) == text


def test_figures_of_several_machines_are_not_set_side_by_side(tmp_path: Path) -> None:
    module = writer()
    for file in (ROOT / "benchmarks" / "results").glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    elsewhere = json.loads((tmp_path / "losses.json").read_text(encoding="utf-8"))
    elsewhere["machine"]["processor"] = "another"
    (tmp_path / "losses.json").write_text(json.dumps(elsewhere), encoding="utf-8")
    with pytest.raises(SystemExit, match="measured on several machines"):
        module.headlines(0, tmp_path)
