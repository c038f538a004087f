"""Pages that compute: an optimizer's path and a loss's curves redrawn in the browser by the library's own formulas."""

from steepest.explain.interactive.loss import loss_web_page
from steepest.explain.interactive.optimizer import optimizer_web_page
from steepest.explain.interactive.regime import regime_web_page

__all__ = ["loss_web_page", "optimizer_web_page", "regime_web_page"]
