"""A trained model: predict, save, load. No pickle: weights are safetensors, the rest is JSON."""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from steepest.comparison.canonical import canonical_json
from steepest.comparison.forward import ACTIVATIONS, Layer, layer_sizes, outputs, probabilities
from steepest.comparison.output import check_directory, write_directory
from steepest.comparison.versions import versions
from steepest.data import Encoding, read
from steepest.errors import InputError
from steepest.training.run import Architecture, Curve, Record, Run, Stop, Task

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FittedModel", "load"]

FORMAT = 1
MANIFEST, WEIGHTS = "manifest.json", "model.safetensors"
_FILES = frozenset({MANIFEST, WEIGHTS})


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A trained perceptron with everything it takes to use it on new rows.

    Attributes:
        task: ``"regression"``, ``"binary"`` or ``"multiclass"``.
        target: the name of the column it predicts.
        metric: what ``record.validation_score`` is.
        encoding: how a table becomes the rows the model takes.
        layers: weight (outputs, inputs) and bias (outputs,) of each layer, float32.
        record: the run that gave it: hyperparameters, curve, why it ended. A loaded model's record has no
            time (``seconds`` is NaN) and no flat ``parameters``.
        data_sha256: digest of the table it was trained on.
        gives_log_rate: whether its output is the logarithm of the prediction over the training rows' mean, as
            the losses for counts and amounts have it, and not a standardised prediction.
    """

    task: Task
    target: str
    metric: str
    encoding: Encoding
    layers: tuple[Layer, ...]
    record: Record
    data_sha256: str
    gives_log_rate: bool = False

    @property
    def architecture(self) -> Architecture:
        """The widths of its hidden layers, and their activation."""
        return self.record.run.architecture

    @property
    def classes(self) -> list[Any]:
        """The class labels, in the order of :meth:`predict_proba`'s columns; empty for regression."""
        return list(self.encoding.classes or [])

    def predict(self, data: Any) -> NDArray[Any]:
        """Predictions for the rows of a table: the target's own units, or class labels.

        Args:
            data: a path, a frame, or a 2-D array of features. A target column in it is not looked at.

        Returns:
            An array of shape (rows,).

        Raises:
            InputError: the table cannot be read, or lacks a column the model was trained on.
        """
        if self.task != "regression":
            labels = np.asarray(self.classes)
            chosen: NDArray[Any] = labels[self.predict_proba(data).argmax(axis=1)]
            return chosen
        output = self._outputs(data)[:, 0].astype(np.float64)
        if self.gives_log_rate:
            return np.exp(output) * self.encoding.target_mean
        return output * self.encoding.target_scale + self.encoding.target_mean

    def predict_proba(self, data: Any) -> NDArray[np.float64]:
        """Class probabilities for the rows of a table, (rows, classes), columns in the order of ``classes``.

        Raises:
            InputError: the model predicts numbers, or the table does not fit (as for :meth:`predict`).
        """
        if self.task == "regression":
            raise InputError("A regression model gives no probabilities; use predict.")
        return probabilities(self._outputs(data))

    def _outputs(self, data: Any) -> NDArray[np.float32]:
        features, notes = self.encoding.apply(read(data))
        for note in notes:
            warnings.warn(note, stacklevel=3)
        return outputs(self.layers, self.architecture.activation, features)

    def module(self) -> nn.Module:
        """The same network as a plain torch module.

        It takes encoded rows (``model.encoding.apply``), and gives what the last layer gives: a
        standardised prediction, the logarithm of a prediction over the mean, or logits.
        """
        from steepest.training.modules import build_module

        sizes = [self.layers[0].weight.shape[1], *(len(bias) for _, bias in self.layers)]
        flat = np.concatenate([part.ravel() for layer in self.layers for part in layer])
        return build_module(sizes, self.architecture, flat)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as a directory: ``model.safetensors`` and ``manifest.json``.

        The directory appears whole or not at all; the same model gives the same bytes.

        Raises:
            InputError: there is something at ``path`` that is not a model, or it cannot be written.
        """
        write_directory(check_directory(path, (MANIFEST,), _FILES), self.write_into)

    def write_into(self, directory: Path) -> None:
        """Write both files into a directory that exists."""
        weights = save_tensors(dict(_named(self.layers)))
        (directory / WEIGHTS).write_bytes(weights)
        (directory / MANIFEST).write_text(canonical_json(self._manifest(weights)), encoding="utf-8")

    def _manifest(self, weights: bytes) -> dict[str, Any]:
        run = self.record.run
        manifest = {
            "format": FORMAT,
            "task": self.task,
            "target": self.target,
            "classes": self.encoding.classes,
            "metric": self.metric,
            "architecture": {
                "num_features": self.layers[0].weight.shape[1],
                "hidden": run.architecture.hidden,
                "activation": run.architecture.activation,
                "num_outputs": len(self.layers[-1].bias),
                "gives_log_rate": self.gives_log_rate,
            },
            "loss": run.loss,
            "loss_options": run.loss_options,
            "optimizer": run.optimizer,
            "optimizer_options": run.optimizer_options,
            "lr": run.lr,
            "batch_size": run.batch_size,
            "seed": run.seed,
            "stop": asdict(run.stop),
            "record": _record_json(self.record),
            "encoding": self.encoding.to_json(),
            "versions": versions(),
            "data_sha256": self.data_sha256,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
        }
        return manifest | {"manifest_sha256": _digest(manifest)}


def load(path: str | os.PathLike[str]) -> FittedModel:
    """Load a model that :meth:`FittedModel.save` or a comparison wrote.

    Args:
        path: the model's directory, or the output directory of a comparison.

    Raises:
        InputError: there is no model, or its files are torn, changed or of another version.
    """
    directory = Path(path).expanduser()
    if not (directory / MANIFEST).exists() and (directory / "model" / MANIFEST).exists():
        directory = directory / "model"
    manifest = _read_manifest(directory)
    weights = _read_bytes(directory / WEIGHTS)
    if hashlib.sha256(weights).hexdigest() != manifest.get("weights_sha256"):
        raise InputError(f"The model in {str(directory)!r} is damaged: {WEIGHTS} is not what was saved.")
    try:
        return _model(manifest, weights)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"The model in {str(directory)!r} is damaged ({reason}).") from None


def _read_manifest(directory: Path) -> dict[str, Any]:
    text = _read_bytes(directory / MANIFEST)
    try:
        manifest = json.loads(text)
    except ValueError:
        raise InputError(f"The model in {str(directory)!r} is damaged: {MANIFEST} is no JSON.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(
            f"{str(directory / MANIFEST)!r} is not a model's manifest of format {FORMAT}; "
            "it was written by something else or by another version."
        )
    if manifest.pop("manifest_sha256", None) != _digest(manifest):
        raise InputError(f"The model in {str(directory)!r} is damaged: {MANIFEST} is not what was saved.")
    return manifest


def _digest(manifest: dict[str, Any]) -> str:
    """Of every entry but the digest itself: a manifest decides predictions, so none of it may change."""
    return hashlib.sha256(canonical_json(manifest).encode()).hexdigest()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = f"{path.name}: {error.strerror}"
        raise InputError(f"There is no model in {str(path.parent)!r} ({reason}).") from None


def _model(manifest: dict[str, Any], weights: bytes) -> FittedModel:
    shape = manifest["architecture"]
    architecture = Architecture(tuple(shape["hidden"]), shape["activation"])
    if architecture.activation not in ACTIVATIONS:
        raise InputError(f"the activation {architecture.activation!r} is not known")
    run = Run(
        loss=manifest["loss"],
        optimizer=manifest["optimizer"],
        lr=manifest["lr"],
        batch_size=manifest["batch_size"],
        seed=manifest["seed"],
        architecture=architecture,
        stop=Stop(**manifest["stop"]),
        loss_options=manifest["loss_options"],
        optimizer_options=manifest["optimizer_options"],
    )
    encoding = Encoding.from_json(manifest["encoding"])
    if (encoding.task, encoding.target) != (manifest["task"], manifest["target"]):
        raise InputError("its task and target are not those of its encoding")
    num_features = len(encoding.feature_names)
    if num_features != shape["num_features"]:
        raise InputError(f"it takes {shape['num_features']} features, its encoding gives {num_features}")
    return FittedModel(
        task=manifest["task"],
        target=manifest["target"],
        metric=manifest["metric"],
        encoding=encoding,
        layers=_layers(weights, layer_sizes(num_features, architecture, shape["num_outputs"])),
        record=_record(run, manifest["record"]),
        data_sha256=manifest["data_sha256"],
        gives_log_rate=bool(shape.get("gives_log_rate", False)),
    )


def _named(layers: tuple[Layer, ...]) -> list[tuple[str, NDArray[np.float32]]]:
    return [
        (f"layers.{number}.{part}", np.ascontiguousarray(values))
        for number, layer in enumerate(layers)
        for part, values in zip(Layer._fields, layer, strict=True)
    ]


def _layers(weights: bytes, sizes: list[tuple[int, int]]) -> tuple[Layer, ...]:
    """The layers in a safetensors file, each of the (inputs, outputs) the manifest calls for."""
    try:
        tensors = load_tensors(weights)
    except Exception:  # safetensors has an exception of its own for every way a header can be wrong
        raise InputError(f"{WEIGHTS} is not a complete safetensors file") from None
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (num_inputs, num_outputs) in enumerate(sizes):
        shapes |= {
            f"layers.{number}.weight": (num_outputs, num_inputs),
            f"layers.{number}.bias": (num_outputs,),
        }
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != shapes or any(tensor.dtype != np.float32 for tensor in tensors.values()):
        raise InputError(f"{WEIGHTS} does not hold the float32 layers its manifest describes")
    return tuple(
        Layer(tensors[f"layers.{number}.weight"], tensors[f"layers.{number}.bias"])
        for number in range(len(sizes))
    )


def _record_json(record: Record) -> dict[str, Any]:
    """What a record says, the time apart: the same run gives the same bytes."""
    return {
        "hyperparameters": record.hyperparameters,
        "num_epochs": record.num_epochs,
        "num_steps": record.num_steps,
        "num_examples": record.num_examples,
        "stop_reason": record.stop_reason,
        "best_epoch": record.best_epoch,
        "validation_score": record.validation_score,
        "curve": asdict(record.curve),
    }


def _record(run: Run, given: dict[str, Any]) -> Record:
    curve = given["curve"]
    return Record(
        run=run,
        hyperparameters=dict(given["hyperparameters"]),
        num_epochs=given["num_epochs"],
        num_steps=given["num_steps"],
        num_examples=given["num_examples"],
        stop_reason=given["stop_reason"],
        best_epoch=given["best_epoch"],
        validation_score=_float(given["validation_score"]),
        curve=Curve(
            epoch=np.array(curve["epoch"], dtype=np.int64),
            step=np.array(curve["step"], dtype=np.int64),
            train_loss=_floats(curve["train_loss"]),
            validation_score=_floats(curve["validation_score"]),
        ),
        seconds=math.nan,
        parameters=None,
    )


def _floats(values: list[float | None]) -> NDArray[np.float64]:
    return np.array([_float(value) for value in values], dtype=np.float64)


def _float(value: float | None) -> float:
    """JSON has no NaN: it is written as null."""
    return math.nan if value is None else float(value)
