"""The torch engine: any ``nn.Module``, an ordinary loop, the library's losses and optimizers."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from steepest.errors import InputError, near_names, told
from steepest.losses import LOSSES
from steepest.losses.apply import softmax_loss
from steepest.losses.formula import LossFormula
from steepest.optim import OPTIMIZERS
from steepest.schedules.course import Course
from steepest.training.layout import alike, class_rows, is_kept, rows_of_outputs
from steepest.training.metrics import METRICS, Metric
from steepest.training.native import (
    KINDS,
    check_range,
    class_terms,
    formula_of,
    loss_parameters,
    optimizer_of,
    rows_a_step,
    to_predictions,
)
from steepest.training.progress import Progress
from steepest.training.random import data_order, epoch_seed
from steepest.training.rates import course_of, has_course, set_rate
from steepest.training.run import Record, Run, Task, named_apart
from steepest.training.seeds import borrowed, seed_all
from steepest.training.step_sizes import StepSizes, threads_for
from steepest.training.torch_data import Rows

__all__ = [
    "SCORING_SEED",
    "OfClasses",
    "Stopped",
    "TorchEngine",
    "backward",
    "float_type",
    "has_batch_norm",
    "inner_module",
    "moved",
    "outputs_of",
    "predictions_of",
    "readable",
    "score_of",
    "take_step",
    "with_gradients",
]

SCORING_SEED = 0  # what validation data draw, the same each time: a score depends on the weights alone


class Stopped(Exception):
    """The user asked to stop, in the middle of a pass: what is left of it is not waited for."""


class TorchEngine:
    """Trains modules made by a factory; the same records and stop conditions as the native engine.

    Runs go one after another (modules and data sets draw on global random numbers), each from its own seed: the
    factory is called after all generators were seeded with it, so runs of one seed share initial weights, and the
    order of the rows is the native engine's for that seed. Every epoch begins from a seed of its own. The
    caller's random numbers stay where they were.

    Args:
        factory: called without arguments, gives a fresh module. Its outputs have the targets' shape (or one axis of
            one more) for regression and for bce; for cross_entropy they are logits, (rows, classes, ...).
        train, validation: the rows; validation may be None.
        task: regression, binary or multiclass.
        metric: the word of the metric that validation scores are in.
        device: where modules and batches go.
        classes_last: logits are (rows, ..., classes).
        compile: whether modules go through ``torch.compile``.
        sizes: of a step's tensors, where they are known: small steps are taken on one thread.
    """

    def __init__(
        self,
        factory: Callable[[], nn.Module],
        train: Rows,
        validation: Rows | None,
        task: Task,
        metric: str,
        device: str | torch.device = "cpu",
        classes_last: bool = False,
        compile: bool = False,
        sizes: StepSizes | None = None,
    ) -> None:
        self.factory, self.train, self.validation, self.task = factory, train, validation, task
        if metric not in METRICS:
            raise InputError(f"metric is {metric!r}{near_names(metric, METRICS)}")
        self.metric = METRICS[metric]
        self.device = torch.device(device)
        self.classes_last, self.compile = classes_last, compile
        self.sizes = None if compile else sizes

    def run_all(
        self,
        runs: Sequence[Run],
        *,
        num_threads: int | None = None,
        on_record: Callable[[int, Record], None] | None = None,
        stop_event: threading.Event | None = None,
    ) -> list[Record | None]:
        """Train every run, one after another; see :meth:`NativeEngine.run_all`."""
        records: list[Record | None] = [None] * len(runs)
        for index, run in enumerate(runs):
            if stop_event is not None and stop_event.is_set():
                break
            with self._threads_for(run):
                record = self._train(run, stop_event)
            records[index] = record
            if on_record is not None:
                on_record(index, record)
        return records

    def predict(self, run: Run, parameters: Any, features: Rows) -> NDArray[Any]:
        """Values (targets,) for regression, probabilities (targets, classes) for classes: one for each target that
        counts, in the order of the rows' flat targets."""
        with borrowed(run.seed, self.device), self._threads_for(run):
            module = self.make(run.seed)
            inner_module(module).load_state_dict(parameters)
            return self._predict(module, run, features)

    # --- one run ---------------------------------------------------------------------------------------------

    def _threads_for(self, run: Run) -> AbstractContextManager[None]:
        return threads_for(self.sizes, rows_a_step(run, len(self.train)), self.device)

    def _train(self, run: Run, stop_event: threading.Event | None) -> Record:
        started = time.perf_counter()
        loss_function = self.loss(run)
        optimizer_of(run)  # checks the options, so that a mistake is the user's and not the module's
        with borrowed(run.seed, self.device):
            module = self.make(run.seed)
            optimizer = self.optimizer(run, module)
            course = self.course(run, module.train())
            progress = Progress(run, self.metric.greater_is_better, lambda: time.perf_counter() - started)
            epoch = 0
            while not progress.has_all_epochs(epoch):
                try:
                    self._epoch(run, epoch, module, loss_function, optimizer, course, progress, stop_event)
                    score = self._validate(module, run, stop_event)
                except Stopped:
                    progress.reason = "interrupted"
                    break
                except InputError:
                    if stop_event is None or not stop_event.is_set():
                        raise
                    progress.reason = "interrupted"  # Ctrl-C ends a loader's workers too
                    break
                epoch += 1
                progress.evaluate(epoch, score, lambda: _state(module), self.validation is not None)
        set_rate(optimizer, run.lr)
        return progress.record(
            hyperparameters=named_apart(
                OPTIMIZERS[run.optimizer].cls.hyperparameters_of(optimizer.param_groups[0]),
                loss_parameters(run),
            ),
            parameters=_state(module) if progress.best_state is None else progress.best_state,
        )

    def _epoch(
        self,
        run: Run,
        epoch: int,
        module: nn.Module,
        loss_function: nn.Module,
        optimizer: torch.optim.Optimizer,
        course: Course | None,
        progress: Progress,
        stop_event: threading.Event | None,
    ) -> None:
        seed_all(epoch_seed(run.seed, epoch), self.device)
        module.train()
        for inputs, targets in self.batches(run, epoch, module):
            optimizer.zero_grad()
            outputs = self.forward(module, inputs)
            loss = self.loss_of(run, loss_function, outputs, targets.to(self.device))
            backward(loss)
            if progress.step_allowed(float(loss.detach()), len(targets), lambda: _gradient_norm(module)):
                if course is not None:
                    set_rate(optimizer, run.lr * course.factor(progress.steps))
                take_step(optimizer, run.optimizer)
                progress.count_step()
            if stop_event is not None and stop_event.is_set():
                raise Stopped
            progress.look_at_time()
            if progress.reason is not None:
                return

    def batches(self, run: Run, epoch: int, module: nn.Module) -> Iterator[tuple[Any, Tensor]]:
        """An epoch's batches. A short last one is left out where the loader says so, and where it is one lone row
        and the module has batch norm, which cannot learn from it; another row each epoch."""
        n = len(self.train)
        batch_size = rows_a_step(run, n)
        order = np.arange(n) if batch_size == n else data_order(n, run.seed, epoch)
        least = self._least_rows(batch_size, module)
        for number, (inputs, targets) in enumerate(self.train.batches(order.tolist(), batch_size)):
            if number == 0 or len(targets) >= least:
                yield inputs, targets

    def course(self, run: Run, module: nn.Module) -> Course | None:
        """The run's schedule over its steps, as many an epoch as :meth:`batches` gives; None: a constant rate.

        Raises:
            InputError: how many there are is not known before the loader is gone through.
        """
        if has_course(run) and self.train.batches_are_own:
            raise InputError(
                "The train loader's own sampler decides the batches, so the number of steps, which a schedule or a "
                "warm-up needs, is not known beforehand; leave these out, or give the data set."
            )
        n = len(self.train)
        batch_size = rows_a_step(run, n)
        whole, rest = divmod(n, batch_size)
        return course_of(run, whole + (rest >= self._least_rows(batch_size, module) if rest else 0))

    def _least_rows(self, batch_size: int, module: nn.Module) -> int:
        """Fewer are no step, where they are the last of several."""
        if self.train.drops_last:
            return batch_size
        return 2 if batch_size > 1 and has_batch_norm(module) else 1

    def _validate(self, module: nn.Module, run: Run, stop_event: threading.Event | None) -> float:
        if self.validation is None:
            return math.nan
        outputs = self._outputs(module, run, self.validation, stop_event)
        return score_of(self.metric, self.scored(self.validation), outputs, formula_of(run.loss))

    def scored(self, rows: Rows) -> NDArray[Any]:
        """The targets that a score is worked out from: flat, without ignored classes."""
        flat = rows.targets.reshape(-1)
        return (flat if self.task == "regression" else flat[is_kept(flat)]).numpy()

    def _predict(
        self, module: nn.Module, run: Run, rows: Rows, stop_event: threading.Event | None = None
    ) -> NDArray[Any]:
        return predictions_of(self._outputs(module, run, rows, stop_event), formula_of(run.loss))

    def _outputs(
        self, module: nn.Module, run: Run, rows: Rows, stop_event: threading.Event | None = None
    ) -> NDArray[Any]:
        flat = []
        for output, targets in outputs_of(module, rows, self.device):
            if stop_event is not None and stop_event.is_set():
                raise Stopped
            flat.append(self.flat_outputs(run, output, targets))
        return torch.cat(flat).numpy()

    def flat_outputs(self, run: Run, outputs: Tensor, targets: Tensor) -> Tensor:
        """What a score is worked out from, (targets, outputs a target) in the main memory, without ignored classes.

        Raises:
            InputError: outputs and targets do not belong together.
        """
        flat = rows_of_outputs(outputs, formula_of(run.loss).family == "softmax", self.classes_last)
        if len(flat) != targets.numel():
            raise InputError(
                f"The model gave outputs of shape {tuple(outputs.shape)} for targets of shape "
                f"{tuple(targets.shape)}; they do not belong together."
            )
        kept = is_kept(targets.reshape(-1)) if self.task != "regression" else slice(None)
        return readable(flat)[kept]

    # --- what goes into a run ----------------------------------------------------------------------------------

    def make(self, seed: int) -> nn.Module:
        """A fresh module, its weights drawn from the seed.

        Raises:
            InputError: the factory fails, or gives something else.
        """
        with borrowed(seed, self.device):
            try:
                module = self.factory()
            except InputError:
                raise
            except Exception as error:
                raise InputError(f"The model factory failed: {told(error)}") from error
        if not isinstance(module, nn.Module):
            raise InputError(
                f"The model factory gave a {type(module).__name__}; it must give a torch.nn.Module."
            )
        if not any(parameter.requires_grad for parameter in module.parameters()):
            raise InputError("The model factory's module has no parameter that can be trained.")
        if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
            raise InputError(
                "The model factory's module is on the meta device, where weights have no numbers; make it on the CPU."
            )
        module = module.to(self.device)
        return torch.compile(module) if self.compile and inner_module(module) is module else module  # type: ignore[return-value]

    def forward(self, module: nn.Module, inputs: Any) -> Tensor:
        """A batch through a module.

        Raises:
            InputError: the module fails, or gives something else than a tensor.
        """
        return _output(module, inputs, self.device)

    def optimizer(self, run: Run, module: nn.Module) -> torch.optim.Optimizer:
        """The run's optimizer over the module's parameters.

        Raises:
            InputError: it refuses them.
        """
        entry = OPTIMIZERS[run.optimizer]
        try:
            optimizer: torch.optim.Optimizer = entry.cls(
                module.parameters(), lr=run.lr, **{**entry.options, **run.optimizer_options}
            )
        except ValueError as error:
            raise InputError(
                f"The optimizer {run.optimizer} cannot train this module: {told(error)}"
            ) from error
        return optimizer

    def loss(self, run: Run) -> nn.Module:
        """The run's loss, with what it takes from the training targets.

        Raises:
            InputError: it is for another task, or takes no such targets.
        """
        formula = formula_of(run.loss)
        if self.task not in formula.tasks:
            raise InputError(
                f"loss {run.loss} is for {' and '.join(formula.tasks) or 'your own code'}, "
                f"not for a {self.task} task."
            )
        if formula.prediction == "log_rate":
            check_range(formula, float(self.train.targets.min()))
        options: dict[str, Any] = loss_parameters(run)
        if "pos_weight" in options:
            options["pos_weight"] = torch.tensor(options["pos_weight"])
        if formula.class_terms is not None:
            return OfClasses(run.loss, self.train.targets).to(self.device)
        loss: nn.Module = LOSSES[run.loss](**options)
        return loss.to(self.device)

    def loss_of(self, run: Run, loss_function: nn.Module, outputs: Tensor, targets: Tensor) -> Tensor:
        """A batch's loss.

        Raises:
            InputError: outputs and targets do not belong together, or the loss fails on them.
        """
        outputs, targets = self.fit_shapes(run, outputs, targets)
        try:
            loss: Tensor = loss_function(outputs, targets)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"The loss {run.loss} failed on outputs {tuple(outputs.shape)} and targets "
                f"{tuple(targets.shape)}: {told(error)}"
            ) from error
        return loss

    def fit_shapes(self, run: Run, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and targets as the loss takes them; see :mod:`steepest.training.layout`."""
        if formula_of(run.loss).family == "softmax":
            if outputs.dim() < 2 or outputs.shape[-1 if self.classes_last else 1] < 2:
                raise InputError(
                    f"loss {run.loss} needs one output a class, (rows, classes); the model gave {tuple(outputs.shape)}."
                )
            outputs, targets = class_rows(outputs, targets, self.classes_last)
            # Labels 0.0, 1.0, ... as a table may hold them.
            return outputs, targets.to(torch.int64) if targets.dim() < outputs.dim() else targets
        if self.task != "multiclass":
            outputs, targets = alike(outputs, targets)
        if outputs.dtype == torch.float64 and targets.is_floating_point():
            targets = targets.to(outputs.dtype)
        if self.task != "regression":
            # A logit meets a 0 or a 1, a row of logits meets a class index.
            targets = targets.to(outputs.dtype) if outputs.shape == targets.shape else targets.to(torch.int64)
        return outputs, targets


def outputs_of(module: nn.Module, rows: Rows, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """What a module at rest makes of the rows, with their targets, batch by batch; it lies on the device already.

    Raises:
        InputError: the module fails, or gives something else than a tensor.
    """
    seed_all(SCORING_SEED, device)
    module.eval()
    with torch.no_grad():
        for inputs, targets in rows.passed():
            yield _output(module, inputs, device), targets


def _output(module: nn.Module, inputs: Any, device: torch.device) -> Tensor:
    try:
        output = module(moved(inputs, device, float_type(module)))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"The model failed on a batch: {told(error)}") from error
    if not isinstance(output, Tensor):
        raise InputError(
            f"The model gave a {type(output).__name__}; it must give one tensor. A recurrent layer's (output, state), "
            "say, is to be put in a module whose forward returns the output alone."
        )
    return output


def predictions_of(outputs: NDArray[Any], formula: LossFormula) -> NDArray[Any]:
    """From outputs (targets, outputs) to values (targets,), or probabilities (targets, classes)."""
    if formula.prediction == "probability":  # the module's own last word, no logit
        wide = outputs.astype(np.float64)
        return np.concatenate([1.0 - wide, wide], axis=1)
    return to_predictions(outputs, formula)


def score_of(metric: Metric, targets: NDArray[Any], outputs: NDArray[Any], formula: LossFormula) -> float:
    """A metric of a module's outputs (targets, outputs a target); NaN where a prediction is not finite."""
    if not np.isfinite(outputs).all():
        predictions = predictions_of(outputs, formula)
        return metric.compute(targets, predictions) if np.isfinite(predictions).all() else math.nan
    if metric.is_users_own or formula.prediction == "probability":
        return metric.compute(targets, predictions_of(outputs, formula))
    score = metric.of_outputs(targets, outputs, KINDS[formula.prediction])
    return score if math.isfinite(score) else math.nan


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a part of the module learns from a batch's spread, which one row has none of."""
    return any(isinstance(part, _BatchNorm) and part.training for part in module.modules())


def inner_module(module: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` wrapped, whose weights have their own names; else the module itself."""
    inner = getattr(module, "_orig_mod", module)
    return inner if isinstance(inner, nn.Module) else module


def backward(loss: Tensor) -> None:
    """The gradient of a loss.

    Raises:
        InputError: the module's own part of it fails.
    """
    try:
        loss.backward()
    except Exception as error:
        raise InputError(f"The gradient through the model failed: {told(error)}") from error


def take_step(optimizer: torch.optim.Optimizer, word: str) -> None:
    """A step of the optimizer of that name.

    Raises:
        InputError: the module gives sparse gradients, and it does not take them.
    """
    try:
        optimizer.step()
    except Exception as error:
        gradients = (p.grad for group in optimizer.param_groups for p in group["params"])
        if not any(gradient is not None and gradient.is_sparse for gradient in gradients):
            raise
        raise InputError(
            f"The optimizer {word} takes no sparse gradients, and the module's embeddings give such; make them with "
            "sparse=False."
        ) from error


class OfClasses(nn.Module):
    """A softmax loss fitted to the classes' sizes: the mean over a batch's rows, as in the native engine.

    Args:
        loss: its word.
        targets: the training rows' class indices, or their probabilities (rows, classes).
        num_classes: None: as many as the targets show.
    """

    weight: Tensor
    offset: Tensor
    normalizer: float | None = None  # what a mean divides by, where other rows share the step

    def __init__(self, loss: str, targets: Tensor, num_classes: int | None = None) -> None:
        super().__init__()
        self.formula = formula_of(loss)
        if targets.is_floating_point() and targets.dim() == 2:  # shares of the classes
            num_classes = targets.shape[1]
        else:
            targets = targets.reshape(-1)
            targets = targets[is_kept(targets)]
            num_classes = int(targets.max()) + 1 if num_classes is None else num_classes
        weight, offset = class_terms(self.formula, targets.numpy(), num_classes)
        self.register_buffer("weight", torch.as_tensor(weight))
        self.register_buffer("offset", torch.as_tensor(offset))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over the rows, or their sum over ``normalizer``."""
        losses = softmax_loss(
            self.formula, outputs, targets, weight=self.weight, offset=self.offset, reduction="none"
        )
        if self.normalizer is not None:
            return losses.sum() / self.normalizer
        return losses.sum() / is_kept(targets).sum() if targets.dim() < outputs.dim() else losses.mean()


@contextmanager
def with_gradients() -> Iterator[None]:
    """Gradients, whatever the caller has switched off around it: who asks for a training asks for them."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def float_type(module: nn.Module) -> torch.dtype | None:
    """The type of a module's numbers; None where it has several, or none: then inputs are taken as they come."""
    found = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    return found.pop() if len(found) == 1 else None


def moved(inputs: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """A batch's inputs on a device: tensors in tuples, lists and dictionaries, and whatever has a ``to``.

    Args:
        dtype: of tensors of floating point; None: their own.
    """
    if isinstance(inputs, Tensor):
        # One after the other: not every device has the type they come in.
        return (inputs.to(dtype) if dtype is not None and inputs.is_floating_point() else inputs).to(device)
    if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
        return type(inputs)(*(moved(part, device, dtype) for part in inputs))
    if isinstance(inputs, (list, tuple)):
        return type(inputs)(moved(part, device, dtype) for part in inputs)
    if isinstance(inputs, dict):
        return {key: moved(part, device, dtype) for key, part in inputs.items()}
    return inputs.to(device) if hasattr(inputs, "to") else inputs


def readable(outputs: Tensor) -> Tensor:
    """Outputs in the main memory, of a type that numpy has: their own where it is float64."""
    return (outputs if outputs.dtype == torch.float64 else outputs.float()).cpu()


def _state(module: nn.Module) -> dict[str, Any]:
    """A copy of the weights, in the main memory: a comparison keeps those of many runs."""
    return {
        name: value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in inner_module(module).state_dict().items()
    }


def _gradient_norm(module: nn.Module) -> float:
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))
