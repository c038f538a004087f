"""Rows too many for memory, a window at a time, each read while the one before it is trained on.

A *block* is a random draw of the training rows (``scatter.py``) that lies in one piece on disk; a *window* is so many
blocks, drawn anew each epoch, whose rows the engine shuffles together.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.training.random import data_order
from steepest.training.rows_on_disk import RowFile
from steepest.training.run import Task

__all__ = ["NUM_BUFFERS", "Layout", "ReadAhead", "Rows", "StreamedData", "Stretch"]

NUM_BUFFERS = 3  # one that is trained on, one that is full, one that is filled
_WINDOW_BYTES = 1 << 25
_WINDOW_ROWS = 1 << 18  # at most: a run holds two numbers for each
_PAGE_ROWS = 1024  # a block of a multiple of them begins a page of 4096 bytes, however many numbers a row has
_BLOCKS_A_WINDOW = 16
_MAX_BLOCKS = 4096  # of less than a window each: many small blocks are slow to write


@dataclass(frozen=True)
class Layout:
    """How many rows a block and a window have: the data alone decide, so no limit of memory changes a result."""

    block_rows: int
    blocks_a_window: int

    @classmethod
    def of(cls, num_rows: int, num_features: int, window_bytes: int = _WINDOW_BYTES) -> Layout:
        """The layout for so many rows of so many features."""
        window_rows = max(1, min(_WINDOW_ROWS, window_bytes // (4 * (num_features + 1))))
        blocks = min(_BLOCKS_A_WINDOW, window_rows)
        while blocks > 1 and num_rows * blocks > _MAX_BLOCKS * window_rows:
            blocks //= 2
        block_rows = max(1, window_rows // blocks)
        if block_rows > _PAGE_ROWS:
            block_rows -= block_rows % _PAGE_ROWS
        return cls(block_rows, blocks)

    @property
    def window_rows(self) -> int:
        """Rows of a window."""
        return self.block_rows * self.blocks_a_window


@dataclass(frozen=True)
class StreamedData:
    """Encoded rows on disk; see :class:`~steepest.training.run.TrainingData` for what the numbers mean.

    Training rows lie in random blocks, validation rows in their own order. ``class_counts`` are of the training rows;
    ``least_target`` is the smallest of all rows, in its own units (0 for classes).
    """

    task: Task
    num_classes: int
    train: RowFile
    validation: RowFile
    layout: Layout
    target_scale: float = 1.0
    target_mean: float = 0.0
    least_target: float = 0.0
    class_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def training_windows(self, seed: int, epoch: int) -> list[list[Stretch]]:
        """What an epoch reads: every block once, in random order, so many to a window."""
        rows, size = self.train.num_rows, self.layout.block_rows
        order = data_order(-(-rows // size), seed, epoch)
        blocks = [Stretch(self.train, int(b) * size, min(size, rows - int(b) * size)) for b in order]
        step = self.layout.blocks_a_window
        return [blocks[at : at + step] for at in range(0, len(blocks), step)]

    def validation_windows(self) -> list[list[Stretch]]:
        """All validation rows."""
        rows, size = self.validation.num_rows, self.layout.window_rows
        return [[Stretch(self.validation, at, min(size, rows - at))] for at in range(0, rows, size)]


@dataclass(frozen=True)
class Stretch:
    """Neighbouring rows of a file."""

    file: RowFile
    at: int
    num_rows: int


@dataclass
class Rows:
    """A window's memory, and how much of it is filled."""

    features: NDArray[np.float32]
    targets: NDArray[np.float32]
    multiples: NDArray[np.float32]  # targets as multiples of their mean, where they were asked for
    num_rows: int = 0

    def fill(self, stretches: Iterable[Stretch]) -> None:
        """Read rows into the window, from its beginning on."""
        self.num_rows = 0
        for part in stretches:
            here = slice(self.num_rows, self.num_rows + part.num_rows)
            part.file.read(part.at, self.features[here], self.targets[here])
            self.num_rows += part.num_rows


class ReadAhead:
    """Windows in order, read by a thread of its own.

    Args:
        windows: what each window is filled with; may never end.
        buffers: the memory to fill; a window is valid until the next is asked for.
        finish: called with each window once it is read, in the thread too.
    """

    def __init__(
        self, windows: Iterable[list[Stretch]], buffers: list[Rows], finish: Callable[[Rows], None]
    ) -> None:
        self._windows, self._finish = windows, finish
        self._free: queue.SimpleQueue[Rows | None] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[Rows | BaseException | None] = queue.SimpleQueue()
        for buffer in buffers:
            self._free.put(buffer)
        self._stopped = False
        self._thread = threading.Thread(target=self._read, name="steepest-read-ahead", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stopped = True
        self._free.put(None)
        self._thread.join()

    def __iter__(self) -> Iterator[Rows]:
        while True:
            window = self._full.get()
            if window is None:
                return
            if isinstance(window, BaseException):
                raise window
            try:
                yield window
            finally:
                self._free.put(window)

    def _read(self) -> None:
        try:
            for stretches in self._windows:
                window = self._free.get()
                if window is None or self._stopped:
                    return
                window.fill(stretches)
                self._finish(window)
                self._full.put(window)
            self._full.put(None)
        except BaseException as error:  # handed to who waits for a window
            self._full.put(error)
