"""A whole training run as one compiled function.

Shapes: B rows of a micro-batch, I inputs and O outputs of a layer. Activations are feature-major, (I, B), so
that rows lie side by side in SIMD lanes; weights are (O, I) and row-major, torch's layout. Nothing here knows
a loss, an optimizer, an activation or a metric by name: they come as addresses of C functions.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray, types

from steepest.backends import cpu
from steepest.backends.cpu_losses import ENGINE_LOSS
from steepest.backends.cpu_optim import ENGINE_STEP
from steepest.backends.cpu_vocabulary import sigmoid
from steepest.training.activations import activation_signature
from steepest.training.lanes import dots, outer, row, row_dots, transpose
from steepest.training.metrics import PROBABILITY, metric_signature
from steepest.training.random import permute
from steepest.training.rates import RATE_FACTOR
from steepest.training.run import STOP_REASONS

__all__ = ["INTEGERS", "MICRO_BATCH", "NUMBERS", "PROGRESS", "train_kernel"]

MICRO_BATCH = 256  # rows that go through the net at once; larger batches add up their gradients
_BLAS_FROM = (
    1 << 18
)  # weights of a layer from which they no longer lie in a near cache: BLAS knows what to do
_TRANSPOSE_FROM = 16  # outputs from which it pays to turn a layer's inputs for the weights' gradient

# The scalars of a run, by position in two arrays.
INTEGERS = (
    "num_rows", "num_features", "target_width", "num_validation", "num_layers", "batch_size", "seed",
    "max_epochs", "max_steps", "patience", "greater_is_better", "use_target_metric", "kind", "mean_over_outputs",
    "shuffle", "max_evaluations", "num_tensors", "weighted", "window", "is_window", "rows_left", "validation_left",
    "all_validation",
)  # fmt: skip
# Where a run stands between two calls: rows too many for memory come window by window.
PROGRESS = (
    "epoch", "step", "examples", "reason", "best_evaluation", "best_score", "loss_limit", "epoch_loss",
    "epoch_examples", "batch_loss", "batch_rows",
)  # fmt: skip
NUMBERS = ("min_gradient_norm", "target_metric", "divergence_factor", "lr", "schedule_steps", "warmup_steps")

_EPOCHS, _STEPS, _SECONDS, _PATIENCE, _GRADIENT, _TARGET, _DIVERGED, _INTERRUPTED = range(len(STOP_REASONS))

call_loss: Any
loss_of: Any
call_metric: Any
call_activation: Any
call_step: Any
call_schedule: Any
product: Any
forward_layer: Any
weight_gradient: Any
backward_layer: Any
gather: Any
forward: Any
backward: Any
score_rows: Any
differentiate: Any
differentiate_row: Any
differentiate_linear: Any
keep: Any
norm: Any
len_integers: int
len_progress: int
EPOCHS: int
STEPS: int
PATIENCE: int
GRADIENT_NORM: int
TARGET: int
DIVERGED: int


def _product(a: Any, b: Any, c: Any, num_rows: int, length: int, num_columns: int, turned: int) -> None:
    """c = a b by BLAS, apart from what small layers need; ``turned``: the first (1) or second (2) factor lies so."""
    result = c.reshape(num_rows, num_columns)
    if turned == 0:
        np.dot(a.reshape(num_rows, length), b.reshape(length, num_columns), result)
    elif turned == 1:
        np.dot(a.reshape(length, num_rows).T, b.reshape(length, num_columns), result)
    else:
        np.dot(a.reshape(num_rows, length), b.reshape(num_columns, length).T, result)


def _forward_layer(w: Any, b: Any, x: Any, z: Any, num_in: int, num_out: int, rows: int) -> None:
    """z (O, B) = w (O, I) x (I, B) + b (O)."""
    if num_in * num_out < _BLAS_FROM:
        outer(w, num_in, 1, x, rows, z, rows, b, 1, num_out, rows, num_in)
        return
    product(w, x, z, num_out, num_in, rows, 0)
    for o in range(num_out):
        for r in range(rows):
            z[o * rows + r] += b[o]


def _weight_gradient(
    d: Any, x: Any, g: Any, gb: Any, spare: Any, zero_and_ones: Any, counted: Any, num_in: int, num_out: int,
    rows: int, first: bool,
) -> None:  # fmt: skip
    """g (O, I) (+)= d (O, B) x (I, B)^T and gb (O) (+)= sum of d over rows; ``first`` overwrites."""
    ones = zero_and_ones[1:]
    bias_start, start = (zero_and_ones, zero_and_ones) if first else (gb, g)
    stride = 0 if first else 1
    dots(ones, 0, d, rows, gb, 0, 1, bias_start, 0, stride, 1, num_out, rows)
    if num_out < _TRANSPOSE_FROM:
        dots(d, rows, x, rows, g, num_in, 1, start, stride * num_in, stride, num_out, num_in, rows)
        return
    sums = g if first else spare[: num_out * num_in]
    if num_in * num_out < _BLAS_FROM:
        turned = spare[num_out * num_in : (num_out + rows) * num_in]
        transpose(x, counted, 0, num_in, rows, turned)
        outer(d, rows, 1, turned, num_in, sums, num_in, zero_and_ones, 0, num_out, num_in, rows)
    else:
        product(d, x, sums, num_out, rows, num_in, 2)
    if not first:
        for i in range(num_out * num_in):
            g[i] += sums[i]


def _backward_layer(w: Any, d: Any, below: Any, zero: Any, num_in: int, num_out: int, rows: int) -> None:
    """below (I, B) = w (O, I)^T d (O, B)."""
    if num_in * num_out < _BLAS_FROM:
        outer(w, 1, num_in, d, rows, below, rows, zero, 0, num_in, rows, num_out)
    else:
        product(w, d, below, num_in, num_out, rows, 1)


# The same for one row, where the lanes run over a layer's units; short enough to be inlined.


def _forward_row(w: Any, b: Any, x: Any, z: Any, num_in: int, num_out: int, rows: int) -> None:
    row_dots(x, 0, w, num_in, z, 0, 1, b, 0, 1, num_out, num_in)


def _row_weight_gradient(
    d: Any, x: Any, g: Any, gb: Any, spare: Any, zero_and_ones: Any, counted: Any, num_in: int, num_out: int,
    rows: int, first: bool,
) -> None:  # fmt: skip
    for o in range(num_out):
        gb[o] = d[o]
        row(d, o, 0, x, 0, g, o * num_in, zero_and_ones, 0, num_in, 1)


def _backward_row(w: Any, d: Any, below: Any, zero: Any, num_in: int, num_out: int, rows: int) -> None:
    row(d, 0, 1, w, num_in, below, 0, zero, 0, num_in, num_out)


def _forward(
    parameters: Any, sizes: Any, num_layers: int, z: Any, a: Any, rows: int, activate: int, kind: int
) -> int:
    """From the inputs at the start of ``a`` through all layers; where the outputs begin in ``z`` and ``a``."""
    at = 0
    here = 0
    for layer in range(num_layers):
        num_in, num_out = sizes[layer], sizes[layer + 1]
        after = here + num_in * rows
        stop = after + num_out * rows
        bias = at + num_in * num_out
        forward_layer(
            parameters[at:bias], parameters[bias : bias + num_out], a[here:after], z[after:stop],
            num_in, num_out, rows,
        )  # fmt: skip
        if layer < num_layers - 1:
            call_activation(activate, z[after:stop], a[after:stop], num_out * rows)
        else:
            for i in range(after, stop):
                a[i] = sigmoid(z[i]) if kind == PROBABILITY else z[i]
        at = bias + num_out
        here = after
    return here


def _backward(
    parameters: Any, gradient: Any, sizes: Any, num_layers: int, z: Any, a: Any, deltas: Any, spare: Any,
    zero_and_ones: Any, counted: Any, rows: int, derive: int, kind: int, first: bool, outputs_at: int,
) -> None:  # fmt: skip
    """From the loss's gradient, in the first half of ``deltas``, down to every weight's gradient."""
    half = len(deltas) // 2
    this, other = 0, half
    if kind == PROBABILITY:
        for i in range(sizes[num_layers] * rows):
            p = a[outputs_at + i]
            deltas[i] *= p * (1 - p)
    at = len(parameters)
    here = outputs_at
    for layer in range(num_layers - 1, -1, -1):
        num_in, num_out = sizes[layer], sizes[layer + 1]
        at -= (num_in + 1) * num_out
        bias = at + num_in * num_out
        inputs = here - num_in * rows
        d = deltas[this : this + num_out * rows]
        weight_gradient(
            d, a[inputs:here], gradient[at:bias], gradient[bias : bias + num_out], spare,
            zero_and_ones, counted, num_in, num_out, rows, first,
        )  # fmt: skip
        if layer > 0:
            below = deltas[other : other + num_in * rows]
            backward_layer(parameters[at:bias], d, below, zero_and_ones, num_in, num_out, rows)
            call_activation(derive, z[inputs:here], below, num_in * rows)
            this, other = other, this
        here = inputs


def _gather(x: Any, order: Any, start: int, rows: int, width: int, into: Any) -> None:
    """Rows of ``x`` (n, width) picked by ``order``, written feature-major (width, rows)."""
    if width == 1:
        for r in range(rows):
            into[r] = x[order[start + r]]
    else:
        transpose(x, order, start, rows, width, into)


def _gather_row(x: Any, order: Any, start: int, rows: int, width: int, into: Any) -> None:
    at = order[start] * width
    picked = x[at : at + width]
    for i in range(width):
        into[i] = picked[i]


def _plain_loss(
    outputs: Any, t: Any, deltas: Any, weights: Any, order: Any, start: int, rows: int, num_out: int,
    target_width: int, loss: int, scale: float, loss_options: Any, room: Any,
) -> Any:  # fmt: skip
    """The sum of the losses, and their gradient in ``deltas``."""
    return call_loss(loss, outputs, t, deltas, rows, num_out, scale, loss_options, outputs[0], t[0])


def _weigh_loss(
    outputs: Any, t: Any, deltas: Any, weights: Any, order: Any, start: int, rows: int, num_out: int,
    target_width: int, loss: int, scale: float, loss_options: Any, room: Any,
) -> Any:  # fmt: skip
    """The same weighted, where rows have weights: row by row, as a loss knows none."""
    if len(weights) == 0:
        return call_loss(loss, outputs, t, deltas, rows, num_out, scale, loss_options, outputs[0], t[0])
    output, slope = room[:num_out], room[num_out : 2 * num_out]
    target = room[2 * num_out : 2 * num_out + target_width]
    total = 0.0
    for r in range(rows):
        for o in range(num_out):
            output[o] = outputs[o * rows + r]
        for j in range(target_width):
            target[j] = t[j * rows + r]
        weight = weights[order[start + r]]
        total += weight * call_loss(
            loss, output, target, slope, 1, num_out, scale, loss_options, output[0], target[0]
        )
        for o in range(num_out):
            deltas[o * rows + r] = weight * slope[o]
    return total


def _differentiate(
    x: Any, y: Any, weights: Any, order: Any, start: int, rows: int, num_features: int, target_width: int,
    num_out: int, p: Any, g: Any, sizes: Any, num_layers: int, z: Any, a: Any, t: Any, deltas: Any, spare: Any,
    zero_and_ones: Any, counted: Any, activate: int, derive: int, loss: int, scale: float, loss_options: Any,
    kind: int, first: bool,
) -> Any:  # fmt: skip
    """Some rows through the net and back: the sum of their losses; ``g`` gets, or gains, their gradient."""
    gather(x, order, start, rows, num_features, a)
    gather(y, order, start, rows, target_width, t)
    at = forward(p, sizes, num_layers, z, a, rows, activate, kind)
    total = loss_of(
        a[at:], t, deltas, weights, order, start, rows, num_out, target_width, loss, scale, loss_options, spare
    )  # fmt: skip
    backward(
        p, g, sizes, num_layers, z, a, deltas, spare, zero_and_ones, counted, rows, derive, kind, first, at
    )
    return total


def _differentiate_linear(
    x: Any, y: Any, row: int, num_features: int, p: Any, g: Any, a: Any, t: Any, deltas: Any, zero_and_ones: Any,
    loss: int, scale: float, loss_options: Any, kind: int,
) -> Any:  # fmt: skip
    """One row through one unit and back: nothing is copied, and nothing goes through a layer's machinery."""
    inputs = x[row * num_features : (row + 1) * num_features]
    # Four sums in scalars: a vector load of what the last step stored in pieces would wait for all of them. None is
    # longer than it must be, for the next step waits for the longest.
    first = second = third = zero_and_ones[0]
    fourth = p[num_features]
    whole = num_features // 4 * 4
    for i in range(0, whole, 4):
        first += p[i] * inputs[i]
        second += p[i + 1] * inputs[i + 1]
        third += p[i + 2] * inputs[i + 2]
        fourth += p[i + 3] * inputs[i + 3]
    if num_features > whole:
        first += p[whole] * inputs[whole]
    if num_features > whole + 1:
        second += p[whole + 1] * inputs[whole + 1]
    if num_features > whole + 2:
        third += p[whole + 2] * inputs[whole + 2]
    output = (first + second) + (third + fourth)
    if kind == PROBABILITY:
        output = sigmoid(output)
    total = call_loss(loss, a, t, deltas, 1, 1, scale, loss_options, output, y[row])  # reads neither a nor t
    if kind == PROBABILITY:
        deltas[0] *= output * (1 - output)
    slope = deltas[0]
    for i in range(num_features):
        g[i] = slope * inputs[i]
    g[num_features] = slope
    return total


def _score(
    x: Any, y: Any, order: Any, n: int, left: int, total: int, sizes: Any, num_layers: int, parameters: Any,
    z: Any, a: Any, t: Any, activate: int, metric: int, kind: int, sums: Any,
) -> Any:  # fmt: skip
    """The metric over all of the validation rows, once no more than these are left of them."""
    num_out = sizes[num_layers]
    for start in range(0, n, MICRO_BATCH):
        rows = min(MICRO_BATCH, n - start)
        gather(x, order, start, rows, sizes[0], a)
        gather(y, order, start, rows, 1, t)
        at = forward(parameters, sizes, num_layers, z, a, rows, activate, kind)
        call_metric(metric, z[at:], t, rows, num_out, kind, sums, n)  # z: the logits, whatever the loss takes
    if n < left:
        return np.nan
    score = call_metric(metric, a, t, 0, num_out, kind, sums, total)
    sums[:] = 0.0
    return score


def _train(
    integers: Any, numbers: Any, layer_sizes: Any, x_rows: Any, y_rows: Any, row_weights: Any, x_validation: Any,
    y_validation: Any, parameters: Any, gradient: Any, best: Any, workspace: Any, row_order: Any, table: Any,
    hyper: Any, loss_options: Any, metric_sums: Any, curve: Any, control: Any, progress: Any,
    loss: int, metric: int, activate: int, derive: int, step_rule: int, schedule: int,
) -> None:  # fmt: skip
    given = carray(integers, len_integers)
    (n, num_features, target_width, num_validation, num_layers, batch_size, seed, max_epochs, max_steps, patience,
     greater_is_better, use_target, kind, mean_over_outputs, shuffle, max_evaluations, num_tensors, weighted,
     window, is_window, rows_left, validation_left, all_validation) = (
        given[0], given[1], given[2], given[3], given[4], given[5], given[6], given[7], given[8], given[9],
        given[10], given[11], given[12], given[13], given[14], given[15], given[16], given[17], given[18],
        given[19], given[20], given[21], given[22],
    )  # fmt: skip
    bounds = carray(numbers, 6)
    min_gradient_norm, target_metric, divergence_factor = bounds[0], bounds[1], bounds[2]
    lr, schedule_steps, warmup_steps = bounds[3], bounds[4], bounds[5]
    rate = carray(hyper, 1)  # a rule's first hyperparameter
    sizes = carray(layer_sizes, num_layers + 1)
    num_out = sizes[num_layers]
    num_parameters = 0
    units = 0  # of all layers, the inputs included
    widest = 0
    for layer in range(num_layers + 1):
        units += sizes[layer]
        widest = max(widest, sizes[layer])
        if layer > 0:
            num_parameters += (sizes[layer - 1] + 1) * sizes[layer]
    x = carray(x_rows, n * num_features)
    y = carray(y_rows, n * target_width)
    weights = carray(row_weights, n * weighted)
    xv = carray(x_validation, num_validation * num_features)
    yv = carray(y_validation, num_validation)
    p = carray(parameters, num_parameters)
    g = carray(gradient, num_parameters)
    kept = carray(best, num_parameters)
    sums = carray(metric_sums, 2 + 2 * max(num_out, 2))
    marks = carray(curve, max_evaluations * 4)
    stop_request = carray(control, 2)  # [0] asked for from outside, [1] steps done, for watchers
    state = carray(progress, len_progress)

    # The workspace: z and a of every layer, two deltas, targets, constants, a spare gradient and turned inputs.
    room = carray(
        workspace, MICRO_BATCH * (2 * units + 3 * widest + max(target_width, 1) + 1) + 1 + num_parameters
    )
    z = room[: MICRO_BATCH * units]
    a = room[MICRO_BATCH * units : 2 * MICRO_BATCH * units]
    used = 2 * MICRO_BATCH * units
    deltas = room[used : used + 2 * MICRO_BATCH * widest]
    used += 2 * MICRO_BATCH * widest
    t = room[used : used + MICRO_BATCH * max(target_width, 1)]
    used += MICRO_BATCH * max(target_width, 1)
    zero_and_ones = room[used : used + MICRO_BATCH + 1]
    zero_and_ones[:] = 1.0
    zero_and_ones[0] = 0.0
    spare = room[used + MICRO_BATCH + 1 :]
    orders = carray(row_order, n + max(num_validation, widest))
    order = orders[:n]
    counted = orders[n:]
    for i in range(n):
        order[i] = i
    for i in range(len(counted)):
        counted[i] = i

    one = np.int64(1)  # a literal is a type of its own, for which all would be compiled once more
    epoch, step, examples, reason, best_evaluation = (
        int(state[0]), int(state[1]), int(state[2]), int(state[3]), int(state[4]),
    )  # fmt: skip
    best_score, loss_limit, epoch_loss = state[5], state[6], state[7]
    epoch_examples, batch_loss, done = int(state[8]), state[9], int(state[10])
    while True:
        if reason < 0 and epoch >= max_epochs:
            reason = EPOCHS
            break
        if shuffle != 0:
            permute(order, n, seed, epoch + (window << 32))
        start = 0
        while start < n and reason < 0:
            rows_in_batch = min(batch_size, rows_left - start + done)
            scale = 1.0 / (rows_in_batch * (num_out if mean_over_outputs != 0 else 1))
            if weighted != 0:
                pass  # micro-batches of any size know weights, the ways for one row do not
            elif rows_in_batch == 1 and num_parameters == num_features + 1 and target_width == 1:
                batch_loss = differentiate_linear(
                    x, y, order[start], num_features, p, g, a, t, deltas, zero_and_ones, loss, scale,
                    loss_options, kind,
                )  # fmt: skip
                done = 1
                start += 1
            elif rows_in_batch == 1:
                batch_loss = differentiate_row(
                    x, y, weights, order, start, one, num_features, target_width, num_out, p, g, sizes, num_layers,
                    z, a, t, deltas, spare, zero_and_ones, counted, activate, derive, loss, scale, loss_options, kind,
                    done == 0,
                )  # fmt: skip
                done = 1
                start += 1
            while done < rows_in_batch and start < n:
                rows = min(MICRO_BATCH, rows_in_batch - done, n - start)
                batch_loss += differentiate(
                    x, y, weights, order, start, rows, num_features, target_width, num_out, p, g, sizes,
                    num_layers, z, a, t, deltas, spare, zero_and_ones, counted, activate, derive, loss, scale,
                    loss_options, kind, done == 0,
                )  # fmt: skip
                done += rows
                start += rows
            if done < rows_in_batch:
                break  # the batch goes on in the next window
            if not np.isfinite(batch_loss) or batch_loss * scale > loss_limit:
                reason = DIVERGED
            elif min_gradient_norm > 0.0 and norm(g) <= min_gradient_norm:
                reason = GRADIENT_NORM
            else:
                if schedule != 0:
                    rate[0] = lr * call_schedule(schedule, float(step), schedule_steps, warmup_steps)
                step += 1
                call_step(step_rule, float(step), num_tensors, table, hyper)
                if step == 1:
                    loss_limit = divergence_factor * (1.0 + batch_loss * scale)
                if step >= max_steps:
                    reason = STEPS
            epoch_loss += batch_loss * scale * rows_in_batch
            epoch_examples += rows_in_batch
            batch_loss = 0.0
            done = 0
            stop_request[1] = step
            if stop_request[0] != 0:
                reason = stop_request[0]
        if reason < 0 and n < rows_left:
            break  # the epoch goes on in the next window
        score = np.nan
        if num_validation > 0:
            score = score_rows(
                xv, yv, counted, num_validation, validation_left, all_validation, sizes, num_layers, p, z, a, t,
                activate, metric, kind, sums,
            )  # fmt: skip
        if num_validation < validation_left:
            break
        if all_validation > 0:
            if not np.isfinite(score):
                reason = DIVERGED
            elif best_evaluation == 0 or (
                score > best_score if greater_is_better != 0 else score < best_score
            ):
                best_score = score
                best_evaluation = epoch + 1
                keep(kept, p)
        mark = epoch * 4
        epoch += 1
        examples += epoch_examples
        marks[mark] = epoch
        marks[mark + 1] = step
        marks[mark + 2] = epoch_loss / max(epoch_examples, 1)
        marks[mark + 3] = score
        epoch_loss = 0.0
        epoch_examples = 0
        if reason < 0 and all_validation > 0:
            if use_target != 0 and (
                score >= target_metric if greater_is_better != 0 else score <= target_metric
            ):
                reason = TARGET
            elif patience > 0 and epoch - best_evaluation >= patience:
                reason = PATIENCE
        if reason < 0 and epoch >= max_evaluations:
            reason = EPOCHS
        if reason >= 0 or is_window != 0:
            break
    if all_validation == 0:
        keep(kept, p)
    if schedule != 0:
        rate[0] = lr
    state[0] = epoch
    state[1] = step
    state[2] = examples
    state[3] = reason
    state[4] = best_evaluation
    state[5] = best_score
    state[6] = loss_limit
    state[7] = epoch_loss
    state[8] = epoch_examples
    state[9] = batch_loss
    state[10] = done


def _keep(kept: Any, p: Any) -> None:
    # Assigning a slice would bring along the making of its error's text, which takes 2 s to compile.
    for i in range(len(p)):
        kept[i] = p[i]


def _norm(g: Any) -> Any:
    total = 0.0
    for i in range(len(g)):
        total += np.float64(g[i]) * np.float64(g[i])
    return np.sqrt(total)


@cache
def train_kernel(dtype: str) -> cpu.Kernel:
    """The run, compiled once for all architectures, losses, optimizers, activations and metrics."""
    float_type = {"float32": types.float32, "float64": types.float64}[dtype]
    numbers, integers = types.CPointer(types.float64), types.CPointer(types.int64)
    data, address = types.CPointer(float_type), types.int64
    signature = types.void(
        integers, numbers, integers, data, data, numbers, data, data,
        data, data, data, data, integers, integers, numbers,
        numbers, numbers, numbers, integers, numbers,
        address, address, address, address, address, address,
    )  # fmt: skip
    calls = {
        "call_loss": cpu.call(ENGINE_LOSS(dtype)),
        "call_metric": cpu.call(metric_signature(dtype)),
        "call_activation": cpu.call(activation_signature(dtype)),
        "call_step": cpu.call(ENGINE_STEP),
        "call_schedule": cpu.call(RATE_FACTOR),
    }
    product = {"product": cpu.bind(_product, inline=False)}
    layers = {
        "forward_layer": cpu.bind(_forward_layer, product),
        "weight_gradient": cpu.bind(_weight_gradient, product),
        "backward_layer": cpu.bind(_backward_layer, product),
        "sigmoid": sigmoid,
    }
    row_layers = {
        "forward_layer": cpu.bind(_forward_row),
        "weight_gradient": cpu.bind(_row_weight_gradient),
        "backward_layer": cpu.bind(_backward_row),
        "sigmoid": sigmoid,
    }
    gather = cpu.bind(_gather, inline=False)
    forward = cpu.bind(_forward, {**calls, **layers}, inline=False)
    backward = cpu.bind(_backward, {**calls, **layers}, inline=False)
    score = cpu.bind(_score, {**calls, "gather": gather, "forward": forward}, inline=False)
    parts = {
        **calls,
        "loss_of": cpu.bind(_weigh_loss, calls, inline=False),
        "gather": gather,
        "forward": forward,
        "backward": backward,
    }
    row_parts = {
        **calls,
        "loss_of": cpu.bind(_plain_loss, calls),
        "gather": cpu.bind(_gather_row),
        "forward": cpu.bind(_forward, {**calls, **row_layers}),
        "backward": cpu.bind(_backward, {**calls, **row_layers}),
    }
    reasons = {
        "EPOCHS": _EPOCHS, "STEPS": _STEPS, "PATIENCE": _PATIENCE, "GRADIENT_NORM": _GRADIENT,
        "TARGET": _TARGET, "DIVERGED": _DIVERGED,
    }  # fmt: skip
    bindings = {
        **calls,
        **reasons,
        "differentiate": cpu.bind(_differentiate, parts),
        "differentiate_row": cpu.bind(_differentiate, row_parts),
        "differentiate_linear": cpu.bind(_differentiate_linear, {**calls, "sigmoid": sigmoid}),
        "score_rows": score,
        "keep": cpu.bind(_keep),
        "norm": cpu.bind(_norm, inline=False),
        "permute": permute,
        "len_integers": len(INTEGERS),
        "len_progress": len(PROGRESS),
    }
    return cpu.compile_kernel(_train, signature, bindings)
