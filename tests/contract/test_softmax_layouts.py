"""Softmax losses over every shape and layout: short rows in lanes, long ones one by one, classes apart or not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from steepest.backends import reference_losses
from steepest.losses import LOSSES
from steepest.losses.apply import softmax_loss

from .backends import SOFTMAX
from .samples import DTYPES, generator, parameters_of

CLASSES = (1, 2, 3, 7, 8, 63, 64, 65, 257, 1000)
ROWS = (1, 7, 63, 64, 65, 127, 128, 129)
INNER = (1, 2, 5)
KINDS = ("index", "smoothed", "weighted", "probabilities", "shifted")
CROSS_ENTROPY = LOSSES["cross_entropy"].formula
# Units in the last place: float32 exponentials are good to 1.04, their product with a row's factor is rounded once.
BARS = {"float32": 2.5, "float64": 4.0}
Array = NDArray[Any]


def truth(
    logits: Array, shares: Array, weight: Array | float, offset: Array | float
) -> tuple[Array, Array, Array]:
    """Values of rows (N, C), gradients, and how much each gradient adds up from, its two terms' sizes: in 80 bits."""
    x = (logits.astype(np.float64) + offset).astype(np.longdouble)  # an offset is added in float64
    rows = np.arange(len(x))
    k = x.argmax(1)
    x -= x[rows, k][:, None]
    e = np.exp(x)
    e[rows, k] = 0
    rest = e.sum(1)
    e[rows, k] = 1
    total = (1 + rest)[:, None]
    log_p = x - np.log1p(rest)[:, None]
    share = shares.astype(np.longdouble) * np.asarray(weight, np.longdouble)
    values = np.where(share != 0, -share * log_p, 0).sum(1)
    others = total - e
    others[rows, k] = rest
    of_others = share.sum(1)[:, None] - share
    first, second = -share * others / total, e / total * of_others
    return values, first + second, abs(first) + abs(second)


def off(results: Tensor, exact: Array, scales: Array | None = None) -> float:
    given = results.double().numpy().astype(np.longdouble)
    size = np.maximum(abs(exact), 0 if scales is None else scales).astype(str(results.dtype)[6:])
    return float((abs(given - exact) / np.spacing(size)).max())


def drawn(kind: str, dtype: str, rows: int, classes: int) -> tuple[Tensor, Tensor, dict[str, Any], Any]:
    """Rows (N, C), targets, what the loss is given besides, and what the truth needs of it."""
    rng = generator("layouts", kind, dtype, rows, classes)
    scale = 10.0 ** rng.uniform(-1, 1.5, (rows, 1))
    logits = torch.tensor(rng.normal(size=(rows, classes)) * scale).to(DTYPES[dtype])
    index = torch.tensor(rng.integers(0, classes, rows))
    shares = np.eye(classes)[index.numpy()]
    if kind == "smoothed":
        return (
            logits,
            index,
            {"label_smoothing": 0.25},
            (0.75 * shares + np.longdouble(0.25) / classes, 1.0, 0.0),
        )
    if kind == "weighted":
        weight = torch.tensor(rng.uniform(0.5, 2, classes)).to(DTYPES[dtype])
        return logits, index, {"weight": weight}, (shares, weight.numpy(), 0.0)
    if kind == "probabilities":
        targets = torch.tensor(rng.dirichlet(np.ones(classes), rows)).to(DTYPES[dtype])
        return logits, targets, {}, (targets.numpy(), 1.0, 0.0)
    if kind == "shifted":
        offset = torch.tensor(rng.normal(size=classes) * 3)
        return logits, index, {"offset": offset}, (shares, 1.0, offset.numpy())
    return logits, index, {}, (shares, 1.0, 0.0)


def laid_out(rows: Tensor, inner: int) -> Tensor:
    """(N, C) as (N / inner, C, inner), contiguous."""
    return rows.reshape(-1, inner, rows.shape[1]).transpose(1, 2).contiguous()


def as_rows(tensor: Tensor) -> Tensor:
    return tensor.transpose(1, 2).reshape(-1, tensor.shape[1])


def run(logits: Tensor, targets: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    leaf = logits.clone(memory_format=torch.preserve_format).requires_grad_()
    loss = softmax_loss(CROSS_ENTROPY, leaf, targets, **options)
    assert "Fused" in type(loss.grad_fn).__name__
    loss.sum().backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_shape_and_layout(kind: str, dtype: str, classes: int) -> None:
    for rows in ROWS:
        logits, targets, options, exact = drawn(kind, dtype, rows, classes)
        values, gradients, scales = truth(logits.numpy(), *exact)
        for inner in INNER:
            if rows % inner:
                continue
            x = logits if inner == 1 else laid_out(logits, inner)
            if targets.dim() == 1:
                wanted = targets if inner == 1 else targets.reshape(-1, inner)
            else:
                wanted = targets if inner == 1 else laid_out(targets, inner)
            loss, gradient = run(x, wanted, reduction="none", **options)
            by_row = gradient if inner == 1 else as_rows(gradient)
            assert off(loss.flatten(), values) <= BARS[dtype], (rows, inner)
            assert off(by_row, gradients, scales) <= BARS[dtype], (rows, inner)
        # The same numbers with classes apart in memory, which the loss copies.
        loss, gradient = run(logits.T.contiguous().T, targets, reduction="none", **options)
        assert off(loss, values) <= BARS[dtype]
        assert off(gradient, gradients, scales) <= BARS[dtype]
        total, _ = run(logits, targets, reduction="sum", **options)
        assert off(total, values.sum()) <= 2.0


@pytest.mark.parametrize("classes", [3, 64, 65, 300])
@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_the_same_bits_alone_and_among_others(kind: str, dtype: str, classes: int) -> None:
    logits, targets, options, _ = drawn(kind, dtype, 131, classes)
    values, gradients = run(logits, targets, reduction="none", **options)
    for row in (0, 1, 63, 127, 128, 130):
        value, gradient = run(logits[row : row + 1], targets[row : row + 1], reduction="none", **options)
        assert torch.equal(value[0], values[row])
        assert torch.equal(gradient[0], gradients[row])


@pytest.mark.parametrize("shape", [(130, 10), (9, 300), (7, 10, 20), (3, 300, 5)])
@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_over_the_logits_has_the_bits_of_a_fresh_one(
    kind: str, dtype: str, shape: tuple[int, ...]
) -> None:
    rows, inner = shape[0] * math.prod(shape[2:]), math.prod(shape[2:])
    logits, targets, options, _ = drawn(kind, dtype, rows, shape[1])
    if inner > 1:
        logits = laid_out(logits, inner)
        targets = targets.reshape(-1, inner) if targets.dim() == 1 else laid_out(targets, inner)
    fresh_loss, fresh = run(logits, targets, **options)
    leaf = logits.clone().requires_grad_()
    given = leaf * 1.0
    loss = softmax_loss(CROSS_ENTROPY, given, targets, inplace=True, **options)
    loss.backward()
    assert leaf.grad is not None
    assert torch.equal(loss.detach(), fresh_loss)
    assert torch.equal(leaf.grad, fresh)
    assert torch.equal(given.detach(), fresh)  # it did happen in place


@pytest.mark.parametrize("shape", [(130, 10), (20, 300)])
@pytest.mark.parametrize("dtype", BARS)
def test_weights_of_any_size(dtype: str, shape: tuple[int, int]) -> None:
    """Rows whose factor float32 cannot hold in two parts lie among others that it can."""
    rng = generator("sizes", dtype, shape)
    logits = torch.tensor(rng.normal(size=shape) * 3).to(DTYPES[dtype])
    index = torch.tensor(rng.integers(0, shape[1], shape[0]))
    weight = torch.tensor(10.0 ** rng.uniform(-36, 36, shape[1])).to(DTYPES[dtype])
    weight[::7] = 0.0
    weight[1::7] = 1.0
    values, gradients, scales = truth(logits.numpy(), np.eye(shape[1])[index.numpy()], weight.numpy(), 0.0)
    loss, gradient = run(logits, index, reduction="none", weight=weight)
    assert off(loss, values) <= BARS[dtype]
    assert off(gradient, gradients, scales) <= BARS[dtype]


@pytest.mark.parametrize("shape", [(200, 10), (9, 300), (40, 5, 6)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ignored_rows_are_left_out_whatever_they_hold(shape: tuple[int, ...], smoothing: float) -> None:
    rng = generator("ignored", shape)
    logits = torch.tensor(rng.normal(size=shape), dtype=torch.float32)
    targets = torch.tensor(rng.integers(0, shape[1], (shape[0], *shape[2:])))
    targets[1::3] = -100
    logits[1] = math.nan
    logits[4] = math.inf
    options: dict[str, Any] = {"label_smoothing": smoothing}
    loss, gradient = run(logits, targets, **options)
    kept = [row for row in range(shape[0]) if row % 3 != 1]
    among, slopes = run(logits[kept], targets[kept], **options)
    assert torch.isfinite(loss)
    torch.testing.assert_close(loss, among, rtol=2e-7, atol=0)
    assert torch.equal(gradient[kept], slopes)
    assert not gradient[1::3].any()


@pytest.mark.parametrize("classes", [3, 100])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", BARS)
def test_what_is_no_number_stays_in_its_row(dtype: str, smoothing: float, classes: int) -> None:
    for bad in (math.nan, -math.nan, math.inf):
        for place in (0, 1, classes - 1):
            logits = torch.zeros(5, classes, dtype=DTYPES[dtype])
            logits[2, place] = bad
            values, gradient = run(
                logits,
                torch.zeros(5, dtype=torch.int64),
                reduction="none",
                label_smoothing=smoothing,
            )
            assert torch.isnan(values).tolist() == [False, False, True, False, False], (bad, place)
            assert torch.isnan(gradient).any(1).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("name", [name for name in SOFTMAX if name != "logit_adjusted"])
def test_every_formula_in_lanes_and_in_long_rows(name: str, dtype: str) -> None:
    """Against the reference in float64, with shares in every class; the sums' cancellation is the tolerance."""
    formula = LOSSES[name].formula
    parameters = parameters_of(formula)
    for rows, classes in ((70, 9), (5, 300)):
        rng = generator("formulas", name, rows)
        logits = torch.tensor(rng.normal(size=(rows, classes)) * 3).to(DTYPES[dtype])
        shares = torch.tensor(rng.dirichlet(np.ones(classes), rows)).to(DTYPES[dtype])
        leaf = logits.clone().requires_grad_()
        values = softmax_loss(formula, leaf, shares, parameters, reduction="none")
        values.sum().backward()
        wide = logits.double().requires_grad_()
        expected = reference_losses.softmax(
            formula.value, wide, shares.double(), parameters, None, None, -100, 0.0, "none"
        )
        expected.sum().backward()
        assert leaf.grad is not None
        assert wide.grad is not None
        unit = torch.finfo(DTYPES[dtype]).eps
        torch.testing.assert_close(values.double(), expected, rtol=4 * unit, atol=0)
        torch.testing.assert_close(
            leaf.grad.double(), wide.grad, rtol=16 * unit, atol=4 * unit * float(wide.grad.abs().max())
        )
