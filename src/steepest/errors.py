"""The one error a user's input can cause.

Every message is a full sentence: what was found, what was expected, what would do.
The command line prints it and exits with 2; nothing else is printed and nothing is left half-written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["MALFORMED", "InputError", "arguments_of", "inert", "near_directories", "near_names", "told"]


# What a terminal obeys in place of showing it: control characters, and those that turn the direction of writing.
_RANGES = ((0, 9), (11, 32), (127, 160), (0x61C, 0x61D), (0x200E, 0x2010), (0x2028, 0x202F), (0x2066, 0x206A))
_OBEYED = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for first, beyond in _RANGES
    for code in range(first, beyond)
}

# What reading raises where entries are missing or of the wrong kind. InputError, a ValueError, is among them.
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class InputError(ValueError):
    """The user's input is wrong: a file, a column, an option or a shape."""


def inert(text: str) -> str:
    """The text with what a terminal would obey written out (``\\x1b``), new lines and tabs apart."""
    return text.translate(_OBEYED)


def arguments_of(made: Callable[..., object]) -> tuple[str, ...]:
    """The names that a class or function takes, for :func:`near_names`."""
    import inspect  # only where something is wrong: a command is loading while this module does

    parameters = inspect.signature(made).parameters.values()
    return tuple(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))


def near_names(word: object, known: Iterable[str]) -> str:
    """The end of a sentence: ``"; did you mean 'adam' or 'adamw'?"``, or what is known when nothing is near; a full
    stop when nothing is known.

    Args:
        word: what came in place of a name that is known; a class in place of its name is looked for by its own.
        known: the names.
    """
    import difflib

    given = (word if isinstance(word, str) else str(getattr(word, "__name__", ""))).lower()
    choices = [str(name) for name in known]
    by_lower = {name.lower(): name for name in reversed(choices)}
    if given in by_lower:  # its case alone is another: nobody means a third
        return f"; did you mean {by_lower[given]!r}?"
    near = difflib.get_close_matches(given, by_lower, n=3, cutoff=0.6)
    near += [name for name in by_lower if len(given) > 1 and name.startswith(given) and name not in near][:2]
    if near:
        return "; did you mean " + " or ".join(repr(by_lower[name]) for name in near) + "?"
    if not choices:
        return "."
    return "; choose from " + ", ".join(choices[:20]) + ("." if len(choices) <= 20 else ", ...")


def near_directories(path: Path) -> str:
    """The same for a directory that is not there, from those beside it; a full stop when none is near."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: no path at all
        if not path.exists():
            near = near_names(path.name, [entry.name for entry in path.parent.iterdir() if entry.is_dir()])
            if near.endswith("?"):
                return near
    return "."


def told(error: BaseException, most: int = 300) -> str:
    """The end of a sentence: an error of the user's own code, its class and its words on one line."""
    words = " ".join(str(error).split())
    words = f"{words[:most]}..." if len(words) > most else words.rstrip(".")
    return f"{type(error).__name__}: {words}." if words else f"{type(error).__name__}."
