"""The torch engine: any ``nn.Module``, an ordinary loop, the library's losses and optimizers."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steepest.errors import InputError, near_names
from steepest.losses import LOSSES
from steepest.losses.apply import softmax_loss
from steepest.optim import OPTIMIZERS
from steepest.training.metrics import METRICS
from steepest.training.native import (
    DIVERGENCE_FACTOR,
    check_range,
    class_terms,
    formula_of,
    loss_parameters,
    optimizer_of,
    rows_a_step,
    to_predictions,
)
from steepest.training.random import data_order
from steepest.training.run import Curve, Record, Run, Task
from steepest.training.torch_data import Rows

__all__ = ["TorchEngine"]

_AT_ONCE = 256  # rows a validation pass takes through the module together


class TorchEngine:
    """Trains modules made by a factory; the same records and stop conditions as the native engine.

    Runs go one after another (modules draw on torch's global random numbers), each from its own seed: the
    factory is called after ``torch.manual_seed(seed)``, so runs of one seed share initial weights, and the
    order of the rows is the native engine's for that seed.

    Args:
        factory: called without arguments, gives a fresh module. Its outputs are (rows,) or (rows, 1) for
            regression and for bce, (rows, classes) logits for cross_entropy.
        train, validation: the rows; validation may be None.
        task: regression, binary or multiclass.
        metric: the word of the metric that validation scores are in.
        device: where modules and batches go.
    """

    def __init__(
        self,
        factory: Callable[[], nn.Module],
        train: Rows,
        validation: Rows | None,
        task: Task,
        metric: str,
        device: str | torch.device = "cpu",
    ) -> None:
        self.factory, self.train, self.validation, self.task = factory, train, validation, task
        if metric not in METRICS:
            raise InputError(f"metric is {metric!r}{near_names(metric, METRICS)}")
        self.metric = METRICS[metric]
        self.device = torch.device(device)

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
            record = self._train(run, stop_event)
            records[index] = record
            if on_record is not None:
                on_record(index, record)
        return records

    def predict(self, run: Run, parameters: Any, features: Rows) -> NDArray[Any]:
        """Values (rows,) for regression, probabilities (rows, classes) for classes."""
        module = self.make(run.seed)
        module.load_state_dict(parameters)
        return self._predict(module, run, features)

    # --- one run ---------------------------------------------------------------------------------------------

    def _train(self, run: Run, stop_event: threading.Event | None) -> Record:
        started = time.perf_counter()
        loss_function = self._loss(run)
        optimizer_of(run)  # checks the options, so that a mistake is the user's and not the module's
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            module = self.make(run.seed)
            entry = OPTIMIZERS[run.optimizer]
            optimizer = entry.cls(
                module.parameters(), lr=run.lr, **{**entry.options, **run.optimizer_options}
            )
            progress = _Progress(run, self.metric.greater_is_better)
            epoch = 0
            while progress.reason is None:
                if run.stop.max_epochs is not None and epoch >= run.stop.max_epochs:
                    progress.reason = "epochs"
                    break
                self._epoch(run, epoch, module, loss_function, optimizer, progress, started, stop_event)
                epoch += 1
                progress.evaluate(epoch, self._validate(module, run), module)
                if self.validation is not None and math.isnan(progress.curve[-1][3]):
                    progress.reason = "diverged"
        group = optimizer.param_groups[0]
        return progress.record(
            hyperparameters={**entry.cls.hyperparameters_of(group), **loss_parameters(run)},
            seconds=time.perf_counter() - started,
            final=module,
        )

    def _epoch(
        self,
        run: Run,
        epoch: int,
        module: nn.Module,
        loss_function: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: _Progress,
        started: float,
        stop_event: threading.Event | None,
    ) -> None:
        n = len(self.train)
        batch_size = rows_a_step(run, n)
        order = np.arange(n) if batch_size == n else data_order(n, run.seed, epoch)
        module.train()
        for start in range(0, n, batch_size):
            inputs, targets = self.train.batch(order[start : start + batch_size])
            optimizer.zero_grad()
            outputs = self.forward(module, inputs)
            loss = loss_function(*self._fit_shapes(run, outputs, targets.to(self.device)))
            loss.backward()
            if progress.step_allowed(float(loss.detach()), len(targets), module):
                optimizer.step()
                progress.count_step()
            if stop_event is not None and stop_event.is_set():
                progress.reason = "interrupted"
            elif run.stop.max_sec is not None and time.perf_counter() - started >= run.stop.max_sec:
                progress.reason = progress.reason or "seconds"
            if progress.reason is not None:
                return

    def _validate(self, module: nn.Module, run: Run) -> float:
        if self.validation is None:
            return math.nan
        predictions = self._predict(module, run, self.validation)
        if not np.isfinite(predictions).all():
            return math.nan
        return self.metric.compute(self.validation.targets.numpy(), predictions)

    def _predict(self, module: nn.Module, run: Run, rows: Rows) -> NDArray[Any]:
        module.eval()
        outputs = []
        with torch.no_grad():
            for start in range(0, len(rows), _AT_ONCE):
                inputs, _ = rows.batch(np.arange(start, min(start + _AT_ONCE, len(rows))))
                output = self.forward(module, inputs)
                outputs.append(output.reshape(len(output), -1).float().cpu())
        together = torch.cat(outputs).numpy()
        formula = formula_of(run.loss)
        if formula.prediction == "probability":  # the module's own last word, no logit
            wide = together.astype(np.float64)
            return np.concatenate([1.0 - wide, wide], axis=1)
        return to_predictions(together, formula)

    # --- what goes into a run ----------------------------------------------------------------------------------

    def make(self, seed: int) -> nn.Module:
        """A fresh module, its weights drawn from the seed.

        Raises:
            InputError: the factory fails, or gives something else.
        """
        torch.manual_seed(seed)
        try:
            module = self.factory()
        except Exception as error:
            raise InputError(f"The model factory failed: {type(error).__name__}: {error}.") from error
        if not isinstance(module, nn.Module):
            raise InputError(
                f"The model factory gave a {type(module).__name__}; it must give a torch.nn.Module."
            )
        if not any(parameter.requires_grad for parameter in module.parameters()):
            raise InputError("The model factory's module has no parameter that can be trained.")
        return module.to(self.device)

    def forward(self, module: nn.Module, inputs: Any) -> Tensor:
        """A batch through a module.

        Raises:
            InputError: the module fails, or gives something else than a tensor.
        """
        try:
            output = module(_moved(inputs, self.device))
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"The model failed on a batch: {type(error).__name__}: {error}.") from error
        if not isinstance(output, Tensor):
            raise InputError(f"The model gave a {type(output).__name__}; it must give one tensor.")
        return output

    def _loss(self, run: Run) -> nn.Module:
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
            return _OfClasses(run.loss, self.train.targets).to(self.device)
        loss: nn.Module = LOSSES[run.loss](**options)
        return loss.to(self.device)

    def _fit_shapes(self, run: Run, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (rows, 1) meet targets (rows,): the one reshaping that cannot be meant otherwise."""
        if formula_of(run.loss).family == "softmax":
            if outputs.dim() < 2 or outputs.shape[1] < 2:
                raise InputError(
                    f"loss {run.loss} needs one output a class, (rows, classes); the model gave {tuple(outputs.shape)}."
                )
            # Labels 0.0, 1.0, ... as a table may hold them.
            return outputs, targets.to(torch.int64) if targets.dim() < outputs.dim() else targets
        if self.task != "multiclass" and outputs.shape == (*targets.shape, 1):
            outputs = outputs.squeeze(-1)
        if self.task != "regression":
            # A logit meets a 0 or a 1, a row of logits meets a class index.
            targets = targets.to(outputs.dtype) if outputs.shape == targets.shape else targets.to(torch.int64)
        return outputs, targets


class _OfClasses(nn.Module):
    """A softmax loss fitted to the classes' sizes: the mean over a batch's rows, as in the native engine."""

    weight: Tensor
    offset: Tensor

    def __init__(self, loss: str, targets: Tensor) -> None:
        super().__init__()
        self.formula = formula_of(loss)
        num_classes = targets.shape[1] if targets.dim() == 2 else int(targets.max()) + 1
        weight, offset = class_terms(self.formula, targets.numpy(), num_classes)
        self.register_buffer("weight", torch.as_tensor(weight))
        self.register_buffer("offset", torch.as_tensor(offset))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return softmax_loss(
            self.formula, outputs, targets, weight=self.weight, offset=self.offset, reduction="none"
        ).mean()


def _moved(inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    if isinstance(inputs, (list, tuple)):
        return type(inputs)(_moved(part, device) for part in inputs)
    if isinstance(inputs, dict):
        return {key: _moved(part, device) for key, part in inputs.items()}
    return inputs


class _Progress:
    """Where a run stands: steps, examples, curve, best weights, and why it ended."""

    def __init__(self, run: Run, greater_is_better: bool) -> None:
        self.run, self.greater_is_better = run, greater_is_better
        self.reason: str | None = None
        self.steps = self.examples = 0
        self.limit = math.inf
        self.best_epoch, self.best_score = 0, math.nan
        self.best_state: dict[str, Any] | None = None
        self.curve: list[tuple[int, int, float, float]] = []
        self._loss_sum, self._loss_rows, self._first_loss = 0.0, 0, math.nan

    def step_allowed(self, loss: float, rows: int, module: nn.Module) -> bool:
        """Note a batch's loss; False where the run ends before this step."""
        self._loss_sum += loss * rows
        self._loss_rows += rows
        self.examples += rows
        self._first_loss = loss if self.steps == 0 else self._first_loss
        least = self.run.stop.min_gradient_norm
        if not math.isfinite(loss) or loss > self.limit:
            self.reason = "diverged"
        elif least is not None and least > 0 and _gradient_norm(module) <= least:
            self.reason = "gradient_norm"
        return self.reason is None

    def count_step(self) -> None:
        self.steps += 1
        if self.steps == 1:
            self.limit = DIVERGENCE_FACTOR * (1.0 + self._first_loss)
        if self.run.stop.max_steps is not None and self.steps >= self.run.stop.max_steps:
            self.reason = "steps"

    def evaluate(self, epoch: int, score: float, module: nn.Module) -> None:
        """Note the score at an epoch's end; keep the weights where it is the best so far."""
        mean_loss = self._loss_sum / max(self._loss_rows, 1)
        self.curve.append((epoch, self.steps, mean_loss, score))
        self._loss_sum, self._loss_rows = 0.0, 0
        stop = self.run.stop
        if math.isnan(score):
            return
        if self.best_epoch == 0 or self._better(score, self.best_score):
            self.best_epoch, self.best_score = len(self.curve), score
            self.best_state = copy.deepcopy(module.state_dict())
        if self.reason is None:
            if stop.target_metric is not None and not self._better(stop.target_metric, score):
                self.reason = "target_metric"
            elif stop.patience and len(self.curve) - self.best_epoch >= stop.patience:
                self.reason = "patience"

    def _better(self, a: float, b: float) -> bool:
        return a > b if self.greater_is_better else a < b

    def record(self, hyperparameters: dict[str, float], seconds: float, final: nn.Module) -> Record:
        diverged = self.reason == "diverged"
        marks = np.array(self.curve, dtype=np.float64).reshape(-1, 4)
        return Record(
            run=self.run,
            hyperparameters=hyperparameters,
            num_epochs=len(self.curve),
            num_steps=self.steps,
            num_examples=self.examples,
            stop_reason=self.reason or "epochs",
            best_epoch=0 if diverged else self.best_epoch,
            validation_score=math.nan if diverged else self.best_score,
            curve=Curve(marks[:, 0].astype(np.int64), marks[:, 1].astype(np.int64), marks[:, 2], marks[:, 3]),
            seconds=seconds,
            parameters=self.best_state if self.best_state is not None else copy.deepcopy(final.state_dict()),
        )


def _gradient_norm(module: nn.Module) -> float:
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))
