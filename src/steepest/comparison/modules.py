"""Comparisons of the user's own torch modules: what stands in for a prepared table, and the trained module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from steepest.comparison.canonical import canonical_json
from steepest.comparison.options import Options, check_losses
from steepest.comparison.versions import versions
from steepest.errors import InputError, near_names
from steepest.losses import LOSSES
from steepest.training.run import Record, Task
from steepest.training.torch_data import Rows, as_rows, digest_of
from steepest.training.torch_engine import TorchEngine

__all__ = ["PreparedModules", "TrainedModule", "prepare_modules"]

_TASKS: tuple[Task, ...] = ("regression", "binary", "multiclass")


@dataclass(frozen=True, eq=False)
class TrainedModule:
    """The module a comparison of modules hands over.

    Attributes:
        module: the trained ``nn.Module``, in evaluation mode.
        record: the run that gave it.
    """

    module: nn.Module
    record: Record
    task: Task
    metric: str
    data_sha256: str
    _engine: TorchEngine

    def predict(self, inputs: Any) -> NDArray[Any]:
        """Values for regression, class indices for classes, for a batch of inputs (an array or a tensor)."""
        given = self._predict(inputs)
        return given if self.task == "regression" else given.argmax(axis=1)

    def predict_proba(self, inputs: Any) -> NDArray[Any]:
        """Class probabilities (rows, classes).

        Raises:
            InputError: the module predicts numbers.
        """
        if self.task == "regression":
            raise InputError("A regression model gives no probabilities; use predict.")
        return self._predict(inputs)

    def _predict(self, inputs: Any) -> NDArray[Any]:
        nothing = np.zeros(len(inputs), dtype=np.float32)
        return self._engine.predict(
            self.record.run, self.module.state_dict(), as_rows((inputs, nothing), "given")
        )

    def write_into(self, directory: Path) -> None:
        """Write ``model.safetensors`` (the module's state) and ``manifest.json`` into a directory that exists."""
        from safetensors.torch import save

        state = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in self.module.state_dict().items()
        }
        run = self.record.run
        manifest = {
            "format": 1,
            "kind": "torch module",
            "module": f"{type(self.module).__module__}.{type(self.module).__qualname__}",
            "task": self.task,
            "metric": self.metric,
            "loss": run.loss,
            "optimizer": run.optimizer,
            "hyperparameters": self.record.hyperparameters,
            "batch_size": run.batch_size,
            "seed": run.seed,
            "data_sha256": self.data_sha256,
            "versions": versions(),
        }
        (directory / "model.safetensors").write_bytes(save(state))
        (directory / "manifest.json").write_text(canonical_json(manifest), encoding="utf-8")


class _Unscaled:
    """A module's targets are left in their own units."""

    target_mean = 0.0
    target_scale = 1.0


@dataclass(frozen=True, eq=False)
class PreparedModules:
    """The three parts of a data set, and the factory; the same questions are answered as by a table's."""

    factory: Callable[[], nn.Module]
    task: Task
    x_train: Rows
    x_validation: Rows
    x_test: Rows
    num_outputs: int
    num_features: int
    module_name: str
    data_sha256: str
    device: str
    target: str = "target"
    encoding: Any = _Unscaled
    notes: list[str] = field(default_factory=list)
    diagnosis: list[dict[str, Any]] = field(default_factory=list)

    @property
    def y_train(self) -> NDArray[Any]:
        """Targets, (rows,)."""
        return self.x_train.targets.numpy()

    @property
    def y_validation(self) -> NDArray[Any]:
        """Targets, (rows,)."""
        return self.x_validation.targets.numpy()

    @property
    def y_test(self) -> NDArray[Any]:
        """Targets, (rows,)."""
        return self.x_test.targets.numpy()

    @property
    def y_test_original(self) -> NDArray[Any]:
        """The same: a module's targets are not standardised."""
        return self.y_test

    def options(self, given: Options) -> Options:
        """The options, with the losses that go with the width of the module's outputs where none are given.

        Raises:
            InputError: a loss that takes another number of outputs.
        """
        wide = self.num_outputs > 1
        fitting = [
            name
            for name in check_losses(given.losses, self.task)
            if (LOSSES[name].formula.family == "softmax") == wide
        ]
        if given.losses is not None and len(fitting) < len(check_losses(given.losses, self.task)):
            other = next(name for name in check_losses(given.losses, self.task) if name not in fitting)
            needed = "one output a row" if wide else "an output a class"
            raise InputError(f"The loss {other!r} takes {needed}; the module gives {self.num_outputs}.")
        return replace(given, losses=fitting)

    def start_engine(self, metric: str) -> TorchEngine:
        """The engine that trains modules from this factory on these rows."""
        return TorchEngine(self.factory, self.x_train, self.x_validation, self.task, metric, self.device)

    def trained(self, record: Record, metric: str) -> TrainedModule:
        """The module with a record's weights."""
        engine = self.start_engine(metric)
        module = engine.make(record.run.seed)
        module.load_state_dict(record.parameters)
        return TrainedModule(module.eval(), record, self.task, metric, self.data_sha256, engine)


def prepare_modules(
    factory: Callable[[], nn.Module], data: Sequence[Any], task: str = "auto", device: str = "cpu"
) -> PreparedModules:
    """Check the factory and the data against each other, and find out the task.

    Args:
        factory: called without arguments, gives a fresh module.
        data: ``(train, validation, test)``, each ``(X, y)``, a Dataset or a DataLoader.
        task: ``"auto"`` tells by the targets (whole numbers are classes) and the width of the outputs.
        device: where modules are trained.

    Raises:
        InputError: not three parts, a factory that fails, or outputs that do not go with the targets.
    """
    if not callable(factory) or isinstance(factory, nn.Module):
        raise InputError(
            "model is to be a factory: a function without arguments that gives a fresh nn.Module."
        )
    if not isinstance(data, Sequence) or isinstance(data, str) or len(data) != 3:
        raise InputError(
            "With model=..., data is (train, validation, test), each (X, y), a Dataset or a DataLoader."
        )
    train, validation, test = (
        as_rows(part, name) for part, name in zip(data, ("train", "validation", "test"), strict=True)
    )
    name, outputs = _try(factory, train, device)
    found = _task(task, train, outputs)
    _check_classes(found, (train, validation, test), outputs)
    inputs, _ = train.batch(np.arange(1))
    return PreparedModules(
        factory=factory,
        task=found,
        x_train=train,
        x_validation=validation,
        x_test=test,
        num_outputs=outputs,
        num_features=inputs[0].numel() if isinstance(inputs, torch.Tensor) else 0,
        module_name=name,
        data_sha256=digest_of((train, validation, test)),
        device=device,
        notes=[f"The module has {outputs} output{'s' if outputs > 1 else ''} a row: a {found} task."],
    )


def _try(factory: Callable[[], nn.Module], train: Rows, device: str) -> tuple[str, int]:
    """The module's class and its number of outputs a row, from one small batch."""
    engine = TorchEngine(factory, train, None, "regression", "rmse", device)
    with torch.random.fork_rng(devices=[]):
        module = engine.make(0)
        inputs, targets = train.batch(np.arange(min(2, len(train))))
        module.eval()
        with torch.no_grad():
            output = engine.forward(module, inputs)
    if output.dim() == 0 or len(output) != len(targets) or output.dim() > 2:
        raise InputError(
            f"The model gave outputs of shape {tuple(output.shape)} for a batch of {len(targets)} rows; "
            "it must give (rows,) or (rows, outputs)."
        )
    return type(module).__qualname__, 1 if output.dim() == 1 else output.shape[1]


def _task(task: str, train: Rows, outputs: int) -> Task:
    if task == "auto":
        if train.targets.is_floating_point():
            return "regression"
        return "binary" if outputs <= 2 else "multiclass"
    if task not in _TASKS:
        raise InputError(f"There is no task {task!r}{near_names(task, _TASKS)}")
    return task


def _check_classes(task: Task, parts: Sequence[Rows], outputs: int) -> None:
    if task == "regression":
        if outputs != 1:
            raise InputError(f"A regression module gives one output a row; this one gives {outputs}.")
        return
    if task == "multiclass" and outputs < 3:
        raise InputError(f"A multiclass module gives an output a class; this one gives {outputs} a row.")
    most = max(int(part.targets.max()) for part in parts)
    least = min(int(part.targets.min()) for part in parts)
    classes = max(outputs, 2)
    if least < 0 or most >= classes:
        raise InputError(
            f"Class indices run from {least} to {most}, and the module's outputs know {classes} classes: "
            f"0 to {classes - 1}."
        )
