"""scikit-learn estimators: the native engine's networks behind ``fit`` and ``predict``."""

from steepest.estimators.classifier import SteepestClassifier
from steepest.estimators.regressor import SteepestRegressor

__all__ = ["SteepestClassifier", "SteepestRegressor"]
