"""The families on PyTorch tensors: differentiable, any device, any dtype, any transform."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from steepest.backends.reference import compute_dtype

__all__ = ["of_classes", "pointwise", "reduce", "softmax"]


def reduce(
    values: Tensor,
    reduction: str,
    dtype: torch.dtype,
    normalizer: Tensor | float | None = None,
    on_empty: str = "nan",
) -> Tensor:
    """none, sum, or mean (over ``normalizer`` where given, else over the number of values)."""
    if reduction == "mean":
        count = values.numel() if normalizer is None else normalizer
        total = values.sum()
        if on_empty == "zero" and isinstance(count, Tensor):
            is_empty = count == 0
            total = torch.where(is_empty, 0.0, total)
            count = count + is_empty
        elif on_empty == "zero" and count == 0:
            count = 1  # the sum of nothing is 0
        values = total / count
    elif reduction == "sum":
        values = values.sum()
    return values.to(dtype)


def pointwise(
    value: Callable[..., Any],
    prediction: Tensor,
    target: Tensor,
    parameters: Sequence[Any],
    weight: Tensor | None,
    reduction: str,
    *,
    normalizer: Tensor | float | None = None,
    on_empty: str = "nan",
    output_dtype: torch.dtype | None = None,
) -> Tensor:
    """``reduction`` of ``weight * value(prediction, target, *parameters)``."""
    dtype = torch.promote_types(prediction.dtype, target.dtype)
    compute = compute_dtype(prediction.to(dtype))
    parameters = [p.to(compute) if isinstance(p, Tensor) else p for p in parameters]
    values: Tensor = value(prediction.to(compute), target.to(compute), *parameters)
    if weight is not None:
        values = values * weight.to(compute)
    return reduce(values, reduction, output_dtype or dtype, normalizer, on_empty)


def softmax(
    value: Callable[..., Any],
    logits: Tensor,
    target: Tensor,
    parameters: Sequence[Any],
    weight: Tensor | None,
    offset: Tensor | None,
    ignore_index: int,
    smoothing: float,
    reduction: str,
    *,
    normalizer: Tensor | float | None = None,
    on_empty: str = "nan",
    output_dtype: torch.dtype | None = None,
) -> Tensor:
    """``reduction`` over rows of ``sum_j w_j q_j value(log p_j)``; classes lie in dimension 1 (0 if 1-D).

    ``target`` holds class indices (a dimension less than the logits) or probabilities (the same shape).
    """
    dimension = 1 if logits.dim() > 1 else 0
    num_classes = logits.shape[dimension]
    by_class = [-1] + [1] * (logits.dim() - dimension - 1)
    dtype = logits.dtype
    if target.is_floating_point():
        dtype = torch.promote_types(dtype, target.dtype)
    x = logits.to(compute_dtype(logits.to(dtype)))
    if offset is not None:
        x = x + offset.to(x.dtype).reshape(by_class)
    class_weight = None if weight is None else weight.to(x.dtype)
    count: Tensor | float | None = None  # what a mean divides by
    if target.is_floating_point():
        count = x.numel() // num_classes if num_classes else 0
        share = target.to(x.dtype)
        if smoothing:
            share = share * (1 - smoothing) + smoothing / num_classes
        rows = _rows(value(_log_softmax(x, dimension), *parameters), share, class_weight, dimension)
    else:
        index = target.to(torch.int64)
        kept = index != ignore_index
        index = torch.where(kept, index, torch.zeros_like(index))
        row_weight = kept.to(x.dtype)
        if class_weight is not None:
            row_weight = row_weight * of_classes(class_weight, index)
        count = row_weight.sum()
        x = torch.where(kept.unsqueeze(dimension), x, torch.zeros_like(x))  # whatever an ignored row holds
        log_p = _log_softmax(x, dimension)
        # A class out of range is an error of this gather's, where nothing can be looked at beforehand.
        own = log_p.gather(dimension, index.unsqueeze(dimension)).squeeze(dimension)
        rows = _share_of(row_weight, value(own, *parameters)) * (1 - smoothing)
        if smoothing:
            share = torch.full_like(x, smoothing / num_classes)
            spread = _rows(value(log_p, *parameters), share, class_weight, dimension)
            rows = rows + torch.where(kept, spread, torch.zeros_like(spread))
    divisor = count if normalizer is None else normalizer
    return reduce(rows, reduction, output_dtype or dtype, divisor, on_empty)


def of_classes(weight: Tensor, index: Tensor) -> Tensor:
    """Each index's weight; ``weight[index]`` would ask a lone index inside vmap for its number."""
    return weight.gather(0, index.reshape(-1)).reshape(index.shape)


def _rows(values: Tensor, share: Tensor, class_weight: Tensor | None, dimension: int) -> Tensor:
    """Each row's sum over its classes."""
    if class_weight is not None:
        share = share * class_weight.reshape([-1] + [1] * (values.dim() - dimension - 1))
    return _share_of(share, values).sum(dimension)


def _share_of(share: Tensor, values: Tensor) -> Tensor:
    """The product; no share contributes nothing, not 0 * inf."""
    return share * torch.where((share == 0) & ~torch.isfinite(values), torch.zeros_like(values), values)


def _log_softmax(x: Tensor, dimension: int) -> Tensor:
    """Exact in both tails: the largest class's own term is taken out of the sum before the logarithm."""
    largest, k = x.max(dimension, keepdim=True)
    # Of an infinite one nothing can be told, and the whole row is NaN.
    largest = largest * torch.where(largest == math.inf, math.nan, torch.ones_like(largest))
    classes = torch.arange(x.shape[dimension], device=x.device)
    is_largest = classes.reshape([-1] + [1] * (x.dim() - dimension - 1)) == k
    # The largest's own difference is 0 and has no slope: as x - largest its two slopes would cancel only in part.
    difference = torch.where(is_largest & torch.isfinite(largest), torch.zeros_like(x), x - largest)
    # exp(x - m) with the rounding error of the difference carried along.
    back = x - difference
    error = ((back - largest) + (x - (difference + back))).detach()
    error = torch.where(torch.isfinite(error), error, torch.zeros_like(error))
    terms = torch.exp(difference) * (1 + error)
    rest = torch.where(is_largest, torch.zeros_like(terms), terms).sum(dimension, keepdim=True)
    return difference - torch.log1p(rest)
