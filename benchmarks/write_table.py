"""Put the measurements in benchmarks/results into the docs, each between its two markers.

``docs/performance.md`` has the times, those on a GPU from every file ``gpu*.json``, and ``docs/how-to-choose.md`` how
right and how good the answers are.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from steepest.bench import SUITES
from steepest.bench.table import markdown

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- begin: make bench -->", "<!-- end: make bench -->"


def section(title: str, result: dict) -> str:
    """A heading, what it was measured on, and its rows."""
    about = ", ".join(f"{name} {value}" for name, value in result["machine"].items() if value is not None)
    return f"### {title}\n\nMeasured {result['measured']}: {about}.\n\n{markdown(result['rows'])}\n"


def between(page: str, begin: str, end: str, content: str) -> str:
    """The page with what stands between its two markers replaced."""
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        sys.exit(f"The page needs the lines {begin} and {end}, in this order.")
    return f"{before}{begin}\n\n{content}\n{end}{after}"


def planted_truth(found: dict) -> str:
    """Per kind of rows, what is known of them and in how many comparisons it was found."""
    lines = ["| what is known | found in |", "| --- | --- |"]
    for problem in found["problems"].values():
        count = problem["repetitions"]
        if "false_winners" in problem:
            right = f"{count - problem['false_winners']} of {count}"
        else:
            right = f"{problem['winner_found']} of {count}; the loser out in {problem['loser_out']}"
        lines.append(f"| {problem['claim'].removesuffix('.')} | {right} |")
    return "\n".join(lines)


def separable(found: dict) -> str:
    """Per table and optimizer the test log loss of the rate chosen by the least loss, and as far as rows tell."""
    lines = [
        "| table | rows | optimizer | by the least log loss | as far as rows tell | the best rate there was |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        scores = " | ".join(f"{row[name]:.3f}" for name in ("by_least", "as_far_as_told", "best_there_was"))
        lines.append(f"| {row['table']} | {row['rows']:,} | {row['optimizer']} | {scores} |")
    return "\n".join(lines)


def quasi_newton(found: dict) -> str:
    """Per table and network the test scores of momentum, Adam and L-BFGS, the least of them marked."""
    words = ("momentum", "adam", "lbfgs")
    lines = [
        "| table | network | metric | momentum | Adam | L-BFGS | splits on which L-BFGS is first |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        best = min(row[word] for word in words)
        scores = " | ".join(
            f"**{row[word]:.3f}**" if row[word] == best else f"{row[word]:.3f}" for word in words
        )
        ahead = f"{row['splits_lbfgs_is_first']} of {found['splits']}"
        lines.append(f"| {row['table']} | {row['network']} | {row['metric']} | {scores} | {ahead} |")
    return "\n".join(lines)


def gpu_static(found: dict) -> str:
    """Per work the share of the memory's bandwidth that a card's published rates allow, and what limits it else."""
    cards = list(dict.fromkeys(row["card"] for row in found["rows"]))
    kinds = dict.fromkeys(row["work"].rpartition(", ")[2] for row in found["rows"])
    columns = [(card, kind) for card in cards for kind in kinds]
    lines = [
        "| | " + " | ".join(f"{card}, {kind}" for card, kind in columns) + " |",
        "| --- " * (len(columns) + 1) + "|",
    ]
    works: dict = {}
    for row in found["rows"]:
        word, _, kind = row["work"].rpartition(", ")
        limit = "" if row["limit"] == "memory" else f" ({row['limit']})"
        works.setdefault(word, {})[row["card"], kind] = f"{row['share']:.0%}{limit}"
    lines += [
        f"| {word} | " + " | ".join(has.get(column, "") for column in columns) + " |"
        for word, has in works.items()
    ]
    about = ", ".join(f"{name} {version}" for name, version in found["predicted, not measured"].items())
    return "\n".join([f"Compiled with {about}.", "", *lines])


def real_tables(found: dict) -> str:
    """Per table what the comparison said; per table and peer our advantage with its interval."""
    from steepest.training.metrics import METRICS

    verdicts = ["| table | rows | runs | verdict |", "| --- | --- | --- | --- |"]
    scores = [
        "| table | metric | ours | peer | peer's | peer's less ours (95% interval) | ours is |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, table in found["tables"].items():
        rows = sum(table["num_rows"].values())
        verdicts.append(f"| {name} | {rows:,} | {table['num_runs']} | {table['sentence']} |")
        title = METRICS[table["metric"]].title
        for peer in table["peers"]:
            low, high = peer["interval"]
            how = "as it comes" if peer["how"] == "default" else f"best of {peer['settings_tried']} settings"
            difference = f"{peer['advantage']:+.2g} ({low:+.2g} to {high:+.2g})"
            scores.append(
                f"| {name} | {title} | {table['score']:.4g} | {peer['peer']}, {how} | {peer['score']:.4g} "
                f"| {difference} | {peer['ours_is']} |"
            )
    return "\n".join([*scores, "", *verdicts])


def main() -> None:
    write_answers()
    write_predictions()
    directory = ROOT / "benchmarks" / "results"
    on_cpu = {suite: directory / f"{suite}.json" for suite in SUITES}
    on_gpu = {file.stem.replace("_", " "): file for file in sorted(directory.glob("gpu*.json"))}
    results = {title: measured(file) for title, file in (on_cpu | on_gpu).items() if file.exists()}
    page = ROOT / "docs" / "performance.md"
    sections = "\n".join(section(title, result) for title, result in results.items())
    page.write_text(between(page.read_text(encoding="utf-8"), BEGIN, END, sections), encoding="utf-8")


def measured(file: Path) -> dict:
    """What was measured at full size."""
    result: dict = json.loads(file.read_text(encoding="utf-8"))
    if result.get("quick", True):
        sys.exit(f"{file} is of a quick run, whose times mean nothing; measure without --quick.")
    return result


def write_answers() -> None:
    """The page on choosing."""
    page = ROOT / "docs" / "how-to-choose.md"
    text = page.read_text(encoding="utf-8")
    written = (
        ("planted truth", planted_truth),
        ("real tables", real_tables),
        ("separable", separable),
        ("quasi newton", quasi_newton),
    )
    for name, content in written:
        file = ROOT / "benchmarks" / "results" / f"{name.replace(' ', '_')}.json"
        if file.exists():
            found = json.loads(file.read_text(encoding="utf-8"))
            text = between(text, f"<!-- begin: {name} -->", f"<!-- end: {name} -->", content(found))
    page.write_text(text, encoding="utf-8")


def write_predictions() -> None:
    """The page on GPUs."""
    page, file = ROOT / "docs" / "gpu.md", ROOT / "benchmarks" / "results" / "predicted_gpu.json"
    if file.exists():
        content = gpu_static(json.loads(file.read_text(encoding="utf-8")))
        text = between(
            page.read_text(encoding="utf-8"),
            "<!-- begin: gpu static -->",
            "<!-- end: gpu static -->",
            content,
        )
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    main()
