"""Formulas as Triton functions: read once on symbols, written out in Triton, put into a kernel's template.

A formula is run on symbols (:mod:`~steepest.backends.symbols`), so helpers, loops and constants may be written any way;
what they wrote is straight-line code in one type. A template is a Triton kernel with free names, which `bound` gives
their meaning, as :func:`steepest.backends.cpu.compile_kernel` does for Numba.

Triton comes with torch's CUDA and ROCm builds, and is imported when the first tensor on such a device arrives.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import triton

from steepest.backends import cuda_vocabulary as vocabulary
from steepest.backends.symbols import (
    CONDITIONS,
    NotAFormula,
    Symbol,
    Tape,
    Undecided,
    called,
    on_symbols,
    reached,
)
from steepest.errors import InputError

__all__ = ["OPTIONS", "bound", "formula"]

# Nothing is contracted but what says so: a card does, operation by operation, what the interpreter does.
OPTIONS = {"enable_fp_fusion": False}

Formula = Callable[..., Any]
_WORDS = {
    "full": vocabulary.FULL,
    "narrow": vocabulary.NARROW,
    "single": vocabulary.SINGLE,
    "half": vocabulary.HALF,
}


@cache
def formula(function: Formula, num_arguments: int, precision: str) -> Any:
    """A formula as a Triton function of so many arguments, all in the type of its precision.

    Args:
        function: the formula; it may return a tuple, and of single numbers choose by Python's ``if``.
        num_arguments: how many it takes.
        precision: ``"full"`` or ``"narrow"`` (float64, the latter for what is rounded to float32 in the end),
            ``"single"`` or ``"half"`` (float32, the latter for what is rounded to a half type in the end).

    Raises:
        InputError: it uses something that is not of the vocabulary; the sentence names it.
    """
    if not isinstance(function, types.FunctionType):
        raise InputError(f"{function!r} is no plain function; write the formula with def.")
    tape = Tape({})
    arguments = [tape.make("argument", number=i) for i in range(num_arguments)]
    try:
        results = _results(tape, on_symbols(function), arguments, {})
    except (NotAFormula, NameError, TypeError, AttributeError, RecursionError) as reason:
        raise InputError(f"{called(function)} {reason}.") from None
    title = called(function) if called(function).isidentifier() else "formula"
    source = _Writer(precision).text(title, num_arguments, results, is_one=not _is_tuple(results))
    return vocabulary.compiled(title, source, _scope(precision))


def _is_tuple(results: Any) -> bool:
    return isinstance(results, tuple)


def _results(tape: Tape, function: Formula, arguments: list[Symbol], decided: dict[Symbol, bool]) -> Any:
    """What the formula returns; where it asks which way to go, both ways and a choice between them."""
    tape.decided = decided
    try:
        returned = function(*arguments)
    except Undecided as question:
        condition = question.condition
        yes, no = (
            _results(tape, function, arguments, {**decided, condition: answer}) for answer in (True, False)
        )
        if _is_tuple(yes) != _is_tuple(no) or (_is_tuple(yes) and len(yes) != len(no)):
            raise NotAFormula("returns one thing or another, of different lengths") from None
        if not _is_tuple(yes):
            return _choice(tape, condition, yes, no)
        return tuple(_choice(tape, condition, a, b) for a, b in zip(yes, no, strict=True))
    if _is_tuple(returned):
        return tuple(map(tape.lift, returned))
    return tape.lift(returned)


def _choice(tape: Tape, condition: Symbol, yes: Symbol, no: Symbol) -> Symbol:
    return yes if yes is no else tape.make("where", condition, yes, no)


@cache
def _scope(precision: str) -> dict[str, Any]:
    return {f"_{word}_word": function for word, function in _WORDS[precision].items()}


class _Writer:
    """Symbols as the text of a Triton function: a line for each value, every constant in the function's type."""

    def __init__(self, precision: str) -> None:
        self.kind = "float64" if precision in ("full", "narrow") else "float32"
        self.divides_exactly = precision != "half"
        self.names: dict[Symbol, str] = {}

    def text(self, title: str, num_arguments: int, results: Any, *, is_one: bool) -> str:
        ends = (results,) if is_one else results
        found: dict[int, Symbol] = {symbol.order: symbol for end in ends for symbol in reached(end)}
        lines = []
        for order in sorted(found):
            symbol = found[order]
            if symbol.word == "argument":
                self.names[symbol] = f"a{int(symbol.number or 0)}"
            else:
                self.names[symbol] = f"v{order}"
                lines.append(f"    v{order} = {self.value(symbol)}\n")
        named = [self.names[end] for end in ends]
        returned = named[0] if is_one else f"({', '.join(named)}{',' * (len(named) == 1)})"
        taken = ", ".join(f"a{i}" for i in range(num_arguments))
        return f"def {title}({taken}):\n{''.join(lines)}    return {returned}\n"

    def value(self, symbol: Symbol) -> str:
        word, given = symbol.word, [self.names[argument] for argument in symbol.arguments]
        if word == "number":
            return self.constant(float(symbol.number or 0.0))
        if word == "neg":
            return f"-1.0 * {given[0]}"
        if word == "**":
            return self.plain_power(given[0], float(symbol.number or 0.0))
        if word == "/" and self.kind == "float32" and self.divides_exactly:
            return f"tl.div_rn({', '.join(given)})"
        if word in CONDITIONS or word in ("+", "-", "*", "/"):
            return f"{given[0]} {word} {given[1]}"
        return f"_{word}_word({', '.join(given)})"

    def plain_power(self, base: str, exponent: float) -> str:
        if exponent in (1.0, 2.0, 3.0):
            return " * ".join([base] * int(exponent))
        if exponent == 0.5:
            return f"_sqrt_word({base})"
        return f"_power_word({base}, tl.full({base}.shape, {exponent!r}, tl.{self.kind}))"

    def constant(self, number: float) -> str:
        text = repr(number) if math.isfinite(number) else f"float('{number}')"
        largest = 3.4028234663852886e38
        if self.kind == "float32" and abs(number) > largest:
            text = f"float('{math.copysign(math.inf, number)}')"
        return f"tl.full([], {text}, tl.{self.kind})"


# --- templates ----------------------------------------------------------------------------------------------------


def bound(template: Any, bindings: Mapping[str, Any]) -> Any:
    """A Triton function with its free names given their meaning; others of its module stay what they are."""
    function = template.fn
    scope = {**function.__globals__, **bindings}
    copy = types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__annotations__, copy.__kwdefaults__ = function.__annotations__, function.__kwdefaults__
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    return triton.jit(copy, do_not_specialize=getattr(template, "do_not_specialize", None))
