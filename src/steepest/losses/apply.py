"""From a formula and tensors to a loss: the fused CPU kernel where it applies, else the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from steepest.backends import reference_losses
from steepest.backends.cuda_devices import runs_on
from steepest.backends.reference import compute_dtype
from steepest.errors import InputError
from steepest.losses import fused, kernels, operators
from steepest.losses.checks import (
    check_classes,
    check_operands,
    check_parameters,
    check_reduction,
    check_weight,
    number,
    same_shape,
)
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches, check_switches

__all__ = ["autocasts", "composite_loss", "pointwise_loss", "softmax_loss", "weighted_mean", "widened"]

_HALF = (torch.float16, torch.bfloat16)


def pointwise_loss(
    formula: LossFormula,
    input: Tensor,
    target: Tensor,
    parameters: Sequence[Any] = (),
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """A pointwise formula over tensors of one shape; ``weight`` and tensor parameters broadcast against it.

    Raises:
        InputError: the shapes differ (``strict_shape=False`` broadcasts, as torch does), ``reduction`` is not
            none, mean or sum, a parameter is outside its range, or a switch has a wrong value.
    """
    check_reduction(reduction)
    check_switches(formula.name, switches, reduction)
    check_parameters(formula, parameters)
    numbers = [number(parameter) for parameter in parameters]
    plain = tuple([n for n in numbers if n is not None])
    if weight is None and not switches and len(plain) == len(numbers):
        loss = fused.plain_pointwise(formula, input, target, plain, reduction)
        if loss is not None:
            return loss
    input, target = same_shape(formula.name, input, target, switches.get("strict_shape", True))
    check_operands(formula, input, weight, parameters)
    input, target, weight, *parameters = widened(input, target, weight, *parameters)
    operands = (weight, *[None if n is not None else p for n, p in zip(numbers, parameters, strict=True)])
    if kernels.takes(input, (target, *operands), output_dtype=switches.get("output_dtype"), formula=formula):
        plain = tuple([0.0 if n is None else n for n in numbers])
        return fused.pointwise(formula, input, target, plain, operands, reduction, switches)
    if operators.takes(input, target) and not any(operand is not None for operand in operands):
        return operators.pointwise(formula, input, target, parameters, reduction, switches)
    return reference_losses.pointwise(
        formula.value, input, target, parameters, weight, reduction, **_of_the_result(switches)
    )


def weighted_mean(
    formula: LossFormula, input: Tensor, weight: Tensor, reduction: str, switches: Switches
) -> Switches:
    """torch's weights of MSE and MAE: one an element, and a mean divides by their sum."""
    check_weight(formula.name, weight)
    if weight.shape != input.shape:
        raise InputError(
            f"{formula.name}: weight has shape {tuple(weight.shape)}, the input {tuple(input.shape)}; "
            "there must be one weight an element."
        )
    if reduction != "mean" or switches.get("normalizer") is not None:
        return switches
    return {**switches, "normalizer": weight.to(compute_dtype(weight)).sum()}


def softmax_loss(
    formula: LossFormula,
    input: Tensor,
    target: Tensor,
    parameters: Sequence[float] = (),
    *,
    weight: Tensor | None = None,
    offset: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """A softmax formula over logits (N, C, d1, ...) or (C,), and indices (N, d1, ...) or probabilities.

    ``weight`` multiplies a class's terms; ``offset``, float64, is added to its logits.

    Raises:
        InputError: shapes that do not belong together, a class index out of range, a weight of another
            length than the number of classes, smoothing outside [0, 1], a parameter outside its range, or a
            switch with a wrong value.
    """
    check_reduction(reduction)
    check_switches(formula.name, switches, reduction)
    check_parameters(formula, parameters)
    if offset is None and not switches and 0.0 <= label_smoothing <= 1.0:
        settings = kernels.SoftmaxSettings(
            tuple(parameters), weight, None, ignore_index, label_smoothing, reduction
        )
        loss = fused.plain_softmax(formula, input, target, settings)
        if loss is not None:
            return loss
    num_kept = check_classes(formula.name, input, target, weight, ignore_index, label_smoothing)
    wide: Switches = {**switches, "output_dtype": switches.get("output_dtype") or torch.float32}
    is_bare = weight is None and offset is None and not target.requires_grad
    if _is_widened_by_kernel(input, target) and (
        (is_bare and operators.takes(input))
        or kernels.takes(
            input, (), (target, weight, offset), output_dtype=wide["output_dtype"], formula=formula
        )
    ):
        switches = wide
    else:
        input, target, weight = widened(input, target, weight)
    settings = kernels.SoftmaxSettings(
        tuple(parameters), weight, offset, ignore_index, label_smoothing, reduction
    )
    constant = (target, weight, offset)
    is_wider = target.is_floating_point() and torch.promote_types(input.dtype, target.dtype) != input.dtype
    if is_wider:  # the result is of the wider type, and rounded once
        return reference_losses.softmax(formula.value, input, target, *settings, **_of_the_result(switches))
    if kernels.takes(input, (), constant, output_dtype=switches.get("output_dtype"), formula=formula):
        return fused.softmax(formula, input, target, settings, switches, num_kept)
    if is_bare and operators.takes(input):
        return operators.softmax(formula, input, target, settings, switches)
    return reference_losses.softmax(formula.value, input, target, *settings, **_of_the_result(switches))


def composite_loss(
    formula: LossFormula,
    compute: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    *,
    reduction: str = "mean",
    divisor: Tensor | float | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of ``compute(*tensors)``, torch's operations on the tensors in the type they are computed in.

    ``divisor`` is what a mean divides by, where it is not the number of values (weights, kept rows).
    """
    check_reduction(reduction)
    check_switches(formula.name, switches, reduction)
    tensors = widened(*tensors)
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        if tensor.is_floating_point():
            dtype = torch.promote_types(dtype, tensor.dtype)
    wide = compute_dtype(tensors[0].to(dtype))
    values = compute(*(t.to(wide) if t.is_floating_point() else t for t in tensors))
    given = switches.get("normalizer")
    return reference_losses.reduce(
        values,
        reduction,
        switches.get("output_dtype") or dtype,
        divisor if given is None else given,
        switches.get("on_empty", "nan"),
    )


def autocasts(tensor: Tensor) -> bool:
    """Whether torch's autocast is on for the tensor's device."""
    device = tensor.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def widened(*given: Any) -> tuple[Any, ...]:
    """What is given; under autocast, which has losses in float32, with half-precision tensors in float32."""
    for each in given:
        if isinstance(each, Tensor) and each.dtype in _HALF:
            break
    else:
        return given
    if not autocasts(given[0]):
        return given
    return tuple(
        [each.float() if isinstance(each, Tensor) and each.dtype in _HALF else each for each in given]
    )


def _is_widened_by_kernel(input: Tensor, target: Tensor) -> bool:
    """Whether a kernel does what autocast asks for by itself, and no copy in float32 is needed.

    Of bfloat16 logits a GPU's kernels compute in float32, to the same bits. float16 lacks the range for a gradient that
    is yet to be scaled.
    """
    return (
        input.dtype == torch.bfloat16
        and (target.dtype == torch.bfloat16 or not target.is_floating_point())
        and runs_on(input)
        and autocasts(input)
    )


def _of_the_result(switches: Switches) -> dict[str, Any]:
    """What the reference needs to know of the switches."""
    return {
        "normalizer": switches.get("normalizer"),
        "on_empty": switches.get("on_empty", "nan"),
        "output_dtype": switches.get("output_dtype"),
    }
