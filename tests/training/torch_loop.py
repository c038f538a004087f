"""A training loop of torch's own parts: what the engines must agree with, given the same start and order."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.training.random import data_order, initial_parameters
from steepest.training.run import Run, TrainingData

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU, "sigmoid": nn.Sigmoid}


def pinball(quantile: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda p, y: torch.where(y >= p, quantile * (y - p), (1 - quantile) * (p - y)).mean()


def loss_of(run: Run, data: TrainingData) -> Callable[[Tensor, Tensor], Tensor]:
    options: dict[str, Any] = dict(run.loss_options)
    if run.loss == "quantile":
        return pinball(options.get("quantile", 0.5))
    if "pos_weight" in options:
        options["pos_weight"] = torch.tensor(options["pos_weight"])
    names = {
        "mse": nn.MSELoss, "mae": nn.L1Loss, "huber": nn.HuberLoss, "bce": nn.BCEWithLogitsLoss,
        "bce_probability": nn.BCELoss, "cross_entropy": nn.CrossEntropyLoss, "smooth_l1": nn.SmoothL1Loss,
    }  # fmt: skip
    if run.loss in ("class_balanced", "logit_adjusted"):
        formula = LOSSES[run.loss].formula
        counts = torch.bincount(torch.as_tensor(data.y_train).to(torch.int64)).to(torch.float64)
        weight, offset = formula.class_terms(counts)
        rows_of_class = nn.functional.cross_entropy
        return lambda p, y: (weight[y] * rows_of_class((p + offset).to(p.dtype), y, reduction="none")).mean()
    # Where torch has no such loss, the library's own on torch's modules, which other tests hold against truth.
    return names.get(run.loss, LOSSES[run.loss])(**options)


def targets_of(run: Run, data: TrainingData) -> NDArray[Any]:
    """What the loss is trained on: for the logarithm of a mean, multiples of the mean."""
    if LOSSES[run.loss].formula.prediction != "log_rate":
        return data.y_train
    return (data.y_train.astype(np.float64) * data.target_scale + data.target_mean) / data.target_mean


def by_class(run: Run) -> bool:
    """Whether the loss takes one output a class."""
    return bool(LOSSES[run.loss].formula.family == "softmax")


def optimizer_of(run: Run, parameters: Any) -> torch.optim.Optimizer:
    entry = OPTIMIZERS[run.optimizer]
    options = {**entry.options, **run.optimizer_options}
    lr = run.lr
    if options.pop("convention", "torch") == "ema":  # torch has no such form: its own at a smaller rate
        lr *= 1 - options["momentum"]
    # Where torch has no such class, or keeps a running product in float32, the library's own step on torch's
    # modules, which other tests hold to the published rule.
    given = list(parameters)
    own: torch.optim.Optimizer = entry.cls(given, lr=lr, **options)
    if entry.cls.rule_of(own.param_groups[0]).scalars or not hasattr(torch.optim, entry.cls.__name__):
        return own
    peer: torch.optim.Optimizer = getattr(torch.optim, entry.cls.__name__)(given, lr=lr, **options)
    return peer


def sizes_of(run: Run, data: TrainingData) -> list[int]:
    outputs = data.num_classes if by_class(run) else 1
    return [data.x_train.shape[1], *run.architecture.hidden, outputs]


def network(sizes: list[int], activation: str, start: NDArray[Any], dtype: torch.dtype) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, dtype=dtype), ACTIVATIONS[activation]()]
    model = nn.Sequential(*layers[:-1])
    nn.utils.vector_to_parameters(torch.as_tensor(start).to(dtype), model.parameters())
    return model


def trained(run: Run, data: TrainingData, num_steps: int, dtype: torch.dtype) -> NDArray[Any]:
    """The parameters after so many steps, flat, layer by layer, weight before bias."""
    sizes = sizes_of(run, data)
    model = network(sizes, run.architecture.activation, initial_parameters(sizes, run.seed), dtype)
    loss, optimizer = loss_of(run, data), optimizer_of(run, model.parameters())
    inputs = torch.as_tensor(data.x_train).to(dtype)
    targets = torch.as_tensor(targets_of(run, data))
    targets = targets.to(torch.int64 if by_class(run) and targets.dim() == 1 else dtype)
    n = len(inputs)
    batch_size = n if run.batch_size == "full" else int(run.batch_size)
    step = epoch = 0
    while step < num_steps:
        order = np.arange(n) if batch_size >= n else data_order(n, run.seed, epoch)
        for start in range(0, n, batch_size):
            rows = torch.as_tensor(order[start : start + batch_size])
            outputs = model(inputs[rows])
            if run.loss == "bce_probability":
                outputs = torch.sigmoid(outputs)
            if not by_class(run):
                outputs = outputs[:, 0]
            optimizer.zero_grad()
            loss(outputs, targets[rows]).backward()
            optimizer.step()
            step += 1
            if step >= num_steps:
                break
        epoch += 1
    return nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
