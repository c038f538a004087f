"""Which losses a comparison takes where none are named: the task's usual ones, and those the data call for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from steepest.comparison.options import check_losses
from steepest.losses import LOSSES
from steepest.training.run import Task

__all__ = ["choose_losses"]

_MOST = 5

_USUAL = {
    "mse": "aims at the mean",
    "mae": "aims at the median",
    "huber": "lies between the two",
    "bce": "usual for two classes, from one logit",
    "cross_entropy": "usual for classes, a logit for each",
}
# So that there is a choice where nothing about the data calls for one.
_COMPANIONS: Mapping[Task, Mapping[str, str]] = {
    "multiclass": {"focal": "often gives less overconfident probabilities"}
}


def choose_losses(task: Task, diagnosis: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Up to five losses, each with why it takes part.

    The usual losses of the task come first; then each finding's losses in turn, the first of each before the
    second of any.

    Args:
        diagnosis: findings, with the ``losses`` that answer them and ``because``.
    """
    chosen = {loss: _USUAL.get(loss, LOSSES[loss].formula.title) for loss in check_losses(None, task)}
    answers = [[(loss, finding["because"]) for loss in finding["losses"]] for finding in diagnosis]
    for turn in zip_longest(*([pair for pair in pairs if pair[0] not in chosen] for pairs in answers)):
        for loss, because in filter(None, turn):
            if len(chosen) < _MOST:
                chosen.setdefault(loss, because)
    return chosen if len(chosen) > 1 else chosen | dict(_COMPANIONS.get(task, {}))
