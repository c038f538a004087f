"""The vocabulary of formulas, in Triton.

The words in float64 and the exponentials of softmax rows are the CPU's own (:mod:`~steepest.backends.cpu_vocabulary`,
:mod:`~steepest.backends.cpu_exponentials`): their texts are rewritten in Triton's form, so a polynomial stands once.
Written here are what those texts are made of (the bits of a number, rounding), the words that the CPU leaves to its
system's library, and the words in float32, for half types.

Every multiplication that meets an addition in these texts is one ``fma``, and nothing else is contracted
(``enable_fp_fusion`` is off), so a card does operation by operation what Triton's interpreter does.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import math
import textwrap
from typing import Any, TypeGuard

import numpy as np
import triton
import triton.language as tl

from steepest.backends import cpu_exponentials, cpu_vocabulary

__all__ = [
    "FULL",
    "HALF",
    "NARROW",
    "SINGLE",
    "exp_difference32",
    "exp_difference64",
    "exp_within32",
    "exp_within64",
    "frame32",
    "frame64",
    "log1p64",
    "power64",
]

# --- what the CPU's texts are made of ---------------------------------------------------------------------------


@triton.jit
def _max(a, b):
    return tl.where(b > a, b, a)  # NaN stays


@triton.jit
def _min(a, b):
    return tl.where(b < a, b, a)


@triton.jit
def _copysign(size, x):
    bits = size.to(tl.int64, bitcast=True) & 0x7FFFFFFFFFFFFFFF
    sign = (x.to(tl.int64, bitcast=True) >> 63) << 63
    return (bits | sign).to(tl.float64, bitcast=True)


@triton.jit
def _round_to_even(x):
    return (x + 6755399441055744.0) - 6755399441055744.0


@triton.jit
def _power_of_two(k):
    bits = (k + (6755399441055744.0 + 1023.0)).to(tl.int64, bitcast=True)
    return (bits << 52).to(tl.float64, bitcast=True)


@triton.jit
def _round_to_even32(x):
    return (x + 12582912.0) - 12582912.0


@triton.jit
def _power_of_two32(k):
    return ((k + (12582912.0 + 127.0)).to(tl.int32, bitcast=True) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _exponent32(rounded):
    return (rounded.to(tl.int32, bitcast=True) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _fma(a, b, c):
    return tl.fma(a, b, c)


@triton.jit
def _bits(x):
    return x.to(tl.int64, bitcast=True)


@triton.jit
def _from_bits(bits):
    return bits.to(tl.float64, bitcast=True)


# --- the CPU's texts --------------------------------------------------------------------------------------------


class _Rewriter(ast.NodeTransformer):
    """A branchless function of Numba's as one of Triton's: choices by ``where``, constants with a type, ``fma``."""

    def __init__(self, scope: dict[str, Any], kind: str) -> None:
        self.scope, self.kind = scope, kind

    def text(self, function: Any) -> str:
        node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        assert isinstance(node, ast.FunctionDef)
        node.decorator_list, node.returns = [], None
        for argument in node.args.args:
            argument.annotation = None
        node.body = [self.visit(statement) for statement in node.body]
        return ast.unparse(ast.fix_missing_locations(node))

    def typed(self, node: ast.expr) -> ast.expr:
        """A number that meets no other operand has to say its type."""
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            return _expression(f"tl.full([], {_literal(node.value)}, tl.{self.kind})")
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        node.value = self.typed(node.value)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        choice = _expression("tl.where(condition, a, b)")
        assert isinstance(choice, ast.Call)
        choice.args = [node.test, self.typed(node.body), self.typed(node.orelse)]
        return choice

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        operation = ast.BitAnd() if isinstance(node.op, ast.And) else ast.BitOr()
        joined = node.values[0]
        for value in node.values[1:]:
            joined = ast.BinOp(joined, operation, value)
        return joined

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        left, right = node.left, node.right
        if not _is_product(left):
            if isinstance(node.op, ast.Add) and _is_product(right):
                return self.fma(right, self.typed(left))
            if isinstance(node.op, ast.Sub) and _is_product(right) and isinstance(right.right, ast.Constant):
                right.right = _negated(right.right)
                return self.fma(right, self.typed(left))
            return node
        if isinstance(node.op, ast.Add):
            return self.fma(left, self.typed(right))
        if isinstance(node.op, ast.Sub) and isinstance(right, ast.Constant):
            return self.fma(left, self.typed(_negated(right)))
        return node

    def fma(self, product: ast.BinOp, other: ast.expr) -> ast.expr:
        call = _expression("tl.fma(a, b, c)")
        assert isinstance(call, ast.Call)
        call.args = [self.typed(product.left), self.typed(product.right), other]
        return call

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        called = ast.unparse(node.func)
        if called in ("np.float64", "np.float32", "_F"):
            return node.args[0]
        if called == "_like":
            return node.args[0]  # every word stays in its own type
        names = {"max": "_max", "min": "_min", "math.fabs": "tl.abs", "math.copysign": "_copysign"}
        node.func = _expression(names.get(called, called))
        if not called.startswith("tl."):
            node.args = [self.typed(argument) for argument in node.args]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        constants = {"math.inf": math.inf, "math.nan": math.nan}
        text = ast.unparse(node)
        return ast.Constant(constants[text]) if text in constants else node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            return _negated(node.operand)
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        value = self.scope.get(node.id)
        if isinstance(value, (float, np.floating)):
            return ast.Constant(float(value))
        return ast.Constant(value) if isinstance(value, int) else node


def _is_product(node: ast.expr) -> TypeGuard[ast.BinOp]:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)


def _negated(node: ast.Constant) -> ast.Constant:
    assert isinstance(node.value, (int, float))
    return ast.Constant(-node.value)


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _literal(value: float) -> str:
    return repr(value) if math.isfinite(value) else f"float('{value}')"


class _Finite(ast.NodeTransformer):
    """Infinities as Triton can read them."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not isinstance(node.value, float) or math.isfinite(node.value):
            return node
        return _expression(_literal(node.value))


def compiled(name: str, source: str, scope: dict[str, Any]) -> Any:
    """A Triton function from its text, under a name by which its text is found again."""
    source = ast.unparse(_Finite().visit(ast.parse(source))) + "\n"
    place = f"<triton {name}>"
    while linecache.getlines(place) not in ([], source.splitlines(True)):  # another formula of this name
        place = f"{place[:-1]}'>"
    linecache.cache[place] = (len(source), None, source.splitlines(True), place)
    names = {"tl": tl, "__name__": __name__, **scope}
    exec(compile(source, place, "exec", dont_inherit=True), names)
    return triton.jit(names[name])


def _taken_over(module: Any, names: str, kind: str = "float64") -> None:
    """Rewrite functions of the CPU's, in an order in which each knows those it calls."""
    for name in names.split():
        function = getattr(module, name)
        writer = _Rewriter(vars(module), kind)
        globals()[name] = compiled(name, writer.text(function.py_func), globals())


_taken_over(
    cpu_vocabulary,
    "_expm1_reduced _exp_of_sum _exp64 _exp_product64 _expm1_64 _tanh64 _sigmoid64 _exponent _fraction _log_parts "
    "_log64 _log1p64 _softplus64 _sigmoid_power64 _expm1_reduced_narrow _exp_within _decay_narrow64 "
    "_log1p_of_decay _softplus_narrow64 _sigmoid_narrow64 _exp_narrow64 _sigmoid_power_narrow64 _log_narrow64 "
    "_power_narrow",
)
_taken_over(cpu_exponentials, "exp_difference64")
_taken_over(cpu_exponentials, "exp_difference32 exp_within32", "float32")

_FAR, _DEEPEST, _ROUNDER, _LN2, _UNIT = (
    tl.constexpr(float(getattr(cpu_exponentials, name)))
    for name in ("_FAR", "_DEEPEST", "_ROUNDER", "_LN2", "_UNIT")
)


@triton.jit
def frame32(largest):
    """Shift, rounder and least difference of a row, for `exp_within32`, and the unit: as on the CPU."""
    shift = tl.where(tl.abs(largest) >= _FAR, largest, 0.0)
    near = largest - shift
    k = _round_to_even32(near * 1.4426950408889634)
    unit = (1.0 + _expm1_reduced_narrow(k.to(tl.float64) * _LN2 - near.to(tl.float64))) * _UNIT
    return shift, _ROUNDER - k, near - _DEEPEST, unit


@triton.jit
def frame64(largest):
    """The same for float64, where exponentials are of differences: the unit is 1."""
    nothing = 0.0 * largest
    return largest, nothing, nothing, tl.full([], 1.0, tl.float64)


@triton.jit
def exp_within64(x, shift, rounder, least):
    """``exp(x - shift)``."""
    return exp_difference64(x, shift)


# --- words that the CPU has from its system's library -------------------------------------------------------------


@triton.jit
def _split_log(x):
    """The logarithm of a positive number as a sum of two, good to 2**-59."""
    tiny = x < 2.2250738585072014e-308
    scaled = tl.where(tiny, x * 18014398509481984.0, x)
    bits = scaled.to(tl.int64, bitcast=True) - 0x3FE6A09E667F3BCD + 0x3FF0000000000000
    k = (((bits >> 52) & 0x7FF) | 0x4330000000000000).to(tl.float64, bitcast=True) - (
        4503599627370496.0 + 1023.0
    )
    k = tl.where(tiny, k - 54.0, k)
    m = ((bits & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD).to(tl.float64, bitcast=True)
    f = m - 1.0
    d = m + 1.0
    s = f / d
    # what the quotient and the sum d lost
    s_low = (tl.fma(-1.0 * s, d, f) - s * (m - (d - 1.0))) / d
    z = s * s
    r = tl.fma(
        z,
        tl.full([], 1.479819860511658591e-01, tl.float64),
        tl.full([], 1.531383769920937332e-01, tl.float64),
    )
    r = tl.fma(r, z, tl.full([], 1.818357216161805012e-01, tl.float64))
    r = tl.fma(r, z, tl.full([], 2.222219843214978396e-01, tl.float64))
    r = tl.fma(r, z, tl.full([], 2.857142874366239149e-01, tl.float64))
    r = tl.fma(r, z, tl.full([], 3.999999999940941908e-01, tl.float64))
    r = tl.fma(r, z, tl.full([], 6.666666666666735130e-01, tl.float64)) * z
    whole = k * 6.93147180369123816490e-01
    high = whole + 2.0 * s
    low = (2.0 * s - (high - whole)) + (k * 1.90821492927058770002e-10 + (2.0 * s_low + s * r))
    total = high + low
    low = low - (total - high)
    ends = (x == 0.0) | (x == float("inf"))
    end = tl.where(x == 0.0, float("-inf"), x)
    return tl.where(ends, end, total), tl.where(ends, 0.0, low)


@triton.jit
def power64(x, a):
    """``x**a``: the logarithm and the product with the exponent carry what they lose."""
    high, low = _split_log(tl.abs(x))
    p = a * high
    e = tl.fma(a, high, -1.0 * p) + a * low
    e = tl.where(tl.abs(p) < 800.0, e, 0.0)
    held = _min(_max(p, tl.full([], -746.0, tl.float64)), tl.full([], 710.0, tl.float64))
    k = _round_to_even(held * 1.4426950408889634)
    r = (
        tl.fma(k, tl.full([], -6.93147180369123816490e-01, tl.float64), held) - k * 1.90821492927058770002e-10
    ) + e
    half = _round_to_even(k * 0.5)
    size = ((1.0 + _expm1_reduced(r)) * _power_of_two(half)) * _power_of_two(k - half)
    size = tl.where(p == p, size, p)
    odd = a * 0.5 != _round_to_even(a * 0.5)
    signed = tl.where(odd, -1.0 * size, size)
    signed = tl.where((a == _round_to_even(a)) | (tl.abs(a) > 4503599627370496.0), signed, float("nan"))
    result = tl.where(x < 0.0, signed, size)
    result = tl.where((x == x) & (a == a), result, x + a)
    return tl.where((a == 0.0) | (x == 1.0), 1.0, result)


# --- words in float32 ---------------------------------------------------------------------------------------------


@triton.jit
def _expm1_reduced32(r):
    p = tl.fma(r, tl.full([], 1.9875691500e-4, tl.float32), tl.full([], 1.3981999507e-3, tl.float32))
    p = tl.fma(p, r, tl.full([], 8.3334519073e-3, tl.float32))
    p = tl.fma(p, r, tl.full([], 4.1665795894e-2, tl.float32))
    p = tl.fma(p, r, tl.full([], 1.6666665459e-1, tl.float32))
    p = tl.fma(p, r, tl.full([], 5.0000001201e-1, tl.float32))
    return tl.fma(p, r * r, r)


@triton.jit
def _reduced32(x):
    """``x = k ln(2) + r``, for x where its exponential is neither 0 nor infinite."""
    held = _min(_max(x, tl.full([], -105.0, tl.float32)), tl.full([], 89.0, tl.float32))
    k = _round_to_even32(held * 1.4426950408889634)
    return k, (held - k * 0.693359375) + k * 2.12194440e-4


@triton.jit
def _exp32(x):
    k, r = _reduced32(x)
    half = _round_to_even32(k * 0.5)
    result = ((1.0 + _expm1_reduced32(r)) * _power_of_two32(half)) * _power_of_two32(k - half)
    return tl.where(x == x, result, x)


@triton.jit
def _expm1_32(x):
    k, r = _reduced32(x)
    half = _round_to_even32(k * 0.5)
    first = _power_of_two32(half)
    result = tl.fma(_expm1_reduced32(r), first, first - _power_of_two32(half - k)) * _power_of_two32(k - half)
    result = tl.where(x > 88.8, float("inf"), result)
    return tl.where((x == x) & (x != 0.0), result, x)


@triton.jit
def _log_parts32(x, correction):
    # as in float64, minimax as published with fdlibm (logf)
    bits = x.to(tl.int32, bitcast=True) - 0x3F3504F3 + 0x3F800000
    k = ((bits >> 23) & 0xFF).to(tl.float32) - 127.0
    f = ((bits & 0x007FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    s = tl.div_rn(f, 2.0 + f)
    z = s * s
    r = tl.fma(z, tl.full([], 2.4279078841e-1, tl.float32), tl.full([], 2.8498786688e-1, tl.float32))
    r = tl.fma(r, z, tl.full([], 4.0000972152e-1, tl.float32))
    r = tl.fma(r, z, tl.full([], 6.6666662693e-1, tl.float32)) * z
    half = 0.5 * f * f
    low = k * 9.0580006145e-06 + correction
    return k * 6.9313812256e-01 - ((half - (s * (half + r) + low)) - f)


@triton.jit
def _log32(x):
    tiny = x < 1.1754944e-38
    scaled = tl.where(tiny, x * 33554432.0, x)
    result = _log_parts32(scaled, 0.0 * x) - tl.where(tiny, 17.328679514, 0.0)
    result = tl.where(x == 0.0, float("-inf"), result)
    result = tl.where(x == float("inf"), x, result)
    return tl.where(x >= 0.0, result, float("nan"))


@triton.jit
def _log1p_32(x):
    u = 1.0 + x
    lost = tl.where(x < 1.0, x - (u - 1.0), 1.0 - (u - x))
    result = _log_parts32(u, tl.div_rn(lost, u))
    result = tl.where((tl.abs(x) < 1e-9) | (x == float("inf")), x, result)
    result = tl.where(x == -1.0, float("-inf"), result)
    return tl.where(x >= -1.0, result, float("nan"))


@triton.jit
def _softplus32(x):
    result = _max(x, tl.full([], 0.0, tl.float32)) + _log1p_32(_exp32(-tl.abs(x)))
    return tl.where(x == x, result, x)


@triton.jit
def _sigmoid32(x):
    e = _exp32(-tl.abs(x))
    result = tl.div_rn(tl.where(x >= 0.0, 1.0, e), 1.0 + e)
    return tl.where(x == x, result, x)


@triton.jit
def _exp_product32(a, x):
    return _exp32(a * x)


@triton.jit
def _sigmoid_power32(x, a):
    return _exp32(-a * _min(_softplus32(-x), tl.full([], 3e38, tl.float32)))


@triton.jit
def _tanh32(x):
    e = -2.0 * tl.abs(x)
    numerator = -1.0 * _expm1_32(e)
    size = tl.div_rn(numerator, 2.0 - numerator)  # of 1 - exp(e) and 1 + exp(e)
    return tl.where(x < 0.0, -1.0 * size, tl.where(x > 0.0, size, x))


@triton.jit
def _power32(x, a):
    size = _exp32(a * _log32(tl.abs(x)))
    signed = tl.where(a * 0.5 != _round_to_even32(a * 0.5), -1.0 * size, size)
    signed = tl.where((a == _round_to_even32(a)) | (tl.abs(a) > 4194304.0), signed, float("nan"))
    result = tl.where(x < 0.0, signed, size)
    return tl.where((a == 0.0) | (x == 1.0), 1.0, result)


# --- words in float32, for results in half types ------------------------------------------------------------------
# bfloat16 has 8 bits and float16 has 11: 2**-19 is enough (2**-16 where the logarithm of the result is large), and the
# card's own approximations are good to 2**-22.


@triton.jit
def _exp_half(x):
    return tl.exp(x)


@triton.jit
def _expm1_half(x):
    return tl.where(tl.abs(x) < 0.35, _expm1_reduced32(x), tl.exp(x) - 1.0)


@triton.jit
def _exp_product_half(a, x):
    return tl.exp(a * x)


@triton.jit
def _log_parts_half(x):
    # x = 2**k (1 + f), log(1 + f) = f Q(f), minimax of degree 8: 2**-22
    bits = x.to(tl.int32, bitcast=True) - 0x3F3504F3 + 0x3F800000
    k = ((bits >> 23) & 0xFF).to(tl.float32) - 127.0
    f = ((bits & 0x007FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    p = tl.fma(f, tl.full([], -0.10106895864009857, tl.float32), tl.full([], 0.16222581267356873, tl.float32))
    p = tl.fma(p, f, tl.full([], -0.17250829935073853, tl.float32))
    p = tl.fma(p, f, tl.full([], 0.19900165498256683, tl.float32))
    p = tl.fma(p, f, tl.full([], -0.24969908595085144, tl.float32))
    p = tl.fma(p, f, tl.full([], 0.33335059881210327, tl.float32))
    p = tl.fma(p, f, tl.full([], -0.5000036358833313, tl.float32))
    p = tl.fma(p, f, tl.full([], 0.9999999403953552, tl.float32))
    return tl.fma(p, f, k * 0.69314718056)


@triton.jit
def _log_half(x):
    tiny = x < 1.1754944e-38
    result = _log_parts_half(tl.where(tiny, x * 33554432.0, x)) - tl.where(tiny, 17.328679514, 0.0)
    result = tl.where(x == float("inf"), x, result)
    return tl.where(x > 0.0, result, tl.where(x == 0.0, float("-inf"), float("nan")))


@triton.jit
def _log1p_half(x):
    u = 1.0 + x
    near = x * tl.fma(
        x, tl.fma(x, tl.full([], 0.33333333, tl.float32), tl.full([], -0.5, tl.float32)), 1.0 + 0.0 * x
    )
    result = tl.where(tl.abs(x) < 0.00390625, near, _log_parts_half(u))
    result = tl.where(x == float("inf"), x, result)
    return tl.where(u > 0.0, result, tl.where(u == 0.0, float("-inf"), float("nan")))


@triton.jit
def _softplus_half(x):
    # log(1 + e) for e in [0, 1], minimax of degree 8: 2**-22
    e = tl.exp(-tl.abs(x))
    p = tl.fma(
        e, tl.full([], -0.008539208211004734, tl.float32), tl.full([], 0.04408963397145271, tl.float32)
    )
    p = tl.fma(p, e, tl.full([], -0.10768171399831772, tl.float32))
    p = tl.fma(p, e, tl.full([], 0.17745241522789001, tl.float32))
    p = tl.fma(p, e, tl.full([], -0.24495463073253632, tl.float32))
    p = tl.fma(p, e, tl.full([], 0.33275479078292847, tl.float32))
    p = tl.fma(p, e, tl.full([], -0.4999740421772003, tl.float32))
    p = tl.fma(p, e, tl.full([], 0.9999998211860657, tl.float32))
    return tl.fma(p, e, _max(x, tl.full([], 0.0, tl.float32)))


@triton.jit
def _sigmoid_half(x):
    e = tl.exp(-tl.abs(x))
    root = tl.rsqrt(1.0 + e)
    inverse = root * root
    return tl.where(x >= 0.0, inverse, e * inverse)


@triton.jit
def _sigmoid_power_half(x, a):
    return tl.exp(-a * _min(_softplus_half(-x), tl.full([], 3e38, tl.float32)))


@triton.jit
def _tanh_half(x):
    numerator = -1.0 * _expm1_half(-2.0 * tl.abs(x))
    size = numerator / (2.0 - numerator)
    return tl.where(x < 0.0, -1.0 * size, tl.where(x > 0.0, size, x))


@triton.jit
def _power_half(x, a):
    size = tl.exp(a * _log_half(tl.abs(x)))
    signed = tl.where(a * 0.5 != _round_to_even32(a * 0.5), -1.0 * size, size)
    signed = tl.where((a == _round_to_even32(a)) | (tl.abs(a) > 4194304.0), signed, float("nan"))
    result = tl.where(x < 0.0, signed, size)
    return tl.where((a == 0.0) | (x == 1.0), 1.0, result)


@triton.jit
def _sqrt_half(x):
    # the card's root of a subnormal number is 0
    tiny = x < 1e-30
    return tl.sqrt(tl.where(tiny, x * 1.152921504606847e18, x)) * tl.where(tiny, 9.313225746154785e-10, 1.0)


# --- words of any type --------------------------------------------------------------------------------------------


@triton.jit
def _erf(x):
    return tl.erf(x)


@triton.jit
def _abs(x):
    return tl.abs(x)


@triton.jit
def _sign(x):
    return tl.where(x > 0.0, 1.0, tl.where(x < 0.0, -1.0, x))


@triton.jit
def _maximum(a, b):
    return tl.where((a > b) | (a != a), a, b)


@triton.jit
def _minimum(a, b):
    return tl.where((a < b) | (a != a), a, b)


@triton.jit
def _where(condition, a, b):
    return tl.where(condition, a, b)


@triton.jit
def _sqrt64(x):
    return tl.sqrt(x)


@triton.jit
def _sqrt32(x):
    return tl.sqrt_rn(x)


_ANY = {
    "abs": _abs,
    "erf": _erf,
    "maximum": _maximum,
    "minimum": _minimum,
    "sign": _sign,
    "where": _where,
}
_TAKEN: Any = globals()  # with what was taken over from the CPU
log1p64: Any = _TAKEN["_log1p64"]
exp_difference64: Any = _TAKEN["exp_difference64"]
exp_difference32: Any = _TAKEN["exp_difference32"]
exp_within32: Any = _TAKEN["exp_within32"]

FULL: dict[str, Any] = {
    **_ANY,
    "exp": _TAKEN["_exp64"],
    "exp_product": _TAKEN["_exp_product64"],
    "expm1": _TAKEN["_expm1_64"],
    "log": _TAKEN["_log64"],
    "log1p": log1p64,
    "power": power64,
    "sigmoid": _TAKEN["_sigmoid64"],
    "sigmoid_power": _TAKEN["_sigmoid_power64"],
    "softplus": _TAKEN["_softplus64"],
    "sqrt": _sqrt64,
    "tanh": _TAKEN["_tanh64"],
}
# The CPU's shorter forms, in float64, for what is rounded to float32 in the end.
NARROW: dict[str, Any] = {
    **FULL,
    "power": _TAKEN["_power_narrow"],
    "sigmoid": _TAKEN["_sigmoid_narrow64"],
    "sigmoid_power": _TAKEN["_sigmoid_power_narrow64"],
    "softplus": _TAKEN["_softplus_narrow64"],
}
SINGLE: dict[str, Any] = {
    **_ANY,
    "exp": _exp32,
    "exp_product": _exp_product32,
    "expm1": _expm1_32,
    "log": _log32,
    "log1p": _log1p_32,
    "power": _power32,
    "sigmoid": _sigmoid32,
    "sigmoid_power": _sigmoid_power32,
    "softplus": _softplus32,
    "sqrt": _sqrt32,
    "tanh": _tanh32,
}
# The float32 words for results of 8 or 11 bits.
HALF: dict[str, Any] = {
    **SINGLE,
    "exp": _exp_half,
    "exp_product": _exp_product_half,
    "expm1": _expm1_half,
    "log": _log_half,
    "log1p": _log1p_half,
    "power": _power_half,
    "sigmoid": _sigmoid_half,
    "sigmoid_power": _sigmoid_power_half,
    "softplus": _softplus_half,
    "sqrt": _sqrt_half,
    "tanh": _tanh_half,
}
