"""Intervals over seeds, of a mean and of differences to the best; and tests of these differences.

Both intervals are 95% bootstrap intervals made for the ten or so seeds a comparison has, where the plain percentile
bootstrap is too narrow. They say how much luck with the seed there is, given these rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special  # its distributions; scipy.stats takes most of a second to import

__all__ = ["corrected_p_values", "difference_intervals", "mean_interval"]

CONFIDENCE = 0.95
_NUM_RESAMPLES = 10_000
_SEEDS_WITH_ALL_SIGNS = 13  # up to so many seeds every choice of signs is tried

Floats = NDArray[np.float64]


def mean_interval(scores: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """The interval of the mean over seeds, scores of shape (seeds,).

    An expanded percentile bootstrap: the percentiles are moved outwards until a normal sample of this
    size would be covered as often as Student's t covers it.
    Source: Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 4.3.
    """
    num_seeds = len(scores)
    if num_seeds < 2:
        return float(scores[0]), float(scores[0])
    means = scores[rng.integers(0, num_seeds, (_NUM_RESAMPLES, num_seeds))].mean(axis=1)
    student = special.stdtrit(num_seeds - 1, (1 - CONFIDENCE) / 2)
    tail = special.ndtr(student * np.sqrt(num_seeds / (num_seeds - 1)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def difference_intervals(differences: Floats, rng: np.random.Generator) -> Floats:
    """Intervals (contestants, 2) of mean paired differences to the best, (contestants, seeds).

    Together they hold with 95%: however many contestants there are, the truly best one is rarely declared
    worse. A wild bootstrap: the differences around their means change sign seed by seed, the same seeds
    for all contestants (they are paired), and the largest studentised mean sets one width for all.
    Source: Westfall & Young, "Resampling-Based Multiple Testing", 1993, section 2.2 (the maximum);
    Mammen, "Bootstrap and Wild Bootstrap for High Dimensional Linear Models", 1993 (the signs).
    """
    num_contestants, num_seeds = differences.shape
    means = differences.mean(axis=1)
    if num_contestants == 0 or num_seeds < 2:
        return np.stack([means, means], axis=1)
    residuals = differences - means[:, None]
    errors = _standard_errors(residuals, np.zeros(num_contestants))
    signs = rng.choice([-1.0, 1.0], (num_seeds, _NUM_RESAMPLES))
    largest = np.zeros(_NUM_RESAMPLES)
    for row in residuals[errors > 0]:
        flipped = row @ signs / num_seeds
        flipped_errors = _standard_errors(row, flipped)
        largest = np.maximum(largest, np.abs(flipped) / np.maximum(flipped_errors, np.finfo(float).tiny))
    width = np.quantile(largest, CONFIDENCE) * errors
    return np.stack([means - width, means + width], axis=1)


def corrected_p_values(differences: Floats, rng: np.random.Generator) -> Floats:
    """How likely means of paired differences as far from 0 are where there is no difference; (contestants, seeds).

    A permutation test: without a difference every seed's could as well have had the other sign. All choices of
    signs are tried, or 10,000 drawn ones where there are more; two-sided, and corrected by Holm for the number of
    contestants. A row of zeros has 1.
    Source: Fisher, "The Design of Experiments", 1935, section 21; Holm, "A Simple Sequentially Rejective Multiple
    Test Procedure", 1979.
    """
    num_contestants, num_seeds = differences.shape
    if num_contestants == 0 or num_seeds < 2:
        return np.ones(num_contestants)
    if num_seeds <= _SEEDS_WITH_ALL_SIGNS:
        signs = 1.0 - 2.0 * ((np.arange(2**num_seeds)[:, None] >> np.arange(num_seeds)) & 1)
    else:
        drawn = rng.choice([-1.0, 1.0], (_NUM_RESAMPLES - 1, num_seeds))
        signs = np.concatenate([np.ones((1, num_seeds)), drawn])  # what was seen is one of the possible ones
    sums = np.abs(differences @ signs.T)
    seen = np.abs(differences.sum(axis=1))
    # A sum in another order may differ in its last digits from the same one.
    as_far = sums >= seen[:, None] * (1 - 1e-9)
    return _holm(as_far.mean(axis=1))


def _holm(p_values: Floats) -> Floats:
    """The smallest times their number, the next times one less, and so on; never less than one before."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return corrected


def _standard_errors(values: Floats, means: Floats) -> Floats:
    """Standard errors of means over the last axis; changed signs leave the squares as they are."""
    num_seeds = values.shape[-1]
    squares = (values**2).sum(axis=-1) - num_seeds * means**2
    errors: Floats = np.sqrt(np.maximum(squares, 0.0) / (num_seeds - 1) / num_seeds)
    return errors
