"""Contours of a quadratic in two parameters: ellipses, exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from steepest.explain.figure import Window

__all__ = ["contours"]

_POINTS = 181


def contours(
    curvature: Tensor, optimum: Tensor, levels: Sequence[float], window: Window
) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Where ``(p - optimum) H (p - optimum) / 2`` is each of ``levels``; NaN where the window ends."""
    values, directions = torch.linalg.eigh(curvature)
    angle = torch.linspace(0, 2 * math.pi, _POINTS, dtype=curvature.dtype)
    circle = torch.stack([torch.cos(angle), torch.sin(angle)])
    lines = []
    for level in levels:
        points = optimum[:, None] + directions @ (circle * torch.sqrt(2 * level / values)[:, None])
        inside = (
            (points[0] >= window.left)
            & (points[0] <= window.right)
            & (points[1] >= window.bottom)
            & (points[1] <= window.top)
        )
        kept = torch.where(inside, points, torch.full_like(points, math.nan))
        x, y = kept.tolist()
        lines.append((tuple(x), tuple(y)))
    return lines
