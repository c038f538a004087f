"""Rows of a few numbers side by side in SIMD lanes, and back.

Where a row's numbers lie together, taking one from each row is a load and a store a number. Sixteen rows by four
columns are turned round in registers instead: four numbers of a row are loaded or stored at once, and sixteen lanes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from steepest.backends.cpu_vocabulary import _inline, intrinsic

__all__ = ["LANES", "load", "store"]

LANES = 128  # so many rows go through side by side
_ROWS, _COLUMNS = 16, 4  # turned round at once


@_inline
def load(lanes: Any, x: Any, base: Any, stride: int, width: int) -> None:
    """Class j of row r to ``lanes[j, r]``; rows begin at ``base``, their classes are ``stride`` apart."""
    num_classes = len(lanes)
    step = num_classes if stride == 1 else 1
    if base[width - 1] - base[0] != (width - 1) * step:
        for r in range(width):
            for j in range(num_classes):
                lanes[j, r] = x[base[r] + j * stride]
    elif step >= _COLUMNS and width >= _ROWS:
        # The last ones overlap those before them, where the number is no multiple.
        for r in range(0, width, _ROWS):
            row = min(r, width - _ROWS)
            for j in range(0, num_classes, _COLUMNS):
                column = min(j, num_classes - _COLUMNS)
                _to_lanes(x, base[0] + row * step + column, step, lanes, column * LANES + row)
    else:
        for j in range(num_classes):
            part = x[base[0] + j * stride :]
            lane = lanes[j]
            for r in range(width):
                lane[r] = part[r * step]


@_inline
def store(out: Any, lanes: Any, base: Any, stride: int, width: int) -> None:
    """``lanes[j, r]`` to class j of row r."""
    num_classes = len(lanes)
    step = num_classes if stride == 1 else 1
    if base[width - 1] - base[0] != (width - 1) * step:
        for r in range(width):
            for j in range(num_classes):
                out[base[r] + j * stride] = lanes[j, r]
    elif step >= _COLUMNS and width >= _ROWS:
        for r in range(0, width, _ROWS):
            row = min(r, width - _ROWS)
            for j in range(0, num_classes, _COLUMNS):
                column = min(j, num_classes - _COLUMNS)
                _from_lanes(out, base[0] + row * step + column, step, lanes, column * LANES + row)
    else:
        for j in range(num_classes):
            part = out[base[0] + j * stride :]
            lane = lanes[j]
            for r in range(width):
                part[r * step] = lane[r]


# --- sixteen rows of four ----------------------------------------------------------------------------------------


def _vector(number: Any, size: int) -> Any:
    return ir.VectorType(number, size)


def _size(number: Any) -> int:
    return 8 if isinstance(number, ir.DoubleType) else 4


def _address(context: Any, builder: Any, kind: Any, array: Any, place: Any, size: int) -> Any:
    """Where ``size`` numbers of an array begin, whose place is counted from its first."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), _vector(data.type.pointee, size).as_pointer())


def _shuffled(builder: Any, a: Any, b: Any, places: Any) -> Any:
    places = list(places)
    return builder.shuffle_vector(a, b, ir.Constant(_vector(ir.IntType(32), len(places)), places))


def _turned(builder: Any, four: Any) -> Any:
    """Four vectors of sixteen with rows and columns changed in each quarter: what it does undoes it."""

    def mixed(a: Any, b: Any, *places: int) -> Any:
        of_quarter = [place % 4 + (_ROWS if place >= 4 else 0) for place in places]
        return _shuffled(builder, a, b, [place + 4 * q for q in range(4) for place in of_quarter])

    a, b, c, d = four
    low_ab, low_cd = mixed(a, b, 0, 4, 1, 5), mixed(c, d, 0, 4, 1, 5)
    high_ab, high_cd = mixed(a, b, 2, 6, 3, 7), mixed(c, d, 2, 6, 3, 7)
    return [
        mixed(low_ab, low_cd, 0, 1, 4, 5), mixed(low_ab, low_cd, 2, 3, 6, 7),
        mixed(high_ab, high_cd, 0, 1, 4, 5), mixed(high_ab, high_cd, 2, 3, 6, 7),
    ]  # fmt: skip


def _as(builder: Any, vector: Any, number: Any) -> Any:
    """The same numbers in another type of float."""
    kind = _vector(number, vector.type.count)
    if vector.type == kind:
        return vector
    return (builder.fpext if isinstance(number, ir.DoubleType) else builder.fptrunc)(vector, kind)


def _places(builder: Any, first: Any, step: Any, count: int) -> Any:
    return [builder.add(first, builder.mul(step, ir.Constant(first.type, i))) for i in range(count)]


@intrinsic
def _to_lanes(typingctx: Any, x: Any, first: Any, step: Any, lanes: Any, place: Any) -> Any:
    """Four numbers from ``first`` on of each of sixteen rows, ``step`` apart, to four lanes from ``place`` on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number, wanted = (context.get_value_type(signature.args[i].dtype) for i in (0, 3))
        rows = [
            builder.load(
                _address(context, builder, signature.args[0], args[0], where, _COLUMNS), align=_size(number)
            )
            for where in _places(builder, args[1], args[2], _ROWS)
        ]
        # The q-th rows of the four quarters together, so that a quarter's four rows are turned round.
        together = []
        for q in range(4):
            a, b, c, d = rows[q::4]
            upper, lower = _shuffled(builder, a, b, range(8)), _shuffled(builder, c, d, range(8))
            together.append(_shuffled(builder, upper, lower, range(16)))
        stride = ir.Constant(args[4].type, LANES)
        for where, lane in zip(
            _places(builder, args[4], stride, _COLUMNS), _turned(builder, together), strict=True
        ):
            address = _address(context, builder, signature.args[3], args[3], where, _ROWS)
            builder.store(_as(builder, lane, wanted), address, align=_size(wanted))
        return context.get_dummy_value()

    return types.void(x, types.int64, types.int64, lanes, types.int64), codegen


@intrinsic
def _from_lanes(typingctx: Any, out: Any, first: Any, step: Any, lanes: Any, place: Any) -> Any:
    """The way back."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wanted, number = (context.get_value_type(signature.args[i].dtype) for i in (0, 3))
        stride = ir.Constant(args[4].type, LANES)
        columns = [
            builder.load(
                _address(context, builder, signature.args[3], args[3], where, _ROWS), align=_size(number)
            )
            for where in _places(builder, args[4], stride, _COLUMNS)
        ]
        together = _turned(builder, [_as(builder, column, wanted) for column in columns])
        for i, where in enumerate(_places(builder, args[1], args[2], _ROWS)):
            q, quarter = i % 4, i // 4
            row = _shuffled(builder, together[q], together[q], range(4 * quarter, 4 * quarter + 4))
            address = _address(context, builder, signature.args[0], args[0], where, _COLUMNS)
            builder.store(row, address, align=_size(wanted))
        return context.get_dummy_value()

    return types.void(out, types.int64, types.int64, lanes, types.int64), codegen
