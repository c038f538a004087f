"""Intervals over ten seeds: planted ties are called ties, planted winners are found."""

from __future__ import annotations

import numpy as np
import pytest

from steepest.comparison.statistics import (
    difference_intervals,
    holm,
    mean_interval,
    paired_p_values,
    seeds_to_tell,
)

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


def test_where_nothing_varies_the_interval_is_a_point() -> None:
    assert mean_interval(np.array([3.0, 3.0, 3.0]), rng()) == (3.0, 3.0)


def test_one_seed_has_no_interval() -> None:
    assert mean_interval(np.array([3.0]), rng()) is None


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


def test_the_paired_test_is_the_exact_one_and_its_sample_agrees() -> None:
    from scipy import stats

    draw = np.random.default_rng(6)
    for num_seeds in (6, 20):
        differences = draw.normal(0.4, 1.0, size=num_seeds)
        found = paired_p_values(differences[None], rng())[0]
        theirs = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=0
        ).pvalue
        assert found == pytest.approx(theirs, abs=1e-12 if num_seeds == 6 else 0.015)


def test_no_difference_has_p_one_and_a_steady_one_the_least_there_is() -> None:
    found = paired_p_values(np.stack([np.zeros(10), np.full(10, 0.1)]), rng())
    assert found.tolist() == [1.0, 2 / 2**10]


def test_holms_correction_is_his_procedure() -> None:
    # Worked by hand: 4 * .01, 3 * .02, then 2 * .03 and 1 * .035 are lifted to what came before.
    assert holm(np.array([0.03, 0.01, 0.035, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])
    assert holm(np.array([])).shape == (0,)


@pytest.mark.parametrize("num_contestants", [2, 8, 36, 80, 1000])
def test_so_many_seeds_are_just_enough_to_tell_all_from_the_best(num_contestants: int) -> None:
    enough = seeds_to_tell(num_contestants)
    for num_seeds in (enough, enough - 1):
        least = np.full(num_contestants - 1, 2.0 / 2**num_seeds)
        assert bool(holm(least).max() <= 0.05) is (num_seeds == enough)
