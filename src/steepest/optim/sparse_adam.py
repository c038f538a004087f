"""SparseAdam: Adam for gradients that have some rows alone."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import cached_property, reduce
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steepest.backends.cpu_rows import find_rows, rows_step
from steepest.backends.cpu_storage import Layout
from steepest.backends.reference import sqrt
from steepest.backends.threads import run_together
from steepest.errors import InputError
from steepest.optim.averages import bias_correction
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.rule import OptimizerEntry, Rule
from steepest.optim.sharded import is_sharded
from steepest.optim.storage import Storage

__all__ = ["ENTRIES", "SparseAdam"]

_PIECE = 1 << 13  # elements that a thread takes at a time
_WORTH_A_THREAD = 1 << 16


def coefficients(
    step: float, lr: float, beta1: float, beta2: float, eps: float, maximize: float
) -> tuple[float, ...]:
    # lr sqrt(1 - beta2^t) / (1 - beta1^t)
    rate = lr * bias_correction(beta2, step) ** 0.5 / bias_correction(beta1, step)
    return rate, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, 1.0 - 2.0 * maximize


def update(
    p: Any, g: Any, m: Any, v: Any, rate: Any, beta1: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any, direction: Any
) -> Any:  # fmt: skip
    # m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;  p <- p - rate m / (sqrt(v) + eps)
    g = direction * g
    m = beta1 * m + rest1 * g
    v = beta2 * v + rest2 * g * g
    return p - rate * m / (sqrt(v) + eps), m, v


_RULE = Rule(update, coefficients, ("exp_avg", "exp_avg_sq"), ("lr", "beta1", "beta2", "eps", "maximize"))


class SparseAdam(FusedStep, torch.optim.SparseAdam):
    """SparseAdam: Adam's step for the rows that a sparse gradient has, and no others; drop-in for torch's.

    In those rows ``m = beta1 m + (1 - beta1) g``; ``v = beta2 v + (1 - beta2) g**2``;
    ``p = p - lr sqrt(1 - beta2**t) / (1 - beta1**t) m / (sqrt(v) + eps)`` in step t of the parameter, whichever rows
    the steps before had. A row that comes several times in a gradient is one, with the sum.

    Args:
        params: dense, real parameters, or groups of them.
        lr: above 0.
        betas: the memories of the two averages, from 0 to below 1.
        eps: above 0; added to the root.
        maximize: go up the gradient.
        skip_nonfinite, in_backward: as every optimizer's.
        state_dtype: ``torch.float32`` keeps the averages of half-precision parameters in float32; others are refused.
        rounding: of half-precision parameters, as every optimizer's.

    Raises:
        ValueError: an argument outside its range, a sparse or complex parameter (torch's checks).
        InputError: a dense gradient, a parameter in parts (DTensor), a ``state_dtype`` or ``rounding`` that it has not.
        IndexError: a gradient's index that its parameter has not.

    Numerics: entries of one row are added up in float64 where the parameter lies contiguous in the CPU's memory, and in
    float32 or wider elsewhere; torch adds them up in the gradient's type. Steps are computed in float32 or wider and
    rounded once. A gradient without entries counts as a step and moves nothing.

    Source: Kingma and Ba 2015, Adam: A Method for Stochastic Optimization, algorithm 1 in the order of section 2's end,
    on some rows, as torch has it.

    >>> import torch
    >>> table = torch.nn.Embedding(4, 1, sparse=True)
    >>> _ = torch.nn.init.ones_(table.weight)
    >>> table(torch.tensor([1, 3, 3])).sum().backward()
    >>> SparseAdam(table.parameters(), lr=0.25).step(); [round(x, 6) for x in table.weight.flatten().tolist()]
    [1.0, 0.75, 1.0, 0.75]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
        **switches: Unpack[OptimizerSwitches],
    ) -> None:
        super().__init__(params, lr, betas, eps, maximize)
        self._set_switches(switches)

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        return _RULE

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        given = {**group, **dict(zip(("beta1", "beta2"), group["betas"], strict=True))}
        return {name: float(given[name]) for name in _RULE.hyperparameters}

    @staticmethod
    def torch_has(group: dict[str, Any]) -> bool:
        return False  # its step is this one, parameter by parameter

    @cached_property
    def _marks(self) -> dict[Tensor, NDArray[np.int32]]:
        """For every row of a parameter -1, but while its entries are looked for."""
        return {}

    def _step(self) -> None:
        for group in self.param_groups:
            self._check(group)
        super()._step()

    def _check(self, group: dict[str, Any]) -> None:
        for parameter in group["params"]:
            shape, gradient = tuple(parameter.shape), parameter.grad
            if is_sharded(parameter):
                raise InputError(
                    f"SparseAdam is for whole parameters; one of shape {shape} lies in parts (DTensor), where no "
                    "gradient is sparse. Take Adam."
                )
            if gradient is not None and not gradient.is_sparse:
                raise InputError(
                    "SparseAdam is for sparse gradients, as nn.Embedding(sparse=True) has; that of a parameter of "
                    f"shape {shape} is dense. Take Adam for it."
                )

    def _is_ready(self, group: dict[str, Any]) -> bool:
        return True

    @torch.no_grad()
    def _step_group(self, group: dict[str, Any]) -> None:
        self._check(group)
        storage = self._storage(group)
        numbers = list(self.hyperparameters_of(group).values())
        streams = {} if storage.is_plain else self._streams()
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            state = self.state[parameter]
            state["step"] = state.get("step", 0) + 1  # a plain number, as torch's
            for name in _RULE.slots:
                if name not in state:
                    state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            storage.keep(_RULE, state, parameter)
            if gradient._values().numel() == 0:
                continue
            kept = [state[name] for name in storage.entries(_RULE, parameter)]
            layout = _layout(storage, parameter, gradient, kept)
            if layout is not None:
                self._step_rows(
                    layout, float(state["step"]), numbers, parameter, kept, streams.get(parameter, 0)
                )
            elif storage.is_plain:
                _reference_step(float(state["step"]), numbers, parameter, kept)
            else:
                raise InputError(
                    "SparseAdam: state_dtype and rounding are for contiguous parameters in the CPU's memory, with "
                    f"gradients of their type; one of shape {tuple(parameter.shape)} is not."
                )

    def _step_rows(
        self, layout: Layout, step: float, numbers: Sequence[float], parameter: Tensor, kept: Sequence[Tensor],
        stream: int,
    ) -> None:  # fmt: skip
        """The step through the kernels."""
        assert parameter.grad is not None
        depth, shape = parameter.grad.sparse_dim(), tuple(parameter.shape)
        num_rows, length = math.prod(shape[:depth]), math.prod(shape[depth:])
        values = parameter.grad._values().contiguous()
        rows = _rows(parameter.grad._indices(), shape[:depth])
        count = len(rows)
        marks = self._marks.get(parameter)
        if marks is None or len(marks) != num_rows:
            marks = self._marks[parameter] = np.full(num_rows, -1, dtype=np.int32)
        first, last, following = np.empty((3, count), dtype=np.int64)
        places = (
            rows.data_ptr(),
            num_rows,
            marks.ctypes.data,
            first.ctypes.data,
            last.ctypes.data,
            following.ctypes.data,
        )
        found = find_rows()(count, *places)
        if found < 0:
            index = parameter.grad._indices()[:, -1 - found].tolist()
            raise IndexError(f"SparseAdam: a gradient's index is {index}, of a parameter of shape {shape}.")
        table = np.zeros(layout.width, dtype=np.int64)
        table[1 : 1 + layout.num_tensors] = [t.data_ptr() for t in (parameter, values, *kept)]
        if layout.is_random:
            table[-2] = stream
        given, counter = (ctypes.c_double * len(numbers))(*numbers), ctypes.c_int64(0)
        at_once = max(1, _PIECE // length)
        told = (
            step, found, first.ctypes.data, following.ctypes.data, rows.data_ptr(), length, table.ctypes.data,
            ctypes.addressof(given), at_once, ctypes.addressof(counter),
        )  # fmt: skip
        num_threads = min(torch.get_num_threads(), 1 + count * length // _WORTH_A_THREAD)
        run_together(rows_step(_RULE, layout), told, num_threads)
        torch.autograd.graph.increment_version([parameter])


def _layout(storage: Storage, parameter: Tensor, gradient: Tensor, kept: Sequence[Tensor]) -> Layout | None:
    """How the tensors lie in memory, or None if no kernel steps such."""
    values = gradient._values()
    if parameter.device.type != "cpu" or values.device.type != "cpu" or values.dtype != parameter.dtype:
        return None
    if values.is_neg() or gradient.shape != parameter.shape or gradient.sparse_dim() == 0:
        return None
    # A row of the table has the gradient's values where others have a gradient of the parameter's shape.
    return storage.layout(_RULE, [parameter, parameter, *kept], [parameter.shape] * len(_RULE.slots))


def _rows(indices: Tensor, shape: Sequence[int]) -> Tensor:
    """The number of each entry's row, counted over all of the sparse dimensions; -1 where there is none."""
    rows = indices[0].to(torch.int64)
    if len(shape) == 1:
        return rows.contiguous()
    wrong = torch.zeros_like(rows, dtype=torch.bool)
    rows = torch.zeros_like(rows)
    for place, size in zip(indices, shape, strict=True):
        wrong |= (place < 0) | (place >= size)
        rows = rows * size + place
    return rows.masked_fill_(wrong, -1)


def _reference_step(step: float, numbers: Sequence[float], parameter: Tensor, kept: Sequence[Tensor]) -> None:
    """The step in torch operations."""
    assert parameter.grad is not None
    given = parameter.grad
    compute = reduce(torch.promote_types, (t.dtype for t in (parameter, *kept)), torch.float32)
    gradient = torch.sparse_coo_tensor(
        given._indices(), given._values().to(compute), given.shape, check_invariants=True
    ).coalesce()
    rows = tuple(gradient.indices())
    tensors = [parameter, *kept]
    p, *slots = (t[rows].to(compute) for t in tensors)
    new = _RULE.update(p, gradient.values(), *slots, *_RULE.coefficients(step, *numbers))
    for tensor, value in zip(tensors, new, strict=True):
        tensor[rows] = value.to(tensor.dtype)


# No entries: the gradients of a comparison are dense.
ENTRIES: tuple[OptimizerEntry, ...] = ()
