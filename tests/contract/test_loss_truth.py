"""Every loss of the registry, value and gradient, through both backends, against 256-bit truth.

The inputs follow the formula's declared domain, so a new loss is held to the same bars without a line here.
``STEEPEST_TEST_DRAWS`` sets how many inputs each loss is held to its truth on, at least; 10,000 take some minutes.
"""

from __future__ import annotations

import math
import os
from functools import cache
from typing import Any

import pytest
import torch

from steepest.losses import LOSSES

from . import truth_imbalance, truth_robust, truth_torch
from .backends import BACKENDS, through
from .backends import POINTWISE as ALL_POINTWISE
from .backends import SOFTMAX as ALL_SOFTMAX
from .samples import DTYPES, generator, parameters_of, pointwise_samples, softmax_samples
from .truth import KNOWN, ONE, exactly, in_full_precision, mp, pointwise_truth, softmax_truth, worst_ulps

DRAWS = int(os.environ.get("STEEPEST_TEST_DRAWS", "1"))

POINTWISE = [name for name in ALL_POINTWISE if name in KNOWN]
SOFTMAX = ["cross_entropy"]


def test_every_formula_is_held_against_truth_here_or_in_its_group() -> None:
    elsewhere = {
        *truth_torch.KNOWN,
        *truth_robust.KNOWN,
        *truth_imbalance.KNOWN,
        *truth_imbalance.SOFTMAX_KNOWN,
    }
    assert {*ALL_POINTWISE, *ALL_SOFTMAX} <= {*POINTWISE, *SOFTMAX} | elsewhere


# Units in the last place. float32 is computed in float64 and rounded once; a product of two roundings is near it.
BARS = {"float32": 0.51, "float64": 4.0}
SOFTMAX_BARS = {
    ("cpu", "float32"): 2.5,  # its exponentials are float32's, good to 1.04
    ("cpu", "float64"): 4.0,
    ("cuda", "float32"): 2.5,
    ("cuda", "float64"): 4.0,
    ("reference", "float32"): 0.51,
    # Autograd takes p_k of the largest class as 1 - rest / (1 + rest): an error of 1 / p_k roundings.
    ("reference", "float64"): 24.0,
}
MANY_CLASSES_BAR = 12.0  # float64, 257 classes, shares in all of them: 257 terms are added one after another


def other_parameters(name: str) -> list[float]:
    """The formula's parameters away from their defaults, within their ranges."""
    formula = LOSSES[name].formula
    moved = [0.7 * default for default in formula.parameters.values()]
    for value, interval in zip(moved, formula.valid.values(), strict=True):
        assert interval.holds(value), f"{name}: choose another value for the test"
    return moved


PARAMETERS = [(name, tuple(parameters_of(LOSSES[name].formula))) for name in POINTWISE] + [
    (name, tuple(other_parameters(name))) for name in POINTWISE if LOSSES[name].formula.parameters
]


def settled(name: str, predictions: torch.Tensor) -> torch.Tensor:
    """Where a gradient is the value's derivative."""
    if name == "bce_probability":
        # torch's convention, kept: the gradient's denominator p (1 - p) is held above 1e-12, the value is not.
        p = predictions.double()
        return torch.minimum(p, 1 - p) > 1.0001e-12
    return torch.ones_like(predictions, dtype=torch.bool)


def rounds(size: int) -> range:
    """How many draws of so many inputs make ``DRAWS``."""
    return range(math.ceil(DRAWS / size))


@cache
def _pointwise_truth(name: str, dtype: str, parameters: tuple[float, ...], backend: str, draw: int) -> Any:
    formula = LOSSES[name].formula
    return pointwise_truth(formula, *pointwise_samples(formula, dtype, draw=draw), parameters, backend)


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize(("name", "parameters"), PARAMETERS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_pointwise_values_and_gradients(
    backend: str, name: str, parameters: tuple[float, ...], dtype: str
) -> None:
    formula = LOSSES[name].formula
    for draw in rounds(len(pointwise_samples(formula, dtype)[0])):
        predictions, targets = pointwise_samples(formula, dtype, draw=draw)
        values, gradients, scales = _pointwise_truth(name, dtype, parameters, backend, draw)
        loss, gradient = through(backend, formula, predictions, targets, parameters)

        off, at = worst_ulps(loss, values)
        assert off <= BARS[dtype], (
            f"value off by {off:.3g} ulp at {predictions[at].item()!r}, {targets[at].item()!r}"
        )
        kept = range(len(predictions))
        if backend == "reference":
            kept = settled(name, predictions).nonzero().flatten().tolist()
        gradient = gradient[list(kept)]
        off, at = worst_ulps(gradient, [gradients[i] for i in kept], [scales[i] for i in kept])
        at = kept[at]
        assert off <= BARS[dtype], (
            f"gradient off by {off:.3g} ulp at {predictions[at].item()!r}, {targets[at].item()!r}"
        )


@pytest.mark.parametrize("name", sorted(set(KNOWN) & set(LOSSES)))
def test_the_formula_is_the_published_one(name: str) -> None:
    """The package's text of a loss, in exact arithmetic, is this test's own text of it."""
    formula = LOSSES[name].formula
    parameters = parameters_of(formula)
    predictions, targets = pointwise_samples(formula, "float64")
    finite = predictions.isfinite() & targets.isfinite()
    predictions, targets = predictions[finite], targets[finite]
    values, gradients, scales = pointwise_truth(formula, predictions, targets, parameters)
    value, gradient = in_full_precision(formula.value), in_full_precision(formula.gradient)
    given = [mp.mpf(parameter) for parameter in parameters]
    for i, (p, y) in enumerate(zip(exactly(predictions), exactly(targets), strict=True)):
        assert abs(value(p, y, *given) - values[i]) <= abs(values[i]) * mp.mpf(10) ** -60, (p, y)
        scale = max(abs(gradients[i]), abs(scales[i] or 0))
        assert abs(gradient(p, y, *given) - gradients[i]) <= scale * mp.mpf(10) ** -60, (p, y)


@pytest.mark.parametrize("name", POINTWISE)
def test_the_gradient_is_the_derivative_of_the_value(name: str) -> None:
    """In 256 bits, by central differences: the two texts of a formula belong together."""
    formula = LOSSES[name].formula
    predictions, targets = pointwise_samples(formula, "float64", tails=False)
    value, gradient = in_full_precision(formula.value), in_full_precision(formula.gradient)
    step = mp.mpf(10) ** -25
    for parameters in {tuple(parameters_of(formula)), tuple(other_parameters(name))}:
        given = [mp.mpf(parameter) for parameter in parameters]
        for p, y in zip(exactly(predictions), exactly(targets), strict=True):
            difference = (value(p + step, y, *given) - value(p - step, y, *given)) / (2 * step)
            assert abs(difference - gradient(p, y, *given)) < 1e-20 * (1 + abs(difference)), (p, y)


@pytest.mark.parametrize("name", POINTWISE)
def test_autograd_of_the_value_is_the_gradient_at_ties_too(name: str) -> None:
    formula = LOSSES[name].formula
    parameters = parameters_of(formula)
    predictions, targets = pointwise_samples(formula, "float64")
    usable = settled(name, predictions)
    predictions, targets = predictions[usable].requires_grad_(), targets[usable]
    (derived,) = torch.autograd.grad(formula.value(predictions, targets, *parameters).sum(), predictions)
    stated = formula.gradient(predictions.detach(), targets, *parameters)
    torch.testing.assert_close(derived, stated, rtol=1e-12, atol=1e-15, equal_nan=True)


SHARES = ("index", "smoothed", "probabilities")
SMOOTHING = 0.1


def probabilities(name: str, block: str, logits: torch.Tensor, draw: int) -> torch.Tensor:
    """Rows of shares that sum to 1; a masked class has none."""
    shares = torch.tensor(
        generator(name, block, *[draw] * (draw > 0)).dirichlet([1.0] * logits.shape[1], len(logits))
    )
    shares[logits == -math.inf] = 0.0
    return shares.to(logits.dtype)


@cache
def _softmax_truth(
    name: str, block: str, kind: str, dtype: str, draw: int
) -> tuple[list[Any], list[Any], list[Any]]:
    formula = LOSSES[name].formula
    logits, index = next((x, t) for word, x, t in softmax_samples(dtype, draw) if word == block)
    classes = logits.shape[1]
    smoothing = mp.mpf(SMOOTHING if kind == "smoothed" else 0.0)
    values: list[Any] = []
    gradients: list[Any] = []
    scales: list[Any] = []
    for row in range(len(logits)):
        if kind == "probabilities":
            shares = exactly(probabilities(name, block, logits, draw)[row])
        else:
            shares = [smoothing / classes + (1 - smoothing) * (j == int(index[row])) for j in range(classes)]
        value, slopes, terms = softmax_truth(formula, exactly(logits[row]), shares, parameters_of(formula))
        values.append(value)
        gradients += slopes
        scales += terms
    return values, gradients, scales


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("kind", SHARES)
@pytest.mark.parametrize("name", SOFTMAX)
@pytest.mark.parametrize("backend", BACKENDS)
def test_softmax_values_and_gradients(backend: str, name: str, kind: str, dtype: str) -> None:
    formula = LOSSES[name].formula
    parameters = parameters_of(formula)
    smoothing = SMOOTHING if kind == "smoothed" else 0.0
    num_rows = sum(len(index) for _, _, index in softmax_samples(dtype))
    blocks = [(draw, *block) for draw in rounds(num_rows) for block in softmax_samples(dtype, draw)]
    for draw, block, logits, index in blocks:
        if block == "masked" and kind == "smoothed":
            continue  # smoothing gives the masked class a share: the loss is infinite
        classes = logits.shape[1]
        targets = probabilities(name, block, logits, draw) if kind == "probabilities" else index
        values, gradients, scales = _softmax_truth(name, block, kind, dtype, draw)
        loss, gradient = through(backend, formula, logits, targets, parameters, smoothing=smoothing)
        bar = SOFTMAX_BARS[backend, dtype]
        if block == "many" and kind != "index" and dtype == "float64":
            bar = max(bar, MANY_CLASSES_BAR)
        if (backend, dtype) == ("reference", "float64"):
            bar += 2.0 * classes  # the largest p_k may be as small as 1 / classes
        off, at = worst_ulps(loss, values)
        assert off <= bar, f"{block}: value off by {off:.3g} ulp in row {at}"
        off, at = worst_ulps(gradient, gradients, scales)
        assert off <= bar, (
            f"{block}: gradient off by {off:.3g} ulp in row {at // classes}, class {at % classes}"
        )


@pytest.mark.parametrize("name", SOFTMAX)
@pytest.mark.parametrize("backend", BACKENDS)
def test_softmax_class_weights(backend: str, name: str) -> None:
    """Weighted rows, and the mean over indices: divided by the sum of the targets' weights."""
    formula = LOSSES[name].formula
    parameters = parameters_of(formula)
    rng = generator(name, "weights")
    logits, index = torch.tensor(rng.normal(size=(40, 5)) * 4), torch.tensor(rng.integers(0, 5, 40))
    weight = torch.tensor([0.0, 0.5, 1.0, 2.0, 7.25], dtype=torch.float64)
    shares = torch.tensor(rng.dirichlet([1.0] * 5, 40))
    for smoothing in (0.0, 0.2):
        for targets in (index, shares):
            even = mp.mpf(smoothing) / 5
            values, gradients, scales = [], [], []
            for row in range(len(logits)):
                plain = (
                    exactly(shares[row])
                    if targets is shares
                    else [ONE * (j == int(index[row])) for j in range(5)]
                )
                row_shares = [even + (1 - mp.mpf(smoothing)) * share for share in plain]
                value, slopes, terms = softmax_truth(
                    formula, exactly(logits[row]), row_shares, parameters, exactly(weight)
                )
                values.append(value)
                gradients += slopes
                scales += terms
            divisor = mp.mpf(len(logits)) if targets is shares else sum(exactly(weight[index]))
            settings = {"weight": weight, "smoothing": smoothing}
            loss, gradient = through(backend, formula, logits, targets, parameters, **settings)
            assert worst_ulps(loss, values)[0] <= 6
            assert worst_ulps(gradient, gradients, scales)[0] <= 12
            loss, gradient = through(
                backend, formula, logits, targets, parameters, reduction="mean", **settings
            )
            assert worst_ulps(loss, [sum(values) / divisor])[0] <= 4
            assert (
                worst_ulps(gradient, [g / divisor for g in gradients], [s / divisor for s in scales])[0] <= 12
            )


SIZES = (1, 7, 255, 256, 257, 700)


@cache
def _rows(
    name: str, dtype: str, backend: str
) -> tuple[torch.Tensor, torch.Tensor, list[Any], list[Any], list[Any]]:
    """At most 700 rows, and for each its value, gradients and scales of them."""
    formula = LOSSES[name].formula
    parameters = parameters_of(formula)
    rng = generator(name, "rows")
    n = max(SIZES)
    if formula.family == "softmax":
        logits = torch.tensor(rng.normal(size=(n, 3)) * 10).to(DTYPES[dtype])
        index = torch.tensor(rng.integers(0, 3, n))
        rows = [
            softmax_truth(
                formula, exactly(logits[i]), [ONE * (j == int(index[i])) for j in range(3)], parameters
            )
            for i in range(n)
        ]
        return logits, index, [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]
    predictions, targets = pointwise_samples(formula, dtype)
    usable = settled(name, predictions) & (predictions.abs() < 1e9) & (targets.abs() < 1e9)
    picked = usable.nonzero().flatten()
    picked = picked[torch.tensor(rng.permutation(len(picked)))][:n]
    predictions, targets = predictions[picked], targets[picked]
    values, slopes, terms = pointwise_truth(formula, predictions, targets, parameters, backend)
    return predictions, targets, values, [[g] for g in slopes], [[s or 0] for s in terms]


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", POINTWISE + SOFTMAX)
@pytest.mark.parametrize("backend", BACKENDS)
def test_reductions(backend: str, name: str, reduction: str, dtype: str) -> None:
    """A mean or a sum within 2 ulp of the exact one, for sizes about the kernel's block; backward included."""
    formula = LOSSES[name].formula
    parameters = parameters_of(formula)
    predictions, targets, values, gradients, scales = _rows(name, dtype, backend)
    for n in SIZES:
        n = min(n, len(predictions))
        divisor = mp.mpf(n) if reduction == "mean" else ONE
        for upstream in (1.0, 3.0):
            loss, gradient = through(
                backend,
                formula,
                predictions[:n],
                targets[:n],
                parameters,
                reduction=reduction,
                upstream=upstream,
            )
            off, _ = worst_ulps(loss, [sum(values[:n]) / divisor])
            assert off <= 2.0, f"{reduction} of {n} off by {off:.3g} ulp"
            factor = mp.mpf(upstream) / divisor
            off, _ = worst_ulps(
                gradient,
                [g * factor for row in gradients[:n] for g in row],
                [s * factor for row in scales[:n] for s in row],
            )
            # The gradient is rounded to the type once before and once after the upstream factor.
            bar = SOFTMAX_BARS[backend, dtype] if name in SOFTMAX else BARS[dtype]
            assert off <= bar + 1.0, f"gradient of the {reduction} of {n}: {off:.3g} ulp"


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("name", POINTWISE + SOFTMAX)
def test_a_long_mean_is_as_good_as_a_short_one(name: str, dtype: str) -> None:
    """150,001 elements: several pieces, summed exactly."""
    formula = LOSSES[name].formula
    parameters = parameters_of(formula)
    n = 150_001
    rng = generator(name, "long")
    if formula.family == "softmax":
        predictions, targets = torch.tensor(rng.normal(size=(n, 3)) * 5), torch.tensor(rng.integers(0, 3, n))
    else:
        short, wanted = pointwise_samples(formula, "float64", tails=False)
        picked = torch.tensor(rng.integers(0, len(short), n))
        predictions, targets = short[picked], wanted[picked]
        targets = targets.to(DTYPES[dtype])
    predictions = predictions.to(DTYPES[dtype])
    # Each value is good to BARS; their exact sum is what the mean is held against.
    elements, _ = through(
        BACKENDS[0],
        formula,
        predictions.double(),
        targets.double() if formula.family == "pointwise" else targets,
        parameters,
    )
    truth = math.fsum(elements.tolist()) / n
    mean, _ = through(BACKENDS[0], formula, predictions, targets, parameters, reduction="mean")
    assert worst_ulps(mean, [mp.mpf(truth)])[0] <= 1.0
    mean, _ = through("reference", formula, predictions, targets, parameters, reduction="mean")
    assert worst_ulps(mean, [mp.mpf(truth)])[0] <= 8.0  # torch's own cascade sum
