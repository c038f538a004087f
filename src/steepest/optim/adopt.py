"""ADOPT."""

from __future__ import annotations

from math import inf
from types import MappingProxyType
from typing import Any, Unpack

import torch

from steepest.backends.reference import maximum, minimum, sqrt
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.ranges import BETA1, BETA2, EPS, WEIGHT_DECAY, check_betas, check_not_negative
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ADOPT", "ENTRIES"]


def coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    decouple: float, maximize: float, clip_exp: float,
) -> tuple[float, ...]:  # fmt: skip
    # Step t of the paper is t + 1 here, for the first one only sets v <- g^2: with a limit of 0 nothing moves,
    # and a floor of 1 keeps the quotient finite.
    if step == 1.0:
        return lr, 0.0, 1.0, 0.0, 1.0 - beta1, 1.0, (1.0 - decouple) * weight_decay, 0.0, 1.0 - 2.0 * maximize
    limit = inf if clip_exp < 0.0 else (step - 1.0) ** clip_exp
    return (
        lr,
        limit,
        eps,
        beta2,
        1.0 - beta1,
        1.0 - beta2,
        (1.0 - decouple) * weight_decay,
        lr * decouple * weight_decay,
        1.0 - 2.0 * maximize,
    )


def update(
    p: Any, g: Any, m: Any, v: Any,
    lr: Any, limit: Any, floor: Any, beta2: Any, rest1: Any, rest2: Any, decay: Any, shrink: Any, direction: Any,
) -> Any:  # fmt: skip
    # m <- beta1 m + (1 - beta1) clip(g / max(sqrt(v), eps), t^clip_exp);  p <- p - lr m;
    # v <- beta2 v + (1 - beta2) g^2, only now: the gradient is divided by a v that does not know it
    g = direction * g + decay * p
    r = maximum(minimum(g / maximum(sqrt(v), floor), limit), -limit)
    m = m + rest1 * (r - m)
    return p - (lr * m + shrink * p), m, beta2 * v + rest2 * g * g


_RULE = Rule(
    update,
    coefficients,
    ("exp_avg", "exp_avg_sq"),
    ("lr", "beta1", "beta2", "eps", "weight_decay", "decouple", "maximize", "clip_exp"),
    averages={"exp_avg": "signed", "exp_avg_sq": "unsigned"},
)


class ADOPT(FusedStep, torch.optim.Optimizer):
    """ADOPT: Adam whose gradient is normalised by the moving square before it, then averaged.

    In step t, counted from 1: ``m = beta1 m + (1 - beta1) clip(g / max(sqrt(v), eps), (t - 1)**clip_exp)``;
    ``p = p - lr m``; ``v = beta2 v + (1 - beta2) g**2``. The first step only sets ``v = g**2``.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0.
        betas: the memory of the moving average and of the moving square, each from 0 to below 1.
        eps: the least divisor, at least 0.
        weight_decay: at least 0; added to the gradient, or with ``decouple`` applied to the parameter as in
            AdamW (from the second step on, as nothing moves in the first).
        decouple: take the weight decay out of the gradient.
        clip_exp: the exponent of the limit on a normalised gradient, at least 0; ``None`` sets no limit
            (algorithm 1).
        maximize: go up the gradient.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        InputError: an argument outside its range, or a sparse gradient.

    Source: Taniguchi et al. 2024, ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate,
    algorithm 2 (with clipping; algorithm 1 without).

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> optimizer = ADOPT([p], lr=0.1)
    >>> for _ in range(2):
    ...     p.grad = torch.tensor([2.0], dtype=torch.float64)
    ...     optimizer.step()
    >>> round(p.item(), 6)
    0.99
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        decouple: bool = False,
        *,
        clip_exp: float | None = 0.25,
        maximize: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        check_not_negative("adopt", lr=lr, eps=eps, weight_decay=weight_decay, clip_exp=clip_exp or 0.0)
        check_betas("adopt", betas, 2)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decouple": decouple,
            "clip_exp": clip_exp,
            "maximize": maximize,
        }
        super().__init__(params, defaults)
        self._set_switches(switches)

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        return _RULE

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        beta1, beta2 = group["betas"]
        clip_exp = -1.0 if group["clip_exp"] is None else group["clip_exp"]
        names = {"beta1": beta1, "beta2": beta2, "clip_exp": clip_exp}
        return {name: float({**group, **names}[name]) for name in _RULE.hyperparameters}


ENTRIES = (
    OptimizerEntry(
        name="adopt",
        title="ADOPT",
        cls=ADOPT,
        default_lr=1e-3,
        rates=(1e-5, 1e0),
        tunable=MappingProxyType({"beta1": BETA1, "beta2": BETA2, "eps": EPS, "weight_decay": WEIGHT_DECAY}),
        formula="m ← β₁ m + (1 - β₁) clip(g / max(√v, ε), ±(t - 1)^¼);  p ← p - lr m;  v ← β₂ v + (1 - β₂) g²   "
        "(in step t; the first only sets v = g²; β₁, β₂ are betas, ε eps)",
        source="Taniguchi et al. 2024, ADOPT: Modified Adam Can Converge with Any β₂ with the Optimal Rate, "
        "algorithm 2",
        good_at=(
            "rare large gradients: they cannot weaken their own step, so it converges for any β₂",
            "badly scaled parameters: each has its own rate, as in adam",
        ),
        bad_at=(
            "scales that change: with its β₂ of 0.9999, v remembers about the last 10,000 steps",
            "very short runs: the first step only measures the gradient and moves nothing",
        ),
        compared_by_default=False,
    ),
)
