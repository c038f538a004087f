"""What every test shares: the same surroundings on every machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

# One thread for torch, set before it is imported: on small tensors more of them only wait for each other, the more
# so where tests run side by side. Tests about threads ask for their own number.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No colours, no terminal width and no display settings from the person who runs the tests."""
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What a test registers is gone after it: tests run in any order, in any process."""
    from steepest.losses import LOSSES
    from steepest.optim import OPTIMIZERS
    from steepest.training.metrics import METRICS

    before = [(registry, dict(registry)) for registry in (LOSSES, OPTIMIZERS, METRICS)]
    yield
    for registry, entries in before:
        if dict(registry) != entries:
            registry.clear()
            registry.update(entries)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without what it would ask of the network by itself."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright, of the extra dev, drives the browser, and is not installed"
    )
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("pages are tried in chromium, and the system has none")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, headless=True, args=flags)
        yield running
        running.close()
