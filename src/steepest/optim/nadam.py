"""NAdam."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Unpack

import torch

from steepest.backends.reference import sqrt
from steepest.optim.averages import bias_correction
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.ranges import BETA1, BETA2, EPS, WEIGHT_DECAY
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "NAdam"]


def coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, momentum_decay: float,
    decoupled_weight_decay: float, maximize: float, mu_product: float,
) -> tuple[float, ...]:  # fmt: skip
    # mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2); mu_product is mu_1 ... mu_t
    mu = beta1 * (1.0 - 0.5 * 0.96 ** (step * momentum_decay))
    mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1.0) * momentum_decay))
    mu_product = mu_product * mu
    return (
        mu_product,
        lr * (1.0 - mu) / (1.0 - mu_product),
        lr * mu_next / (1.0 - mu_product * mu_next),
        1.0 / bias_correction(beta2, step) ** 0.5,
        1.0 - beta1,
        beta2,
        1.0 - beta2,
        eps,
        (1.0 - decoupled_weight_decay) * weight_decay,
        1.0 - lr * decoupled_weight_decay * weight_decay,
        1.0 - 2.0 * maximize,
    )


def update(
    p: Any, g: Any, m: Any, v: Any,
    rate_g: Any, rate_m: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any,
    decay: Any, keep: Any, direction: Any,
) -> Any:  # fmt: skip
    # m, v as in Adam; p <- p - lr [(1 - mu_t) / (1 - mu_1 ... mu_t) g + mu_t+1 / (1 - mu_1 ... mu_t+1) m]
    #                           / (sqrt(v^) + eps)
    g = direction * g + decay * p
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    return keep * p - (rate_g * g + rate_m * m) / (sqrt(v) * root + eps), m, v


_RULE = Rule(
    update,
    coefficients,
    ("exp_avg", "exp_avg_sq"),
    ("lr", "beta1", "beta2", "eps", "weight_decay", "momentum_decay", "decoupled_weight_decay", "maximize"),
    initial=MappingProxyType({"mu_product": 1.0}),
    scalars=("mu_product",),
    averages={"exp_avg": "signed", "exp_avg_sq": "unsigned"},
)


class NAdam(FusedStep, torch.optim.NAdam):
    """NAdam: Adam that looks ahead as Nesterov's momentum does; drop-in for torch's.

    With m, v and v^ as in Adam, ``mu_t = beta1 (1 - 0.96**(t momentum_decay) / 2)`` and
    ``M_t = mu_1 mu_2 ... mu_t``: ``m^ = (1 - mu_t) / (1 - M_t) g + mu_(t+1) / (1 - M_(t+1)) m``;
    ``p = p - lr m^ / (sqrt(v^) + eps)``.

    Args:
        params, lr, betas, eps, weight_decay, momentum_decay, decoupled_weight_decay: as torch's.
        foreach, maximize, capturable, differentiable: as torch's; ``foreach`` changes nothing here.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        ValueError: an argument outside its range (torch's checks).

    Source: Dozat 2016, Incorporating Nesterov Momentum into Adam, algorithm 2; as in torch, m averages with
    beta1 itself, and only m^ with the schedule mu_t.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([2.0], dtype=torch.float64)
    >>> NAdam([p], lr=0.1, betas=(0.5, 0.75), eps=0.0, momentum_decay=0.0).step(); round(float(p), 6)
    0.886667
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
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
            momentum_decay,
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
        name="nadam",
        title="NAdam",
        cls=NAdam,
        default_lr=2e-3,
        rates=(1e-5, 1e0),
        tunable=MappingProxyType({"beta1": BETA1, "beta2": BETA2, "eps": EPS, "weight_decay": WEIGHT_DECAY}),
        formula="m, v̂ as in adam;  p ← p - lr [(1 - μₜ) / (1 - μ₁…μₜ) g + μₜ₊₁ / (1 - μ₁…μₜ₊₁) m] / (√v̂ + ε)   "
        "(μₜ = β₁ (1 - 0.96^(tψ) / 2), so from β₁ / 2 up to β₁; ψ is momentum_decay, ε eps)",
        source="Dozat 2016, Incorporating Nesterov Momentum into Adam, algorithm 2",
        good_at=(
            "all that adam is good at, with a step that answers to the newest gradient sooner",
            "ravines: the step looks ahead to where it will be, as nesterov's does",
        ),
        bad_at=(
            "noisy gradients: the newest one counts for more than in adam, and so does its noise",
            "short runs: the weight of m rises slowly, after 4,000 steps at the default ψ to ¾ of β₁",
        ),
        compared_by_default=False,
    ),
)
