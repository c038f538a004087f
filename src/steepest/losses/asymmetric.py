"""Asymmetric loss for several labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.reference import log, log1p, maximum, minimum, power, sigmoid, where
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.binary_focal import probability, slope, term
from steepest.losses.checks import number
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches
from steepest.tuning_range import TuningRange

__all__ = ["AsymmetricLoss", "asymmetric_loss"]

_LEAST = 5e-324


def _shifted(x: Any, clip: Any) -> Any:
    """``max(p - clip, 0)``: the probability of a negative, less what is forgiven."""
    p = probability(x)
    return where(p > clip, p - clip, 0.0 * p)


def _shifted_loss(x: Any, shifted: Any, clip: Any) -> Any:
    """``-log(1 - shifted)``: from the sum that is left where the shifted probability is large."""
    return where(shifted < 0.5, -log1p(-minimum(shifted, 0.5)), -log(sigmoid(-x) + clip))


def _faded(shifted: Any, gamma_neg: Any) -> Any:
    """``shifted**gamma_neg``, where it is above 0."""
    return power(where(shifted > 0.0, shifted, 1.0), gamma_neg)


def value(x: Any, y: Any, gamma_neg: Any, gamma_pos: Any, clip: Any) -> Any:
    # -y (1 - p)^gamma_pos log p - (1 - y) p_m^gamma_neg log(1 - p_m), p_m = max(p - clip, 0)
    shifted = _shifted(x, clip)
    negative = _faded(shifted, gamma_neg) * _shifted_loss(x, shifted, clip)
    return term(x, y, gamma_pos) + (1.0 - y) * where(shifted > 0.0, negative, 0.0 * shifted)


def gradient(x: Any, y: Any, gamma_neg: Any, gamma_pos: Any, clip: Any) -> Any:
    # the negative's: p (1 - p) p_m^gamma_neg (1 / (1 - p_m) - gamma_neg log(1 - p_m) / p_m), 0 where p <= clip
    shifted = _shifted(x, clip)
    quotient = _shifted_loss(x, shifted, clip) / maximum(shifted, _LEAST)
    rise = gamma_neg * quotient + 1.0 / (sigmoid(-x) + clip)
    negative = _faded(shifted, gamma_neg) * (sigmoid(x) * sigmoid(-x) * rise)
    return (1.0 - y) * where(shifted > 0.0, negative, 0.0 * shifted) - y * slope(x, gamma_pos)


def unclipped_value(x: Any, y: Any, gamma_neg: Any, gamma_pos: Any) -> Any:
    # -y (1 - p)^gamma_pos log p - (1 - y) p^gamma_neg log(1 - p)
    return term(x, y, gamma_pos) + term(-x, 1.0 - y, gamma_neg)


def unclipped_gradient(x: Any, y: Any, gamma_neg: Any, gamma_pos: Any) -> Any:
    return (1.0 - y) * slope(-x, gamma_neg) - y * slope(x, gamma_pos)


FORMULA = LossFormula(
    name="asymmetric",
    title="asymmetric loss (from logits)",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="logit",
    target="probability",
    tasks=("binary",),
    formula="mean of -y (1 - p)^γ⁺ log p - (1 - y) m^γ⁻ log(1 - m), m = max(p - clip, 0), p = sigmoid(x)",
    gradient_formula="(1 - y) p (1 - p) m^γ⁻ (1 / (1 - m) - γ⁻ log(1 - m) / m) - y (1 - p)^γ⁺ (1 - p - γ⁺ p log p), "
    "the first term 0 where p ≤ clip",
    domain="any logit x, infinities included; y in [0, 1]; γ⁻ is gamma_neg, γ⁺ is gamma_pos",
    source="Ridnik et al. 2021, Asymmetric Loss for Multi-Label Classification, ICCV, eq. 7",
    good_at=(
        "many labels of which a row has few: negatives fade faster than positives, the easiest ones entirely",
        "labels left out by mistake: a sure prediction against a negative gets a shrinking gradient from clip on",
    ),
    bad_at=(
        "probabilities at face value: positives are favoured, so they come out too high",
        "balanced classes: a negative with p below clip is never pushed further down",
    ),
    parameters={"gamma_neg": 4.0, "gamma_pos": 1.0, "clip": 0.05},
    valid={
        "gamma_neg": Interval(0.0, float("inf"), "[)"),
        "gamma_pos": Interval(0.0, float("inf"), "[)"),
        "clip": Interval(0.0, 1.0),
    },
    tunable={
        "gamma_neg": TuningRange(0.0, 8.0),
        "gamma_pos": TuningRange(0.0, 2.0),
        "clip": TuningRange(0.01, 0.2, "log"),
    },
    compared_by_default=False,
)
UNCLIPPED_FORMULA = replace(
    FORMULA,
    value=unclipped_value,
    gradient=unclipped_gradient,
    formula="mean of -y (1 - p)^γ⁺ log p - (1 - y) p^γ⁻ log(1 - p), p = sigmoid(x)",
    gradient_formula="(1 - y) p^γ⁻ (p - γ⁻ (1 - p) log(1 - p)) - y (1 - p)^γ⁺ (1 - p - γ⁺ p log p)",
    parameters={name: FORMULA.parameters[name] for name in ("gamma_neg", "gamma_pos")},
    valid={name: FORMULA.valid[name] for name in ("gamma_neg", "gamma_pos")},
)


def asymmetric_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    gamma_neg: float = 4.0,
    gamma_pos: float = 1.0,
    clip: float = 0.05,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of the asymmetric loss of ``sigmoid(input)``; see :class:`AsymmetricLoss`."""
    gammas = (gamma_neg, gamma_pos)
    if number(clip) == 0.0:
        return pointwise_loss(UNCLIPPED_FORMULA, input, target, gammas, reduction=reduction, **switches)
    return pointwise_loss(FORMULA, input, target, (*gammas, clip), reduction=reduction, **switches)


class AsymmetricLoss(LossModule, nn.Module):
    """Focal loss with a power for each class, which forgives negatives with a probability up to ``clip``.

    ``-y (1 - p)**gamma_pos log(p) - (1 - y) m**gamma_neg log(1 - m)``, ``m = max(p - clip, 0)``,
    ``p = sigmoid(x)``.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``; the paper's own code sums.
        gamma_neg: how fast an easy negative fades, 0 or above.
        gamma_pos: how fast an easy positive fades, 0 or above.
        clip: the probability at and below which a negative costs nothing, in [0, 1).
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input (logits, a label each) and target (0 or 1, or shares between) alike, any.

    Raises:
        InputError: the shapes differ, a power is negative, or ``clip`` is outside [0, 1).

    Numerics: the gradient is the loss's own, through the powers too; the paper's code holds them constant unless
    told otherwise (``disable_torch_grad_focal_loss``), and cuts logarithms at 1e-8, which this does not. Both tails
    are exact; where ``p`` is close above ``clip``, ``m`` is their difference, and as good as ``p`` is.

    Source: Ridnik et al. 2021, eq. 7.

    >>> import torch
    >>> losses = AsymmetricLoss(reduction="none")(torch.tensor([1.0, 1.0, -4.0]), torch.tensor([1.0, 0.0, 0.0]))
    >>> print(", ".join(f"{loss:.6f}" for loss in losses.tolist()))
    0.084249, 0.245860, 0.000000
    """

    formula = FORMULA

    def __init__(
        self,
        reduction: str = "mean",
        gamma_neg: float = 4.0,
        gamma_pos: float = 1.0,
        clip: float = 0.05,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.gamma_neg = gamma_neg
        self.gamma_pos = gamma_pos
        self.clip = clip
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return asymmetric_loss(
            input, target, self.reduction, self.gamma_neg, self.gamma_pos, self.clip, **self.switches
        )

    def extra_repr(self) -> str:
        own = f"gamma_neg={self.gamma_neg}, gamma_pos={self.gamma_pos}, clip={self.clip}"
        return ", ".join(filter(None, [own, super().extra_repr()]))
