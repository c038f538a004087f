"""Comparisons of the user's own torch modules: what stands in for a prepared table, and the trained module."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset

from steepest.comparison.canonical import canonical_json
from steepest.comparison.engine import Engine
from steepest.comparison.manifest import MODULE
from steepest.comparison.options import Options, check_losses
from steepest.comparison.plan import Plan, Setting
from steepest.comparison.versions import versions
from steepest.data.diagnose import diagnose
from steepest.errors import InputError, near_names, told
from steepest.files import encoded
from steepest.losses import LOSSES
from steepest.training.layout import IGNORED, check_indices, is_kept, layout_of, rows_of_outputs
from steepest.training.metrics import default_metric
from steepest.training.native import formula_of
from steepest.training.population import PopulationEngine
from steepest.training.population_tables import TablePopulation
from steepest.training.run import BatchSize, Record, Task
from steepest.training.seeds import borrowed
from steepest.training.step_sizes import StepSizes, sizes_of
from steepest.training.torch_data import Rows, Tensors, as_rows, digest_of
from steepest.training.torch_engine import (
    TorchEngine,
    has_batch_norm,
    inner_module,
    outputs_of,
    predictions_of,
    readable,
)

__all__ = ["PreparedModules", "TrainedModule", "check_device", "notes_on_engine", "prepare_modules"]

_TASKS: tuple[Task, ...] = ("regression", "binary", "multiclass")


@dataclass(frozen=True, eq=False)
class TrainedModule:
    """The module a comparison of modules hands over; it keeps neither the rows nor the factory, so it can be pickled.

    Attributes:
        module: the trained ``nn.Module``, in evaluation mode.
        record: the run that gave it.
    """

    module: nn.Module
    record: Record
    task: Task
    metric: str
    data_sha256: str
    _device: torch.device
    _classes_last: bool

    def predict(self, inputs: Any) -> NDArray[Any]:
        """Values for regression, class indices for classes, in the shape of the targets.

        Args:
            inputs: a batch of them: an array or a tensor, a tuple or a dictionary of such if that is what an input is;
                or a Dataset or DataLoader of (input, target) pairs whose targets are not looked at.

        Raises:
            InputError: it is none of these.
        """
        given = self._predict(inputs)
        return given if self.task == "regression" else given.argmax(axis=-1)

    def predict_proba(self, inputs: Any) -> NDArray[Any]:
        """Class probabilities, the classes along the last axis.

        Raises:
            InputError: the module predicts numbers.
        """
        if self.task == "regression":
            raise InputError("A regression model gives no probabilities; use predict.")
        return self._predict(inputs)

    def _predict(self, inputs: Any) -> NDArray[Any]:
        if isinstance(inputs, (tuple, Mapping)):
            inputs = _InParts(inputs)
        elif not isinstance(inputs, (Dataset, DataLoader)):
            inputs = (inputs, np.zeros(_num_rows(inputs), dtype=np.float32))
        formula = formula_of(self.record.run.loss)
        has_classes, classes_last = formula.family == "softmax", self._classes_last
        parts = []
        with borrowed(self.record.run.seed, self._device):
            for output, _ in outputs_of(self.module, as_rows(inputs, "given"), self._device):
                shape = output.shape
                if has_classes:
                    shape = shape[:-1] if classes_last else shape[:1] + shape[2:]
                elif shape[1:] == (1,):
                    shape = shape[:1]
                flat = readable(rows_of_outputs(output, has_classes, classes_last)).numpy()
                predictions = predictions_of(flat, formula)
                parts.append(predictions.reshape(*shape, *predictions.shape[1:]))
        return np.concatenate(parts)

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
            "kind": MODULE,
            "module": f"{type(self.module).__module__}.{type(self.module).__qualname__}",
            "task": self.task,
            "metric": self.metric,
            "loss": run.loss,
            "optimizer": run.optimizer,
            "hyperparameters": self.record.hyperparameters,
            "batch_size": run.batch_size,
            "schedule": run.schedule,
            "warmup": run.warmup,
            "seed": run.seed,
            "data_sha256": self.data_sha256,
            "versions": versions(),
        }
        (directory / "model.safetensors").write_bytes(save(state))
        (directory / "manifest.json").write_bytes(encoded(canonical_json(manifest)))


class _InParts(Dataset[Any]):
    """Rows whose inputs are tuples or dictionaries, as a data set gives them one by one; targets of 0."""

    def __init__(self, inputs: tuple[Any, ...] | Mapping[Any, Any]) -> None:
        counts = set()

        def part(given: Any) -> Any:
            array = given if isinstance(given, torch.Tensor) else _array(given)
            counts.add(_num_rows(array))
            return array

        self._inputs = _of_each(inputs, part)
        if len(counts) != 1:
            numbers = " and ".join(map(str, sorted(counts))) or "no"
            raise InputError(
                f"The parts of the inputs have {numbers} rows; each has a row for every prediction."
            )
        (self._num_rows,) = counts

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, i: int) -> tuple[Any, float]:
        return _of_each(self._inputs, lambda part: part[i]), 0.0


def _of_each(inputs: Any, made: Callable[[Any], Any]) -> Any:
    """The same tuples and dictionaries, however deep, of what is made of each array in them."""
    if isinstance(inputs, Mapping):
        return {name: _of_each(part, made) for name, part in inputs.items()}
    if isinstance(inputs, tuple):
        parts = [_of_each(part, made) for part in inputs]
        return type(inputs)(*parts) if hasattr(inputs, "_fields") else tuple(parts)
    return made(inputs)


def _array(given: Any) -> NDArray[Any]:
    try:
        return np.asarray(given)
    except (TypeError, ValueError) as error:
        raise InputError(f"A part of the inputs cannot be read as an array: {told(error)}") from error


def _num_rows(batch: Any) -> int:
    try:
        return len(batch)
    except TypeError:
        raise InputError(
            f"Inputs are a batch of rows: an array, a tensor, a tuple or a dictionary of such, a Dataset or a "
            f"DataLoader; not {batch!r}."
        ) from None


class _Unscaled:
    """A module's targets are left in their own units."""

    target_mean = 0.0
    target_scale = 1.0
    classes = None


@dataclass(frozen=True, eq=False)
class PreparedModules:
    """The three parts of a data set, and the factory; the same questions are answered as by a table's."""

    factory: Callable[[], nn.Module]
    task: Task
    x_train: Rows
    x_validation: Rows
    x_test: Rows
    num_outputs: int  # a target
    classes_last: bool
    has_batch_norm: bool
    sizes: StepSizes | None  # of a step's tensors
    num_features: int
    module_name: str
    module_sha256: str
    data_sha256: str
    device: str
    compile: bool
    target: str = "target"
    encoding: Any = _Unscaled
    notes: list[str] = field(default_factory=list)
    diagnosis: list[dict[str, Any]] = field(default_factory=list)

    @property
    def num_rows(self) -> dict[str, int]:
        """The number of rows of each part."""
        return {part.name: len(part) for part in (self.x_train, self.x_validation, self.x_test)}

    @property
    def num_classes(self) -> int:
        """1 for regression."""
        return 1 if self.task == "regression" else max(self.num_outputs, 2)

    @property
    def y_train_original(self) -> NDArray[Any]:
        """The training targets, as :attr:`y_test`."""
        return self.start_engine(default_metric(self.task)).scored(self.x_train)

    @property
    def y_validation(self) -> NDArray[Any]:
        """The validation targets, as :attr:`y_test`."""
        return self.start_engine(default_metric(self.task)).scored(self.x_validation)

    @property
    def y_test(self) -> NDArray[Any]:
        """The test targets that a score is worked out from, (targets,): a row may have several."""
        return self.start_engine(default_metric(self.task)).scored(self.x_test)

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
        asked = check_losses(given.losses, self.task)
        fitting = [name for name in asked if (LOSSES[name].formula.family == "softmax") == wide]
        if given.losses is not None and len(fitting) < len(asked):
            other = next(name for name in asked if name not in fitting)
            needed = "one output a row" if wide else "an output a class"
            raise InputError(f"The loss {other!r} takes {needed}; the module gives {self.num_outputs}.")
        own = self.x_train.batch_size
        if self.x_train.batches_are_own and given.batch_sizes is not None:
            raise InputError(
                "The train loader's own sampler decides the batches; leave batch_sizes out, or give the data set."
            )
        if given.batch_sizes is None and own is not None:
            # As the loader gives them: of fewer rows than its batch size one batch, or none at all where it drops it.
            size = own if self.x_train.drops_last else min(own, len(self.x_train))
            given = replace(given, batch_sizes=(size,))
        return replace(given, losses=fitting)

    def notes_on(self, batch_sizes: Sequence[BatchSize]) -> list[str]:
        """What is to be said of training in batches of these sizes."""
        rows = len(self.x_train)
        lone = [
            str(size)
            for size in batch_sizes
            if isinstance(size, int) and 1 < size < rows and rows % size == 1
        ]
        if not self.has_batch_norm or self.x_train.drops_last or not lone:
            return []
        sizes = " and ".join(lone)
        note = (
            f"In batches of {sizes}, an epoch's last one is a single row, from which batch norm cannot learn: it is "
            "left out, another row each epoch."
        )
        return [note]

    def start_engine(self, metric: str, together: bool = False) -> TorchEngine:
        """The engine that trains modules from this factory on these rows; ``together``: many runs at once."""
        return (PopulationEngine if together else TorchEngine)(
            self.factory,
            self.x_train,
            self.x_validation,
            self.task,
            metric,
            self.device,
            classes_last=self.classes_last,
            compile=self.compile,
            sizes=self.sizes,
        )

    def together_pays(self, plan: Plan) -> bool:
        """Whether a step of this module is so small that what surrounds it takes most of the time."""
        engine = self.start_engine(plan.metric, together=True)
        assert isinstance(engine, PopulationEngine)
        return all(engine.pays(size) for size in plan.batch_sizes)

    def trained(self, record: Record, metric: str) -> TrainedModule:
        """The module with a record's weights."""
        engine = self.start_engine(metric)
        module = inner_module(engine.make(record.run.seed))
        module.load_state_dict(record.parameters)
        return TrainedModule(
            module.eval(),
            record,
            self.task,
            metric,
            self.data_sha256,
            _device=engine.device,
            _classes_last=self.classes_last,
        )


def notes_on_engine(plan: Plan, engine: Engine) -> list[str]:
    """How a plan's runs were trained, where any were trained together."""
    if not isinstance(engine, (PopulationEngine, TablePopulation)):
        return []
    cells = [plan.run(Setting(cell, plan.default_rates[cell.optimizer]).on(plan.seed)) for cell in plan.cells]
    return [*engine.notes(cells), *engine.broken]


def prepare_modules(
    factory: Callable[[], nn.Module],
    data: Sequence[Any],
    task: str = "auto",
    device: str = "cpu",
    compile: bool = False,
) -> PreparedModules:
    """Check the factory and the data against each other, and find out the task.

    Args:
        factory: called without arguments, gives a fresh module.
        data: ``(train, validation, test)``, each ``(X, y)``, a Dataset or a DataLoader.
        task: ``"auto"`` tells by the targets (whole numbers are classes) and the width of the outputs,
            ``"classification"`` by the latter alone.
        device: where modules are trained.
        compile: whether they go through ``torch.compile``.

    Raises:
        InputError: not three parts, a factory that fails, or outputs that do not go with the targets.
    """
    if not isinstance(data, Sequence) or isinstance(data, str) or len(data) != 3:
        raise InputError(
            "With model=..., data is (train, validation, test), each (X, y), a Dataset or a DataLoader."
        )
    check_device(device)
    parts = [as_rows(part, name) for part, name in zip(data, ("train", "validation", "test"), strict=True)]
    for part in parts:
        _check_finite(part)
    train, validation, test = parts
    factory = _always_new(factory)
    tried = _try(factory, train, device)
    found = _task(task, train, tried.num_outputs)
    _check_classes(found, parts, tried.num_outputs)
    outputs = f"{tried.num_outputs} output{'s' * (tried.num_outputs > 1)}"
    notes = [f"The module has {outputs} a target: a {found} task.", *tried.notes]
    return PreparedModules(
        factory=factory,
        task=found,
        x_train=train,
        x_validation=validation,
        x_test=test,
        num_outputs=tried.num_outputs,
        classes_last=tried.classes_last,
        has_batch_norm=tried.has_batch_norm,
        sizes=tried.sizes,
        num_features=tried.num_features,
        module_name=tried.name,
        module_sha256=tried.sha256,
        data_sha256=digest_of(parts),
        device=device,
        compile=compile,
        notes=notes + [note for part in parts for note in _notes_on(part)],
        diagnosis=_diagnosis(found, parts, max(tried.num_outputs, 2)),
    )


def _always_new(factory: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """The factory, which refuses to give one module twice: a run would go on from what another has learned."""
    last: Callable[[], Any] = lambda: None  # noqa: E731

    def make() -> nn.Module:
        nonlocal last
        module = factory()
        if module is not None and module is last():
            raise InputError(
                "The model factory gave the same module twice; it must make a new one each time "
                "(model=lambda: MyNet(), and not model=lambda: net)."
            )
        if isinstance(module, nn.Module):
            last = weakref.ref(module)
        return module

    return make


def _check_finite(rows: Rows) -> None:
    """No score can be had of targets that are no numbers, and no gradient.

    Raises:
        InputError: there are some.
    """
    if not rows.targets.is_floating_point():
        return
    odd = ~torch.isfinite(rows.targets)
    if odd.any():
        raise InputError(
            f"The {rows.name} data's targets hold {int(odd.sum())} that are NaN or infinite; leave these rows out, or "
            "replace them."
        )


def _diagnosis(task: Task, parts: Sequence[Rows], num_classes: int) -> list[dict[str, Any]]:
    """What the targets of the training rows look like to a loss."""
    if task == "regression":
        least = min(float(part.targets.min()) for part in parts)
        return diagnose(parts[0].targets.reshape(-1).double().numpy(), None, None, least)
    targets = parts[0].targets.reshape(-1)
    targets = targets[is_kept(targets)].to(torch.int64)
    return diagnose(targets.numpy(), range(num_classes), None, 0.0)


def check_device(device: str) -> None:
    """A device that torch has here.

    Raises:
        InputError: it is not to be had.
    """
    # Torch's own words for these two are lists and advice for those who build it.
    try:
        torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(
            f"The device {device!r} cannot be used: torch knows none of this name; give cpu, or cuda for a GPU."
        ) from None
    try:
        torch.empty(0, device=device)
    except (NotImplementedError, AssertionError):
        raise InputError(
            f"The device {device!r} cannot be used: the torch that is installed was built without it."
        ) from None
    except RuntimeError as error:
        raise InputError(f"The device {device!r} cannot be used: {told(error)}") from error


def _notes_on(rows: Rows) -> list[str]:
    """What is out of the ordinary about a part."""
    notes = []
    if rows.batches_are_own and rows.name == "train":
        notes.append("The order of the training rows and their batches are the loader's own sampler's.")
    if isinstance(rows.source, Tensors) and rows.source.inputs.is_floating_point():
        odd = int((~torch.isfinite(rows.source.inputs)).reshape(len(rows), -1).any(dim=1).sum())
        if odd:
            notes.append(f"The {rows.name} inputs hold NaN or infinity in {odd} of {len(rows)} rows.")
    if not rows.is_repeatable:
        notes.append(
            f"The {rows.name} inputs are other ones each time they are read, whatever the seed: their numbers come "
            "from a generator of their own. Runs cannot be repeated to the bit."
        )
    return notes


@dataclass(frozen=True)
class _Tried:
    """What one small batch shows."""

    name: str
    sha256: str
    num_outputs: int
    classes_last: bool
    has_batch_norm: bool
    sizes: StepSizes | None  # None: torch compiles the module, and what goes on within is not seen
    num_features: int
    notes: list[str]


def _try(factory: Callable[[], nn.Module], train: Rows, device: str) -> _Tried:
    """Make a module, and put one small batch through it."""
    engine = TorchEngine(factory, train, None, "regression", "rmse", device)
    with borrowed(0, engine.device):
        made = engine.make(0)
        batch = next(iter(train.batches(range(min(2, len(train))), 2)), None)
        if batch is None:
            raise InputError(
                "The train data gives nothing in a second pass; each epoch is a pass, so it has to begin again."
            )
        inputs, targets = batch
        with_batch_norm = has_batch_norm(made.train())
        made.eval()
        with torch.no_grad():
            output, sizes = sizes_of(made, len(targets), partial(engine.forward, made, inputs))
    num_outputs, classes_last = layout_of(output, targets.to(output.device))
    module = inner_module(made)
    compiled = (
        "The factory compiles its module; the saved weights have the names of the module inside, so load them into "
        "that: factory()._orig_mod."
    )
    return _Tried(
        name=type(module).__qualname__,
        sha256=_digest(module),
        num_outputs=num_outputs,
        classes_last=classes_last,
        has_batch_norm=with_batch_norm,
        sizes=sizes if module is made else None,
        num_features=inputs[0].numel() if isinstance(inputs, torch.Tensor) else 0,
        notes=[] if module is made else [compiled],
    )


def _digest(module: nn.Module) -> str:
    """Of what its runs cannot be told apart by: the kinds of its layers, the names, shapes and types of its weights."""
    layers = [(name, type(part).__qualname__) for name, part in module.named_modules()]
    weights = [
        (name, tuple(value.shape), str(value.dtype))
        for name, value in module.state_dict().items()
        if isinstance(value, torch.Tensor)
    ]
    return hashlib.sha256(repr((layers, weights)).encode()).hexdigest()


def _task(task: str, train: Rows, outputs: int) -> Task:
    if task == "auto" and train.targets.is_floating_point():
        return "regression"
    if task in ("classification", "auto"):
        return "binary" if outputs <= 2 else "multiclass"
    if task not in _TASKS:
        raise InputError(f"There is no task {task!r}{near_names(task, (*_TASKS, 'classification'))}")
    return task


def _check_classes(task: Task, parts: Sequence[Rows], outputs: int) -> None:
    if task == "regression":
        if outputs != 1:
            raise InputError(f"A regression module gives one output a row; this one gives {outputs}.")
        return
    if task == "multiclass" and outputs < 3:
        raise InputError(f"A multiclass module gives an output a class; this one gives {outputs} a row.")
    seen = [_indices(part, passes_over=outputs > 1) for part in parts]
    least, most = min(int(each.min()) for each in seen), max(int(each.max()) for each in seen)
    classes = max(outputs, 2)
    if least < 0 or most >= classes:
        raise InputError(
            f"Class indices run from {least} to {most}, and the module's outputs know {classes} classes: "
            f"0 to {classes - 1}. For numbers to predict, the task is 'regression'."
        )


def _indices(rows: Rows, passes_over: bool) -> torch.Tensor:
    """The class indices that count.

    Args:
        passes_over: the losses for one output a class pass over padding.

    Raises:
        InputError: one is no whole number, or none counts.
    """
    flat = rows.targets.reshape(-1)
    check_indices(flat)
    seen = flat.to(torch.int64)
    if passes_over:
        seen = seen[seen != IGNORED]
    if not len(seen):
        raise InputError(
            f"Every target of the {rows.name} data is {IGNORED}, which is passed over; there is nothing to learn or to "
            "score."
        )
    return seen
