"""A loss through each backend, from the formula alone: values and the gradient by the predictions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from steepest.backends import reference_losses
from steepest.losses import LOSSES, LossFormula
from steepest.losses.apply import pointwise_loss, softmax_loss

from .gpu_device import WITHOUT_A_CARD, gpu

Loss = Callable[..., Tensor]


def _made_without_arguments(loss: Any) -> bool:
    return all(
        parameter.default is not parameter.empty or parameter.kind is parameter.VAR_KEYWORD
        for parameter in inspect.signature(loss).parameters.values()
    )


# Kernels are compiled from these; the composite losses and those that need the classes' counts have their own tests.
_MADE = {name: loss.formula.family for name, loss in LOSSES.items() if _made_without_arguments(loss)}
POINTWISE = [name for name, family in _MADE.items() if family == "pointwise"]
SOFTMAX = [name for name, family in _MADE.items() if family == "softmax"]
COMPILED = POINTWISE + SOFTMAX
# Under Triton's interpreter a GPU's kernels take the CPU's tensors, and its own kernels none.
BACKENDS = (
    ("cuda", "reference") if WITHOUT_A_CARD else ("cpu", "reference", *(["cuda"] * torch.cuda.is_available()))
)


def through(
    backend: str,
    formula: LossFormula,
    predictions: Tensor,
    targets: Tensor,
    parameters: Sequence[float] = (),
    *,
    reduction: str = "none",
    weight: Tensor | None = None,
    ignore_index: int = -100,
    smoothing: float = 0.0,
    upstream: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The reduced loss, and the gradient when each of its elements has the gradient ``upstream``."""
    device = gpu() if backend == "cuda" else "cpu"
    leaf = predictions.detach().to(device, copy=True).requires_grad_()
    weight = None if weight is None else weight.to(device)
    loss = _PATHS["reference" if backend == "reference" else "fused", formula.family](
        formula, leaf, targets.to(device), parameters, weight, ignore_index, smoothing, reduction
    )
    # What is meant is what ran: neither may quietly stand in for the other.
    assert ("Fused" in type(loss.grad_fn).__name__) == (backend != "reference")
    loss.backward(torch.full_like(loss, upstream))
    assert leaf.grad is not None
    return loss.detach().cpu(), leaf.grad.cpu()


def _fused_pointwise(
    formula: Any, x: Any, t: Any, parameters: Any, weight: Any, _: Any, __: Any, reduction: str
) -> Tensor:
    return pointwise_loss(formula, x, t, parameters, weight=weight, reduction=reduction)


def _reference_pointwise(
    formula: Any, x: Any, t: Any, parameters: Any, weight: Any, _: Any, __: Any, reduction: str
) -> Tensor:
    return reference_losses.pointwise(formula.value, x, t, parameters, weight, reduction)


def _fused_softmax(
    formula: Any,
    x: Any,
    t: Any,
    parameters: Any,
    weight: Any,
    ignore_index: int,
    smoothing: float,
    reduction: str,
) -> Tensor:
    return softmax_loss(
        formula, x, t, parameters,
        weight=weight, ignore_index=ignore_index, label_smoothing=smoothing, reduction=reduction,
    )  # fmt: skip


def _reference_softmax(
    formula: Any,
    x: Any,
    t: Any,
    parameters: Any,
    weight: Any,
    ignore_index: int,
    smoothing: float,
    reduction: str,
) -> Tensor:
    return reference_losses.softmax(
        formula.value, x, t, parameters, weight, None, ignore_index, smoothing, reduction
    )


_PATHS: dict[tuple[str, str], Loss] = {
    ("fused", "pointwise"): _fused_pointwise,
    ("reference", "pointwise"): _reference_pointwise,
    ("fused", "softmax"): _fused_softmax,
    ("reference", "softmax"): _reference_softmax,
}
