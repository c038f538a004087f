"""What the data look like to a loss: figures of the training rows' target, in plain words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.data.encoding import Label

__all__ = ["diagnose"]

_ROBUST_SIGMA = 1.4826  # of a normal distribution, the standard deviation a median absolute deviation
_MAX_LISTED_CLASSES = 10

Finding = dict[str, Any]


def diagnose(target: NDArray[Any], classes: list[Label] | None) -> list[Finding]:
    """Findings about a target, each with ``name``, ``value`` (a float) and ``text``.

    Args:
        target: the training rows' target: numbers in original units, or places in ``classes``.
        classes: the labels; None for regression.
    """
    if classes is None:
        return _diagnose_quantity(target)
    return _diagnose_classes(target, classes)


def _diagnose_quantity(target: NDArray[np.float64]) -> list[Finding]:
    findings = [_outliers(target), _skewness(target), _excess_kurtosis(target)]
    is_count = bool((target >= 0).all() and (target == np.round(target)).all())
    return findings + [_zeros(target)] * is_count


def _outliers(target: NDArray[np.float64]) -> Finding:
    median = np.median(target)
    distance = np.abs(target - median)
    sigma = _ROBUST_SIGMA * np.median(distance)
    if sigma == 0:
        share = float((distance > 0).mean())
        text = (
            f"More than half of the target values are {median:g}; the other {share:.1%} all stand out."
            " Squared error (mse) is ruled by them, absolute error (mae) all but ignores them."
        )
        return _finding("target_outliers", share, text)
    share = float((distance > 3 * sigma).mean())
    expected = (
        "about what a normal distribution has (0.3%)"
        if share < 0.01
        else "far more than a normal distribution's 0.3%"
    )
    text = (
        f"{share:.1%} of the target values are outliers (over 3 robust standard deviations from the median):"
        f" {expected}."
    )
    if share >= 0.01:
        text += " Squared error (mse) gives them great weight; absolute error (mae) and huber do not."
    return _finding("target_outliers", share, text)


def _standardised(target: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = target - target.mean()
    scale = np.sqrt((deviation**2).mean())
    return np.asarray(deviation / scale if scale > 0 else deviation)


def _skewness(target: NDArray[np.float64]) -> Finding:
    value = float((_standardised(target) ** 3).mean())
    if abs(value) < 0.5:
        text = f"The target is spread nearly evenly about its mean (skewness {value:.2f})."
    else:
        side = "high" if value > 0 else "low"
        text = (
            f"The target has a long tail of {side} values (skewness {value:.2f}): its mean and its median"
            " differ, so squared error, which aims at the mean, and absolute error, which aims at the"
            " median, predict differently."
        )
    return _finding("target_skewness", value, text)


def _excess_kurtosis(target: NDArray[np.float64]) -> Finding:
    value = float((_standardised(target) ** 4).mean() - 3)
    if value > 1:
        text = (
            f"The target's tails are heavy (excess kurtosis {value:.2f}, a normal distribution's is 0):"
            " extreme values are common."
        )
    elif value < -1:
        text = (
            f"The target's tails are light (excess kurtosis {value:.2f}, a normal distribution's is 0):"
            " extreme values are rare."
        )
    else:
        text = (
            f"The target's tails are about as heavy as a normal distribution's (excess kurtosis {value:.2f})."
        )
    return _finding("target_excess_kurtosis", value, text)


def _zeros(target: NDArray[np.float64]) -> Finding:
    value = float((target == 0).mean())
    return _finding(
        "target_zeros",
        value,
        f"The target holds counts (whole numbers from 0 up); {value:.1%} of them are 0.",
    )


def _diagnose_classes(target: NDArray[np.int64], classes: list[Label]) -> list[Finding]:
    counts = np.bincount(target, minlength=len(classes))
    shares = counts / len(target)
    largest, smallest = int(shares.argmax()), int(shares.argmin())
    ratio = float(counts[largest] / max(counts[smallest], 1))
    return [
        _finding("largest_class_share", float(shares[largest]), _largest(shares, classes)),
        _finding(
            "smallest_class_share",
            float(shares[smallest]),
            f"The rarest class is {classes[smallest]!r} with {counts[smallest]} training rows"
            f" ({shares[smallest]:.1%}).",
        ),
        _finding("imbalance_ratio", ratio, _imbalance(ratio, float(shares[largest]))),
    ]


def _largest(shares: NDArray[np.float64], classes: list[Label]) -> str:
    order = np.argsort(-shares, kind="stable")[:_MAX_LISTED_CLASSES]
    listed = ", ".join(f"{classes[place]!r} {shares[place]:.1%}" for place in order)
    rest = f", and {len(classes) - len(order)} more classes" if len(classes) > len(order) else ""
    return f"The classes' shares of the training rows: {listed}{rest}."


def _imbalance(ratio: float, largest_share: float) -> str:
    text = f"The largest class has {ratio:.1f} times as many rows as the rarest"
    if ratio < 1.5:
        return f"{text}: the classes are balanced."
    if ratio < 4:
        return f"{text}: the classes are mildly imbalanced."
    return (
        f"{text}: the classes are imbalanced. Always guessing the largest class is right in"
        f" {largest_share:.1%} of the rows, so judge by log loss or balanced accuracy rather than by"
        " accuracy."
    )


def _finding(name: str, value: float, text: str) -> Finding:
    return {"name": name, "value": value, "text": text}
