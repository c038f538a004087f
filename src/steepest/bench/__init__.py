"""Measurements against what a person would use instead, side by side in one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steepest.errors import InputError, near_names

__all__ = ["run"]


def run(name: str = "training") -> dict[str, Any]:
    """Measure a part of the library.

    Args:
        name: ``"training"``.

    Returns:
        ``{"machine": {...}, "rows": [...]}``; each row names the work, the peer and its version, both
        medians with their spread in microseconds, and the ratio (above 1: steepest is faster).

    Raises:
        InputError: an unknown name.
    """
    from steepest.bench import training
    from steepest.bench.measure import machine

    suites: dict[str, Callable[[], list[dict[str, Any]]]] = {"training": training.rows}
    if name not in suites:
        raise InputError(f"There is no benchmark {name!r}{near_names(name, suites)}")
    return {"machine": machine(), "rows": suites[name]()}
