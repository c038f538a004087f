"""Contestants timed in turns, so that a noisy machine is noisy to all of them; rows out of the samples."""

from __future__ import annotations

import gc
import math
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from steepest.bench.work import OURS, Bar, Contestant, Field, Limit, Missing, Ratio, Share, Within, Work

__all__ = ["ROUNDS", "failure", "machine", "measure", "without_figures"]

ROUNDS = 9
_LEAST_SEC = 0.02  # a shorter call is made several times a sample: the clock and the cache are not the work
_LIMIT = "the limit"

Samples = Mapping[str, Mapping[str, Sequence[float]]]  # contestant -> quantity -> values


class Taken(NamedTuple):
    """What the rounds gave."""

    samples: Samples
    absent: Mapping[str, str]  # why a contestant has none
    untold: Mapping[str, str]  # why one has no facts


def measure(work: Work, *, quick: bool = False) -> list[dict[str, Any]]:
    """The rows of a work, one a bar.

    One untimed round, then the timed ones with the contestants in turns; the median counts, its spread is given
    as the quartiles. What holds all of them (the memory's or the processor's speed) is measured in the same turns.

    Args:
        work: what to measure.
        quick: two rounds, for trying the works out; the times mean nothing.

    Returns:
        Each row has ``work``, ``peer`` and its ``version``, ``quantity`` (``time`` in seconds, or bytes), ``ours``
        and ``theirs`` (medians) with their ``_quartiles``, ``ratio`` (theirs / ours), ``bar`` (the ``bar_kind``
        says of what: ``ratio``, ``share`` of the limit, ``seconds``, ``bytes``) and whether it was ``reached``,
        ``limit`` with its ``limit_rate`` (bytes or operations a second) and ``share_of_limit``, ``rounds`` and a
        ``note``.
        What could not be measured is None.
    """
    rounds = min(2, work.rounds or 2) if quick else work.rounds or ROUNDS
    with _threads(work.num_threads):
        field = dict(work.build())
        if work.limit is not None:
            field[_LIMIT] = _limit(work.limit, quick)
        taken = _in_turns(field, rounds, work.warm_up, quick)
    rows = [_row(work, bar, field, taken, rounds) for bar in work.bars]
    field.clear()
    gc.collect()
    return rows


def without_figures(work: Work, reason: str) -> list[dict[str, Any]]:
    """The rows of a work that could not be measured."""
    taken = Taken({}, {OURS: reason}, {})
    return [_row(work, bar, {OURS: Missing(reason)}, taken, work.rounds or ROUNDS) for bar in work.bars]


# --- taking samples ----------------------------------------------------------------------------------------------


def _in_turns(field: Field, rounds: int, warm_up: bool, quick: bool) -> Taken:
    """Samples of every contestant, and why those without have none; a peer that fails leaves the field."""
    absent = {name: one.reason for name, one in field.items() if isinstance(one, Missing)}
    taking_part = {name: one for name, one in field.items() if isinstance(one, Contestant)}
    samples: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    untold: dict[str, str] = {}
    calls = dict.fromkeys(taking_part, 1)

    def each(act: Callable[[str, Contestant], None]) -> None:
        for name, contestant in list(taking_part.items()):
            try:
                act(name, contestant)
            except Exception as error:
                if name in (OURS, _LIMIT):
                    raise
                absent[name] = failure(error)
                del taking_part[name]
                samples.pop(name, None)

    def warm(name: str, contestant: Contestant) -> None:
        _sample(contestant, 1)
        if not quick and contestant.before is None:
            seconds = _sample(contestant, 1).get("time", _LEAST_SEC) * contestant.units
            calls[name] = max(1, math.ceil(_LEAST_SEC / max(seconds, 1e-9)))

    def take(name: str, contestant: Contestant) -> None:
        for quantity, value in _sample(contestant, calls[name]).items():
            samples[name][quantity].append(value)

    def ask(name: str, contestant: Contestant) -> None:
        try:
            for quantity, value in contestant.facts().items():
                samples[name][quantity] = [value]
        except Exception as error:  # what was timed stands
            untold[name] = failure(error)

    if warm_up:
        each(warm)
    for _ in range(rounds):
        each(take)
    each(ask)
    return Taken(samples, absent, untold)


def failure(error: Exception) -> str:
    """An exception in a line of a row's note."""
    text = (str(error).strip() or "no message").splitlines()[0][:160]
    return f"failed: {type(error).__name__}: {text}"


def _sample(contestant: Contestant, calls: int) -> Mapping[str, float]:
    if contestant.before is not None:
        contestant.before()
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(calls):
            found = contestant.call()
        seconds = time.perf_counter() - start
    finally:
        if collecting:
            gc.enable()
    return {"time": seconds / (calls * contestant.units)} if found is None else found


def _limit(limit: Limit, quick: bool) -> Contestant:
    """The limit as a contestant: a unit is a byte moved, or a floating-point operation."""
    import torch

    if limit.by is not None:
        return limit.by(quick)
    if limit.kind == "memory bandwidth":
        buffer = torch.zeros(1_000_000 if quick else 20_000_000)
        return Contestant(lambda: _nothing(buffer.add_(1.0)), units=2.0 * buffer.nbytes)
    size = 128 if quick else 1024
    a, b, product = (torch.ones(size, size) for _ in range(3))
    return Contestant(lambda: _nothing(torch.mm(a, b, out=product)), units=2.0 * size**3)


def _nothing(_: object) -> None:
    """Let a value go."""


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    if number is None:
        yield
        return
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with threadpool_limits(limits=number):
            yield
    finally:
        torch.set_num_threads(before)


# --- rows --------------------------------------------------------------------------------------------------------


def _row(work: Work, bar: Bar, field: Field, taken: Taken, rounds: int) -> dict[str, Any]:
    samples = taken.samples
    quantity = "time" if isinstance(bar, Share) else bar.quantity
    ours = samples.get(OURS, {}).get(quantity)
    peer = _peer(work, bar, quantity, samples)
    theirs = samples[peer].get(quantity) if isinstance(bar, Ratio) and peer in samples else None
    rate = 1.0 / statistics.median(samples[_LIMIT]["time"]) if _LIMIT in samples else None
    row: dict[str, Any] = {
        "work": work.name,
        "peer": peer,
        "version": _version(field.get(peer)),
        "quantity": quantity,
        **_summary("ours", ours),
        **_summary("theirs", theirs),
        "ratio": statistics.median(theirs) / statistics.median(ours) if ours and theirs else None,
        "bar": None,
        "bar_kind": "ratio",
        "reached": None,
        "limit": None if work.limit is None else work.limit.kind,
        "limit_rate": rate,
        "share_of_limit": None,
        "num_threads": _num_threads(work),
        "rounds": rounds,
    }
    if ours and rate is not None and work.limit is not None and quantity == "time":
        row["share_of_limit"] = work.limit.amount / statistics.median(ours) / rate
    if isinstance(bar, Within):
        row["bar"], row["bar_kind"] = bar.at_most, "seconds" if quantity == "time" else "bytes"
        row["reached"] = None if row["ours"] is None else row["ours"] <= bar.at_most
    else:
        if isinstance(bar, Share):
            row["bar_kind"] = "share"
        row["bar"], found = bar.at_least, row["share_of_limit" if isinstance(bar, Share) else "ratio"]
        row["reached"] = None if found is None or bar.at_least is None else found >= bar.at_least
    row["note"] = "; ".join(_notes(bar, quantity, peer, field, taken))
    return row


def _peer(work: Work, bar: Bar, quantity: str, samples: Samples) -> str:
    """The best of the bar's peers that is there; else the first; of the other bars, what they are held to."""
    if isinstance(bar, Within):
        return "a time of its own" if quantity == "time" else "a size of its own"
    if isinstance(bar, Share):
        return "the limit" if work.limit is None else f"{work.limit.kind}, measured"
    there = [name for name in bar.peers if quantity in samples.get(name, {})]
    if not there:
        return " or ".join(bar.peers)
    return min(there, key=lambda name: statistics.median(samples[name][quantity]))


def _notes(bar: Bar, quantity: str, peer: str, field: Field, taken: Taken) -> Iterator[str]:
    absent = dict(taken.absent) if quantity == "time" else {**taken.untold, **taken.absent}
    if OURS in absent:
        yield absent[OURS]
    elif isinstance(ours := field[OURS], Contestant) and ours.note:
        yield ours.note
    if not isinstance(bar, Ratio):
        return
    if isinstance(chosen := field.get(peer), Contestant) and chosen.note:
        yield chosen.note
    measured = [name for name in bar.peers if name in field and name not in absent]
    if len(measured) > 1:
        yield f"best of {', '.join(measured)}"
    gone = {name: absent[name] for name in bar.peers if name in absent}
    if not measured:
        yield from dict.fromkeys(gone.values())


def _summary(name: str, values: Sequence[float] | None) -> dict[str, Any]:
    if not values:
        return {name: None, f"{name}_quartiles": None}
    low = high = values[0]
    if len(values) > 1:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return {name: statistics.median(values), f"{name}_quartiles": [low, high]}


def _version(contestant: Contestant | Missing | None) -> str:
    return contestant.version if isinstance(contestant, Contestant) else ""


def _num_threads(work: Work) -> int:
    import torch

    return work.num_threads or torch.get_num_threads()


# --- the machine -------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import numba
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,  # before the first row
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
