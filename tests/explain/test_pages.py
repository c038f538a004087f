"""The words: all of them from the formulas, entries and signatures, and broken for the terminal."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from steepest.errors import InputError
from steepest.explain import explain
from steepest.explain.optimizer_page import optimizer_page
from steepest.explain.regimes import REGIMES
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.schedules import SCHEDULES

NAMES = [*LOSSES, *OPTIMIZERS, *SCHEDULES, *REGIMES]


def words(text: str) -> str:
    """The text as one line."""
    return " ".join(text.split())


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_tells_all_its_formula_object_knows(name: str) -> None:
    formula = LOSSES[name].formula
    said = words(explain(name).text)
    facts = [formula.title, formula.formula, formula.gradient_formula, formula.domain, formula.source]
    for fact in [*facts, *formula.tasks, *formula.good_at, *formula.bad_at, *formula.parameters]:
        assert words(fact) in said.replace("• ", "")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_tells_all_its_entry_knows(name: str) -> None:
    entry = OPTIMIZERS[name]
    said = words(explain(name).text)
    for fact in [entry.title, entry.formula, entry.source, *entry.good_at, *entry.bad_at]:
        assert words(fact) in said.replace("• ", "")
    assert f"lr={entry.default_lr:g}, " in said
    for option, value in entry.options.items():
        assert f"{option}={value!r}" in said


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedules_page_has_landmarks_and_a_drawing_to_reach(name: str, tmp_path: Path) -> None:
    explain(name).save(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<main>") == page.count("</main>") == 1
    assert '<figure role="img" tabindex="0"' in page  # on a phone it scrolls


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_tells_all_its_entry_knows(name: str) -> None:
    entry = SCHEDULES[name]
    said = words(explain(name).text)
    for fact in [entry.title, entry.formula, entry.ends, entry.source, *entry.good_at, *entry.bad_at]:
        assert words(fact) in said.replace("• ", "")


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("mse", "reduction='mean'"),
        ("huber", "delta=1"),
        ("focal", "gamma=2"),
        ("dice", "mode='multiclass' (or 'binary', 'multilabel')"),
        ("quantile", "quantile=0.5,"),
        ("cross_entropy", "label_smoothing=0"),
        ("cross_entropy", "ignore_index=-100"),
        ("adam", "betas=(0.9, 0.999), eps=1e-08"),
        ("rmsprop", "alpha=0.99, eps=1e-08"),
        ("adamw", "weight_decay=0.01"),
        ("momentum", "convention='torch' (or 'ema', 'keras', 'tf1')"),
        ("momentum_ema", "convention='ema' (or 'torch', 'keras', 'tf1')"),
        ("adopt", "betas=(0.9, 0.9999), eps=1e-06"),
        ("momentum_ema", "lr=0.01"),
    ],
)
def test_defaults_are_the_signatures(name: str, default: str) -> None:
    assert default in words(explain(name).text)


def test_a_changed_default_changes_the_page() -> None:
    changed = dataclasses.replace(OPTIMIZERS["momentum"], default_lr=0.123, options={"momentum": 0.77})
    said = words(optimizer_page(changed).text)
    assert "lr=0.123, momentum=0.77, dampening=0" in said
    assert "steepest.optim.SGD(parameters, lr=0.123, momentum=0.77)" in said


@pytest.mark.parametrize(
    ("name", "replaced"),
    [
        ("mae", "steepest.losses.L1Loss, in the place of torch.nn.L1Loss"),
        ("rmsprop", "in the place of torch.optim.RMSprop"),
    ],
)
def test_it_says_which_class_of_torch_it_replaces(name: str, replaced: str) -> None:
    assert replaced in words(explain(name).text)


def test_the_two_corrections_are_said() -> None:
    mae = words(explain("mae").text)
    assert "MAE is symmetric in the error's sign" in mae
    assert "often said to be asymmetric, and is not" in mae
    for name in ("sgd", "batch"):
        said = words(explain(name).text)
        assert "that it reaches the global one is often said, and holds on convex problems only" in said


@pytest.mark.parametrize("name", REGIMES)
def test_a_regime_is_gradient_descent_with_a_batch_size(name: str) -> None:
    page = explain(name)
    assert page.name == name
    assert str(REGIMES[name].batch_size) in page.title
    assert f"--optimizer sgd --batch-size {REGIMES[name].batch_size}" in words(page.text)
    assert words(OPTIMIZERS["sgd"].formula) in words(page.text)


@pytest.mark.parametrize(
    ("name", "hint"), [("adma", "'adam'"), ("MAE", "'mae'"), ("minibatch", "'mini-batch'"), ("xyz", "mse")]
)
def test_an_unknown_name_suggests_those_near(name: str, hint: str) -> None:
    with pytest.raises(InputError, match="There is no loss, optimizer or schedule") as refusal:
        explain(name)
    assert name in str(refusal.value)
    assert hint in str(refusal.value)


@pytest.mark.parametrize("columns", [40, 72, 200])
@pytest.mark.parametrize("name", NAMES)
def test_lines_fit_the_terminal(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    page = explain(name)
    longest_word = max(len(word) for word in page.text.split())
    assert max(map(len, page.text.splitlines())) <= max(min(columns, 100), 18 + longest_word, len(page.title))


WITHOUT_DRAWING = [name for name in LOSSES if LOSSES[name].formula.family == "composite"]


def test_a_loss_of_whole_tensors_has_words_alone() -> None:
    assert WITHOUT_DRAWING
    for name in NAMES:
        page = explain(name)
        assert (page.make_figure is None) == (name in WITHOUT_DRAWING)
    page = explain(WITHOUT_DRAWING[0])
    assert page.figure is None
    assert page.terminal(80) == []
    assert "<svg" not in page._repr_html_()
    assert f"<h1>{page.title}</h1>" in page._repr_html_()


@pytest.mark.parametrize("name", LOSSES)
def test_a_formula_has_no_symbol_that_the_page_leaves_open(name: str) -> None:
    told = {label: " ".join(paragraphs) for label, paragraphs in explain(name).sections}
    symbol = r"(?<![^\W_])[A-Za-zα-ω](?![A-Za-z])"
    formulas = f"{told['formula']}, {told['gradient']}"
    indices = {"c", "j", "k"}  # of a class
    said = " ".join(told[label] for label in ("model gives", "target is", "domain", "defaults"))
    defined = re.findall(rf"({symbol})(?:_c)? (?:=|the|a|in proportion to) ", formulas)
    assert set(re.findall(symbol, formulas)) - {"a"} - indices <= {*re.findall(symbol, said), *defined}


def test_a_page_prints_as_its_text() -> None:
    page = explain("mse")
    assert str(page) == page.text
