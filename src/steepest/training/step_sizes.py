"""How large the tensors of a module's step are, and whether it is worth torch's threads.

torch's threads wait for one another in loops, several times an operation. On idle processors a small step gains nothing
by them; where other programs want the processors too, each wait lasts until a thread is given one again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

__all__ = ["StepSizes", "sizes_of", "threads_for"]

_GRAIN = 1 << 15  # elements: of fewer torch makes no parts for its threads


class StepSizes(NamedTuple):
    """The most elements that one tensor has."""

    a_row: int  # of those that go into and out of layers, for each row of a batch
    weights: int

    def are_small(self, num_rows: int) -> bool:
        """Whether a step of so many rows is not worth several threads."""
        return max(self.a_row * num_rows, self.weights) <= _GRAIN


def sizes_of(module: nn.Module, num_rows: int, forward: Callable[[], Any]) -> tuple[Any, StepSizes | None]:
    """What ``forward`` gives, which sends so many rows through the module, and how large its tensors were.

    None: it has TorchScript's parts, and what goes on within these is not seen.
    """
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        return forward(), None
    seen = [1]

    def see(_: nn.Module, given: Any, output: Any) -> None:
        seen.extend(leaf.numel() for leaf in pytree.tree_leaves((given, output)) if isinstance(leaf, Tensor))

    hooks = [part.register_forward_hook(see) for part in module.modules()]
    try:
        output = forward()
    finally:
        for hook in hooks:
            hook.remove()
    weights = max((parameter.numel() for parameter in module.parameters()), default=0)
    return output, StepSizes(-(-max(seen) // num_rows), weights)


@contextmanager
def threads_for(sizes: StepSizes | None, num_rows: int, device: torch.device) -> Iterator[None]:
    """One of torch's threads for small steps on a CPU; for others, or of unknown sizes, as many as before."""
    before = torch.get_num_threads()
    if sizes is None or device.type != "cpu" or before == 1 or not sizes.are_small(num_rows):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
