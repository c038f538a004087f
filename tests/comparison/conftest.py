"""A fake engine with planted scores: the protocol is tested without training anything."""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from steepest.comparison.options import Options
from steepest.comparison.plan import Plan, make_plan
from steepest.comparison.progress import Silent
from steepest.comparison.splits import Split, Splits
from steepest.comparison.trials import Trials
from steepest.data import Prepared, prepare
from steepest.training.run import Curve, Record, Run, TrainingData

NUM_ROWS = 200


class FakeEngine:
    """Every run "trains" a linear model that is wrong by a planted amount: its score, on any rows.

    The error is the pair's base, grown by a parabola around the optimizer's best rate (on a log scale),
    plus noise of the seed. The model adds it to the first feature, which is the target itself.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        base: Mapping[tuple[str, str], float] | None = None,
        best_rates: Mapping[str, float] | None = None,
        curvature: float = 0.1,
        noise: float = 0.002,
        diverges: Callable[[Run], bool] = lambda run: False,
        interrupt_after: int | None = None,
        raises: bool = False,
        seconds_a_step: float = 1e-5,
    ) -> None:
        self.data = data
        self.base = base or {}
        self.best_rates = best_rates or {}
        self.curvature = curvature
        self.noise = noise
        self.diverges = diverges
        self.interrupt_after = interrupt_after
        self.raises = raises
        self.seconds_a_step = seconds_a_step
        self.runs: list[Run] = []
        self.predicted: list[tuple[Run, int]] = []  # the run, and on how many rows

    def error(self, run: Run) -> float:
        """The planted score of a run."""
        base = self.base.get((run.loss, run.optimizer), 1.0)
        distance = math.log10(run.lr / self.best_rates.get(run.optimizer, 1e-2))
        name = f"{run.loss} {run.optimizer} {run.batch_size} {run.seed}"
        luck = np.random.default_rng(zlib.crc32(name.encode())).normal()
        return base * (1 + self.curvature * distance**2) + self.noise * luck

    def record(self, run: Run) -> Record:
        """What a run gives."""
        diverged, error = self.diverges(run), self.error(run)
        rows = len(self.data.y_train)
        epochs = run.stop.max_epochs or 1
        steps = epochs * math.ceil(rows / rows if run.batch_size == "full" else rows / run.batch_size)
        steps = min(steps, run.stop.max_steps or steps)
        weights = np.zeros(self.data.x_train.shape[1] + 1, np.float32)
        weights[0], weights[-1] = 1.0, error / self.data.target_scale
        return Record(
            run=run,
            hyperparameters={"lr": run.lr},
            num_epochs=epochs,
            num_steps=steps,
            num_examples=steps * rows,
            stop_reason="diverged" if diverged else "epochs",
            best_epoch=0 if diverged else epochs,
            validation_score=math.nan if diverged else error,
            curve=Curve(
                epoch=np.arange(1, 3),
                step=np.arange(1, 3) * 10,
                train_loss=np.array([2.0, 1.0]),
                validation_score=np.array([2 * error, math.nan if diverged else error]),
            ),
            seconds=steps * self.seconds_a_step,
            parameters=weights,  # a diverged run has some too; nothing may use them
        )

    def run_all(
        self,
        runs: Sequence[Run],
        *,
        num_threads: int | None = None,
        on_record: Callable[[int, Record], None] | None = None,
        stop_event: threading.Event | None = None,
    ) -> list[Record | None]:
        """Runs in order on one thread, in reverse on several: nothing may depend on it."""
        records: list[Record | None] = [None] * len(runs)
        order = range(len(runs)) if num_threads == 1 else reversed(range(len(runs)))
        for index in order:
            if stop_event is not None and stop_event.is_set():
                break
            self.runs.append(runs[index])
            records[index] = record = self.record(runs[index])
            if on_record is not None:
                on_record(index, record)
            if len(self.runs) == self.interrupt_after:
                if self.raises:
                    raise KeyboardInterrupt
                assert stop_event is not None
                stop_event.set()
        return records

    def predict(self, run: Run, parameters: Any, features: Any) -> Any:
        """What the linear model gives."""
        self.predicted.append((run, len(features)))
        return features @ parameters[:-1] + parameters[-1]


def trials_of(plan: Plan, engine: Any) -> Trials:
    """Trials of a plan on an engine; tuning never looks at the rows."""
    splits = Splits(plan, Split(None, engine))  # type: ignore[arg-type]
    return Trials(plan, splits, num_threads=1, progress=Silent(), stop_event=threading.Event())


@pytest.fixture(scope="session")
def pair() -> tuple[Any, Any]:
    """Features and a target that is the first feature."""
    rng = np.random.default_rng(7)
    features = rng.normal(size=(NUM_ROWS, 2))
    return features, features[:, 0].copy()


@pytest.fixture(scope="session")
def prepared(pair: tuple[Any, Any]) -> Prepared:
    return prepare(pair)


@pytest.fixture
def engine(prepared: Prepared) -> Callable[..., FakeEngine]:
    """``engine(base=..., ...)``: a fake engine on the prepared rows."""
    own = prepared.training_data()
    return lambda data=own, **planted: FakeEngine(data, **planted)


@pytest.fixture
def plan_of(prepared: Prepared) -> Callable[..., Plan]:
    """``plan_of(losses=..., ...)``: a plan for the prepared rows, of two losses and two optimizers."""

    def planned(**options: Any) -> Plan:
        options = {
            "losses": ["mse", "mae"],
            "optimizers": ["sgd", "adam"],
            "hidden": (),
            "splits": 1,
        } | options
        return make_plan(prepared, Options(**options))

    return planned
