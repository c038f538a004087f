"""Formulas as JavaScript, for pages that compute in a browser what the library computes.

The text of a function is translated, not run: the formulas of losses and optimizers are plain Python in a small
vocabulary (:mod:`steepest.backends.reference`), and its operations are JavaScript's own, float64 both, in the
order in which they were written. So a page's numbers differ from the library's by no more than two systems'
``exp`` and ``log`` do. Numbers that a formula takes from its module stand in the text as they are; functions it
calls are translated along with it.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import math
import re
import textwrap
import types
from collections.abc import Callable, Sequence
from typing import Any

from steepest.backends import reference
from steepest.errors import InputError

__all__ = ["Program"]

Formula = Callable[..., Any]

# The words of the vocabulary that JavaScript has.
_WORDS = {
    "abs": "Math.abs",
    "exp": "Math.exp",
    "expm1": "Math.expm1",
    "log": "Math.log",
    "log1p": "Math.log1p",
    "maximum": "Math.max",
    "minimum": "Math.min",
    "sign": "Math.sign",
    "sqrt": "Math.sqrt",
    "tanh": "Math.tanh",
}
# Those that it lacks. A $ stands in no name of Python's, so nothing in a formula can be called alike.
_WRITTEN = {
    # all terms of one sign: no digit is lost on the way; beyond 1.5 by what is missing to 1, as a continued fraction
    "erf": """\
function $erf(x) {
  const a = Math.abs(x), square = a * a;
  if (!(a < 6)) return Math.sign(x);
  if (a < 1.5) {
    let term = x, sum = x;
    for (let n = 1; n < 40; n++) sum += term *= 2 * square / (2 * n + 1);
    return 2 / Math.sqrt(Math.PI) * Math.exp(-square) * sum;
  }
  let rest = a;
  for (let n = 80; n > 0; n--) rest = a + n / 2 / rest;
  return Math.sign(x) * (1 - Math.exp(-square) / Math.sqrt(Math.PI) / rest);
}
""",
    # with what rounding the product loses, by products of halves, which are exact
    "exp_product": """\
function $exp_product(a, x) {
  const product = a * x;
  if (!(Math.abs(product) < 800 && Math.abs(a) < 1e300 && Math.abs(x) < 1e300)) return Math.exp(product);
  const highOf = (number) => 134217729 * number - (134217729 * number - number);
  const highA = highOf(a), highX = highOf(x), lowA = a - highA, lowX = x - highX;
  const lost = ((highA * highX - product) + highA * lowX + lowA * highX) + lowA * lowX;
  return Math.exp(product) * (1 + lost);
}
""",
    # to JavaScript 1 ** Infinity is NaN
    "power": """\
function $power(x, a) {
  return x === 1 ? 1 : x ** a;
}
""",
    "sigmoid": """\
function $sigmoid(x) {
  const e = Math.exp(-Math.abs(x));
  return (x < 0 ? e : 1) / (1 + e);
}
""",
    "sigmoid_power": """\
function $sigmoid_power(x, a) {
  const factor = Math.exp(-a * Math.log1p(Math.exp(-Math.abs(x))));
  return $exp_product(a, Math.max(Math.min(x, 0), -1e300)) * factor;
}
""",
    "softplus": """\
function $softplus(x) {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}
""",
}
_OF_PYTHON: dict[Any, str] = {
    builtins.abs: "Math.abs",
    builtins.max: "Math.max",
    builtins.min: "Math.min",
    math.exp: "Math.exp",
    math.expm1: "Math.expm1",
    math.log: "Math.log",
    math.log1p: "Math.log1p",
    math.sqrt: "Math.sqrt",
}
_RESERVED = {
    *("arguments", "await", "case", "catch", "const", "debugger", "default", "delete", "do", "enum", "eval"),
    *(
        "export",
        "extends",
        "false",
        "function",
        "implements",
        "instanceof",
        "interface",
        "let",
        "new",
        "null",
    ),
    *("package", "private", "protected", "public", "static", "super", "switch", "this", "throw", "true"),
    *("typeof", "var", "void", "Infinity", "Math", "NaN", "undefined"),
}

# An operation's sign and how tightly it binds.
_ATOM, _UNARY, _AND, _OR, _CHOICE = 9, 8, 3, 2, 1
_BINARY: dict[type[ast.AST], tuple[str, int]] = {
    ast.Add: ("+", 6),
    ast.Sub: ("-", 6),
    ast.Mult: ("*", 7),
    ast.Div: ("/", 7),
    ast.BitAnd: ("&&", _AND),
    ast.BitOr: ("||", _OR),
    ast.And: ("&&", _AND),
    ast.Or: ("||", _OR),
    ast.Lt: ("<", 5),
    ast.LtE: ("<=", 5),
    ast.Gt: (">", 5),
    ast.GtE: (">=", 5),
    ast.Eq: ("===", 4),
    ast.NotEq: ("!==", 4),
}


class Program:
    """Functions as one piece of JavaScript; what they share stands in it once.

    >>> from steepest.losses import LOSSES
    >>> program = Program()
    >>> program.add(LOSSES["mse"].formula.gradient)
    'mse$gradient'
    >>> print(program.source, end="")
    function mse$gradient(p, y) {
      return 2.0 * (p - y);
    }
    """

    def __init__(self) -> None:
        self._names: dict[Formula, str] = {}
        self._texts: dict[str, str] = {}

    def add(self, function: Formula) -> str:
        """Translate a function and all it calls.

        Args:
            function: a plain Python function in the vocabulary of :mod:`steepest.backends.reference`; beside its
                words it may use ``if``, ``range``, numbers of its module, ``min``, ``max`` and :mod:`math`'s functions.
                A tuple that it returns becomes an array.

        Returns:
            Its name in the program, ``module$function``.

        Raises:
            InputError: it uses something else, or its text is not to be had; the sentence names it.
        """
        if function not in self._names:
            home = (function.__module__ or "").rpartition(".")[2]
            name = "$".join(re.sub(r"\W", "_", part) for part in (home, function.__name__))
            while name in self._texts:
                name += "$"
            self._names[function] = name
            self._texts[name] = ""  # its place, before those it calls
            self._texts[name] = _Translation(self, function).text(name)
        return self._names[function]

    def word(self, word: str) -> str:
        """What a word of the vocabulary is called."""
        if word in _WRITTEN:
            for needed in re.findall(r"\$(\w+)", _WRITTEN[word]):
                if needed != word:
                    self.word(needed)
            self._texts[f"${word}"] = _WRITTEN[word]
            return f"${word}"
        return _WORDS[word]

    @property
    def source(self) -> str:
        """The text of all that was added."""
        return "".join(self._texts.values())

    @property
    def names(self) -> list[str]:
        """What is in it."""
        return list(self._texts)

    def text(self, name: str) -> str:
        """The text of one function, by its name in the program."""
        return self._texts[name]


class _Translation:
    """One function's text, statement by statement."""

    def __init__(self, program: Program, function: Formula) -> None:
        self.program, self.function = program, function
        self.definition = _definition(function)
        taken = self.definition.args
        self.arguments = [argument.arg for argument in (*taken.args, *filter(None, [taken.vararg]))]
        stored = [
            node.id
            for node in ast.walk(self.definition)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        ]
        self.local = {*self.arguments, *stored}
        # Named once, and not in a branch: the others are declared before anything happens.
        once = {name for name in stored if stored.count(name) == 1} - {*self.arguments}
        targets = [target for statement in self.definition.body for target in _targets(statement)]
        self.constant = {name for names in targets if once.issuperset(names) for name in names}

    def text(self, name: str) -> str:
        known = dict.fromkeys(_safe(name) for name in sorted(self.local - {*self.arguments} - self.constant))
        declared = [f"  let {', '.join(known)};\n"] if known else []
        lines = [line for statement in self.definition.body for line in self.statement(statement, "  ")]
        rest = self.definition.args.vararg
        taken = ", ".join(
            f"...{_safe(name)}" if rest is not None and name == rest.arg else _safe(name)
            for name in self.arguments
        )
        return f"function {name}({taken}) {{\n{''.join([*declared, *lines])}}}\n"

    def statement(self, node: ast.stmt, margin: str) -> list[str]:
        if isinstance(node, ast.Return) and node.value is not None:
            return [f"{margin}return {self.value(node.value)};\n"]
        if isinstance(node, ast.Assign):
            value, lines = self.value(node.value), []
            for target in reversed(node.targets):  # a = b = 1: b first, then a from it
                names = _names(target)
                if not names:
                    raise self.refusal(f"assigns to {ast.unparse(target)}")
                kind = "const " if set(names) <= self.constant else ""
                left = (
                    f"[{', '.join(map(_safe, names))}]" if isinstance(target, ast.Tuple) else _safe(names[0])
                )
                lines.append(f"{margin}{kind}{left} = {value};\n")
                value = left
            return lines
        if isinstance(node, ast.If):
            inner = [line for each in node.body for line in self.statement(each, margin + "  ")]
            other = [line for each in node.orelse for line in self.statement(each, margin + "  ")]
            lines = [f"{margin}if ({self.value(node.test)}) {{\n", *inner]
            return [*lines, *([f"{margin}}} else {{\n", *other] if other else []), f"{margin}}}\n"]
        if isinstance(node, ast.For) and isinstance(node.target, ast.Name) and not node.orelse:
            inner = [line for each in node.body for line in self.statement(each, margin + "  ")]
            return [f"{margin}for ({self.counting(node.target.id, node.iter)}) {{\n", *inner, f"{margin}}}\n"]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return []  # a docstring
        raise self.refusal(f"uses '{ast.unparse(node).splitlines()[0]}'")

    def counting(self, name: str, over: ast.expr) -> str:
        """The head of a loop over a range of plain numbers."""
        try:
            assert isinstance(over, ast.Call)
            assert self.found(over.func) is range
            numbers = range(*(ast.literal_eval(argument) for argument in over.args))
        except (AssertionError, ValueError, TypeError):
            raise self.refusal(f"loops over '{ast.unparse(over)}'") from None
        end, counter = ("<" if numbers.step > 0 else ">"), _safe(name)
        return f"{counter} = {numbers.start}; {counter} {end} {numbers.stop}; {counter} += {numbers.step}"

    def value(self, node: ast.expr, around: int = 0) -> str:
        """An expression's text, in brackets where what stands around it binds more tightly."""
        text, own = self.expression(node)
        return f"({text})" if own < around else text

    def expression(self, node: ast.expr) -> tuple[str, int]:
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self.name(node)
        if isinstance(node, ast.Constant):
            return _number(node.value, self), _ATOM
        if isinstance(node, ast.Tuple):
            return f"[{', '.join(map(self.value, node.elts))}]", _ATOM
        if isinstance(node, ast.Subscript) and ast.unparse(node.slice) == ":":
            return self.expression(node.value)  # all of it
        if isinstance(node, ast.Call):
            return self.call(node)
        if isinstance(node, ast.IfExp):
            return self.choice(node.test, node.body, node.orelse)
        if isinstance(node, ast.UnaryOp):
            sign = {ast.USub: "-", ast.UAdd: "+", ast.Not: "!"}.get(type(node.op))
            if sign is None:
                raise self.refusal(f"uses '{ast.unparse(node)}'")
            text = self.value(node.operand, _UNARY)
            return f"{sign}{text}" if text[0] != sign else f"{sign}({text})", _UNARY
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            power = self.program.word("power")
            return f"{power}({self.value(node.left)}, {self.value(node.right)})", _ATOM
        if isinstance(node, ast.BinOp):
            return self.joined(node.op, [node.left, node.right])
        if isinstance(node, ast.BoolOp):
            return self.joined(node.op, node.values)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = [self.joined(op, sides[i : i + 2]) for i, op in enumerate(node.ops)]
            return pairs[0] if len(pairs) == 1 else (" && ".join(text for text, _ in pairs), _AND)
        raise self.refusal(f"uses '{ast.unparse(node)}'")

    def joined(self, operation: ast.AST, parts: Sequence[ast.expr]) -> tuple[str, int]:
        if type(operation) not in _BINARY:
            raise self.refusal(f"uses {type(operation).__name__}")
        sign, own = _BINARY[type(operation)]
        first, *rest = parts
        texts = [self.value(first, own), *(self.value(part, own + 1) for part in rest)]
        return f" {sign} ".join(texts), own

    def choice(self, test: ast.expr, a: ast.expr, b: ast.expr) -> tuple[str, int]:
        condition = self.value(test, _CHOICE + 1)
        return f"{condition} ? {self.value(a, _CHOICE + 1)} : {self.value(b)}", _CHOICE

    def call(self, node: ast.Call) -> tuple[str, int]:
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            raise self.refusal(f"calls '{ast.unparse(node)}' with more than plain arguments")
        called = self.found(node.func)
        if called is reference.where:
            return self.choice(*node.args)
        return f"{self.function_name(node.func, called)}({', '.join(map(self.value, node.args))})", _ATOM

    def function_name(self, node: ast.expr, called: Any) -> str:
        word = _VOCABULARY.get(id(called))
        if word is not None:
            return self.program.word(word)
        if isinstance(called, types.FunctionType):
            return self.program.add(called)
        if called not in _OF_PYTHON:
            raise self.refusal(f"calls {ast.unparse(node)}")
        return _OF_PYTHON[called]

    def name(self, node: ast.Name | ast.Attribute) -> tuple[str, int]:
        if isinstance(node, ast.Name) and node.id in self.local:
            return _safe(node.id), _ATOM
        number = _number(self.found(node), self)
        return number, _UNARY if number.startswith("-") else _ATOM

    def found(self, node: ast.expr) -> Any:
        """What a name means where the function was defined."""
        if isinstance(node, ast.Attribute):
            base = self.found(node.value)
            if isinstance(base, types.ModuleType) and hasattr(base, node.attr):
                return getattr(base, node.attr)
        if isinstance(node, ast.Name) and node.id not in self.local:
            function: Any = self.function
            cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
            scope = {name: cell.cell_contents for name, cell in cells}
            for place in (scope, function.__globals__, vars(builtins)):
                if node.id in place:
                    return place[node.id]
        raise self.refusal(f"uses '{ast.unparse(node)}'")

    def refusal(self, what: str) -> InputError:
        return InputError(
            f"{self.function.__name__} {what}, which has no translation to JavaScript; a formula may use numbers, "
            f"+ - * / **, comparisons, if, ranges, and from steepest.backends.reference {', '.join(sorted(_ALL))}."
        )


_ALL = (*_WORDS, *_WRITTEN, "where")
_VOCABULARY = {id(getattr(reference, word)): word for word in _ALL}


def _definition(function: Formula) -> ast.FunctionDef:
    if not isinstance(function, types.FunctionType):
        raise InputError(f"{function!r} is no plain function; write the formula with def.")
    try:
        text = textwrap.dedent(inspect.getsource(function))
        node = ast.parse(text).body[0]
    except (OSError, SyntaxError, IndexError):
        node = None
    if not isinstance(node, ast.FunctionDef):
        raise InputError(
            f"The text of {function.__name__} cannot be read, and JavaScript is made from it; define it with def, "
            "in a file."
        )
    return node


def _targets(statement: ast.stmt) -> list[list[str]]:
    return [_names(target) for target in statement.targets] if isinstance(statement, ast.Assign) else []


def _names(target: ast.expr) -> list[str]:
    parts = target.elts if isinstance(target, ast.Tuple) else [target]
    return [part.id for part in parts if isinstance(part, ast.Name)]


def _safe(name: str) -> str:
    return f"{name}$" if name in _RESERVED else name


def _number(value: Any, translation: _Translation) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise translation.refusal(f"uses {value!r}")
    if math.isnan(value):
        return "NaN"
    return repr(value).replace("inf", "Infinity")
