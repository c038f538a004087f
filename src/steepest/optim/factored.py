"""Steps by rules that keep averages over a matrix's rows and columns: through their kernels, or in torch operations."""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.backends import cpu_factored
from steepest.backends.cpu_factored import OF_PIECE, Phase, PieceWords
from steepest.backends.cpu_storage import Layout
from steepest.backends.threads import run_together
from steepest.errors import InputError
from steepest.optim.fused import FusedStep
from steepest.optim.rule import FactoredRule
from steepest.optim.sharded import is_sharded, own_part, own_parts, part_of_whole, whole
from steepest.optim.storage import Storage
from steepest.optim.table import GroupTable, Part, StepTable

__all__ = ["FactoredStep"]

_LARGE = 1 << 18  # elements: what is larger is cut, into pieces of about half of that
_PIECE = 1 << 17


class FactoredStep(FusedStep):
    """Mixed into an optimizer whose groups follow a :class:`~steepest.optim.rule.FactoredRule`."""

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Any:
        """The :class:`~steepest.optim.rule.FactoredRule` that a parameter group follows."""
        raise NotImplementedError

    @staticmethod
    def torch_has(group: dict[str, Any]) -> bool:
        return False  # nothing is left to torch: a tensor that no kernel steps is stepped by the same formula

    def _torch_step(self) -> None:
        raise InputError(f"{type(self).__name__} is for dense, real parameters and gradients.")

    @torch.no_grad()
    def _step_anew(self, group: dict[str, Any]) -> GroupTable | None:
        given = [parameter for parameter in group["params"] if parameter.grad is not None]
        if len(set(given)) < len(given):
            for parameter in given:  # one step after the other, as torch does
                self._step_anew({**group, "params": [parameter]})
            return None
        rule, storage = self.rule_of(group), self._storage(group)
        hyper = self.hyperparameters_of(group)
        streams = {} if storage.is_plain else self._streams()
        together: defaultdict[tuple[float, Layout, FactoredRule], list[int]] = defaultdict(list)
        rows = []
        for i, parameter in enumerate(given):
            own_rule: Any = rule.for_dimensions(parameter.dim())
            self._make_state(own_rule, storage, parameter)
            step, _ = self._advance(parameter, own_rule, storage, hyper)
            state = self.state[parameter]
            entries = storage.entries(own_rule, parameter)
            tensors = [parameter, parameter.grad, *(state[name] for name in entries)]
            rows.append(tensors)
            shapes = _shapes(own_rule, parameter)
            layout = storage.layout(own_rule, tensors, shapes) if parameter.device.type == "cpu" else None
            if layout is not None:
                together[step, layout, own_rule].append(i)
            elif storage.is_plain:
                if is_sharded(parameter):  # what is wrong with its parts is said there
                    own_parts(type(self).__name__, parameter, parameter.grad, [])
                _reference_step(own_rule, step, list(hyper.values()), tensors)
            else:
                name = type(self).__name__
                raise InputError(
                    f"{name}: state_dtype and rounding are for whole, contiguous parameters and gradients in "
                    f"the CPU's memory; one of shape {tuple(parameter.shape)} is not."
                )
        parts = []
        for (step, layout, own_rule), owners in together.items():
            stepped = [given[i] for i in owners]
            table = FactoredTable(
                own_rule, layout, [rows[i] for i in owners], [streams.get(p, 0) for p in stepped]
            )
            table.step(step, list(hyper.values()))
            torch.autograd.graph.increment_version(stepped)
            parts.append(Part(table, owners, storage.entries(own_rule, stepped[0])))
        if (
            given
            and sum(len(part.owners) for part in parts) == len(given)
            and all(GroupTable.can_keep(rule, self.state[p], counts_steps=True) for p in given)
        ):
            return GroupTable(rule, storage, given, parts, self.state, counts_steps=True)
        return None

    def _make_state(self, rule: FactoredRule, storage: Storage, parameter: Tensor) -> None:
        state = self.state[parameter]
        for name, shape in zip(rule.slots, _shapes(rule, parameter), strict=True):
            if state.get(name) is None:
                state[name] = torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)


def _shapes(rule: FactoredRule, parameter: Tensor) -> list[tuple[int, ...]]:
    """Those of a parameter's averages."""
    shape = tuple(parameter.shape)
    if len(rule.slots) == 1:
        return [shape]
    return [(*shape[:-1], 1), (*shape[:-2], 1, shape[-1])]


def _reference_step(rule: FactoredRule, step: float, numbers: Sequence[float], tensors: list[Tensor]) -> None:
    """The step in torch operations."""
    parameter, slots = tensors[0], tensors[2:]
    if parameter.numel() == 0:
        return
    # In float32 at least, as the kernels do, and in the widest type the state has.
    compute = reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)
    smallest, largest = torch.finfo(parameter.dtype).eps, torch.finfo(compute).max
    c = rule.coefficients(step, smallest, largest, *numbers)

    def of(function: Any) -> list[float]:
        return [c[place] for place in rule.places(function)]

    p, g = (whole(t).to(compute) for t in tensors[:2])
    squares = g * g
    means = [squares] if len(slots) == 1 else [squares.mean(side, keepdim=True) for side in (-1, -2)]
    kept = []
    for slot, mean in zip(slots, means, strict=True):
        slot.copy_(rule.average(slot.to(compute), mean, *of(rule.average)))
        kept.append(slot.to(compute))
    b = rule.of_column(kept[-1], *of(rule.of_column))
    a = 1.0 if len(slots) == 1 else rule.of_row(kept[0], kept[0].mean(-2, keepdim=True), *of(rule.of_row))
    scale = rule.scale(a, b, *of(rule.scale))
    length = rule.length(_rms(p), _rms(scale * g), *of(rule.length))
    own_part(parameter).copy_(part_of_whole(rule.update(p, g, scale, length, *of(rule.update)), parameter))


def _rms(x: Tensor) -> Tensor:
    return (x * x).mean().sqrt()  # torch's mean is pairwise, its norm is not


class FactoredTable(StepTable):
    """Tensors that lie alike and take the same step by a factored rule; as :class:`StepTable`.

    The small ones come first, each stepped by one thread; the others are cut into pieces.
    """

    def __init__(
        self, rule: FactoredRule, layout: Layout, rows: Sequence[Sequence[Tensor]], streams: Sequence[int]
    ) -> None:
        self.num_hyper = len(rule.hyperparameters)
        self.kernel = cpu_factored.factored_step(rule, layout)
        sizes = np.array([tensors[0].numel() for tensors in rows], dtype=np.int64)
        self._owner = np.argsort(sizes > _LARGE, kind="stable")
        num_small = int((sizes <= _LARGE).sum())
        self._offset = np.zeros(len(rows), dtype=np.int64)
        self._table = np.zeros((len(rows), layout.width + cpu_factored.extra_words), dtype=np.int64)
        self._table[:, 0] = sizes[self._owner]
        for row, owner in zip(self._table, self._owner, strict=True):
            row[1 : 1 + layout.num_tensors] = [t.data_ptr() for t in rows[owner]]
            row[layout.width :] = _matrices(tuple(rows[owner][0].shape), len(layout.slots) > 1)
            if layout.is_random:
                row[layout.width - 2] = streams[owner]
        self._places = self._owner
        self._num_threads = 0
        self._parts = np.empty((0, 2), dtype=np.int64)
        self._whole = self._table[:num_small]
        cut_up = _pieces if len(layout.slots) > 1 else _parts
        cut = [cut_up(k, *map(int, self._table[k, layout.width :])) for k in range(num_small, len(rows))]
        self._cut = _CutTensors(rule, layout, self._table, cut) if cut else None

    def num_parts(self, num_threads: int) -> int:
        number = super().num_parts(num_threads)
        return number if self._cut is None else max(2, number)

    def step(self, step: float, numbers: Sequence[float]) -> list[float]:
        if len(self._whole):
            super().step(step, numbers)
        if self._cut is not None:
            self._cut.step(step, numbers)
        return []


class _CutTensors:
    """Tensors so large that threads share each of them.

    Args:
        rule, layout, table: as :class:`FactoredTable` has them.
        cut: each tensor's pieces.
    """

    def __init__(
        self, rule: FactoredRule, layout: Layout, table: Any, cut: Sequence[Sequence[PieceWords]]
    ) -> None:
        self._kernel = cpu_factored.pieces_kernel(rule, layout)
        self._settle = cpu_factored.settle_kernel(rule, layout)
        self._table = table
        pieces = [piece for of_tensor in cut for piece in of_tensor]
        self._pieces = np.array(pieces, dtype=np.int64)
        ends = np.cumsum([len(of_tensor) for of_tensor in cut])
        self._tensors = np.stack([ends - list(map(len, cut)), list(map(len, cut))], axis=1).astype(np.int64)
        # Parts of a matrix are neighbours; what they share is as long as the side that is whole.
        shared = self._pieces[:, -1].copy()
        starts = np.concatenate([[0], np.cumsum(shared)])[:-1]
        self._shared = np.empty(int(shared.sum()))
        self._pieces[:, -1] = np.where(shared > 0, self._shared.ctypes.data + 8 * starts, 0)
        matrices: dict[tuple[int, int], list[int]] = {}
        for k, piece in enumerate(pieces):
            if piece.shared > 0:
                matrices.setdefault((piece.tensor, piece.first_matrix), []).append(k)
        runs = [(own[0], len(own)) for own in matrices.values()]
        self._matrices = np.array(runs, dtype=np.int64).reshape(-1, 2)
        self._numbers = np.zeros((len(pieces), OF_PIECE))

    def step(self, step: float, numbers: Sequence[float]) -> None:
        """One step, on as many threads as torch has."""
        given = (ctypes.c_double * len(numbers))(*numbers)
        hyper, table = ctypes.addressof(given), self._table.ctypes.data
        pieces, own, count = self._pieces.ctypes.data, self._numbers.ctypes.data, len(self._pieces)

        def together(phase: Phase) -> None:
            counter = ctypes.c_int64(0)
            told = (step, phase, count, pieces, table, hyper, own, ctypes.addressof(counter))
            run_together(self._kernel, told, min(torch.get_num_threads(), count))

        def settle(runs: Any, is_length: int) -> None:
            told = (step, is_length, len(runs), runs.ctypes.data, pieces, table, hyper, own)
            run_together(self._settle, told, 1)

        together(Phase.MEASURE)
        if len(self._matrices):
            settle(self._matrices, 0)
            together(Phase.SCALE)
        settle(self._tensors, 1)
        together(Phase.MOVE)


def _matrices(shape: tuple[int, ...], is_factored: bool) -> tuple[int, int, int]:
    """How many matrices a tensor is, of how many rows and columns."""
    if not is_factored:
        return 1, 1, int(np.prod(shape, dtype=np.int64))
    return int(np.prod(shape[:-2], dtype=np.int64)), shape[-2], shape[-1]


def _parts(tensor: int, matrices: int, rows: int, count: int) -> list[PieceWords]:
    """A large vector, cut."""
    return [PieceWords(tensor, 0, 1, 0, 1, k, min(_PIECE, count - k), 0) for k in range(0, count, _PIECE)]


def _pieces(tensor: int, matrices: int, rows: int, columns: int) -> list[PieceWords]:
    """A large tensor of matrices, cut; ``shared`` says how many numbers a piece has a share in."""
    size = rows * columns
    if size <= _LARGE:
        step = max(1, _PIECE // size)
        return [
            PieceWords(tensor, first, min(step, matrices - first), 0, rows, 0, columns, 0)
            for first in range(0, matrices, step)
        ]
    along, across = max(rows, columns), min(rows, columns)
    step = max(1, _PIECE // across)
    ends = [(first, min(step, along - first)) for first in range(0, along, step)]
    if rows >= columns:
        return [
            PieceWords(tensor, k, 1, first, n, 0, columns, columns)
            for k in range(matrices)
            for first, n in ends
        ]
    return [PieceWords(tensor, k, 1, 0, rows, first, n, rows) for k in range(matrices) for first, n in ends]
