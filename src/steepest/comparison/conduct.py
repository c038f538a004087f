"""A comparison from its plan to its winners: tune, confirm, score once on the test rows, rank."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from steepest.comparison.confirm import confirm, finalists_from_tuning, score_on_test
from steepest.comparison.journal import Journal
from steepest.comparison.plan import Plan
from steepest.comparison.progress import Progress
from steepest.comparison.ranking import Contestant, rank, rank_so_far, still_improving, winner_set
from steepest.comparison.sentence import sentence, sentence_so_far
from steepest.comparison.splits import Splits
from steepest.comparison.trials import Interrupted, Trials
from steepest.comparison.tune import tune, tuned_so_far
from steepest.training.metrics import METRICS

__all__ = ["Outcome", "conduct", "found_so_far"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a plan: every contestant best first, the winner set, and the sentence about it."""

    trials: Trials
    contestants: Sequence[Contestant]
    winners: Sequence[Contestant]
    sentence: str
    notes: Sequence[str]
    interrupted: bool


def conduct(
    plan: Plan,
    splits: Splits,
    num_threads: int | None,
    progress: Progress,
    stop_event: threading.Event,
    journal: Journal | None = None,
) -> Outcome:
    """Follow the plan; an interruption gives what is known so far. What the journal knows is not run again."""
    trials = Trials(
        plan, splits, num_threads=num_threads, progress=progress, stop_event=stop_event, journal=journal
    )
    try:
        tuned = tune(plan, trials)
        finalists = confirm(plan, trials, tuned)
    except Interrupted:
        return found_so_far(plan, trials)
    score_on_test(plan, trials, finalists, splits)
    contestants = rank(plan, trials, finalists)
    winners = winner_set(plan, contestants)
    text = sentence(plan, contestants, winners)
    return Outcome(
        trials, contestants, winners, text, _notes(plan, trials, contestants, winners), interrupted=False
    )


def found_so_far(plan: Plan, trials: Trials) -> Outcome:
    """The best by validation score on the tuning seeds; the test rows stay untouched."""
    ranked = rank_so_far(plan, trials, finalists_from_tuning(plan, tuned_so_far(plan, trials)))
    contestants = [contestant for contestant in ranked if contestant.scores.size]
    winners = [contestant for contestant in contestants[:1] if contestant.barred is None]
    note = "Interrupted: the scores are validation scores on the tuning seeds, not test scores on fresh ones."
    text = sentence_so_far(plan, contestants, winners)
    return Outcome(trials, contestants, winners, text, [note], interrupted=True)


def _notes(
    plan: Plan, trials: Trials, contestants: Sequence[Contestant], winners: Sequence[Contestant]
) -> list[str]:
    """What the protocol had to say about the cells."""
    notes = []
    edge = [one for one in contestants if one.finalist.kind == "tuned" and not one.finalist.tuned]
    if edge:
        names = ", ".join(f"{one.finalist.cell.loss} + {one.finalist.cell.optimizer}" for one in edge)
        notes.append(
            f"Barred from winning, as their best rate is still the last of the widened grid: {names}."
        )
    notes += _notes_on_resolution(plan, trials, contestants)
    if winners and still_improving(plan, winners[0]):
        notes.append(
            f"The winner was still improving when its runs ended, at epoch {plan.epochs}; longer ones may choose "
            f"another pair, or a smaller rate: try --epochs {3 * plan.epochs}."
        )
    return notes


def _notes_on_resolution(plan: Plan, trials: Trials, contestants: Sequence[Contestant]) -> list[str]:
    """That scores counted as equal which the rows are too few to tell apart, where any did."""
    places = []
    if any(one.validation_score < trials.least_on_validation for one in contestants):
        places.append(f"{trials.least_on_validation:.2g} on the validation rows")
    if any((one.scores < trials.least_on_test).any() for one in contestants):
        places.append(f"{trials.least_on_test:.2g} on the test rows")
    if not places:
        return []
    title = METRICS[plan.metric].title
    why = "so few rows, even all predicted right, vouch for no smaller one; it would only show how sure the model is"
    return [
        f"A {title} counts as no better below {' and '.join(places)}: {why}. Of equal rates the middle one was taken."
    ]
