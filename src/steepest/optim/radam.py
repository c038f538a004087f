"""RAdam."""

from __future__ import annotations

from math import inf, log
from types import MappingProxyType
from typing import Any, Unpack

import torch

from steepest.backends.reference import minimum, sqrt
from steepest.optim.averages import bias_correction
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.ranges import BETA1, BETA2, EPS, WEIGHT_DECAY
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "RAdam"]


def _averaged(beta2: float, step: float) -> float:
    """``2 / (1 - beta2) - 1 - 2 t beta2**t / (1 - beta2**t)``: of how many gradients v is an average, in effect.

    In the first steps both parts are near ``2 / (1 - beta2)`` and their difference near t. With
    ``x = -log(beta2)`` it is ``t + L(x / 2) - t L(t x / 2)``, ``L(y) = coth(y) - 1 / y``, which keeps its digits.
    """
    x = -log(beta2) if beta2 > 0.0 else inf
    if step * x < 0.5:
        return step + _langevin(0.5 * x) - step * _langevin(0.5 * step * x)
    rest = bias_correction(beta2, step)
    return 2.0 / (1.0 - beta2) - 1.0 - 2.0 * step * (1.0 - rest) / rest


def _langevin(y: float) -> float:
    s = y * y  # Lambert's continued fraction, exact to rounding up to y = 1/4
    return y / (3.0 + s / (5.0 + s / (7.0 + s / (9.0 + s / (11.0 + s / 13.0)))))


def coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    decoupled_weight_decay: float, maximize: float,
) -> tuple[float, ...]:  # fmt: skip
    # From rho = 5 on the variance of an average of so many squares is worth correcting for.
    rate, floor, ceiling = lr / bias_correction(beta1, step), 1.0, 0.0  # sqrt(min(v, 0)) + 1: p <- p - lr m^
    corrected = bias_correction(beta2, step)
    rho_end = 2.0 / (1.0 - beta2) - 1.0
    rho = _averaged(beta2, step)
    if rho > 5.0:
        rectify = (rho - 4.0) * (rho - 2.0) * rho_end / ((rho_end - 4.0) * (rho_end - 2.0) * rho)
        rate, floor, ceiling = rate * (rectify * corrected) ** 0.5, eps, inf
    return (
        rate,
        floor,
        ceiling,
        1.0 - beta1,
        beta2,
        1.0 - beta2,
        (1.0 - decoupled_weight_decay) * weight_decay,
        1.0 - lr * decoupled_weight_decay * weight_decay,
        1.0 - 2.0 * maximize,
    )


def update(
    p: Any, g: Any, m: Any, v: Any,
    rate: Any, floor: Any, ceiling: Any, rest1: Any, beta2: Any, rest2: Any, decay: Any, keep: Any, direction: Any,
) -> Any:  # fmt: skip
    # m, v as in Adam; p <- p - lr m^ in the first steps, then p - lr r m^ / (sqrt(v) + eps) sqrt(1 - beta2^t)
    g = direction * g + decay * p
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    return keep * p - rate * m / (sqrt(minimum(v, ceiling)) + floor), m, v


_RULE = Rule(
    update,
    coefficients,
    ("exp_avg", "exp_avg_sq"),
    ("lr", "beta1", "beta2", "eps", "weight_decay", "decoupled_weight_decay", "maximize"),
    averages={"exp_avg": "signed", "exp_avg_sq": "unsigned"},
)


class RAdam(FusedStep, torch.optim.RAdam):
    """RAdam: Adam whose rate waits until the mean square is worth dividing by; drop-in for torch's.

    With ``rho_end = 2 / (1 - beta2) - 1`` and ``rho = rho_end - 2 t beta2**t / (1 - beta2**t)``, the number of
    gradients that v averages: while ``rho <= 5``, ``p = p - lr m^``; then ``p = p - lr r m^ / l`` with
    ``l = (sqrt(v) + eps) / sqrt(1 - beta2**t)`` and
    ``r**2 = (rho - 4) (rho - 2) rho_end / ((rho_end - 4) (rho_end - 2) rho)``; m, v, m^ as in Adam.

    Args:
        params, lr, betas, eps, weight_decay, decoupled_weight_decay: as torch's.
        foreach, maximize, capturable, differentiable: as torch's; ``foreach`` changes nothing here.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        ValueError: an argument outside its range (torch's checks).

    Source: Liu et al. 2020, On the Variance of the Adaptive Learning Rate and Beyond, algorithm 2; it waits
    for ``rho > 5``, as the authors' code and torch, where the paper has 4.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([2.0], dtype=torch.float64)
    >>> RAdam([p], lr=0.1).step(); round(float(p), 6)
    0.8
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            decoupled_weight_decay,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
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
        name="radam",
        title="RAdam",
        cls=RAdam,
        default_lr=1e-3,
        rates=(1e-5, 1e0),
        tunable=MappingProxyType({"beta1": BETA1, "beta2": BETA2, "eps": EPS, "weight_decay": WEIGHT_DECAY}),
        formula="m̂, v as in adam;  p ← p - lr m̂ while ρ ≤ 5, then  p ← p - lr r m̂ √(1 - β₂ᵗ) / (√v + ε)   "
        "(ρ, r from β₂ and the step t alone: how many gradients v averages, and a factor that rises to 1)",
        source="Liu et al. 2020, On the Variance of the Adaptive Learning Rate and Beyond, algorithm 2",
        good_at=(
            "the start: its rate rises by itself, as adam's does with a warm-up",
            "rates that are too high for adam at first: what it cannot judge yet it takes in small steps",
        ),
        bad_at=(
            "the first five steps: they are plain momentum, so large gradients make them long",
            "short runs: at β₂ = 0.999 the factor r is still about ½ after 500 steps",
        ),
        compared_by_default=False,
    ),
)
