"""The losses as functions: ``torch.nn.functional``'s names, arguments and meaning."""

from steepest.losses.bce import binary_cross_entropy
from steepest.losses.bce_with_logits import binary_cross_entropy_with_logits
from steepest.losses.cross_entropy import cross_entropy
from steepest.losses.huber import huber_loss
from steepest.losses.l1 import l1_loss
from steepest.losses.mse import mse_loss
from steepest.losses.quantile import quantile_loss

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "huber_loss",
    "l1_loss",
    "mse_loss",
    "quantile_loss",
]
