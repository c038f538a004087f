"""Adagrad."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Unpack

import torch

from steepest.backends.reference import sqrt
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.ranges import EPS, WEIGHT_DECAY
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "Adagrad"]


def coefficients(
    step: float, lr: float, lr_decay: float, weight_decay: float, initial_accumulator_value: float, eps: float,
    maximize: float,
) -> tuple[float, ...]:  # fmt: skip
    # the rate of step t is lr / (1 + (t - 1) lr_decay)
    return lr / (1.0 + (step - 1.0) * lr_decay), eps, weight_decay, 1.0 - 2.0 * maximize


def update(p: Any, g: Any, s: Any, rate: Any, eps: Any, decay: Any, direction: Any) -> Any:
    # s <- s + g^2;  p <- p - lr g / (sqrt(s) + eps)
    g = direction * g + decay * p
    s = s + g * g
    return p - rate * g / (sqrt(s) + eps), s


_RULE = Rule(
    update,
    coefficients,
    ("sum",),
    ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps", "maximize"),
    initial=MappingProxyType({"sum": "initial_accumulator_value"}),
    averages={"sum": "unsigned"},
)


class Adagrad(FusedStep, torch.optim.Adagrad):
    """Adagrad: the gradient over the root of the sum of all its squares so far; drop-in for torch's.

    ``s = s + g**2``; ``p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)`` in step t.

    Args:
        params, lr, lr_decay, weight_decay, eps: as torch's.
        initial_accumulator_value: where s begins, as torch's; a group's own value counts for the group.
        foreach, maximize, differentiable, fused: as torch's; ``foreach`` and ``fused`` change nothing here.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        ValueError: an argument outside its range (torch's checks).

    Source: Duchi, Hazan and Singer 2011, Adaptive Subgradient Methods for Online Learning and Stochastic
    Optimization, eq. 1 with the diagonal of G.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([3.0], dtype=torch.float64)
    >>> Adagrad([p], lr=0.1, initial_accumulator_value=16.0, eps=0.0).step(); round(float(p), 6)
    0.94
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        super().__init__(
            params,
            lr,
            lr_decay,
            weight_decay,
            initial_accumulator_value,
            eps,
            foreach,
            maximize=maximize,
            differentiable=differentiable,
            fused=fused,
        )
        for group in self.param_groups:
            start = group["initial_accumulator_value"]
            if start != initial_accumulator_value:  # torch gives every group the constructor's
                for p in group["params"]:
                    self.state[p]["sum"].fill_(complex(start, start) if p.is_complex() else start)
        self._set_switches(switches)

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        return _RULE

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        return {name: float(group[name]) for name in _RULE.hyperparameters}


ENTRIES = (
    OptimizerEntry(
        name="adagrad",
        title="Adagrad",
        cls=Adagrad,
        default_lr=1e-2,
        rates=(1e-4, 1e1),
        tunable=MappingProxyType({"eps": EPS, "weight_decay": WEIGHT_DECAY}),
        formula="s ← s + g²;  p ← p - lr g / (√s + ε)   (ε is eps)",
        source="Duchi, Hazan and Singer 2011, Adaptive Subgradient Methods for Online Learning and Stochastic "
        "Optimization, eq. 1 with the diagonal of G",
        good_at=(
            "sparse gradients: a parameter that is rarely seen keeps a large rate for when it is",
            "convex problems: its steps shrink about as 1 / √t by themselves, so it needs no schedule",
        ),
        bad_at=(
            "long runs: s only grows, so in the end it hardly moves, wherever it is",
            "large gradients at the start: they stay in s and slow down every later step",
        ),
        compared_by_default=False,
    ),
)
