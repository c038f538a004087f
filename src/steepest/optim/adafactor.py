"""Adafactor."""

from __future__ import annotations

from math import expm1, log
from typing import Any, Unpack

import torch

from steepest.backends.reference import sqrt, where
from steepest.optim.factored import FactoredStep
from steepest.optim.fused import OptimizerSwitches
from steepest.optim.rule import FactoredRule, OptimizerEntry

__all__ = ["ENTRIES", "Adafactor"]


def coefficients(
    step: float, smallest: float, largest: float, lr: float, beta2_decay: float, eps1: float, eps2: float, d: float,
    weight_decay: float, maximize: float,
) -> tuple[float, ...]:  # fmt: skip
    fresh = step**beta2_decay
    if eps1 < 0.0:  # none was given
        eps1 = smallest
    highest = 1.0 / eps1 if eps1 * largest > 1.0 else largest
    rate = min(lr, 1.0 / step**0.5)
    # beta2 to the last digit, also where it is nearly 0
    old = -expm1(beta2_decay * log(step))
    return old, fresh, eps1, highest, eps2, d, (1.0 - 2.0 * maximize) * rate, 1.0 - lr * weight_decay


def average(v: Any, square: Any, old: Any, fresh: Any) -> Any:
    # v <- beta2 v + (1 - beta2) mean(g^2)
    return old * v + fresh * square


# u = g / max(sqrt(row column / max(mean(row), eps1)), eps1): the root taken of each factor, and no product of the two
# averages, which leaves the half types' range


def of_row(row: Any, mean: Any, eps1: Any) -> Any:
    mean = where(mean < eps1, eps1, mean)
    return sqrt(where(mean == 0.0, 1.0, mean) / row)  # where all are 0, an element has the highest scale


def of_column(column: Any) -> Any:
    return 1.0 / sqrt(column)


def scale(a: Any, b: Any, highest: Any) -> Any:
    product = a * b
    return where(product > highest, highest, product)


def length(of_parameter: Any, of_update: Any, eps2: Any, d: Any, rate: Any) -> Any:
    # rho max(eps2, RMS(p)) / max(1, RMS(u) / d)
    clipped = of_update / d
    return rate * where(of_parameter > eps2, of_parameter, eps2) / where(clipped > 1.0, clipped, 1.0)


def update(p: Any, g: Any, scale: Any, length: Any, keep: Any) -> Any:
    return keep * p - length * (scale * g)


_RULE = FactoredRule(
    coefficients,
    ("old", "fresh", "eps1", "highest", "eps2", "d", "rate", "keep"),
    average,
    of_row,
    of_column,
    scale,
    length,
    update,
    hyperparameters=("lr", "beta2_decay", "eps1", "eps2", "d", "weight_decay", "maximize"),
    slots=("row_var", "col_var"),
    vector_slots=("variance",),
)


class Adafactor(FactoredStep, torch.optim.Adafactor):
    """Adafactor: the gradient over averages of rows and columns, steps relative to the parameter; drop-in for torch's.

    For matrices ``R = beta2 R + (1 - beta2) mean(g**2 over a row)``, ``C`` alike over a column, and
    ``V = R C / max(mean(R), eps1)``; for tensors of fewer dimensions ``V = beta2 V + (1 - beta2) g**2``.
    ``u = g / max(sqrt(V), eps1)``; ``p = (1 - lr weight_decay) p - rho max(eps2, RMS(p)) u / max(1, RMS(u) / d)``,
    with ``beta2 = 1 - t**beta2_decay`` and ``rho = min(lr, 1 / sqrt(t))`` in step t, RMS the root of the mean square
    over the whole tensor, that of ``p`` from before the step. A tensor of more dimensions is matrices in its last two.

    Args:
        params: parameters, or groups of them.
        lr: at least 0: the largest ``rho``, that is the length of a step relative to the parameter's, and the rate of
            the weight decay. The paper has no other than 0.01.
        beta2_decay: at most 0; how fast the memory of the averages grows.
        eps: ``eps1`` and ``eps2``, at least 0. ``eps1`` None is the distance from 1 to the next number of the
            parameter's type. Below ``eps1`` a gradient counts as ``eps1``; below ``eps2`` a parameter's length as that.
        d: at least 1; a scaled gradient of larger root mean square is scaled down to it.
        weight_decay: at least 0; shrinks the parameter itself.
        foreach, maximize: as torch's; ``foreach`` changes nothing here.
        skip_nonfinite, in_backward: as every optimizer's.
        state_dtype: ``torch.float32`` keeps the averages of half-precision parameters in float32. They are few, so it
            costs next to nothing; others are refused.
        rounding: of half-precision parameters, as every optimizer's.

    Raises:
        ValueError: an argument outside its range (torch's checks).
        InputError: a sparse gradient, a complex parameter, a ``state_dtype`` or ``rounding`` that it has not.

    Numerics: means and lengths are added up in float64, steps computed in float32 or wider and rounded once. A gradient
    of 0 moves nothing but the decay, whatever ``eps``. ``eps1`` is each parameter's own where none is given, torch's is
    that of the group's first. An empty parameter is left alone, where torch divides by 0. A step makes nothing of the
    parameter's size on a CPU, unless the tensors lie in other than their dimensions' order.

    Source: Shazeer and Stern 2018, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, algorithms 4 to 6,
    with torch's use of ``lr`` and ``eps1``.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.full((2, 2), 2.0, dtype=torch.float64))
    >>> p.grad = torch.tensor([[1.0, -3.0], [10.0, -30.0]], dtype=torch.float64)
    >>> Adafactor([p], lr=0.01).step(); [[round(x, 6) for x in row] for row in p.tolist()]
    [[1.98, 2.02], [1.98, 2.02]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        super().__init__(params, lr, beta2_decay, eps, d, weight_decay, foreach=foreach, maximize=maximize)
        self._set_switches(switches)

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Any:
        return _RULE

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        eps1, eps2 = group["eps"]
        given = {**group, "eps1": -1.0 if eps1 is None else eps1, "eps2": eps2}
        return {name: float(given[name]) for name in _RULE.hyperparameters}


# No entries: the engine that comparisons run in knows rules of elements and of layers.
ENTRIES: tuple[OptimizerEntry, ...] = ()
