"""The losses of runs that are trained together: those that share one go through it at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from steepest.backends.cuda_devices import runs_on
from steepest.losses.kernels import has_kernel
from steepest.training.layout import IGNORED, is_kept
from steepest.training.native import formula_of, loss_parameters
from steepest.training.run import Run
from steepest.training.torch_engine import TorchEngine

__all__ = ["LossGroup", "loss_key"]


class LossGroup:
    """Runs with one loss, and its own parameters.

    Args:
        engine: whose loss it is.
        run: one of them.
        loss: the module of their loss.
        members: their places among all runs.
        num_runs: how many there are.
    """

    def __init__(
        self, engine: TorchEngine, run: Run, loss: nn.Module, members: Sequence[int], num_runs: int
    ) -> None:
        self._engine, self._run, self._loss = engine, run, loss
        self.members = torch.tensor(members, device=engine.device)
        self._is_all = len(members) == num_runs
        self._formula, self._numbers = formula_of(run.loss), tuple(loss_parameters(run).values())

    def of(self, everyones: Tensor) -> Tensor:
        """The members' part of what all runs have."""
        return everyones if self._is_all else everyones[self.members]

    def __call__(self, outputs: Tensor, targets: Tensor, axis: int | None) -> Tensor:
        """Each member's loss, (members,), by tensor operations; targets have an axis of members where ``axis`` is 0."""
        one = partial(self._engine.loss_of, self._run, self._loss)
        losses: Tensor = torch.vmap(one, in_dims=(0, axis))(outputs, targets)
        return losses

    def differentiated(self, outputs: Tensor, targets: Tensor, axis: int | None) -> tuple[Tensor, Tensor]:
        """Each member's loss and its gradient by the outputs: in one launch of the loss's kernel, if it has one."""
        if runs_on(outputs) and has_kernel(self._formula):
            return self._by_kernel(
                outputs, targets if axis == 0 else targets.expand(len(outputs), *targets.shape)
            )
        leaf = outputs.detach().requires_grad_()
        losses = self(leaf, targets, axis)
        (slopes,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), slopes

    def _by_kernel(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The members' rows as one batch in as many segments."""
        from steepest.backends import cuda_losses, cuda_softmax

        formula, members = self._formula, outputs.shape[:1]
        assert formula.gradient is not None
        x, t = self._engine.fit_shapes(self._run, outputs.flatten(0, 1), targets.flatten(0, 1))
        num_terms = torch.full(members, t.numel() // members[0], dtype=torch.float64, device=x.device)
        if formula.family == "pointwise":
            t = t.to(x.dtype).contiguous()
            operands = [None] * (1 + len(self._numbers))
            run = cuda_losses.pointwise(
                formula.value, formula.gradient, x, t, self._numbers, operands, members
            )
        else:
            in_classes = not t.is_floating_point()
            if in_classes:
                num_terms = is_kept(t).view(*members, -1).sum(dim=1, dtype=torch.float64)
            else:
                num_terms = num_terms / x.shape[1]
            weight, offset = (getattr(self._loss, name, None) for name in ("weight", "offset"))
            rows = cuda_softmax.Rows(
                t.contiguous() if in_classes else None,
                None if in_classes else t.to(x.dtype).contiguous(),
                None if weight is None else weight.to(x.dtype),
                None if offset is None else offset.double(),
                IGNORED,
                0.0,
            )
            run = cuda_softmax.softmax(formula.value, formula.gradient, x, rows, self._numbers, members)
        slopes = torch.empty_like(x)
        sums = run(slopes, int(cuda_losses.GRADIENT), 1.0 / num_terms)
        # Beyond the outputs' type it is an infinity, as it is to a run alone.
        return (sums / num_terms).to(x.dtype), slopes.view_as(outputs)


def loss_key(run: Run) -> tuple[object, ...]:
    """Runs with the same are judged by one loss."""
    return run.loss, *sorted(run.loss_options.items())
