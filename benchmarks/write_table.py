"""Put the measurements in benchmarks/results into the docs, each between its two markers.

``docs/performance.md`` has the times, those on a GPU from every file ``gpu*.json``, and ``docs/how-to-choose.md`` how
right and how good the answers are; the READMEs have a few of both.
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

READMES = {"README.md": 0, "README.zh-CN.md": 1}  # which language of the texts below
HEADLINES = (
    ("compare", "comparison of about 200 runs, table of 10,000 x 20, hidden 64,64, batch 32, 10 epochs",
     ("a comparison, 208 runs on 10,000 rows", "一次比较：在 10,000 行上训练 208 次")),
    ("training", "a loop in torch, 10-5-1, mse, adam, batch 32, a step",
     ("a training loop of a small net: our loss and Adam for torch's",
      "小网络的训练循环：用我们的损失和 Adam 换下 torch 的")),
    ("losses", "cross_entropy, 2,048 x 32,000, forward and backward, fresh gradient",
     ("cross-entropy, 2,048 x 32,000, and its gradient", "交叉熵及其梯度，2,048 x 32,000")),
    ("losses", "bce, 20,000,000, forward and backward, fresh gradient",
     ("binary cross-entropy of 20 million, and its gradient", "二元交叉熵及其梯度，两千万个数")),
    ("optimizers", "adam, 1,000 x 64, a step",
     ("Adam, a step over 1,000 tensors of 64", "Adam 走一步，1,000 个各有 64 个数的张量")),
    ("optimizers", "adamw, 20,000,000, a step",
     ("AdamW, a step over 20 million", "AdamW 走一步，两千万个数")),
    ("losses", "cross_entropy, 32 x 10, forward and backward, fresh gradient",
     ("cross-entropy, 32 x 10, called alone", "交叉熵，32 x 10，单独调用")),
)  # fmt: skip
HEADS = (
    ("what", "speed", "what is known", "found in"),
    ("做什么", "速度", "已知的答案", "找到"),
)
MACHINE = (
    "On {cores} cores, {processor}, each row's contestants side by side in one run, medians:",
    "{cores} 个核，{processor}；每一行的各方在同一次运行中并排测量，取中位数：",
)
FOUND = (
    ("one loss or optimizer is better", "{} of {} comparisons"),
    ("某个损失或优化器更好", "{1} 次比较中的 {0} 次"),
)
ALIKE = ("of two that are alike, neither is put above the other", "两个其实一样，不把任何一个排在前面")


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


def headlines(language: int, results: Path) -> str:
    """What a README says of speed, and of how often a known answer is found."""
    what, speed, known, found_in = HEADS[language]
    suites = {suite: measured(results / f"{suite}.json") for suite in SUITES}
    machines = {(each["machine"]["processor"], each["machine"]["cores"]) for each in suites.values()}
    if len(machines) > 1:
        sys.exit(f"The suites were measured on several machines, {machines}; measure them again on one.")
    ((processor, cores),) = machines
    lines = [MACHINE[language].format(processor=processor, cores=cores), ""]
    lines += [f"| {what} | {speed} |", "| --- | --- |"]
    for suite, work, texts in HEADLINES:
        rows = [row for row in suites[suite]["rows"] if row["work"] == work and row["ratio"] is not None]
        ratios = {row["peer"]: row["ratio"] for row in rows}
        if not ratios:
            sys.exit(f"{suite}.json has no work {work!r}, of which the READMEs tell.")
        said = ", ".join(f"{_times(ratio)} × {peer}" for peer, ratio in ratios.items())
        lines.append(f"| {texts[language]} | {said} |")
    problems = json.loads((results / "planted_truth.json").read_text(encoding="utf-8"))["problems"].values()
    lines += ["", f"| {known} | {found_in} |", "| --- | --- |"]
    for claim, counts in (
        (
            FOUND[language][0],
            [(p["winner_found"], p["repetitions"]) for p in problems if "winner_found" in p],
        ),
        (
            ALIKE[language],
            [
                (p["repetitions"] - p["false_winners"], p["repetitions"])
                for p in problems
                if "false_winners" in p
            ],
        ),
    ):
        right, times = (sum(numbers) for numbers in zip(*counts, strict=True))
        lines.append(f"| {claim} | {FOUND[language][1].format(right, times)} |")
    return "\n".join(lines)


def _times(ratio: float) -> str:
    return f"{ratio:.{0 if ratio >= 10 else 1 if ratio >= 1 else 2}f}"


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
    write_readmes()
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


def write_readmes() -> None:
    """Where all that they tell of was measured."""
    results = ROOT / "benchmarks" / "results"
    if not all((results / f"{name}.json").exists() for name in (*SUITES, "planted_truth")):
        return
    for name, language in READMES.items():
        page = ROOT / name
        content = headlines(language, results)
        text = between(
            page.read_text(encoding="utf-8"),
            "<!-- begin: headlines -->",
            "<!-- end: headlines -->",
            content,
        )
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
