"""RMSProp."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Literal, Unpack

import torch

from steepest.backends.reference import maximum, sqrt
from steepest.optim.fused import FusedStep, OptimizerSwitches, convention_of
from steepest.optim.ranges import BETA2, EPS, WEIGHT_DECAY
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "RMSprop"]


def _coefficients(
    step: float, lr: float, alpha: float, eps: float, weight_decay: float, momentum: float, maximize: float
) -> tuple[float, ...]:
    return lr, alpha, 1.0 - alpha, eps, weight_decay, momentum, 1.0 - 2.0 * maximize


def plain(
    p: Any, g: Any, s: Any, lr: Any, alpha: Any, rest: Any, eps: Any, decay: Any, mu: Any, direction: Any
) -> Any:
    # s <- alpha s + (1 - alpha) g^2;  p <- p - lr g / (sqrt(s) + eps)
    g = direction * g + decay * p
    s = alpha * s + rest * g * g
    return p - lr * g / (sqrt(s) + eps), s


def with_momentum(
    p: Any,
    g: Any,
    s: Any,
    b: Any,
    lr: Any,
    alpha: Any,
    rest: Any,
    eps: Any,
    decay: Any,
    mu: Any,
    direction: Any,
) -> Any:
    # b <- mu b + g / (sqrt(s) + eps);  p <- p - lr b
    g = direction * g + decay * p
    s = alpha * s + rest * g * g
    b = mu * b + g / (sqrt(s) + eps)
    return p - lr * b, s, b


def centered(
    p: Any,
    g: Any,
    s: Any,
    m: Any,
    lr: Any,
    alpha: Any,
    rest: Any,
    eps: Any,
    decay: Any,
    mu: Any,
    direction: Any,
) -> Any:
    # the variance s - m^2 in place of s, m the moving average of g; rounding may take it below 0
    g = direction * g + decay * p
    s = alpha * s + rest * g * g
    m = m + rest * (g - m)
    return p - lr * g / (sqrt(maximum(s - m * m, 0.0 * s)) + eps), s, m


def centered_with_momentum(
    p: Any, g: Any, s: Any, m: Any, b: Any,
    lr: Any, alpha: Any, rest: Any, eps: Any, decay: Any, mu: Any, direction: Any,
) -> Any:  # fmt: skip
    # both of the above
    g = direction * g + decay * p
    s = alpha * s + rest * g * g
    m = m + rest * (g - m)
    b = mu * b + g / (sqrt(maximum(s - m * m, 0.0 * s)) + eps)
    return p - lr * b, s, m, b


def inside(
    p: Any, g: Any, s: Any, lr: Any, alpha: Any, rest: Any, eps: Any, decay: Any, mu: Any, direction: Any
) -> Any:
    # s <- alpha s + (1 - alpha) g^2;  p <- p - lr g / sqrt(s + eps)
    g = direction * g + decay * p
    s = alpha * s + rest * g * g
    return p - lr * g / sqrt(s + eps), s


def inside_with_momentum(
    p: Any, g: Any, s: Any, b: Any,
    lr: Any, alpha: Any, rest: Any, eps: Any, decay: Any, mu: Any, direction: Any,
) -> Any:  # fmt: skip
    # b <- mu b + lr g / sqrt(s + eps);  p <- p - b
    g = direction * g + decay * p
    s = alpha * s + rest * g * g
    b = mu * b + lr * g / sqrt(s + eps)
    return p - b, s, b


def inside_centered(
    p: Any, g: Any, s: Any, m: Any,
    lr: Any, alpha: Any, rest: Any, eps: Any, decay: Any, mu: Any, direction: Any,
) -> Any:  # fmt: skip
    # the variance s - m^2 in place of s
    g = direction * g + decay * p
    s = alpha * s + rest * g * g
    m = m + rest * (g - m)
    return p - lr * g / sqrt(maximum(s - m * m, 0.0 * s) + eps), s, m


def inside_centered_with_momentum(
    p: Any, g: Any, s: Any, m: Any, b: Any,
    lr: Any, alpha: Any, rest: Any, eps: Any, decay: Any, mu: Any, direction: Any,
) -> Any:  # fmt: skip
    # both of the above
    g = direction * g + decay * p
    s = alpha * s + rest * g * g
    m = m + rest * (g - m)
    b = mu * b + lr * g / sqrt(maximum(s - m * m, 0.0 * s) + eps)
    return p - b, s, m, b


Convention = Literal["torch", "keras", "tf1", "optax"]

_HYPER = ("lr", "alpha", "eps", "weight_decay", "momentum", "maximize")
_SLOTS = {  # (momentum, centered)
    (False, False): ("square_avg",),
    (True, False): ("square_avg", "momentum_buffer"),
    (False, True): ("square_avg", "grad_avg"),
    (True, True): ("square_avg", "grad_avg", "momentum_buffer"),
}
_OUTSIDE = {
    (False, False): plain,
    (True, False): with_momentum,
    (False, True): centered,
    (True, True): centered_with_momentum,
}
_INSIDE = {
    (False, False): inside,
    (True, False): inside_with_momentum,
    (False, True): inside_centered,
    (True, True): inside_centered_with_momentum,
}


def _rules(updates: dict[tuple[bool, bool], Any], start: float = 0.0) -> dict[tuple[bool, bool], Rule]:
    return {
        form: Rule(
            update,
            _coefficients,
            _SLOTS[form],
            _HYPER,
            initial={"square_avg": start},
            averages=_averages(*form),
        )
        for form, update in updates.items()
    }


def _averages(momentum: bool, centered: bool) -> dict[str, str]:
    # A variance is a small difference of two averages, which then need their digits.
    squares = {} if centered else {"square_avg": "unsigned"}
    return squares | ({"momentum_buffer": "signed"} if momentum else {})


_RULES = {
    "torch": _rules(_OUTSIDE),
    "keras": _rules(_INSIDE),
    "tf1": _rules(_INSIDE, start=1.0),
    "optax": _rules(_INSIDE),
}


class RMSprop(FusedStep, torch.optim.RMSprop):
    """RMSProp: the gradient over the root of its moving mean square; drop-in for torch's.

    ``s = alpha s + (1 - alpha) g**2``; ``p = p - lr g / (sqrt(s) + eps)``.

    Args:
        params, lr, alpha, eps, weight_decay, momentum, centered: as torch's.
        capturable, foreach, maximize, differentiable: as torch's; ``foreach`` changes nothing here.
        convention: whose form; the other arguments keep torch's defaults. All but torch's divide by
            ``sqrt(s + eps)`` and have the rate inside the momentum: ``b = momentum b + lr g / sqrt(s + eps)``;
            ``p = p - b``.

            * ``"torch"``: as above.
            * ``"keras"``: its own defaults are ``lr=0.001, alpha=0.9, eps=1e-7``.
            * ``"tf1"``: ``s`` begins at 1; its own defaults are ``alpha=0.9, eps=1e-10``.
            * ``"optax"``: its own defaults are ``alpha=0.9, eps=1e-8``.
        switches: ``skip_nonfinite``; see :class:`~steepest.optim.fused.OptimizerSwitches`.

    Raises:
        ValueError: an argument outside its range (torch's checks).
        InputError: an unknown convention, or one that does not go with the other arguments.

    Source: Tieleman and Hinton 2012, Neural Networks for Machine Learning, lecture 6.5; centred form:
    Graves 2013, Generating Sequences with Recurrent Neural Networks, eqs. 38-41; conventions:
    keras.optimizers.RMSprop, tf.compat.v1.train.RMSPropOptimizer and optax.rmsprop.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([2.0], dtype=torch.float64)
    >>> RMSprop([p], lr=0.01, alpha=0.75, eps=0.0).step(); round(float(p), 6)
    0.98
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        convention: Convention = "torch",
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        super().__init__(
            params,
            lr,
            alpha,
            eps,
            weight_decay,
            momentum,
            centered,
            capturable=capturable,
            foreach=foreach,
            maximize=maximize,
            differentiable=differentiable,
        )
        self._set_options(convention=convention)
        self._set_switches(switches)

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        convention = convention_of("RMSprop", group, Convention)
        return _RULES[convention][group["momentum"] > 0, bool(group["centered"])]

    @staticmethod
    def torch_has(group: dict[str, Any]) -> bool:
        return bool(group.get("convention", "torch") == "torch")

    @staticmethod
    def state_from_torch(group: dict[str, Any], state: dict[str, Any]) -> None:
        if "momentum_buffer" in state:  # in which the other conventions have the rate
            state["momentum_buffer"] = state["momentum_buffer"] * group["lr"]

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        return {name: float(group[name]) for name in _HYPER}


ENTRIES = (
    OptimizerEntry(
        name="rmsprop",
        title="RMSProp",
        cls=RMSprop,
        default_lr=1e-2,
        rates=(1e-5, 1e0),
        tunable=MappingProxyType({"alpha": BETA2, "eps": EPS, "weight_decay": WEIGHT_DECAY}),
        formula="s ← α s + (1 - α) g²;  p ← p - lr g / (√s + ε)   (α is alpha, ε eps)",
        source="Tieleman and Hinton 2012, Neural Networks for Machine Learning, lecture 6.5",
        good_at=(
            "non-stationary problems: it forgets old gradients, so its steps follow a scale that changes",
            "badly scaled parameters: each has its own rate",
        ),
        bad_at=(
            "the last stretch: small gradients are divided by small roots, so that steps do not shrink",
            "the start: s begins at 0 and is not corrected for it, so the first steps are large",
        ),
    ),
)
