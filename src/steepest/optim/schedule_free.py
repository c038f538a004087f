"""Schedule-free gradient descent and AdamW: averaging in place of a schedule of the rate.

Training and evaluation take different weights: gradients are taken at ``y``, the result is the average ``x``.
``eval()`` puts ``x`` into the parameters, ``train()`` puts ``y`` back. Nothing but these two classes knows of
the difference, so neither is in ``OPTIMIZERS``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import torch

from steepest.backends.reference import compute_dtype, sqrt
from steepest.errors import InputError
from steepest.optim.averages import bias_correction
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.ranges import check_betas, check_not_negative
from steepest.optim.rule import OptimizerEntry, Rule

__all__ = ["ENTRIES", "ScheduleFreeAdamW", "ScheduleFreeSGD"]


def averaging(
    step: float, lr: float, warmup_steps: float, r: float, weight_lr_power: float,
    weight_sum: float, lr_max: float,
) -> tuple[float, ...]:  # fmt: skip
    # The rate, and the share that z has in the average: x <- (1 - share) x + share z
    rate = lr * step / warmup_steps if step < warmup_steps else lr
    lr_max = max(lr_max, rate)
    weight = step**r * lr_max**weight_lr_power
    weight_sum = weight_sum + weight
    share = weight / weight_sum if weight_sum > 0.0 else 0.0
    return rate, share, weight_sum, lr_max


def sgd_coefficients(
    step: float, lr: float, momentum: float, weight_decay: float, warmup_steps: float, r: float,
    weight_lr_power: float, maximize: float, weight_sum: float, lr_max: float,
) -> tuple[float, ...]:  # fmt: skip
    rate, share, weight_sum, lr_max = averaging(
        step, lr, warmup_steps, r, weight_lr_power, weight_sum, lr_max
    )
    lead = rate * (1.0 - momentum * (1.0 - share))
    return weight_sum, lr_max, rate, share, lead, weight_decay, 1.0 - 2.0 * maximize


def sgd(y: Any, g: Any, z: Any, rate: Any, share: Any, lead: Any, decay: Any, direction: Any) -> Any:
    # z <- z - lr g;  x <- (1 - share) x + share z;  y <- (1 - momentum) z + momentum x, written without x
    g = direction * g + decay * y
    return y + share * (z - y) - lead * g, z - rate * g


def adamw_coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, warmup_steps: float,
    r: float, weight_lr_power: float, maximize: float, weight_sum: float, lr_max: float,
) -> tuple[float, ...]:  # fmt: skip
    rate, share, weight_sum, lr_max = averaging(
        step, lr, warmup_steps, r, weight_lr_power, weight_sum, lr_max
    )
    lead = rate * (1.0 - beta1 * (1.0 - share))
    root = 1.0 / bias_correction(beta2, step) ** 0.5
    return (
        weight_sum,
        lr_max,
        rate,
        share,
        lead,
        root,
        beta2,
        1.0 - beta2,
        eps,
        weight_decay,
        1.0 - 2.0 * maximize,
    )


def adamw(
    y: Any, g: Any, z: Any, v: Any,
    rate: Any, share: Any, lead: Any, root: Any, beta2: Any, rest2: Any, eps: Any, decay: Any, direction: Any,
) -> Any:  # fmt: skip
    # the same with u = g / (sqrt(v^) + eps) + weight_decay y in place of g
    g = direction * g
    v = beta2 * v + rest2 * g * g
    u = g / (sqrt(v) * root + eps) + decay * y
    return y + share * (z - y) - lead * u, z - rate * u, v


_SCALARS = ("weight_sum", "lr_max")
_SGD = Rule(
    sgd,
    sgd_coefficients,
    ("z",),
    ("lr", "momentum", "weight_decay", "warmup_steps", "r", "weight_lr_power", "maximize"),
    initial={"z": "parameter"},
    scalars=_SCALARS,
)
_ADAMW = Rule(
    adamw,
    adamw_coefficients,
    ("z", "exp_avg_sq"),
    ("lr", "beta1", "beta2", "eps", "weight_decay", "warmup_steps", "r", "weight_lr_power", "maximize"),
    initial={"z": "parameter"},
    scalars=_SCALARS,
    averages={"exp_avg_sq": "unsigned"},
)


class _ScheduleFree(FusedStep, torch.optim.Optimizer):
    """Switches the parameters between ``y`` and ``x``; the mode is in the groups, so in ``state_dict()``."""

    @staticmethod
    def averaged_share(group: dict[str, Any]) -> float:
        """The share of the average ``x`` in ``y``."""
        raise NotImplementedError

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average ``x`` into the parameters: for evaluating, predicting and handing on the model.

        ``y`` is kept, so that a later ``train()`` goes on as if nothing had been.
        """
        for group in self.param_groups:
            if not group["train_mode"]:
                continue
            group["train_mode"] = False
            share = self.averaged_share(group)
            for parameter in group["params"]:
                state = self.state.get(parameter, {})
                if "z" in state:
                    state["y"] = parameter.detach().clone(memory_format=torch.preserve_format)
                    exact = compute_dtype(parameter)
                    y, z = parameter.to(exact), state["z"].to(exact)
                    parameter.copy_(y + (1.0 - 1.0 / share) * (z - y))

    @torch.no_grad()
    def train(self) -> None:
        """Put ``y`` back into the parameters: for going on with training."""
        for group in self.param_groups:
            group["train_mode"] = True
            for parameter in group["params"]:
                y = self.state.get(parameter, {}).pop("y", None)
                if y is not None:
                    parameter.copy_(y)

    def _unwatched_step(self, closure: Callable[[], Any] | None = None) -> Any:
        if not all(group["train_mode"] for group in self.param_groups):
            raise InputError(
                f"{type(self).__name__}: a step in evaluation mode, where the parameters hold the average; "
                "call the optimizer's train() first."
            )
        return super()._unwatched_step(closure)


def _check_weights(optimizer: str, warmup_steps: float, r: float, weight_lr_power: float) -> None:
    check_not_negative(optimizer, warmup_steps=warmup_steps, r=r, weight_lr_power=weight_lr_power)


class ScheduleFreeSGD(_ScheduleFree):
    """Schedule-free gradient descent: steps from one sequence, gradients between it and its average.

    ``z = z - lr (g + weight_decay y)``; ``x = (1 - c) x + c z``; ``y = (1 - momentum) z + momentum x``, the
    gradient ``g`` taken at ``y``. All begin at the parameter. ``c`` is this step's weight over all steps'
    weights so far, the weight in step t being ``t**r`` times ``weight_lr_power``-th power of the largest rate.

    While training the parameters hold ``y``; call ``eval()`` before evaluating, predicting or saving the model
    (they then hold ``x``), ``train()`` before going on. It begins in training mode.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0; larger than plain descent's, and never lowered.
        momentum: the share of the average in ``y``, between 0 and 1.
        weight_decay: at least 0; added to the gradient.
        warmup_steps: over so many first steps the rate grows evenly from 0.
        r: the power of the step's number in its weight, at least 0.
        weight_lr_power: the power of the rate in a step's weight, at least 0.
        maximize: go up the gradient.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        InputError: an argument outside its range, a sparse gradient, or a step in evaluation mode.

    Source: Defazio et al. 2024, The Road Less Scheduled, eqs. 1-3.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> optimizer = ScheduleFreeSGD([p], lr=0.1, momentum=0.9)
    >>> for _ in range(2):
    ...     p.grad = torch.tensor([1.0], dtype=torch.float64)
    ...     optimizer.step()
    >>> training = round(p.item(), 6); optimizer.eval(); training, round(p.item(), 6)
    (0.845, 0.85)
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        *,
        maximize: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        check_not_negative("schedule-free SGD", lr=lr, weight_decay=weight_decay)
        _check_weights("schedule-free SGD", warmup_steps, r, weight_lr_power)
        if not 0.0 < momentum < 1.0:
            raise InputError(f"schedule-free SGD: momentum is {momentum}; give a number between 0 and 1.")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "r": r,
            "weight_lr_power": weight_lr_power,
            "maximize": maximize,
            "train_mode": True,
        }
        super().__init__(params, defaults)
        self._set_switches(switches)

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        return _SGD

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        return {name: float(group[name]) for name in _SGD.hyperparameters}

    @staticmethod
    def averaged_share(group: dict[str, Any]) -> float:
        return float(group["momentum"])


class ScheduleFreeAdamW(_ScheduleFree):
    """Schedule-free AdamW: as :class:`ScheduleFreeSGD`, each gradient over the root of its moving square.

    ``v = beta2 v + (1 - beta2) g**2``; ``z = z - lr (g / (sqrt(v^) + eps) + weight_decay y)``;
    ``x = (1 - c) x + c z``; ``y = (1 - beta1) z + beta1 x``, ``v^`` as in Adam and ``c`` as in
    :class:`ScheduleFreeSGD`.

    While training the parameters hold ``y``; call ``eval()`` before evaluating, predicting or saving the model
    (they then hold ``x``), ``train()`` before going on. It begins in training mode.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0; larger than AdamW's, and never lowered.
        betas: the share of the average in ``y``, between 0 and 1; the memory of the moving square, from 0 to
            below 1.
        eps: added to the divisor, at least 0.
        weight_decay: at least 0, as AdamW's, taken at ``y``.
        warmup_steps: over so many first steps the rate grows evenly from 0.
        r: the power of the step's number in its weight, at least 0.
        weight_lr_power: the power of the rate in a step's weight, at least 0.
        maximize: go up the gradient.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        InputError: an argument outside its range, a sparse gradient, or a step in evaluation mode.

    Source: Defazio et al. 2024, The Road Less Scheduled, algorithm 1.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> optimizer = ScheduleFreeAdamW([p], lr=0.1, eps=0.0)
    >>> for _ in range(2):
    ...     p.grad = torch.tensor([5.0], dtype=torch.float64)
    ...     optimizer.step()
    >>> training = round(p.item(), 6); optimizer.eval(); training, round(p.item(), 6)
    (0.845, 0.85)
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.0025,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        *,
        maximize: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        check_not_negative("schedule-free AdamW", lr=lr, eps=eps, weight_decay=weight_decay)
        _check_weights("schedule-free AdamW", warmup_steps, r, weight_lr_power)
        check_betas("schedule-free AdamW", betas, 2)
        if betas[0] == 0:
            raise InputError(
                "schedule-free AdamW: the first of betas is 0, so that the average is lost; give one between 0 and 1."
            )
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "r": r,
            "weight_lr_power": weight_lr_power,
            "maximize": maximize,
            "train_mode": True,
        }
        super().__init__(params, defaults)
        self._set_switches(switches)

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        return _ADAMW

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        names = dict(zip(("beta1", "beta2"), group["betas"], strict=True))
        return {name: float({**group, **names}[name]) for name in _ADAMW.hyperparameters}

    @staticmethod
    def averaged_share(group: dict[str, Any]) -> float:
        return float(group["betas"][0])


# No entries: a comparison evaluates the weights it trains, and these two keep them apart.
ENTRIES: tuple[OptimizerEntry, ...] = ()
