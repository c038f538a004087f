"""Adan."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Unpack

import torch

from steepest.backends.reference import sqrt
from steepest.optim.averages import bias_correction
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.ranges import BETA1, BETA2, EPS, WEIGHT_DECAY, check_betas, check_not_negative
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "Adan"]


def coefficients(
    step: float, lr: float, beta1: float, beta2: float, beta3: float, eps: float, weight_decay: float,
    no_prox: float, maximize: float,
) -> tuple[float, ...]:  # fmt: skip
    # Each average is corrected for its start at 0. The proximal decay, (p - step) / (1 + decay), is
    # p - (decay p + step) / (1 + decay); AdamW's is that without the divisor.
    divisor = 1.0 + (1.0 - no_prox) * lr * weight_decay
    rate = lr / divisor
    return (
        rate / bias_correction(beta1, step),
        rate * beta2 / bias_correction(beta2, step),
        1.0 / bias_correction(beta3, step) ** 0.5,
        1.0 - beta1,
        beta2,
        1.0 - beta2,
        beta3,
        1.0 - beta3,
        eps,
        rate * weight_decay,
        1.0 - 2.0 * maximize,
    )


def update(
    p: Any, g: Any, m: Any, d: Any, n: Any, last: Any,
    rate: Any, rate_d: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, beta3: Any, rest3: Any, eps: Any,
    shrink: Any, direction: Any,
) -> Any:  # fmt: skip
    # d is the moving average of the gradient's change, n of the square of g + beta2 change:
    # p <- (p - lr (m^ + beta2 d^) / (sqrt(n^) + eps)) / (1 + lr weight_decay)
    change = direction * (g - last)
    ahead = direction * g + beta2 * change
    m = m + rest1 * (direction * g - m)
    d = d + rest2 * (change - d)
    n = beta3 * n + rest3 * ahead * ahead
    step = (rate * m + rate_d * d) / (sqrt(n) * root + eps)
    return p - (step + shrink * p), m, d, n, g


_RULE = Rule(
    update,
    coefficients,
    ("exp_avg", "exp_avg_diff", "exp_avg_sq", "pre_grad"),
    ("lr", "beta1", "beta2", "beta3", "eps", "weight_decay", "no_prox", "maximize"),
    initial={"pre_grad": "gradient"},  # no change in the first step
    averages={"exp_avg": "signed", "exp_avg_diff": "signed", "exp_avg_sq": "unsigned", "pre_grad": "signed"},
)


class Adan(FusedStep, torch.optim.Optimizer):
    """Adan: Adam with Nesterov's look-ahead, estimated from the change of the gradient between steps.

    With ``c = g - previous g`` (0 in the first step): ``m = beta1 m + (1 - beta1) g``;
    ``d = beta2 d + (1 - beta2) c``; ``n = beta3 n + (1 - beta3) (g + beta2 c)**2``;
    ``p = (p - lr (m^ + beta2 d^) / (sqrt(n^) + eps)) / (1 + lr weight_decay)``, where ``m^``, ``d^`` and
    ``n^`` are corrected for their start at 0 as in Adam.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0.
        betas: the memory of the gradient's average, of its change's and of the square's, each from 0 to
            below 1: one minus those of the paper.
        eps: added to the divisor, at least 0.
        weight_decay: at least 0.
        no_prox: decay as AdamW does, ``p = (1 - lr weight_decay) p - ...``, in place of the division.
        maximize: go up the gradient.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        InputError: an argument outside its range, or a sparse gradient.

    Numerics: gradients are not clipped here; ``torch.nn.utils.clip_grad_norm_`` does that before the step.

    Source: Xie et al. 2022, Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models,
    algorithm 1, with the corrections and without the restarts, as in the authors' implementation.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([2.0], dtype=torch.float64)
    >>> Adan([p], lr=0.1, eps=0.0).step(); round(p.item(), 6)
    0.9
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        no_prox: bool = False,
        maximize: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        check_not_negative("adan", lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas("adan", betas, 3)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "no_prox": no_prox,
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
        return {name: float({**group, **names}[name]) for name in _RULE.hyperparameters}


ENTRIES = (
    OptimizerEntry(
        name="adan",
        title="Adan",
        cls=Adan,
        default_lr=1e-3,
        rates=(1e-5, 1e0),
        tunable=MappingProxyType(
            {"beta1": BETA1, "beta2": BETA1, "beta3": BETA2, "eps": EPS, "weight_decay": WEIGHT_DECAY}
        ),
        formula="m ← β₁ m + (1 - β₁) g;  d ← β₂ d + (1 - β₂) c;  n ← β₃ n + (1 - β₃) (g + β₂ c)²;  "
        "p ← (p - lr (m̂ + β₂ d̂) / (√n̂ + ε)) / (1 + lr λ)   "
        "(c is the gradient's change since the last step; m̂, d̂, n̂ as in adam; β₁, β₂, β₃ are betas, "
        "λ weight_decay, ε eps)",
        source="Xie et al. 2022, Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models, "
        "algorithm 1",
        good_at=(
            "large batches: where the gradient's change is signal, the look-ahead lets it take larger rates",
            "badly scaled parameters: each has its own rate, as in adam",
        ),
        bad_at=(
            "small batches: the change from one batch to the next is mostly noise, and it is averaged in",
            "memory: four numbers of state for each parameter",
        ),
        compared_by_default=False,
    ),
)
