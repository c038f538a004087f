"""RMSProp."""

from __future__ import annotations

from typing import Any

import torch

from steepest.backends.reference import maximum, sqrt
from steepest.optim.fused import FusedStep
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "RMSprop"]


def _coefficients(
    step: float, lr: float, alpha: float, eps: float, weight_decay: float, momentum: float, maximize: float
) -> tuple[float, ...]:
    return lr, alpha, 1.0 - alpha, eps, weight_decay, momentum, 1.0 - 2.0 * maximize


def plain(
    p: Any, g: Any, s: Any, lr: Any, alpha: Any, rest: Any, eps: Any, decay: Any, mu: Any, direction: Any
) -> Any:
    # s <- alpha s + (1 - alpha) g^2;  p <- p - lr g / (sqrt(s) + eps)
    g = direction * g + decay * p
    s = alpha * s + rest * g * g
    return p - lr * g / (sqrt(s) + eps), s


def with_momentum(
    p: Any,
    g: Any,
    s: Any,
    b: Any,
    lr: Any,
    alpha: Any,
    rest: Any,
    eps: Any,
    decay: Any,
    mu: Any,
    direction: Any,
) -> Any:
    # b <- mu b + g / (sqrt(s) + eps);  p <- p - lr b
    g = direction * g + decay * p
    s = alpha * s + rest * g * g
    b = mu * b + g / (sqrt(s) + eps)
    return p - lr * b, s, b


def centered(
    p: Any,
    g: Any,
    s: Any,
    m: Any,
    lr: Any,
    alpha: Any,
    rest: Any,
    eps: Any,
    decay: Any,
    mu: Any,
    direction: Any,
) -> Any:
    # the variance s - m^2 in place of s, m the moving average of g; rounding may take it below 0
    g = direction * g + decay * p
    s = alpha * s + rest * g * g
    m = m + rest * (g - m)
    return p - lr * g / (sqrt(maximum(s - m * m, 0.0 * s)) + eps), s, m


def centered_with_momentum(
    p: Any, g: Any, s: Any, m: Any, b: Any,
    lr: Any, alpha: Any, rest: Any, eps: Any, decay: Any, mu: Any, direction: Any,
) -> Any:  # fmt: skip
    # both of the above
    g = direction * g + decay * p
    s = alpha * s + rest * g * g
    m = m + rest * (g - m)
    b = mu * b + g / (sqrt(maximum(s - m * m, 0.0 * s)) + eps)
    return p - lr * b, s, m, b


_HYPER = ("lr", "alpha", "eps", "weight_decay", "momentum", "maximize")
_RULES = {  # (momentum, centered)
    (False, False): Rule(plain, _coefficients, ("square_avg",), _HYPER),
    (True, False): Rule(with_momentum, _coefficients, ("square_avg", "momentum_buffer"), _HYPER),
    (False, True): Rule(centered, _coefficients, ("square_avg", "grad_avg"), _HYPER),
    (True, True): Rule(
        centered_with_momentum, _coefficients, ("square_avg", "grad_avg", "momentum_buffer"), _HYPER
    ),
}


class RMSprop(FusedStep, torch.optim.RMSprop):
    """RMSProp: the gradient over the root of its moving mean square; drop-in for torch's.

    ``s = alpha s + (1 - alpha) g**2``; ``p = p - lr g / (sqrt(s) + eps)``.

    Args:
        params, lr, alpha, eps, weight_decay, momentum, centered: as torch's.
        capturable, foreach, maximize, differentiable: as torch's; ``foreach`` changes nothing here.

    Raises:
        ValueError: an argument outside its range (torch's checks).

    Source: Tieleman and Hinton 2012, Neural Networks for Machine Learning, lecture 6.5; centred form:
    Graves 2013, Generating Sequences with Recurrent Neural Networks, eqs. 38-41.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([2.0], dtype=torch.float64)
    >>> RMSprop([p], lr=0.01, alpha=0.75, eps=0.0).step(); round(float(p), 6)
    0.98
    """

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        return _RULES[group["momentum"] > 0, bool(group["centered"])]

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        return {name: float(group[name]) for name in _HYPER}


ENTRIES = (
    OptimizerEntry(
        name="rmsprop",
        title="RMSProp",
        cls=RMSprop,
        default_lr=1e-2,
        rates=(1e-5, 1e0),
        formula="s ← α s + (1 - α) g²;  p ← p - lr g / (√s + ε)   (α is alpha, ε eps)",
        source="Tieleman and Hinton 2012, Neural Networks for Machine Learning, lecture 6.5",
        good_at=(
            "non-stationary problems: it forgets old gradients, so its steps follow a scale that changes",
            "badly scaled parameters: each has its own rate",
        ),
        bad_at=(
            "the last stretch: small gradients are divided by small roots, so that steps do not shrink",
            "the start: s begins at 0 and is not corrected for it, so the first steps are large",
        ),
    ),
)
