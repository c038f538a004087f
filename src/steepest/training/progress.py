"""Where a run of a module stands, whichever engine trains it: steps, curve, best weights, and why it ended."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steepest.training.native import DIVERGENCE_FACTOR
from steepest.training.run import Curve, Record, Run

__all__ = ["Progress"]


class _Mark(NamedTuple):
    """What is known at an epoch's end."""

    epoch: int
    step: int
    train_loss: float
    score: float
    examples: int
    seconds: float


class Progress:
    """One run's stop conditions and its record in the making.

    Args:
        run: whose conditions hold.
        greater_is_better: which way the metric goes.
        clock: the seconds the run has taken so far.
    """

    def __init__(self, run: Run, greater_is_better: bool, clock: Callable[[], float]) -> None:
        self.run, self.greater_is_better, self._clock = run, greater_is_better, clock
        self.reason: str | None = None
        self.steps = self.examples = 0
        self.limit = math.inf
        self.best_epoch, self.best_score = 0, math.nan
        self.best_state: Any = None
        self.curve: list[_Mark] = []
        self._loss_sum, self._loss_rows, self._first_loss = 0.0, 0, math.nan

    @property
    def seconds(self) -> float:
        """The run has taken so far."""
        return self._clock()

    def step_allowed(self, loss: float, rows: int, gradient_norm: Callable[[], float]) -> bool:
        """Note a batch's loss; False where the run ends before this step."""
        self._loss_sum += loss * rows
        self._loss_rows += rows
        self.examples += rows
        self._first_loss = loss if self.steps == 0 else self._first_loss
        least = self.run.stop.min_gradient_norm
        if not math.isfinite(loss) or loss > self.limit:
            self.reason = "diverged"
        elif least is not None and least > 0 and gradient_norm() <= least:
            self.reason = "gradient_norm"
        return self.reason is None

    def count_step(self) -> None:
        """Note that the step was taken."""
        self.steps += 1
        if self.steps == 1:
            self.limit = DIVERGENCE_FACTOR * (1.0 + self._first_loss)
        if self.run.stop.max_steps is not None and self.steps >= self.run.stop.max_steps:
            self.reason = "steps"

    def note_steps(self, loss_sum: float, rows: int, steps: int, first_loss: float) -> None:
        """Note some batches at once, whose steps were allowed; the last one's may not have been.

        Args:
            loss_sum, rows: of all of them, each loss times its rows.
            steps: how many were counted.
            first_loss: of the first batch.
        """
        self._loss_sum += loss_sum
        self._loss_rows += rows
        self.examples += rows
        if math.isnan(self._first_loss):
            self._first_loss = first_loss
        if self.steps == 0 and steps:
            self.limit = DIVERGENCE_FACTOR * (1.0 + self._first_loss)
        self.steps += steps

    @property
    def ends_by_loss_alone(self) -> bool:
        """Whether nothing but a batch's loss can end the run within an epoch."""
        stop = self.run.stop
        return stop.max_steps is None and stop.max_sec is None and not (stop.min_gradient_norm or 0.0) > 0.0

    def look_at_time(self) -> None:
        """End the run where its time is over."""
        if self.run.stop.max_sec is not None and self.seconds >= self.run.stop.max_sec:
            self.reason = self.reason or "seconds"

    def has_all_epochs(self, epoch: int) -> bool:
        """Whether so many epochs are all that was asked for; then the run has ended."""
        if self.run.stop.max_epochs is not None and epoch >= self.run.stop.max_epochs:
            self.reason = self.reason or "epochs"  # it may have diverged in its last
        return self.reason is not None

    def evaluate(self, epoch: int, score: float, state: Callable[[], Any], is_scored: bool) -> None:
        """Note the score at an epoch's end; keep the weights where it is the best so far.

        Args:
            epoch: counted from 1.
            score: NaN where a prediction is not finite, or nothing was predicted.
            state: gives a copy of the weights.
            is_scored: whether there are validation rows, so that a NaN is a divergence.
        """
        mean_loss = self._loss_sum / max(self._loss_rows, 1)
        self.curve.append(_Mark(epoch, self.steps, mean_loss, score, self.examples, self.seconds))
        self._loss_sum, self._loss_rows = 0.0, 0
        if math.isnan(score):
            self.reason = "diverged" if is_scored else self.reason
            return
        if self.best_epoch == 0 or self._better(score, self.best_score):
            self.best_epoch, self.best_score = len(self.curve), score
            self.best_state = state()
        stop = self.run.stop
        if self.reason is None:
            if stop.target_metric is not None and not self._better(stop.target_metric, score):
                self.reason = "target_metric"
            elif stop.patience and len(self.curve) - self.best_epoch >= stop.patience:
                self.reason = "patience"

    def _better(self, a: float, b: float) -> bool:
        return a > b if self.greater_is_better else a < b

    def record(self, hyperparameters: dict[str, float], parameters: Any) -> Record:
        """What the run gave, with the weights to keep: the best ones where an evaluation found any, else the last."""
        diverged = self.reason == "diverged"

        def column(name: str, dtype: type) -> NDArray[Any]:
            return np.array([getattr(mark, name) for mark in self.curve], dtype=dtype)

        return Record(
            run=self.run,
            hyperparameters=hyperparameters,
            num_epochs=len(self.curve),
            num_steps=self.steps,
            num_examples=self.examples,
            stop_reason=self.reason or "epochs",
            best_epoch=0 if diverged else self.best_epoch,
            validation_score=math.nan if diverged else self.best_score,
            curve=Curve(
                column("epoch", np.int64),
                column("step", np.int64),
                column("train_loss", np.float64),
                column("score", np.float64),
                column("examples", np.int64),
                column("seconds", np.float64),
            ),
            seconds=self.seconds,
            parameters=parameters,
        )
