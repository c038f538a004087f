"""Intervals over ten seeds: planted ties are called ties, planted winners are found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from steepest.comparison.statistics import corrected_p_values, difference_intervals, mean_interval

NUM_SEEDS = 10
REPETITIONS = 200


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_mean_is_covered_as_often_as_is_said() -> None:
    draws = np.random.default_rng(1).normal(size=(REPETITIONS, NUM_SEEDS))
    intervals = [mean_interval(scores, rng()) for scores in draws]
    covered = np.mean([low <= 0.0 <= high for low, high in intervals])
    assert 0.90 <= covered <= 0.99


def test_an_interval_is_a_function_of_scores_and_seed() -> None:
    scores = np.random.default_rng(2).normal(size=NUM_SEEDS)
    assert mean_interval(scores, rng()) == mean_interval(scores, rng())
    low, high = mean_interval(scores, rng())
    assert low < scores.mean() < high


@pytest.mark.parametrize("scores", [[3.0], [3.0, 3.0, 3.0]])
def test_where_nothing_varies_the_interval_is_a_point(scores: list[float]) -> None:
    assert mean_interval(np.array(scores), rng()) == (3.0, 3.0)


def against_best(scores: np.ndarray) -> tuple[int, np.ndarray]:
    """The best row, and the lower ends of all rows' differences to it."""
    best = int(scores.mean(axis=1).argmin())
    return best, difference_intervals(scores - scores[best], rng())[:, 0]


@pytest.mark.parametrize("num_contestants", [2, 6])
def test_a_planted_tie_has_a_single_winner_at_most_once_in_twenty(num_contestants: int) -> None:
    draw = np.random.default_rng(3)
    false_winners = 0
    for _ in range(REPETITIONS):
        _, lowest = against_best(draw.normal(size=(num_contestants, NUM_SEEDS)) + draw.normal(size=NUM_SEEDS))
        false_winners += (lowest > 0).sum() == num_contestants - 1
    assert false_winners <= 0.05 * REPETITIONS


def test_in_a_tie_of_many_a_planted_best_is_rarely_declared_worse() -> None:
    draw = np.random.default_rng(4)
    lost = 0
    for _ in range(REPETITIONS):
        _, lowest = against_best(draw.normal(size=(18, NUM_SEEDS)))
        lost += lowest[0] > 0
    assert lost <= 0.05 * REPETITIONS


def test_a_planted_winner_is_found_nine_times_in_ten() -> None:
    draw = np.random.default_rng(5)
    found = 0
    for _ in range(REPETITIONS):
        scores = draw.normal(size=(6, NUM_SEEDS)) + 5 * draw.normal(size=NUM_SEEDS)
        scores[1:] += 3.0
        best, lowest = against_best(scores)
        found += best == 0 and (lowest > 0).sum() == 5
    assert found >= 0.9 * REPETITIONS


def test_equal_scores_differ_by_nothing() -> None:
    scores = np.tile(np.arange(10.0), (3, 1))
    assert (difference_intervals(scores - scores[0], rng()) == 0).all()
    assert (
        difference_intervals(scores - scores[0] + [[0.0], [1.0], [2.0]], rng()) == [[0, 0], [1, 1], [2, 2]]
    ).all()


# --- tests -------------------------------------------------------------------------------------------------------


def test_the_permutation_test_is_scipys() -> None:
    draws = np.random.default_rng(7).normal(0.4, 1.0, size=(1, NUM_SEEDS))
    (ours,) = corrected_p_values(draws, rng())
    its = stats.permutation_test(
        (draws[0],), np.mean, permutation_type="samples", alternative="two-sided", n_resamples=np.inf
    )
    assert ours == pytest.approx(its.pvalue, abs=1e-12)


def test_holms_correction_is_the_published_one() -> None:
    # All signs of ten seeds: the smallest two-sided p is 2 / 1024, times three for three contestants.
    clear, none = np.ones(NUM_SEEDS), np.zeros(NUM_SEEDS)
    mixed = np.array([1.0, -1.0] * 5)
    assert corrected_p_values(np.stack([clear, none, mixed]), rng()).tolist() == [3 * 2 / 1024, 1.0, 1.0]


@pytest.mark.parametrize("num_seeds", [NUM_SEEDS, 20])
def test_among_many_ties_one_is_called_different_at_most_once_in_twenty(num_seeds: int) -> None:
    draw = np.random.default_rng(8)
    false = sum(
        corrected_p_values(draw.normal(size=(6, num_seeds)), rng()).min() < 0.05 for _ in range(REPETITIONS)
    )
    assert false <= 0.05 * REPETITIONS + 2 * np.sqrt(0.05 * 0.95 * REPETITIONS)
    assert corrected_p_values(draw.normal(2.0, 1.0, (6, num_seeds)), rng()).max() < 0.05
