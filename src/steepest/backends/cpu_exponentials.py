"""Exponentials of a row's logits, relative to its largest.

The difference of two logits is rounded, unless they are close to each other: carrying its error along takes six
operations, a fifth of the whole. A row's *frame* does without. The largest logit m gives it a shift s, m itself where
|m| >= 264 and 0 elsewhere: either way x - s is exact for every x above m - 131, and exp(x - m) of those below is 0 in
float32. The exponential is then that of x - s, by 2**k p(r) as ever, with an integer K of the row taken off k, and so

    exp(x - m) = unit 2**(k - K + 64) p(r),    unit = exp(K ln 2 - (m - s)) 2**-64

in which the unit, one number a row, is float64. The 64 keeps exponentials down to exp(-131) normal numbers, so they
need one power of two where a subnormal result needs two; what is multiplied by them is rounded once, subnormal or not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from steepest.backends.cpu_vocabulary import (
    _LN2_HIGH,
    _LN2_LOW,
    _LOG2_E,
    _expm1_reduced,
    _expm1_reduced_narrow,
    _inline,
    _power_of_two,
    _power_of_two32,
    _round_to_even,
    _round_to_even32,
    intrinsic,
)

__all__ = ["exp_difference32", "exp_difference64", "exp_within32", "exp_within64", "frame32", "frame64"]

# --- differences ---------------------------------------------------------------------------------------------


@_inline
def exp_difference64(a: float, b: float) -> Any:
    """``exp(a - b)`` with the difference's rounding error carried along, for ``a <= b``."""
    d = a - b
    back = a - d
    error = (back - b) + (a - (d + back))
    held = -746.0 if d < -746.0 else d  # exp(-746) rounds to 0
    k = _round_to_even(held * _LOG2_E)
    m = _expm1_reduced((held - k * _LN2_HIGH) - k * _LN2_LOW)
    # (1 + m) (1 + error) - 1; the error of an infinite difference is NaN
    m = m + (error + m * error) if d > -746.0 else m
    half = _round_to_even(k * 0.5)
    return ((1.0 + m) * _power_of_two(half)) * _power_of_two(k - half)


_F = np.float32
_ONE, _LOWEST = _F(1.0), _F(-105.0)  # exp(-105) rounds to 0
_LOG2_E32, _HALF = _F(1.4426950408889634), _F(0.5)
_LN2_HIGH32, _LN2_LOW32 = _F(0.693359375), _F(-2.12194440e-4)
# exp(r) = 1 + r + r^2 P(r) for |r| <= ln(2)/2, minimax as published with Cephes (expf).
_P0, _P1, _P2 = _F(1.9875691500e-4), _F(1.3981999507e-3), _F(8.3334519073e-3)
_P3, _P4, _P5 = _F(4.1665795894e-2), _F(1.6666665459e-1), _F(5.0000001201e-1)


@_inline
def exp_difference32(a: Any, b: Any) -> Any:
    """The same in float32: 1.04 ulp, for ``a <= b``. The GPU's form, where a program has few rows to share a frame."""
    d = a - b
    back = a - d
    error = (back - b) + (a - (d + back))
    held = _LOWEST if d < _LOWEST else d
    k = _round_to_even32(held * _LOG2_E32)
    r = (held - k * _LN2_HIGH32) - k * _LN2_LOW32
    p = _P0
    p = p * r + _P1
    p = p * r + _P2
    p = p * r + _P3
    p = p * r + _P4
    p = p * r + _P5
    m = p * (r * r) + r
    m = m + (error + m * error) if d > _LOWEST else m
    half = _round_to_even32(k * _HALF)
    return ((_ONE + m) * _power_of_two32(half)) * _power_of_two32(k - half)


# --- within a frame ------------------------------------------------------------------------------------------

# exp(r) = 1 + r + r^2 P(r) for |r| <= ln(2)/2, minimax with float32 coefficients: 2**-28 relative.
_Q0, _Q1, _Q2, _Q3, _Q4 = _F(0.49999994), _F(0.16666521), _F(0.041668266), _F(0.008368684), _F(0.0013820946)
_DEEPEST = _F(131.0)
_FAR = _F(264.0)  # above twice the deepest, so that no difference is rounded
_ROUNDER = _F(
    12582912.0 + 127.0 + 64.0
)  # 1.5 * 2**23: what is added to it is rounded to an integer in its last bits
_LN2, _UNIT = 0.6931471805599453, 2.0**-64


@intrinsic
def _exponent32(typingctx: Any, rounded: Any) -> Any:
    """``2**(n - 127)`` for a float32 ``1.5 * 2**23 + n`` with n in [1, 254]; any other number for any other n."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        int32 = ir.IntType(32)
        bits = builder.shl(builder.bitcast(args[0], int32), ir.Constant(int32, 23))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(types.float32), codegen


@_inline
def frame32(largest: Any) -> Any:
    """Shift, rounder and least difference of a row, for `exp_within32`, and the unit."""
    shift = largest if abs(largest) >= _FAR else _F(0.0)
    near = largest - shift
    k = _round_to_even32(near * _LOG2_E32)
    unit = (1.0 + _expm1_reduced_narrow(np.float64(k) * _LN2 - np.float64(near))) * _UNIT
    return shift, _ROUNDER - k, near - _DEEPEST, unit


@_inline
def exp_within32(x: Any, shift: Any, rounder: Any, least: Any) -> Any:
    """``exp(x - largest) / unit`` for ``x <= largest``: 1.03 ulp; sixteen to a vector."""
    d = x - shift
    rounded = d * _LOG2_E32 + rounder
    k = rounded - rounder
    r = (d - k * _LN2_HIGH32) - k * _LN2_LOW32
    # Not by Horner's rule: a shorter chain of operations that wait for each other.
    square = r * r
    p = square * (square * _Q4 + (r * _Q3 + _Q2)) + (r * _Q1 + _Q0)
    m = square * p + r
    power = _exponent32(rounded)
    return _F(0.0) if d < least else m * power + power


@_inline
def frame64(largest: float) -> Any:
    """The same for float64, where exponentials are of differences: the unit is 1."""
    return largest, 0.0, 0.0, 1.0


@_inline
def exp_within64(x: float, shift: float, rounder: float, least: float) -> Any:
    """``exp(x - shift)``."""
    return exp_difference64(x, shift)
