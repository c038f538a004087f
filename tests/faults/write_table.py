"""Put the table of faults into docs/faults.md: ``python -m tests.faults.write_table`` from the project's root."""

from __future__ import annotations

from pathlib import Path

from tests.faults.cases import FAULTS
from tests.faults.modules import MODULE_FAULTS

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


def rows() -> list[str]:
    """The table's rows, its head apart."""
    faults = (*FAULTS, *MODULE_FAULTS)
    return [f"| {_cell(fault.happens)} | {_cell(fault.survives)} |" for fault in faults]


def _cell(text: str) -> str:
    """Words in a table: a bar would end the cell, in code too."""
    return text.replace("|", r"\|")


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    before, head, _ = text.partition("| when | what survives |\n|---|---|\n")
    PAGE.write_text(before + head + "\n".join(rows()) + "\n", encoding="utf-8")
