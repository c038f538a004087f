"""The losses for unequal classes: against 256-bit truth, at the ends, against their papers' plain formulas.

``STEEPEST_TEST_DRAWS`` sets how many inputs each loss and choice of parameters is held to its truth on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from steepest.backends import reference_losses
from steepest.errors import InputError
from steepest.losses import asymmetric, binary_focal, focal
from steepest.losses import generalized_cross_entropy as generalized
from steepest.losses import poly_cross_entropy as poly
from steepest.losses.apply import pointwise_loss, softmax_loss
from steepest.losses.asymmetric import AsymmetricLoss, asymmetric_loss
from steepest.losses.bce_with_logits import binary_cross_entropy_with_logits
from steepest.losses.binary_focal import BinaryFocalLoss, binary_focal_loss
from steepest.losses.class_balanced import (
    ClassBalancedCrossEntropyLoss,
    class_balanced_cross_entropy,
    class_balanced_weights,
)
from steepest.losses.cross_entropy import cross_entropy
from steepest.losses.dice import DiceLoss, dice_loss
from steepest.losses.focal import FocalLoss, focal_loss
from steepest.losses.formula import LossFormula
from steepest.losses.generalized_cross_entropy import GeneralizedCrossEntropyLoss, generalized_cross_entropy
from steepest.losses.logit_adjusted import LogitAdjustedCrossEntropyLoss, logit_adjusted_cross_entropy
from steepest.losses.poly_cross_entropy import PolyCrossEntropyLoss, poly_cross_entropy
from steepest.losses.tversky import TverskyLoss, tversky_loss

from . import truth_imbalance as papers
from .exact import ZERO, mp
from .samples import DTYPES, generator
from .truth import exactly, softmax_truth, ulps_off, worst_ulps

DRAWS = int(os.environ.get("STEEPEST_TEST_DRAWS", "120"))
BACKENDS = ("cpu", "reference")
REDUCTIONS = ("none", "mean", "sum")
GAMMAS = (0.0, 0.01, 0.5, 1.0, 2.0, 5.0)

KNOWN = {**papers.KNOWN, **papers.VARIANTS}
TERMS = {name: terms for (backend, name), terms in papers.LARGER_TERM.items() if backend == "cpu"}
TERMS |= papers.LARGER_TERM_OF_VARIANT

POINTWISE: list[tuple[str, LossFormula, tuple[float, ...]]] = [
    *(("binary_focal", binary_focal.FORMULA, (0.25, gamma)) for gamma in GAMMAS),
    *(("binary_focal unweighted", binary_focal.UNWEIGHTED_FORMULA, (gamma,)) for gamma in (0.0, 0.5, 2.0)),
    ("asymmetric", asymmetric.FORMULA, (4.0, 1.0, 0.05)),
    ("asymmetric", asymmetric.FORMULA, (0.5, 0.5, 0.2)),
    ("asymmetric", asymmetric.FORMULA, (0.0, 0.0, 0.05)),
    ("asymmetric", asymmetric.FORMULA, (2.0, 0.0, 0.5)),
    ("asymmetric unclipped", asymmetric.UNCLIPPED_FORMULA, (4.0, 1.0)),
    ("asymmetric unclipped", asymmetric.UNCLIPPED_FORMULA, (0.5, 0.0)),
]
SOFTMAX: list[tuple[str, LossFormula, tuple[float, ...]]] = [
    *(("focal", focal.FORMULA, (gamma,)) for gamma in GAMMAS),
    *(("generalized_cross_entropy", generalized.FORMULA, (q,)) for q in (0.05, 0.7, 1.0)),
    *(("poly_cross_entropy", poly.FORMULA, (epsilon,)) for epsilon in (-1.0, -0.5, 0.0, 1.0, 10.0)),
]


# --- against truth -------------------------------------------------------------------------------------------


@cache
def pointwise_case(
    name: str, parameters: tuple[float, ...], dtype: str
) -> tuple[Tensor, Tensor, list[list[Any]]]:
    """Inputs, and for each the value, the scale of its terms, the gradient and the scale of its."""
    clip = parameters[2] if name == "asymmetric" else 0.5
    drawn = torch.tensor(papers.logit_pairs(generator(name, parameters, dtype), DRAWS, clip)).to(
        DTYPES[dtype]
    )
    x, y = drawn.T.contiguous()
    given = [mp.mpf(parameter) for parameter in parameters]
    rows = list(zip(exactly(x), exactly(y), strict=True))
    value, gradient = KNOWN[name]
    of_value = papers.LARGER_TERM_OF_VALUE.get(name, lambda *_: ZERO)
    columns = [[of(a, b, *given) for a, b in rows] for of in (value, of_value, gradient, TERMS[name])]
    return x, y, columns


def through(
    backend: str,
    formula: LossFormula,
    x: Tensor,
    y: Tensor,
    parameters: Sequence[float],
    weight: Tensor | None = None,
    offset: Tensor | None = None,
    smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    leaf = x.detach().clone().requires_grad_()
    more = {"weight": weight, "offset": offset, "label_smoothing": smoothing}
    if formula.family == "pointwise":
        loss = (
            pointwise_loss(formula, leaf, y, parameters, reduction="none")
            if backend == "cpu"
            else reference_losses.pointwise(formula.value, leaf, y, parameters, None, "none")
        )
    elif backend == "cpu":
        loss = softmax_loss(formula, leaf, y, parameters, reduction="none", **more)  # type: ignore[arg-type]
    else:
        loss = reference_losses.softmax(
            formula.value, leaf, y, parameters, weight, offset, -100, smoothing, "none"
        )
    assert ("Fused" in type(loss.grad_fn).__name__) == (backend == "cpu")
    loss.backward(torch.ones_like(loss))
    assert leaf.grad is not None
    return loss.detach(), leaf.grad


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "formula", "parameters"), POINTWISE)
def test_pointwise_values_and_gradients(
    name: str, formula: LossFormula, parameters: tuple[float, ...], backend: str, dtype: str
) -> None:
    x, y, (values, value_scales, gradients, scales) = pointwise_case(name, parameters, dtype)
    loss, gradient = through(backend, formula, x, y, parameters)
    allowed = papers.bar(name, parameters, dtype)
    off, at = worst_ulps(loss, values, value_scales)
    assert off <= allowed, f"value off by {off:.3g} ulp at x = {x[at]!r}, y = {y[at]!r}"
    off, at = worst_ulps(gradient, gradients, scales)
    assert off <= allowed, f"gradient off by {off:.3g} ulp at x = {x[at]!r}, y = {y[at]!r}"


@cache
def softmax_case(
    name: str, parameters: tuple[float, ...], classes: int, dtype: str
) -> tuple[Tensor, Tensor, list[Any], list[Any], list[Any]]:
    rng = generator(name, parameters, classes, dtype)
    rows = papers.logit_rows(rng, DRAWS // 3 + 1, classes)
    index = torch.tensor(papers.targets_of(rng, rows))
    x = torch.tensor(rows).to(DTYPES[dtype])
    values, gradients, scales = softmax_truths(name, parameters, x, index)
    return x, index, values, gradients, scales


def softmax_truths(
    name: str,
    parameters: tuple[float, ...],
    x: Tensor,
    index: Tensor,
    weights: Sequence[Any] | None = None,
    offset: Sequence[Any] = (),
    smoothing: float = 0.0,
) -> tuple[list[Any], list[Any], list[Any]]:
    value, gradient = papers.SOFTMAX_KNOWN[name]
    formula: Any = SimpleNamespace(value=value, gradient=gradient)
    values: list[Any] = []
    gradients: list[Any] = []
    scales: list[Any] = []
    classes = x.shape[1]
    even = mp.mpf(smoothing)
    for row, target in zip(x, index.tolist(), strict=True):
        logits = exactly(row)
        if offset:
            logits = [logit + o for logit, o in zip(logits, offset, strict=True)]
        shares = [even / classes + (1 - even) * (j == target) for j in range(classes)]
        one, slopes, terms = softmax_truth(formula, logits, shares, parameters, weights)
        values.append(one)
        gradients += slopes
        scales += terms
    return values, gradients, scales


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "formula", "parameters"), SOFTMAX)
def test_softmax_values_and_gradients(
    name: str, formula: LossFormula, parameters: tuple[float, ...], backend: str, dtype: str
) -> None:
    allowed = papers.bar(name, parameters, dtype)
    # Autograd takes p_k of the largest class as 1 - rest / (1 + rest): an error of 1 / p_k roundings.
    of_gradient = max(allowed, 16.0) if (backend, dtype) == ("reference", "float64") else allowed
    for classes in (2, 3, 5):
        x, index, values, gradients, scales = softmax_case(name, parameters, classes, dtype)
        loss, gradient = through(backend, formula, x, index, parameters)
        off, at = worst_ulps(loss, values)
        assert off <= allowed, f"value off by {off:.3g} ulp at {x[at].tolist()}, target {index[at]}"
        for i, number in enumerate(gradient.double().flatten().tolist()):
            off = ulps_off(number, gradients[i], dtype, scales[i])
            log_p = log_of(x[i // classes], int(index[i // classes]))
            more = papers.further(name, parameters, log_p) if dtype == "float64" else 0.0
            assert off <= of_gradient + more, (
                f"gradient off by {off:.3g} ulp at {x[i // classes].tolist()}, target {index[i // classes]}"
            )


def log_of(row: Tensor, target: int) -> Any:
    """log p of a class, by its plain formula."""
    logits = exactly(row)
    return logits[target] - max(logits) - mp.log(sum(mp.exp(logit - max(logits)) for logit in logits))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "formula", "parameters"), SOFTMAX)
def test_softmax_smoothed_and_weighted(
    name: str, formula: LossFormula, parameters: tuple[float, ...], backend: str
) -> None:
    rng = generator(name, "smoothed")
    x = torch.tensor(rng.normal(size=(12, 4)) * 5)
    index = torch.tensor(rng.integers(0, 4, 12))
    weight = torch.tensor([0.0, 0.5, 1.0, 7.25], dtype=torch.float64)
    truths = softmax_truths(name, parameters, x, index, exactly(weight), smoothing=0.2)
    loss, gradient = through(backend, formula, x, index, parameters, weight, smoothing=0.2)
    assert worst_ulps(loss, truths[0])[0] <= papers.bar(name, parameters, "float64") + 4
    assert worst_ulps(gradient, *truths[1:])[0] <= papers.bar(name, parameters, "float64") + 20


PRIORS = (0.7, 0.2, 0.0995, 0.0005)
COUNTS = (12_000, 700, 31, 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.5])
def test_logit_adjustment_against_truth(tau: float, dtype: str) -> None:
    rng = generator("logit_adjusted", tau, dtype)
    x = torch.tensor(rng.normal(size=(DRAWS, 4)) * 10.0 ** rng.uniform(-3, 1.5, (DRAWS, 1))).to(DTYPES[dtype])
    index = torch.tensor(rng.integers(0, 4, DRAWS))
    total = sum(mp.mpf(prior) for prior in PRIORS)
    offset = [mp.mpf(tau) * mp.log(mp.mpf(prior) / total) for prior in PRIORS]
    values, gradients, scales = softmax_truths("logit_adjusted", (), x, index, offset=offset)
    leaf = x.clone().requires_grad_()
    loss = LogitAdjustedCrossEntropyLoss(PRIORS, tau, reduction="none")(leaf, index)
    loss.sum().backward()
    assert leaf.grad is not None
    # x + offset is rounded to the last place of x: of logits near 100 a probability shows it 64 times as large.
    # Without an adjustment it is cross-entropy; with one, float32 logits are added up in float64.
    allowed = (0.51 if tau else papers.bar("logit_adjusted", (), dtype)) if dtype == "float32" else 128.0
    assert worst_ulps(loss.detach(), values)[0] <= allowed
    assert worst_ulps(leaf.grad, gradients, scales)[0] <= allowed


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 0.9999999])
def test_class_balance_against_truth(beta: float) -> None:
    weights = papers.class_weights(COUNTS, beta)
    computed = class_balanced_weights(COUNTS, beta)
    assert worst_ulps(computed, weights)[0] <= 6
    rng = generator("class_balanced", beta)
    x = torch.tensor(papers.logit_rows(rng, DRAWS, 4))
    index = torch.tensor(papers.targets_of(rng, x.numpy()))
    truths = softmax_truths("class_balanced", (), x, index, weights)
    leaf = x.clone().requires_grad_()
    loss = ClassBalancedCrossEntropyLoss(COUNTS, beta, reduction="none")(leaf, index)
    loss.sum().backward()
    assert leaf.grad is not None
    assert worst_ulps(loss.detach(), truths[0])[0] <= 10
    assert worst_ulps(leaf.grad, *truths[1:])[0] <= 12
    mean = class_balanced_cross_entropy(x, index, COUNTS, beta)
    divisor = sum(weights[target] for target in index.tolist())
    assert worst_ulps(mean, [sum(truths[0]) / divisor])[0] <= 8


# --- regions -------------------------------------------------------------------------------------------------


def probabilities(logits: Tensor, mode: str) -> tuple[list[Any], list[Any]]:
    """p and 1 - p of every element, flat, from exact logits (N, C, ...) or (N, ...)."""
    if mode != "multiclass":
        rows = exactly(logits)
        return [1 / (1 + mp.exp(-a)) for a in rows], [1 / (1 + mp.exp(a)) for a in rows]
    moved = logits.movedim(1, -1)
    p, rest = [], []
    for row in moved.reshape(-1, logits.shape[1]):
        e = [mp.exp(a) for a in exactly(row)]
        p += [a / sum(e) for a in e]
        rest += [(sum(e[:j]) + sum(e[j + 1 :])) / sum(e) for j in range(len(e))]
    # Back to the classes' own place: flat positions of the moved tensor.
    order = torch.arange(logits.numel()).reshape(moved.shape).movedim(-1, 1).flatten().tolist()
    return [p[i] for i in order], [rest[i] for i in order]


def region_truth(
    logits: Tensor, shares: Tensor, kept: Tensor, mode: str, batch: bool, score: Callable[..., Any]
) -> list[Any]:
    """One minus a score of the sums of p y, p (1 - y), (1 - p) y over each region."""
    p, rest = probabilities(logits, mode)
    y, keep = exactly(shares), kept.flatten().tolist()
    classes = 1 if mode == "binary" else logits.shape[1]
    inner = logits.numel() // (len(logits) * classes)
    sums: dict[tuple[int, int], list[Any]] = {}
    for i in range(len(p)):
        key = (0 if batch else i // (inner * classes), i // inner % classes)
        parts = sums.setdefault(key, [ZERO, ZERO, ZERO])
        if keep[i]:
            for k, term in enumerate((p[i] * y[i], p[i] * (1 - y[i]), rest[i] * y[i])):
                parts[k] += term
    return [1 - score(*sums[key]) for key in sorted(sums)]


SMOOTH = 1e-5


def dice_score(tp: Any, fp: Any, fn: Any) -> Any:
    return (2 * tp + mp.mpf(SMOOTH)) / (2 * tp + fp + fn + mp.mpf(SMOOTH))


def tversky_score(tp: Any, fp: Any, fn: Any) -> Any:
    return (tp + mp.mpf(SMOOTH)) / (tp + mp.mpf(0.3) * fp + mp.mpf(0.7) * fn + mp.mpf(SMOOTH))


REGIONS: list[tuple[Any, Any]] = [
    (DiceLoss, dice_score),
    (lambda **options: TverskyLoss(alpha=0.3, beta=0.7, **options), tversky_score),
]


def region_inputs(mode: str, scale: float, dtype: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, targets with a few ignored, shares, and what is kept."""
    rng = generator("regions", mode, scale)
    shape = (3, 2, 5) if mode == "binary" else (3, 4, 2, 3)
    logits = torch.tensor(rng.normal(size=shape) * scale).to(DTYPES[dtype])
    without = shape[:1] + shape[2:] if mode == "multiclass" else shape
    target = torch.tensor(rng.integers(0, 4 if mode == "multiclass" else 2, without))
    if scale == 40.0:  # nearly perfect
        target = logits.argmax(1) if mode == "multiclass" else (logits > 0).long()
    target[1, 0, 0] = -100
    kept = target != -100
    if mode != "multiclass":
        return logits, target, torch.where(kept, target, 0).double(), kept
    shares = nn.functional.one_hot(torch.where(kept, target, 0), 4).movedim(-1, 1).double()
    return logits, target, shares, kept.unsqueeze(1).expand(shape)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize(("made", "score"), REGIONS, ids=["dice", "tversky"])
def test_regions_against_truth(made: Any, score: Any, mode: str, batch: bool, dtype: str) -> None:
    for scale in (1.0, 8.0, 40.0):
        logits, target, shares, kept = region_inputs(mode, scale, dtype)
        truths = region_truth(logits, shares, kept, mode, batch, score)
        loss = made(mode=mode, batch=batch, reduction="none")(logits, target)
        shape = () if batch else (3,)
        assert loss.shape == (shape if mode == "binary" else (*shape, 4))
        allowed = 0.51 if dtype == "float32" else 40.0  # sums of 12 to 40 terms, each good to a few places
        assert worst_ulps(loss, truths)[0] <= allowed
        mean = made(mode=mode, batch=batch)(logits, target)
        assert worst_ulps(mean, [sum(truths) / len(truths)])[0] <= allowed


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize(("made", "score"), REGIONS, ids=["dice", "tversky"])
def test_gradients_of_regions_against_truth(made: Any, score: Any, mode: str) -> None:
    """Central differences in 256 bits, at logits of 40 too, where a rounded p has no slope left."""
    for scale in (1.0, 40.0):
        logits, target, shares, kept = region_inputs(mode, scale, "float32")
        leaf = logits.clone().requires_grad_()
        made(mode=mode)(leaf, target).backward()
        assert leaf.grad is not None
        flat = leaf.grad.flatten()
        for i in generator("picked", mode).choice(logits.numel(), 6, replace=False).tolist():
            slope = central(logits, i, partial(mean_of_regions, shares, kept, mode, score))
            assert ulps_off(float(flat[i]), slope, "float32", mp.mpf(10) ** -25) <= 0.6
        assert not leaf.grad[~kept].any()


def central(logits: Tensor, i: int, truth: Callable[[Tensor], Any]) -> Any:
    flat = logits.double().flatten()
    step = mp.mpf(2) ** -12
    results = []
    # A difference of four points with a step that float64 holds: its error is of the fourth power of the step.
    for k in (-2, -1, 1, 2):
        there = flat.clone()
        there[i] += float(k * step)
        results.append(truth(there.reshape(logits.shape)))
    return (results[0] - 8 * results[1] + 8 * results[2] - results[3]) / (12 * step)


def mean_of_regions(
    shares: Tensor, kept: Tensor, mode: str, score: Callable[..., Any], logits: Tensor
) -> Any:
    values = region_truth(logits, shares, kept, mode, False, score)
    return sum(values) / len(values)


# --- the two texts of a formula ------------------------------------------------------------------------------

JOINTS = (-1.0, 1.0, 0.0, -0.0, 0.5, -0.5, 1e-18, 1e-300, 40.0, -40.0, 710.0, -710.0, 799.0, -801.0)


@pytest.mark.parametrize(("name", "formula", "parameters"), [*POINTWISE, *SOFTMAX])
def test_autograd_of_the_value_is_the_gradient_also_where_its_parts_meet(
    name: str, formula: LossFormula, parameters: tuple[float, ...]
) -> None:
    rng = generator("texts", name, parameters)
    x = torch.cat([torch.tensor(JOINTS, dtype=torch.float64), torch.tensor(rng.normal(size=200) * 10)])
    pairs: tuple[Tensor, ...] = (x, torch.tensor(rng.integers(0, 2, len(x))).double())
    if formula.family == "softmax":
        x = torch.cat([-x.abs(), torch.tensor([-1.0 / parameters[0]]) if name.startswith("gen") else x[:0]])
        # At 0 autograd's slope of the focal loss by log p is -1, times that of log p itself, which is 0.
        x = x[x < 0] if name == "focal" else x
        pairs = (x,)
    leaf = x.clone().requires_grad_()
    (derived,) = torch.autograd.grad(formula.value(leaf, *pairs[1:], *parameters).sum(), leaf)
    assert formula.gradient is not None
    stated = formula.gradient(*pairs, *parameters)
    # A reference's sigmoid is 0 below -709.78.
    torch.testing.assert_close(derived, torch.as_tensor(stated).expand_as(x), rtol=1e-10, atol=1e-300)


# --- at the ends, and where a loss is another one ------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 1.0, 2.0, 5.0])
def test_focal_losses_are_finite_to_the_second_derivative(gamma: float, dtype: str) -> None:
    """gamma below 1 has a power with an infinite slope at p = 1; the loss has not."""
    ends = torch.tensor([0.0, 5.0, 17.0, 40.0, 100.0, 720.0, 800.0, 1e4])
    x = torch.cat([ends, -ends]).to(DTYPES[dtype])
    for y in (torch.zeros_like(x), torch.ones_like(x), torch.full_like(x, 0.5)):
        for function in (
            lambda x, y=y: binary_focal_loss(x, y, "sum", None, gamma),
            lambda x, y=y: asymmetric_loss(x, y, "sum", gamma, gamma, 0.05),
            lambda x, y=y: asymmetric_loss(x, y, "sum", gamma, gamma, 0.0),
        ):
            finite_to_the_second(function, x, gamma)
    rows = torch.stack([x, torch.zeros_like(x)], 1)
    for target in (0, 1):
        index = torch.full((len(x),), target)
        finite_to_the_second(lambda x, index=index: focal_loss(x, index, "sum", gamma), rows, gamma)


def finite_to_the_second(function: Callable[[Tensor], Tensor], x: Tensor, gamma: float) -> None:
    leaf = x.clone().requires_grad_()
    (fused,) = torch.autograd.grad(function(leaf), leaf)
    (slope,) = torch.autograd.grad(function(leaf), leaf, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), leaf)
    for name, found in (("gradient", fused), ("differentiable gradient", slope), ("second derivative", bend)):
        if name == "second derivative" and gamma == 0.01:
            continue  # autograd meets gamma loss^(gamma - 1), which overflows where the loss is subnormal
        assert torch.isfinite(found).all(), f"{name}: {found.tolist()}"


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_slope_by_log_p_at_the_ends(gamma: float) -> None:
    log_p = torch.tensor([-0.0, 0.0, -5e-324, -1e-300, -1e-17, -math.inf], dtype=torch.float64)
    slopes = focal.gradient(log_p, gamma)
    assert torch.isfinite(slopes).all()
    sure = -1.0 if gamma == 0 else 0.0
    assert slopes[:2].tolist() == [sure, sure]
    assert slopes[-1] == -1.0
    torch.testing.assert_close(slopes[3:5], -(1 + gamma) * (-log_p[3:5]) ** gamma, rtol=1e-12, atol=0)
    assert focal.value(log_p, gamma)[:2].tolist() == [0.0, 0.0]
    assert focal.value(log_p, gamma)[-1] == math.inf


@pytest.mark.parametrize("path", ["fused", "reference"])
def test_infinite_logits(path: str) -> None:
    """On the right side no loss and no gradient; on the wrong one infinite, its slope that of the far tail."""
    x = torch.tensor([math.inf, -math.inf, math.inf, -math.inf], dtype=torch.float64)
    y = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    for gamma in GAMMAS:
        for function, wrong, slope in (
            (lambda x, g=gamma: binary_focal_loss(x, y, "none", None, g), [math.inf] * 2, [1.0, -1.0]),
            (lambda x, g=gamma: binary_focal_loss(x, y, "none", 0.25, g), [math.inf] * 2, [0.75, -0.25]),
            (
                lambda x, g=gamma: asymmetric_loss(x, y, "none", g, g, 0.05),
                [-(0.95**gamma) * math.log(0.05), math.inf],
                [0.0, -1.0],
            ),
        ):
            leaf = x.clone().requires_grad_()
            loss = function(leaf)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf, create_graph=path == "reference")
            torch.testing.assert_close(loss.tolist(), [0.0, 0.0, *wrong])
            torch.testing.assert_close(gradient.tolist(), [0.0, 0.0, *slope])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_focus_they_are_cross_entropy_to_the_bit(dtype: str) -> None:
    rng = generator("without focus", dtype)
    x, y = torch.tensor(papers.logit_pairs(rng, 3000)).to(DTYPES[dtype]).T.contiguous()
    y = y.round()  # of a target between, the two terms may be added in one rounding or in two
    for loss in (
        lambda x: binary_focal_loss(x, y, "none", None, 0.0),
        lambda x: asymmetric_loss(x, y, "none", 0.0, 0.0, 0.0),
    ):
        for ours, its in both(loss, lambda x: binary_cross_entropy_with_logits(x, y, reduction="none"), x):
            assert torch.equal(ours, its)
    rows = papers.logit_rows(rng, 3000, 4)
    index = torch.tensor(papers.targets_of(rng, rows))
    plain = partial(cross_entropy, target=index, reduction="none")
    for function, options in (
        (focal_loss, {"gamma": 0.0}),
        (poly_cross_entropy, {"epsilon": 0.0}),
        (logit_adjusted_cross_entropy, {"class_priors": PRIORS, "tau": 0.0}),
        (class_balanced_cross_entropy, {"class_counts": COUNTS, "beta": 0.0}),
    ):
        same = partial(function, target=index, reduction="none", **options)  # type: ignore[arg-type]
        for ours, its in both(same, plain, torch.tensor(rows).to(DTYPES[dtype])):
            assert torch.equal(ours, its), function.__name__


def both(ours: Callable[..., Tensor], its: Callable[..., Tensor], x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The values of two losses, then their gradients, as pairs."""
    results = []
    for function in (ours, its):
        leaf = x.clone().requires_grad_()
        loss = function(leaf)
        results.append((loss.detach(), *torch.autograd.grad(loss.sum(), leaf)))
    return list(zip(*results, strict=True))


def close(*pair: Tensor) -> None:
    torch.testing.assert_close(*pair, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.7])
def test_the_papers_plain_formulas_in_the_middle(gamma: float) -> None:
    rng = generator("plain", gamma)
    x, y = torch.tensor(rng.normal(size=400) * 3), torch.tensor(rng.integers(0, 2, 400)).double()

    def sigmoid_focal(x: Tensor, alpha: float) -> Tensor:
        # torchvision.ops.sigmoid_focal_loss, to whom a negative alpha means none
        p = torch.sigmoid(x)
        ce = nn.functional.binary_cross_entropy_with_logits(x, y, reduction="none")
        p_t = p * y + (1 - p) * (1 - y)
        loss = ce * (1 - p_t) ** gamma
        return (alpha * y + (1 - alpha) * (1 - y)) * loss if alpha >= 0 else loss

    for alpha in (0.25, 0.9, None):
        ours = lambda x, a=alpha: binary_focal_loss(x, y, "none", a, gamma)  # noqa: E731
        its = lambda x, a=alpha: sigmoid_focal(x, -1.0 if a is None else a)  # noqa: E731
        for pair in both(ours, its, x):
            close(*pair)

    def asl(x: Tensor, clip: float, y: Tensor) -> Tensor:
        # Alibaba-MIIL/ASL, AsymmetricLoss with disable_torch_grad_focal_loss=False
        p = torch.sigmoid(x)
        rest = (1 - p + clip).clamp(max=1)
        loss = y * torch.log(p.clamp(min=1e-8)) + (1 - y) * torch.log(rest.clamp(min=1e-8))
        p_t = p * y + rest * (1 - y)
        return -loss * torch.pow(1 - p_t, 0.5 * y + gamma * (1 - y))

    for clip in (0.0, 0.05, 0.3):
        above = torch.sigmoid(x) > (clip if gamma < 1 else 0.0)  # of pow(0, gamma - 1) is infinite
        ours = partial(
            asymmetric_loss, target=y[above], reduction="none", gamma_neg=gamma, gamma_pos=0.5, clip=clip
        )
        for pair in both(ours, partial(asl, clip=clip, y=y[above]), x[above]):
            close(*pair)

    rows, index = torch.tensor(rng.normal(size=(200, 4)) * 2), torch.tensor(rng.integers(0, 4, 200))

    def plain(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: function(torch.softmax(x, 1).gather(1, index.unsqueeze(1)).squeeze(1))

    q = gamma / 4
    for ours, of_p in (
        (lambda x: focal_loss(x, index, "none", gamma), lambda p: -((1 - p) ** gamma) * p.log()),
        (lambda x: generalized_cross_entropy(x, index, "none", q), lambda p: (1 - p**q) / q),
        (lambda x: poly_cross_entropy(x, index, "none", gamma), lambda p: -p.log() + gamma * (1 - p)),
    ):
        for pair in both(ours, plain(of_p), rows):
            close(*pair)


def test_a_clip_for_each_class() -> None:
    rng = generator("a clip for each class")
    x = torch.tensor(rng.normal(0.0, 3.0, (20, 3)), requires_grad=True)
    y, clips = torch.tensor(rng.integers(0, 2, (20, 3))).double(), (0.01, 0.05, 0.5)
    alone = torch.stack(
        [asymmetric_loss(x[:, k], y[:, k], "none", clip=clip) for k, clip in enumerate(clips)], 1
    )
    together = asymmetric_loss(x, y, "none", clip=torch.tensor(clips, dtype=torch.float64))  # type: ignore[arg-type]
    torch.testing.assert_close(together, alone, rtol=1e-14, atol=0.0)
    for ours, truth in zip(
        torch.autograd.grad(together.sum(), x), torch.autograd.grad(alone.sum(), x), strict=True
    ):
        torch.testing.assert_close(ours, truth, rtol=1e-13, atol=0.0)


def test_generalized_cross_entropy_lies_between_its_ends() -> None:
    rng = generator("between")
    x, index = torch.tensor(rng.normal(size=(50, 3))), torch.tensor(rng.integers(0, 3, 50))
    error = 1 - torch.softmax(x, 1)[torch.arange(50), index]
    close(generalized_cross_entropy(x, index, "none", q=1.0), error)
    near = generalized_cross_entropy(x, index, "none", q=1e-9)
    torch.testing.assert_close(near, cross_entropy(x, index, reduction="none"), rtol=1e-7, atol=0)


def test_negative_epsilon_keeps_its_digits_near_a_sure_row() -> None:
    x, index = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True), torch.tensor([0])
    loss = poly_cross_entropy(x, index, epsilon=-1.0)
    loss.backward()
    rest = 2 * math.exp(-30.0)
    assert float(loss.detach()) == pytest.approx(rest**2 / 2, rel=1e-6)
    assert x.grad is not None
    assert float(x.grad[0, 0]) == pytest.approx(-(rest**2), rel=1e-6)


def test_dice_is_tversky_in_halves_and_the_usual_formula() -> None:
    logits, target, shares, _ = region_inputs("multiclass", 1.0, "float64")
    target = torch.where(target == -100, 0, target)
    shares = nn.functional.one_hot(target, 4).movedim(-1, 1).double()
    p = torch.softmax(logits, 1)
    # monai.losses.DiceLoss(softmax=True, to_onehot_y=True, smooth_nr=s, smooth_dr=s), by sample and class
    inside, total = (p * shares).sum((2, 3)), (p + shares).sum((2, 3))
    for smooth in (1e-5, 1.0):
        usual = 1 - (2 * inside + smooth) / (total + smooth)
        close(dice_loss(logits, target, "none", smooth=smooth), usual)
        close(dice_loss(logits, shares, "none", smooth=smooth), usual)
        close(tversky_loss(logits, target, "none", smooth=smooth / 2), usual)
        close(dice_loss(logits, target, include_background=False, smooth=smooth), usual[:, 1:].mean())
    jaccard = 1 - inside / (total - inside)
    close(tversky_loss(logits, target, "none", 1.0, 1.0, smooth=0.0), jaccard)


def test_modes_of_regions_agree_where_they_overlap() -> None:
    logits, target, _, _ = region_inputs("multilabel", 1.0, "float64")
    many = dice_loss(logits, target, "none", mode="multilabel")
    each = [dice_loss(logits[:, c], target[:, c], "none", mode="binary") for c in range(4)]
    close(many, torch.stack(each, 1))
    for kind in (torch.bool, torch.uint8, torch.float32):
        plain = target.clamp(min=0).to(kind)
        close(
            dice_loss(logits, plain, mode="multilabel"),
            dice_loss(logits, plain.double(), mode="multilabel"),
        )


def test_an_ignored_element_is_as_if_it_were_not_there() -> None:
    for loss in (DiceLoss, TverskyLoss):
        logits, target, _, _ = region_inputs("multiclass", 1.0, "float64")
        logits[1, :, 0, 0] = math.nan
        leaf = logits.requires_grad_()
        value = loss(reduction="none")(leaf, target)
        value.sum().backward()
        assert leaf.grad is not None
        assert not leaf.grad[1, :, 0, 0].any()
        assert torch.isfinite(value).all()
        left = logits.detach()[1:2].reshape(1, 4, 6)[:, :, 1:]
        close(value[1:2], loss(reduction="none")(left, target[1:2].reshape(1, 6)[:, 1:]))


def test_empty_regions_cost_what_smooth_says() -> None:
    logits = torch.full((1, 6), -1e4)
    target = torch.zeros(1, 6)
    assert float(dice_loss(logits, target, mode="binary")) == 0.0
    assert math.isnan(float(dice_loss(logits, target, mode="binary", smooth=0.0)))
    half = torch.zeros(1, 6)
    assert float(dice_loss(half, target, mode="binary", smooth=3.0)) == pytest.approx(0.5)


# --- the losses as modules -----------------------------------------------------------------------------------

MODULES: list[tuple[str, Callable[..., Any]]] = [
    ("logit", BinaryFocalLoss),
    ("logit", lambda **options: BinaryFocalLoss(alpha=None, gamma=0.5, **options)),
    ("logit", AsymmetricLoss),
    ("logit", lambda **options: AsymmetricLoss(clip=0.0, **options)),
    ("classes", FocalLoss),
    ("classes", lambda **options: FocalLoss(gamma=0.5, label_smoothing=0.1, **options)),
    ("classes", lambda **options: FocalLoss(weight=torch.tensor([1.0, 2.0, 0.5]).double(), **options)),
    ("classes", GeneralizedCrossEntropyLoss),
    ("classes", PolyCrossEntropyLoss),
    ("classes", lambda **options: PolyCrossEntropyLoss(epsilon=-1.0, **options)),
    ("classes", lambda **options: LogitAdjustedCrossEntropyLoss([5, 3, 1], **options)),
    ("classes", lambda **options: ClassBalancedCrossEntropyLoss([50, 3, 1], **options)),
    ("regions", DiceLoss),
    ("regions", lambda **options: TverskyLoss(alpha=0.3, beta=0.7, **options)),
]
NAMES = [f"{i}-{kind}" for i, (kind, _) in enumerate(MODULES)]
of_modules = pytest.mark.parametrize(("kind", "made"), MODULES, ids=NAMES)


def few(kind: str) -> tuple[Tensor, Tensor]:
    """A few inputs in float64 at which every loss is smooth."""
    rng = generator("few", kind)
    if kind == "logit":
        return torch.tensor(rng.normal(size=(2, 3))), torch.tensor(rng.uniform(size=(2, 3)))
    shape = (2, 3, 4) if kind == "regions" else (4, 3)
    without = (2, 4) if kind == "regions" else (4,)
    return torch.tensor(rng.normal(size=shape)), torch.tensor(rng.integers(0, 3, without))


@of_modules
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck_and_gradgradcheck(kind: str, made: Callable[..., Any], reduction: str) -> None:
    x, target = few(kind)
    loss = made(reduction=reduction)
    assert gradcheck(lambda x: loss(x, target), (x.requires_grad_(),))
    assert gradgradcheck(lambda x: loss(x, target), (x,))


@of_modules
def test_under_torch_func_and_vmap(kind: str, made: Callable[..., Any]) -> None:
    x, target = few(kind)
    loss = made()
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf, target), leaf)
    torch.testing.assert_close(torch.func.grad(loss)(x, target), expected, rtol=1e-12, atol=1e-16)
    stacked, wanted = torch.stack([x, 0.5 * x]), target.expand(2, *target.shape)
    alone = torch.stack([loss(a, b) for a, b in zip(stacked, wanted, strict=True)])
    torch.testing.assert_close(torch.vmap(loss)(stacked, wanted), alone, rtol=1e-12, atol=1e-16)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own tracer
@of_modules
def test_compiles_as_one_graph(kind: str, made: Callable[..., Any]) -> None:
    x, target = few(kind)
    loss = made()
    torch.compiler.reset()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for ours, its in both(lambda x: compiled(x, target), lambda x: loss(x, target), x):
        torch.testing.assert_close(ours, its, rtol=1e-12, atol=1e-16)


@of_modules
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types_are_computed_in_float32(kind: str, made: Callable[..., Any], dtype: str) -> None:
    x, target = few(kind)
    x = x.to(DTYPES[dtype])
    target = target.to(DTYPES[dtype]) if kind == "logit" else target
    leaf, wide = x.clone().requires_grad_(), x.float().requires_grad_()
    loss, its = made()(leaf, target), made()(wide, target.float() if kind == "logit" else target)
    assert loss.dtype == leaf.dtype
    loss.backward()
    its.backward()
    assert leaf.grad is not None
    assert wide.grad is not None
    unit = torch.finfo(leaf.dtype).eps
    torch.testing.assert_close(loss.float(), its, rtol=0.51 * unit, atol=0)
    torch.testing.assert_close(leaf.grad.float(), wide.grad, rtol=0.51 * unit, atol=1e-7)


@of_modules
def test_switches_reach_every_loss(kind: str, made: Callable[..., Any]) -> None:
    x, target = few(kind)
    total = made(reduction="sum")(x, target)
    close(made(normalizer=7.0)(x, target), total / 7.0)
    assert made(output_dtype=torch.float32)(x, target).dtype == torch.float32
    nothing = (x[:0], target[:0])
    assert math.isnan(float(made()(*nothing)))
    assert float(made(on_empty="zero")(*nothing)) == 0.0
    with pytest.raises(TypeError, match="strict_shapes"):
        made(strict_shapes=False)
    assert "normalizer=7.0" in repr(made(normalizer=7.0))


@of_modules
def test_a_state_dictionary_goes_there_and_back(kind: str, made: Callable[..., Any]) -> None:
    loss = made()
    again = made()
    again.load_state_dict(loss.state_dict())
    x, target = few(kind)
    assert torch.equal(loss(x, target), again(x, target))
    for reduction in REDUCTIONS:
        values = made(reduction="none")(x, target)
        if reduction == "sum":
            close(made(reduction="sum")(x, target), values.sum())
    for name, parameter in type(loss).formula.parameters.items():
        if type(made()) is made:
            assert getattr(loss, name) == parameter


def test_class_weights_and_ignored_rows_are_cross_entropys() -> None:
    rng = generator("weights and ignored")
    x, index = torch.tensor(rng.normal(size=(6, 5, 3))), torch.tensor(rng.integers(0, 5, (6, 3)))
    index[2] = -100
    index[:, 1] = 4
    weight = torch.linspace(0.25, 3, 5, dtype=torch.float64)
    for ignored in (-100, 4):
        shown = torch.where(index == -100, 0, index) if ignored == 4 else index
        options: dict[str, Any] = {"weight": weight, "ignore_index": ignored, "label_smoothing": 0.1}
        for reduction in REDUCTIONS:
            its = cross_entropy(x, shown, reduction=reduction, **options)
            close(focal_loss(x, shown, reduction, 0.0, **options), its)
            close(poly_cross_entropy(x, shown, reduction, 0.0, **options), its)
            near = generalized_cross_entropy(x, shown, reduction, 1e-9, **options)
            torch.testing.assert_close(near, its, rtol=1e-7, atol=1e-12)


LOGITS, INDEX = torch.zeros(3, 4), torch.tensor([0, 1, 2])
FLAT, HARD = torch.zeros(3), torch.ones(3)
WRONG: list[tuple[Callable[[], Any], list[str]]] = [
    (lambda: binary_focal_loss(FLAT, HARD, gamma=-1.0), ["gamma is -1", "[0, inf)"]),
    (lambda: binary_focal_loss(FLAT, HARD, alpha=1.5), ["alpha is 1.5", "[0, 1]"]),
    (lambda: binary_focal_loss(FLAT, HARD[:2]), ["(3,)", "(2,)"]),
    (lambda: asymmetric_loss(FLAT, HARD, clip=1.0), ["clip is 1.0", "(0, 1)"]),
    (lambda: asymmetric_loss(FLAT, HARD, gamma_neg=-2.0), ["gamma_neg is -2"]),
    (lambda: focal_loss(LOGITS, INDEX, gamma=math.nan), ["gamma is nan"]),
    (lambda: focal_loss(LOGITS, INDEX, weight=torch.ones(3)), ["(3,)", "(4,)"]),
    (lambda: generalized_cross_entropy(LOGITS, INDEX, q=0.0), ["q is 0.0", "(0, 1]"]),
    (lambda: poly_cross_entropy(LOGITS, INDEX, epsilon=-1.1), ["epsilon is -1.1", "[-1, inf)"]),
    (lambda: logit_adjusted_cross_entropy(LOGITS, INDEX, [1, 2, 3]), ["3 class_priors", "4 classes"]),
    (lambda: logit_adjusted_cross_entropy(LOGITS, INDEX, [1, 2, 0, 1]), ["0.0", "positive"]),
    (lambda: LogitAdjustedCrossEntropyLoss([1, 2], tau=-1.0), ["tau is -1.0", "[0, inf)"]),
    (lambda: class_balanced_cross_entropy(LOGITS, INDEX, [5, 5, 5]), ["(3,)", "(4,)"]),
    (lambda: ClassBalancedCrossEntropyLoss([5, 0]), ["0.0", "above 0"]),
    (lambda: ClassBalancedCrossEntropyLoss([5, 1], beta=1.0), ["beta is 1.0", "[0, 1)"]),
    (lambda: dice_loss(LOGITS, INDEX, mode="volume"), ["'volume'", "multilabel"]),  # type: ignore[arg-type]
    (lambda: dice_loss(FLAT, HARD, mode="binary"), ["(3,)", "(N, d1, ...)", "unsqueeze"]),
    (lambda: dice_loss(LOGITS, INDEX[:2]), ["(3, 4)", "(2,)"]),
    (lambda: dice_loss(LOGITS, LOGITS + 2, mode="multilabel"), ["target of 2", "between 0 and 1"]),
    (lambda: dice_loss(LOGITS, LOGITS[:, :2], mode="binary"), ["(3, 4)", "(3, 2)"]),
    (lambda: dice_loss(LOGITS, LOGITS, mode="binary", include_background=False), ["binary mode"]),
    (lambda: dice_loss(LOGITS, INDEX, smooth=-1.0), ["smooth is -1.0"]),
    (lambda: tversky_loss(LOGITS, INDEX, alpha=-0.1), ["alpha is -0.1", "[0, inf)"]),
]


@pytest.mark.parametrize(("call", "words"), WRONG)
def test_wrong_input_is_refused(call: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_class_out_of_range_is_refused() -> None:
    for function in (focal_loss, generalized_cross_entropy, poly_cross_entropy, dice_loss, tversky_loss):
        with pytest.raises(IndexError, match="0 to 4"):
            function(LOGITS, torch.tensor([0, 4, 1]))
