"""Torch's further losses: against 256-bit truth, against torch inside the range, and torch's own arguments.

``STEEPEST_TEST_DRAWS`` sets how many inputs each loss is held to its truth on; ``--log-cli-level=info`` shows how far
off it was at most.
"""

from __future__ import annotations

import copy
import inspect
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from steepest.backends import reference_losses
from steepest.errors import InputError
from steepest.losses import kl_div as kl_module
from steepest.losses import poisson_nll as poisson_module
from steepest.losses.cosine_embedding import CosineEmbeddingLoss, cosine_embedding_loss
from steepest.losses.formula import LossFormula
from steepest.losses.gaussian_nll import GaussianNLLLoss, gaussian_nll_loss
from steepest.losses.hinge_embedding import FORMULA as HINGE_EMBEDDING
from steepest.losses.hinge_embedding import HingeEmbeddingLoss, hinge_embedding_loss
from steepest.losses.kl_div import KLDivLoss, kl_div
from steepest.losses.l1 import l1_loss
from steepest.losses.linear_cross_entropy import LinearCrossEntropyLoss, linear_cross_entropy
from steepest.losses.margin_ranking import MarginRankingLoss, margin_ranking_loss
from steepest.losses.multi_margin import MultiMarginLoss, multi_margin_loss
from steepest.losses.multilabel_margin import MultiLabelMarginLoss, multilabel_margin_loss
from steepest.losses.multilabel_soft_margin import MultiLabelSoftMarginLoss, multilabel_soft_margin_loss
from steepest.losses.nll import NLLLoss, nll_loss
from steepest.losses.poisson_nll import PoissonNLLLoss, poisson_nll_loss
from steepest.losses.smooth_l1 import FORMULA as SMOOTH_L1
from steepest.losses.smooth_l1 import SmoothL1Loss, smooth_l1_loss
from steepest.losses.soft_margin import FORMULA as SOFT_MARGIN
from steepest.losses.soft_margin import SoftMarginLoss, soft_margin_loss
from steepest.losses.triplet_margin import TripletMarginLoss, triplet_margin_loss
from steepest.losses.triplet_margin_with_distance import (
    TripletMarginWithDistanceLoss,
    triplet_margin_with_distance_loss,
)

from . import truth_torch
from .exact import ONE, ZERO, mp
from .samples import DTYPES, generator
from .truth import exactly, in_full_precision, ulp, ulps_off

pytestmark = pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")

LOG = logging.getLogger(__name__)
DRAWS = int(os.environ.get("STEEPEST_TEST_DRAWS", "640"))
REDUCTIONS = ("none", "mean", "sum")
WIDTHS = (
    torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip

# formula, our function, torch's, the options that ask for the formula, and its parameters
POINTWISE: dict[str, tuple[LossFormula, Any, Any, dict[str, Any], tuple[float, ...]]] = {
    "smooth_l1": (SMOOTH_L1, smooth_l1_loss, F.smooth_l1_loss, {"beta": 0.75}, (0.75,)),
    "kl_div": (kl_module.FORMULA, kl_div, F.kl_div, {}, ()),
    "kl_div log_target": (kl_module.LOG_FORMULA, kl_div, F.kl_div, {"log_target": True}, ()),
    "poisson_nll": (poisson_module.FORMULA, poisson_nll_loss, F.poisson_nll_loss, {}, ()),
    "poisson_nll full": (
        poisson_module.FULL_FORMULA, poisson_nll_loss, F.poisson_nll_loss, {"full": True}, (),
    ),
    "poisson_nll rate": (
        poisson_module.RATE_FORMULA, poisson_nll_loss, F.poisson_nll_loss, {"log_input": False}, (1e-8,),
    ),
    "poisson_nll full rate": (
        poisson_module.FULL_RATE_FORMULA, poisson_nll_loss, F.poisson_nll_loss,
        {"log_input": False, "full": True, "eps": 1e-3}, (1e-3,),
    ),
    "hinge_embedding": (HINGE_EMBEDDING, hinge_embedding_loss, F.hinge_embedding_loss, {"margin": 0.75}, (0.75,)),
    "soft_margin": (SOFT_MARGIN, soft_margin_loss, F.soft_margin_loss, {}, ()),
}  # fmt: skip
TRUTHS = {**truth_torch.KNOWN, **truth_torch.VARIANTS}

# Units in the last place. float32 is computed in float64 and rounded once.
BARS = {"float32": 0.51, "float64": 4.0}
SPARE = 6  # of float64, in units of the larger term: what a float32 result may be off beyond its rounding


def far_off(computed: float, truth: Any, dtype: str, term: Any = ZERO) -> float:
    """Units in the last place off truth; of float64 results in units of the larger term, where terms cancel."""
    term = ZERO if mp.isinf(term) else term
    if dtype == "float64":
        return ulps_off(computed, truth, dtype, term)
    off = ulps_off(computed, truth, dtype)
    if not 0.0 < off < math.inf or term == 0:
        return off
    spare = SPARE * ulp(abs(term), "float64") / ulp(truth, dtype)
    return max(0.0, off - float(spare))


def worst(
    computed: Tensor, truths: list[Any], dtype: str, terms: list[Any] | None = None
) -> tuple[float, int]:
    numbers = computed.detach().double().reshape(-1).tolist()
    assert len(numbers) == len(truths)
    terms = [ZERO] * len(truths) if terms is None else terms
    off = [
        far_off(*row, term) for *row, term in zip(numbers, truths, [dtype] * len(truths), terms, strict=True)
    ]
    place = int(np.argmax(off))
    return off[place], place


def gradients(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, leaves, torch.ones_like(loss))


# --- values and gradients against truth --------------------------------------------------------------------------


@cache
def pairs(name: str, dtype: str, n: int) -> tuple[Tensor, Tensor]:
    rng = generator(name, dtype, n)
    kink = {"kink": POINTWISE[name][4][0]} if name == "smooth_l1" else {}
    info = np.finfo(dtype if dtype in ("float32", "float64") else "float32")
    columns = truth_torch.PAIRS[name](rng, info, n, **kink)
    return torch.tensor(columns[0]).to(DTYPES[dtype]), torch.tensor(columns[1]).to(DTYPES[dtype])


@cache
def pointwise_truths(
    name: str, dtype: str, n: int
) -> tuple[list[Any], list[Any], list[Any], list[Any], list[Any]]:
    """Values, gradients; the larger terms of a value and, for kernel and autograd, of a gradient."""
    value, slope = TRUTHS[name]
    parameters = [mp.mpf(parameter) for parameter in POINTWISE[name][4]]
    rows = [(*row, *parameters) for row in zip(*map(exactly, pairs(name, dtype, n)), strict=True)]
    nothing = lambda *row: ZERO  # noqa: E731
    terms = [
        truth_torch.LARGER_TERM_OF_VALUE.get(name, nothing),
        truth_torch.LARGER_TERM.get(("cpu", name), nothing),
        truth_torch.LARGER_TERM.get(("reference", name), nothing),
    ]
    return tuple([part(*row) for row in rows] for part in (value, slope, *terms))  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_values_and_gradients(name: str, backend: str, dtype: str) -> None:
    formula, function, _, options, parameters = POINTWISE[name]
    x, t = pairs(name, dtype, DRAWS)
    leaf = x.clone().requires_grad_()
    if backend == "cpu":
        loss = function(leaf, t, reduction="none", **options)
        assert "Fused" in type(loss.grad_fn).__name__
    else:
        loss = reference_losses.pointwise(formula.value, leaf, t, parameters, None, "none")
    (slopes,) = gradients(loss, leaf)
    values, true_slopes, of_value, of_kernel, of_autograd = pointwise_truths(name, dtype, DRAWS)
    off, at = worst(loss, values, dtype, of_value)
    seen = off
    assert off <= BARS[dtype], f"value off by {off:.3g} ulp at {x[at].item()!r}, {t[at].item()!r}: {loss[at]}"
    off, at = worst(slopes, true_slopes, dtype, of_kernel if backend == "cpu" else of_autograd)
    assert off <= BARS[dtype], (
        f"gradient off by {off:.3g} ulp at {x[at].item()!r}, {t[at].item()!r}: {slopes[at]}"
    )
    LOG.info("%s inputs; value, gradient off by %s ulp", len(x), (seen, off))


@pytest.mark.parametrize("name", POINTWISE)
def test_the_formula_is_the_published_one(name: str) -> None:
    """In exact arithmetic the package's text is the truth's, and its gradient the value's derivative."""
    formula, *_, parameters = POINTWISE[name]
    x, t = pairs(name, "float64", 160)
    usable = x.isfinite() & t.isfinite() & (x.abs() < 1e6)
    value, slope = in_full_precision(formula.value), in_full_precision(formula.gradient)
    given = [mp.mpf(parameter) for parameter in parameters]
    step = mp.mpf(10) ** -35
    for row in zip(exactly(x[usable]), exactly(t[usable]), strict=True):
        row = (*row, *given)
        truth, true_slope = TRUTHS[name][0](*row), TRUTHS[name][1](*row)
        term = truth_torch.LARGER_TERM_OF_VALUE.get(name, lambda *_: ZERO)(*row)
        # The formula's constant, log(2 pi) / 2, is a float64.
        near = mp.mpf(10) ** (-15 if "full" in name else -60)
        assert abs(value(*row) - truth) <= max(abs(truth), term, ONE) * near, row
        assert abs(slope(*row) - true_slope) <= (1 + abs(true_slope)) * mp.mpf(10) ** -60, row
        difference = (TRUTHS[name][0](row[0] + step, *row[1:]) - truth) / step
        kink = name == "smooth_l1" and (row[0] == row[1] or abs(abs(row[0] - row[1]) - given[0]) < 1e-30)
        kink = kink or (name == "hinge_embedding" and row[0] == given[0])
        at_an_end = name.endswith("rate") and row[0] < 1e-9
        if not kink and not at_an_end:
            assert abs(difference - true_slope) < 1e-20 * (1 + abs(true_slope) * (1 + abs(row[1]))), row


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize(("full", "eps"), [(False, 1e-6), (True, 0.01)])
def test_gaussian_values_and_gradients(full: bool, eps: float, dtype: str) -> None:
    rng = generator("gaussian", dtype, full)
    info = np.finfo(dtype)
    mean, y = (
        torch.tensor(column).to(DTYPES[dtype]) for column in truth_torch.real_pairs(rng, info, DRAWS * 5 // 4)
    )
    mean, y = mean[(mean - y).abs() < 1e15], y[(mean - y).abs() < 1e15]  # squares within the range
    var = torch.tensor(10.0 ** rng.uniform(-8, 8, len(mean))).to(DTYPES[dtype])
    var[:20], var[20:40], var[40:44] = 0.0, 1.0, eps
    leaves = [part.clone().requires_grad_() for part in (mean, y, var)]
    loss = gaussian_nll_loss(*leaves, full=full, eps=eps, reduction="none")
    found = gradients(loss, *leaves)
    rows = [(*row, mp.mpf(eps), full) for row in zip(*map(exactly, (mean, y, var)), strict=True)]
    truths = list(zip(*(truth_torch.gaussian(*row) for row in rows), strict=True))
    terms = list(zip(*(truth_torch.gaussian_terms(*row) for row in rows), strict=True))
    seen = [
        worst(loss, truths[0], dtype, terms[0]),
        worst(found[0], truths[1], dtype),
        worst(found[1], [-g for g in truths[1]], dtype),
        worst(found[2], truths[2], dtype, terms[2]),
    ]
    LOG.info("%s inputs; value, gradients off by %s ulp", len(mean), [off for off, _ in seen])
    for off, at in seen:
        assert off <= BARS[dtype], (off, mean[at].item(), y[at].item(), var[at].item())


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("weighted", [False, True])
def test_multilabel_values_and_gradients(weighted: bool, dtype: str) -> None:
    rng = generator("multilabel", dtype)
    classes = 4
    x = truth_torch.margin_pairs(rng, np.finfo(dtype), DRAWS)[0]
    logits = torch.tensor(x[: len(x) // classes * classes].reshape(-1, classes)).to(DTYPES[dtype])
    hard = rng.integers(0, 2, logits.shape)
    y = torch.tensor(np.where(rng.uniform(size=logits.shape) < 0.7, hard, rng.uniform(size=logits.shape)))
    y = torch.where(logits.isinf(), torch.tensor(hard), y).to(DTYPES[dtype])
    weight = torch.tensor([0.25, 1.0, 3.0, 0.7]).to(DTYPES[dtype]) if weighted else None
    leaf = logits.clone().requires_grad_()
    loss = multilabel_soft_margin_loss(leaf, y, weight, reduction="none")
    (slopes,) = gradients(loss, leaf)
    w = [ONE] * classes if weight is None else exactly(weight)
    truths = [truth_torch.multilabel(exactly(a), exactly(b), w) for a, b in zip(logits, y, strict=True)]
    seen = [
        worst(loss, [row[0] for row in truths], dtype),
        worst(slopes, [g for row in truths for g in row[1]], dtype, [g for row in truths for g in row[2]]),
    ]
    LOG.info("%s inputs; value, gradient off by %s ulp", logits.numel(), [off for off, _ in seen])
    assert seen[0][0] <= BARS[dtype], seen
    assert seen[1][0] <= BARS[dtype], seen


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize(("p", "margin", "weighted"), [(1, 1.0, False), (2, 0.3, True), (1, -0.5, True)])
def test_multi_margin_values_and_gradients(p: int, margin: float, weighted: bool, dtype: str) -> None:
    rng = generator("multi-margin", dtype, p)
    classes = 4
    m = DRAWS // classes // 4 + 1
    info = np.finfo(dtype)
    held = lambda numbers: np.asarray(numbers, info.dtype).astype(np.float64)  # noqa: E731
    target = torch.tensor(rng.integers(0, classes, 4 * m))
    scores = np.concatenate(
        [
            rng.normal(size=(m, classes)) * 2,
            10.0 ** rng.uniform(0, 8, (m, 1)) + rng.normal(size=(m, classes)),  # an offset
            rng.integers(-3, 3, (m, classes)).astype(np.float64),  # exact ties
            rng.normal(size=(m, classes)) * 10.0 ** rng.uniform(-30, 9, (m, 1)),
        ]
    )
    # Hinges that nearly cancel.
    close = 2 * m + np.arange(m)[::2]
    scores[close, (target.numpy()[close] + 1) % classes] = scores[close, target.numpy()[close]] - held(
        margin * (1 - 10.0 ** rng.uniform(-12, -1, len(close)))
    )
    scores[0, 0], scores[1, int(target[1])] = -np.inf, np.inf
    target[0] = 1
    x = torch.tensor(scores).to(DTYPES[dtype])
    weight = torch.tensor([0.25, 1.0, 3.0, 0.7]).to(DTYPES[dtype]) if weighted else None
    w = [ONE] * classes if weight is None else exactly(weight)
    leaf = x.clone().requires_grad_()
    loss = multi_margin_loss(leaf, target, p, margin, weight, reduction="none")
    (slopes,) = gradients(loss, leaf)
    truths = [
        truth_torch.multi_margin(exactly(row), int(t), w[int(t)], p, mp.mpf(margin))
        for row, t in zip(x, target, strict=True)
    ]
    seen = [
        worst(loss, [row[0] for row in truths], dtype),
        worst(slopes, [g for row in truths for g in row[1]], dtype),
    ]
    LOG.info("%s inputs; value, gradient off by %s ulp", x.numel(), [off for off, _ in seen])
    assert seen[0][0] <= BARS[dtype], seen
    assert seen[1][0] <= BARS[dtype], seen


@pytest.mark.parametrize("dtype", BARS)
def test_nll_values_and_gradients_are_one_product(dtype: str) -> None:
    rng = generator("nll", dtype)
    n, classes = DRAWS, 5
    x = -torch.tensor(10.0 ** rng.uniform(np.log10(float(np.finfo(dtype).tiny)) - 2, 8, (n, classes)))
    x[0, 0], x[1, 1], x[2, 2] = 0.0, -math.inf, -math.inf
    x = x.to(DTYPES[dtype])
    target = torch.tensor(rng.integers(0, classes, n))
    target[0], target[1], target[2] = 0, 1, 2
    weight = torch.tensor([0.1, 0.7, 0.0, 3.3, 1.0]).to(DTYPES[dtype])
    for w in (None, weight):
        leaf = x.clone().requires_grad_()
        loss = nll_loss(leaf, target, w, reduction="none")
        (slopes,) = gradients(loss, leaf)
        own = exactly(x[torch.arange(n), target])
        factors = [ONE] * n if w is None else exactly(w[target])
        truths = [ZERO if f == 0 else -f * p for f, p in zip(factors, own, strict=True)]
        assert worst(loss, truths, dtype)[0] <= 0.5
        expected = torch.zeros_like(x)
        expected[torch.arange(n), target] = -1.0 if w is None else -w[target]
        expected[2, 2] = slopes[2, 2] if w is not None else -1.0
        assert torch.equal(slopes, expected)
        assert slopes[2, 2] == (0.0 if w is not None else -1.0)


# --- as torch's, well inside the range -------------------------------------------------------------------------


def ordinary(name: str, dtype: str = "float64", shape: tuple[int, ...] = (6, 5)) -> tuple[Tensor, ...]:
    """Inputs at which torch's own results are good too."""
    rng = generator("ordinary", name)
    x = rng.normal(size=shape)
    without = shape[:1] + shape[2:] if len(shape) > 1 else ()
    draws: dict[str, tuple[Any, ...]] = {
        "smooth_l1": (x * 2, rng.normal(size=shape)),
        "kl_div": (-np.abs(x), rng.uniform(0.05, 1, shape)),
        "kl_div log_target": (-np.abs(x), -rng.exponential(1, shape)),
        "poisson_nll": (x, rng.integers(0, 9, shape).astype(float)),
        "poisson_nll full": (
            x,
            rng.integers(2, 9, shape).astype(float),
        ),  # torch's slope at a count of 0 is NaN
        "poisson_nll rate": (np.abs(x) + 0.3, rng.integers(0, 9, shape).astype(float)),
        "poisson_nll full rate": (np.abs(x) + 0.3, rng.integers(2, 9, shape).astype(float)),
        "hinge_embedding": (np.abs(x), rng.choice([-1, 1], shape)),
        "margin_ranking": (x, rng.normal(size=shape), rng.choice([-1.0, 1.0], shape)),
        "cosine_embedding": (x, rng.normal(size=shape), rng.choice([-1, 1], shape[:-1])),
        "triplet_margin": (x, rng.normal(size=shape), rng.normal(size=shape)),
        "multilabel_margin": (
            x * 2,
            rng.integers(-1, max((1, *shape[-1:])), shape),
        ),  # one listed twice, and none, among them
        "soft_margin": (x * 2, rng.choice([-1.0, 1.0], shape)),
        "gaussian_nll": (x, rng.normal(size=shape), rng.uniform(0.3, 3, shape)),
        "multilabel_soft_margin": (x * 2, rng.integers(0, 2, shape).astype(float)),
        "multi_margin": (x * 2, rng.integers(0, max((1, *shape[-1:])), shape[:-1])),
        "nll": (-np.abs(x) - 0.1, rng.integers(0, max((1, *(shape[1:2] or shape))), without)),
    }
    tensors = [torch.as_tensor(np.asarray(part)) for part in draws[name]]
    return tuple(t.to(DTYPES[dtype]) if t.is_floating_point() else t for t in tensors)


FIVE = torch.tensor([0.25, 1.0, 3.0, 0.7, 0.1], dtype=torch.float64)
# A name of POINTWISE or of what follows, our function, torch's, and options in common.
ALIKE: list[tuple[str, Any, Any, dict[str, Any]]] = [
    *((name, case[1], case[2], case[3]) for name, case in POINTWISE.items()),
    ("smooth_l1", smooth_l1_loss, F.smooth_l1_loss, {"beta": 0.0}),
    ("smooth_l1", smooth_l1_loss, F.smooth_l1_loss, {"beta": 3}),
    ("poisson_nll rate", poisson_nll_loss, F.poisson_nll_loss, {"log_input": False, "eps": 0.5}),
    ("gaussian_nll", gaussian_nll_loss, F.gaussian_nll_loss, {}),
    ("gaussian_nll", gaussian_nll_loss, F.gaussian_nll_loss, {"full": True, "eps": 1.0}),
    ("multilabel_soft_margin", multilabel_soft_margin_loss, F.multilabel_soft_margin_loss, {}),
    ("multilabel_soft_margin", multilabel_soft_margin_loss, F.multilabel_soft_margin_loss, {"weight": FIVE}),
    ("multi_margin", multi_margin_loss, F.multi_margin_loss, {}),
    ("multi_margin", multi_margin_loss, F.multi_margin_loss, {"p": 2, "margin": 0.4, "weight": FIVE}),
    ("multi_margin", multi_margin_loss, F.multi_margin_loss, {"margin": -3.14}),
    ("margin_ranking", margin_ranking_loss, F.margin_ranking_loss, {}),
    ("margin_ranking", margin_ranking_loss, F.margin_ranking_loss, {"margin": 0.75}),
    ("hinge_embedding", hinge_embedding_loss, F.hinge_embedding_loss, {"margin": -0.5}),
    ("cosine_embedding", cosine_embedding_loss, F.cosine_embedding_loss, {}),
    ("cosine_embedding", cosine_embedding_loss, F.cosine_embedding_loss, {"margin": 0.3}),
    ("triplet_margin", triplet_margin_loss, F.triplet_margin_loss, {}),
    ("triplet_margin", triplet_margin_loss, F.triplet_margin_loss, {"swap": True, "margin": 0.5, "eps": 0.1}),
    ("triplet_margin", triplet_margin_loss, F.triplet_margin_loss, {"p": 1.0, "margin": 2.0}),
    ("triplet_margin", triplet_margin_loss, F.triplet_margin_loss, {"p": 3.5, "swap": True}),
    ("triplet_margin", triplet_margin_loss, F.triplet_margin_loss, {"p": math.inf}),
    *(
        ("triplet_margin", triplet_margin_with_distance_loss, F.triplet_margin_with_distance_loss, options)
        for options in (
            {},
            {"distance_function": nn.PairwiseDistance(p=1.0, keepdim=True)},
            {
                "distance_function": lambda x, z: 1 - torch.cosine_similarity(x, z, -1),
                "swap": True,
                "margin": 0.5,
            },
        )
    ),
    ("multilabel_margin", multilabel_margin_loss, F.multilabel_margin_loss, {}),
    ("nll", nll_loss, F.nll_loss, {}),
    ("nll", nll_loss, F.nll_loss, {"weight": FIVE, "ignore_index": 2}),
]
ALIKE_NAMES = [f"{name} {sorted(options)}" for name, _, _, options in ALIKE]
# A distance of one's own has digits of its own.
OWN = [
    case
    for case in ALIKE
    if not callable(case[3].get("distance_function")) or isinstance(case[3]["distance_function"], nn.Module)
]
OWN_NAMES = [f"{name} {sorted(options)}" for name, _, _, options in OWN]
CLOSE = {"float32": {"rtol": 3e-6, "atol": 2e-6}, "float64": {"rtol": 6e-15, "atol": 4e-15}}


def reductions_of(name: str) -> tuple[str, ...]:
    return (*REDUCTIONS, "batchmean") if name.startswith("kl_div") else REDUCTIONS


def value_and_gradients(
    function: Callable[..., Tensor], tensors: tuple[Tensor, ...], most: int = 3
) -> list[Tensor]:
    """The value, and the gradients by the floating ones of the first ``most`` tensors."""
    leaves = [
        t.clone().requires_grad_() if t.is_floating_point() and place < most else t
        for place, t in enumerate(tensors)
    ]
    loss = function(*leaves)
    upstream = torch.linspace(0.5, 2.0, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    learning = [leaf for leaf in leaves if leaf.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, learning, upstream)]


def learning(name: str) -> int:
    """How many tensors torch's loss has a gradient by."""
    return 1 if name in ("soft_margin", "hinge_embedding") else 3


def in_dtype(options: dict[str, Any], dtype: str) -> dict[str, Any]:
    return {k: v.to(DTYPES[dtype]) if isinstance(v, Tensor) else v for k, v in options.items()}


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize(("name", "ours", "theirs", "options"), ALIKE, ids=ALIKE_NAMES)
def test_equals_torch_well_inside_the_range(
    name: str, ours: Any, theirs: Any, options: dict[str, Any], dtype: str
) -> None:
    """Value, and the gradient by every floating input, targets included; then without gradients."""
    tensors = ordinary(name, dtype)
    options = in_dtype(options, dtype)
    for reduction in reductions_of(name):
        mine = value_and_gradients(partial(ours, reduction=reduction, **options), tensors, learning(name))
        its = value_and_gradients(partial(theirs, reduction=reduction, **options), tensors, learning(name))
        for a, b in zip(mine, its, strict=True):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, **CLOSE[dtype])
        with torch.no_grad():
            torch.testing.assert_close(
                ours(*tensors, reduction=reduction, **options), mine[0], rtol=3e-7, atol=0
            )


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize(("name", "ours", "theirs", "options"), OWN, ids=OWN_NAMES)
def test_reductions_are_exact(name: str, ours: Any, theirs: Any, options: dict[str, Any], dtype: str) -> None:
    """Mean and sum of 700 rows against the exact sum of what float64 gives row by row; backward included."""
    tensors = ordinary(name, dtype, (700, 5))
    wide = tuple(t.double() if t.is_floating_point() else t for t in tensors)
    first = wide[0].clone().requires_grad_()
    rows = ours(first, *wide[1:], reduction="none", **in_dtype(in_dtype(options, dtype), "float64"))
    (slopes,) = gradients(rows, first)
    exact = math.fsum(rows.flatten().tolist())
    if name == "nll":
        kept = tensors[1] != options.get("ignore_index", -100)
        w = torch.ones(5) if "weight" not in options else in_dtype(options, dtype)["weight"]
        count = math.fsum(w.double()[tensors[1]][kept].tolist())
    else:
        count = float(rows.numel())
    divisors = {"mean": count, "sum": 1.0, "batchmean": 700.0}
    for reduction in reductions_of(name)[1:]:
        leaf = tensors[0].clone().requires_grad_()
        loss = ours(leaf, *tensors[1:], reduction=reduction, **in_dtype(options, dtype))
        assert ulps_off(float(loss.detach()), mp.mpf(exact) / divisors[reduction], dtype) <= 8.0
        (slope,) = gradients(loss, leaf)
        torch.testing.assert_close(
            slope.double(),
            slopes / divisors[reduction],
            rtol=1.3e-7 if dtype == "float32" else 2e-15,
            atol=1e-17,
        )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("name", "ours", "theirs", "options"), OWN, ids=OWN_NAMES)
def test_half_types_are_never_further_off_than_torch(
    name: str, ours: Any, theirs: Any, options: dict[str, Any], dtype: str
) -> None:
    """Against float64 on the same numbers; where torch has no such type at all, one rounding."""
    tensors = ordinary(name, dtype, (40, 5))
    wide = tuple(t.double() if t.is_floating_point() else t for t in tensors)
    own = in_dtype(options, dtype)
    for reduction in reductions_of(name):
        truths = value_and_gradients(
            lambda *t: ours(*t, reduction=reduction, **in_dtype(own, "float64")).to(t[0].dtype),  # noqa: B023
            wide,
            learning(name),
        )
        mine = value_and_gradients(partial(ours, reduction=reduction, **own), tensors, learning(name))
        try:
            its = value_and_gradients(partial(theirs, reduction=reduction, **own), tensors, learning(name))
        except NotImplementedError:
            its = mine
        ulps = 2.0 ** -{"float16": 10, "bfloat16": 7}[dtype]
        for place, (a, b, truth) in enumerate(zip(mine, its, truths, strict=True)):
            assert a.dtype == DTYPES[dtype]
            # A gradient has met the upstream one, itself rounded to the type: two more roundings.
            spare = (0.51 if place == 0 else 1.6) * ulps * truth.abs().clamp(min=6e-5)
            allowed = torch.maximum((b.double() - truth).abs(), spare)
            assert ((a.double() - truth).abs() <= allowed).all(), (reduction, place)


CLASSES: list[tuple[type[nn.Module], str, list[dict[str, Any]]]] = [
    (SmoothL1Loss, "smooth_l1", [{}, {"beta": 0.0}, {"beta": 2.0}]),
    (KLDivLoss, "kl_div", [{}, {"log_target": True}]),
    (PoissonNLLLoss, "poisson_nll full rate", [{}, {"log_input": False, "full": True, "eps": 0.1}]),
    (GaussianNLLLoss, "gaussian_nll", [{}, {"full": True, "eps": 0.5}]),
    (SoftMarginLoss, "soft_margin", [{}]),
    (HingeEmbeddingLoss, "hinge_embedding", [{}, {"margin": 0.5}]),
    (MarginRankingLoss, "margin_ranking", [{}, {"margin": 0.5}]),
    (TripletMarginLoss, "triplet_margin", [{}, {"p": 1.0, "swap": True}, {"margin": 2.0, "eps": 0.1}]),
    (TripletMarginWithDistanceLoss, "triplet_margin", [{}, {"swap": True}]),
    (CosineEmbeddingLoss, "cosine_embedding", [{}, {"margin": 0.5}]),
    (MultiLabelMarginLoss, "multilabel_margin", [{}]),
    (MultiLabelSoftMarginLoss, "multilabel_soft_margin", [{}, {"weight": FIVE}]),
    (MultiMarginLoss, "multi_margin", [{}, {"p": 2, "margin": 0.5, "weight": FIVE}]),
    (NLLLoss, "nll", [{}, {"weight": FIVE, "ignore_index": 1}]),
]
FUNCTIONS = [
    smooth_l1_loss, kl_div, poisson_nll_loss, gaussian_nll_loss, soft_margin_loss, multilabel_soft_margin_loss,
    multi_margin_loss, nll_loss, linear_cross_entropy, hinge_embedding_loss, margin_ranking_loss, triplet_margin_loss,
    triplet_margin_with_distance_loss, cosine_embedding_loss, multilabel_margin_loss,
]  # fmt: skip


def same_arguments(ours: Any, theirs: Any) -> None:
    mine = list(inspect.signature(ours).parameters.values())
    for parameter, its in zip(mine, inspect.signature(theirs).parameters.values(), strict=False):
        assert (parameter.name, parameter.default, parameter.kind) == (its.name, its.default, its.kind)
    extra = mine[len(inspect.signature(theirs).parameters) :]
    assert [parameter.kind for parameter in extra] == [inspect.Parameter.VAR_KEYWORD]


@pytest.mark.parametrize(("cls", "name", "options"), CLASSES, ids=lambda c: getattr(c, "__name__", ""))
def test_the_class_is_torchs(cls: Any, name: str, options: list[dict[str, Any]]) -> None:
    peer = getattr(nn, cls.__name__)
    same_arguments(cls, peer)
    assert list(inspect.signature(cls.forward).parameters) == list(inspect.signature(peer.forward).parameters)
    tensors = ordinary(name)
    for given in options:
        ours, theirs = cls(**given), peer(**given)
        assert isinstance(ours, peer)
        assert repr(ours) == repr(theirs)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        for reduction in reductions_of(name):
            ours, theirs = cls(reduction=reduction, **given), peer(reduction=reduction, **given)
            results = [value_and_gradients(loss, tensors, learning(name)) for loss in (ours, theirs)]
            for a, b in zip(*results, strict=True):
                torch.testing.assert_close(a, b, **CLOSE["float64"])
            again = copy.deepcopy(ours)
            again.load_state_dict(theirs.state_dict())
            assert torch.equal(again(*tensors), ours(*tensors))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_function_takes_torchs_arguments(function: Any) -> None:
    if hasattr(F, function.__name__):
        same_arguments(function, getattr(F, function.__name__))


LEGACY = [(True, None, "mean"), (False, None, "sum"), (None, False, "none"), (False, True, "sum")]


@pytest.mark.parametrize(("size_average", "reduce", "reduction"), LEGACY)
@pytest.mark.parametrize("cls", [c[0] for c in CLASSES if "reduce" in inspect.signature(c[0]).parameters])
def test_deprecated_arguments_keep_their_meaning(
    cls: Any, size_average: Any, reduce: Any, reduction: str
) -> None:
    name = next(case[1] for case in CLASSES if case[0] is cls)
    with pytest.warns(UserWarning, match="deprecated"):
        loss = cls(size_average=size_average, reduce=reduce)
    assert loss.reduction == reduction
    function = next(f for f in FUNCTIONS if f.__name__ in (inspect.getsource(cls.forward)))
    with pytest.warns(UserWarning, match="deprecated"):
        result = function(*ordinary(name), size_average=size_average, reduce=reduce)
    assert torch.equal(result, function(*ordinary(name), reduction=reduction))


def test_the_mean_of_a_divergence_warns_as_torchs() -> None:
    tensors = ordinary("kl_div")
    for function in (kl_div, F.kl_div):
        with pytest.warns(UserWarning, match="reduction: 'mean' divides"):
            function(*tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kl_div(*tensors, reduction="batchmean")


# --- shapes and types --------------------------------------------------------------------------------------------

SHAPED = [
    *((case[1], case[0], shape) for case in CLASSES[:7] for shape in [(), (4,), (2, 3, 4), (0, 3), (3, 0)]
      if not (case[0] is GaussianNLLLoss and shape == ())),
    *((name, cls, shape) for cls, name, _ in CLASSES[7:9] for shape in [(), (4,), (1, 4), (2, 3, 4), (0, 3), (3, 0)]),
    *(("cosine_embedding", CosineEmbeddingLoss, shape) for shape in [(4,), (3, 4), (0, 3), (3, 0)]),
    *(("multilabel_margin", MultiLabelMarginLoss, shape) for shape in [(), (4,), (3, 4), (1, 4)]),
    *(("multilabel_soft_margin", MultiLabelSoftMarginLoss, shape) for shape in [(4,), (2, 3, 4), (0, 3)]),
    *(("multi_margin", MultiMarginLoss, shape) for shape in [(4,), (3, 4), (1, 4)]),
    *(("nll", NLLLoss, shape) for shape in [(4,), (3, 4), (2, 4, 3), (2, 4, 3, 2), (2, 3, 1, 2, 2), (0, 4), (2, 4, 0)]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "cls", "shape"), SHAPED)
def test_any_shape_torch_takes(name: str, cls: Any, shape: tuple[int, ...]) -> None:
    tensors = ordinary(name, "float64", shape)
    for reduction in reductions_of(name):
        results = [
            value_and_gradients(c(reduction=reduction), tensors, learning(name))
            for c in (cls, getattr(nn, cls.__name__))
        ]
        for a, b in zip(*results, strict=True):
            assert a.shape == b.shape
            torch.testing.assert_close(a, b, equal_nan=True, **CLOSE["float64"])


def test_one_score_row_in_every_form_torch_takes() -> None:
    x = torch.randn(4, generator=torch.Generator().manual_seed(1))
    for target in (torch.tensor(2), torch.tensor([2])):
        for reduction in REDUCTIONS:
            for ours, theirs in ((multi_margin_loss, F.multi_margin_loss), (nll_loss, F.nll_loss)):
                mine, its = (f(x, target, reduction=reduction) for f in (ours, theirs))
                assert mine.shape == its.shape
                torch.testing.assert_close(mine, its)
    assert multi_margin_loss(torch.tensor(0.3), torch.tensor(0)) == 0
    assert math.isnan(multi_margin_loss(torch.empty(0, 4), torch.empty(0, dtype=torch.int64)))


@pytest.mark.parametrize("strict", [True, False])
def test_variances_in_every_shape_torch_takes(strict: bool) -> None:
    mean, y, var = ordinary("gaussian_nll", shape=(4, 3, 5))
    forms: list[Any] = [var, var[..., 0], var[..., :1], var[:, :1], var[:1], 0.7]
    for given in forms:
        tensors = (mean, y, given) if isinstance(given, Tensor) else (mean, y)
        rest = () if isinstance(given, Tensor) else (given,)
        for reduction in REDUCTIONS:
            mine = value_and_gradients(lambda *t: gaussian_nll_loss(*t, *rest, reduction=reduction), tensors)  # noqa: B023
            its = value_and_gradients(lambda *t: F.gaussian_nll_loss(*t, *rest, reduction=reduction), tensors)  # noqa: B023
            for a, b in zip(mine, its, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)
    column = y[..., :1]
    if strict:
        with pytest.raises(InputError, match="strict_shape"):
            gaussian_nll_loss(mean, column, var)
    else:
        torch.testing.assert_close(
            gaussian_nll_loss(mean, column, var, strict_shape=False), F.gaussian_nll_loss(mean, column, var)
        )


def test_a_clamped_variance_keeps_its_gradient_as_torchs() -> None:
    mean, y = torch.tensor([0.0, 1.0, 0.5]), torch.tensor([0.2, 0.9, 0.5])
    var = torch.tensor([0.0, 1e-9, 0.01])
    for a, b in zip(
        value_and_gradients(gaussian_nll_loss, (mean, y, var)),
        value_and_gradients(F.gaussian_nll_loss, (mean, y, var)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", WIDTHS)
def test_integer_targets_of_any_width(dtype: torch.dtype) -> None:
    for name, function in (("multi_margin", multi_margin_loss), ("nll", nll_loss)):
        x, target = ordinary(name)
        assert torch.equal(function(x, target.to(dtype)), function(x, target))
    counts = ordinary("poisson_nll")
    torch.testing.assert_close(poisson_nll_loss(counts[0], counts[1].to(dtype)), poisson_nll_loss(*counts))
    labels = ordinary("multilabel_soft_margin")
    assert torch.equal(
        multilabel_soft_margin_loss(labels[0], labels[1].to(dtype)), multilabel_soft_margin_loss(*labels)
    )


def test_normalizers_divide_whatever_way_a_loss_takes() -> None:
    for name, function in (
        ("multilabel_soft_margin", multilabel_soft_margin_loss),
        ("multi_margin", multi_margin_loss),
        ("nll", nll_loss),
        ("gaussian_nll", gaussian_nll_loss),
        ("margin_ranking", margin_ranking_loss),
        ("hinge_embedding", hinge_embedding_loss),
        ("cosine_embedding", cosine_embedding_loss),
        ("triplet_margin", triplet_margin_loss),
        ("triplet_margin", triplet_margin_with_distance_loss),
        ("multilabel_margin", multilabel_margin_loss),
        ("kl_div", kl_div),
    ):
        tensors = ordinary(name)
        total = function(*tensors, reduction="sum")
        for normalizer in (16.0, torch.tensor(16.0)):
            torch.testing.assert_close(
                function(*tensors, normalizer=normalizer), total / 16, rtol=1e-14, atol=0
            )
        with pytest.raises(InputError, match="no meaning"):
            function(*tensors, reduction="sum", normalizer=16.0)


def test_a_byte_that_wraps_round_is_not_ignored() -> None:
    """-100 is 156 to a uint8; class 156 is a class."""
    x = torch.linspace(-3, -1, 600).reshape(3, 200)
    target = torch.tensor([156, 0, 199])
    assert torch.equal(nll_loss(x, target.to(torch.uint8), reduction="none"), -x[torch.arange(3), target])


def test_ignored_rows_and_idle_weights_leave_nothing_behind() -> None:
    x = torch.tensor([[math.nan, -1.0], [-math.inf, -0.5], [-0.25, -math.inf]], requires_grad=True)
    weight = torch.tensor([1.0, 0.0])
    loss = nll_loss(x, torch.tensor([-100, 1, 0]), weight)
    loss.backward()
    assert loss == 0.25
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 0], [0, 0], [-1, 0]]
    assert (
        nll_loss(
            torch.tensor([[-math.inf, 0.0]]), torch.tensor([0]), torch.tensor([0.0, 1.0]), reduction="sum"
        )
        == 0
    )
    ignored = torch.full((3,), -100)
    assert math.isnan(nll_loss(torch.zeros(3, 2), ignored))
    assert nll_loss(torch.zeros(3, 2), ignored, on_empty="zero") == 0


def test_ends_where_torch_is_wrong() -> None:
    """Far margins, counts of 0 at no rate, shares of 0: a number, where torch has NaN or infinity."""
    x = torch.tensor([-1000.0, -math.inf])
    for function, value, slope in ((soft_margin_loss, 1000.0, -1.0), (F.soft_margin_loss, math.inf, None)):
        leaf = x.clone().requires_grad_()
        loss = function(leaf, torch.ones(2), reduction="none")
        (slopes,) = gradients(loss, leaf)
        assert loss.tolist() == [value, math.inf]
        assert slopes.tolist() == [-1.0, -1.0] if slope else slopes.isnan().any()
    zero = torch.zeros(1)
    assert kl_div(torch.tensor([-math.inf]), zero, reduction="sum") == 0
    share = torch.tensor([0.0, 0.5], requires_grad=True)
    (by_share,) = gradients(kl_div(torch.tensor([-1.0, -1.0]), share, reduction="sum"), share)
    torch.testing.assert_close(by_share, torch.tensor([1.0, math.log(0.5) + 2.0]))
    assert poisson_nll_loss(torch.tensor([-math.inf]), zero) == 0
    assert poisson_nll_loss(zero, zero, log_input=False, eps=0.0) == 0


# --- what is refused -------------------------------------------------------------------------------------------

ROW, TWO = torch.zeros(5, 4), torch.tensor([1, 2])
FOUR = torch.zeros(5, 4, dtype=torch.int64)
# what is called, the error, and what its sentence holds
WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: smooth_l1_loss(ROW, ROW, beta=-1.0), InputError, "beta is -1"),
    (lambda: smooth_l1_loss(ROW, ROW[0]), InputError, r"\(5, 4\).*\(4,\)"),
    (lambda: kl_div(ROW, ROW, reduction="abc"), InputError, "abc.*batchmean"),
    (lambda: kl_div(ROW, ROW, reduction="batchmean", normalizer=3.0), InputError, "normalizer"),
    (lambda: smooth_l1_loss(ROW, ROW, reduction="batchmean"), InputError, "none, mean or sum"),
    (lambda: poisson_nll_loss(ROW, ROW, reduction="abc"), ValueError, "abc"),
    (lambda: poisson_nll_loss(ROW, ROW[:, 0]), InputError, r"\(5,\)"),
    (lambda: poisson_nll_loss(ROW, ROW, log_input=False, eps=-1.0), InputError, "eps is -1"),
    (lambda: soft_margin_loss(ROW, ROW, reduction="abc"), ValueError, "abc"),
    (lambda: soft_margin_loss(ROW, ROW[:, 0]), InputError, "strict_shape"),
    (lambda: gaussian_nll_loss(ROW, ROW, ROW - 1), ValueError, "negative"),
    (lambda: gaussian_nll_loss(ROW, ROW, -0.5), ValueError, "var is -0.5"),
    (lambda: gaussian_nll_loss(ROW, ROW, torch.ones(5, 3)), ValueError, "incorrect size"),
    (lambda: gaussian_nll_loss(ROW, ROW, torch.ones(4)), ValueError, "incorrect size"),
    (lambda: gaussian_nll_loss(ROW, ROW[:, :3], ROW), InputError, r"\(5, 3\)"),
    (lambda: gaussian_nll_loss(ROW, ROW, ROW, reduction="abc"), ValueError, "abc"),
    (lambda: gaussian_nll_loss(ROW, ROW, ROW, eps=-1.0), InputError, "eps is -1"),
    (lambda: multilabel_soft_margin_loss(ROW, ROW, reduction="abc"), ValueError, "abc"),
    (lambda: multilabel_soft_margin_loss(ROW, ROW[:, :1]), InputError, r"\(5, 1\)"),
    (lambda: multilabel_soft_margin_loss(ROW, ROW, torch.ones(3)), InputError, r"\(3,\).*\(5, 4\)"),
    (lambda: multilabel_soft_margin_loss(torch.tensor(1.0), torch.tensor(1.0)), InputError, "single number"),
    (lambda: multi_margin_loss(ROW, FOUR[:, 0], reduction="abc"), ValueError, "abc"),
    (lambda: multi_margin_loss(ROW[:, :0], FOUR[:, 0]), InputError, r"\(5, 0\)"),
    (lambda: multi_margin_loss(ROW, FOUR), InputError, r"\(5,\).*\(5, 4\)"),
    (lambda: multi_margin_loss(ROW, TWO), InputError, r"\(5,\).*\(2,\)"),
    (lambda: multi_margin_loss(ROW, ROW[:, 0]), InputError, "integer class indices"),
    (lambda: multi_margin_loss(ROW, FOUR[:, 0], weight=ROW), ValueError, "one-dimensional"),
    (lambda: multi_margin_loss(ROW, FOUR[:, 0], weight=torch.ones(5)), InputError, r"\(4,\).*\(5,\)"),
    (lambda: multi_margin_loss(ROW, FOUR[:, 0], p=3), ValueError, "p == 1 and p == 2"),
    (lambda: MultiMarginLoss(p=3), ValueError, "p == 1 and p == 2"),
    (lambda: multi_margin_loss(ROW, FOUR[:, 0], margin=math.inf), InputError, "margin is inf"),
    (lambda: multi_margin_loss(ROW, FOUR[:, 0] + 4), IndexError, "4 to 4"),
    (lambda: margin_ranking_loss(ROW, ROW[0], ROW + 1), InputError, r"input1 .*\(5, 4\), the input2 \(4,\) and"),
    (lambda: margin_ranking_loss(ROW, ROW, ROW[0] + 1), InputError, r"and the target \(4,\).*strict_shape"),
    (lambda: margin_ranking_loss(ROW, ROW, ROW), InputError, "a target is 0; .*equal rank"),
    (lambda: margin_ranking_loss(ROW, FOUR, ROW + 1), InputError, "input2 is torch.int64"),
    (lambda: margin_ranking_loss(ROW, ROW, ROW > 0), InputError, "torch.bool"),
    (lambda: margin_ranking_loss(ROW, ROW, ROW + 1, margin=math.inf), InputError, "margin is inf"),
    (lambda: hinge_embedding_loss(ROW, ROW), InputError, "a target is 0"),
    (lambda: hinge_embedding_loss(ROW, ROW[0]), InputError, "strict_shape"),
    (lambda: cosine_embedding_loss(ROW, ROW, ROW + 1), InputError, r"\(5, 4\) and the target \(5, 4\)"),
    (lambda: cosine_embedding_loss(ROW, ROW, torch.ones(4)), InputError, r"target \(4,\)"),
    (lambda: cosine_embedding_loss(ROW, ROW[0], torch.ones(5)), InputError, "strict_shape"),
    (lambda: cosine_embedding_loss(ROW[None], ROW[None], torch.ones(1, 5)), InputError, r"\(1, 5, 4\)"),
    (lambda: cosine_embedding_loss(ROW, ROW, torch.zeros(5)), InputError, "a target is 0"),
    (lambda: triplet_margin_loss(ROW, ROW, ROW[0]), InputError, "the negative .*strict_shape"),
    (lambda: triplet_margin_loss(ROW, ROW, FOUR), InputError, "the negative is torch.int64"),
    (lambda: triplet_margin_loss(ROW, ROW, ROW, margin=0.0), ValueError, "margin must be greater than 0"),
    (lambda: triplet_margin_loss(ROW, ROW, ROW, margin=None), InputError, "margin is None"),
    (lambda: triplet_margin_loss(ROW, ROW, ROW, p="2"), InputError, "p is '2'"),
    (lambda: triplet_margin_loss(ROW, ROW, ROW, eps=None), InputError, "eps is None"),
    (lambda: TripletMarginLoss(margin=-1.0), InputError, "margin is -1"),
    (lambda: TripletMarginWithDistanceLoss(margin=0.0), InputError, "margin is 0"),
    (lambda: triplet_margin_with_distance_loss(ROW, ROW[0], ROW), InputError, "the positive .*strict_shape"),
    (lambda: multilabel_margin_loss(ROW, FOUR[0]), InputError, r"\(5, 4\) and the target \(4,\)"),
    (lambda: multilabel_margin_loss(ROW[:, :0], FOUR[:, :0]), InputError, r"\(5, 0\)"),
    (lambda: multilabel_margin_loss(ROW, ROW), InputError, "integer class indices"),
    (lambda: multilabel_margin_loss(ROW, FOUR - 2), IndexError, "-2 to -2"),
    (lambda: multilabel_margin_loss(ROW, FOUR + 4), IndexError, "4 to 4"),
    (lambda: nll_loss(ROW, FOUR[:, 0] + 4), IndexError, "4 to 4"),
    (lambda: nll_loss(ROW, FOUR[:, 0] - 1), IndexError, "-1 to -1"),
    (lambda: nll_loss(ROW, TWO), ValueError, r"\(5, 4\).*\(2,\)"),
    (lambda: nll_loss(ROW, ROW), InputError, "integer class indices"),
    (lambda: nll_loss(ROW, FOUR[:, 0], torch.ones(3)), InputError, r"\(3,\).*\(4,\)"),
    (lambda: nll_loss(torch.tensor(1.0), torch.tensor(0)), ValueError, "single number"),
    (lambda: nll_loss(ROW, FOUR[:, 0], reduction="abc"), ValueError, "abc"),
    (lambda: NLLLoss(on_empty="never"), InputError, "on_empty"),
    (lambda: linear_cross_entropy(ROW, torch.ones(3, 5), FOUR[:, 0]), InputError, r"\(5, 4\).*\(C, 4\).*\(3, 5\)"),
    (lambda: linear_cross_entropy(ROW[None], ROW, FOUR[:, 0]), InputError, r"\(1, 5, 4\)"),
    (lambda: linear_cross_entropy(ROW, ROW, FOUR[:, 0], linear_bias=torch.ones(3)), InputError, "linear_bias"),
    (lambda: linear_cross_entropy(ROW[0], ROW.reshape(5, 1, 4), FOUR[0, 0]), InputError, "needs a batch"),
    (lambda: linear_cross_entropy(ROW, ROW, FOUR[:, 0] + 5), IndexError, "5 to 5"),
    (lambda: linear_cross_entropy(ROW, ROW, torch.ones(5, 5), ignore_index=1), InputError, "probabilities"),
    (lambda: linear_cross_entropy(ROW, ROW, torch.ones(4, 5)), ValueError, r"\(4, 5\)"),
    (lambda: linear_cross_entropy(ROW, ROW, FOUR[:, 0], label_smoothing=2.0), InputError, "label_smoothing"),
    (lambda: linear_cross_entropy(ROW, ROW, FOUR[:, 0], reduction="abc"), ValueError, "abc"),
    (lambda: LinearCrossEntropyLoss(3, 2, weight=torch.ones(3)), InputError, r"\(3,\).*\(2,\)"),
    (lambda: LinearCrossEntropyLoss(3, 2, label_smoothing=2.0), InputError, "label_smoothing is 2.0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "sentence"), WRONG)
def test_wrong_input_is_refused(call: Callable[[], Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        call()


# --- higher derivatives and transforms ---------------------------------------------------------------------------


def smooth(name: str) -> tuple[Tensor, ...]:
    """Inputs away from every kink."""
    tensors = ordinary(name, "float64", (3, 4))
    if name == "margin_ranking":
        return (*tensors[:2], tensors[2].to(torch.int8))  # a sign has no neighbours
    if name == "multilabel_margin":
        return torch.tensor([[0.3, 1.2, -0.9, 2.05], [1.0, -1.3, 0.4, 0.15]]).double(), torch.tensor(
            [[1, 3, -1, 0], [2, -1, 0, 0]]
        )
    if name == "multi_margin":  # no hinge near its bend
        return (
            torch.tensor([[0.3, 1.2, -0.9, 2.05], [1.0, -1.3, 0.4, 0.15], [2.0, 1.6, 0.2, -0.65]]).double(),
            *tensors[1:],
        )
    return tensors


DIFFERENTIABLE = [case for case in ALIKE if "weight" not in case[3]]


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "options"),
    DIFFERENTIABLE,
    ids=[f"{c[0]} {sorted(c[3])}" for c in DIFFERENTIABLE],
)
def test_higher_derivatives_and_transforms(
    name: str, ours: Any, theirs: Any, options: dict[str, Any]
) -> None:
    tensors = smooth(name)
    if name == "gaussian_nll" and options:
        options = {**options, "eps": 0.1}  # the clamp hands a gradient through that is not the value's
    leaves = tuple(t.clone().requires_grad_() if t.is_floating_point() else t for t in tensors)
    for reduction in reductions_of(name):
        loss = partial(ours, reduction=reduction, **options)
        assert torch.autograd.gradcheck(loss, leaves)
        assert torch.autograd.gradgradcheck(loss, leaves)
    loss = partial(ours, reduction="sum", **options)
    (expected,) = torch.autograd.grad(loss(*leaves), leaves[:1])
    torch.testing.assert_close(torch.func.grad(loss)(*tensors), expected, rtol=1e-13, atol=1e-15)
    stacked = tuple(torch.stack([t, t]) for t in tensors)
    each = torch.vmap(torch.func.grad(loss))(*stacked)
    torch.testing.assert_close(each, torch.stack([expected, expected]), rtol=1e-13, atol=1e-15)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own tracer
@pytest.mark.parametrize(("cls", "name", "options"), CLASSES, ids=lambda c: getattr(c, "__name__", ""))
def test_compiles_as_one_graph(cls: Any, name: str, options: list[dict[str, Any]]) -> None:
    loss = cls(**options[-1])
    tensors = ordinary(name)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for a, b in zip(value_and_gradients(loss, tensors), value_and_gradients(compiled, tensors), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)


def test_a_beta_of_0_is_the_absolute_error() -> None:
    p, y = ordinary("smooth_l1")
    p[0, 0] = y[0, 0]
    for reduction in REDUCTIONS:
        ours, plain = (
            value_and_gradients(f, (p, y))
            for f in (
                partial(smooth_l1_loss, beta=0, reduction=reduction),
                partial(l1_loss, reduction=reduction),
            )
        )
        assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


# --- the linear layer and its cross-entropy ----------------------------------------------------------------------


def layer_cases() -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
    """Shapes of (N, F, C, d1, ...) and options."""
    weight = torch.tensor([0.25, 1.0, 3.0, 0.7, 0.1, 1.5, 2.0], dtype=torch.float64)
    for shape in ((9, 4, 7), (1, 4, 7), (5, 3, 7, 2), (4, 3, 7, 2, 3)):
        yield shape, {}
        yield shape, {"weight": weight, "ignore_index": 3}
        yield shape, {"label_smoothing": 0.2, "bias": True}
        yield shape, {"probabilities": True, "weight": weight, "bias": True}


def linear_inputs(shape: tuple[int, ...], bias: bool, probabilities: bool) -> tuple[list[Tensor], Tensor]:
    rng = generator("linear", shape)
    n, features, *outputs = shape
    x, w = torch.tensor(rng.normal(size=(n, features))), torch.tensor(rng.normal(size=(*outputs, features)))
    target = torch.tensor(rng.integers(0, outputs[0], (n, *outputs[1:])))
    if probabilities:
        target = torch.tensor(rng.normal(size=(n, *outputs))).softmax(1)
    return [x, w, *([torch.tensor(rng.normal(size=outputs))] if bias else [])], target


def layer_loss(function: Any, target: Tensor, **options: Any) -> Callable[..., Tensor]:
    return lambda x, w, b=None: function(x, w, target, linear_bias=b, **options)


@pytest.mark.parametrize("rows", [None, 1, 2, 4])
@pytest.mark.parametrize(("shape", "options"), list(layer_cases()))
def test_chunks_equal_the_pair(shape: tuple[int, ...], options: dict[str, Any], rows: int | None) -> None:
    options = dict(options)
    tensors, target = linear_inputs(shape, options.pop("bias", False), options.pop("probabilities", False))
    chunked = dict(options)
    if rows is not None:
        chunked["options"] = nn.LinearCrossEntropyOptions(batch_chunk_size=rows, chunking_method=None)
    for reduction in REDUCTIONS:
        ours = layer_loss(linear_cross_entropy, target, reduction=reduction, **chunked)
        theirs = layer_loss(F.linear_cross_entropy, target, reduction=reduction, **options)
        assert "Chunked" in type(ours(*(t.clone().requires_grad_() for t in tensors)).grad_fn).__name__
        for a, b in zip(
            value_and_gradients(ours, tuple(tensors)),
            value_and_gradients(theirs, tuple(tensors)),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=2e-13, atol=2e-15)
        with torch.no_grad():
            torch.testing.assert_close(ours(*tensors), theirs(*tensors), rtol=2e-13, atol=0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_layers_derivatives(reduction: str) -> None:
    """First and second, a second backward pass, gradients by some of the tensors only, and torch.func."""
    tensors, target = linear_inputs((5, 3, 4), bias=True, probabilities=False)
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=2, chunking_method=None)
    loss = layer_loss(linear_cross_entropy, target, reduction=reduction, options=options)
    leaves = tuple(t.clone().requires_grad_() for t in tensors)
    assert torch.autograd.gradcheck(loss, leaves)
    assert torch.autograd.gradgradcheck(loss, leaves)
    value = loss(*leaves).sum()
    first = torch.autograd.grad(value, leaves, retain_graph=True)
    second = torch.autograd.grad(value * 1.0, leaves, retain_graph=True)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-15, atol=0)
    for one in range(3):
        only = [t.clone().requires_grad_(place == one) for place, t in enumerate(tensors)]
        (alone,) = torch.autograd.grad(loss(*only).sum(), only[one])
        torch.testing.assert_close(alone, first[one], rtol=1e-15, atol=0)
    by_x = torch.func.grad(lambda x: loss(x, *tensors[1:]).sum())(tensors[0])
    torch.testing.assert_close(by_x, first[0], rtol=1e-13, atol=1e-16)


def test_the_layer_is_exact_in_the_tails_and_has_every_switch() -> None:
    x, w = torch.tensor([[1.0]]), torch.tensor([[30.0], [0.0], [0.0]])
    assert f"{float(linear_cross_entropy(x, w, torch.tensor([0]))):.6e}" == "1.871525e-13"
    rows, target = x.expand(6, 1), torch.tensor([0, 1, 2, -100, 1, 0])
    total = linear_cross_entropy(rows, w, target, reduction="sum")
    torch.testing.assert_close(linear_cross_entropy(rows, w, target, normalizer=8.0), total / 8)
    assert linear_cross_entropy(rows, w, target, output_dtype=torch.float64).dtype == torch.float64
    ignored = torch.full((6,), -100)
    assert math.isnan(linear_cross_entropy(rows, w, ignored))
    leaf = w.clone().requires_grad_()
    empty = linear_cross_entropy(rows, leaf, ignored, on_empty="zero")
    assert empty == 0
    assert not gradients(empty, leaf)[0].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_layer_in_narrow_types_is_no_further_off_than_torchs(reduction: str, dtype: str) -> None:
    """Value, and gradients in the Euclidean norm, against float64; many chunks of few rows."""
    rng = generator("narrow layer")
    tensors = [torch.tensor(rng.normal(size=s)).to(DTYPES[dtype]) for s in ((300, 16), (40, 16), (40,))]
    target = torch.tensor(rng.integers(0, 40, 300))
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=7, chunking_method=None)
    ours = layer_loss(linear_cross_entropy, target, reduction=reduction, options=options)
    theirs = layer_loss(F.linear_cross_entropy, target, reduction=reduction)
    found, its = (value_and_gradients(f, tuple(tensors)) for f in (ours, theirs))
    truth = value_and_gradients(lambda *t: theirs(*t), tuple(t.double() for t in tensors))
    for a, b, exact in zip(found, its, truth, strict=True):
        assert a.dtype == b.dtype == DTYPES[dtype]
        least = 0.6 * torch.finfo(DTYPES[dtype]).eps * exact.norm()
        assert (a.double() - exact).norm() <= max(1.1 * (b.double() - exact).norm(), least)


class Largest(TorchDispatchMode):
    """How many elements the largest tensor has that any operation gives."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().nbytes() > 8:  # not an expanded number
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_logits_are_never_whole(reduction: str) -> None:
    rows, features, classes = 1500, 8, 20_000
    x, w = torch.randn(rows, features, requires_grad=True), torch.randn(classes, features, requires_grad=True)
    with Largest() as seen:
        linear_cross_entropy(x, w, torch.arange(rows), reduction=reduction).sum().backward()
    assert seen.elements <= 256 * classes
    with Largest() as of_pair:
        F.linear_cross_entropy(x, w, torch.arange(rows), reduction=reduction).sum().backward()
    assert of_pair.elements == rows * classes


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("out_features", [(), (2, 3)])
def test_the_layers_module_is_torchs(out_features: tuple[int, ...], bias: bool) -> None:
    same_arguments(LinearCrossEntropyLoss, nn.LinearCrossEntropyLoss)
    theirs = nn.LinearCrossEntropyLoss(4, 5, out_features=out_features, bias=bias, dtype=torch.float64)
    ours = LinearCrossEntropyLoss(4, 5, out_features=out_features, bias=bias, dtype=torch.float64)
    assert isinstance(ours, nn.LinearCrossEntropyLoss)
    assert repr(ours) == repr(theirs)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x, target = torch.randn(6, 4, dtype=torch.float64), torch.randint(0, 5, (6, *out_features))
    for loss in (ours, theirs):
        loss(x, target).backward()
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-12, atol=1e-16)
    if not out_features:
        single = ours(x[0], target[0])
        torch.testing.assert_close(single, theirs(x[0], target[0]), rtol=1e-13, atol=0)
        for width in WIDTHS:
            assert torch.equal(ours(x, target.to(width)), ours(x, target))
