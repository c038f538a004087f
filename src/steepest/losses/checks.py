"""What is checked before a loss is computed, each answered with one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from steepest.backends import cpu_losses
from steepest.errors import InputError
from steepest.losses.formula import LossFormula

__all__ = [
    "check_classes",
    "check_dense",
    "check_floating",
    "check_operands",
    "check_parameters",
    "check_reduction",
    "check_tensors",
    "check_weight",
    "in_one_shape",
    "is_concrete",
    "number",
    "same_shape",
]


_PLAIN = (Tensor, torch.nn.Parameter)
_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
_is_wrapped: Callable[[Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor
_mode: Callable[[Any], Any] = torch._C._get_dispatch_mode
_PROXY = torch._C._TorchDispatchModeKey.PROXY
_has_transforms: Callable[[], bool] = torch._C._are_functorch_transforms_active  # torch.compile knows it too


def check_reduction(reduction: str) -> None:
    """One of none, mean and sum."""
    if reduction not in ("none", "mean", "sum"):
        raise InputError(f"reduction is {reduction!r}; choose none, mean or sum.")


def check_parameters(formula: LossFormula, parameters: Sequence[Any]) -> None:
    """Each number within its interval; tensors are taken at their word."""
    if not parameters and not formula.parameters:
        return
    for (name, _), value in zip(formula.parameters.items(), parameters, strict=True):
        interval = formula.valid.get(name)
        if interval is None or isinstance(value, Tensor):
            continue
        try:
            is_inside = interval.holds(value)
        except TypeError:
            raise InputError(f"{formula.name}: {name} is {value!r}; give a number in {interval}.") from None
        if not is_inside:
            raise InputError(f"{formula.name}: {name} is {value}; it must lie in {interval}.")


def check_weight(name: str, weight: Any) -> None:
    """A tensor, and no list or number."""
    if not isinstance(weight, Tensor):
        kind = type(weight).__name__
        raise InputError(
            f"{name}: the weight is of type {kind}; it must be a torch.Tensor (torch.as_tensor makes one)."
        )


def check_operands(formula: LossFormula, input: Tensor, weight: Any, parameters: Sequence[Any]) -> None:
    """A weight, and parameters that are tensors, broadcast against the input."""
    if weight is not None:
        check_weight(formula.name, weight)
    for word, given in zip(("weight", *formula.parameters), (weight, *parameters), strict=True):
        if not isinstance(given, Tensor):
            continue
        try:
            torch.broadcast_shapes(given.shape, input.shape)
        except RuntimeError:
            raise InputError(
                f"{formula.name}: {word} has shape {tuple(given.shape)}, which does not broadcast against the input's "
                f"{tuple(input.shape)}."
            ) from None


def check_dense(name: str, **given: Any) -> None:
    """All are dense tensors, and no arrays, lists or numbers; the sentence calls each by its word here."""
    for word, one in given.items():
        if not isinstance(one, Tensor):
            kind = type(one).__name__
            raise InputError(
                f"{name}: the {word} is of type {kind}; it must be a torch.Tensor (torch.as_tensor makes one)."
            )
        if one.layout in _SPARSE:
            raise InputError(f"{name}: the {word} is sparse ({one.layout}); give {word}.to_dense().")


def check_tensors(name: str, input: Any, target: Any) -> None:
    """The same of an input and a target."""
    check_dense(name, input=input, target=target)


def check_floating(name: str, input: Tensor, word: str = "input") -> None:
    """Predictions are floating: a mean of integers would be cut to an integer."""
    if not input.is_floating_point():
        raise InputError(f"{name}: the {word} is {input.dtype}; predictions are floating (float32, say).")


def same_shape(name: str, input: Tensor, target: Tensor, strict: bool) -> tuple[Tensor, Tensor]:
    """Both in one shape: as they are, broadcast if that was asked for, else refused."""
    check_tensors(name, input, target)
    check_floating(name, input)
    if input.shape == target.shape:
        return input, target
    broadcast = in_one_shape(name, strict, input=input, target=target)
    return broadcast[0], broadcast[1]


def in_one_shape(name: str, strict: bool, **given: Tensor) -> list[Tensor]:
    """Tensors as they are where their shapes are equal, broadcast if that was asked for, else refused."""
    (first_word, first), *others = given.items()
    if all(other.shape == first.shape for _, other in others):
        return list(given.values())
    if strict:
        shapes = ", ".join(f"the {word} {tuple(other.shape)}" for word, other in others[:-1])
        last_word, last = others[-1]
        raise InputError(
            f"{name}: the {first_word} has shape {tuple(first.shape)}{shapes and ', '}{shapes} and the {last_word} "
            f"{tuple(last.shape)}; they must be equal (reshape one of them, or pass strict_shape=False to broadcast as "
            "torch does)."
        )
    return list(torch.broadcast_tensors(*given.values()))


def check_classes(
    name: str, input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, smoothing: float
) -> int | None:
    """Logits (N, C, ...) or (C,) with class indices or probabilities that belong to them.

    Returns:
        The number of rows that are not ignored, where it was looked at.
    """
    check_tensors(name, input, target)
    check_floating(name, input)
    shape, with_probabilities = input.shape, target.is_floating_point()
    if not shape:
        raise InputError(
            f"{name}: the input is a single number; logits have shape (C,), (N, C) or (N, C, d1, ...)."
        )
    classes = shape[1] if len(shape) > 1 else shape[0]
    without_classes = shape[:1] + shape[2:] if len(shape) > 1 else ()
    expected = shape if with_probabilities else without_classes
    if target.shape != expected:
        kind = "probability" if with_probabilities else "class-index"
        raise InputError(
            f"{name}: logits of shape {tuple(shape)} need {kind} targets of shape {tuple(expected)}; "
            f"the target has shape {tuple(target.shape)}{_remedy(input, target, tuple(expected))}."
        )
    if target.is_complex() or target.dtype == torch.bool:
        raise InputError(
            f"{name}: targets are {target.dtype}; use integer class indices or floating probabilities."
        )
    if with_probabilities and ignore_index >= 0:
        raise InputError(
            f"{name}: ignore_index is {ignore_index}, and the target holds probabilities; only class indices can be "
            "ignored (leave it at -100)."
        )
    if weight is not None:
        check_weight(name, weight)
    if weight is not None and tuple(weight.shape) != (classes,):
        raise InputError(
            f"{name}: weight has shape {tuple(weight.shape)}; it must be ({classes},), one a class."
        )
    if not 0.0 <= smoothing <= 1.0:
        raise InputError(f"{name}: label_smoothing is {smoothing}; it must lie in [0, 1].")
    if with_probabilities or not target.is_cpu or not is_concrete(input, target):
        return None
    return check_class_indices(name, target, classes, ignore_index)


def _remedy(input: Tensor, target: Tensor, expected: tuple[int, ...]) -> str:
    """The end of a sentence: what would make a target of classes fit, where its shape tells."""
    if target.is_floating_point():
        return ""
    if target.shape == input.shape:
        return " (one-hot rows must be floating: target.float())"
    if input.dim() > 1 and tuple(target.shape) == (*expected[:1], 1, *expected[1:]):
        return " (target.squeeze(1) has it)"
    return ""


def check_class_indices(name: str, target: Tensor, classes: int, ignore_index: int) -> int:
    """Every index among the classes, or the ignored one; how many are not ignored."""
    index = target.to(torch.int64).contiguous()  # a uint8 takes -100 for 156
    num_kept = cpu_losses.num_kept()(index.data_ptr(), index.numel(), classes, ignore_index)
    if num_kept < 0:
        kept = index[index != ignore_index]
        raise IndexError(
            f"{name}: targets run from {int(kept.min())} to {int(kept.max())}; "
            f"class indices of {classes} classes lie in [0, {classes - 1}] (or are ignore_index={ignore_index})."
        )
    return num_kept


def number(parameter: Any) -> float | None:
    """A plain number, from a number or a constant one-element tensor; None where it varies, learns or is elsewhere."""
    if isinstance(parameter, Tensor):
        constant = parameter.numel() == 1 and not parameter.requires_grad and is_concrete(parameter)
        constant = constant and parameter.device.type == "cpu"  # another device is not waited for
        return float(parameter) if constant else None
    return float(parameter)


def is_concrete(*tensors: Tensor | None) -> bool:
    """Tensors, where given, with memory of their own: not traced, not inside vmap, not a subclass."""
    if (
        torch.compiler.is_compiling() or _mode(_PROXY) is not None
    ):  # make_fx writes down what torch is asked for
        return False
    for tensor in tensors:  # noqa: SIM110 (a generator takes longer than its questions)
        if tensor is not None and (type(tensor) not in _PLAIN or _is_wrapped(tensor)):
            return False
    return True


def is_transformed() -> bool:
    """Whether something in flight needs more than values and gradients: ``torch.func``, forward-mode derivatives."""
    return _has_transforms() or forward_ad._current_level >= 0
