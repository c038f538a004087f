"""Numbers and names as a reader wants them: rounded, with separators, in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from steepest.report.language import current, say, translated

Cell = Mapping[str, Any]

TASKS = {
    "regression": "regression",
    "binary": "two classes",
    "multiclass": "several classes",
    "own": "a training of your own",
}
_WORDS = {
    "rmse": "RMSE",
    "mae": "MAE",
    "ece": "ECE",
    "lr": "learning rate",
    "sha256": "SHA-256",
    "sec": "seconds",
    "num": "number of",
}
_LEAST_PLAIN = 1e-5  # has four digits in eight decimals
# Entries of a plan whose names say too little to one who has not read the code.
_ENTRIES = {
    "asked_task": "task asked for",
    "confirm_neighbours": "neighbouring rates confirmed",
    "num_configurations": "settings of other options tried",
    "num_train_rows": "training rows",
    "rungs": "pruned at these shares of the epochs",
    "test": "share of test rows",
    "validation": "share of validation rows",
}


def finite(value: Any) -> float | None:
    """``value`` as a float, or None where it is missing, NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def humanise(name: str) -> str:
    """``"tuning_seeds"`` as ``"tuning seeds"``."""
    if name in _ENTRIES:
        return translated(_ENTRIES[name])
    return translated(" ".join(_WORDS.get(word, word) for word in name.split("_") if word))


def capital(text: str) -> str:
    """``"log loss"`` as ``"Log loss"``."""
    return text[:1].upper() + text[1:]


def plural(number: int, noun: str) -> str:
    """``"1 run"``, ``"1,584 runs"``."""
    if current() == "en" and number == 1:
        return f"1 {noun}"
    return say(f"{{number}} {noun}s", number=f"{number:,}")


def significant(value: Any, digits: int = 3) -> str:
    """A number to so many significant digits, plainly written where it is neither tiny nor huge."""
    number = finite(value)
    if number is None:
        return "–"
    if number == 0:
        return "0"
    if number < 0:
        return "−" + significant(-number, digits)
    exponent = math.floor(math.log10(number))
    if -5 <= exponent < 7:
        rounded = round(number, digits - 1 - exponent)
        text = f"{rounded:,.{max(0, digits - 1 - exponent)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, power = f"{number:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"


def duration(seconds: Any) -> str:
    """``"8.2 s"``, ``"2 min 10 s"``, ``"3 h 5 min"``."""
    number = finite(seconds)
    if number is None:
        return "–"
    if number < 60:
        return say("{seconds} s", seconds=significant(number, 2))
    whole = round(number)
    if whole < 3600:
        return say("{minutes} min {seconds} s", minutes=whole // 60, seconds=whole % 60)
    return say("{hours} h {minutes} min", hours=f"{whole // 3600:,}", minutes=whole % 3600 // 60)


def score_format(scores: Iterable[Any]) -> Callable[[Any], str]:
    """One way to write all scores: as many decimals as give the smallest of them four digits, up to eight.

    Where that is not enough, what eight decimals would cut has an exponent, as what is huge has.
    """
    least = min((abs(score) for score in map(finite, scores) if score), default=1.0)
    decimals = min(8, max(0, 3 - math.floor(math.log10(least))))

    def written(score: Any) -> str:
        number = finite(score)
        if number is None:
            return "–"
        if abs(number) >= 1e6 or (least < _LEAST_PLAIN and 0 < abs(number) < _LEAST_PLAIN):
            return significant(number, 4)
        return f"{number:,.{decimals}f}".replace("-", "−")

    return written


def between(ends: Sequence[Any] | None, written: Callable[[Any], str]) -> str:
    """``"2.281 to 2.347"``, or nothing where an end is missing."""
    if not ends or any(finite(end) is None for end in ends):
        return ""
    low, high = ends
    return say("{low} to {high}", low=written(low), high=written(high))


def fact(value: Any) -> str:
    """Any value of a plan, a diagnosis or a version list as short text."""
    if value is None:
        return say("none")
    if isinstance(value, bool):
        return say("yes") if value else say("no")
    if isinstance(value, float):
        return significant(value, 4)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, (list, tuple)):
        return _listed(list(value))
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {fact(own)}" for name, own in value.items()) or say("none")
    return str(value)


def _listed(values: list[Any]) -> str:
    if not values:
        return say("none")
    if len(values) > 6 and all(finite(value) is not None for value in values):
        ends = {"low": fact(min(values)), "high": fact(max(values))}
        return say("{number} values from {low} to {high}", number=f"{len(values):,}", **ends)
    if (
        len(values) == 3 and isinstance(values[2], str) and finite(values[0]) is not None
    ):  # a range, and its scale
        return f"{between(values[:2], fact)}, {values[2].replace('_', ' ')}"
    is_nested = any(isinstance(value, (list, tuple, Mapping)) for value in values)
    if len(values) > 30 or (is_nested and len(values) > 1):
        return say("{number} entries", number=f"{len(values):,}")
    return ", ".join(fact(value) for value in values)
