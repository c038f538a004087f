"""What a person types, as the values the library takes. Each refusal names the option and what would do."""

from __future__ import annotations

import csv
import math
from typing import Literal

from steepest.errors import InputError

__all__ = ["batch_size", "batch_sizes", "hidden", "learning_rate", "names", "options"]


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_count(word: str) -> bool:
    """A whole number from 1, of no more digits than any count has."""
    return word.isdecimal() and len(word) <= 18 and int(word) >= 1


def names(text: str, option: str) -> tuple[str, ...]:
    """``"mse,mae"`` as ``("mse", "mae")``; a name with a comma stands in double quotes, as in a CSV file."""
    try:
        cells = next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error:  # a line break, say
        cells = text.split(",")
    found = tuple(cell.strip() for cell in cells if cell.strip())
    if not found:
        raise InputError(f"{option} is empty: give one name or more, with commas between them.")
    return found


def batch_size(text: str, option: str = "--batch-size") -> int | Literal["full"]:
    """``"full"``, or a whole number of rows from 1."""
    word = text.strip()
    if word.lower() == "full":
        return "full"
    if not _is_count(word):
        raise InputError(
            f"{option} has {text!r}: give 'full' (all rows in one step), or a whole number of rows from 1."
        )
    return int(word)


def batch_sizes(text: str, option: str = "--batch-sizes") -> tuple[int | Literal["full"], ...]:
    """``"full,1,32"`` as ``("full", 1, 32)``."""
    return tuple(batch_size(part, option) for part in names(text, option))


def hidden(text: str, option: str = "--hidden") -> tuple[int, ...]:
    """``"64,64"`` as ``(64, 64)``; ``"none"`` (a linear model) as ``()``."""
    if text.strip().lower() in {"", "none"}:
        return ()
    widths = _parts(text)
    for width in widths:
        if not _is_count(width):
            raise InputError(
                f"{option} has {width!r}: give the widths of the hidden layers, such as 64,64, "
                "or none for a linear model."
            )
    return tuple(int(width) for width in widths)


def options(text: str, option: str) -> dict[str, float]:
    """``"delta=1.5,momentum=0.9"`` as ``{"delta": 1.5, "momentum": 0.9}``."""
    found = {}
    for part in names(text, option):
        name, _, value = (word.strip() for word in part.partition("="))
        if name in found:
            raise InputError(f"{option} has {name!r} twice; give each name once.")
        try:
            found[name] = float(value)
        except ValueError:
            raise InputError(
                f"{option} has {part!r}: give names and numbers, such as delta=1.5, with commas between them."
            ) from None
    return found


def learning_rate(text: str, option: str = "--lr") -> float | Literal["auto"]:
    """``"auto"``, or a number above 0."""
    if text.strip().lower() == "auto":
        return "auto"
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise InputError(f"{option} is {text}: give a number above 0, such as 0.01, or auto.")
    return rate
