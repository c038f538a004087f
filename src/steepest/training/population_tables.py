"""A table's perceptrons, many at once by the population engine; the native engine's records to rounding."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from steepest.training.modules import build_module
from steepest.training.native import NativeEngine, formula_of, layer_sizes
from steepest.training.population import PopulationEngine
from steepest.training.random import initial_parameters
from steepest.training.run import Architecture, Record, Run, TrainingData
from steepest.training.torch_data import Rows, Tensors, as_rows
from steepest.training.torch_engine import OfClasses

__all__ = ["TablePopulation"]

_FEWEST = 2  # a lone run is the native engine's


class TablePopulation(NativeEngine):
    """Trains a table's runs on a device, those whose perceptrons have the same layers together.

    Initial weights, the order of the rows, the losses and the stop conditions are the native engine's. Where rows have
    weights or several targets, and where a run has none to go with, it is trained by that one.

    Args:
        data, metric: as :class:`NativeEngine`'s.
        device: where perceptrons and rows lie.
    """

    def __init__(self, data: TrainingData, metric: str, device: str) -> None:
        super().__init__(data, metric)
        self._word, self._device = metric, device
        self._engines: dict[Hashable, _Perceptrons] = {}
        self._is_plain = data.weights is None and data.y_train.ndim == 1

    def run_all(
        self,
        runs: Sequence[Run],
        *,
        num_threads: int | None = None,
        on_record: Callable[[int, Record], None] | None = None,
        stop_event: threading.Event | None = None,
        initial: NDArray[Any] | None = None,
    ) -> list[Record | None]:
        """Train every run; see :meth:`NativeEngine.run_all`."""
        records: list[Record | None] = [None] * len(runs)

        def deliver(places: Sequence[int], unit: float | None, place: int, record: Record) -> None:
            index = places[place]
            records[index] = record if unit is None else _as_of_table(record, runs[index], unit)
            if on_record is not None:
                on_record(index, records[index])  # type: ignore[arg-type]

        for engine, places in self._parts(runs, initial):
            if stop_event is not None and stop_event.is_set():
                break
            some = [runs[index] for index in places]
            if engine is None:
                super().run_all(
                    some,
                    num_threads=num_threads,
                    on_record=partial(deliver, places, None),
                    stop_event=stop_event,
                    initial=initial,
                )
            else:
                in_units = [_in_units(run, engine.unit) for run in some]
                told = partial(deliver, places, engine.unit)
                engine.run_all(in_units, on_record=told, stop_event=stop_event)
        return records

    def company(self, runs: Sequence[Run], wanted: Collection[int]) -> list[int]:
        """The wanted ones of a list of runs, and those that are trained in one group with them."""
        asked, found = set(wanted), set(wanted)
        for engine, places in self._parts(runs, None):
            if engine is not None:
                own = [place for place, index in enumerate(places) if index in asked]
                some = [_in_units(runs[index], engine.unit) for index in places]
                found.update(places[place] for place in engine.company(some, own))
        return sorted(found)

    def notes(self, runs: Sequence[Run]) -> list[str]:
        """How such runs are trained, in sentences."""
        found: dict[str, None] = {}
        for run in runs:
            if self._is_plain:
                found |= dict.fromkeys(self._engine(run).notes([run]))
        return list(found)

    @property
    def broken(self) -> list[str]:
        """What went wrong on the way and was done another way, sentences."""
        return list(dict.fromkeys(note for engine in self._engines.values() for note in engine.broken))

    def _parts(
        self, runs: Sequence[Run], initial: NDArray[Any] | None
    ) -> list[tuple[_Perceptrons | None, list[int]]]:
        """The runs by their places, with the engine of each part; None: the native one."""
        if not self._is_plain or initial is not None:
            return [(None, list(range(len(runs))))] if runs else []
        by_engine: dict[_Perceptrons, list[int]] = {}
        for index, run in enumerate(runs):
            by_engine.setdefault(self._engine(run), []).append(index)
        alone = sorted(places[0] for places in by_engine.values() if len(places) < _FEWEST)
        parts: list[tuple[_Perceptrons | None, list[int]]] = [
            (engine, places) for engine, places in by_engine.items() if len(places) >= _FEWEST
        ]
        return [*parts, (None, alone)] if alone else parts

    def _engine(self, run: Run) -> _Perceptrons:
        """What trains the perceptrons of a run's kind."""
        formula = formula_of(run.loss)
        self.check_size(run)
        sizes = tuple(layer_sizes(run, self._x.shape[1], self.data.num_classes))
        ends = formula.prediction == "probability"
        key = (sizes, run.architecture, ends, formula.prediction == "log_rate")
        if key not in self._engines:
            y, y_validation, unit = self.targets(formula)
            if self.data.task == "multiclass":
                y, y_validation = y.astype(np.int64), y_validation.astype(np.int64)
            net = _Net(sizes, run.architecture, ends)
            self._engines[key] = _Perceptrons(
                net,
                self.data.num_classes,
                unit if self.metric.in_target_units else 1.0,
                net.fresh,
                self._rows(self._x, y, "train"),
                self._rows(self._xv, y_validation, "validation") if self.num_validation else None,
                self.data.task,
                self._word,
                self._device,
            )
        return self._engines[key]

    def _rows(self, x: NDArray[Any], y: NDArray[Any], name: str) -> Rows:
        """Rows whose inputs lie on the device, so that a batch is picked there."""
        inputs, rows = torch.as_tensor(x).to(self._device), as_rows((x, y), name)
        return replace(rows, source=Tensors(inputs, rows.targets))


@dataclass(frozen=True)
class _Net:
    """A perceptron's make; a loss of probabilities has a sigmoid at its end."""

    sizes: tuple[int, ...]
    architecture: Architecture
    ends_in_sigmoid: bool

    def fresh(self, seed: int = 0) -> nn.Module:
        sizes = list(self.sizes)
        module = build_module(sizes, self.architecture, initial_parameters(sizes, seed))
        return module.append(nn.Sigmoid()) if self.ends_in_sigmoid else module


class _Perceptrons(PopulationEngine):
    """Runs whose perceptrons are of one make.

    Args:
        net: that make.
        num_classes: of the table.
        unit: what one of a score's units is in the metric's own.
        others: as :class:`PopulationEngine`'s.
    """

    def __init__(self, net: _Net, num_classes: int, unit: float, *others: Any) -> None:
        super().__init__(*others)
        self.unit = unit
        self._net, self._num_classes = net, num_classes

    def make(self, seed: int) -> nn.Module:
        """The seed's initial weights, as the native engine draws them."""
        return self._net.fresh(seed).to(self.device)

    def loss(self, run: Run) -> nn.Module:
        """The run's loss; one fitted to the classes' sizes knows all classes of the table."""
        loss = super().loss(run)
        if isinstance(loss, OfClasses):
            return OfClasses(run.loss, self.train.targets, self._num_classes).to(self.device)
        return loss


def _in_units(run: Run, unit: float) -> Run:
    """A run whose target score is in units of the standardised targets."""
    wanted = run.stop.target_metric
    return run if wanted is None else replace(run, stop=replace(run.stop, target_metric=wanted / unit))


def _as_of_table(record: Record, run: Run, unit: float) -> Record:
    """A record with scores in the metric's own units, and its weights in one row."""
    weights = [torch.as_tensor(tensor).reshape(-1) for tensor in record.parameters.values()]
    return replace(
        record,
        run=run,
        validation_score=record.validation_score * unit,
        curve=replace(record.curve, validation_score=record.curve.validation_score * unit),
        parameters=torch.cat(weights).numpy(),
    )
