"""Intervals and tests over seeds: of a mean, and of differences to the best.

The intervals are 95% bootstrap intervals made for the ten or so seeds a comparison has, where the plain
percentile bootstrap is too narrow; the tests flip the signs of paired differences. They say how much luck with
the seed there is, given these rows.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special  # its distributions; scipy.stats takes most of a second to import

__all__ = [
    "CONFIDENCE",
    "corrected_p_values",
    "difference_intervals",
    "holm",
    "mean_cost",
    "mean_interval",
    "overlap_factor",
    "paired_p_values",
    "seeds_to_tell",
]

CONFIDENCE = 0.95
_NUM_RESAMPLES = 10_000
_MOST_SIGNS = 16  # seeds; up to here every pattern of signs is tried, above it a sample of them

Floats = NDArray[np.float64]


def mean_cost(costs: Floats) -> tuple[int, float]:
    """On how many seeds there is no cost (a divergence), and the mean of the others: sorts settings best first."""
    finite = costs[np.isfinite(costs)]
    return len(costs) - len(finite), float(finite.mean()) if len(finite) else 0.0


def overlap_factor(num_splits: int, held_out: float) -> float:
    """By what a standard error grows when each score comes of its own random split; 1 for a single split.

    Splits of the same rows share most of their training rows, so their scores vary less from split to split than
    those of fresh tables would: the variance of a mean over J of them is not s^2 / J but s^2 (1/J + n2/n1), with n1
    training rows and n2 that each draw takes out of them; ``held_out`` is n2/n1.
    Source: Nadeau and Bengio 2003, Inference for the Generalization Error, Machine Learning 52, section 3.
    """
    return math.sqrt(1.0 + num_splits * held_out) if num_splits > 1 else 1.0


def mean_interval(
    scores: Floats, rng: np.random.Generator, factor: float = 1.0
) -> tuple[float, float] | None:
    """The interval of the mean over seeds, scores of shape (seeds,); None for one seed, which says nothing of luck.

    An expanded percentile bootstrap: the percentiles are moved outwards until a normal sample of this
    size would be covered as often as Student's t covers it. ``factor`` widens it: see :func:`overlap_factor`.
    Source: Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 4.3.
    """
    num_seeds = len(scores)
    if num_seeds < 2:
        return None
    means = scores[rng.integers(0, num_seeds, (_NUM_RESAMPLES, num_seeds))].mean(axis=1)
    student = special.stdtrit(num_seeds - 1, (1 - CONFIDENCE) / 2)
    tail = special.ndtr(student * np.sqrt(num_seeds / (num_seeds - 1)))
    low, high = scores.mean() + factor * (np.quantile(means, [tail, 1 - tail]) - scores.mean())
    return float(low), float(high)


def difference_intervals(differences: Floats, rng: np.random.Generator, factor: float = 1.0) -> Floats:
    """Intervals (contestants, 2) of mean paired differences to the best, (contestants, seeds).

    Together they hold with 95%: however many contestants there are, the truly best one is rarely declared
    worse. A wild bootstrap: the differences around their means change sign seed by seed, the same seeds
    for all contestants (they are paired), and the largest studentised mean sets one width for all.
    ``factor`` multiplies their standard errors: see :func:`overlap_factor`.
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
    width = np.quantile(largest, CONFIDENCE) * errors * factor
    return np.stack([means - width, means + width], axis=1)


def _standard_errors(values: Floats, means: Floats) -> Floats:
    """Standard errors of means over the last axis; changed signs leave the squares as they are."""
    num_seeds = values.shape[-1]
    squares = (values**2).sum(axis=-1) - num_seeds * means**2
    errors: Floats = np.sqrt(np.maximum(squares, 0.0) / (num_seeds - 1) / num_seeds)
    return errors


def paired_p_values(differences: Floats, rng: np.random.Generator) -> Floats:
    """Two-sided p values (contestants,) of paired differences (contestants, seeds), each against none.

    A permutation test: were there no difference, each seed's would be as likely with the other sign. All
    patterns of signs are tried for few seeds, a sample of them for many.
    Source: Fisher, "The Design of Experiments", 1935, section 21.
    """
    num_seeds = differences.shape[1]
    if num_seeds <= _MOST_SIGNS:
        patterns = np.arange(2**num_seeds)[:, None] >> np.arange(num_seeds)
        signs = 1.0 - 2.0 * (patterns & 1)
    else:
        signs = rng.choice([-1.0, 1.0], (_NUM_RESAMPLES, num_seeds))
        signs[0] = 1.0  # what was seen is one of the patterns
    # Patterns that should give the same sum give it up to rounding. Row by row: there may be many patterns.
    return np.array([(np.abs(signs @ row) >= abs(row.sum()) * (1 - 1e-9)).mean() for row in differences])


def corrected_p_values(differences: Floats, factor: float) -> Floats:
    """Two-sided p values (contestants,) of paired differences (contestants, splits), each against none.

    Student's t with the standard error that overlapping splits call for: their signs are not exchangeable one by one,
    as the permutation test would have it.
    Source: Nadeau and Bengio 2003, the corrected resampled t-test.
    """
    num_splits = differences.shape[1]
    means = differences.mean(axis=1)
    errors = _standard_errors(differences - means[:, None], np.zeros(len(differences))) * factor
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = np.where(means == 0.0, 0.0, np.abs(means) / errors)
    p_values: Floats = 2.0 * special.stdtr(num_splits - 1, -statistics)
    return p_values


def holm(p_values: Floats) -> Floats:
    """The p values, corrected for their number: the level at which Holm's procedure begins to reject each.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(count)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * np.arange(count, 0, -1)))
    return corrected


def seeds_to_tell(num_contestants: int) -> int:
    """The fewest seeds with which the corrected test can tell every contestant from the best.

    With n seeds no p value is below 2 / 2**n, and Holm's procedure begins by multiplying it by the number of
    tests.
    """
    tests = max(1, num_contestants - 1)
    return 1 + math.ceil(math.log2(tests / (1 - CONFIDENCE)))
