"""The derivative of a formula, as another formula.

A formula is called once on symbols, which write down every operation instead of doing it. What they wrote is
differentiated in forward mode, simplified lightly and written out as plain Python in the same vocabulary
(:mod:`steepest.backends.reference`), so every backend takes it as if a person had written it.

At a kink the derivative is autograd's: ``sign(0)`` is 0, so ``abs`` has slope 0 at 0, and where the arguments
of ``maximum`` or ``minimum`` are equal, each has half of the slope. The slope of ``where`` is chosen as its
value is, so nothing, not even NaN, comes from the branch that is not taken. ``sigmoid`` and ``tanh`` are
differentiated without the difference ``1 - s``, so the slope keeps its digits in both tails.
"""

from __future__ import annotations

import builtins
import hashlib
import linecache
import math
import types
from collections.abc import Callable, Sequence
from typing import Any

from steepest.backends import reference
from steepest.backends.symbols import (
    CONDITIONS,
    WORDS,
    NotAFormula,
    Symbol,
    Tape,
    argument_names,
    called,
    on_symbols,
    reached,
    what_may_be_used,
)
from steepest.errors import InputError

__all__ = ["as_text", "derivative"]

Formula = Callable[..., Any]


def derivative(function: Formula, argument: int = 0, num_arguments: int | None = None) -> Formula:
    """The formula whose value is the derivative of ``function`` with respect to one of its arguments.

    Args:
        function: a formula in the vocabulary of :mod:`steepest.backends.reference`.
        argument: which of its arguments to differentiate by, counted from 0.
        num_arguments: how many arguments it takes; ``None``: as many as its signature names.

    Raises:
        InputError: the function uses something that is not of the vocabulary, or chooses its way by Python's
            ``if``; the sentence names it and says what would do.

    Numerics: the derivative at a kink is autograd's; see above.

    >>> import torch
    >>> from steepest.backends.reference import log1p
    >>> def cauchy(p, y):
    ...     return log1p((p - y) * (p - y))
    >>> slope = derivative(cauchy)
    >>> float(slope(torch.tensor(2.0), torch.tensor(1.0)))
    1.0
    """
    read = _read(function, num_arguments)
    if not 0 <= argument < len(read.arguments):
        raise InputError(
            f"{called(function)}: there is no argument {argument}; it takes {len(read.arguments)}, counted from 0."
        )
    return _compiled(function, read, _tangent(read.result, read.arguments[argument]))


def as_text(function: Formula, num_arguments: int | None = None) -> str:
    """A formula as one Python expression in its arguments, whatever helpers and names it was written with.

    >>> as_text(lambda p, y: (p - y) * (p - y))
    '(p - y) * (p - y)'
    """
    read = _read(function, num_arguments)
    return _Writer(read.names, {}).text(read.result)


# --- reading -------------------------------------------------------------------------------------------------


class _Read:
    """A formula as its symbols: the arguments, what it makes of them, and what they are called."""

    def __init__(self, arguments: list[Symbol], result: Symbol, names: list[str]) -> None:
        self.arguments, self.result, self.names = arguments, result, names


def _read(function: Formula, num_arguments: int | None) -> _Read:
    if not isinstance(function, types.FunctionType):
        raise InputError(f"{function!r} is no plain function; write the formula with def.")
    names = argument_names(function, num_arguments)
    tape = Tape()
    arguments = [tape.make("argument", number=i) for i in range(len(names))]
    try:
        result = on_symbols(function)(*arguments)
        if isinstance(result, Symbol) and result.word in CONDITIONS:
            raise NotAFormula("returns a comparison; write where(condition, a, b)")
        return _Read(arguments, tape.lift(result), names)
    except NotAFormula as reason:
        raise InputError(f"{called(function)} {reason} ({what_may_be_used()}).") from None
    except NameError as error:
        raise InputError(f"{called(function)}: {error} ({what_may_be_used()}).") from None
    except (TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{called(function)} cannot be read as a formula: {error} ({what_may_be_used()})."
        ) from None


# --- algebra: what the derivative is built with --------------------------------------------------------------
# The formula's own operations stay as they were written; only what differentiating adds is simplified.


def _factors(x: Symbol) -> tuple[float, Symbol | None]:
    """``x`` as a number times something."""
    if x.word == "number":
        assert x.number is not None
        return x.number, None
    if x.word == "neg":
        factor, rest = _factors(x.arguments[0])
        return -factor, rest
    if x.word == "*" and x.arguments[0].word == "number":
        inner, rest = _factors(x.arguments[1])
        assert x.arguments[0].number is not None
        return x.arguments[0].number * inner, rest
    return 1.0, x


def _scaled(factor: float, x: Symbol) -> Symbol:
    if factor == 0.0:
        return x.tape.number(0.0)
    if factor == 1.0:
        return x
    if factor == -1.0:
        return x.tape.make("-", *reversed(x.arguments)) if x.word == "-" else x.tape.make("neg", x)
    return x.tape.make("*", x.tape.number(factor), x)


def _negated(x: Symbol) -> Symbol:
    factor, rest = _factors(x)
    return x.tape.number(-factor) if rest is None else _scaled(-factor, rest)


def _times(a: Symbol, b: Symbol) -> Symbol:
    (factor_a, rest_a), (factor_b, rest_b) = _factors(a), _factors(b)
    factor = factor_a * factor_b
    if rest_a is None or rest_b is None:
        rest = rest_b if rest_a is None else rest_a
        return a.tape.number(factor) if rest is None else _scaled(factor, rest)
    if _may_vanish(rest_a):
        return _scaled(factor, _in_branches(lambda branch: _times(branch, rest_b), rest_a))
    if _may_vanish(rest_b):
        return _scaled(factor, _in_branches(lambda branch: _times(rest_a, branch), rest_b))
    first, second = sorted((rest_a, rest_b), key=lambda x: x.order)
    if {first.word, second.word} == {"abs", "sign"} and first.arguments[0] is second.arguments[0]:
        return _scaled(factor, first.arguments[0])
    return _scaled(factor, a.tape.make("*", first, second))


def _plus(a: Symbol, b: Symbol) -> Symbol:
    (factor_a, rest_a), (factor_b, rest_b) = _factors(a), _factors(b)
    if rest_a is None and rest_b is None:
        return a.tape.number(factor_a + factor_b)
    for (factor, rest), other in (((factor_a, rest_a), b), ((factor_b, rest_b), a)):
        if rest is None and factor == 0.0:
            return other
    if rest_a is rest_b:
        assert rest_a is not None
        return _scaled(factor_a + factor_b, rest_a)
    if factor_b < 0.0:
        return a.tape.make("-", a, _negated(b))
    if factor_a < 0.0:
        return a.tape.make("-", b, _negated(a))
    return a.tape.make("+", *sorted((a, b), key=lambda x: x.order))


def _minus(a: Symbol, b: Symbol) -> Symbol:
    return _plus(a, _negated(b))


def _over(a: Symbol, b: Symbol) -> Symbol:
    factor, rest = _factors(a)
    if _is_zero(a) or (b.word == "number" and b.number == 1.0):
        return a
    if b.word == "number" and b.number and math.frexp(b.number)[0] in (0.5, -0.5):
        return _times(a.tape.number(1.0 / b.number), a)  # exact: a power of two
    if rest is b:
        return a.tape.number(factor)
    if rest is not None and _may_vanish(rest):
        return _scaled(factor, _in_branches(lambda branch: _over(branch, b), rest))
    return a.tape.make("/", a, b)


def _is_zero(x: Symbol) -> bool:
    return x.word == "number" and x.number == 0.0


def _may_vanish(x: Symbol) -> bool:
    """A choice one of whose branches is 0: what it is multiplied by must not turn that into 0 * inf."""
    return x.word == "where" and any(_is_zero(branch) or _may_vanish(branch) for branch in x.arguments[1:])


def _in_branches(change: Callable[[Symbol], Symbol], choice: Symbol) -> Symbol:
    condition, a, b = choice.arguments
    return _chosen(condition, change(a), change(b))


def _chosen(condition: Symbol, a: Symbol, b: Symbol) -> Symbol:
    return a if a is b else a.tape.make("where", condition, a, b)


# --- the rules -----------------------------------------------------------------------------------------------
# Each takes the value, its arguments and their slopes, and gives the value's slope.

Rule = Callable[[Symbol, Sequence[Symbol], Sequence[Symbol]], Symbol]


def _along(slope: Callable[[Symbol, Symbol], Symbol]) -> Rule:
    """The chain rule of a word with one argument, from its slope given the value and the argument."""
    return lambda value, arguments, slopes: _times(slope(value, arguments[0]), slopes[0])


def _word(word: str, *arguments: Symbol) -> Symbol:
    return arguments[0].tape.make(word, *arguments)


def _product(_: Symbol, arguments: Sequence[Symbol], slopes: Sequence[Symbol]) -> Symbol:
    (a, b), (da, db) = arguments, slopes
    return _plus(_times(da, b), _times(a, db))


def _quotient(value: Symbol, arguments: Sequence[Symbol], slopes: Sequence[Symbol]) -> Symbol:
    # (a / b)' = (a' - (a / b) b') / b
    return _over(_minus(slopes[0], _times(value, slopes[1])), arguments[1])


def _plain_power(value: Symbol, arguments: Sequence[Symbol], slopes: Sequence[Symbol]) -> Symbol:
    n, (x,), tape = value.number, arguments, value.tape
    assert n is not None
    less = tape.number(1.0) if n == 1 else x if n == 2 else tape.make("**", x, number=n - 1)
    return _times(_times(tape.number(n), less), slopes[0])


def _power(value: Symbol, arguments: Sequence[Symbol], slopes: Sequence[Symbol]) -> Symbol:
    # by x: a x^(a - 1), 0 where a is 0; by a: x^a log x, 0 where x is 0
    (x, a), (dx, da), zero = arguments, slopes, value.tape.number(0.0)
    less = _minus(a, value.tape.number(1.0))
    if _is_zero(less):
        by_x = value.tape.number(1.0)
    elif less.word == "number":
        by_x = _times(a, x if less.number == 1.0 else _word("power", x, less))
    else:
        by_x = _chosen(_word("==", a, zero), zero, _times(a, _word("power", x, less)))
    if _is_zero(da):
        return _times(by_x, dx)
    log_x = value.tape.number(math.log(x.number)) if x.word == "number" and x.number else _word("log", x)
    by_a = _chosen(_word("==", x, zero), zero, _times(value, log_x))
    return _plus(_times(by_x, dx), _times(by_a, da))


def _exp_product(value: Symbol, arguments: Sequence[Symbol], slopes: Sequence[Symbol]) -> Symbol:
    (a, x), (da, dx) = arguments, slopes
    return _times(value, _plus(_times(a, dx), _times(x, da)))


def _sigmoid_power(value: Symbol, arguments: Sequence[Symbol], slopes: Sequence[Symbol]) -> Symbol:
    # by x: a s^a (1 - s), by a: s^a log s, from the smaller side
    (x, a), (dx, da) = arguments, slopes
    minus_x = _negated(x)
    by_x = _times(_times(a, value), _word("sigmoid", minus_x))
    by_a = _negated(_times(value, _word("softplus", minus_x)))
    return _plus(_times(by_x, dx), _times(by_a, da))


def _extreme(better: str, worse: str) -> Rule:
    def rule(_: Symbol, arguments: Sequence[Symbol], slopes: Sequence[Symbol]) -> Symbol:
        (a, b), (da, db) = arguments, slopes
        one, half, zero = map(da.tape.number, (1.0, 0.5, 0.0))
        first, second = _word(better, a, b), _word(worse, a, b)
        if _is_zero(db):  # as one product, so that there is one branch to multiply
            return _chosen(second, zero, _times(_chosen(first, one, half), da))
        if _is_zero(da):
            return _chosen(first, zero, _times(_chosen(second, one, half), db))
        return _chosen(first, da, _chosen(second, db, _times(half, _plus(da, db))))

    return rule


def _no_slope(value: Symbol, _: Sequence[Symbol], __: Sequence[Symbol]) -> Symbol:
    return value.tape.number(0.0)


def _tanh_slope(_: Symbol, x: Symbol) -> Symbol:
    # 1 - tanh(x)^2 = 4 sigmoid(2 x) sigmoid(-2 x), where nothing cancels
    twice = _times(x.tape.number(2.0), x)
    both = _times(_word("sigmoid", twice), _word("sigmoid", _negated(twice)))
    return _times(x.tape.number(4.0), both)


_WORD_RULES: dict[str, Rule] = {
    "abs": _along(lambda _, x: _word("sign", x)),
    "erf": _along(
        lambda _, x: _times(x.tape.number(2.0 / math.sqrt(math.pi)), _word("exp", _negated(_times(x, x))))
    ),
    "exp": _along(lambda value, _: value),
    "exp_product": _exp_product,
    "expm1": _along(lambda _, x: _word("exp", x)),
    "log": lambda _, arguments, slopes: _over(slopes[0], arguments[0]),
    "log1p": lambda _, arguments, slopes: _over(
        slopes[0], _plus(arguments[0].tape.number(1.0), arguments[0])
    ),
    "maximum": _extreme(">", "<"),
    "minimum": _extreme("<", ">"),
    "power": _power,
    "sigmoid": _along(lambda value, x: _times(value, _word("sigmoid", _negated(x)))),
    "sigmoid_power": _sigmoid_power,
    "sign": _no_slope,
    "softplus": _along(lambda _, x: _word("sigmoid", x)),
    "sqrt": lambda value, _, slopes: _over(_times(value.tape.number(0.5), slopes[0]), value),
    "tanh": _along(_tanh_slope),
    "where": lambda _, arguments, slopes: _chosen(arguments[0], *slopes[1:]),
}
_RULES: dict[str, Rule] = {
    **_WORD_RULES,
    "+": lambda _, __, slopes: _plus(*slopes),
    "-": lambda _, __, slopes: _minus(*slopes),
    "*": _product,
    "/": _quotient,
    "**": _plain_power,
    "neg": lambda _, __, slopes: _negated(slopes[0]),
    "number": _no_slope,
    **dict.fromkeys(CONDITIONS, _no_slope),
}


def _tangent(result: Symbol, by: Symbol) -> Symbol:
    """The slope of ``result`` by an argument, each value's once and in the order they were made."""
    one, zero = by.tape.number(1.0), by.tape.number(0.0)
    slopes: dict[Symbol, Symbol] = {}
    for value in reached(result):
        if value.word == "argument":
            slopes[value] = one if value is by else zero
        else:
            given = [slopes[argument] for argument in value.arguments]
            slopes[value] = _RULES[value.word](value, value.arguments, given)
    return slopes[result]


# --- writing -------------------------------------------------------------------------------------------------

_LONGEST = 70  # characters of a part that stands inside another line


class _Writer:
    """Symbols as Python text; what has a name already is called by it."""

    def __init__(self, names: Sequence[str], given: dict[Symbol, str]) -> None:
        self.names, self.given = names, given

    def text(self, x: Symbol) -> str:
        if x in self.given:
            return self.given[x]
        if x.word == "argument":
            return self.names[int(x.number or 0)]
        if x.word == "number":
            return _number_text(float(x.number or 0.0))
        if x.word == "**":
            return f"{self.operand(x.arguments[0])} ** {x.number!r}"
        if x.word == "neg":
            return f"-{self.operand(x.arguments[0])}"
        if x.word in WORDS:
            return f"{x.word}({', '.join(map(self.text, x.arguments))})"
        return f" {x.word} ".join(map(self.operand, x.arguments))

    def operand(self, x: Symbol) -> str:
        """The same, in brackets where it is more than a name, a number or a call."""
        compound = x not in self.given and x.word not in WORDS and x.word not in ("argument", "number")
        negative = x.word == "number" and not x.number >= 0.0  # type: ignore[operator]
        return f"({self.text(x)})" if compound or negative else self.text(x)


def _number_text(number: float) -> str:
    if math.isnan(number):
        return "(1e999 - 1e999)"
    return repr(number).replace("inf", "1e999")


def _compiled(function: Formula, read: _Read, result: Symbol) -> Formula:
    """A plain function of the same arguments that returns ``result``, as if it stood in the formula's module."""
    symbols = reached(result)
    uses = dict.fromkeys(symbols, 0)
    for symbol in symbols:
        for argument in symbol.arguments:
            uses[argument] += 1
    writer = _Writer(read.names, {})
    lines: list[str] = []
    for symbol in symbols:
        simple = symbol.word in ("argument", "number")
        if symbol is not result and not simple and (uses[symbol] > 1 or len(writer.text(symbol)) > _LONGEST):
            name = _free_name(len(lines), read.names)
            lines.append(f"    {name} = {writer.text(symbol)}\n")
            writer.given[symbol] = name
    title = f"{called(function)}_derivative" if called(function).isidentifier() else "derivative"
    source = f"def {title}({', '.join(read.names)}):\n{''.join(lines)}    return {writer.text(result)}\n"
    # A name of its own for the text, so that inspect and tracebacks find it.
    place = f"<derivative {hashlib.sha256(source.encode()).hexdigest()[:12]}>"
    linecache.cache[place] = (len(source), None, source.splitlines(True), place)
    used = {symbol.word for symbol in symbols} & set(WORDS)
    scope: dict[str, Any] = {word: getattr(reference, word) for word in sorted(used)}
    scope.update({"__builtins__": builtins, "__name__": function.__module__})
    exec(compile(source, place, "exec", dont_inherit=True), scope)
    written: Formula = scope.pop(title)
    return written


def _free_name(number: int, taken: Sequence[str]) -> str:
    name = f"v{number}"
    while name in taken:
        name += "_"
    return name
