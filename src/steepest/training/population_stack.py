"""Many modules of one kind as one: their weights stacked, a batch through all of them at once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from steepest.training.population_losses import LossGroup

__all__ = ["Batch", "ModuleStack", "Unstackable"]


class Unstackable(Exception):
    """Modules, losses or rules cannot be trained for many runs at once; says why, a clause."""


class Batch:
    """Rows for every module of a stack: those of its seed.

    Args:
        given: each seed's inputs (tensors in any nesting) and targets.
        which: the place of each module's seed among them.
    """

    def __init__(self, given: Sequence[tuple[Any, Tensor]], which: Tensor) -> None:
        self.of_seeds, targets = zip(*given, strict=True)
        self.which = which.to(targets[0].device)
        self.num_rows = len(targets[0])
        self.axis: int | None = None if len(given) == 1 else 0
        # One for all: nothing is copied.
        self.targets = targets[0] if self.axis is None else torch.stack(targets)[self.which]

    def copied(self) -> Batch:
        """The same rows in memory of their own, to :meth:`take` others into."""
        own = copy.copy(self)
        own.of_seeds = tuple(tree_map(_cloned, inputs) for inputs in self.of_seeds)
        own.targets = self.targets.clone()
        return own

    def take(self, other: Batch) -> None:
        """Copy a batch of the same make to where this one lies."""
        pairs = zip(tree_leaves(self.of_seeds), tree_leaves(other.of_seeds), strict=True)
        for own, given in [*pairs, (self.targets, other.targets)]:
            if isinstance(own, Tensor):
                own.copy_(given)

    @property
    def inputs(self) -> Any:
        """Every module's inputs, with an axis of modules where they are not the same for all."""
        if self.axis is None:
            return self.of_seeds[0]
        return tree_map(lambda *parts: _gathered(parts, self.which), *self.of_seeds)

    def targets_of(self, members: Tensor) -> Tensor:
        """The targets of some modules, with an axis of modules where they are not the same for all."""
        targets: Tensor = self.targets
        return targets if self.axis is None else targets[members.to(targets.device)]


class ModuleStack:
    """The weights of many modules of one make, (modules, numbers), and what else they hold.

    What is trained lies in one tensor, in the order of ``module.parameters()``, so that an update rule is one pass over
    all of it. Gradients of that tensor are each module's own, because no module's output depends on another's weights.

    Args:
        modules: one for each seed.
        which: the place of each member's module among them.

    Raises:
        Unstackable: their parameters are of several types.
    """

    may_be_captured = False  # a module of the user's may do other things each time

    def __init__(self, modules: Sequence[nn.Module], which: Sequence[int]) -> None:
        self.module = modules[0]
        named = dict(self.module.named_parameters())
        self._names = [name for name, parameter in named.items() if parameter.requires_grad]
        trained = [named[name] for name in self._names]
        if len({parameter.dtype for parameter in trained}) > 1:
            raise Unstackable("its parameters are of several types")
        self._shapes = [tuple(parameter.shape) for parameter in trained]
        self.sizes = [parameter.numel() for parameter in trained]
        at = torch.tensor(which)
        flat = [
            torch.cat(
                [parameter.detach().reshape(-1) for parameter in one.parameters() if parameter.requires_grad]
            )
            for one in modules
        ]
        self.flat = torch.stack(flat)[at.to(flat[0].device)]
        self._rest = {
            name: torch.stack([_held(one)[name] for one in modules])[at.to(tensor.device)]
            for name, tensor in _held(self.module).items()
        }

    def __len__(self) -> int:
        return len(self.flat)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these modules alone."""
        at = torch.tensor(rows, dtype=torch.int64)
        self.flat = self.flat[at.to(self.flat.device)]
        self._rest = {name: held[at.to(held.device)] for name, held in self._rest.items()}

    def forward(
        self, flat: Tensor, inputs: Any, axis: int | None, members: Sequence[int] | None = None
    ) -> Tensor:
        """The outputs, (modules, rows, ...).

        Args:
            flat: the weights, (modules, numbers).
            inputs: a batch; with an axis of modules where ``axis`` is 0.
            members: the places of these modules; None: all of them.
        """
        parts = flat.split(self.sizes, dim=1)
        weights = {
            name: part.reshape(len(flat), *shape)
            for name, part, shape in zip(self._names, parts, self._shapes, strict=True)
        }
        rest = self._rest
        if members is not None:
            at = torch.tensor(members)
            rest = {name: held[at.to(held.device)] for name, held in rest.items()}
        axes = tree_map(lambda part: axis if isinstance(part, Tensor) else None, inputs)
        through = torch.vmap(partial(_call, self.module), in_dims=(0, 0, axes), randomness="error")
        outputs: Tensor = through(weights, rest, inputs)
        return outputs

    def differentiate(self, batch: Batch, losses: Sequence[LossGroup]) -> tuple[Tensor, Tensor]:
        """Each module's loss on a batch, (modules,), and its gradient, (modules, numbers)."""
        flat = self.flat.detach().requires_grad_()
        outputs = self.forward(flat, batch.inputs, batch.axis)
        values = [group(group.of(outputs), batch.targets_of(group.members), batch.axis) for group in losses]
        together = torch.cat(values)
        (gradients,) = torch.autograd.grad(together.sum(), flat)
        found = torch.empty_like(together.detach())
        found[torch.cat([group.members for group in losses])] = together.detach()
        return found, gradients

    def state(self, row: Tensor, place: int) -> dict[str, Any]:
        """A module's ``state_dict``, in the main memory, from its weights (numbers,) and its place."""
        ends = list(accumulate(self.sizes))
        values = {
            name: row[end - size : end].reshape(shape)
            for name, size, end, shape in zip(self._names, self.sizes, ends, self._shapes, strict=True)
        }
        values |= {name: held[place] for name, held in self._rest.items()}
        tensors = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        own = {id(tensor): values[name] for name, tensor in tensors.items() if name in values}
        return {
            name: own.get(id(value), value).detach().to("cpu", copy=True)
            if isinstance(value, Tensor)
            else copy.deepcopy(value)
            for name, value in self.module.state_dict(keep_vars=True).items()
        }


def _cloned(part: Any) -> Any:
    return part.clone() if isinstance(part, Tensor) else part


def _gathered(parts: Sequence[Any], which: Tensor) -> Any:
    """A module's own of each seed's, for every module; what is no tensor is the same for all."""
    return torch.stack(list(parts))[which.to(parts[0].device)] if isinstance(parts[0], Tensor) else parts[0]


def _call(module: nn.Module, weights: dict[str, Tensor], rest: dict[str, Tensor], inputs: Any) -> Tensor:
    output: Tensor = functional_call(module, {**weights, **rest}, (inputs,))
    return output


def _held(module: nn.Module) -> dict[str, Tensor]:
    """What a module holds beside the weights that are trained."""
    frozen = {name: p.detach() for name, p in module.named_parameters() if not p.requires_grad}
    return frozen | dict(module.named_buffers())
