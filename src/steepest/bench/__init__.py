"""Measurements against what a person would use instead, side by side in one run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from steepest.errors import InputError, near_names

if TYPE_CHECKING:
    from steepest.bench.work import Work

__all__ = ["SUITES", "run"]

SUITES = ("losses", "optimizers", "training", "compare")  # each a file of works


def run(
    name: str = "training",
    *,
    quick: bool = False,
    device: str = "cpu",
    only: str = "",
    on_work: Callable[[int, int, str], None] | None = None,
    on_rows: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Measure a part of the library, or all of it.

    On a GPU a work that fails does not end the others: its rows have no figures, and a note that says why.

    Args:
        name: ``"losses"``, ``"optimizers"``, ``"training"``, ``"compare"`` or ``"all"``.
        quick: tiny sizes and two rounds, to see that everything runs; the times mean nothing.
        device: ``"cpu"``, or ``"cuda"``, a GPU of NVIDIA's or AMD's, for losses, optimizers and training.
        only: the works with this in their name, in capitals or not; of the empty text, all.
        on_work: told the number of works done, of all of them, and the name of the one that begins.
        on_rows: told the result so far, after each work.

    Returns:
        ``{"machine": {...}, "measured": date, "quick": bool, "rows": [...]}``; a row as
        :func:`steepest.bench.measure.measure` says, and its ``suite``.

    Raises:
        InputError: an unknown name or device, no GPU where one was asked for, or no work of the name asked for.
    """
    if name not in (*SUITES, "all"):
        raise InputError(f"There is no benchmark {name!r}{near_names(name, (*SUITES, 'all'))}")

    from importlib import import_module

    from steepest.bench.measure import failure, machine, measure, without_figures

    if device not in ("cpu", "cuda"):
        raise InputError(f"There is no device {device!r} to measure on; it is cpu or cuda.")
    chosen = SUITES if name == "all" else (name,)
    about = machine()
    if device == "cuda":
        from steepest.bench import gpu

        gpu.check_device(chosen)
        from steepest.bench.gpu.device import about_the_card, let_go

        about |= about_the_card()
        works = [(suite, work) for suite in chosen for work in gpu.works(suite, quick)]
    else:
        works = [
            (suite, work)
            for suite in chosen
            for work in import_module(f"steepest.bench.{suite}").works(quick)
        ]
    works = _chosen(works, only)
    date = datetime.now(UTC).date().isoformat()
    result: dict[str, Any] = {"machine": about, "measured": date, "quick": quick, "rows": []}
    for done, (suite, work) in enumerate(works):
        if on_work is not None:
            on_work(done, len(works), work.name)
        try:
            rows = measure(work, quick=quick)
        except Exception as error:
            if device == "cpu":
                raise
            rows = without_figures(work, failure(error))
        if device == "cuda":
            let_go()
        result["rows"] += [{"suite": suite, **row} for row in rows]
        if on_rows is not None:
            on_rows(result)
    return result


def _chosen(works: list[tuple[str, Work]], only: str) -> list[tuple[str, Work]]:
    chosen = [(suite, work) for suite, work in works if only.casefold() in work.name.casefold()]
    if not chosen:
        names = "; ".join(work.name for _, work in works)
        raise InputError(f"No work has {only!r} in its name; there are: {names}.")
    return chosen
