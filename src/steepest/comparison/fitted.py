"""A trained model: predict, save, load. No pickle: weights are safetensors, the rest is JSON."""

from __future__ import annotations

import math
import os
import reprlib
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steepest.comparison import manifest
from steepest.comparison.forward import ACTIVATIONS, Layer, layer_sizes, outputs, probabilities
from steepest.comparison.manifest import FILES, MANIFEST, WEIGHTS
from steepest.comparison.output import check_directory, write_directory
from steepest.comparison.versions import versions
from steepest.data import Encoding
from steepest.data.met import Met
from steepest.data.pieces import pieces
from steepest.errors import MALFORMED, InputError, told
from steepest.files import held
from steepest.training.run import Architecture, Curve, Record, Run, Stop, Task

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FittedModel", "load"]


@dataclass(frozen=True, eq=False, repr=False)
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
        notes: what reading the table inferred, dropped or met, a sentence each; a loaded model has none.
    """

    task: Task
    target: str
    metric: str
    encoding: Encoding
    layers: tuple[Layer, ...]
    record: Record
    data_sha256: str
    gives_log_rate: bool = False
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """What it predicts and how it was trained, without its weights."""
        run = self.record.run
        shown: dict[str, Any] = {
            "task": self.task,
            "target": self.target,
            "hidden": tuple(run.architecture.hidden),
        }
        shown |= {"loss": run.loss, "optimizer": run.optimizer, "lr": run.lr}
        return f"FittedModel({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

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
            data: a path, a frame, or a 2-D array of features. A target column in it is not looked at. Files too large
                for memory are gone through a piece at a time.

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
        met, parts = Met(), []
        for rows in pieces(data):
            features, _ = self.encoding.apply(rows, met)
            parts.append(outputs(self.layers, self.architecture.activation, features))
        for note in met.sentences():
            warnings.warn(note, stacklevel=3)
        return np.concatenate(parts)

    def module(self) -> nn.Module:
        """The same network as a plain torch module.

        It takes encoded rows (``model.encoding.apply``), and gives what the last layer gives: a
        standardised prediction, the logarithm of a prediction over the mean, or logits.
        """
        from steepest.training.modules import build_module

        sizes = [self.layers[0].weight.shape[1], *(len(bias) for _, bias in self.layers)]
        flat = np.concatenate([part.ravel() for layer in self.layers for part in layer])
        return build_module(sizes, self.architecture, flat)

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the model as an ONNX file, the encoding of the table included.

        It has an input of (rows, 1) for each column: numbers and booleans as float64 (NaN: missing), categories as text
        (empty: missing), and for a date its parts, such as ``"sold (days)"`` since 1970. Its outputs are
        ``prediction`` (rows, 1) in the target's own units, or ``label`` (rows,) and ``probabilities`` (rows, classes);
        where a column has such a name, the output is ``label_`` and so on.

        Raises:
            InputError: the package onnx is not installed (``pip install 'steepest[onnx]'``), or the file cannot be
                written.
        """
        from steepest.comparison import onnx

        graph = onnx.Graph(onnx.input_names(self.encoding))
        features = onnx.add_encoding(graph, self.encoding)
        output = onnx.add_network(graph, self.layers, self.architecture.activation, features)
        if self.task == "regression":
            mean, scale = self.encoding.target_mean, self.encoding.target_scale
            onnx.add_prediction(graph, output, mean, scale, gives_log_rate=self.gives_log_rate)
        else:
            onnx.add_probabilities(graph, output, len(self.layers[-1].bias), self.classes)
        onnx.write(graph, path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as a directory: ``model.safetensors`` and ``manifest.json``.

        The directory appears whole or not at all; the same model gives the same bytes.

        Raises:
            InputError: there is something at ``path`` that is not a model, or it cannot be written.
        """
        place = check_directory(path, (MANIFEST,), FILES)
        with held(place):
            write_directory(place, self.write_into)

    def write_into(self, directory: Path) -> None:
        """Write both files into a directory that exists."""
        manifest.write(directory, self._manifest(), dict(_named(self.layers)))

    def _manifest(self) -> dict[str, Any]:
        run = self.record.run
        return {
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
            "schedule": run.schedule,
            "warmup": run.warmup,
            "record": _record_json(self.record),
            "encoding": self.encoding.to_json(),
            "versions": versions(),
            "data_sha256": self.data_sha256,
        }


def load(path: str | os.PathLike[str]) -> FittedModel:
    """Load a model that :meth:`FittedModel.save` or a comparison wrote.

    Args:
        path: the model's directory, or the output directory of a comparison.

    Raises:
        InputError: there is no model, or its files are torn, changed or of another version.
    """
    try:
        directory = Path(path).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            directory.stat()  # of a name that can be none exists() says no more than of one that is not there
        if not (directory / MANIFEST).exists() and (directory / "model" / MANIFEST).exists():
            directory = directory / "model"
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{reprlib.repr(path)} is no directory of a model: {told(error)}") from None
    found, tensors = manifest.read(directory)
    if "estimator" in found:
        raise InputError(
            f"{str(directory)!r} holds a fitted estimator for scikit-learn's tools, {found['estimator']!r}; its "
            "class's load reads it."
        )
    try:
        return _model(found, tensors)
    except MALFORMED as error:
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"The model in {str(directory)!r} is damaged ({reason}).") from None


def _model(given: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> FittedModel:
    shape = given["architecture"]
    architecture = Architecture(tuple(shape["hidden"]), shape["activation"])
    if architecture.activation not in ACTIVATIONS:
        raise InputError(f"the activation {architecture.activation!r} is not known")
    run = Run(
        loss=given["loss"],
        optimizer=given["optimizer"],
        lr=given["lr"],
        batch_size=given["batch_size"],
        seed=given["seed"],
        architecture=architecture,
        stop=Stop(**given["stop"]),
        loss_options=given["loss_options"],
        optimizer_options=given["optimizer_options"],
        schedule=given.get("schedule", "constant"),  # an older model's file has neither
        warmup=given.get("warmup", 0.0),
    )
    encoding = Encoding.from_json(given["encoding"])
    if (encoding.task, encoding.target) != (given["task"], given["target"]):
        raise InputError("its task and target are not those of its encoding")
    num_features = len(encoding.feature_names)
    if num_features != shape["num_features"]:
        raise InputError(f"it takes {shape['num_features']} features, its encoding gives {num_features}")
    return FittedModel(
        task=given["task"],
        target=given["target"],
        metric=given["metric"],
        encoding=encoding,
        layers=_layers(tensors, layer_sizes(num_features, architecture, shape["num_outputs"])),
        record=_record(run, given["record"]),
        data_sha256=given["data_sha256"],
        gives_log_rate=bool(shape.get("gives_log_rate", False)),
    )


def _named(layers: tuple[Layer, ...]) -> list[tuple[str, NDArray[np.float32]]]:
    return [
        (f"layers.{number}.{part}", values)
        for number, layer in enumerate(layers)
        for part, values in zip(Layer._fields, layer, strict=True)
    ]


def _layers(tensors: dict[str, NDArray[Any]], sizes: list[tuple[int, int]]) -> tuple[Layer, ...]:
    """The layers among the tensors, each of the (inputs, outputs) the manifest calls for."""
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
