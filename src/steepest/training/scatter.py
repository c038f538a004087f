"""Rows that come in any order, written to disk in random blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steepest.training.random import scattered
from steepest.training.rows_on_disk import RowFile

__all__ = ["ScatterWriter"]


class ScatterWriter:
    """Writes row ``i`` of a file into the block that a random permutation of all rows puts it in.

    Every block is then a uniform random draw of the rows, whatever their order was. Inside a block rows lie in the
    order in which they came: an epoch shuffles them anew. How much is staged decides how often the disk is written to,
    and nothing else.

    Args:
        file: where to; ``file.num_rows`` rows will be added.
        block_rows: rows of a block.
        staged_rows: rows held in memory before they are written.
        seed: of the permutation.
    """

    def __init__(self, file: RowFile, block_rows: int, staged_rows: int, seed: int) -> None:
        self.file, self.block_rows, self.seed = file, block_rows, seed
        staged_rows = max(1, min(staged_rows, file.num_rows))
        self._features = np.empty((staged_rows, file.num_features), dtype=np.float32)
        self._targets = np.empty(staged_rows, dtype=np.float32)
        self._blocks = np.empty(staged_rows, dtype=np.int64)
        self._written = np.zeros(-(-file.num_rows // block_rows), dtype=np.int64)  # rows of each block
        self._staged = self._added = 0

    def add(self, features: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
        """Add the rows that come next."""
        numbers = np.arange(self._added, self._added + len(features), dtype=np.uint64)
        blocks = scattered(numbers, self.file.num_rows, self.seed).astype(np.int64) // self.block_rows
        self._added += len(features)
        taken = 0
        while taken < len(features):
            count = min(len(features) - taken, len(self._features) - self._staged)
            into, source = slice(self._staged, self._staged + count), slice(taken, taken + count)
            self._features[into], self._targets[into] = features[source], targets[source]
            self._blocks[into] = blocks[source]
            self._staged += count
            taken += count
            if self._staged == len(self._features):
                self.flush()

    def flush(self) -> None:
        """Write what is staged, each block's rows in one piece."""
        if not self._staged:
            return
        blocks = self._blocks[: self._staged]
        order = np.argsort(blocks, kind="stable")
        found, starts = np.unique(blocks[order], return_index=True)
        for block, start, stop in zip(found, starts, [*starts[1:], self._staged], strict=True):
            rows = order[start:stop]
            at = int(block * self.block_rows + self._written[block])
            self.file.write(at, self._features[rows], self._targets[rows])
            self._written[block] += len(rows)
        self._staged = 0
