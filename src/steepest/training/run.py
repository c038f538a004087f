"""A run, and the record of one: what the engines take and what they give back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

# In place of a task, a loss or a batch size: that is the affair of a training function of the user's own.
OWN: Final = "own"
Task = Literal["regression", "binary", "multiclass", "own"]
BatchSize = int | Literal["full", "own"]

STOP_REASONS = (
    "epochs",  # max_epochs reached
    "steps",  # max_steps reached
    "seconds",  # max_sec reached
    "patience",  # no better validation score for `patience` evaluations
    "gradient_norm",  # a step's gradient norm fell to min_gradient_norm
    "target_metric",  # the validation score reached target_metric
    "diverged",  # NaN, infinity, or a loss beyond all reason
    "interrupted",  # stopped from outside (Ctrl-C)
)


@dataclass(frozen=True)
class Stop:
    """When a run ends: at the first condition that holds. ``None`` switches a condition off."""

    max_epochs: int | None = 100
    max_steps: int | None = None
    max_sec: float | None = None
    patience: int | None = None
    min_gradient_norm: float | None = None
    target_metric: float | None = None  # in the metric's own (original) units


@dataclass(frozen=True)
class Architecture:
    """A multi-layer perceptron; ``hidden=()`` is a linear model."""

    hidden: tuple[int, ...] = (64, 64)
    activation: str = "relu"


@dataclass(frozen=True)
class Run:
    """Everything that decides a run's result, the data apart. Names are the registries' own."""

    loss: str
    optimizer: str
    lr: float
    batch_size: BatchSize = 32
    seed: int = 0
    architecture: Architecture = Architecture()
    stop: Stop = Stop()
    loss_options: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    optimizer_options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    schedule: str = "constant"
    warmup: float = 0.0  # the share of the steps over which the rate rises
    schedule_epochs: int | None = (
        None  # the schedule goes over; None: the run's own, however early it is stopped
    )


def has_classes(task: Task) -> bool:
    """Whether what is predicted are the probabilities of classes."""
    return task in ("binary", "multiclass")


def regime(batch_size: BatchSize, schedule: str) -> str:
    """What a run's batches and rate are called together: ``"32"``, or ``"32 cosine"`` where the rate does not stay."""
    return str(batch_size) if schedule == "constant" else f"{batch_size} {schedule}"


def named_apart(optimizer: Mapping[str, float], loss: Mapping[str, float]) -> dict[str, float]:
    """Hyperparameters of both; a loss's that is called as one of the optimizer's is ``loss_<name>``."""
    own = {f"loss_{name}" if name in optimizer else name: value for name, value in loss.items()}
    return {**optimizer, **own}


@dataclass(frozen=True)
class TrainingData:
    """Encoded rows, as the engines take them.

    Features are float32 of shape (rows, features). Targets are float32 of shape (rows,) for
    regression (standardised on the training rows) and for binary tasks (0 or 1), int64 class indices
    of shape (rows,) for multi-class tasks. ``target_scale`` turns an error in standardised units into
    the target's own units (1 for classes), and ``target_mean`` is the target that 0 stands for: a loss whose
    model gives the logarithm of a mean needs both, for it has no use for targets below 0.
    """

    task: Task
    num_classes: int  # 1 for regression, 2 for binary
    x_train: NDArray[np.float32]
    y_train: NDArray[Any]
    x_validation: NDArray[np.float32]
    y_validation: NDArray[Any]
    target_scale: float = 1.0
    target_mean: float = 0.0
    weights: NDArray[np.float64] | None = None  # of the training rows, from 0; None: each counts once


@dataclass
class Curve:
    """What was measured on the way, one entry an evaluation (at each epoch's end)."""

    epoch: NDArray[np.int64]
    step: NDArray[np.int64]
    train_loss: NDArray[np.float64]  # mean loss of the steps since the last evaluation, loss's own units
    validation_score: NDArray[np.float64]  # the metric, in original units; NaN without validation rows
    # Examples seen and seconds since the start, where an engine counts them on the way; else empty.
    examples: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.empty(0, np.float64))


@dataclass
class Record:
    """What a run gave."""

    run: Run
    hyperparameters: dict[str, float]  # read back from the live run, not from the request
    num_epochs: int
    num_steps: int
    num_examples: int
    stop_reason: str  # one of STOP_REASONS
    best_epoch: int  # the evaluation whose weights were kept (1-based; 0: none)
    validation_score: float  # at best_epoch, original units; NaN where diverged or no validation rows
    curve: Curve
    seconds: float
    # native engine: flat, torch's layout (weight (out, in), then bias) layer by layer; torch engine: state_dict
    parameters: Any
    is_recalled: bool = False  # read back from an earlier call, not run in this one

    @property
    def diverged(self) -> bool:
        """Whether the run left all reason: NaN, infinity, or a loss far beyond the first."""
        return self.stop_reason == "diverged"
