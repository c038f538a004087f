"""The verdict in one plain sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from steepest.comparison.plan import Plan
from steepest.comparison.ranking import Contestant
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.training.metrics import METRICS

__all__ = ["sentence", "sentence_so_far"]


def sentence(plan: Plan, contestants: Sequence[Contestant], winners: Sequence[Contestant]) -> str:
    """What to use and how sure that is; or that nothing wins, and what to take then."""
    num_pairs, pairs = len(plan.cells), _pairs(plan)
    if not winners:
        return _nothing(plan, contestants)
    take = winners[0]
    equal = len({contestant.finalist.cell for contestant in winners})
    if take.finalist.kind == "default":
        rest = _rest(equal, num_pairs, pairs)
        return f"Nothing beat an untuned default: use {_name(take)}, {_measured(take, plan)}{rest}."
    if equal > 1:
        return (
            f"No clear winner: {equal} of {num_pairs} {pairs} are equally good, as far as the seeds can "
            f"tell; take {_name(take)}, the easiest to tune: {_measured(take, plan)}."
        )
    return f"Use {_name(take)}: {_measured(take, plan)}{_better_than(num_pairs, pairs)}."


def sentence_so_far(plan: Plan, contestants: Sequence[Contestant], winners: Sequence[Contestant]) -> str:
    """What an interrupted comparison can say, and that it is no verdict."""
    if not winners:
        return "Interrupted: no run had ended with a score, so there is nothing to say yet."
    best = winners[0]
    tried = sum(len(contestant.scores) > 0 for contestant in contestants)
    return (
        f"Interrupted: no verdict. So far {_name(best)} is the best of {tried} {_pairs(plan)} tried, "
        f"with a validation {_metric(plan)} of {_written(best)} over {_num_seeds(best)}, unconfirmed."
    )


def _nothing(plan: Plan, contestants: Sequence[Contestant]) -> str:
    first = next(contestant for contestant in contestants if contestant.finalist.kind == "tuned")
    count = len(plan.cells)
    return (
        f"No {_pairs(plan)[:-1]} can be recommended: all {count} are barred ({_name(first)} {first.barred})."
    )


def _rest(equal: int, num_pairs: int, pairs: str) -> str:
    if equal > 1:
        how_many = f"all {num_pairs}" if equal == num_pairs else f"{equal} of {num_pairs}"
        return f"; {how_many} {pairs} are equally good, as far as the seeds can tell"
    return f"; the other {num_pairs - 1} {pairs} are worse" if num_pairs > 2 else ""


def _better_than(num_pairs: int, pairs: str) -> str:
    if num_pairs == 1:
        return ", better than its untuned default"
    others = f"{num_pairs - 1} {pairs}" if num_pairs > 2 else pairs[:-1]
    return f", better than the other {others}"


def _pairs(plan: Plan) -> str:
    return "pairs" if len(plan.batch_sizes) == 1 else "combinations"


def _name(contestant: Contestant) -> str:
    finalist = contestant.finalist
    size = finalist.cell.batch_size
    batch = "full batch" if size == "full" else f"batch {size}"
    rate = "its default learning rate" if finalist.kind == "default" else "learning rate"
    return (
        f"{loss_name(finalist.cell.loss)} with {optimizer_name(finalist.cell.optimizer)} "
        f"at {rate} {finalist.lr:g} ({batch})"
    )


def loss_name(word: str) -> str:
    """``"mse"`` as ``"MSE"``, ``"huber"`` as ``"Huber"``: initials in capitals, others by their title."""
    title = LOSSES[word].formula.title
    initials = "".join(part[0] for part in re.findall(r"[a-z]+", title.lower()))
    return word.upper() if initials.startswith(word) else title.removesuffix(" loss")


def optimizer_name(word: str) -> str:
    """The word as its title or its class spells it: ``RMSProp``, ``SGD``, ``momentum``."""
    entry = OPTIMIZERS[word]
    return next((name for name in (entry.title, entry.cls.__name__) if name.lower() == word), word)


def _measured(contestant: Contestant, plan: Plan) -> str:
    low, high = contestant.interval or (math.nan, math.nan)
    decimals = _decimals(contestant)
    return (
        f"test {_metric(plan)} {_written(contestant)} "
        f"(95% interval {low:.{decimals}f} to {high:.{decimals}f} over {_num_seeds(contestant)})"
    )


def _metric(plan: Plan) -> str:
    title = METRICS[plan.metric].title
    return title if title.isupper() else title[:1].lower() + title[1:]


def _written(contestant: Contestant) -> str:
    return f"{contestant.score:.{_decimals(contestant)}f}"


def _decimals(contestant: Contestant) -> int:
    """As many as the interval's width calls for, and at least three digits of the score."""
    low, high = contestant.interval or (0.0, 0.0)
    finest = min(high - low, abs(contestant.score) / 100) if high > low else abs(contestant.score) / 100
    return min(8, max(0, -math.floor(math.log10(finest)))) if finest > 0 else 3


def _num_seeds(contestant: Contestant) -> str:
    return f"{len(contestant.scores)} seed{'s' * (len(contestant.scores) != 1)}"
