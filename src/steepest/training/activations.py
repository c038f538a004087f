"""The activations of the native engine: each a formula and its derivative, and torch's module for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from numba import carray, types
from torch import nn

from steepest.backends import cpu
from steepest.backends.reference import erf, exp, sigmoid, tanh, where
from steepest.errors import InputError, near_names

__all__ = ["ACTIVATIONS", "Activation", "activation_of"]

_TYPES = {"float32": types.float32, "float64": types.float64}


@dataclass(frozen=True)
class Activation:
    """``value(z)``, ``gradient(z)``, and the torch module that is the same function."""

    name: str
    value: Callable[..., Any]
    gradient: Callable[..., Any]
    module: Callable[[], nn.Module]

    def kernels(self, dtype: str) -> tuple[cpu.Kernel, cpu.Kernel]:
        """``forward(z, a, n)`` and ``backward(z, d, n)`` (d is multiplied by the derivative, in place)."""
        return _kernels(self.value, self.gradient, dtype)


value: Any
gradient: Any


def _forward(z: Any, a: Any, n: int) -> None:
    source = carray(z, n)
    result = carray(a, n)
    for i in range(n):
        result[i] = value(source[i])


def _backward(z: Any, d: Any, n: int) -> None:
    source = carray(z, n)
    delta = carray(d, n)
    for i in range(n):
        delta[i] *= gradient(source[i])


@cache
def _kernels(
    value: Callable[..., Any], gradient: Callable[..., Any], dtype: str
) -> tuple[cpu.Kernel, cpu.Kernel]:
    signature = activation_signature(dtype)
    return (
        cpu.compile_kernel(_forward, signature, {"value": cpu.bind(value)}),
        cpu.compile_kernel(_backward, signature, {"gradient": cpu.bind(gradient)}),
    )


def activation_signature(dtype: str) -> Any:
    """The C signature both kernels have."""
    pointer = types.CPointer(_TYPES[dtype])
    return types.void(pointer, pointer, types.int64)


def _relu(z: Any) -> Any:
    return where(z > 0.0, z, 0.0 * z)


def _relu_gradient(z: Any) -> Any:
    return where(z > 0.0, 1.0, 0.0 * z)


def _tanh(z: Any) -> Any:
    return tanh(z)


def _tanh_gradient(z: Any) -> Any:
    return 1.0 - tanh(z) * tanh(z)


def _sigmoid(z: Any) -> Any:
    return sigmoid(z)


def _sigmoid_gradient(z: Any) -> Any:
    return sigmoid(z) * sigmoid(-z)


def _silu(z: Any) -> Any:
    return z * sigmoid(z)


def _silu_gradient(z: Any) -> Any:
    return sigmoid(z) * (1.0 + z * sigmoid(-z))


def _gelu(z: Any) -> Any:
    # z Phi(z), Phi the normal distribution function
    return 0.5 * z * (1.0 + erf(z * 0.7071067811865476))


def _gelu_gradient(z: Any) -> Any:
    # Phi(z) + z phi(z)
    return 0.5 * (1.0 + erf(z * 0.7071067811865476)) + z * 0.3989422804014327 * exp(-0.5 * z * z)


ACTIVATIONS = {
    activation.name: activation
    for activation in (
        Activation("relu", _relu, _relu_gradient, torch.nn.ReLU),
        Activation("tanh", _tanh, _tanh_gradient, torch.nn.Tanh),
        Activation("gelu", _gelu, _gelu_gradient, torch.nn.GELU),
        Activation("silu", _silu, _silu_gradient, torch.nn.SiLU),
        Activation("sigmoid", _sigmoid, _sigmoid_gradient, torch.nn.Sigmoid),
    )
}


def activation_of(name: str) -> Activation:
    """The activation of a name.

    Raises:
        InputError: there is none.
    """
    if name not in ACTIVATIONS:
        raise InputError(f"There is no activation {name!r}{near_names(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
