"""How an optimizer's numbers lie in memory: narrow types, random rounding, blocks of 8-bit numbers.

A kernel computes in float32 or float64 whatever its tensors hold: a column's ``load`` widens an element, its
``store`` rounds it.

Eight-bit numbers are small floats that share their exponent's range, block by block. A block's header has the
exponent of its largest number and how many bits of a code are mantissa; codes count in steps of such floats.

* *unsigned*, for what a step is divided by: the finest mantissa, of 7 bits to 3, that reaches from the largest
  number down to the smallest that is not 0, or 32 octaves down; what is below, 0 included, becomes the smallest
  code's number. It is never 0 beside larger ones, so nothing is divided by a 0 that it is not.
* *signed*: a sign and 7 bits of ``|x| + f`` with 3 bits of mantissa, ``f`` 15 octaves below the largest number.
  Near 0, that is below ``f``, codes lie evenly, and 0 is 0.

Both ranges end alike for an average of gradients and one of their squares, so what is lost below the end of the
one is divided by what was raised to the end of the other.

Random rounding goes to one of the two neighbours, so that it is right on average: averages that move by less than
half a step of their type would stand still under nearest rounding. Its numbers depend on (stream, step, element)
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic as numba_intrinsic

from steepest.backends import cpu
from steepest.backends.cpu_vocabulary import AS_PART, FASTMATH, _inline

__all__ = [
    "BLOCK",
    "EIGHT_BIT",
    "ITEM_SIZES",
    "Column",
    "Layout",
    "columns",
    "has_float16",
    "inlined",
    "lots",
]

BLOCK = 256  # 8-bit numbers under one header
EIGHT_BIT = ("signed8", "unsigned8")
ITEM_SIZES = {
    "float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "stochastic_bfloat16": 2, "signed8": 1, "unsigned8": 1
}  # fmt: skip
HEADER = 2  # bytes

inlined = cache(_inline)  # compiled once a process
intrinsic: Any = numba_intrinsic  # its own types describe the typing function, not the call


@dataclass(frozen=True)
class Layout:
    """How a parameter and its state lie in memory; its gradient is of the parameter's type.

    ``rounding`` is the parameter's: ``"nearest"``, ``"stochastic"``, or ``"kahan"``: the parameter is then the sum
    of itself and of what its last rounding lost, which is one more tensor.

    A tensor has a row of int64 numbers: how many elements; then where parameter, gradient, each slot, the headers
    of each 8-bit slot and what the rounding lost begin; then, if anything is rounded at random, the stream and which
    of its numbers is the first element's.
    """

    parameter: str
    slots: tuple[str, ...] = ()
    rounding: str = "nearest"

    @property
    def computed_in(self) -> str:
        """The type that the rule is computed in."""
        return "float64" if "float64" in (self.parameter, *self.slots) else "float32"

    @property
    def is_random(self) -> bool:
        """Whether anything is rounded at random."""
        return self.rounding == "stochastic" or not _NEAREST.issuperset(self.slots)

    @property
    def num_eight_bit(self) -> int:
        """How many slots have headers."""
        return sum(slot in EIGHT_BIT for slot in self.slots)

    @property
    def num_tensors(self) -> int:
        """How many addresses a row has."""
        return 2 + len(self.slots) + self.num_eight_bit + (self.rounding == "kahan")

    @property
    def width(self) -> int:
        """How many numbers a row has."""
        return 1 + self.num_tensors + 2 * self.is_random

    @property
    def strides(self) -> list[tuple[int, int]]:
        """For each of a row's tensors so many elements of the parameter and the bytes that they take there."""
        own = ITEM_SIZES[self.parameter]
        headers = [(BLOCK, HEADER)] * self.num_eight_bit
        lost = [(1, own)] * (self.rounding == "kahan")
        return [(1, own), (1, own), *((1, ITEM_SIZES[slot]) for slot in self.slots), *headers, *lost]


_NEAREST = frozenset({"float64", "float32", "bfloat16", "float16"})


@cache
def has_float16() -> bool:
    """Whether the processor converts float16 itself; without it LLVM calls a function that is not there."""
    features = llvmlite.binding.get_host_cpu_features()
    return features.get("f16c", "neon" in features)


@dataclass(frozen=True)
class Column:
    """What a kernel does with one tensor of a row; Numba functions.

    ``view(row, at, first, n, scratch)`` makes a member of ``n`` elements, ``load(member, i)`` and
    ``store(member, i, value, lot)`` take one, and ``close(row, at, first, n, member, lot)`` ends the block.
    """

    view: Any
    load: Any
    store: Any
    close: Any


# --- single numbers ------------------------------------------------------------------------------------------

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F32, _HALF = ir.FloatType(), ir.HalfType()


def _int32(value: int) -> ir.Constant:
    return ir.Constant(_I32, value & 0xFFFFFFFF)


def _nan_or(builder: Any, x: Any, bits: Any, nan: int) -> Any:
    return builder.select(builder.fcmp_unordered("uno", x, x), ir.Constant(bits.type, nan), bits)


@intrinsic
def _widen_bfloat16(typingctx: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.shl(builder.zext(args[0], _I32), _int32(16)), _F32)

    return types.float32(types.uint16), codegen


@intrinsic
def _nearest_bfloat16(typingctx: Any, x: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _I32)
        odd = builder.and_(builder.lshr(bits, _int32(16)), _int32(1))
        rounded = builder.lshr(builder.add(bits, builder.add(odd, _int32(0x7FFF))), _int32(16))
        return _nan_or(builder, args[0], builder.trunc(rounded, _I16), 0x7FC0)

    return types.uint16(types.float32), codegen


@intrinsic
def _random_bfloat16(typingctx: Any, x: Any, random: Any) -> Any:
    """``random`` has 16 bits: added below the last place that is kept, they carry into it as often as they should."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.add(builder.bitcast(args[0], _I32), args[1])
        return _nan_or(builder, args[0], builder.trunc(builder.lshr(bits, _int32(16)), _I16), 0x7FC0)

    return types.uint16(types.float32, types.int32), codegen


@intrinsic
def _widen_float16(typingctx: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], _HALF), _F32)

    return types.float32(types.uint16), codegen


@intrinsic
def _nearest_float16(typingctx: Any, x: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], _HALF), _I16)

    return types.uint16(types.float32), codegen


@intrinsic
def _random_float16(typingctx: Any, x: Any, random: Any) -> Any:
    """As :func:`_random_bfloat16`; below 2**-14 the places lie evenly, and the random part is added as a number."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _I32)
        normal = builder.and_(builder.add(bits, builder.lshr(args[1], _int32(3))), _int32(~0x1FFF))
        sign, size = (builder.and_(bits, _int32(mask)) for mask in (0x80000000, 0x7FFFFFFF))
        # In units of 2**-24 and as an integer: the whole part with the random part's carry.
        share = builder.fmul(builder.uitofp(args[1], _F32), ir.Constant(_F32, 2.0**-16))
        units = builder.fmul(builder.bitcast(size, _F32), ir.Constant(_F32, 2.0**24))
        is_small = builder.icmp_unsigned("<", size, _int32(0x38800000))
        units = builder.select(is_small, builder.fadd(units, share), ir.Constant(_F32, 0.0))
        whole = builder.fmul(builder.uitofp(builder.fptoui(units, _I32), _F32), ir.Constant(_F32, 2.0**-24))
        small = builder.or_(builder.bitcast(whole, _I32), sign)
        chosen = builder.bitcast(builder.select(is_small, small, normal), _F32)
        chosen = builder.select(builder.fcmp_unordered("uno", args[0], args[0]), args[0], chosen)
        return builder.bitcast(builder.fptrunc(chosen, _HALF), _I16)

    return types.uint16(types.float32, types.int32), codegen


@_inline
def _same(x: Any) -> Any:
    return x


# type: how it lies in memory, widened, rounded to nearest, rounded at random
_NUMBERS: dict[str, tuple[Any, Any, Any, Any]] = {
    "float64": (types.float64, _same, _same, None),
    "float32": (types.float32, _same, _same, None),
    "bfloat16": (types.uint16, _widen_bfloat16, _nearest_bfloat16, _random_bfloat16),
    "float16": (types.uint16, _widen_float16, _nearest_float16, _random_float16),
}

# --- random numbers ------------------------------------------------------------------------------------------

GOLDEN, MIX1, MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # SplitMix64's
WEYL, PAIR = 0x9E3779B1, 0x7FEB352D


@intrinsic
def _mixed(typingctx: Any, stream: Any, step: Any) -> Any:
    """Number ``step`` of a stream: SplitMix64 as a counter-based generator."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def spread(z: Any, by: int) -> Any:
            return builder.xor(z, builder.lshr(z, ir.Constant(_I64, by)))

        z = builder.add(args[0], builder.mul(args[1], ir.Constant(_I64, GOLDEN)))
        z = builder.mul(spread(z, 30), ir.Constant(_I64, MIX1))
        return spread(builder.mul(spread(z, 27), ir.Constant(_I64, MIX2)), 31)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _random_bits(typingctx: Any, first: Any, factor: Any, i: Any, place: Any) -> Any:
    """16 bits for an element of a tensor; two places share the halves of one number."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first, factor, i, place = (builder.trunc(argument, _I32) for argument in args)
        x = builder.mul(builder.add(first, i), _int32(WEYL))
        x = builder.add(x, builder.mul(builder.lshr(place, _int32(1)), _int32(PAIR)))
        x = builder.xor(x, builder.lshr(x, _int32(15)))
        x = builder.mul(x, builder.or_(factor, _int32(1)))
        x = builder.xor(x, builder.lshr(x, _int32(16)))
        upper = builder.trunc(place, ir.IntType(1))
        return builder.select(upper, builder.lshr(x, _int32(16)), builder.and_(x, _int32(0xFFFF)))

    return types.int32(types.int64, types.int64, types.int64, types.int64), codegen


def lots(layout: Layout) -> Any:
    """``lot(row, at, first, step)``: what the random numbers of a block's elements are drawn from."""
    if not layout.is_random:
        return inlined(_no_lot)
    stream = layout.width - 2
    place = stream + 1

    def lot(t: Any, at: int, first: int, step: float) -> Any:
        mixed = _mixed(t[at + stream], np.int64(step))
        return mixed + t[at + place] + first, mixed >> 32

    return _inline(lot)


def _no_lot(t: Any, at: int, first: int, step: float) -> Any:
    return 0, 0


# --- blocks of 8-bit numbers ---------------------------------------------------------------------------------


@intrinsic
def _size_bits(typingctx: Any, x: Any) -> Any:
    """The bits of ``|x|``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.and_(builder.bitcast(args[0], _I32), _int32(0x7FFFFFFF))

    return types.int32(types.float32), codegen


@intrinsic
def _least_but_zero(typingctx: Any, least: Any, bits: Any) -> Any:
    """The smaller, both counted from 1 less, where 0 comes last."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        less = builder.sub(args[1], _int32(1))
        return builder.select(builder.icmp_unsigned("<", less, args[0]), less, args[0])

    return types.int32(types.int32, types.int32), codegen


@intrinsic
def _larger(typingctx: Any, a: Any, b: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed(">", *args), *args)

    return types.int32(types.int32, types.int32), codegen


def _code_of(builder: Any, bits: Any, random: Any, shift: Any, base: Any, largest: int) -> Any:
    """Steps from ``base``, rounded at random: bits of positive floats count in steps of them."""
    drawn = builder.shl(random, builder.sub(shift, _int32(16)))
    code = builder.sub(builder.lshr(builder.add(bits, drawn), shift), base)
    return builder.select(builder.icmp_signed("<", code, _int32(largest)), code, _int32(largest))


@intrinsic
def _unsigned_code(typingctx: Any, x: Any, random: Any, shift: Any, base: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shift, base = (builder.trunc(argument, _I32) for argument in args[2:])
        bits = builder.and_(builder.bitcast(args[0], _I32), _int32(0x7FFFFFFF))
        code = _code_of(builder, bits, args[1], shift, base, 255)
        code = builder.select(builder.icmp_signed(">", code, _int32(0)), code, _int32(0))
        return builder.trunc(code, _I8)

    return types.uint8(types.float32, types.int32, types.int64, types.int64), codegen


@intrinsic
def _unsigned_number(typingctx: Any, code: Any, shift: Any, base: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shift, base = (builder.trunc(argument, _I32) for argument in args[1:])
        return builder.bitcast(builder.shl(builder.add(builder.zext(args[0], _I32), base), shift), _F32)

    return types.float32(types.uint8, types.int64, types.int64), codegen


@intrinsic
def _signed_code(typingctx: Any, x: Any, random: Any, floor: Any, base: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _I32)
        size = builder.bitcast(builder.and_(bits, _int32(0x7FFFFFFF)), _F32)
        raised = builder.bitcast(builder.fadd(size, args[2]), _I32)
        code = _code_of(builder, raised, args[1], _int32(SIGNED_SHIFT), builder.trunc(args[3], _I32), 127)
        sign = builder.and_(builder.lshr(bits, _int32(24)), _int32(128))
        return builder.trunc(builder.or_(code, sign), _I8)

    return types.uint8(types.float32, types.int32, types.float32, types.int64), codegen


@intrinsic
def _signed_number(typingctx: Any, code: Any, floor: Any, base: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = builder.zext(args[0], _I32)
        steps = builder.add(builder.and_(code, _int32(127)), builder.trunc(args[2], _I32))
        size = builder.fsub(builder.bitcast(builder.shl(steps, _int32(SIGNED_SHIFT)), _F32), args[1])
        sign = builder.shl(builder.and_(code, _int32(128)), _int32(24))
        return builder.bitcast(builder.or_(builder.bitcast(size, _I32), sign), _F32)

    return types.float32(types.uint8, types.float32, types.int64), codegen


@intrinsic
def _float_at(typingctx: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.trunc(args[0], _I32), _F32)

    return types.float32(types.int64), codegen


SIGNED_SHIFT = 20  # 3 bits of mantissa
SIGNED_OCTAVES = 15  # between the largest exponent and the floor's
FINEST, COARSEST = 7, 3  # an unsigned code's bits of mantissa


@_inline
def _unsigned_scale(header: int) -> Any:
    """How far a code is shifted, and what it is counted from."""
    mantissa = header >> 8
    return 23 - mantissa, max((((header & 255) + 1) << mantissa) - 256, 0)


@_inline
def _signed_scale(header: int) -> Any:
    """What is added to a number, and what its code is counted from."""
    exponent = max(header - SIGNED_OCTAVES, 1)
    return _float_at(exponent << 23), exponent << (23 - SIGNED_SHIFT)


@_inline
def _exponent_for(top: int) -> int:
    # That of the largest number, with room to round it up.
    return min((top + (1 << SIGNED_SHIFT)) >> 23, 255)


_plain = njit(fastmath=FASTMATH, **AS_PART)


@_plain
def _close_unsigned(x: Any, codes: Any, header: Any, first: int, factor: int, place: int) -> None:
    top, least = np.int32(0), np.int32(-1)
    for i in range(len(x)):
        bits = _size_bits(x[i])
        top = _larger(top, bits)
        least = _least_but_zero(least, bits)
    exponent = _exponent_for(int(top))
    lowest = exponent if least == -1 else (np.int64(least) + 1) >> 23
    mantissa = COARSEST
    while mantissa < FINEST and (exponent - lowest + 1) << (mantissa + 1) <= 256:
        mantissa += 1
    header[0] = exponent | mantissa << 8
    shift, base = _unsigned_scale(int(header[0]))
    for i in range(len(x)):
        codes[i] = _unsigned_code(x[i], _random_bits(first, factor, i, place), shift, base)


@_plain
def _close_signed(x: Any, codes: Any, header: Any, first: int, factor: int, place: int) -> None:
    top = np.int32(0)
    for i in range(len(x)):
        top = _larger(top, _size_bits(x[i]))
    header[0] = _exponent_for(int(top))
    floor, base = _signed_scale(int(header[0]))
    for i in range(len(x)):
        codes[i] = _signed_code(x[i], _random_bits(first, factor, i, place), floor, base)


# kind: its scale from a header, a code as a number, a block of numbers as codes and their header
_BLOCKS = {
    "signed8": (_signed_scale, _signed_number, _close_signed),
    "unsigned8": (_unsigned_scale, _unsigned_number, _close_unsigned),
}

# --- columns -------------------------------------------------------------------------------------------------


def columns(layout: Layout) -> tuple[Column, Column, list[Column]]:
    """The parameter's, the gradient's, and each slot's."""
    number: Any = np.dtype(layout.computed_in).type
    last = len(layout.slots)
    parameter = _number_column(layout.parameter, 1, number, last if layout.rounding == "stochastic" else None)
    if layout.rounding == "kahan":
        parameter = _compensated_column(layout.parameter, 1, layout.num_tensors, number)
    slots: list[Column] = []
    header = 3 + len(layout.slots)
    for place, slot in enumerate(layout.slots):
        if slot in EIGHT_BIT:
            row = header - 3 - len(layout.slots)
            slots.append(_block_column(slot, 3 + place, header, row, number, place))
            header += 1
        else:
            at_random = place if slot == "stochastic_bfloat16" else None
            slots.append(_number_column(slot.removeprefix("stochastic_"), 3 + place, number, at_random))
    return parameter, _number_column(layout.parameter, 2, number, None), slots


@cache
def _number_column(kind: str, column: int, number: Any, place: int | None) -> Column:
    memory = _NUMBERS[kind][0]
    pointer, size = cpu.pointer_at(memory), ITEM_SIZES[kind]

    def view(t: Any, at: int, first: int, n: int, scratch: Any) -> Any:
        return carray(pointer(t[at + column] + first * size), n)

    return Column(_inline(view), *_number_access(kind, number, place), inlined(_nothing))


@cache
def _number_access(kind: str, number: Any, place: int | None) -> tuple[Any, Any]:
    memory, widen, nearest, at_random = _NUMBERS[kind]
    narrow = np.float32 if memory is types.uint16 else number

    def load(member: Any, i: int) -> Any:
        return number(widen(member[i]))

    def store(member: Any, i: int, value: Any, lot: Any) -> None:
        member[i] = nearest(narrow(value))

    def store_at_random(member: Any, i: int, value: Any, lot: Any) -> None:
        member[i] = at_random(narrow(value), _random_bits(lot[0], lot[1], i, place))

    return _inline(load), _inline(store if place is None else store_at_random)


def _compensated_column(kind: str, column: int, lost_column: int, number: Any) -> Column:
    memory, widen, nearest, _ = _NUMBERS[kind]
    pointer, size = cpu.pointer_at(memory), ITEM_SIZES[kind]

    def view(t: Any, at: int, first: int, n: int, scratch: Any) -> Any:
        whole = carray(pointer(t[at + column] + first * size), n)
        return whole, carray(pointer(t[at + lost_column] + first * size), n)

    def load(member: Any, i: int) -> Any:
        return number(widen(member[0][i])) + number(widen(member[1][i]))

    def store(member: Any, i: int, value: Any, lot: Any) -> None:
        whole = nearest(np.float32(value))
        lost = np.float32(value - widen(whole))
        member[0][i] = whole
        member[1][i] = nearest(
            lost if abs(lost) < np.inf else np.float32(0.0)
        )  # nothing is lost of an infinity

    return _column(view, load, store, _nothing)


def _block_column(kind: str, column: int, header_column: int, row: int, number: Any, place: int) -> Column:
    scale_of, number_of, close_block = _BLOCKS[kind]
    as_codes, as_header = cpu.pointer_at(types.uint8), cpu.pointer_at(types.int16)

    def view(t: Any, at: int, first: int, n: int, scratch: Any) -> Any:
        header = carray(as_header(t[at + header_column] + first // BLOCK * HEADER), 1)
        scale = scale_of(int(header[0]))
        return carray(as_codes(t[at + column] + first), n), scratch[row][:n], scale[0], scale[1], header

    def load(member: Any, i: int) -> Any:
        return number(number_of(member[0][i], member[2], member[3]))

    def store(member: Any, i: int, value: Any, lot: Any) -> None:
        member[1][i] = np.float32(value)

    def close(t: Any, at: int, first: int, n: int, member: Any, lot: Any) -> None:
        close_block(member[1], member[0], member[4], lot[0], lot[1], place)

    return _column(view, load, store, close)


def _nothing(t: Any, at: int, first: int, n: int, member: Any, lot: Any) -> None:
    return


def _column(*functions: Any) -> Column:
    return Column(*map(_inline, functions))
