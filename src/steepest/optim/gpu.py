"""A parameter group whose tensors lie on one GPU: where they lie, and the step's kernels.

Step counts, scalars and coefficients live on the device, so nothing is waited for and a CUDA graph may capture a step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from operator import attrgetter, is_
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steepest.backends.cpu_storage import Layout
from steepest.backends.cpu_tensors import KeptPlaces, Places, order_of
from steepest.backends.cuda_devices import runs_on
from steepest.errors import InputError
from steepest.optim.rule import Rule
from steepest.optim.storage import Storage

__all__ = ["GpuTable", "Part", "has_kernels", "on_one_gpu"]

_TENSORS = {Tensor, torch.nn.Parameter}  # subclasses may keep their numbers elsewhere
_gradient = attrgetter("grad")
_STAND_IN = 0.731071933  # for a number that lies on the device, while the others are read


def on_one_gpu(parameters: Sequence[Tensor]) -> bool:
    """Whether the Triton kernels step these parameters: plain tensors of one device, gradients like them."""
    first = next(iter(parameters), None)
    return (
        first is not None
        and runs_on(first)
        and all(
            p.device == first.device and p.grad is not None and _fits(p) and _fits(p.grad) for p in parameters
        )
        and all(
            p.grad is not None and p.grad.dtype == p.dtype and order_of(p.grad) == order_of(p)
            for p in parameters
        )
    )


def _fits(tensor: Tensor) -> bool:
    return (
        type(tensor) in _TENSORS
        and tensor.layout == torch.strided
        and order_of(tensor) is not None
        and not tensor.is_neg()
        and not tensor.is_inference()
    )


@cache
def has_kernels(rule: Rule) -> bool:
    """Whether the rule has a form in Triton: a user's may use what has none, and is stepped by tensor operations."""
    from steepest.backends import cuda_optim

    try:
        cuda_optim.kernels(rule, Layout("float32", ("float32",) * len(rule.slots)))
    except InputError:
        return False
    return True


class Part:
    """Tensors that lie alike: what the kernels are told of them.

    Args:
        rule, layout: what steps them, and how they lie.
        owners: the places of their gradients among those that are given at each step.
        rows: each one's parameter and state, in the order of a table's row.
        counters: where each one counts its steps, and its scalars.
        streams: each one's random numbers, where the layout rounds at random.
        first_step: the number of the first step, where nothing is counted.
    """

    def __init__(
        self,
        rule: Rule,
        layout: Layout,
        owners: Sequence[int],
        rows: Sequence[Sequence[Tensor]],
        counters: Sequence[Sequence[Tensor]],
        streams: Sequence[int],
        first_step: int,
    ) -> None:
        from steepest.backends import cuda_optim

        self.owners, self.first_step = np.array(owners, dtype=np.int64), first_step
        self.kernels = cuda_optim.kernels(rule, layout)
        device = rows[0][0].device
        table = np.zeros((len(rows), self.kernels.width), dtype=np.int64)
        for i, (parameter, *others) in enumerate(rows):
            addresses = [t.data_ptr() for t in others]
            table[i, : 2 + len(addresses)] = [parameter.numel(), parameter.data_ptr(), *addresses]
            if layout.is_random:
                table[i, -1] = streams[i]
        sizes, block = table[:, 0], self.kernels.block
        num_blocks = -(-sizes // block)
        begins = np.concatenate([[0], np.cumsum(num_blocks)])
        owner = np.repeat(np.arange(len(rows)), num_blocks)
        first = (np.arange(begins[-1]) - begins[owner]) * block
        self.blocks = [_sent(owner.astype(np.int32), device), _sent(first, device), _sent(begins, device)]
        self.table = _sent(table, device)
        width = max(map(len, counters))
        self.counters = _sent(
            np.array([[t.data_ptr() for t in row] or [0] * width for row in counters], dtype=np.int64), device
        )
        self.factors = torch.empty(
            (len(rows), self.kernels.num_factors + 2), dtype=torch.float64, device=device
        )
        measured = 1 if self.kernels.measure is None else max(1, int(begins[-1]))
        self.squares = torch.empty((measured, 2), dtype=torch.float64, device=device)
        self._gradients = _Told(torch.empty(len(rows), dtype=torch.int64, device=device))

    def point_at(self, gradients: NDArray[np.int64]) -> None:
        """Where the gradients of its tensors lie now."""
        self._gradients.tell(gradients)

    def tables(self, nonfinite: Tensor) -> list[Tensor]:
        """What the kernels of a step share."""
        return [self._gradients.there, self.table, self.factors, nonfinite]

    def step(self, rule: Rule, hyper: Tensor, nonfinite: Tensor, *, counts: bool) -> None:
        """One step; ``hyper`` are the hyperparameters of all of them, or a row for each."""
        from steepest.backends import cuda_optim

        cuda_optim.launch_prepare(
            self.kernels, rule, self.counters, hyper, self.first_step, nonfinite, self.factors, counts=counts
        )
        cuda_optim.launch_step(self.kernels, self.blocks, self.tables(nonfinite), self.squares)


class _Told:
    """The host's numbers in a tensor on a device, sent where they are others than before.

    A CUDA graph that captures the sending reads the host's memory whenever it is replayed. So what it reads is kept;
    each graph sends its own numbers, for another may have been replayed before it; and once there is a graph, so does
    every step outside of them.
    """

    def __init__(self, there: Tensor) -> None:
        self.there = there
        self._numbers: NDArray[Any] | None = None
        self._sent: list[Tensor] = []
        self._is_in_graphs = False

    def tell(self, numbers: NDArray[Any]) -> None:
        """Send them, in the order of the device's stream; an array that is nobody else's."""
        captured = is_capturing(self.there.device)
        self._is_in_graphs |= captured
        known = self._numbers
        if not self._is_in_graphs and known is not None and np.array_equal(numbers, known):
            return
        self._numbers = numbers
        sent = _staged(numbers, self.there.device)
        self.there.copy_(sent, non_blocking=True)
        if captured:
            self._sent.append(sent)  # the allocator keeps the others' until they have been read


def is_capturing(device: torch.device) -> bool:
    """Whether a CUDA graph captures what is launched now."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _staged(numbers: NDArray[Any], device: torch.device) -> Tensor:
    """In memory that a GPU reads by itself."""
    tensor = torch.from_numpy(numbers)
    return tensor.pin_memory() if device.type == "cuda" else tensor


def _sent(numbers: NDArray[Any], device: torch.device) -> Tensor:
    return _staged(np.ascontiguousarray(numbers), device).to(device, non_blocking=True).clone()


class GpuTable:
    """All tensors of a parameter group; made anew when one has moved.

    Args:
        optimizer: whose group it is; the state that a parameter lacks is made.
        group: the group's options.
        parameters: those with a gradient, for which :func:`on_one_gpu` holds.
        nonfinite: a mark on the device; where it is not 0, a step changes nothing.

    Raises:
        InputError: the state cannot be kept as asked.
    """

    may_be_captured = True

    def __init__(
        self, optimizer: Any, group: Mapping[str, Any], parameters: Sequence[Tensor], nonfinite: Tensor
    ) -> None:
        self.rule: Rule = optimizer.rule_of(group)
        self.storage: Storage = optimizer._storage(group)
        storage = self.storage
        self.parameters, self.nonfinite = parameters, nonfinite
        self.counts = optimizer._counts(storage)
        self._hyper = _Told(
            torch.empty(max(1, len(self.rule.hyperparameters)), dtype=torch.float64, device=nonfinite.device)
        )
        numbers, _ = _numbers_of(optimizer, group, self.rule)
        streams = optimizer._streams()
        together: defaultdict[tuple[Layout, int], list[int]] = defaultdict(list)
        rows, counters = [], []
        for i, parameter in enumerate(parameters):
            first_step = optimizer._begin(parameter, self.rule, storage, numbers, on_device=True)
            state = optimizer.state.get(parameter, {})
            rows.append([parameter, *(state[name] for name in storage.entries(self.rule, parameter))])
            counter = [state["step"]] if self.counts else []
            counters.append([*counter, *(state[name] for name in self.rule.scalars)])
            layout = storage.layout(self.rule, [parameter, parameter, *rows[-1][1:]])
            if layout is None:
                raise InputError(
                    f"{type(optimizer).__name__}: the state of a parameter of shape {tuple(parameter.shape)} does not "
                    "fit it; load a state of its shape and device."
                )
            together[layout, first_step].append(i)
        if not self.counts:
            counters = [[torch.empty(0, device="cpu"), *row] for row in counters]  # its address is never read
        self._kept = KeptPlaces(
            parameters,
            [
                (state, name)
                for parameter in parameters
                for state in [optimizer.state.get(parameter, {})]
                for name in (
                    *storage.entries(self.rule, parameter),
                    *("step",) * self.counts,
                    *self.rule.scalars,
                )
            ],
        )
        self._gradient_places = Places(parameters)
        self._states = [optimizer.state.get(p) for p in parameters]
        self._parts = [
            Part(
                self.rule, layout, owners, [rows[i] for i in owners], [counters[i] for i in owners],
                [streams.get(parameters[i], 0) for i in owners], first_step,
            )
            for (layout, first_step), owners in together.items()
        ]  # fmt: skip
        gradients = [p.grad for p in parameters if p.grad is not None]
        self._point_at(gradients, np.array([gradient.data_ptr() for gradient in gradients], dtype=np.int64))

    def _point_at(self, gradients: list[Tensor], where: NDArray[np.int64]) -> None:
        self._gradients = gradients  # until they have been used
        for part in self._parts:
            part.point_at(where[part.owners])

    def holds(self, parameters: Sequence[Tensor], state: Mapping[Tensor, Any]) -> bool:
        """Whether everything lies where it did; takes note of where the gradients lie now."""
        # First, for it asks the memory for what the rest reads too.
        if not self._kept.hold():
            return False
        gradients = [gradient for gradient in map(_gradient, parameters) if gradient is not None]
        if len(gradients) != len(parameters):
            parameters = [p for p in parameters if p.grad is not None]
        if not (
            len(parameters) == len(self.parameters)
            and all(map(is_, parameters, self.parameters))
            and all(map(is_, map(state.get, parameters), self._states))
            and set(map(type, gradients)) <= _TENSORS
            and not any(map(Tensor.is_neg, gradients))
            and not any(map(Tensor.is_inference, gradients))
        ):
            return False
        where = self._gradient_places.find(gradients)
        if where is None:
            return False
        self._point_at(gradients, where)
        return True

    def find_nonfinite(self) -> None:
        """Set the mark if a gradient holds a NaN or an infinity."""
        from steepest.backends import cuda_optim

        for part in self._parts:
            cuda_optim.find_nonfinite(part.kernels, part.blocks, part.tables(self.nonfinite))

    @torch.no_grad()
    def step(self, optimizer: Any, group: Mapping[str, Any]) -> bool:
        """One step of all parts, or False if the group follows another rule by now, or is kept in another way."""
        if optimizer.rule_of(group) != self.rule or optimizer._storage(group) != self.storage:
            return False
        numbers, on_device = _numbers_of(optimizer, group, self.rule)
        if numbers:
            self._hyper.tell(np.array(list(numbers.values())))
        if is_capturing(self.nonfinite.device) and self not in optimizer._in_graphs:
            optimizer._in_graphs.append(self)
        hyper = self._hyper.there
        for place, tensor in on_device.items():
            hyper[place].copy_(tensor)
        for part in self._parts:
            part.step(self.rule, hyper, self.nonfinite, counts=self.counts)
            part.first_step = 2 if self.rule.slots or self.rule.scalars else 1
        self._gradients = []
        torch.autograd.graph.increment_version(self.parameters)
        return True


def _numbers_of(
    optimizer: Any, group: Mapping[str, Any], rule: Rule
) -> tuple[dict[str, float], dict[int, Tensor]]:
    """A group's hyperparameters; those that are tensors of a GPU stay there, by their place."""
    lies_there = {word: value for word, value in group.items() if _is_there(value)}
    betas = group.get("betas", ())
    plain = dict(group) | dict.fromkeys(lies_there, _STAND_IN)
    for place, beta in enumerate(betas, start=1):
        if _is_there(beta):
            lies_there[f"beta{place}"] = beta
            plain["betas"] = tuple(_STAND_IN if _is_there(b) else b for b in betas)
    numbers = optimizer.hyperparameters_of(plain)
    there = {k: lies_there[word] for k, word in enumerate(rule.hyperparameters) if word in lies_there}
    return numbers, there


def _is_there(value: Any) -> bool:
    return isinstance(value, Tensor) and runs_on(value)
