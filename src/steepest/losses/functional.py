"""The losses as functions: ``torch.nn.functional``'s names, arguments and meaning, and more."""

from steepest.losses.asymmetric import asymmetric_loss
from steepest.losses.barron import general_robust_loss
from steepest.losses.bce import binary_cross_entropy
from steepest.losses.bce_with_logits import binary_cross_entropy_with_logits
from steepest.losses.binary_focal import binary_focal_loss
from steepest.losses.cauchy import cauchy_loss
from steepest.losses.charbonnier import charbonnier_loss
from steepest.losses.class_balanced import class_balanced_cross_entropy, class_balanced_weights
from steepest.losses.cosine_embedding import cosine_embedding_loss
from steepest.losses.cross_entropy import cross_entropy
from steepest.losses.ctc import ctc_loss
from steepest.losses.dice import dice_loss
from steepest.losses.focal import focal_loss
from steepest.losses.gamma import gamma_nll_loss
from steepest.losses.gaussian_nll import gaussian_nll_loss
from steepest.losses.generalized_cross_entropy import generalized_cross_entropy
from steepest.losses.hinge import hinge_loss
from steepest.losses.hinge_embedding import hinge_embedding_loss
from steepest.losses.huber import huber_loss
from steepest.losses.kl_div import kl_div
from steepest.losses.l1 import l1_loss
from steepest.losses.linear_cross_entropy import linear_cross_entropy
from steepest.losses.log_cosh import log_cosh_loss
from steepest.losses.logit_adjusted import logit_adjusted_cross_entropy
from steepest.losses.margin_ranking import margin_ranking_loss
from steepest.losses.mse import mse_loss
from steepest.losses.multi_margin import multi_margin_loss
from steepest.losses.multilabel_margin import multilabel_margin_loss
from steepest.losses.multilabel_soft_margin import multilabel_soft_margin_loss
from steepest.losses.nll import nll_loss
from steepest.losses.poisson_nll import poisson_nll_loss
from steepest.losses.poly_cross_entropy import poly_cross_entropy
from steepest.losses.quantile import quantile_loss
from steepest.losses.smooth_l1 import smooth_l1_loss
from steepest.losses.soft_margin import soft_margin_loss
from steepest.losses.squared_hinge import squared_hinge_loss
from steepest.losses.triplet_margin import triplet_margin_loss
from steepest.losses.triplet_margin_with_distance import triplet_margin_with_distance_loss
from steepest.losses.tukey import tukey_loss
from steepest.losses.tversky import tversky_loss
from steepest.losses.tweedie import tweedie_loss

__all__ = [
    "asymmetric_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "binary_focal_loss",
    "cauchy_loss",
    "charbonnier_loss",
    "class_balanced_cross_entropy",
    "class_balanced_weights",
    "cosine_embedding_loss",
    "cross_entropy",
    "ctc_loss",
    "dice_loss",
    "focal_loss",
    "gamma_nll_loss",
    "gaussian_nll_loss",
    "general_robust_loss",
    "generalized_cross_entropy",
    "hinge_embedding_loss",
    "hinge_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "linear_cross_entropy",
    "log_cosh_loss",
    "logit_adjusted_cross_entropy",
    "margin_ranking_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "poisson_nll_loss",
    "poly_cross_entropy",
    "quantile_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "squared_hinge_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
    "tukey_loss",
    "tversky_loss",
    "tweedie_loss",
]
