"""Every example of the README and of the hand-written pages: Python runs, commands are ones there are."""

from __future__ import annotations

import doctest
import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import typer

import steepest
from steepest.cli.app import app
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.training.metrics import METRICS, own_score

from .place import DOCS, ROOT, WRITTEN, fences

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in WRITTEN}
EXAMPLES = [name for name, text in TEXTS.items() if fences(text, "python")]


class MyNet(torch.nn.Module):
    """The reader's own module, on three features."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.fixture
def registries() -> Iterator[None]:
    """What an example registers is taken away again."""
    before = dict(LOSSES), dict(OPTIMIZERS), dict(METRICS)
    yield
    for registry, entries in zip((LOSSES, OPTIMIZERS, METRICS), before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.fixture
def readers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an example takes for granted: a table, data, a model. Comparisons and fits are cut short."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=80)
    rows = [",".join(f"{number:.4f}" for number in row) for row in x]
    prices = [f"{row},{price:.4f}" for row, price in zip(rows, y, strict=True)]
    (tmp_path / "houses.csv").write_text("\n".join(["rooms,age,size,price", *prices]) + "\n")
    (tmp_path / "data").mkdir()
    pl.read_csv(tmp_path / "houses.csv").write_parquet(tmp_path / "data" / "houses.parquet")
    (tmp_path / "new-houses.csv").write_text("\n".join(["rooms,age,size", *rows[:5]]) + "\n")
    monkeypatch.chdir(tmp_path)
    compare, fit = steepest.compare, steepest.fit
    short = {"max_epochs": 1, "losses": ["mse"], "optimizers": ["sgd"]}

    def cut_short(*given: Any, **named: Any) -> steepest.Comparison:
        decided = {} if "extend" in named else short  # an extension is as long as what it extends
        return compare(*given, **{**decided, **named, "budget": None})

    monkeypatch.setattr(steepest, "compare", cut_short)
    monkeypatch.setattr(steepest, "fit", lambda *given, **named: fit(*given, **{"max_epochs": 1, **named}))
    inputs, targets = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    parts = {"train": slice(40), "validation": slice(40, 60), "test": slice(60, 80)}
    split = {name: (inputs[part], targets[part]) for name, part in parts.items()}
    own = {"validation_error": lambda net: 1.0, "test_error": lambda net: 1.0}
    return {**split, **own, "X": x, "y": y, "MyNet": MyNet, "model": MyNet()}


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("name", EXAMPLES)
def test_python_runs(
    name: str, readers_own: dict[str, Any], registries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page one after the other in one namespace, as a reader would; then their docstrings.

    The README's blocks are each for another reader.
    """
    module = types.ModuleType("a_page")
    monkeypatch.setitem(sys.modules, "a_page", module)
    vars(module).update(readers_own)
    for line, block in fences(TEXTS[name], "python"):
        if name == "README.md":
            vars(module).update(readers_own)
        # Empty lines before it, so that an error has the page's own line.
        exec(compile("\n" * line + block, name, "exec", dont_inherit=True), vars(module))
        assert doctest.testmod(module).failed == 0


def commands(text: str) -> list[list[str]]:
    """What a page tells a person to run: fenced as bash, or indented."""
    lines = [line for _, block in fences(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"^ {4}((?:\.venv/bin/)?(?:steepest|make|torchrun) .*)$", text, re.MULTILINE)
    found = [words for line in lines if (words := shlex.split(line, comments=True)) and words[0] != "cd"]
    # torchrun starts the same command in each of its processes
    return [words[words.index("steepest") :] if words[0] == "torchrun" else words for words in found]


COMMANDS = [(name, words) for name, text in TEXTS.items() for words in commands(text)]
REGISTRIES = {
    "losses": LOSSES, "loss": LOSSES, "optimizers": OPTIMIZERS, "optimizer": OPTIMIZERS, "metric": METRICS,
}  # fmt: skip


def test_the_commands_are_found() -> None:
    assert {words[0].rpartition("/")[2] for _, words in COMMANDS} == {"make", "steepest"}
    assert len(COMMANDS) > 10


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=[" ".join(words) for _, words in COMMANDS])
def test_a_command_is_one_there_is(name: str, words: list[str], registries: None) -> None:
    """With its options as the command line parses them; and the words are ones it knows."""
    program, first, *rest = words
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {first, *rest} <= set(targets)
        return
    assert program.rpartition("/")[2] == "steepest"
    group: Any = typer.main.get_command(app)
    if first.startswith("-"):
        assert first in {option for parameter in group.params for option in parameter.opts}
        return
    command = group.commands[first]
    context = command.make_context(first, list(rest), resilient_parsing=True)
    command.make_parser(context).parse_args(list(rest))  # refuses an unknown option and one without its value
    for option, registry in REGISTRIES.items():
        given = context.params.get(option)
        if given and option == "metric" and "--train" in words:
            assert own_score(given).tasks == ("own",)
        elif given:
            assert set(str(given).split(",")) <= set(registry)
    if first == "explain" and not rest[0].startswith("-"):
        steepest.explain.explain(rest[0])


@pytest.mark.parametrize("name", TEXTS)
def test_every_block_has_a_language_that_is_looked_at(name: str) -> None:
    """A block in no language, or in another, would be tested by nobody."""
    opened = re.findall(r"^```(.*)$", TEXTS[name], re.MULTILINE)[::2]
    assert {language for language in opened if not language.startswith("{")} <= {"python", "bash", "diff"}


@pytest.mark.parametrize("name", TEXTS)
def test_the_rows_of_a_table_have_as_many_cells_as_its_head(name: str) -> None:
    """A bar inside a cell ends it, in code too: what follows would not be shown."""
    for table in re.findall(r"(?:^\|.*\n)+", TEXTS[name], re.MULTILINE):
        bars = [len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()]
        assert set(bars) == {bars[0]}, table.splitlines()[bars.index(max(bars))]


@pytest.mark.parametrize("name", TEXTS)
def test_what_a_page_points_to_is_there(name: str) -> None:
    home = ROOT if name == "README.md" else DOCS
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXTS[name]):
        assert target.startswith("_generated/") or (home / target).exists(), target
    for path in re.findall(r"`((?:src|tests|docs|examples)/[\w/.]+\.\w+)`", TEXTS[name]):
        planned = name.startswith("adding-")  # the files that the reader is to write
        assert planned or (ROOT / path).exists(), path


def test_the_files_that_a_new_one_touches_are_there() -> None:
    """The real paths of the two guides: each file to change exists, each file to write does not."""
    guides = TEXTS["adding-a-loss.md"] + TEXTS["adding-an-optimizer.md"]
    named = set(re.findall(r"^### \d\. .*`(.*)`$", guides, re.MULTILINE))
    written = {path for path in named if not (ROOT / path).exists()}
    assert named - written == {
        "src/steepest/losses/__init__.py", "src/steepest/optim/__init__.py", "tests/contract/truth.py",
    }  # fmt: skip
    for path in written:
        assert (ROOT / path).parent.is_dir()


@pytest.mark.parametrize(
    ("guide", "changed"),
    [
        ("adding-a-loss.md", "src/steepest/losses/__init__.py"),
        ("adding-an-optimizer.md", "src/steepest/optim/__init__.py"),
    ],
)
def test_the_registry_has_the_lines_around_the_new_ones(guide: str, changed: str) -> None:
    text = (ROOT / changed).read_text(encoding="utf-8")
    ((_, block),) = fences(TEXTS[guide], "diff")
    around = [line[1:] for line in block.splitlines() if line.startswith(" ")]
    assert len(around) >= 3
    for line in around:
        assert line in text.splitlines(), line
