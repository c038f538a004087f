"""The report's language. Texts stand in English where they are used; a catalogue gives them in another one.

``zh.toml`` is the one place of the Chinese texts. Its ``[page]`` holds those of the report itself. ``[records]`` holds
the sentences a comparison writes into its records: they are recognised by their words, and what stood in a place of
``{braces}`` is put into the translation, itself translated where it is known.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from typing import Any

from steepest.errors import InputError, near_names

__all__ = [
    "HTML_CODES",
    "LANGUAGES",
    "catalogue",
    "closed",
    "current",
    "recorded",
    "say",
    "speaking",
    "translated",
]

HTML_CODES = {"en": "en", "zh": "zh-CN"}
LANGUAGES = tuple(HTML_CODES)

_current: ContextVar[str] = ContextVar("language", default="en")
_PLACE = re.compile(r"\{(\w+)\}")
_FIGURES = {"score", "low", "high", "share", "rate"}  # places that hold no blank
_BETWEEN = re.compile(r"(?<=[\u4e00-\u9fff]) (?=[\u4e00-\u9fff])")


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Everything inside is said in this language.

    Raises:
        InputError: the report does not speak it.
    """
    if language not in LANGUAGES:
        raise InputError(f"The report has no language {language!r}{near_names(language, LANGUAGES)}")
    token = _current.set(language)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> str:
    """The language spoken now, ``"en"`` or ``"zh"``."""
    return _current.get()


def translated(text: str) -> str:
    """One of the page's texts, its places in braces as they are; a text that no catalogue has stays English."""
    return text if current() == "en" else catalogue(current())["page"].get(text, text)


def say(text: str, **values: Any) -> str:
    """One of the page's texts with its places filled."""
    return closed(translated(text).format(**values))


def closed(text: str) -> str:
    """A filled text without the blanks that stand between two Chinese characters where a word was translated."""
    return text if current() == "en" else _BETWEEN.sub("", text)


def recorded(text: str) -> str:
    """A sentence or a word out of the records; one that is not known stays as it is."""
    return text if current() == "en" else closed(_recognised(current(), text))


@cache
def catalogue(language: str) -> dict[str, dict[str, str]]:
    """The texts of a language other than English, by their English: ``"page"`` and ``"records"``."""
    text = files("steepest.report").joinpath(f"{language}.toml").read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = tomllib.loads(text)
    return found


@cache
def _patterns(language: str) -> list[tuple[re.Pattern[str], str]]:
    """The recorded sentences that have places, those with the most words of their own first."""
    known = catalogue(language)["records"]
    with_places = [text for text in known if _PLACE.search(text)]
    with_places.sort(key=lambda text: -len(_PLACE.sub("", text)))
    return [(re.compile(_as_pattern(text), re.DOTALL), known[text]) for text in with_places]


def _as_pattern(text: str) -> str:
    parts = _PLACE.split(text)  # words, name, words, name, ..., words
    wide = {name: r"\S+?" if name in _FIGURES else ".+?" for name in parts[1::2]}
    places = [
        f"(?P<{part}>{wide[part]})" if index % 2 else re.escape(part) for index, part in enumerate(parts)
    ]
    return "".join(places)


def _recognised(language: str, text: str) -> str:
    known = catalogue(language)["records"].get(text)
    if known is not None:
        return known
    for pattern, translation in _patterns(language):
        found = pattern.fullmatch(text)
        if found is not None:
            # What stands in a place is shorter than the text, so this comes to an end.
            return translation.format(
                **{name: _recognised(language, part) for name, part in found.groupdict().items()}
            )
    return text
