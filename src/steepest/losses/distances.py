"""Lengths, distances and cosines of vectors in torch's operations, wherever in the range they lie."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["EPSILON", "cosines", "distance"]

EPSILON = 1e-12  # torch's, beside the squared lengths of a cosine


def _scale(x: Tensor, *, only_down: bool = False) -> Tensor:
    """A power of two for each vector, by which its largest entry comes near 1; it is a constant to every derivative."""
    x = x.detach()
    if not x.shape[-1]:
        return x.new_ones((*x.shape[:-1], 1))
    largest = x.abs().amax(-1, keepdim=True)
    most = 1000.0 if x.dtype == torch.float64 else 120.0
    exponent = torch.floor(torch.log2(largest)).clamp(0.0 if only_down else -most, most)
    return torch.where((largest > 0) & torch.isfinite(largest), torch.exp2(-exponent), 1.0)


def distance(x1: Tensor, x2: Tensor, p: float, eps: float, *, is_widened: bool = False) -> Tensor:
    """The p-norm of ``x1 - x2 + eps``, along the last dimension.

    ``is_widened``: the numbers come from float32 and are held in float64, where no square leaves the range.
    """
    difference = (x1 - x2) + eps
    if p in (0, 1, math.inf) or (is_widened and p == 2) or p < 0:
        norm: Tensor = torch.linalg.vector_norm(difference, p, -1)
        return norm
    scale = _scale(difference)
    norm = torch.linalg.vector_norm(difference * scale, p, -1)
    return norm / scale.squeeze(-1)


def cosines(a: Tensor, b: Tensor, *, is_widened: bool = False) -> tuple[Tensor, Tensor]:
    """The cosine ``a b / sqrt((a a + 1e-12) (b b + 1e-12))``, and one minus it without the difference."""
    (a, root_a, more_of_a), (b, root_b, more_of_b) = _measured(a, is_widened), _measured(b, is_widened)
    apart = a / root_a - b / root_b
    cosine = (a * b).sum(-1) / root_a.squeeze(-1) / root_b.squeeze(-1)
    return cosine, 0.5 * ((apart * apart).sum(-1) + (more_of_a + more_of_b).squeeze(-1))


def _measured(x: Tensor, is_widened: bool) -> tuple[Tensor, Tensor, Tensor]:
    """A vector, scaled; the root of its square and the little more; the part of that in the square."""
    more: Tensor | float = EPSILON
    if not is_widened:
        scale = _scale(x, only_down=True)
        x, more = x * scale, EPSILON * scale * scale
    square = (x * x).sum(-1, keepdim=True) + more
    return x, torch.sqrt(square), more / square
