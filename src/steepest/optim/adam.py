"""Adam."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any, Literal, Unpack

import torch

from steepest.backends.reference import maximum, sqrt
from steepest.errors import InputError
from steepest.optim.fused import FusedStep, OptimizerSwitches, convention_of
from steepest.optim.ranges import BETA1, BETA2, EPS, WEIGHT_DECAY
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "Adam"]


def coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, maximize: float
) -> tuple[float, ...]:
    # m^ = m / (1 - beta1^t) goes into the rate, sqrt(v^) = sqrt(v) / sqrt(1 - beta2^t) into a factor
    rate = lr / (1.0 - beta1**step)
    root = 1.0 / (1.0 - beta2**step) ** 0.5
    return rate, root, 1.0 - beta1, beta2, 1.0 - beta2, eps, weight_decay, 1.0 - 2.0 * maximize


def coupled(
    p: Any, g: Any, m: Any, v: Any,
    rate: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, decay: Any, direction: Any,
) -> Any:  # fmt: skip
    # m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;  p <- p - lr m^ / (sqrt(v^) + eps)
    g = direction * g + decay * p
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    return p - rate * m / (sqrt(v) * root + eps), m, v


def coupled_amsgrad(
    p: Any, g: Any, m: Any, v: Any, largest: Any,
    rate: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, decay: Any, direction: Any,
) -> Any:  # fmt: skip
    # the largest v so far in place of v
    g = direction * g + decay * p
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    largest = maximum(largest, v)
    return p - rate * m / (sqrt(largest) * root + eps), m, v, largest


def decoupled_coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, maximize: float
) -> tuple[float, ...]:
    # the decay is applied to the parameter itself: p <- (1 - lr weight_decay) p
    rate = lr / (1.0 - beta1**step)
    root = 1.0 / (1.0 - beta2**step) ** 0.5
    return rate, root, 1.0 - beta1, beta2, 1.0 - beta2, eps, 1.0 - lr * weight_decay, 1.0 - 2.0 * maximize


def decoupled(
    p: Any, g: Any, m: Any, v: Any,
    rate: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, keep: Any, direction: Any,
) -> Any:  # fmt: skip
    # p <- (1 - lr weight_decay) p - lr m^ / (sqrt(v^) + eps)
    g = direction * g
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    return keep * p - rate * m / (sqrt(v) * root + eps), m, v


def decoupled_amsgrad(
    p: Any, g: Any, m: Any, v: Any, largest: Any,
    rate: Any, root: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, keep: Any, direction: Any,
) -> Any:  # fmt: skip
    # the largest v so far in place of v
    g = direction * g
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    largest = maximum(largest, v)
    return keep * p - rate * m / (sqrt(largest) * root + eps), m, v, largest


def keras_coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, maximize: float
) -> tuple[float, ...]:
    # both corrections in the rate, so that eps meets the uncorrected sqrt(v)
    rate = lr * (1.0 - beta2**step) ** 0.5 / (1.0 - beta1**step)
    return rate, 1.0, 1.0 - beta1, beta2, 1.0 - beta2, eps, weight_decay, 1.0 - 2.0 * maximize


def keras_decoupled_coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, maximize: float
) -> tuple[float, ...]:
    rate = lr * (1.0 - beta2**step) ** 0.5 / (1.0 - beta1**step)
    return rate, 1.0, 1.0 - beta1, beta2, 1.0 - beta2, eps, 1.0 - lr * weight_decay, 1.0 - 2.0 * maximize


def _rest(beta: float, step: float) -> float:
    # 1 - beta^t without cancellation: what the largest v^ keeps of it would add up from step to step
    return -math.expm1(step * math.log(beta)) if beta > 0.0 else 1.0


def optax_coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, maximize: float,
    eps_root: float,
) -> tuple[float, ...]:  # fmt: skip
    rate, square = lr / _rest(beta1, step), 1.0 / _rest(beta2, step)
    direction = 1.0 - 2.0 * maximize
    return rate, square, 1.0 - beta1, beta2, 1.0 - beta2, eps, eps_root, weight_decay, 1.0, direction


def optax_decoupled_coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, maximize: float,
    eps_root: float,
) -> tuple[float, ...]:  # fmt: skip
    rate, square = lr / _rest(beta1, step), 1.0 / _rest(beta2, step)
    keep, direction = 1.0 - lr * weight_decay, 1.0 - 2.0 * maximize
    return rate, square, 1.0 - beta1, beta2, 1.0 - beta2, eps, eps_root, 0.0, keep, direction


def optax(
    p: Any, g: Any, m: Any, v: Any,
    rate: Any, square: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, eps_root: Any, decay: Any, keep: Any,
    direction: Any,
) -> Any:  # fmt: skip
    # p <- p - lr m^ / (sqrt(v^ + eps_root) + eps)
    g = direction * g + decay * p
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    return keep * p - rate * m / (sqrt(square * v + eps_root) + eps), m, v


def optax_amsgrad(
    p: Any, g: Any, m: Any, v: Any, largest: Any,
    rate: Any, square: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, eps_root: Any, decay: Any, keep: Any,
    direction: Any,
) -> Any:  # fmt: skip
    # the largest v^ so far in place of v^, where torch has the largest v
    g = direction * g + decay * p
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    largest = maximum(largest, square * v)
    return keep * p - rate * m / (sqrt(largest + eps_root) + eps), m, v, largest


Convention = Literal["torch", "keras", "optax"]

_HYPER = ("lr", "beta1", "beta2", "eps", "weight_decay", "maximize")
_WITH_ROOT = (*_HYPER, "eps_root")
_SLOTS = ("exp_avg", "exp_avg_sq")
_MORE = (*_SLOTS, "max_exp_avg_sq")
_AVERAGES = {"exp_avg": "signed", "exp_avg_sq": "unsigned", "max_exp_avg_sq": "unsigned"}
_RULES = {  # (convention, decoupled, amsgrad)
    ("torch", False, False): Rule(coupled, coefficients, _SLOTS, _HYPER, averages=_AVERAGES),
    ("torch", False, True): Rule(coupled_amsgrad, coefficients, _MORE, _HYPER, averages=_AVERAGES),
    ("torch", True, False): Rule(decoupled, decoupled_coefficients, _SLOTS, _HYPER, averages=_AVERAGES),
    ("torch", True, True): Rule(decoupled_amsgrad, decoupled_coefficients, _MORE, _HYPER, averages=_AVERAGES),
    ("keras", False, False): Rule(coupled, keras_coefficients, _SLOTS, _HYPER, averages=_AVERAGES),
    ("keras", False, True): Rule(coupled_amsgrad, keras_coefficients, _MORE, _HYPER, averages=_AVERAGES),
    ("keras", True, False): Rule(decoupled, keras_decoupled_coefficients, _SLOTS, _HYPER, averages=_AVERAGES),
    ("keras", True, True): Rule(
        decoupled_amsgrad, keras_decoupled_coefficients, _MORE, _HYPER, averages=_AVERAGES
    ),
    ("optax", False, False): Rule(optax, optax_coefficients, _SLOTS, _WITH_ROOT, averages=_AVERAGES),
    ("optax", False, True): Rule(optax_amsgrad, optax_coefficients, _MORE, _WITH_ROOT, averages=_AVERAGES),
    ("optax", True, False): Rule(optax, optax_decoupled_coefficients, _SLOTS, _WITH_ROOT, averages=_AVERAGES),
    ("optax", True, True): Rule(
        optax_amsgrad, optax_decoupled_coefficients, _MORE, _WITH_ROOT, averages=_AVERAGES
    ),
}


class _AdamRules(FusedStep):
    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        convention = convention_of("Adam", group, Convention)
        eps_root = group.get("eps_root", 0.0)
        if not 0.0 <= eps_root < math.inf:
            raise InputError(f"Adam: eps_root is {eps_root}; it must be a finite number of at least 0.")
        if eps_root and convention != "optax":
            raise InputError(f"Adam: eps_root is {eps_root}; only convention='optax' has it.")
        return _RULES[convention, bool(group.get("decoupled_weight_decay", False)), bool(group["amsgrad"])]

    @staticmethod
    def torch_has(group: dict[str, Any]) -> bool:
        return bool(group.get("convention", "torch") == "torch")

    @classmethod
    def hyperparameters_of(cls, group: dict[str, Any]) -> dict[str, float]:
        beta1, beta2 = group["betas"]
        given = {"eps_root": 0.0, **group, "beta1": beta1, "beta2": beta2}
        return {name: float(given[name]) for name in cls.rule_of(group).hyperparameters}


class Adam(_AdamRules, torch.optim.Adam):
    """Adam: bias-corrected moving averages of the gradient and of its square; drop-in for torch's.

    ``m = beta1 m + (1 - beta1) g``; ``v = beta2 v + (1 - beta2) g**2``; ``m^ = m / (1 - beta1**t)``;
    ``v^ = v / (1 - beta2**t)``; ``p = p - lr m^ / (sqrt(v^) + eps)``.

    Args:
        params, lr, betas, eps, weight_decay, amsgrad: as torch's (the decay is added to the gradient).
        foreach, maximize, capturable, differentiable, fused, decoupled_weight_decay: as torch's; ``foreach``
            and ``fused`` change nothing here.
        convention: whose form; the other arguments keep torch's defaults.

            * ``"torch"``: as above.
            * ``"keras"``: ``p = p - lr sqrt(1 - beta2**t) / (1 - beta1**t) m / (sqrt(v) + eps)``, the form before
              section 2.1 of the paper. Keras' own default is ``eps=1e-7``, and its weight decay is decoupled.
            * ``"optax"``: ``p = p - lr m^ / (sqrt(v^ + eps_root) + eps)``; ``amsgrad`` keeps the largest ``v^``.
              Its own defaults are torch's.
        eps_root: at least 0, inside the root, with ``convention="optax"`` alone.
        switches: ``skip_nonfinite``; see :class:`~steepest.optim.fused.OptimizerSwitches`.

    Raises:
        ValueError: an argument outside its range (torch's checks).
        InputError: an unknown convention, or one that does not go with the other arguments.

    Source: Kingma and Ba 2015, Adam: A Method for Stochastic Optimization, algorithm 1; amsgrad: Reddi et
    al. 2018, On the Convergence of Adam and Beyond, algorithm 2; conventions: keras.optimizers.Adam,
    optax.adam, optax.amsgrad.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([2.0], dtype=torch.float64)
    >>> Adam([p], lr=0.1, eps=0.0).step(); round(float(p), 6)
    0.9
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float | torch.Tensor, float | torch.Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        convention: Convention = "torch",
        eps_root: float = 0.0,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=decoupled_weight_decay,
        )
        self._set_options(convention=convention, eps_root=eps_root)
        self._set_switches(switches)


ENTRIES = (
    OptimizerEntry(
        name="adam",
        title="Adam",
        cls=Adam,
        default_lr=1e-3,
        rates=(1e-5, 1e0),
        tunable=MappingProxyType({"beta1": BETA1, "beta2": BETA2, "eps": EPS, "weight_decay": WEIGHT_DECAY}),
        formula="m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  p ← p - lr m̂ / (√v̂ + ε)   "
        "(m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ) in step t; β₁, β₂ are betas, ε eps)",
        source="Kingma and Ba 2015, Adam: A Method for Stochastic Optimization, algorithm 1",
        good_at=(
            "working untuned: the length of a step hardly depends on the gradient's scale",
            "sparse, badly scaled and noisy gradients",
        ),
        bad_at=(
            "the last stretch: tuned momentum often ends a little lower on well-conditioned problems",
            "weight decay: added to the gradient, it is scaled away with it; use adamw",
        ),
    ),
)
