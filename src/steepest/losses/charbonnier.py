"""Charbonnier's loss, also called pseudo-Huber."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from steepest.backends.reference import sign, sqrt, where
from steepest.losses.apply import pointwise_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches
from steepest.tuning_range import TuningRange

__all__ = ["CharbonnierLoss", "charbonnier_loss"]


_FAR = 1e17  # in units of delta: from here on an error is so far out that r is nothing beside 1

# With n and m the smaller and the larger of |e| and delta, r = n / m and h = sqrt(1 + r^2): sqrt(e^2 + delta^2) = m h,
# in which nothing overflows or cancels. Far out h is 1, and nothing is computed of the error that may be infinite.


def _parts(p: Any, y: Any, delta: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
    e = p - y
    a = where(e < 0.0, -e, e)
    is_far = a >= _FAR * delta
    held = where(is_far, delta, a)
    is_near = held < delta
    n = where(is_near, held, delta)
    r = n / where(is_near, delta, held)
    return is_far, a, held, n, where(is_near, 1.0, r), sqrt(1.0 + r * r)


def value(p: Any, y: Any, delta: Any) -> Any:
    # delta^2 (sqrt(1 + (e / delta)^2) - 1) = n |e| / (h + delta / m)
    is_far, a, held, n, delta_by_m, h = _parts(p, y, delta)
    return where(is_far, delta * a, n * (held / (h + delta_by_m)))


def gradient(p: Any, y: Any, delta: Any) -> Any:
    # e / sqrt(1 + (e / delta)^2) = sign(e) n / h
    is_far, _, _, n, _, h = _parts(p, y, delta)
    return sign(p - y) * where(is_far, n, n / h)


FORMULA = LossFormula(
    name="charbonnier",
    title="Charbonnier (pseudo-Huber) loss",
    family="pointwise",
    value=value,
    gradient=gradient,
    prediction="real",
    target="real",
    tasks=("regression",),
    formula="mean of δ² (√(1 + ((p - y) / δ)²) - 1)",
    gradient_formula="(p - y) / √(1 + ((p - y) / δ)²)",
    domain="any real prediction p and target y; δ is delta",
    source=(
        "Charbonnier et al. 1994, Two Deterministic Half-Quadratic Regularization Algorithms for Computed Imaging, "
        "ICIP; Hartley and Zisserman 2004, Multiple View Geometry, 2nd ed., A6.8"
    ),
    good_at=(
        "outliers, as Huber's loss, and smooth everywhere",
        "images: with a small δ it is an absolute error without the kink",
    ),
    bad_at=("a δ that does not suit the noise: far too large and it is MSE, far too small and it is MAE",),
    parameters={"delta": 1.0},
    valid={"delta": Interval(0.0, float("inf"))},
    tunable={"delta": TuningRange(0.1, 10.0, "log")},
    compared_by_default=False,  # Huber's loss, rounded off
)


def charbonnier_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` of Charbonnier's loss with threshold ``delta``; see :class:`CharbonnierLoss`."""
    return pointwise_loss(FORMULA, input, target, (delta,), weight=weight, reduction=reduction, **switches)


class CharbonnierLoss(LossModule, nn.Module):
    """Charbonnier's loss in its pseudo-Huber form: squared within ``delta``, absolute beyond, and smooth.

    ``delta^2 (sqrt(1 + (e / delta)^2) - 1)`` with ``e = p - y``. It is 0 for a perfect prediction and
    ``e^2 / 2`` near it, so it can stand in for Huber's loss. The other common form, ``sqrt(e^2 + eps^2)``, is
    this loss with ``delta = eps``, divided by ``eps``, plus ``eps``.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        delta: where the loss turns from squared to absolute, in the target's units, greater than 0.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input and target alike, any; the result is a scalar, or that shape for ``"none"``.

    Raises:
        InputError: the shapes differ, or ``delta`` is not positive and finite.

    Numerics: written without the difference of roots, so a small error keeps its digits, and without the square
    of a large one. An infinite error costs infinity, with a gradient of ``delta`` or ``-delta``.

    Source: Charbonnier et al. 1994; Hartley and Zisserman 2004, A6.8.

    >>> import torch
    >>> float(CharbonnierLoss(delta=3.0)(torch.tensor([4.0, 0.0]), torch.tensor([0.0, 0.0])))
    3.0
    """

    formula = FORMULA

    def __init__(self, reduction: str = "mean", delta: float = 1.0, **switches: Unpack[Switches]) -> None:
        super().__init__()
        self.reduction = reduction
        self.delta = delta
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return charbonnier_loss(input, target, self.reduction, self.delta, **self.switches)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"delta={self.delta}", super().extra_repr()]))
