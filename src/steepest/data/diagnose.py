"""What the data look like to a loss: figures of the training rows, in plain words, and the losses they call for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.data.encoding import Label
from steepest.data.neighbours import share_among_others

__all__ = ["diagnose"]

_FAR_OUT = 3.0  # interquartile ranges beyond the middle half: Tukey's outer fences
_MANY_OUTLIERS = 0.005
_HEAVY_TAILS = 3.0  # excess kurtosis, Laplace's
_SKEWED = 0.5
_LARGE_COUNTS = 100.0  # whole numbers with such a median are taken for amounts, prices in whole dollars say
_IMBALANCED = 4.0
_NOISY = 0.06  # labels without any pattern would give 5.5%
_MAX_LISTED_CLASSES = 10
_PRECISE_BELOW = 100.0  # a larger ratio has no decimal

# The losses that answer a finding, the first to try first.
_ROBUST = ("mae", "huber", "cauchy", "log_cosh")
_FOR_RARE_CLASSES = ("class_balanced", "logit_adjusted", "focal")
_FOR_WRONG_LABELS = ("generalized_cross_entropy",)

Finding = dict[str, Any]


def diagnose(
    target: NDArray[Any], classes: Sequence[Label] | None, features: NDArray[Any] | None, least: float
) -> list[Finding]:
    """Findings about training rows.

    Args:
        target: numbers in original units, or places in ``classes``.
        classes: the labels; None for regression.
        features: encoded, (rows, features); None where rows have no distances: the labels are then not looked into.
        least: the smallest target of all rows: a loss for amounts may not meet a negative one later.

    Returns:
        Each with ``name``, ``value`` (a float), ``text``, ``losses`` (that answer it, the first to try first;
        empty where there is nothing to answer) and ``because`` (why they join a comparison, a clause).
    """
    if classes is None:
        return _diagnose_quantity(target, least)
    return _diagnose_classes(target, classes, features)


def _diagnose_quantity(target: NDArray[np.float64], least: float) -> list[Finding]:
    outliers = _outliers(target)
    tails = _excess_kurtosis(target, is_answered=bool(outliers["losses"]))
    return [outliers, _skewness(target), tails, *_counts_or_amounts(target, least)]


def _outliers(target: NDArray[np.float64]) -> Finding:
    low, median, high = np.quantile(target, [0.25, 0.5, 0.75])
    if low == high:
        share = float((target != median).mean())
        text = (
            f"More than half of the target values are {median:g}; the other {share:.1%} all stand out."
            " Squared error (mse) is ruled by them, absolute error (mae) all but ignores them."
        )
        return _finding("target_outliers", share, text)
    reach = _FAR_OUT * (high - low)
    share = float(((target < low - reach) | (target > high + reach)).mean())
    what = (
        f"{share:.1%} of the target values are outliers (over 3 interquartile ranges outside the middle half)"
    )
    if share < _MANY_OUTLIERS:
        return _finding("target_outliers", share, f"{what}: few or none, as with a normal distribution.")
    text = (
        f"{what}; a normal distribution has next to none. Squared error (mse) gives them great weight, robust"
        " losses (mae, huber, log_cosh, cauchy) do not."
    )
    return _finding("target_outliers", share, text, _ROBUST, f"{share:.1%} of the target values are outliers")


def _standardised(target: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = target - target.mean()
    scale = np.sqrt((deviation**2).mean())
    return np.asarray(deviation / scale if scale > 0 else deviation)


def _skew_of(target: NDArray[np.float64]) -> float:
    return float((_standardised(target) ** 3).mean())


def _skewness(target: NDArray[np.float64]) -> Finding:
    value = _skew_of(target)
    if abs(value) < _SKEWED:
        text = f"The target is spread nearly evenly about its mean (skewness {value:.2f})."
        return _finding("target_skewness", value, text)
    side = "high" if value > 0 else "low"
    text = (
        f"The target has a long tail of {side} values (skewness {value:.2f}): its mean and its median"
        " differ, so squared error, which aims at the mean, and absolute error, which aims at the"
        " median, predict differently."
    )
    return _finding("target_skewness", value, text, ("mae",), "the target's mean and median differ")


def _excess_kurtosis(target: NDArray[np.float64], *, is_answered: bool) -> Finding:
    """``is_answered``: robust losses are called for by the outliers already."""
    value = float((_standardised(target) ** 4).mean() - 3)
    figure = f"(excess kurtosis {value:.2f}, a normal distribution's is 0)"
    if value > 1:
        text = f"The target's tails are heavy {figure}: extreme values are common."
    elif value < -1:
        text = f"The target's tails are light {figure}: extreme values are rare."
    else:
        text = (
            f"The target's tails are about as heavy as a normal distribution's (excess kurtosis {value:.2f})."
        )
    if value > _HEAVY_TAILS and not is_answered:
        return _finding(
            "target_excess_kurtosis", value, text, _ROBUST, f"heavy tails, excess kurtosis {value:.2f}"
        )
    return _finding("target_excess_kurtosis", value, text)


def _counts_or_amounts(target: NDArray[np.float64], least: float) -> list[Finding]:
    """Targets from 0 up with a long tail of high values: counts, positive amounts, or amounts with zeros."""
    mean, scale = float(target.mean()), float(target.std())
    if least < 0 or _skew_of(target) < _SKEWED:
        return []
    zeros = float((target == 0).mean())
    is_whole = bool((target == np.round(target)).all())
    if is_whole and np.median(target) < _LARGE_COUNTS:
        dispersion = scale**2 / mean
        text = (
            f"The target holds counts (whole numbers from 0 up); {zeros:.1%} of them are 0, and their variance is"
            f" {dispersion:.3g} times their mean (a Poisson distribution's is 1). Their logarithm can be modelled:"
            " poisson_nll."
        )
        return [_finding("target_counts", dispersion, text, ("poisson_nll",), "the target holds counts")]
    # The engines take targets so near to 0 for 0: their standardised form is rounded.
    if least > 2e-6 * (mean + scale):
        spread = scale / mean
        text = (
            "The target holds positive amounts with a long tail of high values (their standard deviation is"
            f" {spread:.3g} times their mean). Errors may then count in proportion to the mean: gamma."
        )
        return [_finding("target_amounts", spread, text, ("gamma",), "the target holds positive amounts")]
    text = (
        f"The target holds amounts from 0 up with a long tail of high values; {zeros:.1%} of them are exactly 0."
        " A distribution of both kinds can be modelled: tweedie."
    )
    reason = "the target holds amounts, some of them 0"
    return [_finding("target_amounts_and_zeros", zeros, text, ("tweedie",), reason)]


def _diagnose_classes(
    target: NDArray[np.int64], classes: Sequence[Label], features: NDArray[Any] | None
) -> list[Finding]:
    counts = np.bincount(target, minlength=len(classes))
    shares = counts / len(target)
    smallest = int(shares.argmin())
    rarest = (
        f"The rarest class is {classes[smallest]!r} with {counts[smallest]:,} training"
        f" row{'' if counts[smallest] == 1 else 's'} ({shares[smallest]:.1%})."
    )
    return [
        _finding("largest_class_share", float(shares.max()), _largest(shares, classes)),
        _finding("smallest_class_share", float(shares[smallest]), rarest),
        _imbalance(counts),
        *([] if features is None else _label_noise(target, features)),
    ]


def _largest(shares: NDArray[np.float64], classes: Sequence[Label]) -> str:
    order = np.argsort(-shares, kind="stable")[:_MAX_LISTED_CLASSES]
    listed = ", ".join(f"{classes[place]!r} {shares[place]:.1%}" for place in order)
    more = len(classes) - len(order)
    rest = f", and {more} more class{'es' * (more > 1)}" if more else ""
    return f"The classes' shares of the training rows: {listed}{rest}."


def _imbalance(counts: NDArray[np.int64]) -> Finding:
    ratio = float(counts.max() / max(counts.min(), 1))
    times = f"{ratio:.1f}" if ratio < _PRECISE_BELOW else f"{ratio:,.0f}"
    text = f"The largest class has {times} times as many rows as the rarest"
    if ratio < 1.5:
        return _finding("imbalance_ratio", ratio, f"{text}: the classes are balanced.")
    if ratio < _IMBALANCED:
        return _finding("imbalance_ratio", ratio, f"{text}: the classes are mildly imbalanced.")
    text += (
        ": the classes are imbalanced. Always guessing the largest class is right in"
        f" {counts.max() / counts.sum():.1%} of the rows, so look at balanced accuracy and balanced log loss too."
    )
    # A class without training rows has no weight.
    losses = _FOR_RARE_CLASSES if counts.min() > 0 else ("focal",)
    return _finding(
        "imbalance_ratio",
        ratio,
        text,
        losses,
        f"the largest class is {times} times as large as the rarest",
    )


def _label_noise(target: NDArray[np.int64], features: NDArray[Any]) -> list[Finding]:
    share = share_among_others(features, target)
    if share is None:
        return []
    text = (
        f"{share:.1%} of the rows lie among rows of another class (8 or more of their 10 nearest neighbours,"
        " counted in whichever of the two largest classes has fewer such rows)"
    )
    if share < _NOISY:
        return [_finding("label_noise", share, f"{text}: no hint of wrong labels.")]
    text += (
        ": some labels may be wrong, or the classes overlap. generalized_cross_entropy bounds what one"
        " wrong label can do."
    )
    reason = f"{share:.1%} of the labels contradict their neighbours'"
    return [_finding("label_noise", share, text, _FOR_WRONG_LABELS, reason)]


def _finding(name: str, value: float, text: str, losses: Sequence[str] = (), because: str = "") -> Finding:
    return {"name": name, "value": value, "text": text, "losses": list(losses), "because": because}
