"""The page of an optimizer: everything from its entry, its class's signature and its update rule."""

from __future__ import annotations

from typing import Any

import torch

from steepest.explain.interactive import optimizer_web_page, regime_web_page
from steepest.explain.optimizer_figure import optimizer_figure
from steepest.explain.page import Explanation
from steepest.explain.regime_figure import regime_figure
from steepest.explain.regimes import REGIMES, Regime
from steepest.explain.signatures import importing, settings, torch_class
from steepest.naming import users_module
from steepest.optim import OptimizerEntry

__all__ = ["optimizer_page"]

# How torch computes, not what.
_EXECUTION = ("foreach", "fused", "capturable", "differentiable")


def optimizer_page(entry: OptimizerEntry, regime: Regime | None = None) -> Explanation:
    """The page of an optimizer; with ``regime``, plain gradient descent's under the regime's name."""
    given = {**entry.options, "lr": entry.default_lr}
    sections = [
        ("update", (entry.formula,)),
        ("batch size", _batch_sizes(entry)),
        ("defaults", (", ".join(settings(entry.cls, leave_out=_EXECUTION, given=given)),)),
        (
            "rates tried",
            (f"{entry.rates[0]:g} to {entry.rates[1]:g} at first, farther if the best lies at an end",),
        ),
        ("state", (_state(entry),)),
        ("in Python", (_in_python(entry),)),
        ("command", (_command(entry, regime),)),
        ("source", (entry.source,)),
        ("good at", entry.good_at),
        ("bad at", entry.bad_at),
    ]
    title = f"{entry.name}: {entry.title}"
    if regime is not None:
        title = f"{regime.name}: {entry.title} ({entry.name}) with batch size {regime.batch_size}"
    return Explanation(
        name=entry.name if regime is None else regime.name,
        title=title,
        sections=tuple((label, paragraphs) for label, paragraphs in sections if paragraphs),
        make_figure=lambda: regime_figure() if _is_plain(entry) else optimizer_figure(entry),
        make_page=lambda page: (
            optimizer_web_page(entry, page) if regime is None else regime_web_page(regime, page)
        ),
    )


def _is_plain(entry: OptimizerEntry) -> bool:
    return not _rule(entry).slots


def _rule(entry: OptimizerEntry) -> Any:
    live = entry.cls([torch.nn.Parameter(torch.zeros(1))], **{"lr": entry.default_lr, **entry.options})
    return entry.cls.rule_of(live.param_groups[0])


def _batch_sizes(entry: OptimizerEntry) -> tuple[str, ...]:
    if not _is_plain(entry):
        return ()
    return tuple(f"{regime.name} ({regime.batch_size}): {regime.meaning}" for regime in REGIMES.values())


def _state(entry: OptimizerEntry) -> str:
    slots = _rule(entry).slots
    if not slots:
        return "none"
    return f"{len(slots)} number{'s' if len(slots) > 1 else ''} a parameter: {', '.join(slots)}"


def _in_python(entry: OptimizerEntry) -> str:
    options = "".join(f", {name}={value!r}" for name, value in entry.options.items())
    place = users_module(entry.cls) or "steepest.optim"
    call = f"{place}.{entry.cls.__name__}(parameters, lr={entry.default_lr:g}{options})"
    replaced = torch_class(entry.cls, "torch.optim")
    return call + (f", in the place of {replaced}" if replaced else "")


def _command(entry: OptimizerEntry, regime: Regime | None) -> str:
    size = "" if regime is None else f" --batch-size {regime.batch_size}"
    if entry.compared_by_default:
        return f"--optimizer {entry.name}{size}; a comparison takes it by itself"
    word = entry.name + importing(entry.cls)
    return f"--optimizer {word}; a comparison takes it only if named (--optimizers {entry.name},...)"
