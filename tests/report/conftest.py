"""Each sample's page, built once a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from steepest.report import build

from . import sample


@pytest.fixture(scope="session")
def pages() -> Callable[[str], str]:
    """The page of a sample by its name."""

    @cache
    def page(name: str) -> str:
        return build(*sample.ALL[name]())

    return page
