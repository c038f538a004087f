"""AdamW: Adam with the weight decay taken out of the gradient."""

from __future__ import annotations

import torch

from steepest.optim.adam import _AdamRules
from steepest.optim.rule import OptimizerEntry

__all__ = ["ENTRIES", "AdamW"]


class AdamW(_AdamRules, torch.optim.AdamW):
    """AdamW: ``p = (1 - lr weight_decay) p - lr m^ / (sqrt(v^) + eps)``; drop-in for torch's.

    Args:
        params, lr, betas, eps, weight_decay, amsgrad: as torch's.
        maximize, foreach, capturable, differentiable, fused: as torch's; ``foreach`` and ``fused`` change
            nothing here.

    Raises:
        ValueError: an argument outside its range (torch's checks).

    Source: Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, algorithm 2.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> p.grad = torch.tensor([2.0], dtype=torch.float64)
    >>> AdamW([p], lr=0.1, eps=0.0, weight_decay=0.5).step(); round(float(p), 6)
    0.85
    """


ENTRIES = (
    OptimizerEntry(
        name="adamw",
        title="AdamW",
        cls=AdamW,
        default_lr=1e-3,
        rates=(1e-5, 1e0),
        formula="m̂, v̂ as in adam;  p ← (1 - lr λ) p - lr m̂ / (√v̂ + ε)   (λ is weight_decay)",
        source="Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, algorithm 2",
        good_at=("all that adam is good at, with a weight decay that shrinks every weight alike",),
        bad_at=("decay at small rates: its strength is lr λ, so there it does next to nothing",),
    ),
)
