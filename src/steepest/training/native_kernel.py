"""A whole training run as one compiled function.

Shapes: B rows of a micro-batch, I inputs and O outputs of a layer. Activations are feature-major, (I, B), so
that rows lie side by side in SIMD lanes; weights are (O, I) and row-major, torch's layout. Nothing here knows
a loss, an optimizer, an activation or a metric by name: they come as addresses of C functions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import carray, njit, types

from steepest.backends import cpu
from steepest.backends.cpu_losses import ENGINE_LOSS
from steepest.backends.cpu_optim import ENGINE_STEP
from steepest.backends.cpu_vocabulary import sigmoid
from steepest.training.activations import activation_signature
from steepest.training.metrics import PROBABILITY, metric_signature
from steepest.training.random import permute
from steepest.training.run import STOP_REASONS

__all__ = ["INTEGERS", "MICRO_BATCH", "NUMBERS", "train_kernel"]

MICRO_BATCH = 256  # rows that go through the net at once; larger batches add up their gradients
_BLAS_FROM = 8192  # multiply-adds from which BLAS beats a plain loop

# The scalars of a run, by position in two arrays.
INTEGERS = (
    "num_rows", "num_features", "target_width", "num_validation", "num_layers", "batch_size", "seed",
    "max_epochs", "max_steps", "patience", "greater_is_better", "use_target_metric", "kind", "mean_over_outputs",
    "shuffle", "max_evaluations",
)  # fmt: skip
NUMBERS = ("min_gradient_norm", "target_metric", "divergence_factor")

_EPOCHS, _STEPS, _SECONDS, _PATIENCE, _GRADIENT, _TARGET, _DIVERGED, _INTERRUPTED = range(len(STOP_REASONS))

call_loss: Any
call_metric: Any
call_activation: Any
call_step: Any
float_type: Any

# Sums may be taken in any order here (it is fixed once compiled); NaN and infinity keep their meaning.
_sums = njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy", nogil=True)


@_sums
def _forward_layer(w: Any, b: Any, x: Any, z: Any, num_in: int, num_out: int, rows: int) -> None:
    """z (O, B) = w (O, I) x (I, B) + b (O)."""
    if num_in * num_out * rows >= _BLAS_FROM:
        result = z.reshape(num_out, rows)
        np.dot(w.reshape(num_out, num_in), x.reshape(num_in, rows), result)
        for o in range(num_out):
            for r in range(rows):
                z[o * rows + r] += b[o]
    elif rows == 1:
        for o in range(num_out):
            total = b[o]
            for i in range(num_in):
                total += w[o * num_in + i] * x[i]
            z[o] = total
    else:
        for o in range(num_out):
            for r in range(rows):
                z[o * rows + r] = b[o]
            for i in range(num_in):
                weight = w[o * num_in + i]
                for r in range(rows):
                    z[o * rows + r] += weight * x[i * rows + r]


@_sums
def _weight_gradient(
    d: Any, x: Any, g: Any, gb: Any, spare: Any, num_in: int, num_out: int, rows: int, first: bool
) -> None:
    """g (O, I) (+)= d (O, B) x (I, B)^T and gb (O) (+)= sum of d over rows; ``first`` overwrites."""
    for o in range(num_out):
        total = d[o * rows]
        for r in range(1, rows):
            total += d[o * rows + r]
        gb[o] = total if first else gb[o] + total
    if num_in * num_out * rows >= _BLAS_FROM:
        result = g.reshape(num_out, num_in) if first else spare[: num_out * num_in].reshape(num_out, num_in)
        np.dot(d.reshape(num_out, rows), x.reshape(num_in, rows).T, result)
        if not first:
            for i in range(num_out * num_in):
                g[i] += spare[i]
    elif rows == 1:
        for o in range(num_out):
            for i in range(num_in):
                term = d[o] * x[i]
                g[o * num_in + i] = term if first else g[o * num_in + i] + term
    else:
        for o in range(num_out):
            for i in range(num_in):
                total = d[o * rows] * x[i * rows]
                for r in range(1, rows):
                    total += d[o * rows + r] * x[i * rows + r]
                g[o * num_in + i] = total if first else g[o * num_in + i] + total


@_sums
def _backward_layer(w: Any, d: Any, below: Any, num_in: int, num_out: int, rows: int) -> None:
    """below (I, B) = w (O, I)^T d (O, B)."""
    if num_in * num_out * rows >= _BLAS_FROM:
        result = below.reshape(num_in, rows)
        np.dot(w.reshape(num_out, num_in).T, d.reshape(num_out, rows), result)
        return
    for i in range(num_in * rows):
        below[i] = 0.0
    for o in range(num_out):
        if rows == 1:
            for i in range(num_in):
                below[i] += w[o * num_in + i] * d[o]
        else:
            for i in range(num_in):
                weight = w[o * num_in + i]
                for r in range(rows):
                    below[i * rows + r] += weight * d[o * rows + r]


def _forward(
    parameters: Any, sizes: Any, num_layers: int, z: Any, a: Any, rows: int, activation: int, kind: int
) -> None:
    """From the inputs at the start of ``a`` through all layers; layer l's outputs end up in both z and a."""
    at = 0
    here = 0
    for layer in range(num_layers):
        num_in, num_out = sizes[layer], sizes[layer + 1]
        after = here + num_in * rows
        stop = after + num_out * rows
        w = parameters[at : at + num_in * num_out]
        b = parameters[at + num_in * num_out : at + (num_in + 1) * num_out]
        forward_layer(w, b, a[here:after], z[after:stop], num_in, num_out, rows)
        if layer < num_layers - 1:
            call_activation(activation, z[after:stop].ctypes, a[after:stop].ctypes, num_out * rows)
        elif kind == PROBABILITY:
            for i in range(after, stop):
                a[i] = sigmoid(z[i])
        else:
            a[after:stop] = z[after:stop]
        at += (num_in + 1) * num_out
        here = after


def _backward(
    parameters: Any, gradient: Any, sizes: Any, num_layers: int, z: Any, a: Any, d: Any, below: Any, spare: Any,
    rows: int, activation: int, kind: int, first: bool,
) -> None:  # fmt: skip
    """From the loss's gradient (in d) down to all weights' gradients."""
    at = len(parameters)
    here = 0
    for layer in range(num_layers):
        here += sizes[layer] * rows
    if kind == PROBABILITY:
        for i in range(sizes[num_layers] * rows):
            p = a[here + i]
            d[i] *= p * (1 - p)
    for layer in range(num_layers - 1, -1, -1):
        num_in, num_out = sizes[layer], sizes[layer + 1]
        at -= (num_in + 1) * num_out
        bias = at + num_in * num_out
        inputs = here - num_in * rows
        weight_gradient(
            d[: num_out * rows], a[inputs:here], gradient[at:bias], gradient[bias : bias + num_out], spare,
            num_in, num_out, rows, first,
        )  # fmt: skip
        if layer > 0:
            backward_layer(
                parameters[at:bias], d[: num_out * rows], below[: num_in * rows], num_in, num_out, rows
            )
            call_activation_backward(z[inputs:here].ctypes, below.ctypes, num_in * rows)
            d, below = below, d
        here = inputs
