"""The page that sets two comparisons side by side: facts in, one HTML file out that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from steepest.report.build import environment, resource
from steepest.report.words import between, capital, duration, fact, humanise, plural, score_format

__all__ = ["build"]

_LETTERS = ("A", "B")


def build(names: tuple[str, str], found: dict[str, Any]) -> str:
    """The page as HTML text; the same facts give the same text.

    Args:
        names: what to call the two, their directories.
        found: what ``steepest.comparison.beside.set_beside`` gives.
    """
    verdicts = found["verdicts"]
    written = score_format(cell["score"] for verdict in verdicts for cell in verdict["cells"])
    pairs = [_pair(pair, found, written) for pair in found["pairs"]]
    return (
        environment()
        .get_template("beside.html.j2")
        .render(
            style=Markup(resource("style.css")),
            sentence=_sentence(pairs, found),
            why_not=_why_not(found),
            sides=[
                _side(letter, name, verdict)
                for letter, name, verdict in zip(_LETTERS, names, verdicts, strict=True)
            ],
            titles=[verdict["metric_title"] for verdict in verdicts],
            pairs=pairs,
            has_differences=any(pair["difference"] for pair in pairs),
            num_seeds=found["num_seeds"],
            alone=[
                (letter, [_alone(one, written) for one in ones])
                for letter, ones in zip(_LETTERS, found["alone"], strict=True)
                if ones
            ],
            unlike=[_asked(*entry) for entry in found["question"] if entry[1] != entry[2]],
            alike=[_asked(*entry)[:2] for entry in found["question"] if entry[1] == entry[2]],
        )
    )


def _side(letter: str, name: str, verdict: dict[str, Any]) -> dict[str, Any]:
    rows = sum(verdict["num_rows"].values())
    counted = [plural(rows, "row")] * bool(rows) + [plural(verdict["num_runs"], "run")]
    return {
        "letter": letter,
        "name": name,
        "sentence": verdict["sentence"],
        "is_interrupted": verdict["status"] == "interrupted",
        "facts": f"{verdict['metric_title']} of {verdict['target']}, {', '.join(counted)}, "
        f"{duration(verdict['seconds'])}",
    }


def _name(key: Sequence[str]) -> dict[str, str]:
    loss, optimizer, regime, kind = key
    size, _, schedule = regime.partition(" ")
    batch = ("full batch" if size == "full" else f"batch {size}") + f", {schedule}" * bool(schedule)
    return {
        "pair": f"{loss} + {optimizer}",
        "how": f"{batch}, {'untuned default' if kind == 'default' else 'tuned'}",
    }


def _pair(pair: dict[str, Any], found: dict[str, Any], written: Any) -> dict[str, Any]:
    scores = [
        {
            "score": written(cell["score"]),
            "interval": between(cell["interval"], written),
            "lr": f"{cell['lr']:.3g}",
            "wins": wins,
            "barred": cell["barred"],
        }
        for cell, wins in zip(pair["cells"], pair["wins"], strict=True)
    ]
    return _name(pair["key"]) | {
        "scores": scores,
        "difference": _difference(pair["difference"], found, written),
    }


def _difference(given: tuple[float, float, float] | None, found: dict[str, Any], written: Any) -> Any:
    """In words, and as places in per cent on an axis that all pairs share, 0 in its middle."""
    if given is None:
        return None
    ends = [abs(end) for pair in found["pairs"] for end in pair["difference"] or ()]
    reach = 1.05 * max(ends) or 1.0
    mean, low, high = given
    better = max(given[1:]) < 0 or min(given[1:]) > 0
    favours = ""
    if better:
        greater = found["verdicts"][0]["greater_is_better"]
        favours = _LETTERS[(mean > 0) == greater]
    dot, left, right = (50.0 * (1.0 + value / reach) for value in (mean, low, high))
    return {
        "mean": _signed(written(mean)),
        "interval": f"{_signed(written(low))} to {_signed(written(high))}",
        "favours": favours,
        "is_same": low == high == 0.0,
        "dot": f"{dot:.2f}",
        "left": f"{left:.2f}",
        "width": f"{right - left:.2f}",
    }


def _signed(text: str) -> str:
    return text if text.startswith("−") or not text.strip("0.") else f"+{text}"


def _alone(one: dict[str, Any], written: Any) -> dict[str, Any]:
    return _name(one["key"]) | {"score": written(one["cell"]["score"]), "wins": one["wins"]}


def _asked(name: str, one: Any, other: Any) -> tuple[str, str, str]:
    return capital(humanise(name)), _short(one), _short(other)


def _short(value: Any) -> str:
    text = fact(value)
    return f"{text[:16]}…" if len(text) == 64 and text.isalnum() else text


def _why_not(found: dict[str, Any]) -> str:
    """Why there are no differences, if there are none."""
    if found["unlike_test"]:
        names = ", ".join(
            "data" if name == "data_sha256" else humanise(name) for name in found["unlike_test"]
        )
        return (
            f"They were not judged alike (what differs: {names}), so a score of one says nothing beside a score of "
            "the other. Their verdicts can be read side by side."
        )
    if not found["num_seeds"]:
        return "No pair was confirmed on the same seeds in both, so there are no differences seed by seed."
    return ""


def _sentence(pairs: Sequence[dict[str, Any]], found: dict[str, Any]) -> str:
    if not pairs:
        return "The two comparisons have no pair in common."
    told = [pair["difference"] for pair in pairs if pair["difference"]]
    num_shared = sum(all(pair["wins"]) for pair in found["pairs"])
    shared = f"{num_shared} {'is' if num_shared == 1 else 'are'} among the winners of both"
    if not told:
        return f"{plural(len(pairs), 'pair')} in both; {shared}."
    if all(one["is_same"] for one in told):
        return (
            f"The same scores in all {plural(len(told), 'pair')} that both have, to the last digit; {shared}."
        )
    better = [sum(one["favours"] == letter for one in told) for letter in _LETTERS]
    return (
        f"Of the {plural(len(told), 'pair')} that both have, {better[0]} scored better in A, {better[1]} in B, and "
        f"{len(told) - sum(better)} cannot be told apart; {shared}."
    )
