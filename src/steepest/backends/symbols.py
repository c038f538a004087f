"""A formula, run once on symbols that write down every operation instead of doing it.

What they wrote is differentiated (:mod:`~steepest.backends.derive`) or written out in another language
(:mod:`~steepest.backends.cuda`), whatever helpers, loops and constants the formula was written with.
"""

from __future__ import annotations

import builtins
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from steepest.backends import reference
from steepest.errors import InputError

__all__ = [
    "CONDITIONS",
    "WORDS",
    "NotAFormula",
    "Symbol",
    "Tape",
    "Undecided",
    "argument_names",
    "called",
    "on_symbols",
    "reached",
    "what_may_be_used",
]

Formula = Callable[..., Any]

_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
CONDITIONS = (*_COMPARISONS, "&", "|")
WORDS = tuple(word for word in reference.__all__ if word != "compute_dtype")
_OF_MATH = (math.exp, math.expm1, math.log, math.log1p, math.sqrt)  # words by the same name
_ARITY = {"exp_product": 2, "maximum": 2, "minimum": 2, "power": 2, "sigmoid_power": 2, "where": 3}


class NotAFormula(Exception):
    """Something a formula may not use, and what would do instead."""


class Undecided(Exception):
    """A formula asks which way a comparison goes."""

    def __init__(self, condition: Symbol) -> None:
        super().__init__()
        self.condition = condition


class Tape:
    """Every value made while a formula is read, each distinct one once.

    Args:
        decided: which way comparisons go, where a formula may choose by Python's ``if``; None: it may not.
    """

    def __init__(self, decided: dict[Symbol, bool] | None = None) -> None:
        self._known: dict[tuple[Any, ...], Symbol] = {}
        self.decided = decided

    @property
    def is_free(self) -> bool:
        """Whether the formula is of single numbers: it may choose by ``if`` and use :mod:`math`."""
        return self.decided is not None

    def decide(self, condition: Symbol) -> bool:
        """Which way an ``if`` goes."""
        if self.decided is None:
            raise NotAFormula(f"uses Python's if, and, or, not, min or max on a value; {_BRANCH}")
        if condition not in self.decided:
            raise Undecided(condition)
        return self.decided[condition]

    def make(self, word: str, *arguments: Symbol, number: float | int | None = None) -> Symbol:
        """An operation's result."""
        key = (word, repr(number), *(argument.order for argument in arguments))
        if key not in self._known:
            self._known[key] = Symbol(self, len(self._known), word, arguments, number)
        return self._known[key]

    def number(self, value: float) -> Symbol:
        """A constant."""
        return self.make("number", number=float(value))

    def lift(self, value: Any) -> Symbol:
        """A symbol, or a number as a symbol; a comparison is no number."""
        if isinstance(value, Symbol):
            if value.word in CONDITIONS:
                raise NotAFormula(
                    "computes with a comparison as if it were a number; write where(condition, a, b)"
                )
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self.number(value)
        raise NotAFormula(f"computes with a {type(value).__name__}; its constants are plain numbers")


def _operation(word: str, *, reflected: bool = False) -> Callable[[Symbol, Any], Symbol]:
    def operate(self: Symbol, other: Any) -> Symbol:
        pair = (other, self) if reflected else (self, other)
        return self.tape.make(word, *map(self.tape.lift, pair))

    return operate


def _logic(word: str) -> Callable[[Symbol, Any], Symbol]:
    def operate(self: Symbol, other: Any) -> Symbol:
        if not all(isinstance(side, Symbol) and side.word in CONDITIONS for side in (self, other)):
            raise NotAFormula(f"uses {word} on what is not a comparison; it joins two comparisons")
        return self.tape.make(word, self, other)

    return operate


def _refusal(word: str, advice: str = "") -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotAFormula(f"uses {word}{advice and '; '}{advice}")

    return refuse


_BRANCH = "a comparison of tensors has many answers, so write where(condition, a, b), maximum(a, b) or minimum(a, b)"


class Symbol:
    """A value of a formula that is being read: how it is made instead of what it is."""

    __slots__ = ("arguments", "number", "order", "tape", "word")

    def __init__(
        self, tape: Tape, order: int, word: str, arguments: tuple[Symbol, ...], number: float | int | None
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

    def __bool__(self) -> bool:
        return self.tape.decide(self)

    __float__ = _refusal("float()")
    __int__ = __index__ = _refusal("int() or an index")
    __round__ = __trunc__ = __floor__ = __ceil__ = _refusal("rounding")
    __mod__ = __rmod__ = _refusal("%")
    __floordiv__ = __rfloordiv__ = _refusal("//")
    __matmul__ = __rmatmul__ = _refusal("@")
    # On tensors these would write over the caller's predictions.
    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = _refusal(
        "+=, -=, *=, /= or **=", "write e = e - y"
    )
    __invert__ = _refusal("~", "turn the comparison round instead")
    __getitem__ = _refusal("[ ]", "it sees one element at a time")
    __iter__ = __len__ = _refusal("a value as a sequence", "it sees one element at a time")

    def __neg__(self) -> Symbol:
        return self.tape.make("neg", self.tape.lift(self))

    def __pos__(self) -> Symbol:
        return self

    def __abs__(self) -> Symbol:
        return self.tape.make("abs", self.tape.lift(self))

    def __rpow__(self, base: Any) -> Symbol:
        if not self.tape.is_free:
            raise NotAFormula("uses ** with a value as the exponent; write power(x, a) or exp(a * log_of_x)")
        return self.tape.make("power", self.tape.lift(base), self)

    def __pow__(self, exponent: Any) -> Symbol:
        if isinstance(exponent, Symbol) and self.tape.is_free:
            return self.tape.make("power", self, exponent)
        if isinstance(exponent, bool) or not isinstance(exponent, (int, float)):
            raise NotAFormula(
                "uses ** with an exponent that is no plain number; write power(x, a), for x >= 0"
            )
        return self.tape.make("**", self.tape.lift(self), number=exponent)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotAFormula(f"uses .{name}, a tensor's own")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **_: Any) -> Symbol:
        # A numpy number on the left of an operator; any other function of numpy's is refused by its name.
        symbol = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}.get(ufunc.__name__)
        if symbol is None or method != "__call__":
            raise NotAFormula(f"uses numpy.{ufunc.__name__}")
        return self.tape.make(symbol, *map(self.tape.lift, inputs))

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any, **__: Any) -> NoReturn:
        raise NotAFormula(f"uses torch.{getattr(function, '__name__', function)}")


def what_may_be_used() -> str:
    """What a refusal ends with."""
    return (
        "a formula may use + - * /, ** with a number, comparisons, numbers, functions written with these, "
        f"and from steepest.backends.reference {', '.join(WORDS)}"
    )


def called(function: Formula) -> str:
    """What a sentence calls a formula."""
    name: str = getattr(function, "__name__", "formula")
    return "the formula" if name == "<lambda>" else name


def argument_names(function: types.FunctionType, num_arguments: int | None) -> list[str]:
    """Its arguments' names, so many of them where it takes any number."""
    code = function.__code__
    named = list(code.co_varnames[: code.co_argcount])
    takes_more = bool(code.co_flags & 0x04)  # *arguments
    count = len(named) if num_arguments is None else num_arguments
    if count < 1 or (count > len(named) and not takes_more):
        raise InputError(f"{called(function)} takes {len(named)} arguments; {count} were asked for.")
    named += [f"a{i}" for i in range(len(named), count)]
    # A formula may call an argument by a word of the vocabulary; what is written here may not.
    return [f"{name}_" if name in WORDS else name for name in named[:count]]


def on_symbols(function: types.FunctionType) -> Formula:
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
        return lambda *arguments: on_symbols(value)(*arguments)
    if callable(value):
        return _of_numbers(f"{name} ({home or 'torch'}'s)", value)
    raise NotAFormula(f"uses {name}, a {type(value).__name__}; its constants are plain numbers")


def _of_numbers(name: str, function: Formula) -> Formula:
    """A function from elsewhere: it may work out a constant, and nothing more."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        given = [argument for argument in (*arguments, *keywords.values()) if isinstance(argument, Symbol)]
        if given and given[0].tape.is_free and function in _OF_MATH:
            return given[0].tape.make(function.__name__, *given)
        if given:
            raise NotAFormula(f"uses {name}")
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
        raise NotAFormula(
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
            raise NotAFormula(
                f"gives {self.word} {len(arguments)} arguments; it takes {_ARITY.get(self.word, 1)}"
            )
        if tape is None:
            raise NotAFormula(f"uses {self.word} on a plain number; write the number it gives")
        if self.word != "where":
            return tape.make(self.word, *map(tape.lift, arguments))
        condition = arguments[0]
        if not (isinstance(condition, Symbol) and condition.word in CONDITIONS):
            raise NotAFormula("gives where something other than a comparison as its condition")
        return tape.make("where", condition, *map(tape.lift, arguments[1:]))


def reached(result: Symbol) -> list[Symbol]:
    """Everything ``result`` is made of, itself last, in the order of making."""
    seen: dict[int, Symbol] = {}
    todo = [result]
    while todo:
        symbol = todo.pop()
        if symbol.order not in seen:
            seen[symbol.order] = symbol
            todo += symbol.arguments
    return [seen[order] for order in sorted(seen)]
