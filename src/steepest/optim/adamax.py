"""Adamax."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Unpack

import torch

from steepest.backends.reference import abs, maximum
from steepest.optim.averages import bias_correction
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.ranges import BETA1, BETA2, EPS, WEIGHT_DECAY
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "Adamax"]


def coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, maximize: float
) -> tuple[float, ...]:
    # m^ = m / (1 - beta1^t) goes into the rate; u needs no correction
    return lr / bias_correction(beta1, step), 1.0 - beta1, beta2, eps, weight_decay, 1.0 - 2.0 * maximize


def update(
    p: Any, g: Any, m: Any, u: Any, rate: Any, rest1: Any, beta2: Any, eps: Any, decay: Any, direction: Any
) -> Any:
    # m <- beta1 m + (1 - beta1) g;  u <- max(beta2 u, |g| + eps);  p <- p - lr m^ / u
    g = direction * g + decay * p
    m = m + rest1 * (g - m)
    u = maximum(beta2 * u, abs(g) + eps)
    return p - rate * m / u, m, u


_RULE = Rule(
    update,
    coefficients,
    ("exp_avg", "exp_inf"),
    ("lr", "beta1", "beta2", "eps", "weight_decay", "maximize"),
    averages={"exp_avg": "signed", "exp_inf": "unsigned"},
)


class Adamax(FusedStep, torch.optim.Adamax):
    """Adamax: Adam with a decaying maximum in place of the root of the mean square; drop-in for torch's.

    ``m = beta1 m + (1 - beta1) g``; ``u = max(beta2 u, |g| + eps)``; ``p = p - lr / (1 - beta1**t) m / u``.

    Args:
        params, lr, betas, eps, weight_decay: as torch's (the decay is added to the gradient).
        foreach, maximize, differentiable, capturable: as torch's; ``foreach`` changes nothing here.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        ValueError: an argument outside its range (torch's checks).

    Numerics: no squares, so gradients of any size that the type holds give the steps they should.

    Source: Kingma and Ba 2015, Adam: A Method for Stochastic Optimization, algorithm 2 (which has no eps).

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([2.0], dtype=torch.float64)
    >>> Adamax([p], lr=0.1, eps=0.0).step(); round(float(p), 6)
    0.9
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            foreach,
            maximize=maximize,
            differentiable=differentiable,
            capturable=capturable,
        )
        self._set_switches(switches)

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        return _RULE

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        names = dict(zip(("beta1", "beta2"), group["betas"], strict=True))
        return {name: float({**group, **names}[name]) for name in _RULE.hyperparameters}


ENTRIES = (
    OptimizerEntry(
        name="adamax",
        title="Adamax",
        cls=Adamax,
        default_lr=2e-3,
        rates=(1e-5, 1e0),
        tunable=MappingProxyType({"beta1": BETA1, "beta2": BETA2, "eps": EPS, "weight_decay": WEIGHT_DECAY}),
        formula="m ← β₁ m + (1 - β₁) g;  u ← max(β₂ u, |g| + ε);  p ← p - lr m̂ / u   "
        "(m̂ = m / (1 - β₁ᵗ) in step t; β₁, β₂ are betas, ε eps)",
        source="Kingma and Ba 2015, Adam: A Method for Stochastic Optimization, algorithm 2",
        good_at=(
            "gradients that are mostly 0: between two that are not, u shrinks by β₂ alone",
            "working untuned: no step is longer than about lr",
        ),
        bad_at=("a single huge gradient: it stays in u for about 1 / (1 - β₂) steps, and they are short",),
        compared_by_default=False,
    ),
)
