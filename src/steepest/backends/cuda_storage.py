"""How numbers lie in a GPU's memory: half types, random rounding and 8-bit blocks, as on the CPU.

The layouts, their codes and their random numbers are those of :mod:`~steepest.backends.cpu_storage`, bit for bit, so
that state goes from one device to the other. Rounding to bfloat16 is also written out in bits, for Triton's
interpreter, which cuts; on a card it is half an instruction.
"""

from __future__ import annotations

import triton
import triton.language as tl

from steepest.backends import cpu_storage

__all__ = [
    "mixed", "nearest_bfloat16", "random_bfloat16", "random_bits", "random_float16", "signed_block", "signed_numbers",
    "store", "unsigned_block", "unsigned_numbers",
]  # fmt: skip


_IS_INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


def _signed(number: int, bits: int) -> int:
    return number - (1 << bits) if number >> (bits - 1) else number


_GOLDEN, _MIX1, _MIX2 = (
    tl.constexpr(_signed(number, 64)) for number in (cpu_storage.GOLDEN, cpu_storage.MIX1, cpu_storage.MIX2)
)
_WEYL, _PAIR = tl.constexpr(cpu_storage.WEYL), tl.constexpr(cpu_storage.PAIR)
_SHIFT, _OCTAVES = tl.constexpr(cpu_storage.SIGNED_SHIFT), tl.constexpr(cpu_storage.SIGNED_OCTAVES)
_STEP, _UP = tl.constexpr(1 << cpu_storage.SIGNED_SHIFT), tl.constexpr(23 - cpu_storage.SIGNED_SHIFT)
_FINEST, _COARSEST = tl.constexpr(cpu_storage.FINEST), tl.constexpr(cpu_storage.COARSEST)


# --- single numbers -----------------------------------------------------------------------------------------------


@triton.jit
def nearest_bfloat16(x):
    if _IS_INTERPRETED:
        bits = x.to(tl.uint32, bitcast=True)
        rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
        nearest = tl.where(x != x, 0x7FC0, rounded).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        nearest = x.to(tl.bfloat16)
    return nearest


@triton.jit
def random_bfloat16(x, random):
    bits = (x.to(tl.uint32, bitcast=True) + random) >> 16
    return tl.where(x != x, 0x7FC0, bits).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def random_float16(x, random):
    bits = x.to(tl.uint32, bitcast=True)
    normal = (bits + (random >> 3)) & 0xFFFFE000
    sign, size = bits & 0x80000000, bits & 0x7FFFFFFF
    # Below 2**-14 the places lie evenly: in units of 2**-24, the whole part with the random part's carry.
    is_small = size < 0x38800000
    units = size.to(tl.float32, bitcast=True) * 16777216.0 + random.to(tl.float32) * 1.52587890625e-05
    whole = tl.where(is_small, units, 0.0).to(tl.uint32).to(tl.float32) * 5.960464477539063e-08
    chosen = tl.where(is_small, whole.to(tl.uint32, bitcast=True) | sign, normal).to(tl.float32, bitcast=True)
    return tl.where(x != x, x, chosen).to(tl.float16)


@triton.jit
def store(output, at, x, mask):
    """Rounded to nearest in the memory's type; to half types by way of float32."""
    if output.dtype.element_ty == tl.float64:
        tl.store(output + at, x.to(tl.float64), mask=mask)
    elif output.dtype.element_ty == tl.bfloat16:
        tl.store(output + at, nearest_bfloat16(x.to(tl.float32)), mask=mask)
    else:
        tl.store(output + at, x.to(tl.float32).to(output.dtype.element_ty), mask=mask)


# --- random numbers -----------------------------------------------------------------------------------------------


@triton.jit
def _spread(z, BY: tl.constexpr):
    return z ^ (z.to(tl.uint64, bitcast=True) >> BY).to(tl.int64, bitcast=True)


@triton.jit
def mixed(stream, step):
    """Number ``step`` of a stream: SplitMix64 as a counter-based generator."""
    z = stream + step * _GOLDEN
    z = _spread(z, 30) * _MIX1
    return _spread(_spread(z, 27) * _MIX2, 31)


@triton.jit
def random_bits(lot, element, PLACE: tl.constexpr):
    """16 bits for an element of a tensor; two places share the halves of one number."""
    x = (lot + element).to(tl.uint32) * _WEYL + (PLACE >> 1) * _PAIR
    x = x ^ (x >> 15)
    x = x * ((lot >> 32).to(tl.uint32) | 1)
    x = x ^ (x >> 16)
    if PLACE % 2 == 1:
        return x >> 16
    else:
        return x & 0xFFFF


# --- a block of 8-bit numbers -------------------------------------------------------------------------------------


@triton.jit
def _size_bits(x):
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _exponent_for(top):
    # That of the largest number, with room to round it up; the sum may reach the sign.
    return tl.minimum((top.to(tl.int64) + _STEP) >> 23, 255).to(tl.int32)


@triton.jit
def _code_of(bits, random, shift, base, LARGEST: tl.constexpr):
    drawn = random << (shift - 16).to(tl.uint32)
    code = ((bits.to(tl.uint32, bitcast=True) + drawn) >> shift.to(tl.uint32)).to(tl.int32) - base
    return tl.minimum(code, LARGEST)


@triton.jit
def _unsigned_scale(header):
    mantissa = header >> 8
    return 23 - mantissa, tl.maximum((((header & 255) + 1) << mantissa) - 256, 0)


@triton.jit
def _signed_scale(header):
    exponent = tl.maximum(header - _OCTAVES, 1)
    return (exponent << 23).to(tl.float32, bitcast=True), exponent << _UP


@triton.jit
def unsigned_numbers(codes, header):
    shift, base = _unsigned_scale(header)
    return ((codes.to(tl.int32) + base) << shift).to(tl.float32, bitcast=True)


@triton.jit
def signed_numbers(codes, header):
    floor, base = _signed_scale(header)
    code = codes.to(tl.int32)
    size = (((code & 127) + base) << _SHIFT).to(tl.float32, bitcast=True) - floor
    sign = (code & 128) << 24
    return (size.to(tl.int32, bitcast=True) | sign).to(tl.float32, bitcast=True)


@triton.jit
def unsigned_block(x, mask, random):
    """The codes of a block and its header."""
    bits = tl.where(mask, _size_bits(x), 0)
    exponent = _exponent_for(tl.max(bits, axis=0))
    least = tl.min(tl.where(bits == 0, 0x7FFFFFFF, bits), axis=0)
    lowest = tl.where(least == 0x7FFFFFFF, exponent, least >> 23)
    mantissa = tl.full([], _COARSEST, tl.int32)
    for finer in tl.static_range(_COARSEST + 1, _FINEST + 1):
        mantissa = tl.where(((exponent - lowest + 1) << finer) <= 256, finer, mantissa)
    header = exponent | (mantissa << 8)
    shift, base = _unsigned_scale(header)
    return tl.maximum(_code_of(bits, random, shift, base, 255), 0).to(tl.uint8), header.to(tl.int16)


@triton.jit
def signed_block(x, mask, random):
    bits = tl.where(mask, _size_bits(x), 0)
    header = _exponent_for(tl.max(bits, axis=0))
    floor, base = _signed_scale(header)
    raised = (bits.to(tl.float32, bitcast=True) + floor).to(tl.int32, bitcast=True)
    code = _code_of(raised, random, tl.full([], _SHIFT, tl.int32), base, 127)
    sign = (x.to(tl.uint32, bitcast=True) >> 24).to(tl.int32) & 128
    return (code | sign).to(tl.uint8), header.to(tl.int16)
