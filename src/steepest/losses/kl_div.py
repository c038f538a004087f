"""Kullback-Leibler divergence from log-probabilities."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import _reduction

from steepest.backends.reference import exp, log, maximum, where
from steepest.errors import InputError
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches

__all__ = ["KLDivLoss", "kl_div"]

_LARGE = 3e38  # finite in float32 too


def value(x: Any, t: Any) -> Any:
    # t (log t - x), and 0 where t is 0: a class without a share costs nothing, its log-probability x = -inf included
    return t * (log(where(t == 0.0, 1.0, t)) - where(t == 0.0, maximum(x, -_LARGE), x))


def gradient(x: Any, t: Any) -> Any:
    # the derivative of t (log t - x) by x
    return -t


def value_of_log_target(x: Any, t: Any) -> Any:
    # e^t (t - x), and 0 where t is -inf; e^t in two halves, so that only the result, not a factor, is subnormal
    half = exp(0.5 * t)
    return half * (maximum(t, -_LARGE) - where(t < -_LARGE, maximum(x, -_LARGE), x)) * half


def gradient_of_log_target(x: Any, t: Any) -> Any:
    # the derivative of e^t (t - x) by x
    return -exp(t)


FORMULA = LossFormula(
    name="kl_div",
    title="Kullback-Leibler divergence",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="log_probability",
    target="probability",
    tasks=(),
    formula="mean of y (log y - x), x a log-probability; summed over classes it is the divergence",
    gradient_formula="-y",
    domain="log-probabilities x ≤ 0, -inf included; y in [0, 1], 0 giving 0",
    source="Kullback and Leibler 1951, On Information and Sufficiency, Ann. Math. Statist. 22, sec. 2",
    good_at=(
        "targets that are distributions: distillation, soft labels; it is 0 exactly where the two agree",
        "variational objectives, where the target distribution learns too",
    ),
    bad_at=(
        "reduction='mean', which divides by the classes too: batchmean is the divergence",
        "predictions that are not log-probabilities: nothing normalises them here",
    ),
    compared_by_default=False,
)

LOG_FORMULA = replace(
    FORMULA,
    value=value_of_log_target,
    gradient=gradient_of_log_target,
    target="real",
    formula="exp(t) (t - x), both log-probabilities; summed over classes it is the divergence",
    gradient_formula="-exp(t)",
    domain="log-probabilities x ≤ 0 and t ≤ 0, -inf included, t = -inf giving 0",
)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of the divergence of ``target`` from ``exp(input)``; see :class:`KLDivLoss`."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    elif reduction == "mean" and "normalizer" not in switches and not torch.compiler.is_compiling():
        warnings.warn(
            "reduction: 'mean' divides the divergence by the number of classes too; 'batchmean' is the mean over "
            "the batch, and what torch says 'mean' will become.",
            stacklevel=2,
        )
    if reduction == "batchmean":
        reduction = "mean"
        if switches.get("normalizer") is not None:
            raise InputError(
                "kl_div: 'batchmean' divides by the batch; with a normalizer use reduction='mean'."
            )
        if input.numel() and input.dim():
            switches["normalizer"] = float(input.shape[0])
        elif input.dim() and input.shape[0]:
            reduction = "sum"  # rows of no classes
    elif reduction not in ("none", "mean", "sum"):
        raise InputError(f"reduction is {reduction!r}; choose none, mean or sum, or batchmean.")
    return pointwise_loss(
        LOG_FORMULA if log_target else FORMULA, input, target, reduction=reduction, **switches
    )


class KLDivLoss(LossModule, nn.KLDivLoss):
    """Kullback-Leibler divergence of the target from ``exp(x)``; drop-in for :class:`torch.nn.KLDivLoss`.

    ``t (log t - x)`` element by element, or ``exp(t) (t - x)`` with ``log_target``.

    Args:
        size_average, reduce: torch's deprecated forms of ``reduction``.
        reduction: ``"none"``, ``"batchmean"`` (the divergence, averaged over the first dimension), ``"mean"``
            (divided by the number of classes too, with torch's warning) or ``"sum"``.
        log_target: the target holds log-probabilities.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input (log-probabilities) and target alike, any; batches lie in the first dimension.

    Raises:
        InputError: the shapes differ, or ``reduction`` is another word.

    Numerics: a target of 0 (of -inf as a logarithm) gives 0 whatever the prediction, where torch gives NaN for
    the prediction -inf; the gradient by a target of 0 leaves out its logarithm, -inf (torch: NaN). Where a
    target's logarithm and the prediction nearly agree, the error is in units of the logarithm, for the input is
    known no better.

    Source: Kullback and Leibler 1951, sec. 2.

    >>> import torch
    >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    >>> round(float(KLDivLoss(reduction="batchmean")(q.log(), p)), 6)
    0.143841
    """

    formula = FORMULA

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        log_target: bool = False,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(size_average, reduce, reduction, log_target)
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return kl_div(input, target, reduction=self.reduction, log_target=self.log_target, **self.switches)
