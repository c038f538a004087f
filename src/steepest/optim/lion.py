"""Lion."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Unpack

import torch

from steepest.backends.reference import sign
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.ranges import BETA1, BETA2, DECOUPLED_WEIGHT_DECAY, check_betas, check_not_negative
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "Lion"]


def coefficients(
    step: float, lr: float, beta1: float, beta2: float, weight_decay: float, maximize: float
) -> tuple[float, ...]:
    return lr, beta1, 1.0 - beta1, beta2, 1.0 - beta2, lr * weight_decay, 1.0 - 2.0 * maximize


def update(
    p: Any, g: Any, m: Any,
    lr: Any, beta1: Any, rest1: Any, beta2: Any, rest2: Any, shrink: Any, direction: Any,
) -> Any:  # fmt: skip
    # p <- p - lr (sign(beta1 m + (1 - beta1) g) + weight_decay p);  m <- beta2 m + (1 - beta2) g
    g = direction * g
    return p - (lr * sign(beta1 * m + rest1 * g) + shrink * p), beta2 * m + rest2 * g


_RULE = Rule(
    update,
    coefficients,
    ("exp_avg",),
    ("lr", "beta1", "beta2", "weight_decay", "maximize"),
    averages={"exp_avg": "signed"},
)


class Lion(FusedStep, torch.optim.Optimizer):
    """Lion: steps of one length, along the sign of an interpolated momentum.

    ``p = (1 - lr weight_decay) p - lr sign(beta1 m + (1 - beta1) g)``; ``m = beta2 m + (1 - beta2) g``.

    Args:
        params: parameters, or groups of them.
        lr: the length of a step in every parameter, at least 0; a third to a tenth of AdamW's.
        betas: the momentum's share in the step's direction and its memory, each from 0 to below 1.
        weight_decay: at least 0; three to ten times AdamW's, for the rate is that much smaller.
        maximize: go up the gradient.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        InputError: an argument outside its range, or a sparse gradient.

    Numerics: where the interpolated momentum is exactly 0 the parameter stays (but for its decay).

    Source: Chen et al. 2023, Symbolic Discovery of Optimization Algorithms, algorithm 2.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> p.grad = torch.tensor([1e-5, -1e5])
    >>> Lion([p], lr=0.25).step(); p.tolist()
    [0.75, 1.25]
    """

    counts_steps = False  # the rule is the same in every step

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        check_not_negative("lion", lr=lr, weight_decay=weight_decay)
        check_betas("lion", betas, 2)
        super().__init__(
            params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
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
        name="lion",
        title="Lion",
        cls=Lion,
        default_lr=1e-4,
        rates=(1e-6, 1e-1),
        tunable=MappingProxyType({"beta1": BETA1, "beta2": BETA2, "weight_decay": DECOUPLED_WEIGHT_DECAY}),
        formula="p ← (1 - lr λ) p - lr sign(β₁ m + (1 - β₁) g);  m ← β₂ m + (1 - β₂) g   "
        "(β₁, β₂ are betas, λ is weight_decay)",
        source="Chen et al. 2023, Symbolic Discovery of Optimization Algorithms, algorithm 2",
        good_at=(
            "badly scaled gradients: every parameter moves by lr, however small or large its gradient",
            "memory: one number of state for each parameter, where adam keeps two",
        ),
        bad_at=(
            "the last stretch: its steps do not shrink with the gradient, so it keeps moving by lr",
            "adam's rates: its steps are of full length in every parameter, so take a smaller one",
        ),
        compared_by_default=False,
    ),
)
