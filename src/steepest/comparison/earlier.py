"""The runs of a comparison that was finished earlier, read back from its ``runs.parquet``: none is run again.

What a row lacks is the weights. They are needed for little: a run that becomes a finalist only now is trained again to
be scored on the test rows, and so is the winner's for the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from steepest.backends.available import available_bytes
from steepest.comparison.plan import Cell, Plan, Setting, Trial
from steepest.comparison.versions import versions
from steepest.errors import MALFORMED, InputError
from steepest.files import parse_json, read_bytes, regular
from steepest.files.parquet import whole
from steepest.training.run import Curve, Record, Run

__all__ = ["RUNS", "VERDICT", "Earlier"]

VERDICT, RUNS = "verdict.json", "runs.parquet"
_HYPER, _TEST = "hyper_", "test_"


class Earlier:
    """What the runs of a finished comparison gave.

    Args:
        directory: holds its ``verdict.json`` and ``runs.parquet``.
        plan: what is run now. Its epochs and rungs are the earlier plan's, so they tell how long a run was to be.

    Raises:
        InputError: the files cannot be read.
    """

    def __init__(self, directory: Path, plan: Plan) -> None:
        try:
            self._versions = dict(parse_json(read_bytes(directory / VERDICT))["versions"])
            self._rows = whole(regular(directory / RUNS), available_bytes())
            plain = self._rows.select(pl.exclude(pl.List)).iter_rows(named=True)
            self._known = {trial: number for number, row in enumerate(plain) for trial in _trials(row, plan)}
        except (OSError, *MALFORMED, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise InputError(
                f"The runs in {str(directory)!r} cannot be read ({error}); make the comparison anew."
            ) from None

    @property
    def notes(self) -> list[str]:
        """What there is to say where the earlier runs were made by other versions."""
        now = versions()
        others = [f"{name} {old}" for name, old in self._versions.items() if now.get(name) != old]
        return [f"The runs of the comparison that was extended were made with {', '.join(others)}."] * bool(
            others
        )

    def __contains__(self, trial: Trial) -> bool:
        return trial in self._known

    def recall(self, trial: Trial, run: Run) -> Record | None:
        """What the trial gave, its weights apart, if it was run."""
        number = self._known.get(trial)
        return None if number is None else _record(run, self._rows.row(number, named=True))

    def test_scores(self, trial: Trial) -> dict[str, float]:
        """What the trial scored on the test rows by each metric; empty where it was no finalist."""
        number = self._known.get(trial)
        if number is None:
            return {}
        return {
            name.removeprefix(_TEST): value
            for name, value in self._rows.row(number, named=True).items()
            if name.startswith(_TEST) and value is not None
        }


def _trials(row: Mapping[str, Any], plan: Plan) -> list[Trial]:
    """The trials that a row answers for: its own, and where it diverged, those that were to run longer too."""
    if row.get("options"):  # a row has them in words, not to the last digit: such a run is made again
        return []
    size = row["batch_size"]
    schedule = row.get("schedule") or "constant"  # a comparison of before there were any
    cell = Cell(row["loss"], row["optimizer"], int(size) if size.isdigit() else size, schedule)
    lengths = [*((epochs, epochs) for epochs in plan.rung_epochs), (None, plan.epochs)]
    return [
        Setting(cell, row["lr"], epochs).on(row["seed"])
        for epochs, length in lengths
        if row["num_epochs"] == length or (row["diverged"] and row["num_epochs"] < length)
    ]


def _record(run: Run, row: Mapping[str, Any]) -> Record:
    hyperparameters = {
        name.removeprefix(_HYPER): value
        for name, value in row.items()
        if name.startswith(_HYPER) and value is not None
    }
    return Record(
        run=run,
        hyperparameters=hyperparameters,
        num_epochs=row["num_epochs"],
        num_steps=row["num_steps"],
        num_examples=row["num_examples"],
        # A pruned run came to the end of its own length.
        stop_reason="epochs" if row["stop_reason"] == "pruned" else row["stop_reason"],
        best_epoch=row["best_epoch"],
        validation_score=_float(row["validation_score"]),
        curve=Curve(
            epoch=np.array(row["curve_epoch"], dtype=np.int64),
            step=np.array(row["curve_step"], dtype=np.int64),
            train_loss=_floats(row["curve_train_loss"]),
            validation_score=_floats(row["curve_validation"]),
            examples=np.array(row.get("curve_examples") or [], dtype=np.int64),
            seconds=_floats(row.get("curve_seconds") or []),
        ),
        seconds=_float(row["seconds"]),
        parameters=None,
    )


def _floats(values: list[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([_float(value) for value in values], dtype=np.float64)


def _float(value: float | None) -> float:
    """What is not finite is written as null."""
    return math.nan if value is None else float(value)
