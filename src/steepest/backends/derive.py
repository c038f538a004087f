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
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from steepest.backends import reference
from steepest.errors import InputError

__all__ = ["as_text", "derivative"]

Formula = Callable[..., Any]

_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
_CONDITIONS = (*_COMPARISONS, "&", "|")


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
            f"{_called(function)}: there is no argument {argument}; it takes {len(read.arguments)}, counted from 0."
        )
    return _compiled(function, read, _tangent(read.result, read.arguments[argument]))


def as_text(function: Formula, num_arguments: int | None = None) -> str:
    """A formula as one Python expression in its arguments, whatever helpers and names it was written with.

    >>> as_text(lambda p, y: (p - y) * (p - y))
    '(p - y) * (p - y)'
    """
    read = _read(function, num_arguments)
    return _Writer(read.names, {}).text(read.result)


# --- symbols -------------------------------------------------------------------------------------------------


class _NotAFormula(Exception):
    """Something a formula may not use, and what would do instead."""


class _Tape:
    """Every value made while a formula is read, each distinct one once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Symbol] = {}

    def make(self, word: str, *arguments: Symbol, number: float | int | None = None) -> Symbol:
        key = (word, repr(number), *(argument.order for argument in arguments))
        if key not in self._known:
            self._known[key] = Symbol(self, len(self._known), word, arguments, number)
        return self._known[key]

    def number(self, value: float) -> Symbol:
        return self.make("number", number=float(value))

    def lift(self, value: Any) -> Symbol:
        """A symbol, or a number as a symbol; a comparison is no number."""
        if isinstance(value, Symbol):
            if value.word in _CONDITIONS:
                raise _NotAFormula(
                    "computes with a comparison as if it were a number; write where(condition, a, b)"
                )
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self.number(value)
        raise _NotAFormula(f"computes with a {type(value).__name__}; its constants are plain numbers")


def _operation(word: str, *, reflected: bool = False) -> Callable[[Symbol, Any], Symbol]:
    def operate(self: Symbol, other: Any) -> Symbol:
        pair = (other, self) if reflected else (self, other)
        return self.tape.make(word, *map(self.tape.lift, pair))

    return operate


def _logic(word: str) -> Callable[[Symbol, Any], Symbol]:
    def operate(self: Symbol, other: Any) -> Symbol:
        if not all(isinstance(side, Symbol) and side.word in _CONDITIONS for side in (self, other)):
            raise _NotAFormula(f"uses {word} on what is not a comparison; it joins two comparisons")
        return self.tape.make(word, self, other)

    return operate


def _refusal(word: str, advice: str = "") -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise _NotAFormula(f"uses {word}{advice and '; '}{advice}")

    return refuse


_BRANCH = "a comparison of tensors has many answers, so write where(condition, a, b), maximum(a, b) or minimum(a, b)"


class Symbol:
    """A value of a formula that is being read: how it is made instead of what it is."""

    __slots__ = ("arguments", "number", "order", "tape", "word")

    def __init__(
        self, tape: _Tape, order: int, word: str, arguments: tuple[Symbol, ...], number: float | int | None
    ) -> None:
        self.tape, self.order, self.word = tape, order, word
        self.arguments, self.number = arguments, number

    __hash__ = object.__hash__

    __add__, __radd__ = _operation("+"), _operation("+", reflected=True)
    __sub__, __rsub__ = _operation("-"), _operation("-", reflected=True)
    __mul__, __rmul__ = _operation("*"), _operation("*", reflected=True)
    __truediv__, __rtruediv__ = _operation("/"), _operation("/", reflected=True)
    __lt__, __le__ = _operation("<"), _operation("<=")
    __gt__, __ge__ = _operation(">"), _operation(">=")
    __eq__, __ne__ = _operation("=="), _operation("!=")  # type: ignore[assignment]
    __and__, __or__ = _logic("&"), _logic("|")

    __bool__ = _refusal("Python's if, and, or, not, min or max on a value", _BRANCH)
    __float__ = _refusal("float()")
    __int__ = __index__ = _refusal("int() or an index")
    __round__ = __trunc__ = __floor__ = __ceil__ = _refusal("rounding")
    __mod__ = __rmod__ = _refusal("%")
    __floordiv__ = __rfloordiv__ = _refusal("//")
    __matmul__ = __rmatmul__ = _refusal("@")
    __invert__ = _refusal("~", "turn the comparison round instead")
    __getitem__ = _refusal("[ ]", "it sees one element at a time")
    __iter__ = __len__ = _refusal("a value as a sequence", "it sees one element at a time")
    __rpow__ = _refusal("** with a value as the exponent", "write power(x, a) or exp(a * log_of_x)")

    def __neg__(self) -> Symbol:
        return self.tape.make("neg", self.tape.lift(self))

    def __pos__(self) -> Symbol:
        return self

    def __abs__(self) -> Symbol:
        return self.tape.make("abs", self.tape.lift(self))

    def __pow__(self, exponent: Any) -> Symbol:
        if isinstance(exponent, bool) or not isinstance(exponent, (int, float)):
            raise _NotAFormula(
                "uses ** with an exponent that is no plain number; write power(x, a), for x >= 0"
            )
        return self.tape.make("**", self.tape.lift(self), number=exponent)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _NotAFormula(f"uses .{name}, a tensor's own")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **_: Any) -> Symbol:
        # A numpy number on the left of an operator; any other function of numpy's is refused by its name.
        symbol = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}.get(ufunc.__name__)
        if symbol is None or method != "__call__":
            raise _NotAFormula(f"uses numpy.{ufunc.__name__}")
        return self.tape.make(symbol, *map(self.tape.lift, inputs))

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any, **__: Any) -> NoReturn:
        raise _NotAFormula(f"uses torch.{getattr(function, '__name__', function)}")


# --- reading -------------------------------------------------------------------------------------------------


class _Read:
    """A formula as its symbols: the arguments, what it makes of them, and what they are called."""

    def __init__(self, arguments: list[Symbol], result: Symbol, names: list[str]) -> None:
        self.arguments, self.result, self.names = arguments, result, names


def _read(function: Formula, num_arguments: int | None) -> _Read:
    if not isinstance(function, types.FunctionType):
        raise InputError(f"{function!r} is no plain function; write the formula with def.")
    names = _argument_names(function, num_arguments)
    tape = _Tape()
    arguments = [tape.make("argument", number=i) for i in range(len(names))]
    try:
        result = _on_symbols(function)(*arguments)
        if isinstance(result, Symbol) and result.word in _CONDITIONS:
            raise _NotAFormula("returns a comparison; write where(condition, a, b)")
        return _Read(arguments, tape.lift(result), names)
    except _NotAFormula as reason:
        raise InputError(f"{_called(function)} {reason} ({_what_may_be_used()}).") from None
    except NameError as error:
        raise InputError(f"{_called(function)}: {error} ({_what_may_be_used()}).") from None
    except (TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{_called(function)} cannot be read as a formula: {error} ({_what_may_be_used()})."
        ) from None


def _what_may_be_used() -> str:
    return (
        "a formula may use + - * /, ** with a number, comparisons, numbers, functions written with these, "
        f"and from steepest.backends.reference {', '.join(WORDS)}"
    )


def _called(function: Formula) -> str:
    name: str = getattr(function, "__name__", "formula")
    return "the formula" if name == "<lambda>" else name


def _argument_names(function: types.FunctionType, num_arguments: int | None) -> list[str]:
    code = function.__code__
    named = list(code.co_varnames[: code.co_argcount])
    takes_more = bool(code.co_flags & 0x04)  # *arguments
    count = len(named) if num_arguments is None else num_arguments
    if count < 1 or (count > len(named) and not takes_more):
        raise InputError(f"{_called(function)} takes {len(named)} arguments; {count} were asked for.")
    named += [f"a{i}" for i in range(len(named), count)]
    # A formula may call an argument by a word of the vocabulary; what is written here may not.
    return [f"{name}_" if name in WORDS else name for name in named[:count]]


def _on_symbols(function: types.FunctionType) -> Formula:
    """The function with every word of the vocabulary writing symbols, and its helpers likewise."""
    words = {id(getattr(reference, word)): word for word in WORDS}
    scope: dict[str, Any] = {"__builtins__": builtins, "__name__": function.__module__}
    for name in _names(function.__code__):
        if name in function.__globals__:
            scope[name] = _symbolic(name, function.__globals__[name], words)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        _check_enclosed(name, cell)
    return types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )


def _symbolic(name: str, value: Any, words: Mapping[int, str]) -> Any:
    if id(value) in words:
        return _Word(words[id(value)])
    if isinstance(value, types.ModuleType):
        return _Module(name, value)
    if isinstance(value, (int, float)):
        return value
    home = (getattr(value, "__module__", None) or "").partition(".")[0]
    if isinstance(value, types.FunctionType) and home not in ("torch", "numpy", "scipy", "numba"):
        return lambda *arguments: _on_symbols(value)(*arguments)
    if callable(value):
        return _of_numbers(f"{name} ({home or 'torch'}'s)", value)
    raise _NotAFormula(f"uses {name}, a {type(value).__name__}; its constants are plain numbers")


def _of_numbers(name: str, function: Formula) -> Formula:
    """A function from elsewhere: it may work out a constant, and nothing more."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        if any(isinstance(argument, Symbol) for argument in (*arguments, *keywords.values())):
            raise _NotAFormula(f"uses {name}")
        return function(*arguments, **keywords)

    return call


class _Module:
    """A module a formula takes constants from."""

    def __init__(self, name: str, module: types.ModuleType) -> None:
        self._name, self._module = name, module

    def __getattr__(self, word: str) -> Any:
        value, name = getattr(self._module, word), f"{self._name}.{word}"
        if isinstance(value, types.ModuleType):
            return _Module(name, value)
        return _of_numbers(name, value) if callable(value) else value


def _check_enclosed(name: str, cell: Any) -> None:
    """Kernels bind a module's names; from an enclosing function they take numbers only."""
    if not isinstance(cell.cell_contents, (int, float)):
        raise _NotAFormula(
            f"takes {name} from the function around it; import or define {name} at the module's top"
        )


def _names(code: types.CodeType) -> list[str]:
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _names(constant)
    return names


class _Word:
    """A word of the vocabulary that writes itself down."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, *arguments: Any) -> Symbol:
        tape = next((a.tape for a in arguments if isinstance(a, Symbol)), None)
        if len(arguments) != _ARITY.get(self.word, 1):
            raise _NotAFormula(
                f"gives {self.word} {len(arguments)} arguments; it takes {_ARITY.get(self.word, 1)}"
            )
        if tape is None:
            raise _NotAFormula(f"uses {self.word} on a plain number; write the number it gives")
        if self.word != "where":
            return tape.make(self.word, *map(tape.lift, arguments))
        condition = arguments[0]
        if not (isinstance(condition, Symbol) and condition.word in _CONDITIONS):
            raise _NotAFormula("gives where something other than a comparison as its condition")
        return tape.make("where", condition, *map(tape.lift, arguments[1:]))


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
    "expm1": _along(lambda _, x: _word("exp", x)),
    "log": lambda _, arguments, slopes: _over(slopes[0], arguments[0]),
    "log1p": lambda _, arguments, slopes: _over(
        slopes[0], _plus(arguments[0].tape.number(1.0), arguments[0])
    ),
    "maximum": _extreme(">", "<"),
    "minimum": _extreme("<", ">"),
    "power": _power,
    "sigmoid": _along(lambda value, x: _times(value, _word("sigmoid", _negated(x)))),
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
    **dict.fromkeys(_CONDITIONS, _no_slope),
}
_ARITY = {"maximum": 2, "minimum": 2, "power": 2, "where": 3}
WORDS = tuple(_WORD_RULES)


def _tangent(result: Symbol, by: Symbol) -> Symbol:
    """The slope of ``result`` by an argument, each value's once and in the order they were made."""
    one, zero = by.tape.number(1.0), by.tape.number(0.0)
    slopes: dict[Symbol, Symbol] = {}
    for value in _reached(result):
        if value.word == "argument":
            slopes[value] = one if value is by else zero
        else:
            given = [slopes[argument] for argument in value.arguments]
            slopes[value] = _RULES[value.word](value, value.arguments, given)
    return slopes[result]


def _reached(result: Symbol) -> list[Symbol]:
    """Everything ``result`` is made of, itself last, in the order of making."""
    seen: dict[int, Symbol] = {}
    todo = [result]
    while todo:
        symbol = todo.pop()
        if symbol.order not in seen:
            seen[symbol.order] = symbol
            todo += symbol.arguments
    return [seen[order] for order in sorted(seen)]


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
    symbols = _reached(result)
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
    title = f"{_called(function)}_derivative" if _called(function).isidentifier() else "derivative"
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
