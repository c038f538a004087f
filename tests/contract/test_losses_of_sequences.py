"""The loss of all alignments (CTC), in its kernel and in torch's operations, against 256-bit truth and torch."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from steepest import losses
from steepest.errors import InputError
from steepest.losses import functional, kernels
from steepest.losses.denominator import denominator

from . import truth_sequences as truth
from .exact import mp
from .samples import DTYPES, generator
from .truth import exactly, ulp, ulps_off

LOG = logging.getLogger(__name__)
WAYS = ("kernel", "operations")
T, N, C, S = 12, 4, 5, 4
FRAMES, LENGTHS = torch.tensor([12, 9, 7, 12]), torch.tensor([4, 2, 3, 0])

ctc = functional.ctc_loss


@pytest.fixture
def goes(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Which of two ways the loss takes."""

    def choose(way: str) -> None:
        if way == "operations":
            monkeypatch.setattr(kernels, "takes", lambda *_, **__: False)

    return choose


def held(way: str, loss: Tensor) -> None:
    """What is meant is what ran."""
    names, node = [], loss.grad_fn
    while node is not None:
        names.append(type(node).__name__)
        node = node.next_functions[0][0] if node.next_functions else None
    assert any("Fused" in name for name in names) == (way == "kernel"), names


def rows(x: Tensor, n: int, frames: int) -> list[list[Any]]:
    """A sequence's frames, exactly."""
    return [exactly(x[t, n]) for t in range(frames)]


def slope(loss: Tensor, leaf: Tensor, upstream: Tensor | None = None, **options: Any) -> Tensor:
    return torch.autograd.grad(
        loss, leaf, torch.ones_like(loss) if upstream is None else upstream, **options
    )[0]


def targets(rng: np.random.Generator, lengths: list[int], classes: int, blank: int) -> list[list[int]]:
    labels = [c for c in range(classes) if c != blank]
    return [[int(c) for c in rng.choice(labels, length)] for length in lengths]


def padded(lists: list[list[int]], padding: int = -7) -> Tensor:
    width = max(map(len, lists))
    return torch.tensor([row + [padding] * (width - len(row)) for row in lists], dtype=torch.int64).reshape(
        -1, width
    )


def check(x: Tensor, lists: list[list[int]], frames: list[int], blank: int, way: str, say: str) -> None:
    """Value and gradient of each sequence, within the bars."""
    dtype = str(x.dtype).removeprefix("torch.")
    leaf = x.clone().requires_grad_()
    loss = ctc(leaf, padded(lists), tuple(frames), tuple(map(len, lists)), blank, reduction="none")
    held(way, loss)
    gradient = slope(loss, leaf)
    worst = [0.0, 0.0]
    for n, (y, count) in enumerate(zip(lists, frames, strict=True)):
        exact_rows = rows(x, n, count)
        value, share = truth.by_variables(exact_rows, y, blank)
        found = gradient[:count, n].double().flatten().tolist()
        assert not gradient[count:, n].any()
        if value == mp.inf:
            assert float(loss[n].detach()) == math.inf
            assert all(map(math.isnan, found))
            continue
        # float64 is computed in itself: each frame rounds a sum, a product and an exponential.
        lost = count * mp.mpf(2) ** -53 if dtype == "float64" or way == "operations" else 0
        if way == "operations":  # logarithms are as large as the loss
            lost *= 8 * max(abs(value), 1)
        off = max(0, abs(mp.mpf(float(loss[n].detach())) - value) - lost) / ulp(value, dtype)
        worst[0] = max(worst[0], float(off))
        slopes, terms = truth.slopes(exact_rows, share)
        for mine, exact, term in zip(found, slopes, terms, strict=True):
            off = max(0, abs(mp.mpf(mine) - exact) - 2 * lost * term) / ulp(max(abs(exact), term), dtype)
            worst[1] = max(worst[1], float(off))
    LOG.info("%s %s: value, gradient off by %.3f, %.3f ulp", say, way, *worst)
    bar = 0.51 if dtype == "float32" else 4.0
    assert worst[0] <= bar
    assert worst[1] <= (bar if dtype == "float64" else 0.6)


def test_two_truths_agree() -> None:
    rng = generator("all paths")
    for length, frames in itertools.product(range(4), range(6)):
        x = [exactly(row) for row in truth.log_softmax(rng.normal(size=(frames, 3)) * 2)]
        y = targets(rng, [length], 3, 1)[0]
        (one, shares), (other, also) = truth.by_paths(x, y, 1), truth.by_variables(x, y, 1)
        assert one == other == mp.inf or abs(one - other) < mp.mpf(2) ** -240
        for a, b in zip(itertools.chain(*shares), itertools.chain(*also), strict=True):
            assert (mp.isnan(a) and mp.isnan(b)) or abs(a - b) < mp.mpf(2) ** -240


# Logarithms of 1e9 leave no digits to those of 1, and a sum near 1 has lost them.
OF_THE_KERNEL = {"masked", "sure"}
CASES = [(way, kind) for way in WAYS for kind in truth.KINDS if way == "kernel" or kind not in OF_THE_KERNEL]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("way", "kind"), CASES)
def test_value_and_gradient(way: str, kind: str, dtype: str, goes: Callable[[str], None]) -> None:
    """Of few classes, so labels repeat; of as many frames as are needed and of many; of empty targets."""
    goes(way)
    rng = generator("alignments", kind, dtype)
    for blank, classes in ((0, 3), (2, 6)):
        lengths = [0, 1, 2, 3, 5, 8, 13, 13]
        lists = targets(rng, lengths, classes, blank)
        needed = [len(y) + sum(a == b for a, b in itertools.pairwise(y)) for y in lists]
        frames = [max(1, n + int(more)) for n, more in zip(needed, [3, 0, 1, 5, 0, 11, 2, 14], strict=True)]
        paths = [truth.alignment(rng, y, n, blank) for y, n in zip(lists, frames, strict=True)]
        most = max(frames) + 2
        path = np.array([p + [blank] * (most - len(p)) for p in paths]).T
        x = torch.tensor(truth.scores(kind, rng, (most, len(lists), classes), path)).to(DTYPES[dtype])
        check(x, lists, frames, blank, way, f"{kind} {dtype}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_long_sequences(dtype: str) -> None:
    """Of 2,000 frames: torch's float32 has lost its digits."""
    rng = generator("long", dtype)
    lists = targets(rng, [25], 7, 0)
    x = torch.tensor(truth.scores("plain", rng, (2000, 1, 7))).to(DTYPES[dtype])
    check(x, lists, [2000], 0, "kernel", f"long {dtype}")
    if dtype == "float32":
        leaf = x.clone().requires_grad_()
        loss = F.ctc_loss(leaf, padded(lists), (2000,), (25,), reduction="none")
        share = truth.by_variables(rows(x, 0, 2000), lists[0], 0)[1]
        slopes, terms = truth.slopes(rows(x, 0, 2000), share)
        found = slope(loss, leaf).flatten().tolist()
        worst = max(ulps_off(a, b, dtype, t) for a, b, t in zip(found, slopes, terms, strict=True))
        assert worst > 100


def test_a_loss_near_0_keeps_its_digits() -> None:
    """All but 1e-11 of the probability is one alignment's; the rest is beside it."""
    x = torch.zeros(20, 1, 4, dtype=torch.float64)
    path = [0, 1, 1, 0, 2, 2, 0, 0, 3, 3, 0, 1, 0, 0, 0, 2, 2, 0, 3, 0]
    x[torch.arange(20), 0, path] = 30.0
    for dtype in ("float32", "float64"):
        given = x.log_softmax(-1).to(DTYPES[dtype])
        value, _ = truth.by_variables(rows(given, 0, 20), [1, 2, 3, 1, 2, 3], 0)
        assert 1e-12 < value < 1e-11
        for reduction, divisor in (("sum", 1), ("mean", 6)):
            found = float(ctc(given, torch.tensor([[1, 2, 3, 1, 2, 3]]), (20,), (6,), reduction=reduction))
            assert ulps_off(found, value / divisor, dtype) <= (0.51 if dtype == "float32" else 16)
    theirs = float(F.ctc_loss(x.log_softmax(-1).float(), torch.tensor([[1, 2, 3, 1, 2, 3]]), (20,), (6,)))
    assert ulps_off(theirs, value / 6, "float32") > 1e6


# --- as torch's ----------------------------------------------------------------------------------------------------


def ordinary(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    rng = generator("ordinary sequences")
    x = torch.tensor(truth.scores("plain", rng, (T, N, C))).to(dtype)
    return x, torch.tensor(rng.integers(1, C, (N, S)))


def both(x: Tensor, *given: Any, **options: Any) -> list[list[Tensor]]:
    """Value and gradient of ours and of torch's."""
    results = []
    for function in (ctc, F.ctc_loss):
        leaf = x.clone().requires_grad_()
        loss = function(leaf, *given, **options)
        upstream = torch.linspace(0.5, 2.0, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
        results.append([loss.detach(), slope(loss, leaf, upstream)])
    return results


def alike(x: Tensor, *given: Any, **options: Any) -> None:
    for mine, its in zip(*both(x, *given, **options), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-11, atol=1e-13, equal_nan=True)


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("way", WAYS)
def test_equals_torch(way: str, reduction: str, zero_infinity: bool, goes: Callable[[str], None]) -> None:
    """Padded and in one row, with lengths of any kind, impossible ones among them."""
    goes(way)
    x, y = ordinary()
    options = {"reduction": reduction, "zero_infinity": zero_infinity}
    in_a_row = torch.cat([row[:length] for row, length in zip(y, LENGTHS.tolist(), strict=True)])
    short = torch.tensor([12, 1, 7, 0])
    for frames in (FRAMES, short):
        for labels in (y, in_a_row, y.int(), y.t().contiguous().t()):
            alike(x, labels, frames, LENGTHS, **options)
        alike(x, y, tuple(frames.tolist()), tuple(LENGTHS.tolist()), **options)
        alike(x.flip(-1), 4 - y, frames.int(), LENGTHS.int(), 4, **options)
        alike(x.transpose(0, 1).contiguous().transpose(0, 1), y, frames, LENGTHS, **options)
    alike(x[:, 0], y[0], torch.tensor(12), torch.tensor(4), **options)
    alike(x[:, 1], y[1:2], (9,), (2,), **options)
    alike(x, y[:, :0], FRAMES, LENGTHS * 0, **options)
    alike(x * 3 + 1, y, FRAMES, LENGTHS, **options)  # no logarithms of probabilities


@pytest.mark.parametrize("way", WAYS)
def test_impossible_classes_and_nan(way: str, goes: Callable[[str], None]) -> None:
    """-inf is a probability of 0, of which torch's gradient is NaN; NaN is told where a frame counts."""
    goes(way)
    x, _ = ordinary()
    labels = torch.tensor([[1, 2, 1, 2]]).expand(N, S)
    for dead in (3, 2, 0):
        given = x.clone()
        given[2, :, dead] = -math.inf
        (loss, gradient), (its, slopes) = both(given, labels, FRAMES, LENGTHS, reduction="none")
        torch.testing.assert_close(loss, its)
        can = loss.isfinite()  # nothing but blanks are an empty target's
        assert can.tolist() == [True, True, True, dead != 0]
        assert not gradient[:, can].isnan().any()
        assert not gradient[2, can, dead].any()
        assert slopes[2, :, dead].isnan().all()
    for lost in (0, 1, 3):  # the last is nobody's label
        given = x.clone()
        given[5, 0, lost] = math.nan
        (loss, gradient), _ = both(given, labels, FRAMES, LENGTHS, reduction="none")
        assert loss.isnan().tolist() == [True, False, False, False]
        assert gradient[:, 0].isnan().all()
        assert not gradient[:, 1:].isnan().any()
        short = ctc(given, labels, LENGTHS * 0 + 6, (4, 4, 4, 4), reduction="none", zero_infinity=True)
        assert short.isnan().tolist() == [True, False, False, False]
        assert ctc(given[3:], labels, (3,) * 4, (4,) * 4, reduction="none").isnan()[
            0
        ]  # though there is no alignment
    given[5, 0, 0] = math.nan
    for reduction in ("mean", "sum"):
        assert ctc(given, labels, FRAMES, LENGTHS, reduction=reduction, zero_infinity=True).isnan()
    given = x.clone()
    given[9:, 1] = math.nan  # behind its last frame
    torch.testing.assert_close(both(given, labels, FRAMES, LENGTHS)[0], both(x, labels, FRAMES, LENGTHS)[0])


def test_masks_of_any_size_are_as_impossible() -> None:
    """A mask that every alignment meets is no news to their shares; the loss is as large as it."""
    x, _ = ordinary()
    labels, shares = torch.tensor([[1, 2, 1, 2]]), []
    for mask in (0.0, -1e4, -1e9, -3e38, -1.7e308):
        leaf = x[:, :1].clone()
        leaf[4] += mask
        leaf.requires_grad_()
        loss = ctc(leaf, labels, (T,), (S,), reduction="sum")
        torch.testing.assert_close(loss.detach(), ctc(x[:, :1], labels, (T,), (S,), reduction="sum") - mask)
        if mask > -1e30:  # where adding it has left the frame's own numbers
            shares.append(leaf.detach().exp() - slope(loss, leaf))
    for share in shares[1:]:
        torch.testing.assert_close(share, shares[0], rtol=1e-6, atol=1e-6)


def test_no_sequences_and_no_frames() -> None:
    """Which torch refuses."""
    x, y = ordinary()
    none = x[:, :0], y[:0], FRAMES[:0], LENGTHS[:0]
    assert ctc(*none).isnan()
    assert ctc(*none, on_empty="zero") == 0
    assert ctc(*none, reduction="sum") == 0
    assert ctc(*none, reduction="none").shape == (0,)
    certain = torch.tensor([[-math.inf, 0.0]] * 2)
    assert str(float(ctc(certain, torch.tensor([1]), (2,), (1,)))) == "0.0"  # and no minus 0
    assert ctc(x[:0], y, (0,) * N, (0, 1, 0, 2), reduction="none").tolist() == [0, math.inf, 0, math.inf]


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(half: torch.dtype) -> None:
    """torch refuses them."""
    x, y = ordinary(torch.float32)
    given = x.to(half)
    leaf, wide = given.clone().requires_grad_(), given.float().requires_grad_()
    loss, its = ctc(leaf, y, FRAMES, LENGTHS), ctc(wide, y, FRAMES, LENGTHS)
    held("kernel", loss)
    assert torch.equal(loss, its.to(half))
    assert torch.equal(slope(loss, leaf), slope(its, wide).to(half))
    with torch.autocast("cpu", half):
        assert torch.equal(ctc(given, y, FRAMES, LENGTHS), its)


# --- the ways it goes, and switches --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # of torch's own forward mode
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_derivatives_of_any_kind(reduction: str) -> None:
    x, y = ordinary()

    def loss(x: Tensor) -> Tensor:
        return ctc(x, y, FRAMES, LENGTHS, reduction=reduction)

    def of_logits(z: Tensor) -> Tensor:
        return loss(z.log_softmax(-1))

    z = (x + torch.linspace(-1, 1, T).double().reshape(T, 1, 1)).requires_grad_()
    assert torch.autograd.gradcheck(of_logits, z)
    assert torch.autograd.gradgradcheck(of_logits, z)
    leaf = x.clone().requires_grad_()
    value = loss(leaf)
    upstream = torch.linspace(0.5, 2.0, value.numel()).double().reshape(value.shape)
    first, again = (slope(value, leaf, upstream, retain_graph=True) for _ in range(2))
    assert torch.equal(first, again)
    torch.testing.assert_close(slope(value, leaf, upstream, create_graph=True), first, rtol=1e-11, atol=1e-14)
    pulled = torch.func.vjp(loss, x)[1](upstream)[0]
    torch.testing.assert_close(pulled, first, rtol=1e-11, atol=1e-14)
    direction = torch.linspace(-1, 1, x.numel()).double().reshape(x.shape)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(loss(forward_ad.make_dual(x, direction))).tangent
    torch.testing.assert_close((tangent * upstream).sum(), (first * direction).sum(), rtol=1e-11, atol=1e-14)


def test_vmap_over_sequences_and_batches() -> None:
    x, y = ordinary()
    one = torch.func.vmap(lambda *given: ctc(*given, reduction="none"), in_dims=(1, 0, 0, 0))
    torch.testing.assert_close(one(x, y, FRAMES, LENGTHS), ctc(x, y, FRAMES, LENGTHS, reduction="none"))
    many = torch.func.vmap(lambda x: ctc(x, y, FRAMES, LENGTHS))(torch.stack([x, x / 2]))
    torch.testing.assert_close(many[1], ctc(x / 2, y, FRAMES, LENGTHS))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_compiled_as_one_operator(reduction: str) -> None:
    x, y = ordinary()
    for switches in ({}, {"normalizer": 7.0}) if reduction == "mean" else ({},):
        module = losses.CTCLoss(reduction=reduction, zero_infinity=True, **switches)
        compiled = torch.compile(
            lambda *given, module=module: module(*given) * 2, fullgraph=True, backend="aot_eager"
        )
        found = []
        for function in (lambda *given, module=module: module(*given) * 2, compiled):
            leaf = x.clone().requires_grad_()
            loss = function(leaf, y, FRAMES, LENGTHS)
            found.append((loss.detach(), slope(loss, leaf)))
        for mine, its in zip(*found, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-14, atol=1e-16)
    with pytest.raises(InputError, match="hold 0, which is the blank"):
        compiled(x, y * 0, FRAMES, LENGTHS)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_compiled_it_has_a_second_derivative(reduction: str) -> None:
    x, y = ordinary()

    def loss(x: Tensor) -> Tensor:
        return ctc(x.log_softmax(-1), y, FRAMES, LENGTHS, reduction=reduction, on_empty="zero").sum()

    found = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="eager")):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(leaf), leaf, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), leaf)[0])
    assert found[0].norm() > 1e-3
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


def test_meta_tensors_and_changed_inputs() -> None:
    x, y = ordinary()
    for lengths in ((FRAMES, LENGTHS), (FRAMES.to("meta"), LENGTHS.to("meta"))):
        there = ctc(x.to("meta"), y.to("meta"), *lengths, reduction="none")
        assert (there.shape, there.dtype, there.is_meta) == ((N,), torch.float64, True)
    inner = x.clone().requires_grad_() * 1.0
    loss = ctc(inner, y, FRAMES, LENGTHS)
    with torch.no_grad():
        inner.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("way", WAYS)
def test_the_switches(way: str, goes: Callable[[str], None]) -> None:
    goes(way)
    x, y = ordinary(torch.float32)
    each = ctc(x.double(), y, FRAMES, LENGTHS, reduction="none") / LENGTHS.clamp(min=1)
    leaf = x.clone().requires_grad_()
    loss = losses.CTCLoss(normalizer=7.0)(leaf, y, FRAMES, LENGTHS)
    torch.testing.assert_close(loss.detach().double(), each.sum() / 7, rtol=1e-6, atol=0)
    plain = slope(losses.CTCLoss()(leaf, y, FRAMES, LENGTHS), leaf)
    torch.testing.assert_close(slope(loss, leaf), plain * N / 7)
    wide = losses.CTCLoss(output_dtype=torch.float64)(x, y, FRAMES, LENGTHS)
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide, each.mean(), rtol=1e-14, atol=0)
    over = x.clone().requires_grad_()
    torch.testing.assert_close(
        slope(losses.CTCLoss(inplace=True)(over * 1.0, y, FRAMES, LENGTHS), over), plain
    )
    with pytest.raises(TypeError, match="did you mean"):
        losses.CTCLoss(on_emty="zero")  # type: ignore[call-arg]
    assert denominator(losses.CTCLoss(), y) == N
    with pytest.raises(InputError, match="normalizer="):
        denominator(losses.CTCLoss(), y[0])


def test_threads_change_no_bit() -> None:
    rng = generator("threads")
    x = torch.tensor(truth.scores("plain", rng, (60, 9, 6))).float()
    y, frames, lengths = torch.tensor(rng.integers(1, 6, (9, 20))), (60,) * 9, tuple(range(12, 21))
    before, found = torch.get_num_threads(), []
    try:
        for num_threads in (1, 4):
            torch.set_num_threads(num_threads)
            leaf = x.clone().requires_grad_()
            loss = ctc(leaf, y, frames, lengths)
            found.append((loss.detach(), slope(loss, leaf)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# --- what is refused -----------------------------------------------------------------------------------------------

X, Y = ordinary(torch.float32)
TEXT: Any = "four"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"log_probs": X.tolist()}, "log_probs is of type list"),
    ({"log_probs": X.to_sparse()}, "log_probs is sparse"),
    ({"log_probs": X.long()}, "log_probs is torch.int64"),
    ({"log_probs": X[..., :0]}, r"\(12, 4, 0\); it must be \(T, N, C\)"),
    ({"log_probs": X[None]}, r"\(1, 12, 4, 5\)"),
    ({"targets": Y.tolist()}, "targets is of type list"),
    ({"targets": Y.to_sparse()}, "targets is sparse"),
    ({"targets": Y.float()}, "targets are torch.float32; they must be integer"),
    ({"targets": Y.bool()}, "targets are torch.bool"),
    ({"targets": Y[:3]}, r"shape \(3, 4\); they must be \(4, S\)"),
    ({"targets": Y[None]}, r"shape \(1, 4, 4\)"),
    ({"targets": Y[:, :3]}, r"target_lengths has 4, and targets of shape \(4, 3\)"),
    ({"targets": Y.flatten()}, "are 16 classes, and target_lengths adds up to 9"),
    ({"targets": Y * 0}, "targets hold 0, which is the blank"),
    ({"targets": Y + 4}, r"class indices of 5 classes lie in \[0, 4\]"),
    ({"targets": -Y}, "targets run from -4"),
    ({"blank": 5}, r"blank is 5; it must be one of the 5 classes, an integer in \[0, 4\]"),
    ({"blank": -1}, "blank is -1"),
    ({"blank": 1.0}, "blank is 1.0"),
    ({"input_lengths": FRAMES + 1}, "input_lengths has 13, and log_probs has 12 frames"),
    ({"input_lengths": FRAMES - 8}, "input_lengths has -1; no length is below 0"),
    ({"input_lengths": FRAMES[:3]}, r"input_lengths has shape \(3,\); it must be \(4,\)"),
    ({"input_lengths": FRAMES.float()}, "input_lengths are torch.float32"),
    ({"input_lengths": (12, 12)}, "input_lengths has 2 numbers for 4 sequences"),
    ({"input_lengths": 12}, "input_lengths is 12; it must be a tensor or a tuple"),
    ({"input_lengths": TEXT}, "input_lengths is 'four'"),
    ({"target_lengths": LENGTHS - 1}, "target_lengths has -1"),
    ({"target_lengths": LENGTHS.to_sparse()}, "target_lengths is sparse"),
    ({"target_lengths": (1.0,) * 4}, r"target_lengths is \(1.0"),
    ({"reduction": "average"}, "choose none, mean or sum"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_is_answered_in_one_sentence(change: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"log_probs": X, "targets": Y, "input_lengths": FRAMES, "target_lengths": LENGTHS}
    with pytest.raises(InputError, match=said) as caught:
        ctc(**{**given, **change})
    assert "\n" not in str(caught.value)
