"""Averaged stochastic gradient descent."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Unpack

import torch

from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.ranges import WEIGHT_DECAY, check_not_negative
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ASGD", "ENTRIES"]


def coefficients(
    step: float, lr: float, lambd: float, alpha: float, t0: float, weight_decay: float, maximize: float,
    eta: float, mu: float,
) -> tuple[float, ...]:  # fmt: skip
    # Step t takes the eta and mu that step t - 1 worked out: those of step 1 are lr and 1.
    next_eta = lr / (1.0 + lambd * lr * step) ** alpha
    next_mu = 1.0 / max(1.0, step - t0)
    keep = 0.0 if mu == 1.0 else 1.0
    # p <- (1 - lambd eta) p - eta (g + weight_decay p): both decays in one
    return next_eta, next_mu, eta, lambd + weight_decay, keep, mu, 1.0 - 2.0 * maximize


def update(p: Any, g: Any, ax: Any, eta: Any, decay: Any, keep: Any, mu: Any, direction: Any) -> Any:
    # p <- p - eta (g + (lambd + weight_decay) p);  ax <- ax + mu (p - ax), p itself while mu is 1
    p = p - eta * (direction * g + decay * p)
    ax = keep * ax
    return p, ax + mu * (p - ax)


_RULE = Rule(
    update,
    coefficients,
    ("ax",),
    ("lr", "lambd", "alpha", "t0", "weight_decay", "maximize"),
    initial=MappingProxyType({"eta": "lr", "mu": 1.0}),
    scalars=("eta", "mu"),
)


class ASGD(FusedStep, torch.optim.ASGD):
    """Gradient descent at a falling rate that also averages where it has been; drop-in for torch's.

    In step t: ``p = (1 - lambd eta) p - eta (g + weight_decay p)``; ``ax = ax + mu (p - ax)``; then, for the
    next step, ``eta = lr / (1 + lambd lr t)**alpha`` and ``mu = 1 / max(1, t - t0)``.

    The average is ``state[p]["ax"]``: the parameters themselves are not averaged.

    Args:
        params, lr, weight_decay: as torch's.
        lambd: decay of the parameters and of the rate, as torch's; at least 0.
        alpha: the power with which the rate falls, as torch's; at least 0.
        t0: the step from which on it averages, as torch's; until then ax is p.
        foreach, maximize, differentiable, capturable: as torch's; ``foreach`` changes nothing here.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        ValueError: an argument outside its range (torch's checks).
        InputError: a negative or infinite ``lambd`` or ``alpha``.

    Source: Polyak and Juditsky 1992, Acceleration of Stochastic Approximation by Averaging, section 2; the
    rate: Xu 2011, Towards Optimal One Pass Large Scale Learning with Averaged Stochastic Gradient Descent.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([2.0])
    >>> ASGD([p], lr=0.25, lambd=0.0).step(); float(p)
    0.5
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        check_not_negative("asgd", lambd=lambd, alpha=alpha)
        super().__init__(
            params, lr, lambd, alpha, t0, weight_decay, foreach, maximize, differentiable, capturable
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
        name="asgd",
        title="averaged gradient descent",
        cls=ASGD,
        default_lr=1e-2,
        rates=(1e-4, 1e1),
        tunable=MappingProxyType({"weight_decay": WEIGHT_DECAY}),
        formula="p ← (1 - λη) p - η g;  a ← a + μ (p - a);  in step t, for the next one: η = lr / (1 + λ lr t)^α, "
        "μ = 1 / max(1, t - t₀)   (λ is lambd, α alpha, t₀ t0)",
        source="Polyak and Juditsky 1992, Acceleration of Stochastic Approximation by Averaging, section 2; the "
        "rate: Xu 2011, Towards Optimal One Pass Large Scale Learning with Averaged Stochastic Gradient Descent",
        good_at=(
            "noise on convex problems: the average a settles where the parameters keep moving about",
            "long runs: its rate falls by itself, though slowly at the default λ",
        ),
        bad_at=(
            "being used as it stands: the model holds p, and the average a stays in the optimizer's state",
            "short runs: at the default t₀ it averages nothing in the first million steps",
        ),
        compared_by_default=False,
    ),
)
