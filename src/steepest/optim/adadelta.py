"""Adadelta."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Unpack

import torch

from steepest.backends.reference import sqrt
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.ranges import BETA1, EPS, WEIGHT_DECAY
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "Adadelta"]


def coefficients(
    step: float, lr: float, rho: float, eps: float, weight_decay: float, maximize: float
) -> tuple[float, ...]:
    return lr, rho, 1.0 - rho, eps, weight_decay, 1.0 - 2.0 * maximize


def update(
    p: Any, g: Any, v: Any, u: Any,
    lr: Any, rho: Any, rest: Any, eps: Any, decay: Any, direction: Any,
) -> Any:  # fmt: skip
    # v <- rho v + (1 - rho) g^2;  d = sqrt(u + eps) / sqrt(v + eps) g;  u <- rho u + (1 - rho) d^2;
    # p <- p - lr d
    g = direction * g + decay * p
    v = rho * v + rest * g * g
    d = sqrt(u + eps) / sqrt(v + eps) * g
    return p - lr * d, v, rho * u + rest * d * d


_RULE = Rule(
    update,
    coefficients,
    ("square_avg", "acc_delta"),
    ("lr", "rho", "eps", "weight_decay", "maximize"),
    averages={"square_avg": "unsigned", "acc_delta": "unsigned"},
)


class Adadelta(FusedStep, torch.optim.Adadelta):
    """Adadelta: steps as long as the recent steps, not as long as a rate; drop-in for torch's.

    ``v = rho v + (1 - rho) g**2``; ``d = sqrt(u + eps) / sqrt(v + eps) g``;
    ``u = rho u + (1 - rho) d**2``; ``p = p - lr d``.

    Args:
        params, lr, rho, eps, weight_decay: as torch's; at ``lr=1`` it is the paper's method.
        foreach, capturable, maximize, differentiable: as torch's; ``foreach`` changes nothing here.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        ValueError: an argument outside its range (torch's checks).

    Source: Zeiler 2012, ADADELTA: An Adaptive Learning Rate Method, algorithm 1.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([1.0], dtype=torch.float64)
    >>> Adadelta([p], rho=0.75, eps=0.75).step(); round(float(p), 6)
    0.133975
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        super().__init__(
            params,
            lr,
            rho,
            eps,
            weight_decay,
            foreach,
            capturable=capturable,
            maximize=maximize,
            differentiable=differentiable,
        )
        self._set_switches(switches)

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        return _RULE

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        return {name: float(group[name]) for name in _RULE.hyperparameters}


ENTRIES = (
    OptimizerEntry(
        name="adadelta",
        title="Adadelta",
        cls=Adadelta,
        default_lr=1.0,
        rates=(1e-2, 1e3),
        tunable=MappingProxyType({"rho": BETA1, "eps": EPS, "weight_decay": WEIGHT_DECAY}),
        formula="v ← ρ v + (1 - ρ) g²;  d = √(u + ε) / √(v + ε) g;  u ← ρ u + (1 - ρ) d²;  p ← p - lr d   "
        "(ρ is rho, ε eps)",
        source="Zeiler 2012, ADADELTA: An Adaptive Learning Rate Method, algorithm 1",
        good_at=(
            "working without a rate: lr = 1 is the method as published, and its steps have p's own units",
            "badly scaled parameters: each has its own rate",
        ),
        bad_at=(
            "the start: u begins at 0, so the first steps are about √ε long; with lr = 1 it takes many",
            "the last stretch: nothing makes its steps shrink but shorter steps before",
        ),
        compared_by_default=False,
    ),
)
