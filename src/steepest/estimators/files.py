"""A fitted estimator as a directory of safetensors and JSON: what pickle would hold, without its code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.preprocessing import StandardScaler

from steepest.comparison import manifest
from steepest.comparison.forward import ACTIVATIONS, Layer
from steepest.comparison.output import check_directory, write_directory
from steepest.comparison.versions import versions
from steepest.errors import MALFORMED, InputError
from steepest.files import held
from steepest.training.run import Architecture

if TYPE_CHECKING:
    from steepest.estimators.network import Network

__all__ = ["read", "save"]


def save(estimator: Network, path: str | os.PathLike[str]) -> None:
    """Write ``model.safetensors`` and ``manifest.json``, whole or not at all.

    Raises:
        InputError: there is something else at ``path``, it cannot be written, or the class labels are of a type that
            JSON has no words for.
    """
    place = check_directory(path, (manifest.MANIFEST,), manifest.FILES)
    content, tensors = _content(estimator), _tensors(estimator)
    with held(place):
        write_directory(place, lambda directory: manifest.write(directory, content, tensors))


def _content(estimator: Network) -> dict[str, Any]:
    parameters = estimator.get_params(deep=False)
    if not isinstance(parameters["random_state"], (int, np.integer, type(None))):
        parameters["random_state"] = None  # a generator's state is no setting
    classes = getattr(estimator, "classes_", None)
    names = getattr(estimator, "feature_names_in_", None)
    return {
        "estimator": type(estimator).__name__,
        "parameters": parameters,
        "classes": None if classes is None else _written(classes),
        "classes_dtype": None if classes is None else classes.dtype.str,
        "feature_names": None if names is None else names.tolist(),
        "hidden": estimator._architecture.hidden,
        "activation": estimator._architecture.activation,
        "loss": estimator.loss_,
        "lr": estimator.lr_,
        "num_epochs": estimator.n_iter_,
        "target_mean": estimator._target_mean,
        "target_scale": estimator._target_scale,
        "versions": versions(),
    }


def _tensors(estimator: Network) -> dict[str, Any]:
    layers = {
        f"layers.{place}.{part}": values
        for place, layer in enumerate(estimator.layers_)
        for part, values in zip(Layer._fields, layer, strict=True)
    }
    scaler = estimator._scaler
    return layers | {
        "scaler.mean": scaler.mean_,
        "scaler.scale": scaler.scale_,
        "loss_curve": estimator.loss_curve_,
    }


def read(cls: type[Network], path: str | os.PathLike[str]) -> Network:
    """The estimator that :func:`save` wrote.

    Raises:
        InputError: there is none, it is of another class, or its files are torn or changed.
    """
    directory = Path(path).expanduser()
    content, tensors = manifest.read(directory)
    if content.get("estimator") != cls.__name__:
        held = content.get("estimator") or "a model of steepest.fit or compare, which steepest.load reads"
        raise InputError(f"{str(directory)!r} holds {held}, not a {cls.__name__}.")
    try:
        return _estimator(cls, content, tensors)
    except MALFORMED as error:
        raise InputError(
            f"The model in {str(directory)!r} is damaged ({type(error).__name__}: {error})."
        ) from None


def _estimator(cls: type[Network], content: dict[str, Any], tensors: dict[str, Any]) -> Network:
    parameters = content["parameters"]
    if isinstance(parameters["hidden"], list):  # as JSON has a tuple
        parameters["hidden"] = tuple(parameters["hidden"])
    estimator = cls(**parameters)
    estimator._architecture = Architecture(tuple(content["hidden"]), content["activation"])
    if estimator._architecture.activation not in ACTIVATIONS:
        raise ValueError(f"the activation {content['activation']!r} is not known")
    estimator.layers_ = tuple(
        Layer(tensors[f"layers.{place}.weight"], tensors[f"layers.{place}.bias"])
        for place in range(len(content["hidden"]) + 1)
    )
    estimator._scaler = scaler = StandardScaler()
    scaler.mean_, scaler.scale_ = tensors["scaler.mean"], tensors["scaler.scale"]
    scaler.var_ = scaler.scale_**2
    scaler.n_features_in_ = estimator.n_features_in_ = len(scaler.mean_)
    estimator.loss_, estimator.lr_, estimator.n_iter_ = (
        content[name] for name in ("loss", "lr", "num_epochs")
    )
    estimator.loss_curve_ = tensors["loss_curve"]
    estimator._target_mean, estimator._target_scale = content["target_mean"], content["target_scale"]
    if content["classes"] is not None:
        estimator.classes_ = _labels(content["classes"], np.dtype(content["classes_dtype"]))
    if content["feature_names"] is not None:
        estimator.feature_names_in_ = np.array(content["feature_names"], dtype=object)
    return estimator


_TIMES = "mM"  # numpy's times and spans, which are counts of their unit


def _written(classes: np.ndarray[Any, Any]) -> list[Any]:
    """Class labels as JSON has them.

    Raises:
        InputError: it has no such type.
    """
    if classes.dtype.kind in _TIMES:
        counts: list[Any] = classes.astype(np.int64).tolist()
        return counts
    labels: list[Any] = classes.tolist()
    if not all(isinstance(label, (str, int, float)) for label in labels):
        kind = type(labels[0]).__name__
        raise InputError(
            f"The class labels are of type {kind}, which cannot be saved; train on text, numbers or numpy's times."
        )
    return labels


def _labels(given: list[Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Class labels in the type they had; a type that claims more memory than its labels fill is refused."""
    if dtype.kind in _TIMES:
        return np.array(given, dtype=np.int64).astype(dtype)
    if dtype.kind not in "biufUO" or (dtype.kind == "U" and dtype.itemsize > 4 * max(1, *map(len, given))):
        raise ValueError(f"labels of type {dtype}")
    return np.array(given, dtype=dtype)
