"""From a word to its page."""

from __future__ import annotations

from steepest.errors import InputError, near_names
from steepest.explain.loss_page import loss_page
from steepest.explain.optimizer_page import optimizer_page
from steepest.explain.page import Explanation
from steepest.explain.regimes import REGIMES
from steepest.explain.schedule_page import schedule_page
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.schedules import SCHEDULES

__all__ = ["explain"]


def explain(name: str) -> Explanation:
    """The page of a loss, an optimizer, a schedule or a regime of gradient descent.

    Args:
        name: a word from ``steepest list``, or ``"batch"``, ``"mini-batch"`` or ``"stochastic"``.

    Raises:
        InputError: there is nothing of that name; the message says which names are near.

    >>> page = explain("mae")
    >>> print(page.title)
    mae: mean absolute error
    """
    if name in LOSSES:
        return loss_page(LOSSES[name])
    if name in OPTIMIZERS:
        return optimizer_page(OPTIMIZERS[name])
    if name in SCHEDULES:
        return schedule_page(SCHEDULES[name])
    if name in REGIMES:
        return optimizer_page(OPTIMIZERS["sgd"], regime=REGIMES[name])
    known = [*LOSSES, *OPTIMIZERS, *SCHEDULES, *REGIMES]
    raise InputError(f"There is no loss, optimizer or schedule {name!r}{near_names(name, known)}")
