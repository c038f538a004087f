"""The Triton kernels an update rule is put in: all tensors of a group in one launch, each block told whose part it is.

What hangs on the step alone (`_prepare`: a program for each tensor counts its step, advances its scalars and works out
the coefficients in float64) stays on the device, so a step waits for nothing and can be captured in a CUDA graph. A
layer-wise rule's norms are summed block by block (`_measure`) and joined in a fixed order (`_trust`). Where a gradient
was found not to be finite (`find_nonfinite`), none of them changes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from steepest.backends.cpu_storage import BLOCK, Layout
from steepest.backends.cuda import OPTIONS, bound, formula
from steepest.backends.cuda_losses import on_device_of
from steepest.backends.cuda_storage import (
    mixed,
    nearest_bfloat16,
    random_bfloat16,
    random_bits,
    random_float16,
    signed_block,
    signed_numbers,
    unsigned_block,
    unsigned_numbers,
)

if TYPE_CHECKING:
    from steepest.optim.rule import Rule

__all__ = ["Kernels", "block_size", "find_nonfinite", "kernels"]

_BLOCK = 1024
_A_WARP = 256  # elements, 8 a thread: one warp codes a block of 8-bit numbers, and waits for no other
_TYPES = {
    "float64": tl.float64, "float32": tl.float32, "bfloat16": tl.bfloat16, "float16": tl.float16,
    "stochastic_bfloat16": tl.bfloat16, "signed8": tl.uint8, "unsigned8": tl.uint8,
}  # fmt: skip
# How a column lies in memory.
_PLAIN, _RANDOM, _SIGNED, _UNSIGNED = (tl.constexpr(kind) for kind in range(4))
_KINDS = {"stochastic_bfloat16": _RANDOM, "signed8": _SIGNED, "unsigned8": _UNSIGNED}
_NEAREST, _STOCHASTIC, _KAHAN = (tl.constexpr(kind) for kind in range(3))
_ROUNDINGS = {"nearest": _NEAREST, "stochastic": _STOCHASTIC, "kahan": _KAHAN}

# Bound by `kernels`:
update: Any
measure: Any
trust: Any
coefficients: Any


# --- what a step hangs on -----------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["a_tensor", "first_step"])  # the second step is not to be compiled anew
def _prepare(
    counters, hyper, a_tensor, first_step, nonfinite, factors,
    NUM_HYPER: tl.constexpr, NUM_SCALARS: tl.constexpr, NUM_FACTORS: tl.constexpr, COUNTS: tl.constexpr,
):  # fmt: skip
    """A tensor has in ``counters`` where its step count lies, then where each of its scalars does.

    Its hyperparameters begin ``a_tensor`` numbers after those of the tensor before: at 0 all share them.
    """
    if tl.load(nonfinite) == 0:
        tensor = tl.program_id(0).to(tl.int64)
        row = counters + tensor * (NUM_SCALARS + 1)
        step = tl.full([], 0.0, tl.float64) + first_step
        if COUNTS:
            counter = tl.load(row).to(tl.pointer_type(tl.float32))
            counted = tl.load(counter) + 1.0
            tl.store(counter, counted)
            step = counted.to(tl.float64)
        given = ()
        for k in tl.static_range(NUM_HYPER):
            given = given + (tl.load(hyper + tensor * a_tensor + k),)
        for k in tl.static_range(NUM_SCALARS):
            given = given + (tl.load(tl.load(row + 1 + k).to(tl.pointer_type(tl.float64))),)
        numbers = coefficients(step, *given)
        for k in tl.static_range(NUM_SCALARS):
            tl.store(tl.load(row + 1 + k).to(tl.pointer_type(tl.float64)), numbers[k])
        # The step, the factors, and room for the trust ratio.
        out = factors + tensor * (NUM_FACTORS + 2)
        tl.store(out, step)
        for k in tl.static_range(NUM_FACTORS):
            tl.store(out + 1 + k, numbers[NUM_SCALARS + k])


@triton.jit
def _check(
    gradients, owners, firsts, table, nonfinite, TYPE: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    block = tl.program_id(0)
    tensor = tl.load(owners + block).to(tl.int64)
    i = tl.load(firsts + block) + tl.arange(0, BLOCK)
    g = tl.load(
        tl.load(gradients + tensor).to(tl.pointer_type(TYPE)) + i,
        mask=i < tl.load(table + tensor * WIDTH),
        other=0.0,
    )
    g = g.to(tl.float32) if tl.float64 != TYPE else g
    bad = tl.max((g - g != 0.0).to(tl.int32), axis=0)
    if bad != 0:
        tl.store(nonfinite, bad)  # whoever comes last writes the same


# --- a block ------------------------------------------------------------------------------------------------------


@triton.jit
def _addresses(
    gradients, tensor, row, KINDS: tl.constexpr, NUM: tl.constexpr, ROUNDING: tl.constexpr, LOST: tl.constexpr
):
    """Where a parameter, its gradient, what its rounding lost, state and headers lie; and all but the headers' bits."""
    lost = tl.full([], 0, tl.int64)
    if ROUNDING == 2:
        lost = tl.load(row + LOST)
    parameter, gradient = tl.load(row + 1), tl.load(gradients + tensor)
    bits = parameter | gradient | lost
    slots = ()
    headers = ()
    for k in tl.static_range(NUM):
        slots = slots + (tl.load(row + 2 + k),)
        bits = bits | slots[k]
        header = tl.full([], 0, tl.int64)
        if KINDS[k] >= 2:
            place = 0
            for earlier in tl.static_range(k):
                if KINDS[earlier] >= 2:
                    place += 1
            header = tl.load(row + 2 + NUM + place)
        headers = headers + (header,)
    return (parameter, gradient, lost), slots, headers, bits


@triton.jit
def _places(first, count, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """A block's places and which of them are some: of a whole block all."""
    i = first + tl.arange(0, BLOCK)
    if WHOLE:
        mask = tl.full([BLOCK], True, tl.int1)
    else:
        mask = i < count
    return i, mask


@triton.jit
def _at(address, i, TYPE: tl.constexpr, WHOLE: tl.constexpr):
    """Places in memory; a whole block begins where 16 bytes can be read at once."""
    pointer = address.to(tl.pointer_type(TYPE))
    if WHOLE:
        pointer = tl.multiple_of(pointer, 16)
    return pointer + i


@triton.jit
def _loaded(
    of_all, slots, headers, first, i, mask,
    KINDS: tl.constexpr, TYPES: tl.constexpr, NUM: tl.constexpr, PARAMETER: tl.constexpr, ROUNDING: tl.constexpr,
    WORK: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """A block's parameter, gradient and state."""
    p = tl.load(_at(of_all[0], i, PARAMETER, WHOLE), mask=mask, other=0.0).to(WORK)
    if ROUNDING == 2:
        p = p + tl.load(_at(of_all[2], i, PARAMETER, WHOLE), mask=mask, other=0.0).to(WORK)
    g = tl.load(_at(of_all[1], i, PARAMETER, WHOLE), mask=mask, other=0.0).to(WORK)
    state = ()
    for k in tl.static_range(NUM):
        if KINDS[k] >= 2:
            codes = tl.load(_at(slots[k], i, tl.uint8, WHOLE), mask=mask, other=0)
            header = tl.load(headers[k].to(tl.pointer_type(tl.int16)) + first // BLOCK).to(tl.int32)
            if KINDS[k] == 2:
                state = state + (signed_numbers(codes, header).to(WORK),)
            else:
                state = state + (unsigned_numbers(codes, header).to(WORK),)
        else:
            state = state + (tl.load(_at(slots[k], i, TYPES[k], WHOLE), mask=mask, other=0.0).to(WORK),)
    return p, g, state


@triton.jit
def _keep(
    of_all, slots, headers, first, i, mask, p, new, lot,
    KINDS: tl.constexpr, TYPES: tl.constexpr, NUM: tl.constexpr, PARAMETER: tl.constexpr, ROUNDING: tl.constexpr,
    BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    target = _at(of_all[0], i, PARAMETER, WHOLE)
    if ROUNDING == 1:
        tl.store(target, _at_random(p.to(tl.float32), random_bits(lot, i, NUM), PARAMETER), mask=mask)
    else:
        whole = _nearest(p, PARAMETER)
        tl.store(target, whole, mask=mask)
        if ROUNDING == 2:
            lost = (p - whole.to(tl.float32)).to(tl.float32)
            lost = tl.where(tl.abs(lost) < float("inf"), lost, 0.0)  # nothing is lost of an infinity
            tl.store(_at(of_all[2], i, PARAMETER, WHOLE), _nearest(lost, PARAMETER), mask=mask)
    for k in tl.static_range(NUM):
        x = new[k + 1]
        if KINDS[k] == 1:
            rounded = random_bfloat16(x.to(tl.float32), random_bits(lot, i, k))
            tl.store(_at(slots[k], i, tl.bfloat16, WHOLE), rounded, mask=mask)
        if KINDS[k] >= 2:
            if KINDS[k] == 2:
                codes, header = signed_block(x.to(tl.float32), mask, random_bits(lot, i, k))
            else:
                codes, header = unsigned_block(x.to(tl.float32), mask, random_bits(lot, i, k))
            tl.store(_at(slots[k], i, tl.uint8, WHOLE), codes, mask=mask)
            tl.store(headers[k].to(tl.pointer_type(tl.int16)) + first // BLOCK, header)
        if KINDS[k] == 0:
            tl.store(_at(slots[k], i, TYPES[k], WHOLE), _nearest(x, TYPES[k]), mask=mask)


@triton.jit
def _nearest(x, TYPE: tl.constexpr):
    if tl.float64 == TYPE:
        return x.to(tl.float64)
    elif tl.bfloat16 == TYPE:
        return nearest_bfloat16(x.to(tl.float32))
    else:
        return x.to(tl.float32).to(TYPE)


@triton.jit
def _at_random(x, random, TYPE: tl.constexpr):
    if tl.bfloat16 == TYPE:
        return random_bfloat16(x, random)
    else:
        return random_float16(x, random)


@triton.jit
def _factors(out, like, NUM: tl.constexpr, WORK: tl.constexpr):
    given = ()
    for k in tl.static_range(NUM):
        given = given + (tl.broadcast_to(tl.load(out + 1 + k).to(WORK), like.shape),)
    return given


# --- the step -----------------------------------------------------------------------------------------------------


@triton.jit
def _stepped(
    of_all, slots, headers, first, count, out, lot,
    KINDS: tl.constexpr, TYPES: tl.constexpr, NUM: tl.constexpr, PARAMETER: tl.constexpr, ROUNDING: tl.constexpr,
    NUM_TAKEN: tl.constexpr, WORK: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    i, mask = _places(first, count, BLOCK, WHOLE)
    p, g, state = _loaded(
        of_all, slots, headers, first, i, mask, KINDS, TYPES, NUM, PARAMETER, ROUNDING, WORK, BLOCK, WHOLE
    )
    new = update(p, g, *state, *_factors(out, p, NUM_TAKEN, WORK))
    _keep(
        of_all,
        slots,
        headers,
        first,
        i,
        mask,
        new[0],
        new,
        lot,
        KINDS,
        TYPES,
        NUM,
        PARAMETER,
        ROUNDING,
        BLOCK,
        WHOLE,
    )


@triton.jit
def _step(
    gradients, owners, firsts, table, factors, nonfinite,
    KINDS: tl.constexpr, TYPES: tl.constexpr, NUM: tl.constexpr, PARAMETER: tl.constexpr, ROUNDING: tl.constexpr,
    LOST: tl.constexpr, STREAM: tl.constexpr, NUM_FACTORS: tl.constexpr, NUM_TAKEN: tl.constexpr, WIDTH: tl.constexpr,
    WORK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Blocks that are whole and well aligned go 16 bytes at once, and a tensor's last one number by number."""
    if tl.load(nonfinite) == 0:
        block = tl.program_id(0)
        tensor, first = tl.load(owners + block).to(tl.int64), tl.multiple_of(tl.load(firsts + block), 16)
        row = table + tensor * WIDTH
        count = tl.load(row)
        of_all, slots, headers, bits = _addresses(gradients, tensor, row, KINDS, NUM, ROUNDING, LOST)
        out = factors + tensor * (NUM_FACTORS + 2)
        lot = tl.full([], 0, tl.int64)
        if STREAM > 0:
            lot = mixed(tl.load(row + STREAM), tl.load(out).to(tl.int64))
        if (first + BLOCK <= count) & ((bits & 15) == 0):
            _stepped(
                of_all, slots, headers, first, count, out, lot,
                KINDS, TYPES, NUM, PARAMETER, ROUNDING, NUM_TAKEN, WORK, BLOCK, True,
            )  # fmt: skip
        else:
            _stepped(
                of_all, slots, headers, first, count, out, lot,
                KINDS, TYPES, NUM, PARAMETER, ROUNDING, NUM_TAKEN, WORK, BLOCK, False,
            )  # fmt: skip


@triton.jit
def _measure(
    gradients, owners, firsts, table, factors, nonfinite, squares,
    KINDS: tl.constexpr, TYPES: tl.constexpr, NUM: tl.constexpr, PARAMETER: tl.constexpr, ROUNDING: tl.constexpr,
    LOST: tl.constexpr, NUM_FACTORS: tl.constexpr, WIDTH: tl.constexpr, WORK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    if tl.load(nonfinite) == 0:
        block = tl.program_id(0)
        tensor, first = tl.load(owners + block).to(tl.int64), tl.multiple_of(tl.load(firsts + block), 16)
        row = table + tensor * WIDTH
        of_all, slots, headers, _bits = _addresses(gradients, tensor, row, KINDS, NUM, ROUNDING, LOST)
        i, mask = _places(first, tl.load(row), BLOCK, False)
        p, g, state = _loaded(
            of_all, slots, headers, first, i, mask, KINDS, TYPES, NUM, PARAMETER, ROUNDING, WORK, BLOCK, False
        )
        pair = measure(p, g, *state, *_factors(factors + tensor * (NUM_FACTORS + 2), p, NUM_FACTORS, WORK))
        for k in tl.static_range(2):
            x = tl.where(mask, pair[k].to(tl.float64), 0.0)
            tl.store(squares + block.to(tl.int64) * 2 + k, tl.sum(x * x, axis=0))


@triton.jit
def _trust(begins, factors, nonfinite, squares, NUM_FACTORS: tl.constexpr, BLOCK: tl.constexpr):
    if tl.load(nonfinite) == 0:
        tensor = tl.program_id(0).to(tl.int64)
        first, end = tl.load(begins + tensor), tl.load(begins + tensor + 1)
        a = tl.zeros([BLOCK], tl.float64)
        b = tl.zeros([BLOCK], tl.float64)
        for start in range(first, end, BLOCK):
            block = start + tl.arange(0, BLOCK)
            a += tl.load(squares + block * 2, mask=block < end, other=0.0)
            b += tl.load(squares + block * 2 + 1, mask=block < end, other=0.0)
        out = factors + tensor * (NUM_FACTORS + 2)
        a, b = tl.sqrt(tl.sum(a, axis=0)), tl.sqrt(tl.sum(b, axis=0))
        tl.store(out + 1 + NUM_FACTORS, trust(a, b, *_factors(out, a, NUM_FACTORS, tl.float64)))


# --- launching ----------------------------------------------------------------------------------------------------


class Kernels(NamedTuple):
    """A rule's kernels for tensors that lie as a layout says, and what their launches share."""

    prepare: Any
    step: Any
    measure: Any
    trust: Any
    block: int
    width: int  # numbers a row of the table has: how many elements, addresses, the stream
    of_layout: dict[str, Any]
    num_factors: int


def block_size(layout: Layout) -> int:
    """How many elements a program steps: those under one header, if there are headers."""
    return BLOCK if layout.num_eight_bit else _BLOCK


@cache
def kernels(rule: Rule, layout: Layout) -> Kernels:
    """What steps a rule on tensors of a layout.

    Raises:
        InputError: the rule uses something that has no form in Triton.
    """
    num_slots, num_factors = len(layout.slots), rule.num_coefficients
    precision = "full" if layout.computed_in == "float64" else "single"
    taken = 2 + num_slots + num_factors
    prepare = bound(
        _prepare,
        {
            "coefficients": formula(
                rule.coefficients, 1 + len(rule.hyperparameters) + len(rule.scalars), "full"
            )
        },
    )
    step_taken = taken if rule.measure is None else taken + 1
    stepped = bound(_stepped, {"update": formula(rule.update, step_taken, precision)})
    step = bound(_step, {"_stepped": stepped})
    measuring = trusting = None
    if rule.measure is not None and rule.trust is not None:
        measuring = bound(_measure, {"measure": formula(rule.measure, taken, precision)})
        trusting = bound(_trust, {"trust": formula(rule.trust, 2 + num_factors, "full")})
    lost = 2 + num_slots + layout.num_eight_bit
    stream = lost + (layout.rounding == "kahan")
    of_layout = {
        "KINDS": tuple(_KINDS.get(slot, _PLAIN).value for slot in layout.slots),
        "TYPES": tuple(_TYPES[slot] for slot in layout.slots),
        "NUM": num_slots,
        "PARAMETER": _TYPES[layout.parameter],
        "ROUNDING": _ROUNDINGS[layout.rounding].value,
        "LOST": lost,
        "WIDTH": stream + 1,
        "WORK": tl.float64 if precision == "full" else tl.float32,
        "BLOCK": block_size(layout),
        "NUM_FACTORS": num_factors,
    }
    of_step = {"STREAM": stream if layout.is_random else 0, "NUM_TAKEN": step_taken - 2 - num_slots}
    return Kernels(
        prepare, (step, of_step), measuring, trusting, block_size(layout), stream + 1, of_layout, num_factors
    )


def launch_prepare(
    own: Kernels, rule: Rule, counters: Tensor, hyper: Tensor, first_step: int, nonfinite: Tensor, factors: Tensor,
    *, counts: bool,
) -> None:  # fmt: skip
    """Count the steps, advance the scalars, work out the coefficients; a program for each tensor.

    ``hyper`` are the hyperparameters of all, or a row for each tensor.
    """
    a_tensor = hyper.stride(0) if hyper.dim() > 1 else 0
    with on_device_of(factors):
        own.prepare[(len(counters),)](
            counters, hyper, a_tensor, first_step, nonfinite, factors, NUM_HYPER=len(rule.hyperparameters),
            NUM_SCALARS=len(rule.scalars), NUM_FACTORS=own.num_factors, COUNTS=counts, num_warps=1, **OPTIONS,
        )  # fmt: skip


def launch_step(own: Kernels, blocks: Sequence[Tensor], tables: Sequence[Tensor], squares: Tensor) -> None:
    """The step itself; ``blocks`` are owners, firsts and where each tensor's begin, ``tables`` what they share.

    ``tables`` are the gradients' addresses, the table, the factors and the mark of what is not finite.
    """
    owners, firsts, begins = blocks
    gradients, table, factors, nonfinite = tables
    step, of_step = own.step
    grid = (len(owners),)
    with on_device_of(table):
        if own.measure is not None:
            own.measure[grid](
                gradients, owners, firsts, table, factors, nonfinite, squares, **own.of_layout,
                num_warps=own.block // _A_WARP, **OPTIONS,
            )  # fmt: skip
            own.trust[(len(begins) - 1,)](
                begins, factors, nonfinite, squares, NUM_FACTORS=own.num_factors, BLOCK=_BLOCK, **OPTIONS
            )
        step[grid](
            gradients, owners, firsts, table, factors, nonfinite, **own.of_layout, **of_step,
            num_warps=own.block // _A_WARP, **OPTIONS,
        )  # fmt: skip


def find_nonfinite(own: Kernels, blocks: Sequence[Tensor], tables: Sequence[Tensor]) -> None:
    """Set the mark if any gradient of these tensors holds a NaN or an infinity."""
    owners, firsts, _ = blocks
    gradients, table, _, nonfinite = tables
    with on_device_of(table):
        _check[(len(owners),)](
            gradients, owners, firsts, table, nonfinite, TYPE=own.of_layout["PARAMETER"], WIDTH=own.width,
            BLOCK=own.block, **OPTIONS,
        )  # fmt: skip
