"""A comparison as a notebook shows it: the sentence, the pairs best first, and what needs no model."""

from __future__ import annotations

from typing import Any

from steepest.report.build import environment
from steepest.report.tables import cell_key
from steepest.report.words import Cell, between, score_format, significant
from steepest.training.run import regime

__all__ = ["in_notebook"]

_MOST_ROWS = 20


def in_notebook(verdict: dict[str, Any]) -> str:
    """A piece of HTML without style or script, so that it looks as the notebook's own tables do."""
    cells, baseline = verdict["cells"], verdict.get("baseline")
    written = score_format(cell["score"] for cell in cells[:_MOST_ROWS])
    winning = {cell_key(cell) for cell in verdict["winners"]}
    word = "best so far" if verdict["status"] == "interrupted" else "winner"
    rows = [
        {
            **cell,
            "batch": regime(cell["batch_size"], cell.get("schedule", "constant")),
            "rate": significant(cell["lr"]),
            "score": written(cell["score"]),
            "interval": between(cell["interval"], written),
            "mark": _mark(cell, word * (cell_key(cell) in winning)),
        }
        for cell in cells[:_MOST_ROWS]
    ]
    return str(
        environment()
        .get_template("notebook.html.j2")
        .render(
            verdict=verdict,
            rows=rows,
            has_batches=len({row["batch"] for row in rows}) > 1,  # else the sentence says which
            baseline=baseline and written(baseline["score"]),
            num_more=max(0, len(cells) - _MOST_ROWS),
        )
    )


def _mark(cell: Cell, wins: str) -> str:
    marks = {wins: bool(wins), "default": cell["kind"] == "default", "barred": bool(cell["barred"])}
    return ", ".join(word for word, holds in marks.items() if holds)
