"""Gradient descent: plain, with momentum (torch's form and the moving-average form), and Nesterov's."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Literal, Unpack

import torch

from steepest.errors import InputError
from steepest.optim.fused import FusedStep, OptimizerSwitches, convention_of
from steepest.optim.ranges import MOMENTUM, WEIGHT_DECAY
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "SGD"]


def _plain_coefficients(step: float, lr: float, weight_decay: float, maximize: float) -> tuple[float, ...]:
    return lr, weight_decay, 1.0 - 2.0 * maximize


def plain(p: Any, g: Any, lr: Any, weight_decay: Any, direction: Any) -> Any:
    # p <- p - lr g
    g = direction * g + weight_decay * p
    return (p - lr * g,)


def _momentum_coefficients(
    step: float, lr: float, momentum: float, dampening: float, weight_decay: float, maximize: float
) -> tuple[float, ...]:
    # b <- g on the first step, momentum b + (1 - dampening) g afterwards
    take = 1.0 if step == 1.0 else 1.0 - dampening
    return lr, momentum, take, weight_decay, 1.0 - 2.0 * maximize


def momentum(p: Any, g: Any, b: Any, lr: Any, mu: Any, take: Any, weight_decay: Any, direction: Any) -> Any:
    # b <- mu b + (1 - dampening) g;  p <- p - lr b
    g = direction * g + weight_decay * p
    b = mu * b + take * g
    return p - lr * b, b


def nesterov(p: Any, g: Any, b: Any, lr: Any, mu: Any, take: Any, weight_decay: Any, direction: Any) -> Any:
    # b <- mu b + g;  p <- p - lr (g + mu b)
    g = direction * g + weight_decay * p
    b = mu * b + take * g
    return p - lr * (g + mu * b), b


def _ema_coefficients(
    step: float, lr: float, momentum: float, dampening: float, weight_decay: float, maximize: float
) -> tuple[float, ...]:
    return lr, momentum, 1.0 - momentum, weight_decay, 1.0 - 2.0 * maximize


def _inside_coefficients(
    step: float, lr: float, momentum: float, dampening: float, weight_decay: float, maximize: float
) -> tuple[float, ...]:
    return lr, momentum, weight_decay, 1.0 - 2.0 * maximize


def inside(p: Any, g: Any, v: Any, lr: Any, mu: Any, weight_decay: Any, direction: Any) -> Any:
    # v <- mu v - lr g;  p <- p + v
    g = direction * g + weight_decay * p
    v = mu * v - lr * g
    return p + v, v


def inside_nesterov(p: Any, g: Any, v: Any, lr: Any, mu: Any, weight_decay: Any, direction: Any) -> Any:
    # v <- mu v - lr g;  p <- p + mu v - lr g
    g = direction * g + weight_decay * p
    v = mu * v - lr * g
    return p + (mu * v - lr * g), v


Convention = Literal["torch", "ema", "keras", "tf1"]

_HYPER = ("lr", "momentum", "dampening", "weight_decay", "maximize")
_SLOTS = ("momentum_buffer",)
_AVERAGES = {"momentum_buffer": "signed"}
_PLAIN = Rule(plain, _plain_coefficients, (), ("lr", "weight_decay", "maximize"))
_MOMENTUM = Rule(momentum, _momentum_coefficients, _SLOTS, _HYPER, averages=_AVERAGES)
_NESTEROV = Rule(nesterov, _momentum_coefficients, _SLOTS, _HYPER, averages=_AVERAGES)
_RULES = {  # (convention, nesterov); tf1's b begins at 0, which without dampening is torch's first step
    ("torch", False): _MOMENTUM,
    ("torch", True): _NESTEROV,
    ("ema", False): Rule(
        momentum, _ema_coefficients, _SLOTS, _HYPER, averages=_AVERAGES
    ),  # v <- beta v + (1 - beta) g from 0
    ("keras", False): Rule(inside, _inside_coefficients, _SLOTS, _HYPER, averages=_AVERAGES),
    ("keras", True): Rule(inside_nesterov, _inside_coefficients, _SLOTS, _HYPER, averages=_AVERAGES),
    ("tf1", False): _MOMENTUM,
    ("tf1", True): _NESTEROV,
}


class SGD(FusedStep, torch.optim.SGD):
    """Gradient descent, with momentum if asked; drop-in for :class:`torch.optim.SGD`.

    ``g = gradient + weight_decay p``; ``b = momentum b + (1 - dampening) g`` (``b = g`` on the first step);
    ``p = p - lr b``, or ``p - lr (g + momentum b)`` with ``nesterov``.

    Args:
        params, lr, momentum, dampening, weight_decay, nesterov: as torch's.
        maximize, foreach, differentiable, fused: as torch's; ``foreach`` and ``fused`` change nothing here.
        convention: whose momentum; the other arguments keep torch's defaults.

            * ``"torch"``: as above.
            * ``"ema"``: ``v = momentum v + (1 - momentum) g`` from ``v = 0``; ``p = p - lr v``. With rate L it
              equals torch's form with ``lr = L (1 - momentum)``, exactly.
            * ``"keras"``: ``v = momentum v - lr g``; ``p = p + v``, or ``p + momentum v - lr g`` with
              ``nesterov``. The rate is inside: a new one applies to new gradients alone. Keras' own defaults:
              ``lr=0.01, momentum=0.0``.
            * ``"tf1"``: ``tf.compat.v1.train.MomentumOptimizer``; torch's form, which takes no dampening.
        switches: ``skip_nonfinite``; see :class:`~steepest.optim.fused.OptimizerSwitches`.

    Raises:
        ValueError: an argument outside its range (torch's checks).
        InputError: an unknown convention, or one that does not go with the other arguments.

    Source: Robbins and Monro 1951; Polyak 1964, eq. 9; Sutskever et al. 2013, eqs. 3-4 (Nesterov's form);
    keras.optimizers.SGD's and TensorFlow's documentation.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([2.0])
    >>> SGD([p], lr=0.25).step(); float(p)
    0.5
    """

    counts_steps = False

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | torch.Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        convention: Convention = "torch",
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        super().__init__(
            params,
            lr,
            momentum,
            dampening,
            weight_decay,
            nesterov,
            maximize=maximize,
            foreach=foreach,
            differentiable=differentiable,
            fused=fused,
        )
        self._set_options(convention=convention)
        self._set_switches(switches)

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        convention = convention_of("SGD", group, Convention, "dampening")
        nesterov = bool(group["nesterov"])
        if (convention, nesterov) not in _RULES:
            raise InputError("SGD: convention='ema' has no form with nesterov; leave one of them out.")
        return _PLAIN if group["momentum"] == 0 else _RULES[convention, nesterov]

    @staticmethod
    def torch_has(group: dict[str, Any]) -> bool:
        return bool(group.get("convention", "torch") == "torch")

    @staticmethod
    def state_from_torch(group: dict[str, Any], state: dict[str, Any]) -> None:
        buffer = state.get("momentum_buffer")
        factor = {"ema": 1.0 - group["momentum"], "keras": -group["lr"]}.get(group["convention"])
        if buffer is not None and factor is not None:
            state["momentum_buffer"] = buffer * factor

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        return {name: float(group[name]) for name in SGD.rule_of(group).hyperparameters}


ENTRIES = (
    OptimizerEntry(
        name="sgd",
        title="gradient descent",
        cls=SGD,
        default_lr=1e-3,
        rates=(1e-4, 1e1),
        tunable=MappingProxyType({"weight_decay": WEIGHT_DECAY}),
        formula="p ← p - lr g;  g is the mean gradient of all rows (batch), of some (mini-batch) or of one",
        source="Cauchy 1847; Robbins and Monro 1951, A Stochastic Approximation Method, eq. 5",
        good_at=(
            "convex problems, full batch: below a rate of 2 / largest curvature, down to the global optimum",
            "large tables, small batches: many cheap, noisy steps get far before one full batch is through",
            "memory: it keeps no state",
        ),
        bad_at=(
            (
                "non-convex problems: full batch too ends in some optimum near its start; "
                "that it reaches the global one is often said, and holds on convex problems only"
            ),
            (
                "settling, small batches: at a constant rate it keeps moving about the optimum, "
                "the more the larger the rate and the smaller the batch"
            ),
            "ravines: one rate must serve steep and flat directions alike",
        ),
    ),
    OptimizerEntry(
        name="momentum",
        title="gradient descent with momentum",
        cls=SGD,
        default_lr=1e-3,
        rates=(1e-5, 1e0),
        tunable=MappingProxyType({"momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}),
        formula="b ← μ b + g;  p ← p - lr b   (μ is momentum)",
        source="Polyak 1964, Some Methods of Speeding up the Convergence of Iteration Methods, eq. 9",
        good_at=(
            "ravines: steps across cancel and steps along add up, so it oscillates less and goes farther",
            "noisy gradients: it averages over about the last 1 / (1 - μ) of them",
        ),
        bad_at=(
            "too high a rate or μ: it overshoots and swings about the optimum",
            "plain descent's rate: every gradient counts 1 / (1 - μ) times in the end, so take a smaller one",
        ),
        options=MappingProxyType({"momentum": 0.9}),
    ),
    OptimizerEntry(
        name="nesterov",
        title="Nesterov's accelerated gradient",
        cls=SGD,
        default_lr=1e-3,
        rates=(1e-5, 1e0),
        tunable=MappingProxyType({"momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}),
        formula="b ← μ b + g;  p ← p - lr (g + μ b)   (μ is momentum)",
        source="Nesterov 1983; Sutskever et al. 2013, On the Importance of Initialization and Momentum, "
        "eqs. 3-4",
        good_at=("ravines, with less overshoot than momentum: the step looks ahead to where it will be",),
        bad_at=("noisy gradients: the look-ahead follows the noise too, and little is left of its lead",),
        options=MappingProxyType({"momentum": 0.9, "nesterov": True}),
    ),
    OptimizerEntry(
        name="momentum_ema",
        title="momentum as a moving average",
        cls=SGD,
        default_lr=1e-2,
        rates=(1e-4, 1e1),
        tunable=MappingProxyType({"momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}),
        formula="v ← β v + (1 - β) g;  p ← p - lr v   (β is momentum)",
        source="Goodfellow, Bengio and Courville 2016, Deep Learning, section 8.3.2 (with the rate outside)",
        good_at=(
            "ravines and noisy gradients, as momentum: with lr / (1 - β) for its lr it takes the same steps",
            "trying other values of β: the rate keeps plain descent's scale",
        ),
        bad_at=("the start: v begins at 0 and is not corrected for it, so the first steps are small",),
        options=MappingProxyType({"momentum": 0.9, "convention": "ema"}),
        compared_by_default=False,  # momentum at a tenth of the rate
    ),
)
