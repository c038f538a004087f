"""A library that is quick and remembers what it was asked, in the place of the real one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from steepest.cli.main import main

Fake = Callable[..., None]


@dataclass
class Ran:
    """What a command came to."""

    exit_code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run one command in this process."""

    def run_command(*arguments: str | Path) -> Ran:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run_command


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put a module with the given names in the place of one of steepest's."""

    def put(module: str, **names: Any) -> None:
        stand_in = ModuleType(module)
        vars(stand_in).update(names)
        monkeypatch.setitem(sys.modules, module, stand_in)

    return put


def cell(**changes: Any) -> dict[str, Any]:
    """A cell of a verdict."""
    return {
        "loss": "mse",
        "optimizer": "adam",
        "batch_size": 32,
        "lr": 0.001,
        "score": 53.5,
        "interval": [52.25, 54.75],
        "num_seeds": 10,
        "tuned": True,
        "kind": "tuned",
        "barred": None,
    } | changes


def verdict_of(*cells: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A verdict in which the first cell wins."""
    return {
        "format": 1,
        "status": "complete",
        "sentence": "Use mae with adam.",
        "task": "regression",
        "metric": "rmse",
        "metric_title": "RMSE",
        "greater_is_better": False,
        "winners": [cells[0]],
        "cells": list(cells),
        "notes": [],
    } | changes


@dataclass
class FakeCompare:
    """``compare``, without the comparing."""

    verdict: dict[str, Any] = field(default_factory=lambda: verdict_of(cell()))
    interrupted: bool = False
    model: object | None = "a model"
    error: BaseException | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, **options: Any) -> SimpleNamespace:
        self.calls.append(options)
        if self.error is not None:
            raise self.error
        return SimpleNamespace(verdict=self.verdict, interrupted=self.interrupted, model=self.model)


@pytest.fixture
def compare(fake: Fake) -> FakeCompare:
    """The fake that ``steepest compare`` calls."""
    stand_in = FakeCompare()
    fake("steepest.comparison.compare", compare=stand_in)
    return stand_in
