"""What a rank's rows add to a step's loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steepest.losses.denominator import denominator
from steepest.training.distributed.run import ModuleRun
from steepest.training.layout import IGNORED, check_indices, check_two_classes
from steepest.training.native import check_range, formula_of
from steepest.training.torch_engine import OfClasses, TorchEngine

__all__ = ["ShareOfLoss"]


class ShareOfLoss:
    """The loss of a part of a step's rows, as a share of the mean over all of them.

    Args:
        engine: calls the loss on the module's outputs.
        has_indices: whether targets are class indices.
    """

    def __init__(self, engine: TorchEngine, run: ModuleRun, has_indices: bool) -> None:
        self.engine, self.run, self.has_indices = engine, run.run, has_indices
        self.module = engine.loss(run.run)
        self.formula = formula_of(run.run.loss)

    def denominator(self, targets: Tensor) -> float:
        """What the mean over these targets divides by.

        Raises:
            InputError: there are some that the loss does not take. All rows come by here, those of a data set too,
                which nobody has looked at before.
        """
        if self.formula.prediction == "log_rate":
            check_range(self.formula, float(targets.min()))
        if self.formula.family == "softmax" and self.has_indices:
            check_indices(targets)
            targets = targets.to(torch.int64)
        elif self.engine.task == "binary":
            check_two_classes(targets)
        if isinstance(self.module, OfClasses):  # a mean over rows, whatever their weights
            return float((targets != IGNORED).sum()) if self.has_indices else float(len(targets))
        return denominator(self.module, targets)

    def __call__(self, outputs: Tensor, targets: Tensor, normalizer: float) -> Tensor:
        """The sum over the rows, divided by ``normalizer``."""
        loss: Any = self.module
        if isinstance(loss, OfClasses):
            loss.normalizer = normalizer
        else:
            loss.switches = {**loss.switches, "normalizer": normalizer}
        return self.engine.loss_of(self.run, loss, outputs, targets)
