"""The vocabulary of formulas, as scalar functions that Numba inlines and vectorises.

Each takes a float32 or a float64 and gives the same type. ``exp`` and what is built on it are polynomials
without branches or calls, so a loop over them becomes SIMD code; float32 goes through float64, which
leaves only the final rounding. Errors are below 1 ulp (float32) and 2 ulp (float64); tests hold that.

``NARROW`` has quicker forms of some words, still in float64, for what is rounded to float32 in the end: ``sigmoid``,
``softplus``, ``sigmoid_power`` and ``power``, good to a relative 2**-35, which is the 2**-11th part of an ulp. The
others have no short form: in ``exp(x) - t`` a target close to ``exp(x)`` would take away the digits that matter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic

# Reassociation would undo compensated arithmetic, so only contraction (fused multiply-add) is allowed.
FASTMATH = {"contract"}
intrinsic: Any = numba_intrinsic  # its own types describe the typing function, not the call
# Of a part of a kernel: Python never calls it, and what would let it takes a third of the time to compile.
AS_PART: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_inline = njit(fastmath=FASTMATH, forceinline=True, **AS_PART)


@intrinsic
def _round_to_even(typingctx: Any, x: Any) -> Any:
    """The nearest integer as a float: an instruction, where ``round`` would be a call."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        intrinsic_function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.DoubleType(), [ir.DoubleType()]), "llvm.rint.f64"
        )
        return builder.call(intrinsic_function, args)

    return types.float64(types.float64), codegen


@intrinsic
def _power_of_two(typingctx: Any, k: Any) -> Any:
    """``2**k`` for an integral float64 k in [-1022, 1023], by writing the exponent's bits.

    The integer is read off the low bits of ``k + 1.5 * 2**52``, which stays in vector registers.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        double, int64 = ir.DoubleType(), ir.IntType(64)
        shifted = builder.fadd(args[0], ir.Constant(double, 6755399441055744.0 + 1023.0))
        bits = builder.bitcast(shifted, int64)
        return builder.bitcast(builder.shl(bits, ir.Constant(int64, 52)), double)

    return types.float64(types.float64), codegen


@intrinsic
def _round_to_even32(typingctx: Any, x: Any) -> Any:
    """The nearest integer, float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        intrinsic_function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.FloatType(), [ir.FloatType()]), "llvm.rint.f32"
        )
        return builder.call(intrinsic_function, args)

    return types.float32(types.float32), codegen


@intrinsic
def _power_of_two32(typingctx: Any, k: Any) -> Any:
    """``2**k`` for an integral float32 k in [-126, 127]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        single, int32 = ir.FloatType(), ir.IntType(32)
        shifted = builder.fadd(args[0], ir.Constant(single, 12582912.0 + 127.0))
        bits = builder.bitcast(shifted, int32)
        return builder.bitcast(builder.shl(bits, ir.Constant(int32, 23)), single)

    return types.float32(types.float32), codegen


@intrinsic
def _fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        double = ir.DoubleType()
        intrinsic_function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(double, [double] * 3), "llvm.fma.f64"
        )
        return builder.call(intrinsic_function, args)

    return types.float64(types.float64, types.float64, types.float64), codegen


@intrinsic
def _bits(typingctx: Any, x: Any) -> Any:
    """A float64's bits as an int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@intrinsic
def _from_bits(typingctx: Any, bits: Any) -> Any:
    """The float64 that an int64's bits mean."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


@intrinsic
def _like(typingctx: Any, value: Any, x: Any) -> Any:
    """``value`` in the type of ``x`` where that is a float type, else in float64."""
    target = x if isinstance(x, types.Float) else types.float64

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.cast(builder, args[0], signature.args[0], signature.return_type)

    return target(value, x), codegen


_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01  # ln 2 in two parts, the first with trailing zero bits
_LN2_LOW = 1.90821492927058770002e-10
_LN2 = 0.6931471805599453


@_inline
def _expm1_reduced(r: float) -> float:
    # exp(r) - 1 for |r| <= ln(2)/2: the Taylor polynomial of degree 13, exact to 2**-57 there.
    p = 1.6059043836821613e-10
    p = p * r + 2.08767569878681e-09
    p = p * r + 2.505210838544172e-08
    p = p * r + 2.755731922398589e-07
    p = p * r + 2.7557319223985893e-06
    p = p * r + 2.48015873015873e-05
    p = p * r + 1.984126984126984e-04
    p = p * r + 1.3888888888888889e-03
    p = p * r + 8.333333333333333e-03
    p = p * r + 4.1666666666666664e-02
    p = p * r + 1.6666666666666666e-01
    p = p * r + 0.5
    return r + r * r * p


@_inline
def _exp_of_sum(x: float, more: float) -> float:
    # exp(x + more) = 2**k * exp(r), |r| <= ln(2)/2, for |more| below an ulp of x
    clamped = min(max(x, -746.0), 710.0)
    k = _round_to_even(clamped * _LOG2_E)
    r = ((clamped - k * _LN2_HIGH) - k * _LN2_LOW) + more
    p = 1.0 + _expm1_reduced(r)
    # Two factors, so that results near the overflow and the subnormal range are reached in one rounding.
    half = _round_to_even(k * 0.5)
    result = (p * _power_of_two(half)) * _power_of_two(k - half)
    # The clamp gives 0 or inf outside the range; NaN is handed through.
    return result if x == x else x


@_inline
def _exp64(x: float) -> float:
    return _exp_of_sum(x, -0.0)  # the zero that changes nothing, and costs nothing


@_inline
def _exp_product64(a: float, x: float) -> float:
    product = a * x
    lost = _fma(a, x, -product)
    return _exp_of_sum(product, lost if math.fabs(product) < 800.0 else 0.0)


@_inline
def _expm1_64(x: float) -> float:
    clamped = min(max(x, -746.0), 710.0)
    k = _round_to_even(clamped * _LOG2_E)
    r = (clamped - k * _LN2_HIGH) - k * _LN2_LOW
    half = _round_to_even(k * 0.5)
    first, second, inverse = _power_of_two(half), _power_of_two(k - half), _power_of_two(half - k)
    # 2**k (1 + p) - 1 = 2**k p + (2**k - 1): no cancellation where k = 0, harmless rounding elsewhere. The second
    # factor last, for 2**1024 overflows where the result does not.
    result = (_expm1_reduced(r) * first + (first - inverse)) * second
    result = math.inf if x > 709.79 else result
    return result if x == x and x != 0.0 else x


@_inline
def _tanh64(x: float) -> float:
    # (1 - e) / (1 + e) with e = exp(-2 |x|); near 0 the numerator as -expm1, which keeps its digits there.
    e = _exp64(-2.0 * math.fabs(x))
    numerator = -_expm1_64(-2.0 * math.fabs(x)) if math.fabs(x) < 0.5 else 1.0 - e
    return math.copysign(numerator / (1.0 + e), x)


@_inline
def _sigmoid64(x: float) -> float:
    e = _exp64(-math.fabs(x))
    result = (1.0 if x >= 0.0 else e) / (1.0 + e)
    return result if x == x else x


_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD  # sqrt(1/2)
_MANTISSA = 0x000FFFFFFFFFFFFF


@_inline
def _exponent(x: float) -> float:
    # k in x = 2**k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)). Normal, positive x only.
    bits = _bits(x) - _SQRT_HALF_BITS + 0x3FF0000000000000
    # As a float without leaving the vector registers: OR it under 2**52.
    return _from_bits(((bits >> 52) & 0x7FF) | 0x4330000000000000) - (4503599627370496.0 + 1023.0)


@_inline
def _fraction(x: float) -> float:
    # f of the same.
    bits = _bits(x) - _SQRT_HALF_BITS + 0x3FF0000000000000
    return _from_bits((bits & _MANTISSA) + _SQRT_HALF_BITS) - 1.0


@_inline
def _log_parts(x: float, correction: float) -> float:
    # log(1 + f) = f - (f^2/2 - s (f^2/2 + R(s^2))), s = f / (2 + f): the odd series of log((1 + s) / (1 - s)), minimax
    # as published with fdlibm. ``correction`` is what x lost when it was rounded, relative to x.
    k, f = _exponent(x), _fraction(x)
    s = f / (2.0 + f)
    z = s * s
    r = 1.479819860511658591e-01
    r = r * z + 1.531383769920937332e-01
    r = r * z + 1.818357216161805012e-01
    r = r * z + 2.222219843214978396e-01
    r = r * z + 2.857142874366239149e-01
    r = r * z + 3.999999999940941908e-01
    r = (r * z + 6.666666666666735130e-01) * z
    half = 0.5 * f * f
    return k * _LN2_HIGH - ((half - (s * (half + r) + (k * _LN2_LOW + correction))) - f)


@_inline
def _log64(x: float) -> float:
    tiny = x < 2.2250738585072014e-308
    scaled = x * 18014398509481984.0 if tiny else x  # 2**54 lifts subnormal numbers into the normal range
    result = _log_parts(scaled, 0.0) - (37.42994775023705 if tiny else 0.0)
    result = -math.inf if x == 0.0 else result
    result = x if x == math.inf else result
    return result if x >= 0.0 else math.nan


@_inline
def _log1p64(x: float) -> float:
    u = 1.0 + x
    # What the addition lost, relative to u; nothing to correct where u is 0 or infinite.
    lost = (x - (u - 1.0)) if x < 1.0 else (1.0 - (u - x))
    result = _log_parts(u, lost / u)
    result = x if math.fabs(x) < 1e-18 or x == math.inf else result
    result = -math.inf if x == -1.0 else result
    return result if x >= -1.0 else math.nan


@_inline
def _softplus64(x: float) -> float:
    result = max(x, 0.0) + _log1p64(_exp64(-math.fabs(x)))
    return result if x == x else x


@_inline
def _sigmoid_power64(x: float, a: float) -> float:
    # exp(a x) (1 + exp(x))^-a for x < 0, (1 + exp(-x))^-a for others: neither holds a large number that was rounded.
    factor = _exp64(-a * _log1p64(_exp64(-math.fabs(x))))
    return _exp_product64(a, max(min(x, 0.0), -1e300)) * factor


@_inline
def exp(x: Any) -> Any:
    return _like(_exp64(np.float64(x)), x)


@_inline
def exp_product(a: Any, x: Any) -> Any:
    return _like(_exp_product64(np.float64(a), np.float64(x)), x)


@_inline
def tanh(x: Any) -> Any:
    return _like(_tanh64(np.float64(x)), x)


@_inline
def sigmoid(x: Any) -> Any:
    return _like(_sigmoid64(np.float64(x)), x)


@_inline
def sigmoid_power(x: Any, a: Any) -> Any:
    return _like(_sigmoid_power64(np.float64(x), np.float64(a)), x)


@_inline
def softplus(x: Any) -> Any:
    return _like(_softplus64(np.float64(x)), x)


@_inline
def log(x: Any) -> Any:
    return _like(_log64(np.float64(x)), x)


@_inline
def log1p(x: Any) -> Any:
    return _like(_log1p64(np.float64(x)), x)


@_inline
def expm1(x: Any) -> Any:
    return _like(_expm1_64(np.float64(x)), x)


@_inline
def erf(x: Any) -> Any:
    return _like(math.erf(np.float64(x)), x)


@_inline
def power(x: Any, a: Any) -> Any:
    return _like(math.pow(np.float64(x), np.float64(a)), x)


@_inline
def sqrt(x: Any) -> Any:
    return _like(math.sqrt(x), x)


@_inline
def abs(x: Any) -> Any:
    return _like(math.fabs(x), x)


@_inline
def sign(x: Any) -> Any:
    return _like(1.0 if x > 0.0 else (-1.0 if x < 0.0 else np.float64(x)), x)


@intrinsic
def _select(typingctx: Any, condition: Any, a: Any, b: Any) -> Any:
    """One of two numbers, both worked out: a branch, as Python's ``if`` is one, can keep a loop scalar."""
    chosen = typingctx.unify_types(a, b)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        condition, a, b = signature.args
        return builder.select(
            context.cast(builder, args[0], condition, types.boolean),
            context.cast(builder, args[1], a, chosen),
            context.cast(builder, args[2], b, chosen),
        )

    return chosen(condition, a, b), codegen


@_inline
def where(condition: Any, a: Any, b: Any) -> Any:
    return _select(condition, a, b)


@_inline
def maximum(a: Any, b: Any) -> Any:
    return a if a > b or a != a else b


@_inline
def minimum(a: Any, b: Any) -> Any:
    return a if a < b or a != a else b


# --- shorter forms, for results that are rounded to float32 -----------------------------------------------------


@_inline
def _expm1_reduced_narrow(r: float) -> float:
    # exp(r) - 1 for |r| <= ln(2)/2, minimax of degree 8: 2**-36 relative.
    p = 2.4859589834589056e-05
    p = p * r + 0.00019899285575896282
    p = p * r + 0.001388885403566671
    p = p * r + 0.00833329846980059
    p = p * r + 0.04166666671901226
    p = p * r + 0.16666666719028936
    p = p * r + 0.5
    return r + r * r * p


@_inline
def _exp_within(x: float) -> float:
    # exp(x) for x in [-708, 709]: one power of two does.
    k = _round_to_even(x * _LOG2_E)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    return (1.0 + _expm1_reduced_narrow(r)) * _power_of_two(k)


@_inline
def _decay_narrow64(x: float) -> float:
    # exp(-|x|), which float32 holds down to exp(-104)
    return _exp_within(max(-math.fabs(x), -700.0))


@_inline
def _log1p_of_decay(e: float) -> float:
    # log(1 + e) for e in [0, 1], minimax of degree 13: 2**-38 relative, without a division.
    p = -0.0005074701491635587
    p = p * e + 0.0041139143025147725
    p = p * e - 0.01566061972113594
    p = p * e + 0.03782205115422201
    p = p * e - 0.06673351301809682
    p = p * e + 0.09509049761833763
    p = p * e - 0.11924821056785652
    p = p * e + 0.14136394226230475
    p = p * e - 0.16639681062517256
    p = p * e + 0.19996782322178103
    p = p * e - 0.24999766952241512
    p = p * e + 0.33333324425176525
    p = p * e - 0.4999999986454919
    p = p * e + 0.9999999999965526
    return p * e


@_inline
def _softplus_narrow64(x: float) -> float:
    result = max(x, 0.0) + _log1p_of_decay(_decay_narrow64(x))
    return result if x == x else x


@_inline
def _sigmoid_narrow64(x: float) -> float:
    # One reciprocal, which sigmoid(-x) beside it shares.
    e = _decay_narrow64(x)
    inverse = 1.0 / (1.0 + e)
    result = inverse if x >= 0.0 else e * inverse
    return result if x == x else x


@_inline
def _sigmoid_power_narrow64(x: float, a: float) -> float:
    # exp(-a softplus(-x)): where softplus is large it is x, which is not rounded.
    return _exp_narrow64(-a * min(_softplus_narrow64(-x), 1e300))


@_inline
def _exp_narrow64(x: float) -> float:
    result = _exp_within(min(max(x, -708.0), 709.0))
    result = 0.0 if x < -708.0 else result
    result = math.inf if x > 709.0 else result
    return result if x == x else x


@_inline
def _log_narrow64(x: float) -> float:
    # log(x) = k log(2) + f Q(f) with x = 2**k (1 + f), minimax of degree 16: 2**-43 relative, without a division.
    tiny = x < 2.2250738585072014e-308
    scaled = x * 18014398509481984.0 if tiny else x
    k, f = _exponent(scaled), _fraction(scaled)
    k = k - 54.0 if tiny else k
    p = -0.039852964207342016
    p = p * f + 0.08013081280774167
    p = p * f - 0.08239666727001538
    p = p * f + 0.07672958684350745
    p = p * f - 0.08177816684849966
    p = p * f + 0.09075774906539441
    p = p * f - 0.10010609727631715
    p = p * f + 0.11112595516345464
    p = p * f - 0.1249961677196101
    p = p * f + 0.14285656587069528
    p = p * f - 0.16666673857834616
    p = p * f + 0.20000000980448135
    p = p * f - 0.2499999993847261
    p = p * f + 0.33333333327344605
    p = p * f - 0.5000000000016093
    p = p * f + 1.000000000000058
    result = k * _LN2 + p * f
    result = -math.inf if x == 0.0 else result
    return result if x < math.inf else x  # x is infinite or NaN


@_inline
def _power_narrow(x: Any, a: Any) -> Any:
    # exp(a log |x|): off by at most the 2**-36th part, for the product is at most 104 where float32 holds the result.
    base, exponent = np.float64(x), np.float64(a)
    size = _exp_narrow64(exponent * _log_narrow64(math.fabs(base)))
    half = exponent * 0.5
    signed = -size if half != _round_to_even(half) else size
    signed = signed if exponent == _round_to_even(exponent) else math.nan
    result = signed if base < 0.0 else size
    return _like(1.0 if exponent == 0.0 or base == 1.0 else result, x)


@_inline
def _sigmoid_power_narrow(x: Any, a: Any) -> Any:
    return _like(_sigmoid_power_narrow64(np.float64(x), np.float64(a)), x)


def _narrow(function: Any) -> Any:
    @_inline
    def word(x: Any) -> Any:
        return _like(function(np.float64(x)), x)

    return word


VOCABULARY: dict[str, Any] = {
    "abs": abs,
    "erf": erf,
    "exp": exp,
    "exp_product": exp_product,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "maximum": maximum,
    "minimum": minimum,
    "power": power,
    "sigmoid": sigmoid,
    "sigmoid_power": sigmoid_power,
    "sign": sign,
    "softplus": softplus,
    "sqrt": sqrt,
    "tanh": tanh,
    "where": where,
}

NARROW: dict[str, Any] = {
    **VOCABULARY,
    "power": _power_narrow,
    "sigmoid": _narrow(_sigmoid_narrow64),
    "sigmoid_power": _sigmoid_power_narrow,
    "softplus": _narrow(_softplus_narrow64),
}
