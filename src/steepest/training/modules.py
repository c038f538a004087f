"""The native engine's models as plain torch modules."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from steepest.training.activations import activation_of
from steepest.training.run import Architecture

__all__ = ["build_module"]


def build_module(
    sizes: list[int], architecture: Architecture, parameters: NDArray[Any] | None = None
) -> nn.Sequential:
    """``Linear, activation, ..., Linear`` with the given layer sizes.

    Args:
        sizes: units of every layer, inputs and outputs included.
        architecture: names the activation.
        parameters: flat weights and biases, layer by layer, weight (out, in) first; torch's own if None.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation_of(architecture.activation).module()]
    module = nn.Sequential(*layers[:-1])
    if parameters is not None:
        flat = torch.as_tensor(parameters)
        module.to(flat.dtype)
        nn.utils.vector_to_parameters(flat.clone(), module.parameters())
    return module
