"""How a class made from a user's function is called, and where it is from."""

from __future__ import annotations

__all__ = ["class_name", "users_module"]


def class_name(word: str) -> str:
    """A word, or several with underscores or hyphens between, as a class is called; capitals stay.

    >>> class_name("heavy_ball"), class_name("my-WelschLoss")
    ('HeavyBall', 'MyWelschLoss')
    """
    return "".join(part[:1].upper() + part[1:] for part in word.replace("-", "_").split("_"))


def users_module(cls: type) -> str | None:
    """The module of a loss or an optimizer of the user's own; None of one of ours."""
    return None if cls.__module__.startswith("steepest.") else cls.__module__
