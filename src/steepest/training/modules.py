"""The native engine's models as plain torch modules."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from steepest.training.activations import activation_of
from steepest.training.run import Architecture

__all__ = ["build_module", "standardising"]


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


def standardising(mean: NDArray[np.float64], scale: NDArray[np.float64]) -> nn.Module:
    """``(x - mean) / scale`` as a plain torch module, float32, exact for features far from 0.

    The mean is in three float32 parts that add up to it: a buffer of float64 goes onto no MPS device, and ``float()``
    would take its digits. Subtracted one after another they take from rows of any type what the mean would. It is a
    graph module, whose code is its own, so that what is saved of it needs torch alone.
    """
    module = fx.symbolic_trace(_Standardising(mean, scale))
    for node in module.graph.nodes:
        node.type = None  # TorchScript does not know the name that is written for it
    module.recompile()
    return module


class _Standardising(nn.Module):
    high: Tensor
    middle: Tensor
    low: Tensor
    scale: Tensor

    def __init__(self, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> None:
        super().__init__()
        rest = torch.from_numpy(mean.astype(np.float64))
        for part in ("high", "middle", "low"):
            self.register_buffer(part, rest.float())
            rest = rest - rest.float()
        self.register_buffer("scale", torch.from_numpy(scale).float())

    def forward(self, x: Tensor) -> Tensor:
        return ((((x - self.high) - self.middle) - self.low) / self.scale).type_as(self.scale)
