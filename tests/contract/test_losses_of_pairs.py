"""Losses of pairs, triplets and lists of classes, in their kernels and in torch's operations, against 256-bit truth."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from steepest import losses
from steepest.errors import InputError
from steepest.losses import functional, fused, kernels, several
from steepest.losses.denominator import denominator

from . import truth_pairs
from .exact import mp
from .samples import DTYPES, generator
from .test_losses_of_torch import DRAWS, gradients, worst
from .truth import exactly
from .truth_torch import real_pairs

LOG = logging.getLogger(__name__)
WIDTH = 5
BARS = {"float32": 0.51, "float64": 4.0}
# Of float64, which is computed in itself: two directions have been rounded before they are compared.
OF_DIRECTIONS = {("kernel", "float64"): 6.0, ("operations", "float64"): 10.0}
WAYS = ("kernel", "operations")


@pytest.fixture
def goes(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Which of two ways a loss takes."""

    def choose(way: str) -> None:
        if way == "operations":
            monkeypatch.setattr(fused, "_may_be_plain", lambda *_: False)
            monkeypatch.setattr(several, "takes", lambda *_: False)
            monkeypatch.setattr(kernels, "takes", lambda *_, **__: False)

    return choose


def held(way: str, loss: Tensor) -> None:
    """What is meant is what ran."""
    assert ("Fused" in type(loss.grad_fn).__name__) == (way == "kernel")


def columns(rows: list[tuple[Any, ...]], place: int) -> list[Any]:
    """One part of every row's truth, of a vector all its entries."""
    return [x for row in rows for x in (row[place] if isinstance(row[place], list) else [row[place]])]


def check(found: list[Tensor], truths: Sequence[tuple[Any, ...] | None], dtype: str, bar: float) -> None:
    """Results, against the first columns of their truths, in units of the terms in the columns behind."""
    kept = [i for i, row in enumerate(truths) if row is not None]
    assert len(kept) > 0.8 * len(truths)
    rows = [row for row in truths if row is not None]
    found = [result[kept] for result in found]
    seen = []
    for place, result in enumerate(found):
        terms = columns(rows, len(found) + place) if len(rows[0]) > len(found) else None
        seen.append(worst(result, columns(rows, place), dtype, terms))
    LOG.info("%s rows; value, gradients off by %s ulp", len(rows), [round(off, 3) for off, _ in seen])
    for place, (off, at) in enumerate(seen):
        assert off <= bar, f"result {place} off by {off:.3g} ulp at {at}"


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("margin", [0.0, 0.75, -2.0])
@pytest.mark.parametrize("way", WAYS)
def test_ranking(way: str, margin: float, dtype: str, goes: Callable[[str], None]) -> None:
    """Within a rounding, where the two differences cancel too."""
    goes(way)
    rng = generator("ranking", dtype, margin)
    a, b = (torch.tensor(c).to(DTYPES[dtype]) for c in real_pairs(rng, np.finfo(dtype), DRAWS, margin or 1.0))
    finite = a.isfinite() & b.isfinite()
    a, b = a[finite], b[finite]
    y = torch.tensor(rng.choice([-1.0, 1.0], len(a))).to(DTYPES[dtype])
    leaves = [part.clone().requires_grad_() for part in (a, b, y)]
    loss = functional.margin_ranking_loss(*leaves, margin=margin, reduction="none")
    held(way, loss)
    rows = [truth_pairs.ranking(*row, mp.mpf(margin)) for row in zip(*map(exactly, (a, b, y)), strict=True)]
    check([loss, *gradients(loss, *leaves)], rows, dtype, BARS[dtype])


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("margin", [0.0, 0.6, -0.5])
@pytest.mark.parametrize("way", WAYS)
def test_cosines(way: str, margin: float, dtype: str, goes: Callable[[str], None]) -> None:
    goes(way)
    rng = generator("cosines", dtype, margin)
    drawn = truth_pairs.vectors(rng, np.finfo(dtype), DRAWS // WIDTH, WIDTH)
    a, b = (torch.tensor(part).to(DTYPES[dtype]) for part in drawn)
    y = torch.tensor(rng.choice([-1, 1], len(a)))
    leaves = [part.clone().requires_grad_() for part in (a, b)]
    loss = functional.cosine_embedding_loss(*leaves, y, margin=margin, reduction="none")
    held(way, loss)
    rows = [
        truth_pairs.cosine(exactly(p), exactly(q), int(s), mp.mpf(margin))
        for p, q, s in zip(a, b, y, strict=True)
    ]
    check([loss, *gradients(loss, *leaves)], rows, dtype, OF_DIRECTIONS.get((way, dtype), BARS[dtype]))


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize(
    ("p", "eps", "swap"),
    [
        (2.0, 1e-6, False),
        (2.0, 1e-6, True),
        (2.0, 0.0, True),
        (1.0, 1e-6, False),
        (3.0, 0.5, True),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_triplets(
    way: str, p: float, eps: float, swap: bool, dtype: str, goes: Callable[[str], None]
) -> None:
    goes(way)
    rng = generator("triplets", dtype, p, eps)
    info = np.finfo(dtype)
    drawn = truth_pairs.vectors(rng, info, DRAWS // WIDTH // 2, WIDTH)
    a, q = (torch.tensor(np.concatenate([part, part])).to(DTYPES[dtype]) for part in drawn)
    n = torch.cat([q.roll(3, 0)[: len(q) // 2], a[len(a) // 2 :] + q[len(q) // 2 :] / 4])
    fits = (a.abs().amax(1) < float(info.max) / 10) & (n.abs().amax(1) < float(info.max) / 10)
    a, q, n = a[fits], q[fits], n[fits]
    leaves = [part.clone().requires_grad_() for part in (a, q, n)]
    loss = functional.triplet_margin_loss(*leaves, margin=0.75, p=p, eps=eps, swap=swap, reduction="none")
    held("operations" if p != 2 else way, loss)
    rows = [
        truth_pairs.triplet(*map(exactly, row), mp.mpf(0.75), mp.mpf(p), mp.mpf(eps), swap)
        for row in zip(a, q, n, strict=True)
    ]
    check([loss, *gradients(loss, *leaves)], rows, dtype, BARS[dtype])


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("way", WAYS)
def test_labels(way: str, dtype: str, goes: Callable[[str], None]) -> None:
    """Beside offsets, at exact ties, with lists of any length and classes that are listed twice."""
    goes(way)
    rng = generator("labels", dtype)
    m = DRAWS // WIDTH // 4 + 1
    scores = np.concatenate(
        [
            rng.normal(size=(m, WIDTH)) * 2,
            10.0 ** rng.uniform(0, 8, (m, 1)) + rng.normal(size=(m, WIDTH)),
            rng.integers(-3, 3, (m, WIDTH)).astype(np.float64),
            rng.normal(size=(m, WIDTH)) * 10.0 ** rng.uniform(-30, 9, (m, 1)),
        ]
    )
    x = torch.tensor(scores).to(DTYPES[dtype])
    target = torch.tensor(rng.integers(-1, WIDTH, x.shape))
    target[0], target[1] = -1, torch.arange(WIDTH)
    leaf = x.clone().requires_grad_()
    loss = functional.multilabel_margin_loss(leaf, target, reduction="none")
    held(way, loss)
    rows = [truth_pairs.labels(exactly(r), t.tolist()) for r, t in zip(x, target, strict=True)]
    check([loss, *gradients(loss, leaf)], rows, dtype, BARS[dtype])


# --- conventions, ends, and the ways a loss goes ----------------------------------------------------------------


def row(*numbers: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor([numbers], dtype=dtype)


# A word of both functional modules, the tensors, and options.
CASES: dict[str, tuple[str, tuple[Tensor, ...], dict[str, Any]]] = {
    "ranking": ("margin_ranking_loss", (row(1, 2, 0.5), row(1, 1, 1), row(1, -1, 1)), {"margin": 0.5}),
    "hinge": ("hinge_embedding_loss", (row(1, 0.5, 2), row(-1, -1, -1)), {}),
    "hinge, whole": ("hinge_embedding_loss", (row(1, 0.5, 2), row(-1, -1, -1).long()), {}),
    "cosine": ("cosine_embedding_loss", (row(1, 0), row(0, 1), torch.tensor([-1])), {}),
    "triplet": ("triplet_margin_loss", (row(0, 0), row(0, 1), row(0, 2)), {"eps": 0.0}),
    "swapped": ("triplet_margin_loss", (row(0, 0), row(2, 0), row(1, 1)), {"eps": 0.0, "swap": True}),
    "one point": ("triplet_margin_loss", (row(0, 0), row(0, 0), row(0, 0)), {"eps": 0.0}),
    "labels": ("multilabel_margin_loss", (row(0, 1, 3), torch.tensor([[1, -1, 0]])), {}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_ties_and_kinks_are_torchs(name: str, way: str, goes: Callable[[str], None]) -> None:
    """A margin just met, right angles, two distances alike, a distance of 0."""
    goes(way)
    word, tensors, options = CASES[name]
    found = []
    for function in (getattr(functional, word), getattr(F, word)):
        most = 1 if "hinge" in word else 3  # of the signs there is no gradient
        leaves = [
            t.clone().requires_grad_() if t.is_floating_point() and place < most else t
            for place, t in enumerate(tensors)
        ]
        loss = function(*leaves, reduction="sum", **options)
        if function is getattr(functional, word):
            held(way, loss)
        learning = [leaf for leaf in leaves if leaf.requires_grad]
        found.append([loss.detach(), *torch.autograd.grad(loss, learning)])
    for mine, its in zip(*found, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-6, atol=0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", CASES)
def test_nan_in_any_vector_is_nan(name: str, place: int, way: str, goes: Callable[[str], None]) -> None:
    goes(way)
    word, tensors, options = CASES[name]
    ours = getattr(functional, word)
    signs = (name, place) in (("ranking", 2), ("hinge", 1))
    if place >= len(tensors) or not tensors[place].is_floating_point() or signs:
        return
    spoilt = list(tensors)
    spoilt[place] = torch.full_like(tensors[place], math.nan)
    assert ours(*spoilt, **options).isnan()
    for reduction in ("none", "sum"):
        assert ours(*spoilt, reduction=reduction, **options).isnan().all()


FAR = [
    # what torch gives, ours, and the vectors; float32
    (F.cosine_embedding_loss, (row(1, 0), row(1, 1e-4), torch.tensor([1])), 0.0, 5.001e-9),
    (F.cosine_embedding_loss, (row(3e19, 4e19), row(1e20, 0), torch.tensor([1])), math.nan, 0.4),
    (F.triplet_margin_loss, (row(0, 0), row(1e20, 0), row(0, 0)), math.inf, 1e20),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("theirs", "vectors", "of_torch", "truth"), FAR)
def test_where_torch_is_wrong(
    theirs: Any, vectors: tuple[Tensor, ...], of_torch: float, truth: float, way: str, goes: Callable[[str], None]
) -> None:  # fmt: skip
    goes(way)
    options = {"eps": 0.0} if theirs is F.triplet_margin_loss else {}
    ours = getattr(functional, theirs.__name__)
    torch.testing.assert_close(ours(*vectors, **options), torch.tensor(truth), rtol=1e-5, atol=0)
    torch.testing.assert_close(theirs(*vectors, **options), torch.tensor(of_torch), equal_nan=True)


def test_a_short_distance_has_a_gradient() -> None:
    zero, short = row(0, 0), row(1e-30, 0)
    for function, slope in ((functional.triplet_margin_loss, -1.0), (F.triplet_margin_loss, 0.0)):
        leaf = short.clone().requires_grad_()
        assert gradients(function(zero, zero, leaf, eps=0.0), leaf)[0].tolist() == [[slope, 0.0]]


def test_infinite_scores_cost_what_the_hinge_says() -> None:
    a, b, y = (torch.tensor(c) for c in ([math.inf, -math.inf, 1.0], [0.0, 0.0, math.inf], [1.0, 1.0, -1.0]))
    assert functional.margin_ranking_loss(a, b, y, reduction="none").tolist() == [0.0, math.inf, 0.0]
    scores, classes = row(math.inf, 0, -math.inf), torch.tensor([[0, 1, -1]])
    assert functional.multilabel_margin_loss(scores, classes) == 0
    assert functional.multilabel_margin_loss(scores, torch.tensor([[2, -1, -1]])) == math.inf


def test_a_score_of_nan_counts() -> None:
    scores, classes = row(0, math.nan, 3), torch.tensor([[0, -1, -1]])
    assert functional.multilabel_margin_loss(scores, classes).isnan()
    assert functional.multilabel_margin_loss(scores.double().half(), classes).isnan()
    assert not F.multilabel_margin_loss(scores, classes).isnan()
    nothing = torch.empty(0, 3), torch.empty(0, 3, dtype=torch.int64)
    assert functional.multilabel_margin_loss(*nothing).isnan()
    assert functional.multilabel_margin_loss(*nothing, on_empty="zero") == 0


PAIRS = {
    "margin_ranking": ((4, 3), (4, 3), (4, 3)),
    "cosine_embedding": ((4, 3), (4, 3), (4,)),
    "triplet_margin": ((4, 3), (4, 3), (4, 3)),
    "triplet_margin_with_distance": ((4, 3), (4, 3), (4, 3)),
}


def given(name: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    rng = generator("pairs", name)
    tensors = [torch.tensor(rng.normal(size=shape)) for shape in PAIRS[name]]
    if losses.LOSSES[name].formula.target == "sign":
        tensors[2] = tensors[2].sign()
    return [tensor.to(dtype) for tensor in tensors]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("name", PAIRS)
def test_gradients_where_they_are_wanted(
    name: str, wanted: tuple[int, ...], reduction: str, goes: Callable[[str], None]
) -> None:
    """By each tensor alone, turned ones too; twice from one graph; and with the graph kept, as without."""
    if name == "cosine_embedding" and 2 in wanted:
        return
    loss = losses.LOSSES[name](reduction=reduction)
    found = []
    for way in WAYS:
        goes(way)
        tensors = given(name)
        tensors[1] = tensors[1].t().contiguous().t()
        leaves = [t.requires_grad_() if place in wanted else t for place, t in enumerate(tensors)]
        value = loss(*leaves)
        held(way, value)
        asked = [leaves[place] for place in wanted]
        upstream = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
        first = torch.autograd.grad(value, asked, upstream, retain_graph=True)
        again = torch.autograd.grad(value, asked, upstream, retain_graph=True)
        smooth = torch.autograd.grad(value, asked, upstream, create_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        found.append([value.detach(), *first, *(g.detach() for g in smooth)])
        with torch.no_grad():
            torch.testing.assert_close(loss(*leaves), value.detach(), rtol=1e-15, atol=0)
    for mine, its in zip(*found, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", [*PAIRS, "gaussian_nll"])
def test_one_tensor_given_twice_has_both_its_gradients(name: str) -> None:
    if name == "gaussian_nll":
        first, other = torch.linspace(1, 2, 4), torch.linspace(0, 1, 4)
        x = first.double().requires_grad_()
        value = losses.GaussianNLLLoss(reduction="sum")(x, other.double(), x)
    else:
        x, other, last = given(name)
        last = last if losses.LOSSES[name].formula.target == "sign" else other
        x.requires_grad_()
        value = losses.LOSSES[name](reduction="sum")(x, x, last)
    (plain,) = torch.autograd.grad(value, x, retain_graph=True)
    (smooth,) = torch.autograd.grad(value, x, create_graph=True)
    torch.testing.assert_close(smooth, plain, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", PAIRS)
def test_shapes_broadcast_if_asked(name: str) -> None:
    tensors = given(name)
    short = [tensors[0], tensors[1][:1], tensors[2]]
    loss = losses.LOSSES[name](reduction="none", strict_shape=False)
    full = [tensors[0], tensors[1][:1].expand(4, 3), tensors[2]]
    torch.testing.assert_close(loss(*short), loss(*full))
    peer = getattr(nn, losses.LOSSES[name].__name__)(reduction="none")
    torch.testing.assert_close(loss(*short), peer(*short), rtol=1e-12, atol=1e-12)
    with pytest.raises(InputError, match=r"\(1, 3\).*strict_shape=False"):
        losses.LOSSES[name]()(*short)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # of torch's own forward mode
@pytest.mark.parametrize("name", PAIRS)
def test_meta_tensors_forward_mode_and_changed_inputs(name: str) -> None:
    tensors = given(name)
    for reduction in ("none", "mean"):
        loss = losses.LOSSES[name](reduction=reduction)
        there, here = loss(*(t.to("meta") for t in tensors)), loss(*tensors)
        assert (there.shape, there.dtype, there.is_meta) == (here.shape, here.dtype, True)
    leaf = tensors[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, *tensors[1:]), leaf)
    direction = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    with forward_ad.dual_level():
        dual = loss(forward_ad.make_dual(tensors[0], direction), *tensors[1:])
        tangent = forward_ad.unpack_dual(dual).tangent
    torch.testing.assert_close(tangent, (gradient * direction).sum(), rtol=1e-12, atol=1e-15)
    inner = leaf * 1.0
    value = loss(inner, *tensors[1:])
    with torch.no_grad():
        inner.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@pytest.mark.parametrize("name", [*PAIRS, "multilabel_margin", "hinge_embedding"])
def test_the_switches(name: str) -> None:
    tensors = given(name, torch.float32) if name in PAIRS else [torch.linspace(-1, 1, 12).reshape(4, 3)]
    if name not in PAIRS:
        tensors.append(torch.tensor([[1, -1, 1]]).expand(4, 3))
    make = losses.LOSSES[name]
    total = make(reduction="sum")(*tensors)
    torch.testing.assert_close(make(normalizer=7.0)(*tensors), total / 7)
    assert make(output_dtype=torch.float64)(*tensors).dtype == torch.float64
    assert make(inplace=True)(*tensors) == make()(*tensors)
    empty = [t[:0] for t in tensors]
    assert make()(*empty).isnan()
    assert make(on_empty="zero")(*empty) == 0
    with pytest.raises(TypeError, match="did you mean"):
        make(on_emty="zero")


def test_a_distance_of_ones_own_learns_and_may_be_a_module() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x: Tensor, z: Tensor) -> Tensor:
            return ((x - z).abs() * self.weight).sum(-1)

    slopes = []
    for cls in (losses.TripletMarginWithDistanceLoss, nn.TripletMarginWithDistanceLoss):
        loss = cls(distance_function=Weighted(), margin=3.0, swap=True)
        assert [name for name, _ in loss.named_parameters()] == ["distance_function.weight"]
        loss(*given("triplet_margin")).backward()
        slopes.append(loss.distance_function.weight.grad)
    torch.testing.assert_close(slopes[0], slopes[1])


def test_torchs_distance_is_the_exact_one_wherever_it_is_given() -> None:
    tensors = given("triplet_margin", torch.float32)
    plain = functional.triplet_margin_loss(*tensors)
    for distance in (None, torch.pairwise_distance, nn.PairwiseDistance(), nn.PairwiseDistance(keepdim=True)):
        assert functional.triplet_margin_with_distance_loss(*tensors, distance_function=distance) == plain


def test_what_a_mean_divides_by() -> None:
    signs, lists = torch.ones(4), torch.zeros(5, 3, dtype=torch.int64)
    assert denominator(losses.MarginRankingLoss(), signs) == 4
    assert denominator(losses.CosineEmbeddingLoss(), signs) == 4
    assert denominator(losses.HingeEmbeddingLoss(), signs) == 4
    assert denominator(losses.MultiLabelMarginLoss(), lists) == 5
    assert denominator(losses.MultiLabelMarginLoss(), lists[0]) == 1
    with pytest.raises(InputError, match="no targets"):
        denominator(losses.TripletMarginLoss(), signs)
