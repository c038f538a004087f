"""AdEMAMix."""

from __future__ import annotations

from math import exp, log
from types import MappingProxyType
from typing import Any, Unpack

import torch

from steepest.backends.reference import sqrt
from steepest.errors import InputError
from steepest.optim.averages import bias_correction
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.ranges import BETA1, BETA2, DECOUPLED_WEIGHT_DECAY, EPS, check_betas, check_not_negative
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "AdEMAMix"]


def coefficients(
    step: float, lr: float, beta1: float, beta2: float, beta3: float, alpha: float, warmup: float,
    eps: float, weight_decay: float, maximize: float,
) -> tuple[float, ...]:  # fmt: skip
    # Over the first T steps alpha grows from 0, and beta3 from beta1 so that its half-life grows evenly:
    # 1 / ln(beta3_t) = (1 - t / T) / ln(beta1) + (t / T) / ln(beta3).
    if step < warmup:
        share = step / warmup
        alpha = share * alpha
        beta3 = min(beta3, memory((1.0 - share) * inverse_log(beta1) + share * inverse_log(beta3)))
    rate = lr / bias_correction(beta1, step)
    root = 1.0 / bias_correction(beta2, step) ** 0.5
    return (
        rate,
        lr * alpha,
        root,
        1.0 - beta1,
        beta2,
        1.0 - beta2,
        1.0 - beta3,
        eps,
        lr * weight_decay,
        1.0 - 2.0 * maximize,
    )


def inverse_log(beta: float) -> float:
    return 1.0 / log(beta) if beta > 0.0 else 0.0


def memory(inverse: float) -> float:
    return exp(1.0 / inverse) if inverse < 0.0 else 0.0


def update(
    p: Any, g: Any, m1: Any, m2: Any, v: Any,
    rate: Any, slow_rate: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, rest3: Any, eps: Any,
    shrink: Any, direction: Any,
) -> Any:  # fmt: skip
    # m1 <- beta1 m1 + (1 - beta1) g;  m2 <- beta3 m2 + (1 - beta3) g;  v <- beta2 v + (1 - beta2) g^2;
    # p <- p - lr ((m1^ + alpha m2) / (sqrt(v^) + eps) + weight_decay p)
    g = direction * g
    m1 = m1 + rest1 * (g - m1)
    m2 = m2 + rest3 * (g - m2)
    v = beta2 * v + rest2 * g * g
    step = (rate * m1 + slow_rate * m2) / (sqrt(v) * root + eps)
    return p - (step + shrink * p), m1, m2, v


_RULE = Rule(
    update,
    coefficients,
    ("exp_avg_fast", "exp_avg_slow", "exp_avg_sq"),
    ("lr", "beta1", "beta2", "beta3", "alpha", "warmup", "eps", "weight_decay", "maximize"),
    averages={"exp_avg_fast": "signed", "exp_avg_slow": "signed", "exp_avg_sq": "unsigned"},
)


class AdEMAMix(FusedStep, torch.optim.Optimizer):
    """AdEMAMix: AdamW with a second, much longer memory of the gradient.

    ``m1 = beta1 m1 + (1 - beta1) g``; ``m2 = beta3 m2 + (1 - beta3) g``; ``v = beta2 v + (1 - beta2) g**2``;
    ``p = (1 - lr weight_decay) p - lr (m1^ + alpha m2) / (sqrt(v^) + eps)``, where ``m1^`` and ``v^`` are
    corrected for their start at 0 as in Adam, and ``m2`` is not.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0.
        betas: the memory of the fast average, of the square and of the slow average, each from 0 to below 1.
        alpha: the slow average's weight, at least 0; the paper takes 4 to 10 for long runs.
        T_alpha_beta3: over so many first steps alpha grows evenly from 0, and beta3 from beta1 so that its
            half-life grows evenly; ``None`` for both at full size from the start. The paper takes the whole
            run's number of steps.
        eps: added to the divisor, at least 0.
        weight_decay: at least 0, as AdamW's.
        maximize: go up the gradient.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        InputError: an argument outside its range, or a sparse gradient.

    Source: Pagliardini, Ablin and Grangier 2024, The AdEMAMix Optimizer: Better, Faster, Older, algorithm 1
    and its schedulers of alpha and beta3.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([2.0], dtype=torch.float64)
    >>> AdEMAMix([p], lr=0.1, betas=(0.9, 0.999, 0.75), eps=0.0).step(); round(p.item(), 6)
    0.85
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 2.0,
        T_alpha_beta3: int | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        check_not_negative("ademamix", lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay)
        check_betas("ademamix", betas, 3)
        if T_alpha_beta3 is not None and not T_alpha_beta3 >= 1:
            raise InputError(
                f"ademamix: T_alpha_beta3 is {T_alpha_beta3}; give a positive number of steps, or None."
            )
        defaults = {
            "lr": lr,
            "betas": betas,
            "alpha": alpha,
            "T_alpha_beta3": T_alpha_beta3,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)
        self._set_switches(switches)

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        return _RULE

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        names = dict(zip(("beta1", "beta2", "beta3"), group["betas"], strict=True))
        names["warmup"] = group["T_alpha_beta3"] or 0.0
        return {name: float({**group, **names}[name]) for name in _RULE.hyperparameters}


ENTRIES = (
    OptimizerEntry(
        name="ademamix",
        title="AdEMAMix",
        cls=AdEMAMix,
        default_lr=1e-3,
        rates=(1e-5, 1e0),
        tunable=MappingProxyType(
            {"beta1": BETA1, "beta2": BETA2, "eps": EPS, "weight_decay": DECOUPLED_WEIGHT_DECAY}
        ),
        formula="m₁ ← β₁ m₁ + (1 - β₁) g;  m₂ ← β₃ m₂ + (1 - β₃) g;  v ← β₂ v + (1 - β₂) g²;  "
        "p ← (1 - lr λ) p - lr (m̂₁ + α m₂) / (√v̂ + ε)   "
        "(m̂₁, v̂ as in adam; β₁, β₂, β₃ are betas, α alpha, λ weight_decay, ε eps)",
        source="Pagliardini, Ablin and Grangier 2024, The AdEMAMix Optimizer: Better, Faster, Older, algorithm 1",
        good_at=(
            "long runs with noisy gradients: m₂ averages over the last 1 / (1 - β₃) steps, m₁ stays nimble",
            "badly scaled parameters: each has its own rate, as in adam",
        ),
        bad_at=(
            "short runs: m₂ begins at 0 and has learned little after fewer than 1 / (1 - β₃) steps",
            "turns: m₂ keeps pushing the old way long after the gradient has changed",
            "memory: three numbers of state for each parameter",
        ),
        compared_by_default=False,
    ),
)
