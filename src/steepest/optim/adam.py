"""Adam."""

from __future__ import annotations

from typing import Any

import torch

from steepest.backends.reference import maximum, sqrt
from steepest.optim.fused import FusedStep
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "Adam"]


def coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, maximize: float
) -> tuple[float, ...]:
    # m^ = m / (1 - beta1^t) goes into the rate, sqrt(v^) = sqrt(v) / sqrt(1 - beta2^t) into a factor
    rate = lr / (1.0 - beta1**step)
    root = 1.0 / (1.0 - beta2**step) ** 0.5
    return rate, root, 1.0 - beta1, beta2, 1.0 - beta2, eps, weight_decay, 1.0 - 2.0 * maximize


def coupled(
    p: Any, g: Any, m: Any, v: Any,
    rate: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, decay: Any, direction: Any,
) -> Any:  # fmt: skip
    # m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;  p <- p - lr m^ / (sqrt(v^) + eps)
    g = direction * g + decay * p
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    return p - rate * m / (sqrt(v) * root + eps), m, v


def coupled_amsgrad(
    p: Any, g: Any, m: Any, v: Any, largest: Any,
    rate: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, decay: Any, direction: Any,
) -> Any:  # fmt: skip
    # the largest v so far in place of v
    g = direction * g + decay * p
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    largest = maximum(largest, v)
    return p - rate * m / (sqrt(largest) * root + eps), m, v, largest


def decoupled_coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, maximize: float
) -> tuple[float, ...]:
    # the decay is applied to the parameter itself: p <- (1 - lr weight_decay) p
    rate = lr / (1.0 - beta1**step)
    root = 1.0 / (1.0 - beta2**step) ** 0.5
    return rate, root, 1.0 - beta1, beta2, 1.0 - beta2, eps, 1.0 - lr * weight_decay, 1.0 - 2.0 * maximize


def decoupled(
    p: Any, g: Any, m: Any, v: Any,
    rate: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, keep: Any, direction: Any,
) -> Any:  # fmt: skip
    # p <- (1 - lr weight_decay) p - lr m^ / (sqrt(v^) + eps)
    g = direction * g
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    return keep * p - rate * m / (sqrt(v) * root + eps), m, v


def decoupled_amsgrad(
    p: Any, g: Any, m: Any, v: Any, largest: Any,
    rate: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, keep: Any, direction: Any,
) -> Any:  # fmt: skip
    # the largest v so far in place of v
    g = direction * g
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    largest = maximum(largest, v)
    return keep * p - rate * m / (sqrt(largest) * root + eps), m, v, largest


_HYPER = ("lr", "beta1", "beta2", "eps", "weight_decay", "maximize")
_SLOTS = ("exp_avg", "exp_avg_sq")
_MORE = (*_SLOTS, "max_exp_avg_sq")
_RULES = {  # (decoupled, amsgrad)
    (False, False): Rule(coupled, coefficients, _SLOTS, _HYPER),
    (False, True): Rule(coupled_amsgrad, coefficients, _MORE, _HYPER),
    (True, False): Rule(decoupled, decoupled_coefficients, _SLOTS, _HYPER),
    (True, True): Rule(decoupled_amsgrad, decoupled_coefficients, _MORE, _HYPER),
}


class _AdamRules(FusedStep):
    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        return _RULES[bool(group.get("decoupled_weight_decay", False)), bool(group["amsgrad"])]

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        beta1, beta2 = group["betas"]
        names = {"beta1": beta1, "beta2": beta2}
        return {name: float(names[name] if name in names else group[name]) for name in _HYPER}


class Adam(_AdamRules, torch.optim.Adam):
    """Adam: bias-corrected moving averages of the gradient and of its square; drop-in for torch's.

    ``m = beta1 m + (1 - beta1) g``; ``v = beta2 v + (1 - beta2) g**2``; ``m^ = m / (1 - beta1**t)``;
    ``v^ = v / (1 - beta2**t)``; ``p = p - lr m^ / (sqrt(v^) + eps)``.

    Args:
        params, lr, betas, eps, weight_decay, amsgrad: as torch's (the decay is added to the gradient).
        foreach, maximize, capturable, differentiable, fused, decoupled_weight_decay: as torch's; ``foreach``
            and ``fused`` change nothing here.

    Raises:
        ValueError: an argument outside its range (torch's checks).

    Source: Kingma and Ba 2015, Adam: A Method for Stochastic Optimization, algorithm 1; amsgrad: Reddi et
    al. 2018, On the Convergence of Adam and Beyond, algorithm 2.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([2.0], dtype=torch.float64)
    >>> Adam([p], lr=0.1, eps=0.0).step(); round(float(p), 6)
    0.9
    """


ENTRIES = (
    OptimizerEntry(
        name="adam",
        title="Adam",
        cls=Adam,
        default_lr=1e-3,
        rates=(1e-5, 1e0),
        formula="m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  p ← p - lr m̂ / (√v̂ + ε)   "
        "(m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ) in step t; β₁, β₂ are betas, ε eps)",
        source="Kingma and Ba 2015, Adam: A Method for Stochastic Optimization, algorithm 1",
        good_at=(
            "working untuned: the length of a step hardly depends on the gradient's scale",
            "sparse, badly scaled and noisy gradients",
        ),
        bad_at=(
            "the last stretch: tuned momentum often ends a little lower on well-conditioned problems",
            "weight decay: added to the gradient, it is scaled away with it; use adamw",
        ),
    ),
)
