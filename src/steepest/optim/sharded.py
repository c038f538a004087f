"""Parameters that lie in parts on several machines: torch's DTensors, as FSDP2 and tensor parallelism make them.

An elementwise rule steps each part where it lies. A layer-wise one needs norms of whole tensors, which are added up
over the parts; whoever needs a whole matrix has it gathered.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from steepest.errors import InputError

__all__ = ["all_finite", "is_sharded", "over_all_parts", "own_part", "own_parts", "part_of_whole", "whole"]

_PLAIN = (Tensor, torch.nn.Parameter)


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor is a DTensor, of which this process holds its own part alone (or a copy)."""
    if type(tensor) in _PLAIN:
        return False
    module = sys.modules.get("torch.distributed.tensor")  # where nobody imported it, there is none
    return module is not None and isinstance(tensor, module.DTensor)


def own_part(tensor: Tensor) -> Tensor:
    """This process's part, in the memory it lies in; a plain tensor is all its own."""
    if not is_sharded(tensor):
        return tensor
    part: Any = tensor.to_local()  # type: ignore[attr-defined]
    return part.wait() if hasattr(part, "wait") else part  # type: ignore[no-any-return]


def own_parts(name: str, parameter: Any, gradient: Any, state: Sequence[Tensor]) -> list[Tensor]:
    """This process's parts of a parameter, its gradient and its state, which belong together element by element.

    Raises:
        InputError: the parameter is a DTensor and its gradient or state is not, or the parameter is a sum that has not
            been added up.
    """
    if not is_sharded(gradient):
        raise InputError(
            f"{name}: a parameter of shape {tuple(parameter.shape)} is a DTensor and its gradient is not; "
            "the gradient must be one too, as a backward pass makes it."
        )
    if not all(map(is_sharded, state)):
        raise InputError(
            f"{name}: a parameter of shape {tuple(parameter.shape)} is a DTensor and its state is not; load it with "
            "set_optimizer_state_dict of torch.distributed.checkpoint.state_dict."
        )
    if any(placement.is_partial() for placement in parameter.placements):
        raise InputError(
            f"{name}: a parameter of shape {tuple(parameter.shape)} has placements {parameter.placements}; "
            "a sum over processes is no parameter, redistribute it first."
        )
    if gradient.placements != parameter.placements:
        gradient = gradient.redistribute(parameter.device_mesh, parameter.placements)
    return [own_part(tensor) for tensor in (parameter, gradient, *state)]


def over_all_parts(sums: Tensor, like: Any) -> Tensor:
    """Sums over this process's part of ``like``, added up over all its parts."""
    from torch.distributed.tensor import DTensor, Partial, Replicate

    placements = [Replicate() if placement.is_replicate() else Partial() for placement in like.placements]
    return DTensor.from_local(sums, like.device_mesh, placements, run_check=False).full_tensor()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered if it lies in parts."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def part_of_whole(tensor: Tensor, like: Any) -> Tensor:
    """Of a tensor that every process has, the part that lies where ``like``'s own does."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    mesh = like.device_mesh
    everywhere = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return own_part(everywhere.redistribute(mesh, like.placements))  # no communication


@torch.no_grad()
def all_finite(gradients: Iterable[Tensor]) -> bool:
    """Whether all numbers are finite: the smallest and the largest say it, without a copy of the others.

    All processes that share a gradient's device mesh come to one answer.
    """
    ends: defaultdict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    meshes: dict[Any, torch.device] = {}
    for gradient in gradients:
        if is_sharded(gradient):
            meshes.setdefault(gradient.device_mesh, gradient.device)  # type: ignore[attr-defined]
        part = own_part(gradient)
        values = part.coalesce().values() if part.is_sparse else part
        values = torch.view_as_real(values) if values.is_complex() else values
        if values.numel():
            ends[values.device, values.dtype].extend(torch.aminmax(values))
    finite = all(bool(torch.stack(numbers).isfinite().all()) for numbers in ends.values())
    for mesh, device in meshes.items():
        finite = _agreed(finite, mesh, device)
    return finite


def _agreed(flag: bool, mesh: Any, device: torch.device) -> bool:
    """Whether it holds in every process of a mesh."""
    held = torch.tensor(float(flag), dtype=torch.float32, device=device)
    for group in mesh.get_all_groups():
        torch.distributed.all_reduce(held, torch.distributed.ReduceOp.MIN, group=group)
    return bool(held)
