"""Comparisons: plan, tuning, confirmation, statistics, verdict; and the single fit.

The public names are those of :mod:`steepest`. Nothing is imported here: a model is loaded and predicts
without torch.
"""
