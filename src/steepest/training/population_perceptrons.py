"""Many perceptrons of one make as one, on a GPU: each layer of all of them is one launch, forward and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from steepest.backends.cuda_devices import runs_on
from steepest.training.activations import ACTIVATIONS, Activation
from steepest.training.population_losses import LossGroup
from steepest.training.population_stack import Batch, ModuleStack, Unstackable

if TYPE_CHECKING:
    from steepest.backends.cuda_perceptrons import Layer

__all__ = ["PerceptronStack", "are_layers"]


def are_layers(module: nn.Module) -> bool:
    """Whether a module is a perceptron on a GPU: linear layers with an activation of ours between any two."""
    parts = list(_parts(module))
    pairs = zip(parts, [*parts[1:], None], strict=True)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    return (
        len(parts) > 0
        and all(type(part) is nn.Linear or _activation(part) is not None for part in parts)
        and type(parts[0]) is nn.Linear
        # An activation follows a linear layer; a linear layer, an activation.
        and all((type(part) is nn.Linear) != (type(after) is nn.Linear) for part, after in pairs if after)
        and len(set(map(id, parameters))) == len(parameters)
        and all(
            p.requires_grad and p.dtype in (torch.float32, torch.float64) and runs_on(p) for p in parameters
        )
    )


class PerceptronStack(ModuleStack):
    """Perceptrons for which :func:`are_layers` holds.

    Sums of products are taken in the weights' type, float32 without tf32; a member's weights are the same bits whoever
    is beside it.
    """

    may_be_captured = True

    def __init__(self, modules: Sequence[nn.Module], which: Sequence[int]) -> None:
        super().__init__(modules, which)
        self._layers = _layers(modules[0])
        self._gradients = torch.empty_like(self.flat)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these modules alone."""
        super().keep(rows)
        self._gradients = torch.empty_like(self.flat)

    def forward(
        self, flat: Tensor, inputs: Any, axis: int | None, members: Sequence[int] | None = None
    ) -> Tensor:
        """The outputs, (modules, rows, outputs); see :meth:`ModuleStack.forward`."""
        own = torch.arange(len(flat), device=flat.device)
        x, which = _rows(inputs, axis, flat, own)
        for layer in self._layers:
            x, which = _kernels().through(layer, flat, x, which, keeps=False)[1], own
        return x

    def differentiate(self, batch: Batch, losses: Sequence[LossGroup]) -> tuple[Tensor, Tensor]:
        """Each module's loss and its gradient, which the next call overwrites."""
        kernels, flat, gradients = _kernels(), self.flat, self._gradients
        own = torch.arange(len(flat), device=flat.device)
        given = batch.of_seeds[0] if batch.axis is None else torch.stack(batch.of_seeds)
        x, which = _rows(given, batch.axis, flat, own if batch.axis is None else batch.which)
        kept = []
        for layer in self._layers:
            sums, outputs = kernels.through(layer, flat, x, which, keeps=True)
            kept.append((layer, x, which, sums))
            x, which = outputs, own
        values = flat.new_empty(len(flat))
        slopes = torch.empty_like(x)
        for group in losses:
            value, slope = group.differentiated(group.of(x), batch.targets_of(group.members), batch.axis)
            values[group.members], slopes[group.members] = value, slope
        if layer.activation is not None:
            kernels.multiply_by_derivative(slopes, sums, layer.activation)
        for (layer, x, which, _), below in zip(reversed(kept), [*reversed(kept[:-1]), None], strict=True):
            kernels.to_weights(layer, slopes, x, which, gradients)
            if below is not None:
                slopes = kernels.to_inputs(layer, flat, slopes, below[3], below[0].activation)
        return values, gradients


def _kernels() -> Any:
    """Triton is imported with the first of them."""
    from steepest.backends import cuda_perceptrons

    return cuda_perceptrons


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """What a sequence of modules holds, sequences in it too."""
    if type(module) is nn.Sequential:
        for part in module:
            yield from _parts(part)
    else:
        yield module


def _activation(part: nn.Module) -> Activation | None:
    for one in ACTIVATIONS.values():
        if type(part) is one.module and getattr(part, "approximate", "none") == "none":
            return one
    return None


def _layers(module: nn.Module) -> list[Layer]:
    """Its layers, with the places of their numbers among all of them."""
    from steepest.backends.cuda_perceptrons import Layer

    parts, layers, at = list(_parts(module)), list[Layer](), 0
    for part, after in zip(parts, [*parts[1:], None], strict=True):
        if type(part) is not nn.Linear:
            continue
        following = None if after is None else _activation(after)
        end = at + part.weight.numel()
        has_bias = part.bias is not None
        layers.append(
            Layer(
                part.in_features,
                part.out_features,
                at,
                end if has_bias else None,
                None if following is None else (following.value, following.gradient),
            )
        )
        at = end + part.out_features * has_bias
    return layers


def _rows(inputs: Any, axis: int | None, flat: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (groups, rows, features), and which group each module has."""
    if not isinstance(inputs, Tensor) or inputs.dtype != flat.dtype:
        raise Unstackable(f"its inputs are no tensor of {str(flat.dtype).removeprefix('torch.')}")
    if inputs.dim() != (2 if axis is None else 3):
        raise Unstackable("its inputs have more than one axis a row")
    if axis is None:
        return inputs.unsqueeze(0).contiguous(), torch.zeros_like(which)
    return inputs.contiguous(), which
