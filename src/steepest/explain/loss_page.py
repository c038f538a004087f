"""The page of a loss: everything from its formula object and its class's signature."""

from __future__ import annotations

from typing import Any

from steepest.explain.interactive import loss_web_page
from steepest.explain.loss_figure import loss_figure
from steepest.explain.page import Explanation
from steepest.explain.signatures import importing, settings, torch_class
from steepest.losses import LossFormula
from steepest.naming import users_module

__all__ = ["loss_page"]

_OUTPUTS = {
    "real": "a real number p",
    "logit": "a logit x",
    "probability": "a probability p",
    "logits": "a logit x_c for each class c",
    "log_probability": "the logarithm x of a probability",
    "log_rate": "the logarithm x of the mean",
    "margin": "a real number x; its sign is the class",
    "distance": "a distance x of the two of a pair",
    "two scores": "a score for each of a pair, x₁ and x₂",
    "two vectors": "a vector for each of a pair, a and b",
    "three vectors": "a vector for each of a triplet: the anchor a, the positive p, the negative n",
    "frames": "a log-probability x_{t,c} for each class c in each frame t",
}
_TARGETS = {
    "real": "a real number y",
    "probability": "a probability y, or a class 0 or 1",
    "class": "a class index, or a probability y_c for each class",
    "classes": "a row's class indices, ended by -1",
    "sign": "a class, y = 1 or y = -1",
    "count": "a count y, 0 or more",
    "positive": "an amount y above 0",
    "sequence": "a sequence of class indices, the blank not among them",
    "none": "none; which vector is which says it",
}
_OF_PAIRS = {
    "distance": "y = 1 for two that belong together, y = -1 for two that do not",
    "two vectors": "y = 1 for two that belong together, y = -1 for two that do not",
    "two scores": "y = 1 where the first is to score higher, y = -1 where the second is",
}
_DEPRECATED = ("size_average", "reduce")  # torch's own word for them


def loss_page(loss: Any) -> Explanation:
    """The page of a loss class."""
    formula: LossFormula = loss.formula
    sections = [
        ("formula", (formula.formula,)),
        ("gradient", (formula.gradient_formula,)),
        ("domain", (formula.domain,)),
        ("model gives", (_OUTPUTS[formula.prediction],)),
        ("target is", (_target(formula),)),
        ("for", (", ".join(formula.tasks) or "PyTorch code of your own",)),
        ("defaults", (", ".join(settings(loss, leave_out=_DEPRECATED)),)),
        ("options", tuple(_option(formula, name) for name in formula.parameters)),
        ("in Python", (_in_python(loss),)),
        ("command", (_command(loss),)),
        ("source", (formula.source,)),
        ("good at", formula.good_at),
        ("bad at", formula.bad_at),
    ]
    return Explanation(
        name=formula.name,
        title=f"{formula.name}: {formula.title}",
        sections=tuple((label, paragraphs) for label, paragraphs in sections if paragraphs),
        make_figure=None if formula.family == "composite" else lambda: loss_figure(formula),
        make_page=lambda page: loss_web_page(formula, page),
    )


def _target(formula: LossFormula) -> str:
    if formula.target == "sign" and formula.prediction in _OF_PAIRS:
        return _OF_PAIRS[formula.prediction]
    return _TARGETS[formula.target]


def _option(formula: LossFormula, name: str) -> str:
    return f"{name} = {formula.parameters[name]:g} unless given, in {formula.valid[name]}"


def _in_python(loss: Any) -> str:
    replaced = torch_class(loss, "torch.nn")
    place = users_module(loss) or "steepest.losses"
    return f"{place}.{loss.__name__}" + (f", in the place of {replaced}" if replaced else "")


def _command(loss: Any) -> str:
    formula: LossFormula = loss.formula
    word = formula.name + importing(loss)
    if not formula.tasks:
        return f"--losses {word}; a comparison takes it only in a training of your own (--train)"
    if formula.compared_by_default:
        return f"--loss {formula.name}; a comparison takes it by itself"
    return f"--loss {word}; a comparison takes it only if named (--losses {formula.name},...)"
