"""Put the measurements in benchmarks/results into docs/performance.md, between its two markers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from steepest.bench import SUITES
from steepest.bench.table import markdown

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- begin: make bench -->", "<!-- end: make bench -->"


def section(suite: str, result: dict) -> str:
    """A suite's heading, what it was measured on, and its rows."""
    about = ", ".join(f"{name} {value}" for name, value in result["machine"].items() if value is not None)
    return f"### {suite}\n\nMeasured {result['measured']}: {about}.\n\n{markdown(result['rows'])}\n"


def with_table(page: str, results: dict[str, dict]) -> str:
    """The page with what stands between the markers replaced."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        sys.exit(f"docs/performance.md needs the lines {BEGIN} and {END}, in this order.")
    sections = "\n".join(section(suite, result) for suite, result in results.items())
    return f"{before}{BEGIN}\n\n{sections}\n{END}{after}"


def main() -> None:
    results = {}
    for suite in SUITES:
        file = ROOT / "benchmarks" / "results" / f"{suite}.json"
        if file.exists():
            results[suite] = json.loads(file.read_text(encoding="utf-8"))
            if results[suite].get("quick", True):
                sys.exit(f"{file} is of a quick run, whose times mean nothing; run `make bench`.")
    page = ROOT / "docs" / "performance.md"
    page.write_text(with_table(page.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main()
