"""Comparisons: plan, tuning, confirmation, statistics, verdict; and the single fit."""

from steepest.comparison.compare import Comparison, compare
from steepest.comparison.fit import fit
from steepest.comparison.fitted import FittedModel, load
from steepest.comparison.plan import Plan

__all__ = ["Comparison", "FittedModel", "Plan", "compare", "fit", "load"]
