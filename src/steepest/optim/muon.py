"""Muon: momentum, orthogonalised."""

from __future__ import annotations

import math
from typing import Any, Unpack

import torch
from torch import Tensor

from steepest.errors import InputError
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.rule import OptimizerEntry, Rule
from steepest.optim.sharded import own_part, part_of_whole, whole

__all__ = ["ENTRIES", "Muon"]

_DTYPES = (torch.bfloat16, torch.float32, torch.float64)


def orthogonalized(
    u: Tensor, ns_coefficients: tuple[float, float, float], ns_steps: int, eps: float, dtype: torch.dtype
) -> Tensor:
    """``U f(S) V'`` for ``u = U S V'``: about ``U V'``, by ``ns_steps`` Newton-Schulz iterations in ``dtype``.

    Each takes ``x`` to ``a x + b (x x') x + c (x x')^2 x``, on the singular values a polynomial of degree 5.
    """
    a, b, c = ns_coefficients
    tall = u.size(0) > u.size(1)
    x = u.to(dtype)
    x = x.T if tall else x  # the smaller of the two products
    x = x / x.norm().clamp(min=eps)  # the singular values then lie between 0 and 1
    for _ in range(ns_steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(FusedStep, torch.optim.Muon):
    """Muon: steps along the momentum with its singular values set to about 1; drop-in for torch's.

    ``b = momentum b + (1 - momentum) g``; ``u = (1 - momentum) g + momentum b`` with ``nesterov``, else
    ``b``; ``p = (1 - lr weight_decay) p - lr scale orthogonalized(u)``.

    Args:
        params: parameters of two dimensions; the others (biases, scales) want another optimizer.
        lr, weight_decay, momentum, nesterov, ns_coefficients, eps, ns_steps, adjust_lr_fn: as torch's;
            ``scale`` is ``sqrt(max(1, rows / columns))``, or with ``adjust_lr_fn="match_rms_adamw"``
            ``0.2 sqrt(max(rows, columns))``.
        orthogonalize_dtype: what the Newton-Schulz iterations are computed in: ``torch.bfloat16`` (as torch's),
            ``torch.float32`` or ``torch.float64``.
        skip_nonfinite: leave out a step with a NaN or infinite gradient and count it.

    Raises:
        ValueError: an argument outside its range, or a parameter that has not two dimensions (torch's checks).
        InputError: another ``orthogonalize_dtype``, or a sparse gradient.

    Numerics: bit for bit torch's, but for bfloat16 parameters without ``nesterov``, where torch's iteration
    overwrites its own momentum. A gradient of zeros moves nothing but the decay.

    Source: Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks; ``match_rms_adamw``:
    Liu et al. 2025, Muon is Scalable for LLM Training, section 2.2.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(2, 2))
    >>> p.grad = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
    >>> Muon([p], lr=1.0, orthogonalize_dtype=torch.float32).step(); bool((p.diagonal() < -0.5).all())
    True
    """

    counts_steps = False

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        raise InputError(
            "Muon: its step is of whole matrices, and it has no state_dtype or rounding; leave them out."
        )

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        orthogonalize_dtype: torch.dtype = torch.bfloat16,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        if orthogonalize_dtype not in _DTYPES:
            raise InputError(
                f"muon: orthogonalize_dtype is {orthogonalize_dtype}; choose torch.bfloat16, torch.float32 or "
                "torch.float64."
            )
        if len(ns_coefficients) != 3:
            raise InputError(f"muon: ns_coefficients are {len(ns_coefficients)} numbers; give 3.")
        if not 0 <= ns_steps < 100:
            raise InputError(f"muon: ns_steps is {ns_steps}; give a whole number from 0 to 99.")
        # torch's annotation leaves out the tensors that its checks take
        super().__init__(
            params,
            lr,  # type: ignore[arg-type]
            weight_decay,
            momentum,
            nesterov,
            ns_coefficients,
            eps,
            ns_steps,
            adjust_lr_fn,
        )
        self.defaults["orthogonalize_dtype"] = orthogonalize_dtype
        for group in self.param_groups:
            group.setdefault("orthogonalize_dtype", orthogonalize_dtype)
        self._set_switches(switches)

    @staticmethod
    def torch_has(group: dict[str, Any]) -> bool:
        return False  # its step is this one, matrix by matrix

    def _torch_step(self) -> None:
        raise InputError("Muon is for dense, real parameters and gradients.")  # torch's is no different

    @torch.no_grad()
    def _step_group(self, group: dict[str, Any]) -> None:
        lr, momentum = float(group["lr"]), group["momentum"]
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient, memory_format=torch.preserve_format)
            average = state["momentum_buffer"]
            average.lerp_(gradient, 1 - momentum)
            direction = gradient.lerp(average, momentum) if group["nesterov"] else average
            direction = orthogonalized(
                whole(direction),
                group["ns_coefficients"],
                group["ns_steps"],
                group["eps"],
                group["orthogonalize_dtype"],
            )
            own = own_part(parameter)
            own.mul_(1 - lr * group["weight_decay"])
            own.add_(
                part_of_whole(direction, parameter),
                alpha=-lr * _scale(group["adjust_lr_fn"], *parameter.shape),
            )


def _scale(adjust_lr_fn: str | None, rows: int, columns: int) -> float:
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))


# No entries: it is for matrices alone, and a model has other parameters too.
ENTRIES: tuple[OptimizerEntry, ...] = ()
