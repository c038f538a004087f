"""Small tables for the engines: one a task, with a share of rows to validate on."""

from __future__ import annotations

from functools import cache

import numpy as np

from steepest.training.run import TrainingData


@cache
def problem(
    task: str,
    rows: int = 100,
    validation: int = 0,
    features: int = 6,
    classes: int = 3,
    targets: str = "plain",
) -> TrainingData:
    """Targets from a noisy linear rule.

    Args:
        task: regression, binary or multiclass.
        rows, validation: how many rows to train and to validate on.
        features: columns.
        classes: of a multi-class task.
        targets: "plain", or for classes "one-hot" or "probabilities" of the training rows.
    """
    rng = np.random.default_rng(rows + 7 * validation + features)
    total = rows + validation
    x = rng.normal(size=(total, features)).astype(np.float32)
    outputs = {"regression": 1, "binary": 1, "multiclass": classes}[task]
    scores = x @ rng.normal(size=(features, outputs)) / np.sqrt(features) + 0.3 * rng.normal(
        size=(total, outputs)
    )
    if task == "regression":
        y = scores[:, 0].astype(np.float32)
    elif task == "binary":
        y = (scores[:, 0] > 0.3).astype(np.float32)
    else:
        y = scores.argmax(axis=1)
    train = y[:rows]
    num_classes = {"regression": 1, "binary": 2, "multiclass": classes}[task]
    if targets == "one-hot":
        train = np.eye(num_classes, dtype=np.float32)[train.astype(int)]
    elif targets == "probabilities":
        train = rng.dirichlet(np.ones(num_classes), rows).astype(np.float32)
    # In their own units the targets lie well above 0, so that losses for counts and amounts take them too.
    scale, mean = (2.5, 25.0) if task == "regression" else (1.0, 0.0)
    return TrainingData(task, num_classes, x[:rows], train, x[rows:], y[rows:], scale, mean)  # type: ignore[arg-type]
