"""How well an epoch mixes rows that lie in windows on disk, beside a uniform shuffle of them all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steepest.training.random import data_order, scattered
from steepest.training.windows import Layout

__all__ = ["epoch_order", "measure_order"]


def epoch_order(num_rows: int, layout: Layout, seed: int, epoch: int) -> NDArray[np.int64]:
    """The training rows, by their numbers in the files, in the order in which an epoch visits them."""
    places = scattered(np.arange(num_rows, dtype=np.uint64), num_rows, seed).astype(np.int64)
    on_disk = np.argsort(places // layout.block_rows, kind="stable")  # inside a block as they came
    size, step = layout.block_rows, layout.blocks_a_window
    blocks = data_order(-(-num_rows // size), seed, epoch)
    order = []
    for number, at in enumerate(range(0, len(blocks), step), start=1):
        window = np.concatenate([on_disk[b * size : (b + 1) * size] for b in blocks[at : at + step]])
        order.append(window[data_order(len(window), seed, epoch + (number << 32))])
    return np.concatenate(order)


def measure_order(order: NDArray[np.int64]) -> dict[str, float]:
    """Figures of a permutation; ``order[i]`` is the row that is visited as number i.

    Returns:
        ``correlation`` of a row's number with the moment it is visited (uniform: 0 with standard error
        1 / sqrt(rows)); ``autocorrelation`` of the numbers of rows visited one after the other (0, the same);
        ``travel``, the mean distance between number and moment as a share of all rows (1/3); ``window_deviation``, the
        standard deviation of the means of 1,000 consecutive rows beside what independent draws give (1).
    """
    n = len(order)
    numbers = order / n - 0.5
    moments = np.arange(n) / n - 0.5
    variance = float(np.mean(numbers**2))
    size = min(1000, n // 10)
    means = numbers[: n // size * size].reshape(-1, size).mean(axis=1)
    return {
        "correlation": float(np.mean(numbers * moments) / variance),
        "autocorrelation": float(np.mean(numbers[1:] * numbers[:-1]) / variance),
        "travel": float(np.abs(numbers - moments).mean()),
        "window_deviation": float(means.std() / np.sqrt(variance / size)),
    }
