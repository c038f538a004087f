"""Whether a module's runs can be trained together: found out by a trial beside the torch engine, not by its type."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from steepest.training.native import optimizer_of
from steepest.training.population_losses import LossGroup
from steepest.training.population_perceptrons import PerceptronStack, are_layers
from steepest.training.population_rules import rule_group
from steepest.training.population_stack import Batch, ModuleStack, Unstackable
from steepest.training.run import Run
from steepest.training.seeds import borrowed, seed_all
from steepest.training.torch_data import AT_ONCE, Tensors
from steepest.training.torch_engine import TorchEngine, float_type, inner_module, moved

__all__ = ["Trial"]

_SEEDS = (0, 1)
_STEPS = 3
_AN_UPDATE = 40  # operations in matrix products that take as long as the update of one weight
_ROUNDINGS = (
    2000  # by so many of a type's last places the two ways may differ, of the largest number in a tensor
)


class Trial:
    """What one batch shows of a module on two seeds, solo and stacked.

    Args:
        engine: whose module and rows these are.
        run: for the batch size.

    Attributes:
        reason: why the module's runs cannot be trained together, a clause; None where they can.
        bytes_a_run: what a run's activations take in a step.
        epoch_bytes: what a seed's batches of an epoch take, where they have to be drawn beforehand.
        kind: how the module's runs are stacked: perceptrons on a GPU in kernels of their own, else through torch.vmap.
        unlike: why perceptrons are stacked through torch.vmap all the same, a clause; None where they are not.
        num_operations: of a step: matrix products and convolutions of a batch's forward pass, and so many for each
            weight's update as take as long; None where no step was made.
    """

    def __init__(self, engine: TorchEngine, run: Run) -> None:
        self._engine, self._run = engine, run
        self.kind: type[ModuleStack] = ModuleStack
        self.unlike: str | None = None
        self.bytes_a_run = 0
        self.epoch_bytes = 0
        self.num_operations: float | None = None
        self._weight_bytes = 0
        self._rows_scored_a_row = 0.0  # that go through a module together in a score, by those in a step
        self.reason = _told(self._find)

    def of_loss(self, run: Run) -> str | None:
        """Why runs with this loss cannot be trained together, a clause."""
        return self.reason or _told(partial(self._compare_gradients, run))

    def of_rule(self, run: Run) -> str | None:
        """Why runs with this optimizer cannot be trained together, a clause."""
        return self.reason or _told(partial(self._compare_updates, run))

    def memory_bytes(self) -> int:
        """What a run takes while it is trained with others: weights, their gradients, slots and copies; activations."""
        return 10 * self._weight_bytes + round((2 + self._rows_scored_a_row) * self.bytes_a_run)

    # --- the module ----------------------------------------------------------------------------------------------

    def _find(self) -> str | None:
        engine = self._engine
        if engine.compile:
            return "torch.compile takes a module as it is"
        if not engine.train.is_repeatable:
            return "the training inputs are other ones each time they are read"
        with borrowed(0, engine.device):
            self._modules = [engine.make(seed) for seed in _SEEDS]
            if any(inner_module(module) is not module for module in self._modules):
                return "torch.compile takes a module as it is"
            module = self._modules[0].train()
            inputs, targets = next(iter(engine.batches(self._run, 0, module)))
            inputs = moved(inputs, engine.device, float_type(module))
            if not isinstance(engine.train.source, Tensors):
                parts = [part for part in tree_leaves(inputs) if isinstance(part, Tensor)]
                a_batch = sum(part.numel() * part.element_size() for part in parts)
                self.epoch_bytes = a_batch * len(engine.train) // len(targets)
            if engine.validation is not None:
                self._rows_scored_a_row = (engine.validation.batch_size or AT_ONCE) / len(targets)
            with _Operations() as counter, torch.no_grad():
                engine.forward(module, inputs)
            weights = [p for p in module.parameters() if p.requires_grad]
            self.num_operations = counter.total + _AN_UPDATE * sum(p.numel() for p in weights)
            found = _changes(module, partial(self._forward_counted, module, inputs))
            if found is not None:
                return found
            self._weight_bytes = sum(p.numel() * max(p.element_size(), 4) for p in weights)
            self._given = [(inputs, targets.to(engine.device))]
            if are_layers(module):
                self.unlike = _told(partial(self._stack_as, PerceptronStack, inputs))
                if self.unlike is None:
                    return None
            self._stack_as(ModuleStack, inputs)
        return None

    def _stack_as(self, kind: type[ModuleStack], inputs: Any) -> None:
        """Stack the modules so; their outputs are to be as they are alone."""
        self.kind = kind
        self._stack = kind(self._modules, range(len(_SEEDS)))
        for is_training in (True, False):
            self._compare_outputs(inputs, is_training)

    def _forward_counted(self, module: nn.Module, inputs: Any) -> Tensor:
        """The outputs; what autograd keeps for them is counted."""
        kept: dict[int, int] = {}
        own = {parameter.data_ptr() for parameter in module.parameters()}

        def note(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in own:
                kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            outputs = self._engine.forward(module, inputs)
        self.bytes_a_run = sum(kept.values()) + outputs.numel() * outputs.element_size()
        return outputs

    def _compare_outputs(self, inputs: Any, is_training: bool) -> None:
        for module in self._modules:
            module.train(is_training)
        with torch.no_grad():
            alone = torch.stack([self._engine.forward(module, inputs) for module in self._modules])
            together = self._stack.forward(self._stack.flat, inputs, None)
        _check_alike(alone, together, "its outputs")

    # --- a loss, an optimizer --------------------------------------------------------------------------------------

    def _compare_gradients(self, run: Run) -> str | None:
        engine = self._engine
        inputs, targets = self._given[0]
        loss = engine.loss(run)
        alone = []
        for module in self._modules:
            module.train()
            module.zero_grad()
            engine.loss_of(run, loss, engine.forward(module, inputs), targets).backward()
            trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
            if any(parameter.grad is None for parameter in trained):
                return "a part of the module takes no part in its outputs"
            alone.append(torch.cat([p.grad.reshape(-1) for p in trained if p.grad is not None]))
        batch = Batch(self._given * 2, torch.arange(2))  # with an axis of runs, the more general case
        group = LossGroup(engine, run, loss, range(len(_SEEDS)), len(_SEEDS))
        _, together = self._stack.differentiate(batch, [group])
        _check_alike(torch.stack(alone), together, "its gradients")
        return None

    def _compare_updates(self, run: Run) -> str | None:
        """On made-up gradients: those of the module may be rounding errors that a rule makes much of."""
        runs = [run, run]
        rule, hyperparameters = optimizer_of(run)
        group = rule_group(rule, [hyperparameters] * len(runs), self._stack.sizes, self._stack.flat)
        together = self._stack.flat.clone()
        generator = torch.Generator().manual_seed(0)
        with borrowed(0, self._engine.device):
            modules = [self._engine.make(seed) for seed in _SEEDS]
        optimizers = [self._engine.optimizer(run, module) for module in modules]
        for _ in range(_STEPS):
            drawn = torch.randn(together.shape, generator=generator, dtype=torch.float64)
            gradients = drawn.to(together.device, together.dtype)
            for module, optimizer, row in zip(modules, optimizers, gradients, strict=True):
                trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
                parts = row.split(self._stack.sizes)
                for parameter, part in zip(trained, parts, strict=True):
                    parameter.grad = part.reshape(parameter.shape).clone()
                optimizer.step()
            group.update(together, gradients)
        alone = torch.stack(
            [
                torch.cat([p.detach().reshape(-1) for p in module.parameters() if p.requires_grad])
                for module in modules
            ]
        )
        _check_alike(alone, together, f"the steps of {run.optimizer}")
        return None


class _Operations(TorchFunctionMode):
    """Counts the multiplications and additions of matrix products and convolutions.

    What one of torch's larger functions multiplies inside, such as attention, is not seen. torch's own FlopCounterMode
    sees it, and imports the compiler: three seconds.
    """

    total = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in ("linear", "matmul", "__matmul__", "mm", "bmm"):
            self.total += 2 * out.numel() * args[0].shape[-1]
        elif name.startswith("conv") and isinstance(out, Tensor):
            self.total += 2 * out.numel() * args[1][0].numel()
        return out


@contextmanager
def _exact_products() -> Iterator[None]:
    """A GPU's float32 products as they are named: tf32, where the user allows it, is further off than a trial's bar."""
    products: Any = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "ieee"
    try:
        yield
    finally:
        products.fp32_precision = before


def _told(find: Callable[[], str | None]) -> str | None:
    """What was found; an error is a reason too."""
    try:
        with warnings.catch_warnings(), _exact_products():
            # torch says so where it goes through the runs one by one after all.
            warnings.filterwarnings("error", message=".*batching rule")
            return find()
    except Unstackable as error:
        return str(error)
    except Exception as error:
        first = str(error).strip().split("\n")[0].split(". ")[0][:160].rstrip(".:")
        return f"torch.vmap cannot take it ({type(error).__name__}: {first})"


def _changes(module: nn.Module, forward: Callable[[], Tensor]) -> str | None:
    """What a forward pass in training does beside its outputs, a clause: draws numbers, or writes in buffers."""
    held = {name: buffer.clone() for name, buffer in module.named_buffers()}
    device = next(module.parameters()).device
    outputs = []
    for seed in _SEEDS:
        seed_all(seed, device)
        outputs.append(forward().detach())
    now = dict(module.named_buffers())
    if held.keys() != now.keys() or any(
        not torch.equal(buffer.nan_to_num(), now[name].nan_to_num()) for name, buffer in held.items()
    ):
        return "the module writes in its buffers while it is trained, as batch norm does"
    if not torch.equal(outputs[0].nan_to_num(), outputs[1].nan_to_num()):
        return "the module draws random numbers while it is trained, as dropout does"
    return None


def _check_alike(alone: Tensor, together: Tensor, what: str) -> None:
    """The same to rounding, in each row by its largest number; NaN alike."""
    if alone.shape != together.shape:
        raise Unstackable(f"{what} have another shape where runs are stacked")
    wide = torch.promote_types(alone.dtype, torch.float32)
    a, b = alone.detach().to(wide).flatten(1), together.detach().to(wide).flatten(1)
    scale = a.nan_to_num(0.0, 0.0, 0.0).abs().amax(dim=1, keepdim=True)
    bar = _ROUNDINGS * torch.finfo(alone.dtype).eps * scale + torch.finfo(wide).tiny
    if not bool(((a - b).abs().le(bar) | (a == b) | (a.isnan() & b.isnan())).all()):
        raise Unstackable(f"{what} are other ones where runs are stacked")
