"""The forward pass of a trained perceptron in plain numpy, and the layout of its parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit, log_expit, log_softmax, softmax

from steepest.training.run import Architecture

__all__ = [
    "ACTIVATIONS",
    "Layer",
    "count_parameters",
    "log_probabilities",
    "outputs",
    "probabilities",
    "split",
]

Floats = NDArray[Any]  # of the layers' own type

_ROWS_AT_ONCE = 65_536  # bounds the memory of a prediction, whatever the table's length
_HALF_SQRT_2 = math.sqrt(0.5)


class Layer(NamedTuple):
    """One linear map: weight (outputs, inputs) and bias (outputs,)."""

    weight: Floats
    bias: Floats


def _relu(x: Floats) -> Floats:
    return np.maximum(x, 0.0)


def _tanh(x: Floats) -> Floats:
    squashed: Floats = np.tanh(x)
    return squashed


def _gelu(x: Floats) -> Floats:
    gate: Floats = 0.5 * (1.0 + erf(x * _HALF_SQRT_2))
    return x * gate


def _silu(x: Floats) -> Floats:
    return x * _sigmoid(x)


def _sigmoid(x: Floats) -> Floats:
    gate: Floats = expit(x)
    return gate


ACTIVATIONS: Mapping[str, Callable[[Floats], Floats]] = {
    "relu": _relu,
    "tanh": _tanh,
    "gelu": _gelu,
    "silu": _silu,
    "sigmoid": _sigmoid,
}


def layer_sizes(num_features: int, architecture: Architecture, num_outputs: int) -> list[tuple[int, int]]:
    """(inputs, outputs) of each layer, first to last."""
    widths = [num_features, *architecture.hidden, num_outputs]
    return list(itertools.pairwise(widths))


def count_parameters(num_features: int, architecture: Architecture, num_outputs: int) -> int:
    """How many numbers the flat parameters hold."""
    return sum(
        (inputs + 1) * outputs for inputs, outputs in layer_sizes(num_features, architecture, num_outputs)
    )


def split(parameters: Floats, num_features: int, architecture: Architecture, num_outputs: int) -> list[Layer]:
    """The layers inside flat parameters: weight row by row, then bias, layer by layer."""
    expected = count_parameters(num_features, architecture, num_outputs)
    if parameters.shape != (expected,):
        raise ValueError(f"expected {expected} parameters in one row, got shape {parameters.shape}")
    layers, start = [], 0
    for inputs, outputs in layer_sizes(num_features, architecture, num_outputs):
        middle, end = start + inputs * outputs, start + (inputs + 1) * outputs
        layers.append(Layer(parameters[start:middle].reshape(outputs, inputs), parameters[middle:end]))
        start = end
    return layers


def outputs(layers: Sequence[Layer], activation: str, features: Floats) -> Floats:
    """What the last layer gives, (rows, outputs)."""
    parts = [
        _outputs(layers, ACTIVATIONS[activation], features[start : start + _ROWS_AT_ONCE])
        for start in range(0, len(features), _ROWS_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(layers[-1].bias)), np.float32)


def _outputs(layers: Sequence[Layer], activation: Callable[[Floats], Floats], rows: Floats) -> Floats:
    for layer in layers[:-1]:
        rows = activation(rows @ layer.weight.T + layer.bias)
    return rows @ layers[-1].weight.T + layers[-1].bias


def probabilities(logits: Floats) -> NDArray[np.float64]:
    """Class probabilities (rows, classes): sigmoid of a single logit, softmax of several."""
    wide = logits.astype(np.float64)
    if wide.shape[1] == 1:
        positive: Any = expit(wide[:, 0])
        return np.stack([expit(-wide[:, 0]), positive], axis=1)
    shares: NDArray[np.float64] = softmax(wide, axis=1)
    return shares


def log_probabilities(logits: Floats) -> NDArray[np.float64]:
    """Their logarithms, also where a probability is too small for a number."""
    wide = logits.astype(np.float64)
    if wide.shape[1] == 1:
        return np.stack([log_expit(-wide[:, 0]), log_expit(wide[:, 0])], axis=1)
    logarithms: NDArray[np.float64] = log_softmax(wide, axis=1)
    return logarithms
