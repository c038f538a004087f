"""Rows as a person reads them: one a line, in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["HEAD", "cells", "markdown", "verdict"]

HEAD = ("work", "peer", "steepest", "peer's", "ratio", "bar", "", "of the limit")


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row's entries under :data:`HEAD`; ± is half the distance between the quartiles."""
    work, peer = row["work"], f"{row['peer']} {row['version']}".rstrip()
    if row["quantity"] != "time":
        work = f"{work}: {row['quantity']}"
    share = row["share_of_limit"]
    return (
        work,
        peer,
        _measured(row, "ours"),
        _measured(row, "theirs"),
        "-" if row["ratio"] is None else f"{row['ratio']:.3g}",
        _bar(row),
        verdict(row),
        "-" if share is None else f"{100 * share:.2g}% of {_rate(row)}",
    )


def verdict(row: Mapping[str, Any]) -> str:
    """``reached`` or ``missed``; ``slower`` (or ``larger``) where the peer is ahead; else why there is nothing."""
    if row["ratio"] is not None and row["ratio"] < 1.0:
        return "slower" if row["quantity"] == "time" else "larger"
    if row["reached"] is not None:
        return "reached" if row["reached"] else "missed"
    there = row["ratio"] is not None or (row["bar_kind"] == "share" and row["share_of_limit"] is not None)
    return "" if there else "not measured"


def markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as a table, notes in a last column."""
    head = (*HEAD, "note")
    lines = [_line(head), _line(["---"] * len(head))]
    lines += [_line([*cells(row), row["note"]]) for row in rows]
    return "\n".join(lines)


def _line(entries: Sequence[str]) -> str:
    return f"| {' | '.join(entry.replace('|', '/') for entry in entries)} |"


def _measured(row: Mapping[str, Any], whose: str) -> str:
    median, quartiles = row[whose], row[f"{whose}_quartiles"]
    if median is None:
        return "-"
    shown = _amount(median, _TIMES if row["quantity"] == "time" else _BYTES)
    low, high = quartiles
    return f"{shown} ±{50 * (high - low) / median:.2g}%" if high > low else shown


_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))


def _amount(value: float, units: Sequence[tuple[float, str]]) -> str:
    scale, unit = next((unit for unit in units if value >= unit[0]), units[-1])
    return f"{value / scale:.3g} {unit}"


def _bar(row: Mapping[str, Any]) -> str:
    if row["bar"] is None:
        return "-"
    return {
        "ratio": f"{row['bar']:g}",
        "share": f"{row['bar']:.0%} of the limit",
        "seconds": f"{row['bar']:g} s",
        "bytes": _amount(row["bar"], _BYTES),
    }[row["bar_kind"]]


def _rate(row: Mapping[str, Any]) -> str:
    unit = "GB/s" if row["limit"].endswith("bandwidth") else "GFLOP/s"
    return f"{row['limit_rate'] / 1e9:.3g} {unit}"
