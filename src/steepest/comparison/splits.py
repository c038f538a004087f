"""The splits of the rows: one for all seeds or, for a small table, one to tune on and another for each fresh seed.

The test rows are the same in all of them. What is drawn again is which of the others train and which validate, so that
the luck of that draw is part of what the fresh seeds measure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from steepest.comparison.engine import Engine
from steepest.comparison.plan import Plan
from steepest.training.run import Record, Run

if TYPE_CHECKING:
    from steepest.comparison.cluster import Cluster
    from steepest.comparison.modules import PreparedModules
    from steepest.comparison.own_training import PreparedTraining
    from steepest.data import Prepared

    AnyPrepared: TypeAlias = Prepared | PreparedModules | PreparedTraining

__all__ = ["Split", "Splits"]


@dataclass(frozen=True, eq=False)
class Split:
    """Rows in three parts, and the engine that trains on them."""

    prepared: AnyPrepared
    engine: Engine


class Splits:
    """Trains each run on its seed's split.

    Args:
        plan: whose confirmation seeds have splits of their own.
        first: what every other seed has.
        fresh: as many as there are confirmation seeds, in their order; none: they have the first too.
        cluster: where the runs of all splits are trained together; None: here, split by split.
    """

    def __init__(
        self, plan: Plan, first: Split, fresh: Sequence[Split] = (), cluster: Cluster | None = None
    ) -> None:
        self.first = first
        self._cluster = cluster
        self._own = dict(zip(plan.confirmation_seeds, fresh, strict=True)) if fresh else {}

    def of(self, seed: int) -> Split:
        """The split that runs of a seed are trained on."""
        return self._own.get(seed, self.first)

    def company(self, runs: Sequence[Run], wanted: Collection[int]) -> list[int]:
        """The wanted ones of a stage's runs, and those that have to be trained beside them for the same bits."""
        together = getattr(self.first.engine, "company", None)
        return list(wanted) if together is None else together(runs, wanted)

    def run_all(
        self,
        runs: Sequence[Run],
        *,
        num_threads: int | None = None,
        on_record: Callable[[int, Record], None] | None = None,
        stop_event: threading.Event | None = None,
    ) -> list[Record | None]:
        """Train every run; ``on_record(index, record)`` is called as each one ends."""
        if self._cluster is not None:
            return self._cluster.run_all(
                [(self.of(run.seed).engine, run) for run in runs],
                num_threads=num_threads,
                on_record=on_record,
                stop_event=stop_event,
            )
        places: dict[Split, list[int]] = {}
        for index, run in enumerate(runs):
            places.setdefault(self.of(run.seed), []).append(index)
        records: list[Record | None] = [None] * len(runs)
        for split, indices in places.items():
            if stop_event is not None and stop_event.is_set():
                break
            given = split.engine.run_all(
                [runs[index] for index in indices],
                num_threads=num_threads,
                on_record=None if on_record is None else partial(_deliver, on_record, indices),
                stop_event=stop_event,
            )
            for index, record in zip(indices, given, strict=True):
                records[index] = record
        return records


def _deliver(
    on_record: Callable[[int, Record], None], indices: Sequence[int], place: int, record: Record
) -> None:
    on_record(indices[place], record)
