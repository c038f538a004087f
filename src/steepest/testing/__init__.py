"""The library's own contract tests, for losses and optimizers of the user's own.

    def test_my_loss() -> None:
        check_loss(MyLoss)
        check_optimizer(MyOptimizer, weight_decay=0.1)

Under pytest or plainly: the first thing that does not hold is an :class:`AssertionError` whose one sentence says
what, and where. Truth is the formula's own text in 256-bit arithmetic, which needs the package mpmath.
"""

from steepest.testing.losses import check_loss
from steepest.testing.optimizers import check_optimizer

__all__ = ["check_loss", "check_optimizer"]
