"""A formula's text set as mathematics: letters slanted, indices lowered, exponents raised."""

from __future__ import annotations

import re
from html import escape

__all__ = ["set_formula", "set_lines"]

# A Latin letter by itself, with its hat if it has one, that is no article; a Greek one anywhere.
_LETTER = r"(?<![A-Za-z'])(?!a [A-Za-zα-ω])[A-Za-z]\u0302?(?![A-Za-z0-9\u0302])|[α-ω]"


def set_formula(text: str) -> str:
    """HTML for a formula as it is written in the library.

    >>> set_formula("2 (p - y)^q")
    '2 (<var>p</var> − <var>y</var>)<sup><var>q</var></sup>'
    """
    text = escape(text, quote=False)
    text = re.sub(r"(?<![A-Za-z])-(?![a-z]{2})|(?<= )-(?= )", "−", text)  # a hyphen stays
    text = re.sub(
        r"\^(?:\(([^()]*)\)|\{([^{}]*)\}|(\w+))", lambda m: f"<sup>{m[1] or m[2] or m[3]}</sup>", text
    )
    text = re.sub(r"_(?:\{([^{}]*)\}|(\w)(?!\w))", lambda m: f"<sub>{m[1] or m[2]}</sub>", text)
    parts = re.split(r"(<[^>]*>|&\w+;)", text)  # what is markup already stays as it is
    return "".join(
        part if i % 2 else re.sub(_LETTER, r"<var>\g<0></var>", part) for i, part in enumerate(parts)
    )


def set_lines(text: str) -> tuple[list[str], str]:
    """The statements of an update, one a line, and the note that explains its letters."""
    body, _, note = text.partition("   (")
    lines = [set_formula(line.strip()) for line in re.split(r";\s+", body)]
    return lines, set_formula(note.removesuffix(")"))
