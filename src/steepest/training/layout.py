"""How a module's outputs meet its targets: values of the targets' shape, or one axis of classes more."""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.errors import InputError

__all__ = [
    "IGNORED",
    "alike",
    "check_indices",
    "check_two_classes",
    "class_rows",
    "is_kept",
    "layout_of",
    "rows_of_outputs",
]

IGNORED = -100  # the class index that torch's cross-entropy leaves out: padding


def layout_of(outputs: Tensor, targets: Tensor) -> tuple[int, bool]:
    """How many outputs a target has, and whether their axis is the last one of several.

    Args:
        outputs: of one batch. (rows, ...) values like the targets; or class logits, torch's own
            (rows, classes, ...) or (rows, ..., classes).
        targets: of the same batch, (rows, ...).

    Raises:
        InputError: the shapes do not belong together, or two readings are possible.
    """
    targets = _without_axis_of_one(outputs, targets)
    if alike(outputs, targets)[0].shape == alike(outputs, targets)[1].shape:
        return 1, False
    one_more = outputs.dim() == targets.dim() + 1
    second = one_more and outputs.shape[:1] + outputs.shape[2:] == targets.shape
    last = one_more and outputs.shape[:-1] == targets.shape
    if second and last and targets.dim() > 1:
        raise InputError(
            f"The model's outputs {tuple(outputs.shape)} for targets {tuple(targets.shape)} can be read in two "
            "ways, with the classes as the second axis or as the last one; give sequences of another length than "
            f"{outputs.shape[1]}."
        )
    if second or last:
        return (outputs.shape[1], False) if second else (outputs.shape[-1], True)
    raise InputError(
        f"The model gave outputs of shape {tuple(outputs.shape)} for targets of shape {tuple(targets.shape)}; they "
        "must have the targets' shape, or an axis of classes more: the second, as in torch, or the last."
    )


def alike(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Without an axis of one that only one of them has: the reshaping that cannot be meant otherwise."""
    if outputs.dim() == targets.dim() + 1:
        if outputs.shape == (*targets.shape, 1):
            return outputs.squeeze(-1), targets
        if outputs.shape[1] == 1 and outputs.shape[2:] == targets.shape[1:]:
            return outputs.squeeze(1), targets
    if targets.shape == (*outputs.shape, 1):
        return outputs, targets.squeeze(-1)
    return outputs, targets


def class_rows(outputs: Tensor, targets: Tensor, classes_last: bool) -> tuple[Tensor, Tensor]:
    """Logits and class indices as torch's cross-entropy takes them."""
    targets = _without_axis_of_one(outputs, targets)
    if classes_last and outputs.dim() > 2:
        return outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1)
    return outputs, targets


def _without_axis_of_one(outputs: Tensor, targets: Tensor) -> Tensor:
    """Class indices without an axis of one in the place where the outputs have their classes."""
    if targets.dim() == outputs.dim() > 1:
        for axis in (1, outputs.dim() - 1):
            if targets.shape[axis] == 1 < outputs.shape[axis]:
                rest = targets.squeeze(axis)
                if rest.shape == (*outputs.shape[:axis], *outputs.shape[axis + 1 :]):
                    return rest
    return targets


def rows_of_outputs(outputs: Tensor, has_classes: bool, classes_last: bool) -> Tensor:
    """Outputs as (targets, classes), or (targets, 1) where they are values, in the order of the flat targets."""
    if not has_classes:
        return outputs.reshape(-1, 1)
    if not classes_last:
        outputs = outputs.movedim(1, -1)
    return outputs.reshape(-1, outputs.shape[-1])


def is_kept(targets: Tensor) -> Tensor:
    """Which of the flat class indices count: all but the ignored ones."""
    if not targets.dtype.is_signed or targets.is_floating_point():  # -100 would be read as class 156 of uint8
        return torch.ones_like(targets, dtype=torch.bool)
    return targets != IGNORED


def check_indices(targets: Tensor) -> None:
    """Class indices that came as floating point are whole numbers; any other would be cut to one.

    Raises:
        InputError: one is not.
    """
    if not targets.is_floating_point():
        return
    odd = targets[targets != targets.trunc()]
    if len(odd):
        raise InputError(
            f"Classes are whole numbers, 0, 1, ...; {float(odd[0]):g} among the targets is none. For numbers to "
            "predict, the task is 'regression'."
        )


def check_two_classes(targets: Tensor) -> None:
    """Targets for one output a row: 0, 1, or a share between them.

    Raises:
        InputError: one is not.
    """
    shares = targets.double()
    outside = shares[~((shares >= 0.0) & (shares <= 1.0))]
    if len(outside):
        raise InputError(
            f"With one output a row the two classes are 0 and 1; {float(outside[0]):g} among the targets is neither. "
            "For numbers to predict, the task is 'regression'; for more classes, give an output for each."
        )
