"""LAMB."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Unpack

import torch

from steepest.backends.reference import sqrt
from steepest.optim.averages import bias_correction
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.ranges import BETA1, BETA2, DECOUPLED_WEIGHT_DECAY, EPS, check_betas, check_not_negative
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "LAMB"]


def coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    corrected: float, maximize: float,
) -> tuple[float, ...]:  # fmt: skip
    mean = root = 1.0
    if corrected > 0.0:
        mean = 1.0 / bias_correction(beta1, step)
        root = 1.0 / bias_correction(beta2, step) ** 0.5
    return lr, mean, root, 1.0 - beta1, beta2, 1.0 - beta2, eps, weight_decay, 1.0 - 2.0 * maximize


def direction_of(
    p: Any, g: Any, m: Any, v: Any,
    mean: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, decay: Any, direction: Any,
) -> Any:  # fmt: skip
    # u = m^ / (sqrt(v^) + eps) + weight_decay p, from the new averages
    g = direction * g
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    return mean * m / (sqrt(v) * root + eps) + decay * p, m, v


def measure(
    p: Any, g: Any, m: Any, v: Any,
    lr: Any, mean: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, decay: Any, direction: Any,
) -> Any:  # fmt: skip
    u, m, v = direction_of(p, g, m, v, mean, root, rest1, beta2, rest2, eps, decay, direction)
    return p, u


def trust(
    norm_p: Any, norm_u: Any,
    lr: Any, mean: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, decay: Any, direction: Any,
) -> Any:  # fmt: skip
    # |p| / |u|, and 1 where one of them is 0
    return norm_p / norm_u if norm_p > 0.0 and norm_u > 0.0 else 1.0


def update(
    p: Any, g: Any, m: Any, v: Any,
    lr: Any, mean: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, decay: Any, direction: Any,
    ratio: Any,
) -> Any:  # fmt: skip
    # p <- p - lr |p| / |u| u
    u, m, v = direction_of(p, g, m, v, mean, root, rest1, beta2, rest2, eps, decay, direction)
    return p - lr * ratio * u, m, v


_RULE = Rule(
    update,
    coefficients,
    ("exp_avg", "exp_avg_sq"),
    ("lr", "beta1", "beta2", "eps", "weight_decay", "bias_correction", "maximize"),
    measure=measure,
    trust=trust,
    averages={"exp_avg": "signed", "exp_avg_sq": "unsigned"},
)


class LAMB(FusedStep, torch.optim.Optimizer):
    """LAMB: AdamW's direction, in each tensor scaled to the tensor's own length.

    ``u = m^ / (sqrt(v^) + eps) + weight_decay p``, ``m^`` and ``v^`` as in Adam;
    ``p = p - lr |p| / |u| u``, where ``|.|`` is the root of the sum of squares over the tensor, and
    ``|p| / |u|`` counts as 1 where either is 0.

    Args:
        params: parameters, or groups of them; each tensor is a layer.
        lr: learning rate, at least 0: the share of its length that a tensor moves in a step.
        betas: the memory of the moving average and of the moving square, each from 0 to below 1.
        eps: added to the divisor, at least 0.
        weight_decay: at least 0; part of the direction, so that it is scaled with it.
        bias_correction: correct the averages for their start at 0 (version 5 of the paper); ``False`` does
            not (its version 3).
        maximize: go up the gradient.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        InputError: an argument outside its range, or a sparse gradient.

    Numerics: lengths are not clamped: the paper's phi is the identity.

    Source: You et al. 2020, Large Batch Optimization for Deep Learning: Training BERT in 76 minutes
    (arXiv:1904.00962v5), algorithm 2.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([0.0, 7.0], dtype=torch.float64)
    >>> LAMB([p], lr=0.1, eps=1e-300).step(); [round(x, 6) for x in p.tolist()]
    [3.0, 3.5]
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        bias_correction: bool = True,
        maximize: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        check_not_negative("lamb", lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas("lamb", betas, 2)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "bias_correction": bias_correction,
            "maximize": maximize,
        }
        super().__init__(params, defaults)
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
        name="lamb",
        title="LAMB",
        cls=LAMB,
        default_lr=1e-3,
        rates=(1e-5, 1e0),
        tunable=MappingProxyType(
            {"beta1": BETA1, "beta2": BETA2, "eps": EPS, "weight_decay": DECOUPLED_WEIGHT_DECAY}
        ),
        formula="u = m̂ / (√v̂ + ε) + λ p;  p ← p - lr (‖p‖ / ‖u‖) u   "
        "(m̂, v̂ as in adam; ‖·‖ over a layer's tensor; ‖p‖ / ‖u‖ is 1 where either is 0; λ is weight_decay, ε eps)",
        source="You et al. 2020, Large Batch Optimization for Deep Learning: Training BERT in 76 minutes "
        "(arXiv v5), algorithm 2",
        good_at=(
            "very large batches: every layer moves by the share lr of its own length, so rates can be large",
            "layers of different scale: one rate suits them all",
        ),
        bad_at=(
            "layers near 0: a short tensor moves in short steps, whatever its gradient asks for",
            "the last stretch: the length of a step does not shrink with the gradient",
        ),
        compared_by_default=False,
    ),
)
