"""The reliability bins and the expected calibration error, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from steepest.training.calibration import NUM_BINS, expected_calibration_error, reliability

RANDOM = np.random.default_rng(11)


def test_two_classes_have_scikit_learns_curve() -> None:
    from sklearn.calibration import calibration_curve

    stated = RANDOM.random(500)
    y = (RANDOM.random(500) < stated**2).astype(np.int64)
    bins = reliability(y, np.stack([1 - stated, stated], axis=1))
    observed, predicted = calibration_curve(y, stated, n_bins=NUM_BINS)
    np.testing.assert_allclose(bins[:, 1] / bins[:, 0], predicted)
    np.testing.assert_allclose(bins[:, 2] / bins[:, 0], observed)
    assert bins[:, 0].sum() == 500
    shares = bins[:, 0] / 500
    assert expected_calibration_error(bins) == pytest.approx((shares * np.abs(observed - predicted)).sum())


def test_several_classes_are_judged_by_the_class_predicted() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.68, 0.22], [0.3, 0.3, 0.4]])
    bins = reliability(np.array([0, 2, 2]), probabilities)
    assert bins[10].tolist() == pytest.approx([2, 1.38, 1])  # (10/15, 11/15] holds 0.68 and 0.7: one is right
    assert bins[5].tolist() == pytest.approx([1, 0.4, 1])  # (5/15, 6/15] holds its upper end
    assert expected_calibration_error(bins) == pytest.approx((0.38 + 0.6) / 3)


def test_sure_and_right_is_without_error_and_the_ends_lie_in_a_bin() -> None:
    y = np.array([0, 1, 1])
    bins = reliability(y, np.stack([1.0 - y, y.astype(float)], axis=1))
    assert (bins[0, 0], bins[-1, 0]) == (1, 2)
    assert expected_calibration_error(bins) == 0
    assert expected_calibration_error(reliability(1 - y, np.stack([1.0 - y, y * 1.0], axis=1))) == 1
