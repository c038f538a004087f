"""Which rows a step takes, and which of them a rank: the steps' rows are the same on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steepest.training.random import data_order

__all__ = ["MicroBatch", "Order", "micro_batches"]


class MicroBatch(NamedTuple):
    """Rows that go through the module together.

    A rank that has none, at a ragged end, takes one all the same (``counts`` is False): its gradient counts nothing,
    but all ranks have to go through forward and backward passes together.
    """

    rows: NDArray[np.int64]
    counts: bool


@dataclass(frozen=True)
class Order:
    """The rows of every step, by the step's number alone.

    In epoch e (from 0) the rows come in :func:`~steepest.training.random.data_order` of (seed, e), ``batch_size`` a
    step; the last step of an epoch takes what is left, or is left out with ``drops_last``.
    """

    num_rows: int
    batch_size: int
    seed: int
    drops_last: bool = False

    @property
    def steps_per_epoch(self) -> int:
        """How many steps go over the rows once."""
        whole, rest = divmod(self.num_rows, self.batch_size)
        return whole + bool(rest and not self.drops_last)

    def batches(self, first: int, last: int) -> Iterator[NDArray[np.int64]]:
        """The rows of the steps from ``first`` (from 0) up to ``last``."""
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(first, last):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = data_order(self.num_rows, self.seed, epoch)
            start = step % self.steps_per_epoch * self.batch_size
            yield order[start : start + self.batch_size]


def micro_batches(
    rows: NDArray[np.int64], rank: int, world_size: int, num_micro_batches: int
) -> list[MicroBatch]:
    """A rank's part of a step's rows, in so many micro-batches; all ranks' together are all rows, each once."""
    own = np.array_split(rows, world_size)[rank]
    return [
        MicroBatch(part, counts=True) if len(part) else MicroBatch(rows[:1], counts=False)
        for part in np.array_split(own, num_micro_batches)
    ]
