"""Products of matrices held in SIMD registers while they are added up, and transposing.

A net of a few units is too small for BLAS, whose call alone costs more than the work, and in plain loops every
addition goes through memory. Here a tile of the result stays in registers over the whole sum. What does not fill
the last vector is masked: nothing is padded, and nothing outside is read or written.

A tile is an intrinsic, LLVM's instructions written down by plain functions, so that the cache of compiled code sees
all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from steepest.backends import cpu

__all__ = ["dots", "outer", "row", "row_dots", "transpose"]

VECTOR_BYTES = 64 if llvmlite.binding.get_host_cpu_features().get("avx512f", False) else 32
TILE = 4  # rows of the result, or dot products, in registers at a time

_Int, _Short, _Bit = ir.IntType(64), ir.IntType(32), ir.IntType(1)


# --- instructions ----------------------------------------------------------------------------------------------
# A vector's type says its dtype and length, so the functions below need nothing else.


def _vector_of(dtype: Any) -> Any:
    number = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(number, VECTOR_BYTES * 8 // dtype.bitwidth)


def _bytes_of(vector: Any) -> int:
    return VECTOR_BYTES // int(vector.count)


def _data(context: Any, builder: Any, signature: Any, args: Any, place: int) -> Any:
    return context.make_array(signature.args[place])(context, builder, args[place]).data


def _zero(vector: Any) -> Any:
    return ir.Constant(vector, [0.0] * vector.count)


def _times(builder: Any, number: Any, count: int) -> Any:
    return builder.mul(number, ir.Constant(_Int, count))


def _plus(builder: Any, number: Any, count: int) -> Any:
    return builder.add(number, ir.Constant(_Int, count))


def _spread(builder: Any, number: Any, count: int) -> Any:
    """A vector with the number in every lane."""
    empty = ir.Constant(ir.VectorType(number.type, count), ir.Undefined)
    first = builder.insert_element(empty, number, ir.Constant(_Short, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_Short, count), [0] * count))


def _first_lanes(builder: Any, vector: Any, count: Any) -> Any:
    """The mask of the first ``count`` lanes."""
    lanes = ir.Constant(ir.VectorType(_Int, vector.count), list(range(vector.count)))
    return builder.icmp_signed("<", lanes, _spread(builder, count, vector.count))


def _number_at(builder: Any, data: Any, index: Any) -> Any:
    return builder.load(builder.gep(data, [index]))


def _function(builder: Any, name: str, vector: Any, returned: Any, arguments: list[Any]) -> Any:
    full = f"{name}.v{vector.count}f{8 * _bytes_of(vector)}" + (".p0" if "masked" in name else "")
    known = builder.module.globals.get(full)
    return known or ir.Function(builder.module, ir.FunctionType(returned, arguments), full)


def _load(builder: Any, vector: Any, data: Any, index: Any, mask: Any) -> Any:
    """The lanes from ``index`` on; 0 where masked."""
    at = builder.bitcast(builder.gep(data, [index]), vector.as_pointer())
    if mask is None:
        return builder.load(at, align=_bytes_of(vector))
    kinds = [at.type, _Short, ir.VectorType(_Bit, vector.count), vector]
    load = _function(builder, "llvm.masked.load", vector, vector, kinds)
    return builder.call(load, [at, ir.Constant(_Short, _bytes_of(vector)), mask, _zero(vector)])


def _store(builder: Any, data: Any, index: Any, value: Any, mask: Any) -> None:
    vector = value.type
    at = builder.bitcast(builder.gep(data, [index]), vector.as_pointer())
    if mask is None:
        builder.store(value, at, align=_bytes_of(vector))
        return
    kinds = [vector, at.type, _Short, ir.VectorType(_Bit, vector.count)]
    store = _function(builder, "llvm.masked.store", vector, ir.VoidType(), kinds)
    builder.call(store, [value, at, ir.Constant(_Short, _bytes_of(vector)), mask])


def _add_product(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """total + x y, rounded once where the processor can."""
    return builder.fadd(total, builder.fmul(x, y, flags=("contract",)), flags=("contract",))


def _shuffle(builder: Any, x: Any, y: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_Short, len(lanes)), lanes))


def _sums(builder: Any, vectors: list[Any]) -> list[Any]:
    """The sums of the lanes of each vector (a power of two of them, at most as many as lanes)."""
    lanes = vectors[0].type.count
    part = lanes
    while len(vectors) > 1:  # two vectors become one, in which each has half as many lanes
        part //= 2
        upper = [lane for lane in range(lanes) if not lane & part]
        lower = [lane + part for lane in upper]
        vectors = [
            builder.fadd(
                _shuffle(builder, x, y, upper + [lanes + lane for lane in upper]),
                _shuffle(builder, x, y, lower + [lanes + lane for lane in lower]),
            )
            for x, y in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    total = vectors[0]
    starts = list(range(0, lanes, part))
    while part > 1:
        part //= 2
        total = builder.fadd(total, _shuffle(builder, total, total, [lane ^ part for lane in range(lanes)]))
    return [builder.extract_element(total, ir.Constant(_Short, lane)) for lane in starts]


def _loop(
    builder: Any, count: Any, step: int, values: list[Any], body: Callable[[Any, list[Any]], list[Any]]
) -> tuple[Any, list[Any]]:
    """``values = body(k, values)`` for k = 0, step, ... while k + step <= count; the next k, and the values."""
    before = builder.block
    head, inside, after = (builder.append_basic_block(name) for name in ("head", "inside", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    k = builder.phi(_Int)
    carried = [builder.phi(value.type) for value in values]
    following = _plus(builder, k, step)
    builder.cbranch(builder.icmp_signed("<=", following, count), inside, after)
    builder.position_at_end(inside)
    updated = body(k, carried)
    for phi, value, new in zip(
        [k, *carried], [ir.Constant(_Int, 0), *values], [following, *updated], strict=True
    ):
        phi.add_incoming(value, before)
        phi.add_incoming(new, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return k, carried


# --- tiles -----------------------------------------------------------------------------------------------------


def _outer_tile(rows: int, vectors: int, masked: bool) -> Any:
    """``rows`` rows and ``vectors`` vectors of :func:`outer`'s result; ``width``: lanes in the last vector."""

    @intrinsic
    def tile(
        typingctx: Any, a: Any, a_at: Any, a_row: Any, a_step: Any, b: Any, b_at: Any, b_step: Any,
        c: Any, c_at: Any, c_row: Any, start: Any, start_at: Any, start_step: Any, length: Any, width: Any,
    ) -> Any:  # fmt: skip
        vector = _vector_of(c.dtype)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            from_a, from_b, from_c, from_start = (
                _data(context, builder, signature, args, place) for place in (0, 4, 7, 10)
            )
            (
                _,
                a_at,
                a_row,
                a_step,
                _,
                b_at,
                b_step,
                _,
                c_at,
                c_row,
                _,
                start_at,
                start_step,
                length,
                width,
            ) = args
            masks = [None] * vectors
            if masked:
                masks[-1] = _first_lanes(builder, vector, width)
            a_rows = [builder.add(a_at, _times(builder, a_row, m)) for m in range(rows)]
            totals = []
            for m in range(rows):
                first = _number_at(builder, from_start, builder.add(start_at, _times(builder, start_step, m)))
                totals += [_spread(builder, first, vector.count)] * vectors

            def add(k: Any, totals: list[Any]) -> list[Any]:
                at = builder.add(b_at, builder.mul(k, b_step))
                along = [
                    _load(builder, vector, from_b, _plus(builder, at, n * vector.count), masks[n])
                    for n in range(vectors)
                ]
                result = []
                for m in range(rows):
                    factor = _number_at(builder, from_a, builder.add(a_rows[m], builder.mul(k, a_step)))
                    factors = _spread(builder, factor, vector.count)
                    result += [
                        _add_product(builder, totals[m * vectors + n], factors, along[n])
                        for n in range(vectors)
                    ]
                return result

            _, totals = _loop(builder, length, 1, totals, add)
            for m in range(rows):
                at = builder.add(c_at, _times(builder, c_row, m))
                for n in range(vectors):
                    index = _plus(builder, at, n * vector.count)
                    _store(builder, from_c, index, totals[m * vectors + n], masks[n])
            return context.get_dummy_value()

        i = types.int64
        return types.void(a, i, i, i, b, i, i, c, i, i, start, i, i, i, i), codegen

    return tile


def _dots_tile(columns: int) -> Any:
    """``columns`` numbers of :func:`dots`' result that share a row of a."""

    @intrinsic
    def tile(
        typingctx: Any, a: Any, a_at: Any, b: Any, b_at: Any, b_row: Any, c: Any, c_at: Any, c_step: Any,
        start: Any, start_at: Any, start_step: Any, length: Any,
    ) -> Any:  # fmt: skip
        vector = _vector_of(c.dtype)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            from_a, from_b, from_c, from_start = (
                _data(context, builder, signature, args, place) for place in (0, 2, 5, 8)
            )
            _, a_at, _, b_at, b_row, _, c_at, c_step, _, start_at, start_step, length = args
            b_rows = [builder.add(b_at, _times(builder, b_row, n)) for n in range(columns)]

            def add(k: Any, totals: list[Any], mask: Any) -> list[Any]:
                along = _load(builder, vector, from_a, builder.add(a_at, k), mask)
                return [
                    _add_product(
                        builder, total, along, _load(builder, vector, from_b, builder.add(row, k), mask)
                    )
                    for total, row in zip(totals, b_rows, strict=True)
                ]

            k, totals = _loop(
                builder, length, vector.count, [_zero(vector)] * columns, lambda k, t: add(k, t, None)
            )
            left = builder.sub(length, k)
            before = builder.block
            rest, done = builder.append_basic_block("rest"), builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed(">", left, ir.Constant(_Int, 0)), rest, done)
            builder.position_at_end(rest)
            more = add(k, totals, _first_lanes(builder, vector, left))
            builder.branch(done)
            builder.position_at_end(done)
            sums = [builder.phi(vector) for _ in range(columns)]
            for n in range(columns):
                sums[n].add_incoming(totals[n], before)
                sums[n].add_incoming(more[n], rest)
            for n, total in enumerate(_sums(builder, sums)):
                first = _number_at(builder, from_start, builder.add(start_at, _times(builder, start_step, n)))
                place = builder.gep(from_c, [builder.add(c_at, _times(builder, c_step, n))])
                builder.store(builder.fadd(first, total), place)
            return context.get_dummy_value()

        i = types.int64
        return types.void(a, i, b, i, i, c, i, i, start, i, i, i), codegen

    return tile


def _transpose_tile(masked: bool) -> Any:
    """As many rows as a vector has lanes, each ``order[at + r] * width + column`` on, turned into columns."""

    @intrinsic
    def tile(
        typingctx: Any, x: Any, order: Any, at: Any, width: Any, column: Any, c: Any, c_at: Any, c_row: Any,
        rows: Any, columns: Any,
    ) -> Any:  # fmt: skip
        vector = _vector_of(c.dtype)
        lanes = vector.count

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            from_x, from_order, from_c = (
                _data(context, builder, signature, args, place) for place in (0, 1, 5)
            )
            _, _, at, width, column, _, c_at, c_row, rows, columns = args
            along = _first_lanes(builder, vector, columns) if masked else None
            block = []
            for r in range(lanes):
                place = ir.Constant(_Int, r)
                if masked:  # rows beyond the last repeat it, and are not written
                    last = _plus(builder, rows, -1)
                    place = builder.select(builder.icmp_signed("<", place, last), place, last)
                row = builder.mul(_number_at(builder, from_order, builder.add(at, place)), width)
                block.append(_load(builder, vector, from_x, builder.add(row, column), along))
            distance = lanes // 2
            while distance:  # swap ever smaller squares beside the diagonal
                upper = [lane if not lane & distance else lanes + lane - distance for lane in range(lanes)]
                lower = [lane + distance if not lane & distance else lanes + lane for lane in range(lanes)]
                turned = list(block)
                for r in range(lanes):
                    if not r & distance:
                        for place, pattern in ((r, upper), (r + distance, lower)):
                            turned[place] = _shuffle(builder, block[r], block[r + distance], pattern)
                block = turned
                distance //= 2
            for j in range(lanes):
                across = None
                if masked:
                    inside = builder.icmp_signed("<", ir.Constant(_Int, j), columns)
                    across = _first_lanes(builder, vector, builder.select(inside, rows, ir.Constant(_Int, 0)))
                _store(builder, from_c, builder.add(c_at, _times(builder, c_row, j)), block[j], across)
            return context.get_dummy_value()

        i = types.int64
        return types.void(x, order, i, i, i, c, i, i, i, i), codegen

    return tile


# --- whole matrices ----------------------------------------------------------------------------------------------

_tile_full, _tile_rest, _tile_short = (
    _outer_tile(TILE, 2, False), _outer_tile(TILE, 2, True), _outer_tile(TILE, 1, True),
)  # fmt: skip
_row_full, _row_rest, _row_short = _outer_tile(1, 2, False), _outer_tile(1, 2, True), _outer_tile(1, 1, True)
_dots_many, _dots_one = _dots_tile(TILE), _dots_tile(1)
_transpose_full, _transpose_rest = _transpose_tile(False), _transpose_tile(True)


def _row(
    a: Any, at: int, a_step: int, b: Any, b_step: int, c: Any, into: int, start: Any, first: int,
    num_columns: int, length: int,
) -> None:  # fmt: skip
    """c[n] = start + the sum over k of a[k] b[k, n]; n runs along the lanes."""
    lanes = VECTOR_BYTES // c.itemsize
    for n in range(0, num_columns, 2 * lanes):
        left = num_columns - n
        if left >= 2 * lanes:
            _row_full(a, at, 0, a_step, b, n, b_step, c, into + n, 0, start, first, 0, length, 0)
        elif left > lanes:
            _row_rest(a, at, 0, a_step, b, n, b_step, c, into + n, 0, start, first, 0, length, left - lanes)
        else:
            _row_short(a, at, 0, a_step, b, n, b_step, c, into + n, 0, start, first, 0, length, left)


def _outer(
    a: Any, a_row: int, a_step: int, b: Any, b_step: int, c: Any, c_row: int, start: Any, start_step: int,
    num_rows: int, num_columns: int, length: int,
) -> None:  # fmt: skip
    """c[m, n] = start[m] + the sum over k of a[m, k] b[k, n]; n runs along the lanes."""
    if num_rows < TILE:
        for m in range(num_rows):
            row(a, m * a_row, a_step, b, b_step, c, m * c_row, start, m * start_step, num_columns, length)
        return
    lanes = VECTOR_BYTES // c.itemsize
    for n in range(0, num_columns, 2 * lanes):
        left = num_columns - n
        for rows_before in range(0, num_rows, TILE):
            m = min(rows_before, num_rows - TILE)  # the last tile may repeat rows, with the same result
            at, into, first = m * a_row, m * c_row + n, m * start_step
            if left >= 2 * lanes:
                _tile_full(
                    a, at, a_row, a_step, b, n, b_step, c, into, c_row, start, first, start_step, length, 0
                )
            elif left > lanes:
                _tile_rest(
                    a, at, a_row, a_step, b, n, b_step, c, into, c_row, start, first, start_step, length,
                    left - lanes,
                )  # fmt: skip
            else:
                _tile_short(
                    a, at, a_row, a_step, b, n, b_step, c, into, c_row, start, first, start_step, length, left
                )


def _row_dots(
    a: Any, at: int, b: Any, b_row: int, c: Any, into: int, c_step: int, start: Any, first: int, start_step: int,
    num_columns: int, length: int,
) -> None:  # fmt: skip
    """c[n] = start[n] + the sum over k of a[k] b[n, k]; k runs along the lanes."""
    many = num_columns - num_columns % TILE
    for n in range(0, many, TILE):
        _dots_many(
            a, at, b, n * b_row, b_row, c, into + n * c_step, c_step, start, first + n * start_step, start_step,
            length,
        )  # fmt: skip
    for n in range(many, num_columns):
        _dots_one(
            a, at, b, n * b_row, b_row, c, into + n * c_step, c_step, start, first + n * start_step, start_step,
            length,
        )  # fmt: skip


def _dots(
    a: Any, a_row: int, b: Any, b_row: int, c: Any, c_row: int, c_step: int, start: Any, start_row: int,
    start_step: int, num_rows: int, num_columns: int, length: int,
) -> None:  # fmt: skip
    """c[m, n] = start[m, n] + the sum over k of a[m, k] b[n, k]; k runs along the lanes."""
    for m in range(num_rows):
        row_dots(
            a,
            m * a_row,
            b,
            b_row,
            c,
            m * c_row,
            c_step,
            start,
            m * start_row,
            start_step,
            num_columns,
            length,
        )


def _transpose(x: Any, order: Any, at: int, num_rows: int, num_columns: int, c: Any) -> None:
    """c[j, r] = x[order[at + r], j]."""
    lanes = VECTOR_BYTES // c.itemsize
    for r in range(0, num_rows, lanes):
        rows = min(num_rows - r, lanes)
        for j in range(0, num_columns, lanes):
            columns = min(num_columns - j, lanes)
            into = j * num_rows + r
            if rows == lanes and columns == lanes:
                _transpose_full(x, order, at + r, num_columns, j, c, into, num_rows, rows, columns)
            else:
                _transpose_rest(x, order, at + r, num_columns, j, c, into, num_rows, rows, columns)


row = cpu.bind(_row)
row_dots = cpu.bind(_row_dots)
outer = cpu.bind(_outer, inline=False)
dots = cpu.bind(_dots, inline=False)
transpose = cpu.bind(_transpose, inline=False)
