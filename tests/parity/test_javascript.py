"""Formulas as JavaScript, run in a real browser, against 256-bit truth and against the library itself."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import numpy as np
import pytest
import torch
from tests.contract.samples import generator, pointwise_samples
from tests.contract.truth import VOCABULARY as EXACT
from tests.contract.truth import in_full_precision, mp, ulps_off

from steepest import optim
from steepest.backends import reference
from steepest.backends.derive import derivative
from steepest.backends.javascript import Program
from steepest.errors import InputError
from steepest.losses import LOSSES, LossFormula
from steepest.optim import OPTIMIZERS, Rule
from steepest.optim.averages import bias_correction
from steepest.testing.exact import _with_words as with_words

WORDS = [word for word in EXACT if word != "where"]
COMPILED = [name for name in LOSSES if LOSSES[name].formula.family != "composite"]

# In units in the last place.
WORD_BAR = 2.0
SIGMOID_POWER_BAR = 8.0  # two exponentials; an exponent multiplies the error of the second
ERF_BAR = 6.0  # a sum of 40 terms
LOSS_BAR = 4.0  # and beyond that twice what the library's own number is off
# A power multiplies the error of its base by its exponent: gamma, or half of Barron's alpha.
POWERS = ("binary_focal", "asymmetric", "focal", "barron")


class Page:
    """Calls a function of a program on rows of numbers, in a page."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def call(self, source: str, name: str, rows: Sequence[Sequence[float]]) -> list[Any]:
        script = "([s, n, rows]) => { const f = new Function(`${s}; return ${n}`)(); return rows.map(r => f(...r)) }"
        plain = [[float(number) for number in row] for row in rows]
        results: list[Any] = self.page.evaluate(script, [source, name, plain])
        return results


@pytest.fixture(scope="module")
def page(browser: Any) -> Page:
    return Page(browser.new_page())


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.browser
def test_words(word: str, page: Page) -> None:
    rng = generator("javascript", word)
    wide = 10.0 ** rng.uniform(-300, 2.8, 200) * rng.choice([-1.0, 1.0], 200)
    ends = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 745.0, -745.0, -720.0, 5e-324, 1.5, 6.0]
    x = [*(3 * rng.normal(size=200)), *wide, *ends]
    rows = [[number] for number in x]
    if word in ("maximum", "minimum"):
        rows = [[a, b] for a, b in zip(x, reversed(x), strict=True)]
    elif word == "power":  # defined for x >= 0
        rows = [[abs(a), b] for a, b in zip(x, 3 * rng.normal(size=len(x)), strict=True)]
        rows += [[1.0, math.inf], [0.0, 0.0], [0.0, 0.5], [0.5, math.inf], [2.0, -math.inf], [4.0, 0.5]]
    elif word == "exp_product":
        rows = [[a, b / a] for a, b in zip(x, 200 * rng.normal(size=len(x)), strict=True) if abs(a) > 1e-280]
    elif word == "sigmoid_power":
        rows = [[a, abs(b)] for a, b in zip(x, 2 * rng.normal(size=len(x)), strict=True)]
        rows += [[math.inf, 0.0], [-math.inf, 0.0]]
    program = Program()
    name = program.word(word)
    for row, result in zip(rows, page.call(program.source, name, rows), strict=True):
        off = ulps_off(result, EXACT[word](*map(mp.mpf, row)), "float64")
        bar = {"erf": ERF_BAR, "sigmoid_power": SIGMOID_POWER_BAR}.get(word, WORD_BAR)
        assert off <= bar, (row, result, off)


@pytest.mark.parametrize("part", ["value", "gradient"])
@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.browser
def test_losses(name: str, part: str, page: Page) -> None:
    formula = LOSSES[name].formula
    function = getattr(formula, part)
    program, exact, library = Program(), in_full_precision(function), on_tensors(function)
    called = program.add(function)
    inputs = rows_for(formula)
    for options in options_of(formula):
        rows = [[*row, *options] for row in inputs]
        exponent = max((abs(number) for number in options if math.isfinite(number)), default=0.0)
        bar = LOSS_BAR + (2 * exponent if name in POWERS else 0.0)
        results = page.call(program.source, called, rows)
        for row, result, own in zip(rows, results, library(rows), strict=True):
            truth, scale = exact(*map(mp.mpf, row)), terms(exact, formula, row)
            off = ulps_off(result, truth, "float64", scale)
            assert off <= bar + 2 * ulps_off(own, truth, "float64", scale), (
                row,
                result,
                own,
                float(truth),
                off,
            )


@pytest.mark.parametrize("place", range(48))
@pytest.mark.browser
def test_update_rules(place: int, page: Page) -> None:
    rules = update_rules()
    assert len(rules) == 48, "as many places as rules, please"
    rule, hyper = rules[place], {}
    for name in rule.hyperparameters:
        hyper[name] = HYPERPARAMETERS[name]
    program = Program()
    coefficients, update = program.add(rule.coefficients), program.add(rule.update)
    rng = generator("javascript", place)
    for step in (1.0, 2.0, 7.0, 12345.0):
        scalars = rng.uniform(0.1, 0.9, len(rule.scalars)).tolist()
        given = [step, *hyper.values(), *scalars]
        (found,) = page.call(program.source, coefficients, [given])
        expected = rule.coefficients(*given)
        assert len(found) == len(expected)
        for number, library in zip(found, expected, strict=True):
            assert number == pytest.approx(library, rel=magnified(rule, hyper, step), abs=0.0), step
        ratio = [0.25] if rule.measure is not None else []
        taken = [*expected[len(rule.scalars) :], *ratio]
        tensors = rng.normal(size=(2 + len(rule.slots), 32)) * 10.0 ** rng.integers(-6, 3, 32)
        tensors[2:] = abs(tensors[2:])  # what is a mean of squares is not negative
        rows = [[*column, *taken] for column in tensors.T]
        ours = [in_doubles(rule.update)(*row) for row in rows]
        # Addition, multiplication, division and roots are rounded alike everywhere: not one bit may differ.
        assert page.call(program.source, update, rows) == [list(row) for row in ours]


@pytest.mark.browser
def test_layer_wise_rules(page: Page) -> None:
    rules = [rule for rule in update_rules() if rule.measure is not None]
    assert rules
    for rule in rules:
        assert rule.measure is not None
        assert rule.trust is not None
        program = Program()
        measure, trust = program.add(rule.measure), program.add(rule.trust)
        numbers = [0.5 + 0.125 * i for i in range(2 + len(rule.slots) + rule.num_coefficients)]
        assert page.call(program.source, measure, [numbers]) == [list(in_doubles(rule.measure)(*numbers))]
        for norms in ([2.0, 3.0], [0.0, 3.0], [2.0, 0.0]):
            row = [*norms, *numbers[: rule.num_coefficients]]
            assert page.call(program.source, trust, [row]) == [rule.trust(*row)]


def on_tensors(function: Any) -> Any:
    """The library's own numbers for rows of inputs, in float64."""

    def call(rows: Sequence[Sequence[float]]) -> list[float]:
        columns = torch.tensor(rows, dtype=torch.float64).T
        results: list[float] = (function(*columns) + torch.zeros_like(columns[0])).tolist()
        return results

    return call


def rows_for(formula: LossFormula) -> list[list[float]]:
    """Drawn inputs, and the ends of what the formula takes."""
    if formula.family == "softmax":
        rng = generator("javascript", "softmax")
        ends = [-0.0, -1e-300, -1e-18, -36.8, -745.0, -1e4]
        return [[x] for x in [*(-(10.0 ** rng.uniform(-20, 3, 40))), *ends]]
    predictions, targets = pointwise_samples(formula, "float64")
    drawn = list(zip(predictions.tolist(), targets.tolist(), strict=True))[::3]
    ends = {
        "real": [0.0, 1e-300, -1e300, 5e-324],
        "logit": [0.0, 745.0, -745.0, 40.0, -40.0],
        "probability": [0.0, 1.0, 1e-300, 0.5],
        "margin": [0.0, 1.0, -1.0, 745.0, -745.0],
        "distance": [0.0, 1.0, 5e-324, 1e300],
        "log_rate": [0.0, 700.0, -700.0],
        "log_probability": [-0.0, -745.0, -1e-20],
    }[formula.prediction]
    beside = {
        "real": [0.0, 1.0, -3.5], "probability": [0.0, 1.0, 0.3], "sign": [1.0, -1.0], "count": [0.0, 3.0],
        "positive": [0.5, 1e3],
    }[formula.target]  # fmt: skip
    return [list(row) for row in [*drawn, *((p, y) for p in ends for y in beside)]]


def options_of(formula: LossFormula) -> list[list[float]]:
    """The defaults, all of them moved, and for Barron's loss the limits it is made of."""
    defaults = list(formula.parameters.values())
    moved = [0.7 * number for number in defaults]
    given = [defaults, moved] if defaults else [[]]
    if formula.name == "barron":
        given += [[alpha, 0.3] for alpha in (-math.inf, -2.0, 0.0, 2.0, 3.0, math.inf)]
    for options in given:
        assert all(
            interval.holds(number) for interval, number in zip(formula.valid.values(), options, strict=True)
        )
    return given


def terms(exact: Any, formula: LossFormula, row: Sequence[float]) -> Any:
    """What a share between two classes is a sum of, which may cancel."""
    if formula.target != "probability" or row[1] in (0.0, 1.0):
        return None
    return max(abs(exact(mp.mpf(row[0]), mp.mpf(y), *map(mp.mpf, row[2:]))) for y in (0.0, 1.0))


def in_doubles(function: Any) -> Any:
    """A rule's function in Python's own floats; torch's square root is off by a bit now and then."""
    words = {
        "abs": abs, "maximum": max, "minimum": min, "sign": np.sign, "sqrt": math.sqrt,
        "where": lambda condition, a, b: a if condition else b,
    }  # fmt: skip
    return with_words(function, {id(getattr(reference, word)): meaning for word, meaning in words.items()})


HYPERPARAMETERS = {
    "lr": 0.01, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01, "maximize": 0.0, "alpha": 0.75,
    "eps": 1e-8, "beta1": 0.9, "beta2": 0.999, "beta3": 0.9999, "eps_root": 1e-12, "lr_decay": 0.1,
    "initial_accumulator_value": 0.1, "rho": 0.9, "momentum_decay": 0.004, "decoupled_weight_decay": 1.0,
    "etaminus": 0.5, "etaplus": 1.2, "step_size_min": 1e-6, "step_size_max": 50.0, "lambd": 1e-4, "t0": 50.0,
    "decouple": 1.0, "clip_exp": 0.25, "warmup": 10.0, "no_prox": 0.0, "bias_correction": 1.0,
    "trust_coefficient": 0.001, "warmup_steps": 5.0, "r": 0.5, "weight_lr_power": 2.0,
}  # fmt: skip


def update_rules() -> list[Rule]:
    """Every rule in the package, those of all conventions and options; one without a rate is no optimizer's."""
    found: list[Rule] = []

    def look(value: Any) -> None:
        if isinstance(value, Rule) and "lr" in value.hyperparameters and value not in found:
            found.append(value)
        elif isinstance(value, dict):
            for inner in list(value.values()):
                look(inner)

    for module in iter_modules(optim.__path__):
        for value in list(vars(import_module(f"steepest.optim.{module.name}")).values()):
            look(value)
    return found


def magnified(rule: Rule, hyper: dict[str, float], step: float) -> float:
    """How far two systems' coefficients may lie apart: a few roundings, and more where 1 - beta**step cancels."""
    cancels = "1.0 - beta" in inspect.getsource(rule.coefficients) or "momentum_decay" in hyper
    loss = 1.0 / bias_correction(hyper["beta2"], step) if cancels and "beta2" in hyper else 1.0
    return 8 * loss * 2.0**-53


def test_every_optimizer_of_the_library_is_among_the_rules() -> None:
    known = update_rules()
    for entry in OPTIMIZERS.values():
        live = entry.cls([torch.nn.Parameter(torch.zeros(1))], **{"lr": 0.1, **entry.options})
        assert entry.cls.rule_of(live.param_groups[0]) in known


def helper(x: Any) -> Any:
    return reference.exp(-x)


FAR = math.inf


def spoken(x: Any, new: Any) -> Any:
    """A docstring."""
    first = second = new
    if x > FAR or not -1.0 < x <= 2.0:
        first = helper(x) - (second - (x - 1.0))
    else:
        second = -(x - FAR)
    a, b = second, first
    for k in range(3, 0, -1):
        a = a * k
    return a, b / (a * b) ** 2


def test_what_is_written_reads_like_the_formula() -> None:
    program = Program()
    assert program.add(spoken) == "test_javascript$spoken"
    assert program.add(spoken) == "test_javascript$spoken"
    assert program.source == (
        "function test_javascript$spoken(x, new$) {\n"
        "  let a, b, first, k, second;\n"
        "  second = new$;\n"
        "  first = second;\n"
        "  if (x > Infinity || !(-1.0 < x && x <= 2.0)) {\n"
        "    first = test_javascript$helper(x) - (second - (x - 1.0));\n"
        "  } else {\n"
        "    second = -(x - Infinity);\n"
        "  }\n"
        "  [a, b] = [second, first];\n"
        "  for (k = 3; k > 0; k += -1) {\n"
        "    a = a * k;\n"
        "  }\n"
        "  return [a, b / $power(a * b, 2)];\n"
        "}\n"
        "function test_javascript$helper(x) {\n"
        "  return Math.exp(-x);\n"
        "}\n"
        "function $power(x, a) {\n"
        "  return x === 1 ? 1 : x ** a;\n"
        "}\n"
    )


def sorts(x: Any) -> Any:
    return sorted(x)


def sums(x: Any) -> Any:
    return x.sum()


def loops(x: Any) -> Any:
    while x > 1.0:
        x = x / 2.0
    return x


def named(x: Any) -> Any:
    return reference.maximum(a=x, b=0.0)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (sorts, "sorts calls sorted, which has no translation"),
        (sums, "sums uses 'x', which has no translation"),
        (loops, "loops uses 'while x > 1.0:', which"),
        (named, r"named calls 'reference.maximum\(a=x, b=0.0\)' with more than plain arguments"),
        (lambda x: x, "<lambda> cannot be read, and JavaScript is made from it; define it with def"),
        (math.exp, "is no plain function"),
        (LOSSES["nll"].formula.value, "which has no translation to JavaScript"),
    ],
)
def test_what_has_no_translation_is_said(function: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Program().add(function)


def test_a_module_of_any_name_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "__module__", "mine.my-losses 2")
    assert Program().add(helper) == "my_losses_2$helper"


def given(step: Any, *hyperparameters: Any) -> Any:
    return hyperparameters[:]


def test_what_is_handed_on_stays_whole() -> None:
    program = Program()
    program.add(given)
    assert program.source == (
        "function test_javascript$given(step, ...hyperparameters) {\n  return hyperparameters;\n}\n"
    )


def test_a_derived_gradient_is_translated_too() -> None:
    program = Program()
    name = program.add(derivative(LOSSES["mse"].formula.value))
    assert "=> " not in program.source
    assert f"function {name}(p, y)" in program.source
