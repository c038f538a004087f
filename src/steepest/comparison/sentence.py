"""The verdict in one plain sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from steepest.comparison.plan import Plan
from steepest.comparison.ranking import Contestant
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.screen.console import number
from steepest.training.metrics import METRICS
from steepest.training.run import OWN

__all__ = ["sentence", "sentence_so_far"]

_HUGE = 1e9  # nobody counts so many digits
_MOST_DECIMALS = 8  # nor so many zeros


def sentence(plan: Plan, contestants: Sequence[Contestant], winners: Sequence[Contestant]) -> str:
    """What to use and how sure that is; or that nothing wins, and what to take then."""
    if not winners:
        return _nothing(plan, contestants)
    take = winners[0]
    equal = len({contestant.finalist.cell for contestant in winners})
    as_good = f"{equal} of {len(plan.cells)} {_pairs(plan)} are equally good, as far as the seeds can tell"
    if take.finalist.kind == "default":
        rest = f"; {as_good}" if equal > 1 else _better_than(plan, contestants, alone="")
        return f"Nothing beat an untuned default: use {_name(take)}, {_measured(take, plan)}{rest}."
    if equal > 1:
        return (
            f"No clear winner: {as_good}; take {_name(take)}, the easiest to tune: {_measured(take, plan)}."
        )
    # The default may be among the winners: then it is the worse one by luck alone, for all that is known.
    alone = (
        "; its untuned default is as good, as far as the seeds can tell"
        if len(winners) > 1
        else ", better than its untuned default"
    )
    rest = _better_than(plan, contestants, alone=alone)
    return f"Use {_name(take)}: {_measured(take, plan)}{rest}."


def sentence_so_far(plan: Plan, contestants: Sequence[Contestant], winners: Sequence[Contestant]) -> str:
    """What an interrupted comparison can say, and that it is no verdict."""
    if not winners:
        return "Interrupted: too few runs had ended with a score, so there is nothing to say yet."
    best = winners[0]
    tried = len(contestants)
    place = (
        f"the best of {tried} {_pairs(plan)} tried" if tried > 1 else f"the only {_pairs(plan)[:-1]} tried"
    )
    return (
        f"Interrupted: no verdict. So far {_name(best)} is {place}, "
        f"with a validation {METRICS[plan.metric].title} of {_written(best)} over {_num_seeds(best)}, "
        "unconfirmed."
    )


def _nothing(plan: Plan, contestants: Sequence[Contestant]) -> str:
    first = next(contestant for contestant in contestants if contestant.finalist.kind == "tuned")
    count = len(plan.cells)
    barred = f"all {count} are barred" if count > 1 else "the only one is barred"
    return f"No {_pairs(plan)[:-1]} can be recommended: {barred} ({_name(first)}: {first.barred})."


def _better_than(plan: Plan, contestants: Sequence[Contestant], *, alone: str) -> str:
    """What a single winner left behind, and how many did not take part; ``alone``: there was no other."""
    racing = len({contestant.finalist.cell for contestant in contestants if contestant.barred is None})
    others, barred = racing - 1, len(plan.cells) - racing
    if others == 0:
        return f"; every other {_pairs(plan)[:-1]} is barred" if barred else alone
    pairs = _pairs(plan)[:-1] if others == 1 else f"{others} {_pairs(plan)}"
    return f", better than the other {pairs}" + (f" ({barred} barred)" if barred else "")


def _pairs(plan: Plan) -> str:
    return "pairs" if len(plan.batch_sizes) == len(plan.schedules) == 1 else "combinations"


def _name(contestant: Contestant) -> str:
    finalist = contestant.finalist
    size = finalist.cell.batch_size
    batch = {"full": ["full batch"], OWN: []}.get(str(size), [f"batch {size}"])
    schedule = [finalist.cell.schedule] * (finalist.cell.schedule != "constant")
    options = [f"{name} {value:g}" for name, value in finalist.setting.options]
    settings = [*batch, *schedule, *options]
    rate = "its default learning rate" if finalist.kind == "default" else "learning rate"
    return (
        f"{loss_name(finalist.cell.loss)} with {optimizer_name(finalist.cell.optimizer)} "
        f"at {rate} {finalist.lr:g}" + (f" ({', '.join(settings)})" if settings else "")
    )


def loss_name(word: str) -> str:
    """``"mse"`` as ``"MSE"``, ``"huber"`` as ``"Huber"``: initials in capitals, others by their title."""
    if word == OWN:
        return "your own loss"
    title = LOSSES[word].formula.title
    initials = "".join(part[0] for part in re.findall(r"[a-z]+", title.lower()))
    return word.upper() if initials.startswith(word) else title.removesuffix(" loss")


def optimizer_name(word: str) -> str:
    """The word as its title or its class spells it: ``RMSProp``, ``SGD``, ``momentum``."""
    entry = OPTIMIZERS[word]
    return next((name for name in (entry.title, entry.cls.__name__) if name.lower() == word), word)


def _measured(contestant: Contestant, plan: Plan) -> str:
    seeds = _num_seeds(contestant) + ", a split each" * (plan.splits > 1)
    ends = [_figures(end, _decimals(contestant)) for end in contestant.interval or ()]
    interval = f"95% interval {' to '.join(ends)} " * bool(ends)
    return f"test {METRICS[plan.metric].title} {_written(contestant)} ({interval}over {seeds})"


def _written(contestant: Contestant) -> str:
    return _figures(contestant.score, _decimals(contestant))


def _figures(value: float, decimals: int) -> str:
    """With its thousands apart, as in the table below the sentence."""
    if abs(value) >= _HUGE or decimals > _MOST_DECIMALS:
        return number(value)
    return f"{value:,.{decimals}f}"


def _decimals(contestant: Contestant) -> int:
    """As many as the interval's width calls for, and at least three digits of the score."""
    low, high = contestant.interval or (0.0, 0.0)
    finest = min(high - low, abs(contestant.score) / 100) if high > low else abs(contestant.score) / 100
    return max(0, -math.floor(math.log10(finest))) if finest > 0 else 3


def _num_seeds(contestant: Contestant) -> str:
    return f"{len(contestant.scores)} seed{'s' * (len(contestant.scores) != 1)}"
