"""What the user names: a module's factory and data, as objects or as ``"package.module:name"``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import nn

from steepest.errors import InputError, near_names, told

__all__ = ["data_of", "factory_of", "imported"]


def imported(name: str, what: str) -> Any:
    """What ``"package.module:name"`` stands for; the current folder is looked in too.

    Raises:
        InputError: it is no such name, its module cannot be imported, or has nothing of that name.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise InputError(f"{what} is {name!r}; give 'package.module:name', such as 'my_models:small_gpt'.")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise InputError(f"{what} {name!r} cannot be imported: {told(error)}") from error
    if not hasattr(module, attribute):
        near = near_names(attribute, _own_names(module))
        raise InputError(f"{what}: {module_name!r} has no {attribute!r}{near}")
    return getattr(module, attribute)


def _own_names(module: ModuleType) -> list[str]:
    """What a module defines, and not what it imports; data say nothing of where they are from."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", module.__name__) == module.__name__
    ]


def factory_of(given: Callable[[], nn.Module] | str) -> Callable[[], nn.Module]:
    """What makes a fresh module.

    Raises:
        InputError: it is no function.
    """
    model = imported(given, "The model") if isinstance(given, str) else given
    if isinstance(model, nn.Module) or not callable(model):
        raise InputError(
            f"The model is a {type(model).__name__}; give a function without arguments that gives a fresh nn.Module."
        )
    return model


def data_of(given: Any) -> Any:
    """Data, or what a function of the user's gives as such.

    Raises:
        InputError: the function fails.
    """
    data = imported(given, "The data") if isinstance(given, str) else given
    if not callable(data):
        return data
    try:
        return data()
    except Exception as error:
        raise InputError(f"The data function failed: {told(error)}") from error
