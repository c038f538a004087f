"""What the user names: a module's factory and its data, as objects or as ``"package.module:name"``; code to import."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from steepest.errors import InputError, near_names, told

__all__ = ["data_of", "factory_of", "imported", "lasting_name", "run_first", "training_of"]

_FILE = ".py"


def imported(name: str, what: str) -> Any:
    """What ``"package.module:name"`` stands for, or ``"folder/file.py:name"``; the current folder is looked in too.

    Raises:
        InputError: it is no such name, its module cannot be imported, or has nothing of that name.
    """
    place, attribute = _in_two(name)
    if not place or not attribute:
        raise InputError(
            f"{what} is {name!r}; give 'package.module:name', such as 'my_models:small_gpt', or 'file.py:name'."
        )
    module = _module(place, f"{what} {name!r}")
    if not hasattr(module, attribute):
        near = near_names(attribute, _own_names(module))
        raise InputError(f"{what}: {place!r} has no {attribute!r}{near}")
    return getattr(module, attribute)


def run_first(place: str) -> None:
    """Import a file or a module of the user's, for the losses, optimizers and metrics that it makes.

    Raises:
        InputError: it cannot be imported.
    """
    _module(place, f"The code {place!r}")


def lasting_name(name: str) -> str:
    """The name by which the same is found from another folder, where it names a file."""
    place, attribute = _in_two(name)
    return f"{Path(place).expanduser().resolve()}:{attribute}" if place.endswith(_FILE) else name


def _in_two(name: str) -> tuple[str, str]:
    place, _, attribute = name.rpartition(":")  # a path may have a colon, as Windows' drives do
    return place, attribute


def _module(place: str, what: str) -> ModuleType:
    try:
        return _from_file(Path(place)) if place.endswith(_FILE) else _from_here(place)
    except InputError as error:
        raise InputError(f"{what} cannot be imported: {error}") from None
    except SystemExit as error:  # a script that reads its own arguments finds a command's
        raise InputError(
            f"{what} cannot be imported, for it ends the program: {told(error)} What it does as a script goes under "
            "if __name__ == '__main__'."
        ) from error
    except Exception as error:
        raise InputError(f"{what} cannot be imported: {told(error)}") from error


def _from_here(name: str) -> ModuleType:
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)


def _from_file(path: Path) -> ModuleType:
    """A file as the module that a script beside it would import, so that other processes find it by its name too."""
    if not path.expanduser().is_file():
        raise InputError(f"there is no file {str(path)!r}.")
    path = path.expanduser().resolve()
    if "." in path.stem:
        raise InputError("no module's name has a point in it; give the file another name.")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        module = importlib.import_module(path.stem)
    except ImportError as error:
        if "relative import" not in str(error):
            raise
        raise InputError(
            f"{told(error)} As a part of its package it has a name with points, such as 'my_package.{path.stem}'; give "
            "that in place of the file."
        ) from error
    if Path(module.__file__ or "").resolve() != path:
        raise InputError(
            f"a module of the name {path.stem!r} is there already ({module.__file__ or 'of Python itself'}); give the "
            "file another name."
        )
    return module


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


def training_of(given: Callable[[Any], Any] | str) -> Callable[[Any], Any]:
    """A training function.

    Raises:
        InputError: it is no name of one.
    """
    function: Callable[[Any], Any] = (
        imported(given, "The training function") if isinstance(given, str) else given
    )
    return function


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
    except (Exception, SystemExit) as error:
        raise InputError(f"The data function failed: {told(error)}") from error
