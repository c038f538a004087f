"""Losses, optimizers and schedules explained: in words, as formulas, and drawn from those very formulas.

:func:`explain` takes the word a command takes and gives an :class:`Explanation`.
"""

from steepest.explain.lookup import explain
from steepest.explain.page import Explanation

__all__ = ["Explanation", "explain"]
