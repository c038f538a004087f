"""The report in Chinese: the same texts as in English, none forgotten, none left over, and no English sentence."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
import polars as pl
import pytest
import torch

import steepest
from steepest.comparison.losses import choose_losses
from steepest.comparison.plan import Plan
from steepest.data import prepare
from steepest.errors import InputError
from steepest.report import build
from steepest.report.language import catalogue, recorded, say, speaking
from steepest.report.words import TASKS, humanise, plural
from steepest.training.metrics import METRICS

from . import sample
from .test_build import HOSTILE, Page, chart_data

REPORT = files("steepest.report")
PLACE = re.compile(r"\{(\w+)\}")
# Three words of English in a row. Names, figures and words of code are shorter or cut by signs.
ENGLISH = re.compile(r"[A-Za-z][a-z']*(?: [a-z][a-z']*){2,}")
FINDINGS = (
    *("target_outliers", "target_skewness", "target_excess_kurtosis", "target_counts", "target_amounts"),
    *(
        "target_amounts_and_zeros",
        "largest_class_share",
        "smallest_class_share",
        "imbalance_ratio",
        "label_noise",
    ),
)


def read(name: str) -> str:
    return REPORT.joinpath(name).read_text(encoding="utf-8")


def written_out() -> Iterator[str]:
    """Texts that stand in the template, the code and the script."""
    environment = jinja2.Environment()
    environment.filters.update(dict.fromkeys(("batch", "capital", "plural", "translated"), str))
    for call in environment.parse(read("template.html.j2")).find_all(jinja2.nodes.Call):
        is_text = isinstance(call.node, jinja2.nodes.Name) and call.node.name == "_"
        if is_text and isinstance(call.args[0], jinja2.nodes.Const):
            yield call.args[0].value
    sources = [path.read_text(encoding="utf-8") for path in REPORT.iterdir() if path.name.endswith(".py")]
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        is_text = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say"
        if is_text and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value)
    yield from re.findall(r'\bsay\("([^"]+)"', read("script.js"))


def made_of_names() -> Iterator[str]:
    """Texts that come from names in the records."""
    yield from (f"{{number}} {noun}s" for noun in ("run", "seed", "configuration", "epoch"))
    yield from TASKS.values()
    yield from (humanise(name) for name in FINDINGS)
    yield from (one.title for one in METRICS.values() if one.title.islower() and not one.is_users_own)
    yield from ("train", "validation", "test")
    for path in files("steepest.comparison").iterdir():
        if path.name.endswith(".py"):
            yield from re.findall(r'trials\.run\(\s*"(\w+)"', path.read_text(encoding="utf-8"))
    yield from ("updates", "examples", "epochs", "seconds")
    told_elsewhere = {"task", "target", "metric", "epochs", "seed", "data_sha256", "left_out", "loss_reasons"}
    told_elsewhere |= {"together", "module_sha256"}
    plan = [field.name for field in fields(Plan) if field.name not in told_elsewhere]
    yield from (humanise(name) for name in (*plan, "format", "hidden", "activation"))


def test_both_languages_have_the_same_texts() -> None:
    used = {*written_out(), *made_of_names()}
    assert len(used) > 200
    assert used - set(catalogue("zh")["page"]) == set()
    assert set(catalogue("zh")["page"]) - used == set()


@pytest.mark.parametrize("part", ["page", "records"])
def test_a_translation_has_the_places_and_tags_of_its_text(part: str) -> None:
    # "every other {what}" is one word in Chinese, and so are a few more.
    for english, chinese in catalogue("zh")[part].items():
        left_out = {"what"} if part == "records" else set()
        assert (
            set(PLACE.findall(english)) - left_out
            <= set(PLACE.findall(chinese))
            <= set(PLACE.findall(english))
        ), english
        tags = re.compile(r"</?\w+")
        assert sorted(tags.findall(english)) == sorted(tags.findall(chinese)), english
        assert not ENGLISH.search(chinese.replace("--task regression (task='regression')", "")), chinese
        assert chinese.endswith("。") == english.endswith(".") or len(english) < 60, chinese


def texts_of(page: str) -> Iterator[str]:
    """All that a page says, code apart."""
    without_code = re.sub(r"<(pre|code|noscript)\b.*?</\1>", " ", page, flags=re.DOTALL)
    parsed = Page(without_code)
    yield from parsed.words
    for _, attributes in parsed.elements:
        yield from (
            attributes[name] or "" for name in ("aria-label", "placeholder", "title") if name in attributes
        )
    data = chart_data(page)
    yield from data["texts"].values()
    yield from (spec["description"] for spec in data["specs"].values())
    yield from re.findall(r'"title": "([^"]*)"', str(data["specs"]).replace("'", '"'))


def english_in(page: str) -> list[str]:
    return [found[0] for text in texts_of(page) for found in ENGLISH.finditer(text)]


@cache
def comparison(name: str) -> steepest.Comparison:
    """A real one, small, with as many notes and findings as there can be."""
    random = np.random.default_rng(6)
    rows = 300
    table: dict[str, Any] = {f"x{column}": random.normal(size=rows) for column in range(3)}
    table |= {"id": [f"row {row}" for row in range(rows)], "same": [1.0] * rows}
    table["town"] = [f"t{int(number)}" for number in random.exponential(20, rows)]
    line = table["x0"] + random.normal(size=rows) * 0.3
    y: Any = np.where(np.arange(rows) % 30 == 0, 40.0, line)
    if name == "classes":
        y = np.where(random.random(rows) < 0.12, "b", np.where(line > 1.3, "c", np.where(line > 0, "b", "a")))
    options: dict[str, Any] = {"hidden": (), "max_epochs": 2, "optimizers": ["sgd", "adam"], "num_threads": 2}
    if name == "budget":
        options |= {"budget": "0.01s", "optimizers": None, "max_epochs": None}
    return steepest.compare(pl.DataFrame(table | {"y": y}), "y", **options)


@pytest.mark.parametrize("name", ["outliers", "classes", "budget"])
def test_no_english_sentence_stays(name: str) -> None:
    made = comparison(name)
    assert len(made.verdict["notes"]) >= 4
    page = build(made.verdict, plan_of(made), made.runs, "zh")
    assert english_in(page) == []
    assert '<html lang="zh-CN">' in page
    assert len(english_in(build(made.verdict, plan_of(made), made.runs))) > 100  # it would be seen


def test_nor_of_a_training_of_ones_own() -> None:
    def train(trial: steepest.TrainingTrial) -> float:
        optimizer = trial.optimizer([torch.nn.Parameter(torch.ones(1))])
        optimizer.param_groups[0]["params"][0].grad = torch.ones(1)
        optimizer.step()
        return float(optimizer.param_groups[0]["params"][0].detach().abs())

    made = steepest.compare(train=train, optimizers=["sgd", "adam"], max_epochs=1)
    page = build(made.verdict, plan_of(made), made.runs, "zh")
    assert english_in(page) == []
    text = Page(build(made.verdict, plan_of(made), made.runs)).text
    assert "a training of your own, train" in text
    assert "it trains with the settings that won:" in text
    for other in (
        "Rows:",
        "What your data looks like",
        "Use the model",
        "Batch size",
        "training rows",
        "Batch 32",
        "Every loss under every metric",
    ):
        assert other not in text


def plan_of(made: steepest.Comparison) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made.plan.to_json())
    return found


def test_an_interrupted_one_too() -> None:
    verdict, plan, runs = sample.interrupted()
    verdict |= {"notes": [], "sentence": f"Interrupted: no verdict. {SO_FAR}"}
    verdict["diagnosis"] = []
    assert english_in(build(verdict, plan, runs, "zh")) == []


MEASURED = "test RMSE 0.5 (95% interval 0.4 to 0.6 over 10 seeds)"
MSE = "MSE with Adam at learning rate 0.1 (batch 32)"
HUBER = "Huber with momentum at its default learning rate 0.01 (full batch)"
OWN = "your own loss with SGD at learning rate 0.1"
AS_GOOD = "3 of 12 combinations are equally good, as far as the seeds can tell"
PRUNED = "Pruned after 2 and 7 of 20 epochs; 3 of the rates cut were finished all the same"
REGRET = "the largest regret is 0.012 RMSE (mse + adam). Rates that were cut for good may hide more of it."
SO_FAR = (
    f"So far {MSE} is the best of 3 pairs tried, with a validation log loss of 0.5 over 3 seeds, unconfirmed."
)
OF_PARTS = "none is in two parts, and the parts' sizes and shares of classes are what the groups make them."
TOO_LITTLE = "which is too little to be computed with; rescale it to use it."
SENTENCES = [
    f"Use {MSE}: {MEASURED.replace('RMSE', 'balanced log loss')}, better than its untuned default.",
    f"Use {MSE}: {MEASURED}, better than its untuned default.",
    f"Use {OWN}: {MEASURED}, better than the other 3 pairs.",
    f"Use {OWN.replace('at learning', 'at its default learning')}: {MEASURED}, better than the other pair.",
    f"Use {MSE}: {MEASURED}; its untuned default is as good, as far as the seeds can tell.",
    f"Use {MSE}: {MEASURED}, better than the other 3 pairs (2 barred).",
    f"Use {MSE}: {MEASURED}; every other pair is barred.",
    f"Nothing beat an untuned default: use {HUBER}, {MEASURED}; {AS_GOOD}.",
    f"Nothing beat an untuned default: use {HUBER}, {MEASURED}, better than the other pair.",
    f"No clear winner: {AS_GOOD}; take {MSE}, the easiest to tune: {MEASURED}.",
    f"No pair can be recommended: the only one is barred ({MSE}: diverged on 2 of 10 fresh seeds).",
    f"No pair can be recommended: all 4 are barred ({MSE}: diverged on 2 of 10 fresh seeds).",
    "Interrupted: no run had ended with a score, so there is nothing to say yet.",  # before it was said so:
    "Interrupted: too few runs had ended with a score, so there is nothing to say yet.",
    f"Interrupted: no verdict. {SO_FAR}",
    f"{PRUNED}. In 1 of 4 pairs the best of them beat all that went on, and was taken instead; {REGRET}",
    f"{PRUNED}, and in no pair did one of them beat the best that went on: a regret of 0.",
    f"{PRUNED}, but diverged: what pruning cost is not known.",
    f"The 9 groups in 'g' are split 5 in training, 2 in validation, 1 in test rows; {OF_PARTS}",
    "The rows are in the order of 'day': training rows from 1, validation rows from 7, test rows from 9.",
    "Column 'size' is read as text: 2 of its 90 values are not numbers, the first is 'big' in row 7.",
    (
        "Column 'size' is read as text: its numbers have signs or thousands' separators ('5.4%' in row 1); write them "
        "plainly for it to be taken as numbers."
    ),
    f"Column 'size' is left out: its values lie within 6e-200 of one another, {TOO_LITTLE}",
    "Whether it matters was not measured: mae or huber would have to take part.",
    "Column 'town': 2 of 60 rows hold a category that no training row had ('t1', 't7'); they are taken as infrequent.",
]


@pytest.mark.parametrize("text", SENTENCES, ids=lambda text: text[:30])
def test_what_a_comparison_can_say_is_recognised(text: str) -> None:
    with speaking("zh"):
        said = recorded(text)
    assert "log loss" not in said
    assert not ENGLISH.search(said), said
    assert set(re.findall(r"\d[\d.]*\d|\d", text)) == set(re.findall(r"\d[\d.]*\d|\d", said)), said
    assert recorded(text) == text


TARGETS: dict[str, Any] = {
    "calm": np.linspace(-1, 1, 200),
    "normal": np.random.default_rng(0).normal(size=200),
    "low tail": -np.random.default_rng(0).exponential(size=200),
    "heavy": np.random.default_rng(0).standard_t(3, size=200),
    "counts": np.random.default_rng(0).poisson(3, 200) * 1.0,
    "amounts": np.random.default_rng(0).gamma(1, size=200),
    "zeros": np.maximum(0, np.random.default_rng(0).normal(size=200)),
    "mostly one": np.where(np.arange(200) % 9 == 0, np.arange(200.0), 1.0),
    "two": np.arange(200) % 2,
    "three": np.random.default_rng(0).choice(["a", "b", "c"], 200, p=[0.5, 0.3, 0.2]),
    "many": np.arange(200) % 20,
}


@pytest.mark.parametrize("name", TARGETS)
def test_every_finding_is_recognised(name: str) -> None:
    x = np.random.default_rng(1).normal(size=(200, 2))
    prepared = prepare((x, TARGETS[name]), task="classification" if name == "many" else "auto")
    said = [finding["text"] for finding in prepared.diagnosis] + prepared.notes
    said += choose_losses(prepared.task, prepared.diagnosis).values()
    with speaking("zh"):
        assert [text for text in said if ENGLISH.search(recorded(text))] == []


def test_names_of_the_users_own_are_left_alone() -> None:
    with speaking("zh"):
        assert recorded("my own loss") == "my own loss"
        assert "{x}" in recorded("Column '{x}' is left out: it only numbers the rows.")
        assert plural(1, "run") == say("{number} runs", number=1)
    page = build(*sample.hostile(HOSTILE), "zh")
    assert len(Page(page).all("script")) == 3
    assert not Page(page).all("img")


def test_a_language_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="no language 'fr'"):
        build(*sample.minimal(), "fr")
    with speaking("zh"):
        pass
    assert say("Loss") == "Loss"
