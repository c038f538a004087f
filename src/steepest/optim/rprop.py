"""Rprop."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Unpack

import torch

from steepest.backends.reference import maximum, minimum, sign, where
from steepest.errors import InputError
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "Rprop"]


def coefficients(
    step: float, lr: float, etaminus: float, etaplus: float, step_size_min: float, step_size_max: float,
    maximize: float,
) -> tuple[float, ...]:  # fmt: skip
    return etaminus, etaplus, step_size_min, step_size_max, 0.0, 1.0 - 2.0 * maximize


def update(
    p: Any, g: Any, prev: Any, size: Any,
    etaminus: Any, etaplus: Any, least: Any, most: Any, zero: Any, direction: Any,
) -> Any:  # fmt: skip
    # size <- etaplus size where g has prev's sign, etaminus size where the other, and there g <- 0;
    # p <- p - sign(g) size.  Signs are multiplied, not gradients: a product of small ones is 0.
    g = direction * g
    turn = sign(g) * sign(prev)
    size = where(turn > 0.0, etaplus * size, where(turn < 0.0, etaminus * size, size))
    size = minimum(maximum(size, least), most)
    g = where(turn < 0.0, zero, g)
    return p - sign(g) * size, g, size


_RULE = Rule(
    update,
    coefficients,
    ("prev", "step_size"),
    ("lr", "etaminus", "etaplus", "step_size_min", "step_size_max", "maximize"),
    initial=MappingProxyType({"step_size": "lr"}),
)


class Rprop(FusedStep, torch.optim.Rprop):
    """Rprop: each parameter has a step size of its own, and only the gradient's sign counts; drop-in for torch's.

    Where ``g`` has the sign of the step before: ``s = min(etaplus s, step_size_max)``; where it has turned:
    ``s = max(etaminus s, step_size_min)`` and ``g = 0``; then ``p = p - s sign(g)``.

    Args:
        params, etas: as torch's; ``etas`` is (etaminus, etaplus).
        lr: every step size's start, as torch's; a change in the middle of a run changes nothing.
        step_sizes: the least and the largest step size, at least 0 and in this order.
        capturable, foreach, maximize, differentiable: as torch's; ``foreach`` changes nothing here.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        ValueError: an argument outside its range (torch's checks).
        InputError: ``step_sizes`` that are negative or in the other order.

    Numerics: signs are compared as such; torch takes the product of two small gradients, which may be 0.

    Source: Riedmiller and Braun 1993, A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP
    Algorithm; without its way back after a turn: iRprop- of Igel and Huesken 2000, Improving the Rprop
    Learning Algorithm.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> p.grad = torch.tensor([1e-5, -1e5])
    >>> Rprop([p], lr=0.25).step(); p.tolist()
    [0.75, 1.25]
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        if len(step_sizes) != 2 or not 0.0 <= step_sizes[0] <= step_sizes[1]:
            raise InputError(
                f"rprop: step_sizes is {tuple(step_sizes)}; give the least and the largest step size, "
                "at least 0 and in this order."
            )
        super().__init__(
            params,
            lr,
            etas,
            step_sizes,
            capturable=capturable,
            foreach=foreach,
            maximize=maximize,
            differentiable=differentiable,
        )
        self._set_switches(switches)

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        return _RULE

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        names = dict(zip(("etaminus", "etaplus"), group["etas"], strict=True))
        names.update(zip(("step_size_min", "step_size_max"), group["step_sizes"], strict=True))
        return {name: float({**group, **names}[name]) for name in _RULE.hyperparameters}


ENTRIES = (
    OptimizerEntry(
        name="rprop",
        title="Rprop (resilient backpropagation)",
        cls=Rprop,
        default_lr=1e-2,
        rates=(1e-5, 1e0),
        formula="s ← η₊ s where g keeps its sign, s ← η₋ s and g ← 0 where it turns;  p ← p - s sign(g)   "
        "(s begins at lr and stays within step_sizes; η₋, η₊ are etas)",
        source="Riedmiller and Braun 1993, A Direct Adaptive Method for Faster Backpropagation Learning: The "
        "RPROP Algorithm; as iRprop- of Igel and Hüsken 2000, Improving the Rprop Learning Algorithm",
        good_at=(
            "full batches: it finds each parameter's step size by itself, from almost any lr",
            "gradients that vanish or explode from layer to layer: only their signs count",
        ),
        bad_at=(
            "small batches: noise turns the sign, and every turn halves a step size",
            "narrow ravines across the axes: it knows each parameter alone",
        ),
        compared_by_default=False,
    ),
)
