"""Binary cross-entropy from probabilities."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import _reduction

from steepest.backends.cuda_devices import runs_on
from steepest.backends.reference import log, log1p, maximum, where
from steepest.errors import InputError
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.checks import check_floating, check_tensors, is_concrete
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches

__all__ = ["BCELoss", "binary_cross_entropy"]


def value(p: Any, y: Any) -> Any:
    # -(y log p + (1 - y) log(1 - p)), logarithms held above -100 as torch does. At 0 and 1 themselves neither is taken:
    # lines stand for them, whose slopes give the gradient below wherever it is this formula's derivative.
    inner = where(p * (1.0 - p) == 0.0, 0.5, p)
    log_p = where(p == 0.0, 1e12 * p - 100.0, where(p == 1.0, 0.0 * p, maximum(log(inner), -100.0)))
    log_rest = where(
        p == 1.0, 1e12 * (1.0 - p) - 100.0, where(p == 0.0, 0.0 * p, maximum(log1p(-inner), -100.0))
    )
    return -(y * log_p + (1.0 - y) * log_rest)


def gradient(p: Any, y: Any) -> Any:
    # (p - y) / (p (1 - p)), the denominator held above 1e-12 as torch does
    return (p - y) / maximum(p * (1.0 - p), 1e-12)


FORMULA = LossFormula(
    name="bce_probability",
    title="binary cross-entropy (from probabilities)",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="probability",
    target="probability",
    tasks=("binary",),
    formula="mean of -(y log p + (1 - y) log(1 - p))",
    gradient_formula="(p - y) / (p (1 - p))",
    domain="p in [0, 1]; y in [0, 1]; log p is held above -100",
    source="Good 1952, Rational Decisions, J. R. Stat. Soc. B 14; Bishop 2006, eq. 4.90",
    good_at=("models that already end in a probability",),
    bad_at=(
        "p near 0 or 1: it rounds to 0 or 1, and the loss and its gradient with it; prefer bce, from logits",
        "imbalanced classes and mislabelled rows, as bce",
    ),
    compared_by_default=False,  # the same loss as bce, less exact
)


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of the binary cross-entropy of probabilities; see :class:`BCELoss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    check_tensors(FORMULA.name, input, target)
    check_floating(FORMULA.name, input)
    _check_probabilities(input)
    return pointwise_loss(FORMULA, input, target, weight=weight, reduction=reduction, **switches)


def _check_probabilities(input: Tensor) -> None:
    # Inside a transform or a trace there is no number to look at; on a GPU, which is not waited for, the loss is NaN.
    if is_concrete(input) and not (runs_on(input) or input.is_meta) and input.numel():
        low, high = (float(bound) for bound in torch.aminmax(input.detach()))
        if low < 0 or high > 1:
            raise InputError(
                f"bce_probability: inputs run from {low:g} to {high:g}; probabilities lie in [0, 1] "
                "(for logits use BCEWithLogitsLoss)."
            )


class BCELoss(LossModule, nn.BCELoss):
    """Binary cross-entropy of probabilities, drop-in for :class:`torch.nn.BCELoss`.

    ``-(y log p + (1 - y) log(1 - p))``, times ``weight``; logarithms are held above -100, as torch's.

    Args:
        weight: a factor for every element, broadcast against the input.
        size_average, reduce: torch's deprecated forms of ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input (probabilities in [0, 1]) and target alike, any.

    Raises:
        InputError: the shapes differ, or an input lies outside [0, 1] (on a GPU its loss is NaN).

    Numerics: near ``p = 1`` the loss uses ``log1p(-p)``; a probability that has rounded to 0 or 1 cannot be
    saved, which is why :class:`BCEWithLogitsLoss` is the better choice. On the
    wrong side its gradient is 1e12, as torch's.

    Source: Bishop 2006, eq. 4.90.

    >>> import torch
    >>> round(float(BCELoss()(torch.tensor([0.5]), torch.tensor([1.0]))), 6)
    0.693147
    """

    formula = FORMULA

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy(input, target, self.weight, reduction=self.reduction, **self.switches)
