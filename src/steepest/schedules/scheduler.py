"""The schedules for PyTorch code of one's own."""

from __future__ import annotations

from numbers import Integral

import torch
from torch.optim.lr_scheduler import LRScheduler

from steepest.errors import InputError
from steepest.schedules.course import Course, check_schedule, check_warmup

__all__ = ["ScheduleLR"]


class ScheduleLR(LRScheduler):
    """A schedule of ``SCHEDULES`` by its word, as a scheduler of ``torch.optim.lr_scheduler``: one ``step()`` a step.

    ``lr = factor * base_lr``, the factor that of the schedule in step k of n = ``num_steps`` (k = 0, ..., n - 1). A
    warm-up of w steps comes first, ``(k + 1) / (w + 1)``, and the schedule goes over the n - w that are left.

    Any optimizer will do, and each of its parameter groups keeps its own base rate. ``state_dict()`` is plain numbers.

    Args:
        optimizer: whose rates are set.
        schedule: a word of ``SCHEDULES``.
        num_steps: of the whole training, at least 1.
        warmup: the share of the steps that the warm-up takes, from 0 to below 1, rounded to whole steps: at least
            one, where it is not 0, and never all.
        last_epoch: the steps already taken, less one, as torch names and counts them: -1 at the beginning.

    Raises:
        InputError: there is no such schedule, an argument is out of range, or a step beyond the last is taken.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=8.0)
    >>> scheduler = ScheduleLR(optimizer, "linear", num_steps=4)
    >>> rates = []
    >>> for _ in range(4):
    ...     rates.append(optimizer.param_groups[0]["lr"]); optimizer.step(); scheduler.step()
    >>> rates
    [8.0, 6.0, 4.0, 2.0]
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: str = "cosine",
        *,
        num_steps: int,
        warmup: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        given: object = num_steps  # numpy's integers too, which type checkers take for something else
        if isinstance(given, bool) or not isinstance(given, Integral) or num_steps < 1:
            raise InputError(f"num_steps is {num_steps!r}; give the number of steps of the whole training.")
        self.schedule, self.num_steps = check_schedule(schedule).name, int(num_steps)
        self.warmup = check_warmup(warmup)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Each group's rate in the step that comes next."""
        step = self.last_epoch
        if step > self.num_steps:
            raise InputError(
                f"The schedule {self.schedule!r} ends with step {self.num_steps}, and the rate of step {step + 1} was "
                "asked for; give num_steps as many as are taken."
            )
        factor = Course(self.schedule, self.num_steps, self.warmup).factor(step)
        return [base * factor for base in self.base_lrs]
