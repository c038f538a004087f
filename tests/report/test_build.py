"""The report as a file: complete, offline, bounded, inert whatever names the table holds."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from steepest.comparison.ranking import EQUIVALENCE
from steepest.comparison.statistics import CONFIDENCE
from steepest.errors import InputError, inert
from steepest.report import build, in_notebook, write
from steepest.report.words import significant

from . import sample
from .sample import Records

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!-- \"'`{{7*7}}${1} &amp; \u2028 --"
FIVE_MEGABYTES = 5_000_000


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._within: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._within:
            self._within.remove(tag)

    def handle_data(self, data: str) -> None:
        if not self._within:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def chart_data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="chart-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.mark.parametrize("name", sample.ALL)
def test_every_kind_of_comparison_gives_a_whole_page(name: str, pages: Callable[[str], str]) -> None:
    text = pages(name)
    page = Page(text)
    assert sample.ALL[name]()[0]["sentence"] in page.text
    assert [attributes.get("lang") for attributes in page.all("html")] == ["en"]
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert "nan" not in page.text.lower().split()
    assert "None" not in page.text
    assert text.rstrip().endswith("</html>")


@pytest.mark.parametrize("name", sample.ALL)
def test_headings_never_skip_a_level(name: str, pages: Callable[[str], str]) -> None:
    levels = [int(tag[1]) for tag, _ in Page(pages(name)).elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("name", sample.ALL)
def test_ids_are_unique_and_references_lead_somewhere(name: str, pages: Callable[[str], str]) -> None:
    page = Page(pages(name))
    ids = [attributes["id"] for tag, attributes in page.elements if "id" in attributes and tag != "path"]
    own = [identity for identity in ids if identity and not identity.startswith("gradient")]
    assert len(own) == len(set(own))
    for _, attributes in page.elements:
        for key in ("aria-labelledby", "for"):
            if attributes.get(key):
                assert attributes[key] in ids
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids


@pytest.mark.parametrize("name", sample.ALL)
def test_nothing_is_fetched(name: str, pages: Callable[[str], str]) -> None:
    page = Page(pages(name))
    policies = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv")]
    assert len(policies) == 1
    assert (policies[0] or "").startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in (policies[0] or "")
    assert "'unsafe-inline'" not in (policies[0] or "").split("style-src")[0]
    for tag, attributes in page.elements:
        for key in ("src", "srcset", "data", "poster", "action", "background", "xlink:href"):
            assert key not in attributes, f"<{tag} {key}>"
        assert (attributes.get("href") or "#").startswith(("#", "data:,")), f"<{tag} href>"
    assert "url(" not in pages(name).partition("<style>")[2].partition("</style>")[0]


def test_five_thousand_runs_fit_into_five_megabytes() -> None:
    page = build(*sample.large())
    assert len(page.encode()) < FIVE_MEGABYTES
    assert page.count("<tr") < 2_500


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the system does not tell a process its peak"
)
def test_twenty_thousand_runs_fit_as_well(tmp_path: Path) -> None:
    verdict, plan, runs = sample.large()
    copies = [
        runs.with_columns(seed=pl.col("seed") + 1_000 * number) for number in range(-(-20_000 // runs.height))
    ]
    many = pl.concat(copies)
    assert many.height >= 20_000
    verdict |= {"num_runs": many.height}
    write_records(tmp_path, (verdict, plan, many))
    # A process of its own: the peak is the report's, and no other test's (rusage counts the parent's too).
    code = (
        "import re, sys, pathlib, steepest.report as report; report.write(pathlib.Path(sys.argv[1])); "
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', pathlib.Path('/proc/self/status').read_text())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, timeout=300, capture_output=True, text=True
    )
    assert (tmp_path / "report.html").stat().st_size < FIVE_MEGABYTES
    assert int(done.stdout) < 2_000_000  # KiB


def test_the_same_records_give_the_same_text(pages: Callable[[str], str]) -> None:
    verdict, plan, runs = sample.minimal()
    assert build(verdict, plan, runs.sample(fraction=1.0, shuffle=True, seed=3)) == pages("minimal")


def test_the_order_of_runs_does_not_matter(pages: Callable[[str], str]) -> None:
    verdict, plan, runs = sample.interrupted()
    assert build(verdict, plan, runs.reverse()) == pages("interrupted")


def test_hostile_names_are_text_and_nothing_else(pages: Callable[[str], str]) -> None:
    text = build(*sample.hostile(HOSTILE))
    page, harmless = Page(text), Page(pages("regression"))
    assert len(page.all("script")) == len(harmless.all("script")) == 3
    assert not page.all("img")
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    shown = " ".join(inert(HOSTILE).split())
    assert page.text.count(shown) >= 8
    assert chart_data(text)["specs"].keys() == {"rate-0", "rate-1", "curve-0", "curve-1"}


def test_a_target_with_quotes_stays_one_word_of_the_command() -> None:
    page = Page(build(*sample.hostile("it's $(rm)")))
    assert "--target 'it'\"'\"'s $(rm)' --task" in page.text


def test_a_rate_alone_is_not_said_to_be_as_good_as_itself() -> None:
    verdict, plan, runs = sample.regression()
    cell = next(one for one in verdict["cells"] if one["kind"] == "tuned")
    for rates, is_said in (([0.001, 0.01], True), ([0.01, 0.01], False)):
        alone = {**cell, "rate_interval": rates}
        text = Page(build({**verdict, "winners": [alone], "cells": [alone]}, plan, runs)).text
        assert ("as good: " in text) is is_said


def test_an_interruption_is_said_first(pages: Callable[[str], str]) -> None:
    text = Page(pages("interrupted")).text
    assert 0 < text.index("Interrupted.") < text.index("No verdict after 9 of 180 runs")
    assert "best so far" in text
    assert "take this" not in text
    assert "Interrupted." not in Page(pages("regression")).text


def test_what_needs_no_model_stands_beside_the_winner_and_under_every_metric(
    pages: Callable[[str], str],
) -> None:
    text = Page(pages("regression")).text
    assert "Without a model 4.200 always predicting the mean" in text
    assert "none: always the same 4.200 3.150" in text
    assert "Without a model" not in Page(pages("interrupted")).text
    verdict, plan, runs = sample.regression()
    del verdict["baseline"]  # as in records of an earlier version
    assert "Without a model" not in Page(build(verdict, plan, runs)).text


def test_how_winners_are_told_and_counted_is_said() -> None:
    verdict, plan, runs = sample.regression()
    text = Page(build(verdict, plan, runs)).text
    assert f"its range comes within {EQUIVALENCE:.0%} of the best score" in text
    assert f"where p is above {1 - CONFIDENCE:.2g}, the pair is a winner too" in text
    twice = "A pair and its untuned default count as two."
    assert twice in text
    winners = [cell for cell in verdict["winners"] if cell["kind"] == "tuned"]
    assert 1 < len(winners) < len(verdict["winners"])
    assert twice not in Page(build({**verdict, "winners": winners}, plan, runs)).text


def test_the_plan_is_told_in_words() -> None:
    verdict, plan, runs = sample.regression()
    ranges = {"huber": {"delta": [0.1, 10.0, "log"]}, "mse": {}}
    text = Page(build(verdict, {**plan, "loss_ranges": ranges, "num_configurations": 16}, runs)).text
    assert "loss ranges: huber delta: 0.1 to 10, log loss ranges: mse none" in text
    assert "settings of other options tried 16" in text
    assert "{" not in text[text.index("The plan") : text.index("Use the model")]


def test_a_notebook_shows_the_verdict_and_its_pairs() -> None:
    verdict, _, _ = sample.regression()
    text = Page(in_notebook(verdict)).text
    assert text.startswith(verdict["sentence"])
    first = verdict["cells"][0]
    assert f"{first['loss']} {first['optimizer']} {significant(first['lr'])}" in text
    assert "none always the mean 4.200 baseline" in text
    assert "16 more rows are in" in text
    cells = [first | {"schedule": "cosine"}, *verdict["cells"][1:]]
    apart = Page(in_notebook(verdict | {"cells": cells})).text
    assert (
        f"{first['loss']} {first['optimizer']} {first['batch_size']} cosine {significant(first['lr'])}"
        in apart
    )
    assert not Page(in_notebook(sample.hostile(HOSTILE)[0])).all("img")
    verdict, _, _ = sample.interrupted()
    so_far = Page(in_notebook(verdict)).text
    assert "best so far" in so_far
    assert "winner" not in so_far


def test_what_may_not_win_says_why(pages: Callable[[str], str]) -> None:
    text = Page(pages("regression")).text
    assert "not tuned: its best rate, 10, is the largest that was tried" in text
    assert "untuned default" in text


def test_what_the_data_look_like_says_whether_it_mattered_and_why_losses_took_part(
    pages: Callable[[str], str],
) -> None:
    page = pages("regression")
    assert re.search(r'class="outcome">It mattered: huber is 4.0% better than mse on RMSE', page)
    assert page.count('class="outcome"') == 1
    assert "<dt>mae</dt><dd>aims at the median</dd>" in page
    assert "loss reasons" not in Page(page).text
    assert "Why these losses took part" not in pages("minimal")


def test_the_calibration_of_classes_is_drawn_and_told(pages: Callable[[str], str]) -> None:
    page = pages("multiclass")
    text = Page(page).text
    assert "of the class predicted are off by 3.1 percentage points on average" in text
    assert "(ECE) of 0.031 (95% interval 0.027 to 0.035), in 15 bins of equal width" in text
    rows = chart_data(page)["specs"]["calibration-0"]["data"]["values"]
    assert len(rows) == 10
    assert set(rows[0]) == {"predicted", "observed", "low", "high", "predictions"}
    assert "Balanced accuracy" in text
    assert "calibration" not in Page(pages("regression")).text.lower()


def test_thinned_curves_are_said_to_be(pages: Callable[[str], str]) -> None:
    verdict, plan, runs = sample.interrupted()
    long = runs.with_columns(
        curve_epoch=pl.lit(list(range(1, 301))),
        curve_step=pl.lit(list(range(1, 301))),
        curve_validation=pl.lit([2.0 + 1 / step for step in range(1, 301)]),
    )
    text = Page(build(verdict, plan, long)).text
    assert "of 300 evaluations at most 60 are drawn" in text
    assert "are thinned" not in Page(pages("regression")).text


def test_code_in_plain_pytorch_is_shown_where_there_is_some(pages: Callable[[str], str]) -> None:
    verdict, plan, runs = sample.minimal()
    plan = plan | {"asked_task": "auto", "seed": 0, "validation": 0.2, "test": 0.2}
    text = Page(build(verdict, plan, runs)).text
    assert "optimizer = torch.optim.Adam(model.parameters(), lr=0.001)" in text
    assert "from steepest.data import prepare" in text
    verdict["winners"][0]["optimizer"] = verdict["cells"][0]["optimizer"] = "lion"
    text = Page(build(verdict, plan, runs.with_columns(optimizer=pl.lit("lion")))).text
    assert "PyTorch itself has not both of mse and lion" in text


def test_a_losss_best_pair_is_named_with_its_batch_where_there_are_several(
    pages: Callable[[str], str],
) -> None:
    assert '<th scope="row">mse · adam</th>' in pages("regression")
    assert re.search(r'<th scope="row">cross_entropy · \w+ · (batch 32|full batch)</th>', pages("multiclass"))


def test_the_difference_to_the_best_has_a_column_where_there_is_one(pages: Callable[[str], str]) -> None:
    column = "Against the best"
    assert column in Page(pages("regression")).text
    interrupted = Page(pages("interrupted")).text
    assert (
        column not in interrupted
    )  # one of dashes alone was as wide as a letter, and its head as high as a page
    assert "Two pairs whose lines overlap may well be equally good." in interrupted
    verdict, plan, runs = sample.interrupted()
    page = Page(build({**verdict, "cells": []}, plan, runs)).text
    assert "not finished" in page
    assert "not tried" not in page


def test_a_command_breaks_before_its_options(pages: Callable[[str], str]) -> None:
    page = pages("regression")
    assert '<span class="option">--batch-size</span> 32 <span class="option">--epochs</span>' in page
    (command,) = [code for code in re.findall("<code>(.*?)</code>", page) if code.startswith("steepest fit")]
    assert shlex.split(re.sub("</?span[^>]*>", "", command))[-2:] == ["--out", "DIR"]


def test_home_metrics_are_marked(pages: Callable[[str], str]) -> None:
    assert re.findall(r'class="note">home<', pages("regression")) == ['class="note">home<'] * 2
    assert re.findall(r'class="note">home<', pages("multiclass")) == ['class="note">home<']


def test_scores_that_are_not_numbers_are_drawn_as_missing() -> None:
    verdict, plan, runs = sample.interrupted()
    verdict["cells"][0] |= {"score": float("nan"), "interval": [None, None], "rate_interval": None}
    verdict["cells"].append(verdict["cells"][0] | {"optimizer": "sgd", "lr": None, "score": None})
    assert "nan" not in Page(build(verdict, plan, runs)).text.lower().split()


def test_a_comparison_without_any_finished_run_still_reports() -> None:
    verdict, plan, runs = sample.interrupted()
    verdict.update(cells=[], winners=[], num_runs=0, num_diverged=0)
    text = Page(build(verdict, plan, runs.clear())).text
    assert "No pair was finished" in text
    assert "No finished run has a learning curve" in text
    assert "Use the model" not in text


def test_runs_that_all_diverged_leave_marks_and_no_curves() -> None:
    verdict, plan, runs = sample.interrupted()
    nothing = runs.with_columns(diverged=True, validation_score=float("nan"))
    cell = verdict["cells"][0] | {"score": None, "interval": [None, None]}
    page = build(verdict | {"cells": [cell]}, plan, nothing)
    rows = chart_data(page)["specs"]["rate-0"]["data"]["values"]
    assert [row["diverged"] for row in rows if row["kind"] == "tried"] == [3, 3, 3]
    assert "No finished run has a learning curve" in Page(page).text


def write_records(directory: Path, records: Records) -> None:
    verdict, plan, runs = records
    (directory / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    (directory / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    runs.write_parquet(directory / "runs.parquet")


def test_write_reads_the_records_and_leaves_one_file(tmp_path: Path, pages: Callable[[str], str]) -> None:
    write_records(tmp_path, sample.minimal())
    before = set(tmp_path.iterdir())
    (tmp_path / "report.html").write_text("an older report", encoding="utf-8")
    path = write(tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_bytes() == pages("minimal").encode()
    assert set(tmp_path.iterdir()) == before | {path}


@pytest.mark.parametrize("name", ["verdict.json", "plan.json", "runs.parquet"])
@pytest.mark.parametrize("content", [None, b"", b"[1]", b"{"])
def test_a_record_that_is_missing_or_cut_short_is_named(
    name: str, content: bytes | None, tmp_path: Path
) -> None:
    write_records(tmp_path, sample.minimal())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        write(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_an_unknown_format_is_refused() -> None:
    verdict, plan, runs = sample.minimal()
    with pytest.raises(InputError, match="format 2, but this version of steepest reads format 1"):
        build(verdict | {"format": 2}, plan, runs)


def test_a_missing_column_is_named() -> None:
    verdict, plan, runs = sample.minimal()
    with pytest.raises(InputError, match="lacks the columns lr, seed"):
        build(verdict, plan, runs.drop("lr", "seed"))


def test_the_report_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['numba'] = None; "
        "import steepest.report; steepest.report.build"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
