"""Every public name says what it is, what it takes, what it raises and where it is from; and its example runs."""

from __future__ import annotations

import doctest
import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import steepest
from steepest import losses, optim, schedules, testing
from steepest.losses import LOSSES, functional
from steepest.optim import OptimizerSwitches

from .place import generator

SHARED = {name for names in generator().SHARED_ARGUMENTS for name in names.split(", ")}
# What a dataclass or a class of switches holds is said beside its fields or in a list, and Python shows it so.
RECORDS = {"Interval", "LossFormula", "OptimizerEntry", "OptimizerSwitches", "Rule", "Schedule", "Switches"}


def public() -> Iterator[tuple[str, Any]]:
    for module in (steepest, losses, functional, optim, schedules, testing):
        for name in module.__all__:
            yield f"{module.__name__}.{name}", getattr(module, name)


OBJECTS = {name: value for name, value in public() if callable(value)}
LOSS_CLASSES = {name for name, value in OBJECTS.items() if value in list(LOSSES.values())}
OPTIMIZER_CLASSES = {
    name
    for name, value in OBJECTS.items()
    if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)
}
FUNCTIONS = {name for name in OBJECTS if name.startswith(functional.__name__)}
MAKERS = set(OBJECTS) - LOSS_CLASSES - OPTIMIZER_CLASSES - FUNCTIONS


def own_docstring(value: Any) -> str:
    """Not one inherited from torch."""
    return inspect.cleandoc(
        value.__dict__.get("__doc__") or "" if inspect.isclass(value) else value.__doc__ or ""
    )


def section(text: str, name: str) -> str:
    """What stands under ``Args:`` or ``Raises:``."""
    found = re.search(rf"^{name}:\n((?:(?: .*)?\n)*)", text + "\n", re.MULTILINE)
    return found.group(1) if found else ""


def arguments(value: Any) -> set[str]:
    """Those of the signature; for an optimizer's ``**switches`` the name of each will do."""
    each = "|".join(["switches", *OptimizerSwitches.__annotations__])
    names = set(inspect.signature(value).parameters)
    return {each if name == "switches" and _is_optimizer(value) else name for name in names}


def _is_optimizer(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)


def unsaid(names: set[str], text: str) -> list[str]:
    return sorted(name for name in names if not re.search(rf"\b(?:{name})\b", text))


@pytest.mark.parametrize("name", OBJECTS)
def test_it_has_a_docstring_that_begins_with_a_sentence(name: str) -> None:
    text = own_docstring(OBJECTS[name])
    assert text, f"{name} has no docstring of its own"
    assert re.search(r"[.:;]$", text.split("\n\n")[0]), "the first paragraph is no sentence"


@pytest.mark.parametrize("name", sorted(LOSS_CLASSES | OPTIMIZER_CLASSES))
def test_a_class_has_all_its_sections(name: str) -> None:
    text = own_docstring(OBJECTS[name])
    assert unsaid(arguments(OBJECTS[name]), section(text, "Args")) == []
    assert section(text, "Raises")
    assert re.search(r"^Source: .*(\d{4}|torch|section|eq\.)", text, re.MULTILINE | re.DOTALL)
    assert re.search(r"^>>> ", text, re.MULTILINE)
    if name in LOSS_CLASSES:
        assert re.search(r"^Shapes: ", text, re.MULTILINE)
    else:
        assert re.search(r"``\w+ = ", text), "no formula"


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_function_says_what_it_takes(name: str) -> None:
    value = OBJECTS[name]
    text = own_docstring(value)
    is_made_by_the_user = name in ("steepest.schedules.ScheduleLR", "steepest.TrainingTrial")
    if (
        inspect.isclass(value) and not is_made_by_the_user
    ):  # made by the library, or a record; its fields have words of their own
        assert value.__name__ in RECORDS or "Attributes:\n" in text or issubclass(value, Exception)
        return
    assert unsaid(arguments(value), section(text, "Args")) == []
    assert section(text, "Raises")


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_functional_loss_leads_to_what_explains_it(name: str) -> None:
    """To its class, whose arguments are explained there; to torch's function of that name; or it says all itself."""
    value = OBJECTS[name]
    text = own_docstring(value)
    known = text
    for loss in LOSSES.values():
        if loss.__module__ == value.__module__:
            known += own_docstring(loss)
    peer = getattr(torch.nn.functional, value.__name__, None)
    said_by_torch = set(inspect.signature(peer).parameters) if peer else set()
    assert unsaid(arguments(value) - SHARED - said_by_torch, known) == []


EXAMPLES = [
    pytest.param(example, id=name)
    for name, value in OBJECTS.items()
    for example in doctest.DocTestFinder(recurse=False).find(
        value, name, module=False, globs=dict(vars(sys.modules[value.__module__]))
    )
    if example.examples
]


def test_the_examples_are_found() -> None:
    """Every loss and optimizer has one; a change of doctest's ways would find none."""
    assert {parameter.id for parameter in EXAMPLES} >= LOSS_CLASSES | OPTIMIZER_CLASSES


@pytest.mark.filterwarnings(
    "ignore:Converting a tensor with requires_grad"
)  # float(p), which torch 2.13 warns of
@pytest.mark.parametrize("example", EXAMPLES)
def test_its_example_runs(example: doctest.DocTest) -> None:
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(example, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
