"""``steepest fit --model``: what the first process of a training prints, and the exit code."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from steepest.comparison.fit_module import FittedModule
    from steepest.training.distributed.run import Standing

__all__ = ["fit_module"]

_INTERRUPTED = 130
_SECONDS_BETWEEN_LINES = 5.0


def fit_module(model: str, out: Path, options: dict[str, Any]) -> None:
    """Train, and print the summary. Progress goes to standard error."""
    from steepest.comparison.fit_module import fit_module as run

    fitted = run(model, options.pop("data"), out=out, on_step=_Progress(), **options)
    if fitted.is_first:
        _print(fitted)
    if fitted.record.stop_reason == "interrupted":
        raise typer.Exit(_INTERRUPTED)


class _Progress:
    """A line now and then: where the training stands."""

    def __init__(self) -> None:
        self._last = 0.0
        self._num_epochs = -1

    def __call__(self, standing: Standing, num_steps: int, loss: float) -> None:
        now, num_epochs = time.monotonic(), len(standing.curve)
        if now - self._last < _SECONDS_BETWEEN_LINES and num_epochs == self._num_epochs:
            return
        self._last, self._num_epochs = now, num_epochs
        said = f"step {standing.step:,} of {num_steps:,}, epoch {num_epochs + 1}: loss {loss:.4g}"
        if standing.curve and standing.curve[-1].step == standing.step:
            done = standing.curve[-1]
            said = f"step {standing.step:,} of {num_steps:,}, epoch {done.epoch} done: loss {done.train_loss:.4g}"
            if done.validation_loss is not None:
                said += f", on validation rows {done.validation_loss:.4g}"
        sys.stderr.write(f"{said}\n")
        sys.stderr.flush()


def _print(fitted: FittedModule) -> None:
    from steepest.screen.console import console, in_course, number

    record, screen = fitted.record, console()
    run, standing, launch = record.run.run, record.standing, record.standing.launches[-1]
    for note in fitted.notes:
        screen.print(note, markup=False, soft_wrap=True)
    ranks = launch["world_size"]
    where = "1 process" if ranks == 1 else f"{ranks} processes ({launch['parallel']})"
    skipped = f", {standing.num_skipped:,} of them skipped," if standing.num_skipped else ""
    screen.print(
        f"{run.loss} with {run.optimizer}, rate {run.lr:.3g}{in_course(run)}, batch {run.batch_size}, on {where}: "
        f"{standing.step:,} steps{skipped} in {standing.seconds:.1f} s, stopped by {record.stop_reason}.",
        markup=False,
        soft_wrap=True,
    )
    if standing.curve:
        last = standing.curve[-1]
        validation = (
            "" if last.validation_loss is None else f", on validation rows {number(last.validation_loss)}"
        )
        screen.print(f"Loss in epoch {last.epoch}: {number(last.train_loss)}{validation}.", markup=False)
    if record.stop_reason == "interrupted":
        kept = "Go on with --resume." if standing.step else "Nothing was trained yet."
        screen.print(f"Interrupted. {kept}", markup=False)
    else:
        screen.print(f"Model: {fitted.out / 'model'}", markup=False, soft_wrap=True)
