"""Measurements against what a person would use instead, side by side in one run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from steepest.errors import InputError, near_names

__all__ = ["SUITES", "run"]

SUITES = ("losses", "optimizers", "training", "compare")  # each a file of works


def run(
    name: str = "training",
    *,
    quick: bool = False,
    device: str = "cpu",
    on_work: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Measure a part of the library, or all of it.

    Args:
        name: ``"losses"``, ``"optimizers"``, ``"training"``, ``"compare"`` or ``"all"``.
        quick: tiny sizes and two rounds, to see that everything runs; the times mean nothing.
        device: ``"cpu"``, or ``"cuda"``, a GPU of NVIDIA's or AMD's, for losses, optimizers and training.
        on_work: told the number of works done, of all of them, and the name of the one that begins.

    Returns:
        ``{"machine": {...}, "measured": date, "quick": bool, "rows": [...]}``; a row as
        :func:`steepest.bench.measure.measure` says, and its ``suite``.

    Raises:
        InputError: an unknown name or device, or no GPU where one was asked for.
    """
    if name not in (*SUITES, "all"):
        raise InputError(f"There is no benchmark {name!r}{near_names(name, (*SUITES, 'all'))}")

    from importlib import import_module

    from steepest.bench.measure import machine, measure

    if device not in ("cpu", "cuda"):
        raise InputError(f"There is no device {device!r} to measure on; it is cpu or cuda.")
    chosen = SUITES if name == "all" else (name,)
    about = machine()
    if device == "cuda":
        from steepest.bench import gpu

        gpu.check_device(chosen)
        about |= gpu.about_the_card()
        works = [(suite, work) for suite in chosen for work in gpu.works(suite, quick)]
    else:
        works = [
            (suite, work)
            for suite in chosen
            for work in import_module(f"steepest.bench.{suite}").works(quick)
        ]
    rows: list[dict[str, Any]] = []
    for done, (suite, work) in enumerate(works):
        if on_work is not None:
            on_work(done, len(works), work.name)
        rows += [{"suite": suite, **row} for row in measure(work, quick=quick)]
    date = datetime.now(UTC).date().isoformat()
    return {"machine": about, "measured": date, "quick": quick, "rows": rows}
