"""AdamW: Adam with the weight decay taken out of the gradient."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Unpack

import torch

from steepest.optim.adam import Convention, _AdamRules
from steepest.optim.fused import OptimizerSwitches
from steepest.optim.ranges import BETA1, BETA2, DECOUPLED_WEIGHT_DECAY, EPS
from steepest.optim.rule import OptimizerEntry

__all__ = ["ENTRIES", "AdamW"]


class AdamW(_AdamRules, torch.optim.AdamW):
    """AdamW: ``p = (1 - lr weight_decay) p - lr m^ / (sqrt(v^) + eps)``; drop-in for torch's.

    Args:
        params, lr, betas, eps, weight_decay, amsgrad: as torch's.
        maximize, foreach, capturable, differentiable, fused: as torch's; ``foreach`` and ``fused`` change
            nothing here.
        convention, eps_root, switches: as :class:`~steepest.optim.Adam`'s. Keras' own defaults are
            ``eps=1e-7, weight_decay=0.004``, optax's ``weight_decay=1e-4``.

    Raises:
        ValueError: an argument outside its range (torch's checks).
        InputError: an unknown convention, or one that does not go with the other arguments.

    Source: Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, algorithm 2; conventions:
    keras.optimizers.AdamW, optax.adamw.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([2.0], dtype=torch.float64)
    >>> AdamW([p], lr=0.1, eps=0.0, weight_decay=0.5).step(); round(float(p), 6)
    0.85
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float | torch.Tensor, float | torch.Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
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
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
        )
        self._set_options(convention=convention, eps_root=eps_root)
        self._set_switches(switches)


ENTRIES = (
    OptimizerEntry(
        name="adamw",
        title="AdamW",
        cls=AdamW,
        default_lr=1e-3,
        rates=(1e-5, 1e0),
        tunable=MappingProxyType(
            {"beta1": BETA1, "beta2": BETA2, "eps": EPS, "weight_decay": DECOUPLED_WEIGHT_DECAY}
        ),
        formula="m̂, v̂ as in adam;  p ← (1 - lr λ) p - lr m̂ / (√v̂ + ε)   (λ is weight_decay)",
        source="Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, algorithm 2",
        good_at=("all that adam is good at, with a weight decay that shrinks every weight alike",),
        bad_at=("decay at small rates: its strength is lr λ, so there it does next to nothing",),
    ),
)
