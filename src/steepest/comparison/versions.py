"""The versions a result may depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]

_PACKAGES = ("steepest", "numba", "numpy", "polars", "scikit-learn", "scipy", "torch")


def versions() -> dict[str, str]:
    """The versions a result may depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
