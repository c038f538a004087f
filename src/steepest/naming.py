"""How a class made from a user's function is called."""

from __future__ import annotations

__all__ = ["class_name"]


def class_name(word: str) -> str:
    """A word, or several with underscores or hyphens between, as a class is called; capitals stay.

    >>> class_name("heavy_ball"), class_name("my-WelschLoss")
    ('HeavyBall', 'MyWelschLoss')
    """
    return "".join(part[:1].upper() + part[1:] for part in word.replace("-", "_").split("_"))
