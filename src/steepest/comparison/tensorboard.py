"""Runs as TensorBoard's logs: each one's curves, its hyperparameters and its score."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.errors import InputError
from steepest.training.run import Record, Run, regime

if TYPE_CHECKING:
    from steepest.comparison.plan import Plan

__all__ = ["TensorBoardLog"]


class TensorBoardLog:
    """Writes a folder a run, ``loss-optimizer-batch[-schedule]/stage-rate-seed``, as soon as the run has ended.

    Args:
        directory: TensorBoard's log directory; made where there is none.

    Raises:
        InputError: tensorboard is not installed, or the directory cannot be made.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "TensorBoard's logs are written by the package tensorboard, which is not installed; "
                "pip install 'steepest[tensorboard]' brings it."
            ) from error
        self._writer: Any = SummaryWriter
        self._directory = Path(directory).expanduser()
        self._stage = self._metric = ""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"The log directory {str(directory)!r} cannot be made: {error.strerror}."
            ) from None

    def data_read(self, notes: Sequence[str]) -> None:
        """Nothing to write."""

    def plan_made(self, plan: Plan) -> None:
        """Nothing to log yet."""

    def stage_started(self, stage: str, num_runs: int, metric: str) -> None:
        """Remember what the runs belong to."""
        self._stage, self._metric = stage, metric

    def run_finished(self, record: Record) -> None:
        """Write the run's curves against its steps, and its settings with its score.

        Raises:
            InputError: they cannot be written.
        """
        run = record.run
        pair = f"{run.loss}-{run.optimizer}-{regime(run.batch_size, run.schedule).replace(' ', '-')}"
        folder = (
            self._directory / pair / "-".join([self._stage, f"{run.lr:g}", str(run.seed), *self._apart(run)])
        )
        try:
            with self._writer(folder) as writer:
                for name, values in (
                    ("train_loss", record.curve.train_loss),
                    (self._metric, record.curve.validation_score),
                ):
                    for step, value in zip(
                        record.curve.step.tolist(), np.asarray(values).tolist(), strict=True
                    ):
                        if math.isfinite(value):
                            writer.add_scalar(name, value, step)
                settings = {
                    "loss": run.loss,
                    "optimizer": run.optimizer,
                    "batch_size": str(run.batch_size),
                    "schedule": run.schedule,
                    "stage": self._stage,
                    "seed": run.seed,
                    **record.hyperparameters,
                }
                score = record.validation_score
                outcome = {f"best_{self._metric}": score} if math.isfinite(score) else {}
                writer.add_hparams(settings, {**outcome, "diverged": float(record.diverged)}, run_name=".")
        except OSError as error:
            raise InputError(f"The log {str(folder)!r} cannot be written: {error.strerror}.") from None

    def _apart(self, run: Run) -> list[str]:
        """What else tells a run from others of its stage, rate and seed: tuned options, the length up to a rung."""
        options = {**run.loss_options, **run.optimizer_options}
        length = [f"{run.stop.max_epochs}-epochs"] * (self._stage == "rung")
        return [f"{name}={value}" for name, value in sorted(options.items())] + length

    def stage_finished(self) -> None:
        """Each run has its own files, closed already."""
