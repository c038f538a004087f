"""LARS."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Unpack

import torch

from steepest.errors import InputError
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.ranges import MOMENTUM, WEIGHT_DECAY, check_not_negative
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "LARS"]


def coefficients(
    step: float, lr: float, momentum: float, weight_decay: float, trust_coefficient: float, eps: float,
    maximize: float,
) -> tuple[float, ...]:  # fmt: skip
    return lr, momentum, weight_decay, trust_coefficient, eps, 1.0 - 2.0 * maximize


def measure_plain(p: Any, g: Any, lr: Any, mu: Any, decay: Any, trust: Any, eps: Any, direction: Any) -> Any:
    return p, g


def measure(
    p: Any, g: Any, b: Any, lr: Any, mu: Any, decay: Any, trust: Any, eps: Any, direction: Any
) -> Any:
    return p, g


def trust(
    norm_p: Any, norm_g: Any, lr: Any, mu: Any, decay: Any, trust_coefficient: Any, eps: Any, direction: Any
) -> Any:
    # trust_coefficient |p| / (|g| + weight_decay |p| + eps), and 1 where |p| or |g| is 0
    if norm_p > 0.0 and norm_g > 0.0:
        return trust_coefficient * norm_p / (norm_g + decay * norm_p + eps)
    return 1.0


def plain(
    p: Any, g: Any, lr: Any, mu: Any, decay: Any, trust: Any, eps: Any, direction: Any, ratio: Any
) -> Any:
    # p <- p - lr ratio (g + weight_decay p)
    return (p - lr * ratio * (direction * g + decay * p),)


def with_momentum(
    p: Any, g: Any, b: Any, lr: Any, mu: Any, decay: Any, trust: Any, eps: Any, direction: Any, ratio: Any
) -> Any:
    # b <- momentum b + ratio (g + weight_decay p);  p <- p - lr b
    b = mu * b + ratio * (direction * g + decay * p)
    return p - lr * b, b


def nesterov(
    p: Any, g: Any, b: Any, lr: Any, mu: Any, decay: Any, trust: Any, eps: Any, direction: Any, ratio: Any
) -> Any:
    # p <- p - lr (ratio (g + weight_decay p) + momentum b), b the new one
    g = ratio * (direction * g + decay * p)
    b = mu * b + g
    return p - lr * (g + mu * b), b


_HYPER = ("lr", "momentum", "weight_decay", "trust_coefficient", "eps", "maximize")
_SLOTS = ("momentum_buffer",)
_AVERAGES = {"momentum_buffer": "signed"}
_PLAIN = Rule(plain, coefficients, (), _HYPER, measure=measure_plain, trust=trust)
_MOMENTUM = Rule(
    with_momentum, coefficients, _SLOTS, _HYPER, measure=measure, trust=trust, averages=_AVERAGES
)
_NESTEROV = Rule(nesterov, coefficients, _SLOTS, _HYPER, measure=measure, trust=trust, averages=_AVERAGES)


class LARS(FusedStep, torch.optim.Optimizer):
    """LARS: momentum whose rate in each tensor goes with the tensor's length over its gradient's.

    ``ratio = trust_coefficient |p| / (|g| + weight_decay |p| + eps)``, and 1 where ``|p|`` or ``|g|`` is 0;
    ``b = momentum b + ratio (g + weight_decay p)``; ``p = p - lr b``, or with ``nesterov``
    ``p = p - lr (ratio (g + weight_decay p) + momentum b)``. ``|.|`` is the root of the sum of squares over
    the tensor.

    Args:
        params: parameters, or groups of them; each tensor is a layer.
        lr: learning rate, at least 0. Times ``trust_coefficient`` it is the share of its length that a tensor
            moves for one gradient.
        momentum: from 0 to below 1.
        weight_decay: at least 0; added to the gradient.
        nesterov: Nesterov's form of momentum.
        trust_coefficient: how far a layer may be trusted to change in a step, greater than 0.
        eps: added to the divisor, at least 0 (the paper's is 0).
        maximize: go up the gradient.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        InputError: an argument outside its range, ``nesterov`` without momentum, or a sparse gradient.

    Numerics: the rate is outside the momentum, as in torch's SGD; the paper has it inside, which is the same
    as long as the rate stays the same.

    Source: You, Gitman and Ginsburg 2017, Large Batch Training of Convolutional Networks, algorithm 1 and
    eq. 6.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([0.0, 7.0], dtype=torch.float64)
    >>> LARS([p], lr=1.0, trust_coefficient=0.1, eps=0.0).step(); [round(x, 6) for x in p.tolist()]
    [3.0, 3.5]
    """

    counts_steps = False

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        trust_coefficient: float = 1e-3,
        eps: float = 1e-8,
        *,
        maximize: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        check_not_negative(
            "lars", lr=lr, weight_decay=weight_decay, trust_coefficient=trust_coefficient, eps=eps
        )
        if not 0.0 <= momentum < 1.0:
            raise InputError(f"lars: momentum is {momentum}; give a number from 0 to below 1.")
        if trust_coefficient == 0:
            raise InputError(
                "lars: trust_coefficient is 0, so that nothing would move; give a positive number."
            )
        if nesterov and momentum == 0:
            raise InputError("lars: nesterov is a form of momentum; give a momentum greater than 0.")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
            "maximize": maximize,
        }
        super().__init__(params, defaults)
        self._set_switches(switches)

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        if group["momentum"] == 0:
            return _PLAIN
        return _NESTEROV if group["nesterov"] else _MOMENTUM

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        return {name: float(group[name]) for name in _HYPER}


ENTRIES = (
    OptimizerEntry(
        name="lars",
        title="LARS",
        cls=LARS,
        default_lr=1.0,
        rates=(1e-3, 1e2),
        tunable=MappingProxyType({"momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}),
        formula="b ← μ b + η ‖p‖ / (‖g‖ + λ ‖p‖ + ε) (g + λ p);  p ← p - lr b   "
        "(‖·‖ over a layer's tensor; where ‖p‖ or ‖g‖ is 0, the factor of (g + λ p) is 1; μ is momentum, "
        "η trust_coefficient, λ weight_decay, ε eps)",
        source="You, Gitman and Ginsburg 2017, Large Batch Training of Convolutional Networks, algorithm 1 and "
        "eq. 6",
        good_at=(
            "very large batches: layers whose gradients are large for their weights do not blow up",
            "layers of different scale: one rate suits them all",
        ),
        bad_at=(
            "layers near 0: a short tensor moves in short steps, whatever its gradient asks for",
            "the last stretch: the length of a step does not shrink with the gradient",
            "badly scaled parameters within a layer: they share one rate",
        ),
        compared_by_default=False,
    ),
)
