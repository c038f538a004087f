"""Loss functions: drop-ins for ``torch.nn``'s and more, exact in the tails, each written once as a formula.

``LOSSES`` maps the word used on the command line to the class; ``LOSSES["mse"].formula`` says the rest.
"""

from typing import Any

from steepest.losses import functional
from steepest.losses.asymmetric import AsymmetricLoss
from steepest.losses.barron import GeneralRobustLoss
from steepest.losses.bce import BCELoss
from steepest.losses.bce_with_logits import BCEWithLogitsLoss
from steepest.losses.binary_focal import BinaryFocalLoss
from steepest.losses.cauchy import CauchyLoss
from steepest.losses.charbonnier import CharbonnierLoss
from steepest.losses.class_balanced import ClassBalancedCrossEntropyLoss
from steepest.losses.cosine_embedding import CosineEmbeddingLoss
from steepest.losses.cross_entropy import CrossEntropyLoss
from steepest.losses.ctc import CTCLoss
from steepest.losses.dice import DiceLoss
from steepest.losses.focal import FocalLoss
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.from_formula import from_formula
from steepest.losses.gamma import GammaNLLLoss
from steepest.losses.gaussian_nll import GaussianNLLLoss
from steepest.losses.generalized_cross_entropy import GeneralizedCrossEntropyLoss
from steepest.losses.hinge import HingeLoss
from steepest.losses.hinge_embedding import HingeEmbeddingLoss
from steepest.losses.huber import HuberLoss
from steepest.losses.kl_div import KLDivLoss
from steepest.losses.l1 import L1Loss
from steepest.losses.linear_cross_entropy import LinearCrossEntropyLoss
from steepest.losses.log_cosh import LogCoshLoss
from steepest.losses.logit_adjusted import LogitAdjustedCrossEntropyLoss
from steepest.losses.margin_ranking import MarginRankingLoss
from steepest.losses.mse import MSELoss
from steepest.losses.multi_margin import MultiMarginLoss
from steepest.losses.multilabel_margin import MultiLabelMarginLoss
from steepest.losses.multilabel_soft_margin import MultiLabelSoftMarginLoss
from steepest.losses.nll import NLLLoss
from steepest.losses.poisson_nll import PoissonNLLLoss
from steepest.losses.poly_cross_entropy import PolyCrossEntropyLoss
from steepest.losses.quantile import QuantileLoss
from steepest.losses.smooth_l1 import SmoothL1Loss
from steepest.losses.soft_margin import SoftMarginLoss
from steepest.losses.squared_hinge import SquaredHingeLoss
from steepest.losses.switches import Switches
from steepest.losses.triplet_margin import TripletMarginLoss
from steepest.losses.triplet_margin_with_distance import TripletMarginWithDistanceLoss
from steepest.losses.tukey import TukeyLoss
from steepest.losses.tversky import TverskyLoss
from steepest.losses.tweedie import TweedieLoss

__all__ = [
    "LOSSES",
    "AsymmetricLoss",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BinaryFocalLoss",
    "CTCLoss",
    "CauchyLoss",
    "CharbonnierLoss",
    "ClassBalancedCrossEntropyLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "GammaNLLLoss",
    "GaussianNLLLoss",
    "GeneralRobustLoss",
    "GeneralizedCrossEntropyLoss",
    "HingeEmbeddingLoss",
    "HingeLoss",
    "HuberLoss",
    "Interval",
    "KLDivLoss",
    "L1Loss",
    "LinearCrossEntropyLoss",
    "LogCoshLoss",
    "LogitAdjustedCrossEntropyLoss",
    "LossFormula",
    "MSELoss",
    "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PoissonNLLLoss",
    "PolyCrossEntropyLoss",
    "QuantileLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "SquaredHingeLoss",
    "Switches",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
    "TukeyLoss",
    "TverskyLoss",
    "TweedieLoss",
    "from_formula",
    "functional",
]

# In the order in which a comparison takes them: regression, two classes, many classes, counts and amounts,
# pairs and triplets, sequences.
LOSSES: dict[str, Any] = {
    loss.formula.name: loss
    for loss in (
        MSELoss,
        L1Loss,
        HuberLoss,
        QuantileLoss,
        SmoothL1Loss,
        LogCoshLoss,
        CharbonnierLoss,
        CauchyLoss,
        TukeyLoss,
        GeneralRobustLoss,
        BCEWithLogitsLoss,
        BCELoss,
        BinaryFocalLoss,
        AsymmetricLoss,
        SoftMarginLoss,
        HingeLoss,
        SquaredHingeLoss,
        MultiLabelSoftMarginLoss,
        MultiLabelMarginLoss,
        CrossEntropyLoss,
        FocalLoss,
        GeneralizedCrossEntropyLoss,
        PolyCrossEntropyLoss,
        LogitAdjustedCrossEntropyLoss,
        ClassBalancedCrossEntropyLoss,
        NLLLoss,
        KLDivLoss,
        MultiMarginLoss,
        LinearCrossEntropyLoss,
        DiceLoss,
        TverskyLoss,
        PoissonNLLLoss,
        GammaNLLLoss,
        TweedieLoss,
        GaussianNLLLoss,
        MarginRankingLoss,
        HingeEmbeddingLoss,
        CosineEmbeddingLoss,
        TripletMarginLoss,
        TripletMarginWithDistanceLoss,
        CTCLoss,
    )
}
