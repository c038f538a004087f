"""Binary focal loss from logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.reference import minimum, sigmoid, sigmoid_power, softplus, where
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches
from steepest.tuning_range import TuningRange

__all__ = ["BinaryFocalLoss", "binary_focal_loss"]

_LARGE = 3e38  # finite in float32 too


def probability(x: Any) -> Any:
    """``sigmoid(x)``, from the smaller side: autograd's ``s (1 - s)`` has no digits of ``1 - s`` where s is near 1."""
    return where(x > 1.0, 1.0 - sigmoid(-x), sigmoid(x))


def term(x: Any, share: Any, gamma: Any) -> Any:
    """``-(1 - p)**gamma * log(p)`` by the share of a class, ``p = sigmoid(x)`` its probability.

    Without a share it is 0, also where the logit is infinite.
    """
    loss = softplus(-x)
    return share * (sigmoid_power(-x, gamma) * where(share == 0.0, minimum(loss, _LARGE), loss))


def slope(x: Any, gamma: Any) -> Any:
    """Minus the derivative of ``-(1 - p)**gamma * log(p)``: ``(1 - p)**gamma (1 - p - gamma p log p)``, of one sign."""
    return sigmoid_power(-x, gamma) * (sigmoid(-x) + gamma * sigmoid(x) * minimum(softplus(-x), _LARGE))


def value(x: Any, y: Any, alpha: Any, gamma: Any) -> Any:
    # -alpha y (1 - p)^gamma log p - (1 - alpha) (1 - y) p^gamma log(1 - p)
    return term(x, alpha * y, gamma) + term(-x, (1.0 - alpha) * (1.0 - y), gamma)


def gradient(x: Any, y: Any, alpha: Any, gamma: Any) -> Any:
    return (1.0 - alpha) * (1.0 - y) * slope(-x, gamma) - alpha * y * slope(x, gamma)


def unweighted_value(x: Any, y: Any, gamma: Any) -> Any:
    # -y (1 - p)^gamma log p - (1 - y) p^gamma log(1 - p)
    return term(x, y, gamma) + term(-x, 1.0 - y, gamma)


def unweighted_gradient(x: Any, y: Any, gamma: Any) -> Any:
    return (1.0 - y) * slope(-x, gamma) - y * slope(x, gamma)


FORMULA = LossFormula(
    name="binary_focal",
    title="binary focal loss (from logits)",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="logit",
    target="probability",
    tasks=("binary",),
    formula="mean of -α y (1 - p)^γ log p - (1 - α) (1 - y) p^γ log(1 - p), p = sigmoid(x)",
    gradient_formula="(1 - α) (1 - y) p^γ (p - γ (1 - p) log(1 - p)) - α y (1 - p)^γ (1 - p - γ p log p)",
    domain="any logit x, infinities included; y in [0, 1]; α is alpha, γ is gamma",
    source="Lin, Goyal, Girshick, He and Dollár 2017, Focal Loss for Dense Object Detection, ICCV, eq. 5",
    good_at=(
        "a few positives among many easy negatives, as in detection: the easy ones no longer drown them",
        "hard rows: what is already right with p = 0.9 counts a hundredth at γ = 2",
    ),
    bad_at=(
        "mislabelled rows: they are the hard ones, and get the weight",
        "probabilities at face value: it is no proper score, and α shifts them besides",
        "the default α = 0.25, where positives are not drowned: it weighs them a third of the negatives",
    ),
    parameters={"alpha": 0.25, "gamma": 2.0},
    valid={"alpha": Interval(0.0, 1.0, "[]"), "gamma": Interval(0.0, float("inf"), "[)")},
    tunable={"alpha": TuningRange(0.1, 0.9), "gamma": TuningRange(0.0, 5.0)},
    compared_by_default=False,
)
UNWEIGHTED_FORMULA = replace(
    FORMULA,
    value=unweighted_value,
    gradient=unweighted_gradient,
    formula="mean of -y (1 - p)^γ log p - (1 - y) p^γ log(1 - p), p = sigmoid(x)",
    gradient_formula="(1 - y) p^γ (p - γ (1 - p) log(1 - p)) - y (1 - p)^γ (1 - p - γ p log p)",
    domain="any logit x, infinities included; y in [0, 1]; γ is gamma",
    parameters={"gamma": 2.0},
    valid={"gamma": Interval(0.0, float("inf"), "[)")},
)


def binary_focal_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of the focal loss of ``sigmoid(input)``; see :class:`BinaryFocalLoss`."""
    if alpha is None:
        return pointwise_loss(UNWEIGHTED_FORMULA, input, target, (gamma,), reduction=reduction, **switches)
    return pointwise_loss(FORMULA, input, target, (alpha, gamma), reduction=reduction, **switches)


class BinaryFocalLoss(LossModule, nn.Module):
    """Binary cross-entropy of ``sigmoid(x)`` in which an element counts the less, the surer it is.

    ``-alpha y (1 - p)**gamma log(p) - (1 - alpha) (1 - y) p**gamma log(1 - p)``, ``p = sigmoid(x)``; for targets 0
    and 1 that is torchvision's ``sigmoid_focal_loss``. A target between them mixes the two terms by its share.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``; Lin et al. divide the sum by the number of positives,
            which is ``normalizer``.
        alpha: the weight of the positive class, in [0, 1]; the negative's is ``1 - alpha``. ``None``: both are 1.
        gamma: how fast an easy element fades, 0 or above; with ``alpha=None`` 0 is binary cross-entropy.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input (logits) and target (probabilities, in [0, 1]) alike, any.

    Raises:
        InputError: the shapes differ, ``alpha`` is outside [0, 1], or ``gamma`` is negative.

    Numerics: ``1 - p`` is ``sigmoid(-x)``, so both tails are exact, and value and gradient are finite for every
    ``gamma``, those below 1 included; an infinite logit on the right side gives 0. In float64 a power multiplies
    the error of ``1 - p`` by ``gamma``.

    Source: Lin et al. 2017, eq. 5.

    >>> import torch
    >>> print(f"{float(BinaryFocalLoss()(torch.tensor([0.0]), torch.tensor([1.0]))):.6f}")
    0.043322
    """

    formula = FORMULA

    def __init__(
        self,
        reduction: str = "mean",
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.alpha = alpha
        self.gamma = gamma
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_focal_loss(input, target, self.reduction, self.alpha, self.gamma, **self.switches)

    def extra_repr(self) -> str:
        own = f"alpha={self.alpha}, gamma={self.gamma}"
        return ", ".join(filter(None, [own, super().extra_repr()]))
