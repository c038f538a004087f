"""A module on several ranks: a copy on each (DDP), or a part of every parameter on each (FSDP2)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from steepest.errors import InputError, told
from steepest.training.distributed.ranks import Ranks

__all__ = ["Parallel", "ParallelModule", "in_our_words", "leaves_out", "parallelized"]

Parallel = Literal["ddp", "fsdp"]


class ParallelModule:
    """What takes batches, and when its gradients are added up.

    Attributes:
        module: call this one; its parameters are those to optimize.
    """

    def __init__(self, module: nn.Module, mesh: DeviceMesh | None = None) -> None:
        self.module, self._mesh = module, mesh

    @contextmanager
    def micro_batch(self, is_last: bool) -> Iterator[None]:
        """One micro-batch of a step: gradients go to the other ranks with the last one."""
        if isinstance(self.module, DistributedDataParallel):
            if is_last:
                yield
            else:
                with self.module.no_sync():
                    yield
            return
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(is_last)
        yield

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Without FSDP2's warning of outputs that are views: nobody here writes into one."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
            yield

    def close(self) -> None:
        """After the last step: no longer hold on to the group of processes, as DDP does in C++ and a mesh for good."""
        if isinstance(self.module, DistributedDataParallel):
            del self.module.reducer, self.module.logger
        if self._mesh is not None:
            getattr(self._mesh, "_pg_registry", {}).clear()

    def let_go(self) -> None:
        """After forward passes without a backward one: FSDP2 keeps what it has gathered for it."""
        for part in self.module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()


def leaves_out(module: nn.Module, outputs: Tensor) -> bool:
    """Whether there are parameters to be trained that a module's outputs do not hang on, by what autograd kept."""
    seen, left = set(), [outputs.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            if type(node).__name__ == "CheckpointFunctionBackward":
                return False  # what lies behind it cannot be seen, and DDP, told to look, would fail
            seen.add(node)
            left += [before for before, _ in node.next_functions]
    reached = {id(getattr(node, "variable", None)) for node in seen}
    return any(p.requires_grad and id(p) not in reached for p in module.parameters())


def in_our_words(error: InputError) -> str:
    """A failure in a step; of DDP's advice, to give it an option, none here can be followed."""
    if "Expected to have finished reduction" not in str(error):
        return str(error)
    return (
        "The module's outputs no longer hang on parameters that they hung on before, and DDP waits for their "
        "gradients; make a module that uses the same ones in each step."
    )


def parallelized(module: nn.Module, how: Parallel, ranks: Ranks, has_unused: bool = False) -> ParallelModule:
    """A module, equal on all ranks, made ready for them.

    Both average gradients over ranks. One rank has nobody to average with, so there DDP is the module itself.

    Args:
        has_unused: whether parameters are left out of the outputs, which DDP then looks for in each step.

    Raises:
        InputError: there is no such way, or torch refuses the module.
    """
    if how not in ("ddp", "fsdp"):
        raise InputError(f"parallel is {how!r}; choose ddp (a copy on each rank) or fsdp (a part on each).")
    for tensor in (*module.parameters(), *module.buffers()):
        dist.broadcast(tensor.data, 0)
    try:
        if how == "ddp":
            if ranks.world_size == 1:
                return ParallelModule(module)
            own = [ranks.device.index] if ranks.device.type == "cuda" else None
            return ParallelModule(
                DistributedDataParallel(module, device_ids=own, find_unused_parameters=has_unused)
            )
        mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
        return ParallelModule(_sharded(module, mesh), mesh)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InputError(f"torch refuses to make the module {how}: {told(error)}") from error


def _sharded(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """FSDP2: blocks are gathered one at a time, what is in none of them together."""
    for block in _blocks(module):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The outermost modules with parts of their own that stand in a list or a sequence, if they share no parameters."""
    found: list[nn.Module] = []

    def look(parent: nn.Module, inside: bool) -> None:
        for child in parent.children():
            is_list = isinstance(child, (nn.ModuleList, nn.Sequential))
            if (
                inside
                and not is_list
                and any(True for _ in child.children())
                and any(True for _ in child.parameters())
            ):
                found.append(child)
            else:
                look(child, is_list)

    look(module, isinstance(module, nn.Sequential))
    names = [id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False)]
    return found if len(names) == len(set(names)) else []  # torch shards a parameter of two blocks once alone
