"""A model's two files, which vouch for each other: ``model.safetensors`` and ``manifest.json``. No pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from steepest.comparison.canonical import canonical_json
from steepest.errors import InputError, near_directories
from steepest.files import MOST_BYTES, encoded, parse_json, read_bytes

__all__ = ["FILES", "FORMAT", "MANIFEST", "MODULE", "WEIGHTS", "read", "write"]

FORMAT = 1
MANIFEST, WEIGHTS = "manifest.json", "model.safetensors"
MODULE = "torch module"  # the kind of a module's manifest
FILES = frozenset({MANIFEST, WEIGHTS})


def write(directory: Path, manifest: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write both files into a directory that exists; the same content gives the same bytes."""
    weights = save_tensors({name: np.ascontiguousarray(values) for name, values in tensors.items()})
    whole = {"format": FORMAT, **manifest, "weights_sha256": hashlib.sha256(weights).hexdigest()}
    whole["manifest_sha256"] = _digest(whole)
    (directory / WEIGHTS).write_bytes(weights)
    (directory / MANIFEST).write_bytes(encoded(canonical_json(whole)))


def read(directory: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The manifest and the tensors of a model.

    Raises:
        InputError: there is none, or its files are torn, changed or of another version.
    """
    manifest = _read_manifest(directory)
    weights = _read_bytes(directory / WEIGHTS, None)
    if hashlib.sha256(weights).hexdigest() != manifest.get("weights_sha256"):
        raise InputError(f"The model in {str(directory)!r} is damaged: {WEIGHTS} is not what was saved.")
    try:
        return manifest, load_tensors(weights)
    except Exception:  # safetensors has an exception of its own for every way a header can be wrong
        raise InputError(
            f"The model in {str(directory)!r} is damaged ({WEIGHTS} is not a complete safetensors file)."
        ) from None


def _read_manifest(directory: Path) -> dict[str, Any]:
    text = _read_bytes(directory / MANIFEST)
    try:
        manifest = parse_json(text)
    except ValueError:
        raise InputError(f"The model in {str(directory)!r} is damaged: {MANIFEST} is no JSON.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(
            f"{str(directory / MANIFEST)!r} is not a model's manifest of format {FORMAT}; "
            "it was written by something else or by another version."
        )
    if manifest.get("kind") == MODULE:
        raise InputError(
            f"The model in {str(directory)!r} is a module of your own; make one of its class and load its weights: "
            f"module.load_state_dict(safetensors.torch.load_file({str(directory / WEIGHTS)!r}))."
        )
    if manifest.pop("manifest_sha256", None) != _digest(manifest):
        raise InputError(f"The model in {str(directory)!r} is damaged: {MANIFEST} is not what was saved.")
    return manifest


def _digest(manifest: dict[str, Any]) -> str:
    """Of every entry but the digest itself: a manifest decides predictions, so none of it may change."""
    return hashlib.sha256(encoded(canonical_json(manifest))).hexdigest()


def _read_bytes(path: Path, most_bytes: int | None = MOST_BYTES) -> bytes:
    try:
        return read_bytes(path, most_bytes)
    except OSError as error:
        reason = f"{path.name}: {error.strerror}"
        raise InputError(
            f"There is no model in {str(path.parent)!r} ({reason}){near_directories(path.parent)}"
        ) from None
