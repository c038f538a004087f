"""The one error a user's input can cause.

Every message is a full sentence: what was found, what was expected, what would do.
The command line prints it and exits with 2; nothing else is printed and nothing is left half-written.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "near_names", "told"]


class InputError(ValueError):
    """The user's input is wrong: a file, a column, an option or a shape."""


def near_names(word: str, known: Iterable[str]) -> str:
    """The end of a sentence: ``"; did you mean 'adam' or 'adamw'?"``, or what is known when nothing is near."""
    choices = [str(name) for name in known]
    by_lower = {name.lower(): name for name in reversed(choices)}
    near = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.6)
    near += [
        name for name in by_lower if len(word) > 1 and name.startswith(word.lower()) and name not in near
    ][:2]
    if near:
        return "; did you mean " + " or ".join(repr(by_lower[name]) for name in near) + "?"
    return "; choose from " + ", ".join(choices[:20]) + ("." if len(choices) <= 20 else ", ...")


def told(error: BaseException, most: int = 300) -> str:
    """The end of a sentence: an error of the user's own code, its class and its words on one line."""
    words = " ".join(str(error).split())
    words = f"{words[:most]}..." if len(words) > most else words.rstrip(".")
    return f"{type(error).__name__}: {words}." if words else f"{type(error).__name__}."
