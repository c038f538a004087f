"""The generated pages: one for every loss and optimizer, with all that a page has."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from steepest import losses, optim, schedules
from steepest.backends.reference import abs, minimum
from steepest.losses import LOSSES, from_formula
from steepest.optim import OPTIMIZERS

from .place import DOCS, WRITTEN, generator

GENERATOR = generator()
PAGES: dict[str, str] = GENERATOR.pages()


def test_every_loss_and_optimizer_has_its_page() -> None:
    assert {path for path in PAGES if path.startswith("losses/")} == {
        "losses/index",
        *(f"losses/{word}" for word in LOSSES),
    }
    named = {f"optimizers/{word}" for word in OPTIMIZERS}
    without = {
        f"optimizers/{name}"
        for name in optim.__all__
        if inspect.isclass(getattr(optim, name))
        and issubclass(getattr(optim, name), torch.optim.Optimizer)
        and name not in {entry.cls.__name__ for entry in OPTIMIZERS.values()}
    }
    assert {path for path in PAGES if path.startswith("optimizers/")} == {
        "optimizers/index",
        *named,
        *without,
    }


def test_what_torch_has_too_is_told_as_a_drop_in() -> None:
    for kind, package, home in (("losses", torch.nn, losses), ("optimizers", torch.optim, optim)):
        names = {page.rpartition("/")[2] for page in PAGES if page.startswith(f"{kind}/")} - {"index"}
        registry = LOSSES if kind == "losses" else {word: entry.cls for word, entry in OPTIMIZERS.items()}
        for name in names:
            cls = registry.get(name) or getattr(home, name)
            is_there = f"It takes the place of `{package.__name__}.{cls.__name__}`" in PAGES[f"{kind}/{name}"]
            assert is_there == hasattr(package, cls.__name__), name


def test_every_public_loss_class_is_in_the_registry() -> None:
    """So that none is without a page."""
    public = [getattr(losses, name) for name in losses.__all__]
    modules = {value for value in public if inspect.isclass(value) and issubclass(value, torch.nn.Module)}
    assert modules == set(LOSSES.values())


def test_the_generator_names_none_of_them() -> None:
    text = (DOCS / "pages.py").read_text(encoding="utf-8")
    classes = {*losses.__all__, *optim.__all__} - {
        "LOSSES", "OPTIMIZERS", "Interval", "LossFormula", "OptimizerEntry", "OptimizerSwitches", "Switches",
        "functional",
    }  # fmt: skip
    strings = set(re.findall(r'"(\w+)"', text))
    assert not [name for name in classes if re.search(rf"\b{name}\b", text)]
    assert not strings & {*LOSSES, *OPTIMIZERS}


@pytest.mark.parametrize("word", LOSSES)
def test_a_losss_page_says_all_of_it(word: str) -> None:
    page, formula = PAGES[f"losses/{word}"], LOSSES[word].formula
    for text in (formula.formula, formula.gradient_formula):
        assert text in page
    for text in (formula.domain, formula.source, *formula.good_at, *formula.bad_at):
        assert text in page.replace("\\", "")
    for name in inspect.signature(LOSSES[word]).parameters:
        assert name == "switches" or f"| `{name}` |" in page
    for name in losses.Switches.__annotations__:
        assert f"| `{name}` |" in page
    assert f".. autoclass:: steepest.losses.{LOSSES[word].__name__}" in page
    assert ".. autofunction:: steepest.losses.functional." in page
    assert "```pycon\n>>> " in page
    assert "## From torch" in page
    assert ("![" in page) == (formula.family != "composite")


@pytest.mark.parametrize("word", OPTIMIZERS)
def test_an_optimizers_page_says_all_of_it(word: str) -> None:
    page, entry = PAGES[f"optimizers/{word}"], OPTIMIZERS[word]
    for line in re.split(r";  +", entry.formula):
        assert line in page
    for text in (entry.source, *entry.good_at, *entry.bad_at):
        assert text in page.replace("\\", "")
    for name in inspect.signature(entry.cls).parameters:
        assert name == "switches" or f"| `{name}` |" in page
    assert f".. autoclass:: steepest.optim.{entry.cls.__name__}" in page
    assert "```pycon\n>>> " in page
    assert "## From torch" in page
    assert f"![Its way to the optimum, drawn](../pictures/{word}.svg)" in page


def test_a_class_is_indexed_once() -> None:
    """The words of one class share its reference; a second index entry would be ambiguous."""
    for cls in {entry.cls for entry in OPTIMIZERS.values()}:
        directive = f".. autoclass:: steepest.optim.{cls.__name__}\n"
        found = [text.split(directive)[1] for text in PAGES.values() if directive in text]
        assert len(found) == len(GENERATOR.entries_of(cls))
        assert sum(not rest.startswith("   :no-index:") for rest in found) == 1


def row(page: str, first: str) -> list[str]:
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_conventions_are_measured() -> None:
    """The table of RMSProp's, against the formulas of its docstring worked out here."""
    g, alpha, eps = 1e-4, 0.99, 1e-8
    page = PAGES["optimizers/rmsprop"]
    for convention, first_square, outside in (
        ("torch", 0.0, True),
        ("keras", 0.0, False),
        ("tf1", 1.0, False),
    ):
        square, steps = first_square, []
        for _ in range(3):
            square = alpha * square + (1 - alpha) * g * g
            steps.append(g / (square**0.5 + eps) if outside else g / (square + eps) ** 0.5)
        cells = row(page, f'`"{convention}"`')
        assert cells[1] == f"`square_avg` at {first_square:g}"
        assert [float(cell) for cell in cells[2:]] == pytest.approx(steps, rel=1e-3)


def test_a_convention_that_the_options_rule_out_says_so() -> None:
    with pytest.raises(GENERATOR.InputError):
        optim.SGD([torch.nn.Parameter(torch.zeros(1))], momentum=0.9, dampening=0.5, convention="tf1")
    table = GENERATOR._conventions(optim.SGD, {"momentum": 0.9, "dampening": 0.5})
    assert row(table, '`"tf1"`')[1] == "not with this word's options"
    assert row(table, '`"torch"`')[2] == "0.0001"


def test_memory_is_counted() -> None:
    """As each entry's own rule says, and as the papers say of those without an entry."""
    lines = [line for line in PAGES["optimizers/index"].splitlines() if line.startswith("| [")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    kept = {re.match(r"\[(\w+)\]", first)[1]: int(state) for first, _, _, state, _ in cells}  # type: ignore[index]
    for word, entry in OPTIMIZERS.items():
        parameter = torch.nn.Parameter(torch.zeros(1))
        group = entry.cls([parameter], **entry.options).param_groups[0]
        assert kept.pop(word) == len(entry.cls.rule_of(group).slots)
    assert kept == {"Adafactor": 0, "Muon": 1, "ScheduleFreeAdamW": 2, "ScheduleFreeSGD": 1, "SparseAdam": 2}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("mse", "grows"), ("mae", "bounded"), ("huber", "bounded"), ("cauchy", "fades"), ("tukey", "fades"),
        ("bce", "bounded"), ("squared_hinge", "grows"), ("generalized_cross_entropy", "fades"),
        ("poisson_nll", "grows"), ("dice", "–"), ("kl_div", "–"),
    ],
)  # fmt: skip
def test_the_pull_of_a_row_far_off(word: str, expected: str) -> None:
    """What the index says of robustness, for losses whose answer is textbook."""
    assert GENERATOR.pull_far_off(LOSSES[word].formula) == expected


def test_a_new_loss_gets_its_page_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "held", None)  # taken away again after the test
    del LOSSES["held"]

    def held(p: Any, y: Any, width: float = 2.0) -> Any:
        return minimum(abs(p - y), width)

    made = from_formula(held, name="held", valid={"width": (0.0, 9.0)})
    monkeypatch.setattr(made, "__doc__", "A loss that is held.\n\n>>> 1 + 1\n2\n")
    page = GENERATOR.pages()["losses/held"]
    assert page.startswith("# held: held\n\nA loss that is held.\n")
    assert row(page, "`width`") == ["`width`", "`2`", "above 0, below 9"]
    assert "[held](held.md)" in GENERATOR.losses_index()
    assert GENERATOR.pull_far_off(made.formula) == "fades"


def test_a_second_writing_changes_only_what_has_changed(tmp_path: Path) -> None:
    GENERATOR.write(tmp_path, pictures=False)
    made = set(tmp_path.rglob("*.md"))
    assert {str(path.relative_to(tmp_path).with_suffix("")) for path in made} == set(PAGES)
    long_ago = 1_000_000_000
    for path in made:
        os.utime(path, (long_ago, long_ago))
    changed, stale = tmp_path / "losses" / "index.md", tmp_path / "losses" / "gone.md"
    changed.write_text("another text", encoding="utf-8")
    stale.write_text("of a loss that is no more", encoding="utf-8")
    GENERATOR.write(tmp_path, pictures=False)
    assert not stale.exists()
    assert {path for path in made if path.stat().st_mtime != long_ago} == {changed}
    assert changed.read_text(encoding="utf-8") == PAGES["losses/index"]


def test_pictures_are_drawn_anew_only_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(GENERATOR, "svg", lambda figure: drawn.append(figure.title) or "<svg/>")
    monkeypatch.setattr(optim, "OPTIMIZERS", {})
    monkeypatch.setattr(schedules, "SCHEDULES", {})
    monkeypatch.setattr(losses, "LOSSES", {word: LOSSES[word] for word in ("mae", "dice", "bce")})
    kept = GENERATOR._draw(tmp_path)
    assert {path.name for path in kept} == {"mae.svg", "bce.svg", "drawn-from.txt"}  # dice has no picture
    assert len(drawn) == 2
    GENERATOR._draw(tmp_path)
    assert len(drawn) == 2
    (tmp_path / "mae.svg").unlink()
    GENERATOR._draw(tmp_path)
    assert len(drawn) == 3
    (tmp_path / "drawn-from.txt").write_text("another library", encoding="utf-8")
    GENERATOR._draw(tmp_path)
    assert len(drawn) == 5


def test_pages_that_move_lie_where_the_pages_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "OPTIMIZERS", {})
    monkeypatch.setattr(schedules, "SCHEDULES", {})
    monkeypatch.setattr(losses, "LOSSES", {word: LOSSES[word] for word in ("mae", "dice")})
    monkeypatch.setattr(GENERATOR, "svg", lambda _: "<svg/>")
    GENERATOR.write(tmp_path)
    assert {path.name for path in (tmp_path / "extra" / "moving").iterdir()} == {"mae.html", "drawn-from.txt"}
    assert "function l1$gradient(p, y)" in (tmp_path / "extra" / "moving" / "mae.html").read_text(
        encoding="utf-8"
    )
    assert '<a href="../../moving/mae.html">The same, moving</a>' in PAGES["losses/mae"]
    assert "moving" not in PAGES["losses/dice"]


def test_text_means_nothing_to_markdown() -> None:
    assert GENERATOR._plain("a|b_c *d* <e> [f] `g`") == r"a\|b\_c \*d\* \<e\> \[f\] \`g\`"


def test_ranges_in_words() -> None:
    words = {
        "()": "above 0, below 1", "[]": "at least 0, at most 1", "[)": "at least 0, below 1",
    }  # fmt: skip
    assert {closed: GENERATOR._in_words(losses.Interval(0.0, 1.0, closed)) for closed in words} == words
    assert GENERATOR._in_words(losses.Interval(-float("inf"), float("inf"))) == "any number"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """All of it but the pictures, in a process of its own; and nothing in it comes from elsewhere."""
    pytest.importorskip("sphinx", reason="the documentation's packages are not installed")
    source = tmp_path / "docs"
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("_build", "_generated"))
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-D", "draw_pictures=0"]
    built = subprocess.run(
        [*command, str(source), str(tmp_path / "html")], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    for path in PAGES:
        assert (tmp_path / "html" / "_generated" / f"{path}.html").exists()
    for page in (path.stem for path in WRITTEN if path.parent == DOCS):
        text = (tmp_path / "html" / f"{page}.html").read_text(encoding="utf-8")
        assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"(https?:)?//", text)
    chooser = (tmp_path / "html" / "how-to-choose.html").read_text(encoding="utf-8")
    assert '_generated/losses/huber.html"><code' in chooser
    huber = (tmp_path / "html" / "_generated" / "losses" / "huber.html").read_text(encoding="utf-8")
    assert 'reference.html#steepest.losses.Switches"' in huber
