"""Loss functions: drop-ins for ``torch.nn``'s, exact in the tails, each written once as a formula.

``LOSSES`` maps the word used on the command line to the class; ``LOSSES["mse"].formula`` says the rest.
"""

from steepest.losses import functional
from steepest.losses.bce import BCELoss
from steepest.losses.bce_with_logits import BCEWithLogitsLoss
from steepest.losses.cross_entropy import CrossEntropyLoss
from steepest.losses.formula import LossFormula
from steepest.losses.huber import HuberLoss
from steepest.losses.l1 import L1Loss
from steepest.losses.mse import MSELoss
from steepest.losses.quantile import QuantileLoss

__all__ = [
    "LOSSES",
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "HuberLoss",
    "L1Loss",
    "LossFormula",
    "MSELoss",
    "QuantileLoss",
    "functional",
]

# In the order in which a comparison takes them.
LOSSES = {
    loss.formula.name: loss
    for loss in (MSELoss, L1Loss, HuberLoss, QuantileLoss, BCEWithLogitsLoss, BCELoss, CrossEntropyLoss)
}
