"""One training step (gather, forward, loss, backward, Adam) against an eager torch loop, one thread each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from steepest.bench.measure import compare
from steepest.training.modules import build_module
from steepest.training.native import NativeEngine, layer_sizes
from steepest.training.run import Architecture, Run, Stop, TrainingData

__all__ = ["rows"]

_ROWS = 1024
_CASES = (  # inputs, hidden, classes (1: regression), loss, batch size, our steps, torch's steps a round
    (10, (5,), 1, "mse", 1, 20_000, 200),
    (10, (5,), 1, "mse", 32, 10_000, 200),
    (64, (128, 128), 10, "cross_entropy", 32, 1_000, 200),
)


def rows() -> list[dict[str, Any]]:
    """A row a net: medians, spread and ratio."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            return [_row(*case) for case in _CASES]
    finally:
        torch.set_num_threads(threads)


def _row(
    inputs: int,
    hidden: tuple[int, ...],
    classes: int,
    loss: str,
    batch_size: int,
    our_steps: int,
    torch_steps: int,
) -> dict[str, Any]:
    data = _data(inputs, classes)
    run = Run(
        loss, "adam", 1e-3, batch_size, 0, Architecture(hidden), Stop(max_epochs=None, max_steps=our_steps)
    )
    engine = NativeEngine(data, "rmse" if classes == 1 else "log_loss")

    def ours() -> int:
        (record,) = engine.run_all([run], num_threads=1)
        assert record is not None
        return record.num_steps

    net = "-".join(map(str, layer_sizes(run, inputs, classes)))
    return {
        "work": f"step, {net}, batch {batch_size}, Adam",
        "peer": "torch eager loop",
        "version": torch.__version__,
        "threads": 1,
        **compare(ours, _torch_loop(run, data, torch_steps)),
    }


def _data(inputs: int, classes: int) -> TrainingData:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(_ROWS, inputs)).astype(np.float32)
    if classes == 1:
        y = (x @ rng.normal(size=inputs) + rng.normal(size=_ROWS)).astype(np.float32)
        return TrainingData("regression", 1, x, y, x[:0], y[:0])
    labels = rng.integers(0, classes, _ROWS)
    return TrainingData("multiclass", classes, x, labels, x[:0], labels[:0])


def _torch_loop(run: Run, data: TrainingData, steps: int) -> Callable[[], int]:
    """What a person writes: batches sliced from shuffled rows, torch's own loss and Adam."""
    module = build_module(layer_sizes(run, data.x_train.shape[1], data.num_classes), run.architecture)
    optimizer = torch.optim.Adam(module.parameters(), lr=run.lr)
    x = torch.tensor(data.x_train)
    y = torch.tensor(data.y_train) if data.num_classes > 1 else torch.tensor(data.y_train).unsqueeze(1)
    loss_function = torch.nn.CrossEntropyLoss() if data.num_classes > 1 else torch.nn.MSELoss()
    batch_size = int(run.batch_size)

    def loop() -> int:
        done = 0
        while done < steps:
            order = torch.randperm(len(x))
            for start in range(0, len(x), batch_size):
                batch = order[start : start + batch_size]
                optimizer.zero_grad()
                loss_function(module(x[batch]), y[batch]).backward()
                optimizer.step()
                done += 1
                if done == steps:
                    break
        return done

    return loop
