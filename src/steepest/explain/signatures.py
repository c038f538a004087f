"""What a class takes, read from the class itself, so that no page repeats a default."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from steepest.naming import users_module

__all__ = ["importing", "settings", "torch_class"]


def settings(
    cls: Any, *, leave_out: Collection[str] = (), given: Mapping[str, Any] | None = None
) -> list[str]:
    """``name=default`` for every argument that has one, with the other choices where they are few.

    Args:
        cls: a class.
        leave_out: names not to speak of.
        given: values that stand in the place of the signature's.
    """
    values = {
        name: parameter.default
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is not parameter.empty and name not in leave_out
    } | dict(given or {})
    return [f"{name}={_plain(value)}{_others(cls, name, value)}" for name, value in values.items()]


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _others(cls: Any, name: str, value: Any) -> str:
    if not isinstance(value, str):
        return ""
    hint = get_type_hints(cls.__init__).get(name)  # a class made from a formula has none
    others = [repr(choice) for choice in get_args(hint) if choice != value]
    return f" (or {', '.join(others)})" if get_origin(hint) is Literal else ""


def torch_class(cls: Any, package: str) -> str:
    """``"torch.nn.L1Loss"``: the class of ``package`` that ``cls`` is a drop-in for; "" if there is none."""
    for base in cls.__mro__:
        if f"{base.__module__}.".startswith(f"{package}.") and base.__name__ not in ("Module", "Optimizer"):
            return f"{package}.{base.__name__}"
    return ""


def importing(cls: type) -> str:
    """What a command has to be told beside the name of a class of the user's own, where it is made in a module."""
    module = users_module(cls)
    return "" if module in (None, "__main__") else f" --import {shlex.quote(module)}"
