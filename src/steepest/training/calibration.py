"""How far probabilities can be believed: what was predicted against what came true, in bins."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUM_BINS", "expected_calibration_error", "reliability"]

NUM_BINS = 15


def reliability(targets: NDArray[Any], probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """For each of 15 bins of equal width, (bins, 3): predictions in it, their summed probability, and the hits.

    The probability is that of the second class where there are two, and a hit a row of that class; with more
    classes that of the class predicted, and a hit a row where it is right. A bin holds its upper end.

    Args:
        targets: class indices, (rows,).
        probabilities: (rows, classes).

    Source: Guo, Pleiss, Sun and Weinberger 2017, On Calibration of Modern Neural Networks, ICML, section 2.
    """
    is_binary = probabilities.shape[1] == 2
    chosen = np.ones(len(targets), np.int64) if is_binary else probabilities.argmax(axis=1)
    stated = probabilities[np.arange(len(targets)), chosen].astype(np.float64)
    places = np.clip(np.ceil(stated * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    weights = (None, stated, (targets == chosen).astype(np.float64))
    return np.stack([np.bincount(places, weight, NUM_BINS) for weight in weights], axis=1).astype(np.float64)


def expected_calibration_error(bins: NDArray[np.float64]) -> float:
    """The mean distance between what was predicted and what came true, each bin by its share of the predictions.

    Args:
        bins: what :func:`reliability` gives, or a sum of such.

    Source: Naeini, Cooper and Hauskrecht 2015, Obtaining Well Calibrated Probabilities Using Bayesian Binning,
    AAAI; Guo et al. 2017, eq. 3.
    """
    return float(np.abs(bins[:, 1] - bins[:, 2]).sum() / bins[:, 0].sum())
