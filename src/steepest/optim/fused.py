"""What all optimizers share: one step over the parameters, through the fused kernel or the reference."""

from __future__ import annotations

import ctypes
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.backends import cpu_optim
from steepest.backends.threads import thread_pool
from steepest.errors import InputError
from steepest.optim.rule import Rule

__all__ = ["FusedStep"]

_DTYPES = {torch.float32: "float32", torch.float64: "float64"}
_PIECE = 1 << 16  # elements; larger tensors are cut so that threads share the work evenly


class FusedStep:
    """Mixed into a ``torch.optim`` class: replaces its step by the rule's, keeps everything else.

    Subclasses say which rule a parameter group follows and give its hyperparameters. Whatever torch alone
    can do (sparse gradients, complex parameters, ``differentiable``, ``capturable``) is left to torch.
    """

    param_groups: list[dict[str, Any]]
    state: defaultdict[Tensor, Any]
    counts_steps = True  # torch keeps "step" in this optimizer's state

    # torch's fused kernels unscale gradients themselves, and GradScaler leaves it to them; this step does not.
    _step_supports_amp_scaling = property(lambda self: False, lambda self, wanted: None)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; as torch's.

        Torch guards its method against torch.compile, and the guard imports the compiler on first use: two
        seconds that every program with an optimizer would pay. Without a compiler there is nothing to guard.
        """
        add = torch.optim.Optimizer.add_param_group
        if "torch._dynamo" not in sys.modules:
            add = inspect.unwrap(add)
        add(self, param_group)  # type: ignore[arg-type]

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        """The rule a parameter group follows."""
        raise NotImplementedError

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        """The rule's hyperparameters, by name, read from the group."""
        raise NotImplementedError

    @staticmethod
    def torch_has(group: dict[str, Any]) -> bool:
        """Whether torch's own optimizer knows all options of the group."""
        return True

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient.

        Args:
            closure: re-evaluates the model and returns the loss, which is then returned.
        """
        if not all(map(_is_plain, self.param_groups)):
            if not all(map(self.torch_has, self.param_groups)):
                raise InputError(
                    f"{type(self).__name__}: these options are for dense, real parameters and gradients; "
                    "sparse and complex ones take torch's own options alone."
                )
            torch_step = super().step  # type: ignore[misc]
            if getattr(torch_step, "hooked", False):  # the hooks are called around this step already
                torch_step = torch_step.__wrapped__.__get__(self)
            return torch_step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        rule = self.rule_of(group)
        hyper = list(self.hyperparameters_of(group).values())
        together: defaultdict[tuple[float, torch.dtype], list[list[Tensor]]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            step = self._advance(parameter, rule)
            slots = [self.state[parameter][name] for name in rule.slots]
            tensors = [parameter, parameter.grad, *slots]
            if _fusable(tensors):
                together[step, parameter.dtype].append(tensors)
            else:
                _reference_step(rule, step, hyper, tensors)
        for (step, dtype), rows in together.items():
            _fused_step(rule, step, hyper, rows, dtype)

    def _advance(self, parameter: Tensor, rule: Rule) -> float:
        """Make the state on the first step, count the step; its number, from 1."""
        if not rule.slots and not self.counts_steps:
            return 1.0  # nothing to remember: as torch, no entry in the state
        state = self.state[parameter]
        first = any(state.get(name) is None for name in rule.slots) or (
            self.counts_steps and "step" not in state
        )
        if first:
            for name in (name for name in rule.slots if state.get(name) is None):
                state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        if not self.counts_steps:
            return 1.0 if first else 2.0  # torch keeps no count here: only the first step differs
        if "step" not in state:
            state["step"] = torch.tensor(0.0)
        state["step"] += 1
        return float(state["step"])


def _is_plain(group: dict[str, Any]) -> bool:
    if group.get("differentiable") or group.get("capturable"):
        return False
    return not any(
        parameter.is_complex() or (parameter.grad is not None and parameter.grad.is_sparse)
        for parameter in group["params"]
    )


def _fusable(tensors: list[Tensor]) -> bool:
    dtype = tensors[0].dtype
    return dtype in _DTYPES and all(
        t.dtype == dtype
        and t.device.type == "cpu"
        and t.is_contiguous()
        and type(t) in (Tensor, torch.nn.Parameter)
        for t in tensors
    )


def _reference_step(rule: Rule, step: float, hyper: list[float], tensors: list[Tensor]) -> None:
    parameter, gradient, *slots = tensors
    factors = rule.coefficients(step, *hyper)
    # The half types compute in float32, as torch's kernels do.
    compute = torch.float32 if parameter.dtype in (torch.float16, torch.bfloat16) else parameter.dtype
    new = rule.update(
        parameter.to(compute), gradient.to(compute), *(slot.to(compute) for slot in slots), *factors
    )
    for tensor, value in zip([parameter, *slots], new, strict=True):
        tensor.copy_(value)


def _fused_step(
    rule: Rule, step: float, hyper: list[float], rows: list[list[Tensor]], dtype: torch.dtype
) -> None:
    kernel = cpu_optim.optimizer_step(
        rule.update, rule.coefficients, len(rule.slots), len(hyper), _DTYPES[dtype]
    )
    table = _table(rows)
    numbers = (ctypes.c_double * max(len(hyper), 1))(*hyper)
    total = int(table[:, 0].sum())
    threads = min(torch.get_num_threads(), 1 + total // (2 * _PIECE))
    if threads == 1:
        _run(kernel, step, table, numbers)
        return
    # Pieces go to threads in runs of about equal size.
    bounds = np.searchsorted(np.cumsum(table[:, 0]), np.linspace(0, total, threads + 1)[1:-1])
    parts = np.split(table, bounds + 1)
    list(thread_pool().map(lambda part: _run(kernel, step, np.ascontiguousarray(part), numbers), parts))


def _table(rows: list[list[Tensor]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """One row a piece of a tensor: number of elements, then the addresses of parameter, gradient, slots."""
    pieces = []
    for tensors in rows:
        n = tensors[0].numel()
        size = tensors[0].element_size()
        addresses = [t.data_ptr() for t in tensors]
        for start in range(0, n, _PIECE):
            pieces.append([min(_PIECE, n - start), *(address + start * size for address in addresses)])
    return np.array(pieces, dtype=np.int64).reshape(-1, 1 + len(rows[0]))


def _run(kernel: Any, step: float, table: np.ndarray[Any, np.dtype[np.int64]], numbers: Any) -> None:
    if len(table):
        kernel(step, len(table), table.ctypes.data_as(kernel.function.argtypes[2]), numbers)
