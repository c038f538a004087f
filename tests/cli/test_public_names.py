"""The public names come from where they are written, and the defaults shown are the library's."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import typer

import steepest
from steepest.cli.app import app
from steepest.cli.options import given
from steepest.comparison.options import DEFAULT_BATCH_SIZE

# An option's name where it is not the parameter's own.
RENAMED = {"epochs": "max_epochs", "threads": "num_threads", "ray": "cluster", "compiles": "compile"}
# What the help says of a default that is not a value but a rule.
RULES = {"by task", "by size", "up to five that suit the data", "six usual ones", "all", "all cores"}


@pytest.mark.parametrize("name", steepest.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(steepest, name) is not None
    assert name in dir(steepest)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'levitate'"):
        _ = steepest.levitate  # type: ignore[attr-defined]


def options(command: str) -> dict[str, Any]:
    """Parameter name -> the default its help shows, of a command's options."""
    group: Any = typer.main.get_command(app)
    shown = {
        param.name: param.show_default
        for param in group.commands[command].params
        if param.opts[0][:2] == "--"
    }
    return {RENAMED.get(name, name): default for name, default in shown.items()}


@pytest.mark.parametrize("command", ["compare", "fit"])
def test_the_help_has_every_option_under_a_head(command: str) -> None:
    group: Any = typer.main.get_command(app)
    heads = {param.name: param.rich_help_panel for param in group.commands[command].params}
    assert [name for name, head in heads.items() if head is None] == ["data"]


def text(value: Any) -> str:
    return ",".join(str(item) for item in value) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("command", ["compare", "fit"])
def test_defaults_in_the_help_are_the_librarys(command: str) -> None:
    parameters = dict(inspect.signature(getattr(steepest, command)).parameters)
    if command == "fit":  # of a table, or of a module
        parameters = {**inspect.signature(steepest.fit_module).parameters, **parameters}
    apart = {
        "out",
        "help",
        "as_json",
        "quiet",
        "dry_run",
        "model",
        "module_data",
        "resume",
        "compile",
        "imports",
    }
    for name, shown in options(command).items():
        if name in apart:
            continue
        default = parameters[name].default
        if name in {"batch_sizes", "batch_size"}:  # None: fewer where there are fewer rows, or a loader's own
            default = str(DEFAULT_BATCH_SIZE)
        if isinstance(shown, str) and shown not in RULES:
            assert shown == text(default), name
        else:
            assert default is None, f"{name}: the help shows no default, the library has {default!r}"


def test_only_what_is_given_is_handed_on() -> None:
    assert given(a=None, b=0, c=(), d="x") == {"b": 0, "c": (), "d": "x"}
