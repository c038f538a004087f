"""The peers: found if they are installed, and torch's own counterpart of a loss or an optimizer."""

from __future__ import annotations

import importlib
import inspect
import os
import shutil
from collections.abc import Callable
from importlib import metadata
from typing import Any

from steepest.bench.work import Contestant, Missing

__all__ = ["Absent", "compiled", "if_there", "load", "torch_loss", "torch_optimizer", "version"]

NOT_INSTALLED = "peer not installed"


class Absent(Exception):
    """A peer cannot take part; the message says why."""


def load(module: str) -> Any:
    """A peer's module.

    Raises:
        Absent: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise Absent(f"needs {error.name}, which is not installed") from None
        raise Absent(NOT_INSTALLED) from None


def version(package: str) -> str:
    """The installed version of a package.

    Raises:
        Absent: there is none.
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise Absent(NOT_INSTALLED) from None


def if_there(make: Callable[[], Contestant]) -> Contestant | Missing:
    """The contestant, or why there is none."""
    try:
        return make()
    except Absent as error:
        return Missing(str(error))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.compile`` of a function, for fixed shapes.

    Raises:
        Absent: there is no C++ compiler, which it needs on a processor.
    """
    import torch

    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise Absent("no C++ compiler, which torch.compile needs")
    made: Callable[..., Any] = torch.compile(function, dynamic=False)
    return made


def torch_loss(word: str) -> Any:
    """torch's own module of a loss, with torch's defaults; None where torch has none."""
    from steepest.losses import LOSSES

    bases = inspect.getmro(LOSSES[word])
    return next((base() for base in bases if base.__module__ == "torch.nn.modules.loss"), None)


def torch_optimizer(word: str) -> tuple[Any, dict[str, Any]] | None:
    """torch's own class of an optimizer and the options that make it the same; None where torch has none."""
    import torch

    from steepest.optim import OPTIMIZERS

    entry = OPTIMIZERS[word]
    for base in inspect.getmro(entry.cls):
        if base.__module__.startswith("torch.optim.") and base is not torch.optim.Optimizer:
            known = inspect.signature(base).parameters
            return base, {name: value for name, value in entry.options.items() if name in known}
    return None
